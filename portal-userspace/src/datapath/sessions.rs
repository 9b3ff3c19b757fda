//! The kernel's table of sessions, with its index: the truth about who is logged in.
//!
//! A client is logged in if the index has an entry for it. The entry is one word, written last and taken away first, so that the gate never finds a
//! session that is half written.

use std::{
    mem::offset_of,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicU32,
            Ordering::{AcqRel, Acquire, Release},
        },
    },
};

use anyhow::Result;
use aya::maps::{Array, MapData};
use portal_common::tables::{AddressHash, Bucket, ClientKey, ClientRow, ClientState, RecentPass, Session};

use super::{
    index::{At, Crowded, IndexTable},
    mapped::Mapped,
    recent::RecentTable,
};

/// Where these are in a row, words.
const SESSION_AT: usize = offset_of!(ClientRow<u64>, session) / size_of::<u64>();
const STATE_AT: usize = offset_of!(ClientRow<u64>, state) / size_of::<u64>();

/// The kernel's table of sessions. Only the daemon says who is in it.
pub struct SessionTable {
    index: IndexTable,
    rows: Mapped<ClientRow<u64>>,
    recent: RecentTable,
    /// All slots from this one on are nobody's: a walk ends here, which in an idle network is at once.
    end: AtomicU32,
    /// Held over every change: the gate needs no lock, two writers do.
    writing: Mutex<()>,
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
    /// The table has room, but both buckets of the index that this client may be in are full, of clients that cannot be moved.
    #[error(
        "all places where the index of sessions could hold this client are taken by others; it is luck that changes when one of them logs out, or with \
         `portald --detach` and a new start"
    )]
    Crowded,
}

impl SessionTable {
    /// A table of its own, that no program reads.
    pub fn create(capacity: u32) -> Result<Self> {
        Ok(Self::over(IndexTable::create(capacity)?, Mapped::create(capacity)?, RecentTable::create()?))
    }

    /// The table in maps that a program reads. New ones are prepared; of others the sessions stay.
    pub fn new(
        index: &Array<MapData, Bucket>,
        rows: &Array<MapData, ClientRow<u64>>,
        recent: &Array<MapData, RecentPass<u64>>,
    ) -> Result<Self> {
        Ok(Self::over(IndexTable::new(index, rows.len())?, Mapped::new(rows)?, RecentTable::new(recent)?))
    }

    fn over(index: IndexTable, rows: Mapped<ClientRow<u64>>, recent: RecentTable) -> Self {
        let table = Self { index, rows, recent, end: AtomicU32::new(0), writing: Mutex::default() };
        table.repair();
        table
    }

    /// A daemon that was killed may have left a row without an entry, which is nobody's; and an index may be older than the table, as its size does
    /// not change with every change of the table's: then its entries are nobody's.
    fn repair(&self) {
        self.index.repair(|slot| self.client_at(slot));
        for slot in 0..self.rows.len() {
            let client = self.client_at(slot);
            if client == ClientKey::NONE {
                continue;
            }
            if self.slot_of(client) == Some(slot) {
                self.end.store(slot + 1, Release);
            } else {
                self.forget(slot);
            }
        }
    }

    /// How many sessions fit.
    pub fn capacity(&self) -> u32 {
        self.rows.len()
    }

    /// The client's session, live or expired.
    pub fn get(&self, client: ClientKey) -> Option<Session> {
        let row = self.rows.read(self.slot_of(client)?);
        (row.client == client).then_some(row.session)
    }

    /// Writes the client's session, into the slot it names: the client's own, or a free one. When this returns, the gate lets the client through.
    pub fn insert(&self, client: ClientKey, session: Session) -> Result<(), InsertError> {
        let _writing = self.lock();
        let slot = session.slot();
        if slot >= self.capacity() {
            return Err(InsertError::Full { capacity: self.capacity() });
        }
        let previous = self.find_entry(client);
        // Where the client's session runs on in its slot, each word of it changes by itself: for some nanoseconds it has new limits and an old end.
        self.end.fetch_max(slot + 1, AcqRel);
        let before = self.client_at(slot);
        self.rows.write_part(slot, SESSION_AT, &session);
        self.rows.write_part(slot, 0, &client);
        match previous {
            Some((_, old)) if old == slot => self.recent.forget(client, || self.state(slot).bindings),
            Some((at, old)) => {
                self.index.rename(at, client, slot);
                self.forget(old);
                self.recent.forget(client, || self.state(old).bindings);
            }
            None => {
                if let Err(Crowded) = self.index.insert(client, slot, |slot| self.client_at(slot)) {
                    self.rows.write_part(slot, 0, &before);
                    return Err(InsertError::Crowded);
                }
            }
        }
        Ok(())
    }

    /// What came of the session in this slot. The kernel may be changing it: each word is right, but they may be of different frames. Panics beyond the last.
    pub fn state(&self, slot: u32) -> ClientState<u64> {
        self.rows.read(slot).state
    }

    /// Writes what came of a session: to be done before a session has the slot, as the kernel counts there without asking. Panics beyond the last.
    pub fn write_state(&self, slot: u32, state: &ClientState<u64>) {
        self.rows.write_part(slot, STATE_AT, state);
    }

    /// How clients' addresses are hashed.
    pub fn address_hash(&self) -> AddressHash {
        self.index.address_hash()
    }

    /// Removes the client's session; whether there was one. When this returns, the client is a stranger.
    pub fn remove(&self, client: ClientKey) -> bool {
        let _writing = self.lock();
        let Some((at, slot)) = self.find_entry(client) else { return false };
        self.index.remove(at, client, |slot| self.client_at(slot));
        self.forget(slot);
        self.recent.forget(client, || self.state(slot).bindings);
        true
    }

    /// The clients whose session is wanted, in the order of their slots.
    ///
    /// Writers go on meanwhile: what they change during the walk may or may not be seen. Takes some nanoseconds for each place in the table.
    pub fn find(&self, wanted: impl Fn(ClientKey, &Session) -> bool) -> Vec<(ClientKey, Session)> {
        let mut found = Vec::new();
        for slot in 0..self.end.load(Acquire) {
            if self.client_at(slot) == ClientKey::NONE {
                continue;
            }
            let ClientRow { client, session, .. } = self.rows.read(slot);
            // A slot may be on its way from one client to another.
            let settled = session.slot() == slot && self.slot_of(client) == Some(slot);
            if settled && wanted(client, &session) {
                found.push((client, session));
            }
        }
        found
    }

    fn find_entry(&self, client: ClientKey) -> Option<(At, u32)> {
        self.index.find(client, |slot| self.client_at(slot))
    }

    fn slot_of(&self, client: ClientKey) -> Option<u32> {
        self.find_entry(client).map(|(_, slot)| slot)
    }

    /// Whose the slot is; nobody's beyond the last.
    fn client_at(&self, slot: u32) -> ClientKey {
        if slot >= self.rows.len() {
            return ClientKey::NONE;
        }
        ClientKey::from_word(self.rows.words(slot)[0].load(Acquire))
    }

    /// Makes the slot nobody's.
    fn forget(&self, slot: u32) {
        self.rows.write_part(slot, 0, &ClientKey::NONE);
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        // What it guards is consistent after each store.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
