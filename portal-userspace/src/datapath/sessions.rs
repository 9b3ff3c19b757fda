//! The kernel's table of sessions: the truth about who is logged in.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, MapData, MapError};
use portal_common::tables::{ClientKey, Session};

/// The kernel's map from client to session. Only the daemon inserts into it.
pub struct SessionTable {
    map: Mutex<HashMap<MapData, ClientKey, Session>>,
    capacity: u32,
}

/// Why a session could not be written.
#[derive(Debug, thiserror::Error)]
pub enum InsertError {
    /// Every place is taken by a client.
    #[error(
        "the session table is full: all {capacity} places are taken; revoke a client, or raise `limits.clients` and restart portald"
    )]
    Full {
        /// How many sessions the table holds.
        capacity: u32,
    },
    /// The kernel refused.
    #[error("the kernel refused to store the session")]
    Kernel(#[source] MapError),
}

impl SessionTable {
    /// A table of its own, that no program reads.
    pub fn create(capacity: u32) -> Result<Self> {
        let map = HashMap::create(capacity, 0).context("cannot create a BPF hash map")?;
        Ok(Self::new(map, capacity))
    }

    /// The table in a map that a program reads.
    pub fn new(map: HashMap<MapData, ClientKey, Session>, capacity: u32) -> Self {
        Self { map: Mutex::new(map), capacity }
    }

    /// How many sessions fit.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The client's session, live or expired.
    pub fn get(&self, client: ClientKey) -> Result<Option<Session>> {
        match self.lock().get(&client, 0) {
            Ok(session) => Ok(Some(session)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(e) => Err(e).context("cannot read the session table"),
        }
    }

    /// Writes the client's session. When this returns, the gate lets the client through.
    pub fn insert(&self, client: ClientKey, session: Session) -> Result<(), InsertError> {
        match self.lock().insert(client, session, 0) {
            Ok(()) => Ok(()),
            Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::E2BIG) => {
                Err(InsertError::Full { capacity: self.capacity })
            }
            Err(e) => Err(InsertError::Kernel(e)),
        }
    }

    /// Removes the client's session; whether there was one. When this returns, the client is a stranger.
    pub fn remove(&self, client: ClientKey) -> Result<bool> {
        match self.lock().remove(&client) {
            Ok(()) => Ok(true),
            Err(MapError::KeyNotFound) => Ok(false),
            Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(e) => Err(e).context("cannot remove from the session table"),
        }
    }

    /// Every session, live or expired, in no order.
    pub fn list(&self) -> Result<Vec<(ClientKey, Session)>> {
        self.lock().iter().collect::<Result<_, _>>().context("cannot read the session table")
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<MapData, ClientKey, Session>> {
        // The kernel's map is consistent whatever a panicking thread was doing.
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
