//! Network namespaces without wires, addresses or services, for measurements that lay their own.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::Result;

use crate::{
    Namespace,
    removal::{self, Registration},
};

/// Namespaces for a guest, a gateway and an internet. They are removed as a [`crate::Lab`] is: when this is dropped, and at a signal.
#[derive(Debug)]
pub struct Bare {
    /// Where the traffic comes from.
    pub guest: Namespace,
    /// What is measured.
    pub gateway: Namespace,
    /// Where the traffic goes.
    pub internet: Namespace,
    directory: PathBuf,
    // Held for what dropping it does.
    _registration: Registration,
}

impl Bare {
    /// Makes the namespaces. Needs root.
    pub fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pl{}-b{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let (registration, directory) = Registration::of(name.clone())?;
        let _hold = removal::hold_off();
        let [guest, gateway, internet] = [removal::PARTS[0], removal::PARTS[2], removal::PARTS[3]]
            .map(|part| Namespace::create(&format!("{name}-{part}")));
        Ok(Self { guest: guest?, gateway: gateway?, internet: internet?, directory, _registration: registration })
    }

    /// A directory that goes with them.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}
