//! The kernel's table of sessions: the truth about who is logged in.

use std::{
    os::fd::AsFd as _,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use anyhow::{Context as _, Result, bail};
use aya::maps::{HashMap, IterableMap as _, Map, MapData, MapError};
use portal_common::tables::{ClientKey, Session};

use super::batch::{Batch, BatchError};

type Sessions = HashMap<MapData, ClientKey, Session>;

/// The kernel's map from client to session. Only the daemon inserts into it.
pub struct SessionTable {
    /// Locked for one system call, never for a walk: the kernel's map needs no lock, aya's writing methods do.
    map: RwLock<Sessions>,
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
    pub fn new(map: Sessions, capacity: u32) -> Self {
        Self { map: RwLock::new(map), capacity }
    }

    /// How many sessions fit.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The client's session, live or expired.
    pub fn get(&self, client: ClientKey) -> Result<Option<Session>> {
        match self.read().get(&client, 0) {
            Ok(session) => Ok(Some(session)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(e) => Err(e).context("cannot read the session table"),
        }
    }

    /// Writes the client's session. When this returns, the gate lets the client through.
    pub fn insert(&self, client: ClientKey, session: Session) -> Result<(), InsertError> {
        match self.write().insert(client, session, 0) {
            Ok(()) => Ok(()),
            Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::E2BIG) => {
                Err(InsertError::Full { capacity: self.capacity })
            }
            Err(e) => Err(InsertError::Kernel(e)),
        }
    }

    /// For writing many sessions at once. Who is there already gets the new session in place of the old one.
    pub fn batch(&self) -> Result<Batch<ClientKey, Session>, BatchError> {
        Batch::over(self.read().map())
    }

    /// Removes the client's session; whether there was one. When this returns, the client is a stranger.
    pub fn remove(&self, client: ClientKey) -> Result<bool> {
        match self.write().remove(&client) {
            Ok(()) => Ok(true),
            Err(MapError::KeyNotFound) => Ok(false),
            Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(e) => Err(e).context("cannot remove from the session table"),
        }
    }

    /// The clients whose session is wanted, in no order; one may come twice.
    ///
    /// Writers go on meanwhile: what they change during the walk may or may not be seen. Takes up to a microsecond for
    /// each place in the table. Fails where the kernel does, and where so much changes that the walk finds no end.
    pub fn find(&self, wanted: impl Fn(ClientKey, &Session) -> bool) -> Result<Vec<(ClientKey, Session)>> {
        let map = self.second_handle().context("cannot open the session table once more")?;
        // The walk begins again where the session it stands at is removed.
        let most = 4 * self.capacity as usize + 1024;
        let mut found = Vec::new();
        for (seen, entry) in map.iter().enumerate() {
            let (client, session) = entry.context("cannot read the session table")?;
            if seen >= most {
                bail!("the session table changes faster than it can be read; try again");
            }
            if wanted(client, &session) {
                found.push((client, session));
            }
        }
        Ok(found)
    }

    /// The same map, for as long as a walk takes.
    fn second_handle(&self) -> Result<Sessions> {
        let fd = self.read().map().fd().as_fd().try_clone_to_owned()?;
        Ok(HashMap::try_from(Map::HashMap(MapData::from_fd(fd)?))?)
    }

    fn read(&self) -> RwLockReadGuard<'_, Sessions> {
        // The kernel's map is consistent whatever a panicking thread was doing.
        self.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Sessions> {
        self.map.write().unwrap_or_else(PoisonError::into_inner)
    }
}
