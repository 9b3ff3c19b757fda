//! Where the gate's maps and link are pinned, so that they outlive the daemon.
//!
//! ```text
//! /sys/fs/bpf/portal/          locked by the running portald
//!     v1/                      the version of the maps' layout
//!         SESSIONS, SERVICES, CONFIG, COOKIE_KEYS, COUNTERS, XSKS
//!         link-<ifindex>       the gate's attachment to the interface
//! ```

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use aya::maps::{MapInfo, MapType};
use portal_common::tables::{ClientKey, CookieKeys, Counters, GateConfig, MAX_QUEUES, ServiceKey, Session};
use rustix::fs::{FlockOperation, flock, statfs};

/// The version of the maps' layout. It changes when a map's key, value or meaning does.
const LAYOUT: &str = "v1";
/// `BPF_FS_MAGIC`, Linux `include/uapi/linux/magic.h`.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// How many destinations strangers may reach.
pub(crate) const MAX_SERVICES: u32 = 256;

/// The pin directory, locked for as long as this lives.
pub struct Pins {
    directory: PathBuf,
    // The lock: the kernel lets go of it when the daemon ends, however it ends.
    _lock: File,
}

/// A map that the gate and user space share.
pub(crate) struct SharedMap {
    pub(crate) name: &'static str,
    kind: MapType,
    key_size: usize,
    value_size: usize,
    max_entries: u32,
}

/// Every map that the gate has, as user space expects it.
pub(crate) fn shared_maps(clients: u32) -> [SharedMap; 6] {
    let map =
        |name, kind, key_size, value_size, max_entries| SharedMap { name, kind, key_size, value_size, max_entries };
    let index = size_of::<u32>();
    [
        map("SESSIONS", MapType::Hash, size_of::<ClientKey>(), size_of::<Session>(), clients),
        map("SERVICES", MapType::Hash, size_of::<ServiceKey>(), size_of::<u32>(), MAX_SERVICES),
        map("CONFIG", MapType::Array, index, size_of::<GateConfig>(), 1),
        map("COOKIE_KEYS", MapType::Array, index, size_of::<CookieKeys>(), 1),
        map("COUNTERS", MapType::PerCpuArray, index, size_of::<Counters>(), 1),
        map("XSKS", MapType::XskMap, index, size_of::<u32>(), MAX_QUEUES),
    ]
}

impl Pins {
    /// Creates the directory if need be, and locks it.
    pub fn lock(root: &Path) -> Result<Self> {
        let parent = root.parent().unwrap_or(root);
        let probe = if root.exists() { root } else { parent };
        let filesystem = statfs(probe).with_context(|| format!("cannot look at {}", probe.display()))?;
        if u64::try_from(filesystem.f_type).ok() != Some(BPF_FS_MAGIC) {
            bail!(
                "{} is not on a BPF file system, so the gate would not outlive portald; \
                 mount one (`mount -t bpf bpf /sys/fs/bpf`) or set `paths.pins` to a directory on one",
                root.display()
            );
        }
        fs::create_dir_all(root).with_context(|| format!("cannot create {}", root.display()))?;
        let lock = File::open(root).with_context(|| format!("cannot open {}", root.display()))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => bail!(
                "another portald is running with the pins in {}; stop it first, or give this one its own `paths.pins`",
                root.display()
            ),
            Err(e) => return Err(e).with_context(|| format!("cannot lock {}", root.display())),
        }
        let pins = Self { directory: root.join(LAYOUT), _lock: lock };
        pins.refuse_other_layouts(root)?;
        fs::create_dir_all(&pins.directory).with_context(|| format!("cannot create {}", pins.directory.display()))?;
        Ok(pins)
    }

    fn refuse_other_layouts(&self, root: &Path) -> Result<()> {
        for entry in fs::read_dir(root).with_context(|| format!("cannot read {}", root.display()))? {
            let path = entry.with_context(|| format!("cannot read {}", root.display()))?.path();
            if path != self.directory {
                bail!(
                    "{} was pinned by another version of Portal; run that version's `portald --detach` first \
                     (the network is open until portald runs again)",
                    path.display()
                );
            }
        }
        Ok(())
    }

    /// Where a map of this name is pinned.
    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Where the attachment to this interface is pinned.
    pub(crate) fn link(&self, ifindex: u32) -> PathBuf {
        self.directory.join(format!("link-{ifindex}"))
    }

    /// Every pinned attachment.
    pub(crate) fn links(&self) -> Result<Vec<PathBuf>> {
        let mut links = Vec::new();
        for entry in
            fs::read_dir(&self.directory).with_context(|| format!("cannot read {}", self.directory.display()))?
        {
            let entry = entry.with_context(|| format!("cannot read {}", self.directory.display()))?;
            if entry.file_name().to_string_lossy().starts_with("link-") {
                links.push(entry.path());
            }
        }
        Ok(links)
    }

    /// Checks that the maps pinned here are the ones this version would make, because the loader takes them without looking.
    pub(crate) fn check(&self, clients: u32) -> Result<()> {
        for expected in shared_maps(clients) {
            let path = self.map(expected.name);
            if !path.exists() {
                continue;
            }
            let info =
                MapInfo::from_pin(&path).with_context(|| format!("cannot open the pinned map {}", path.display()))?;
            let kind = info.map_type().with_context(|| format!("cannot tell the type of {}", path.display()))?;
            if (kind, info.key_size() as usize, info.value_size() as usize)
                != (expected.kind, expected.key_size, expected.value_size)
            {
                bail!(
                    "the pinned map {} has another layout than this version of Portal uses; \
                     run `portald --detach` (the network is open until portald runs again)",
                    path.display()
                );
            }
            if info.max_entries() != expected.max_entries {
                bail!(
                    "the pinned map {} has room for {} entries, not {}: a running gate's tables cannot be resized; set `limits.clients` back, \
                     or run `portald --detach`, which ends all sessions (the network is open until portald runs again)",
                    path.display(),
                    info.max_entries(),
                    expected.max_entries
                );
            }
        }
        Ok(())
    }

    /// Removes every pin. The kernel detaches the gate and forgets the sessions.
    pub fn remove(self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            fs::remove_file(entry?.path())?;
        }
        fs::remove_dir(&self.directory)
    }
}
