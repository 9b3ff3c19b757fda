//! The kernel's table of sessions, with its index: the truth about who is logged in.
//!
//! A client is logged in if the index has an entry for it. The entry is one word, written last and taken away first, so that the gate never finds a
//! session that is half written.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{
        AtomicU32,
        Ordering::{AcqRel, Acquire, Release},
    },
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, MapData};
use portal_common::{
    siphash::Key,
    tables::{Bucket, ClientKey, IndexEntry, Session, SessionIndex, SessionRow},
};

use super::{mapped::Mapped, pins::index_buckets, secrets::random_key};

/// The kernel's table of sessions. Only the daemon writes it.
pub struct SessionTable {
    index: Mapped<Bucket>,
    rows: Mapped<SessionRow>,
    header: SessionIndex,
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
    /// The table has room, but both buckets of the index that this client may be in are full.
    #[error(
        "both places where the index of sessions could hold this client are taken by others; it is luck that changes when one of them logs out, or with \
         `portald --detach` and a new start"
    )]
    Crowded,
}

/// Where an entry of the index is: the bucket, and the place in it.
type At = (u32, usize);

impl SessionTable {
    /// A table of its own, that no program reads.
    pub fn create(capacity: u32) -> Result<Self> {
        Self::over(Mapped::create(index_buckets(capacity))?, Mapped::create(capacity)?)
    }

    /// The table in maps that a program reads. New ones are prepared; of others the sessions stay.
    pub fn new(index: &Array<MapData, Bucket>, rows: &Array<MapData, SessionRow>) -> Result<Self> {
        Self::over(Mapped::new(index)?, Mapped::new(rows)?)
    }

    fn over(index: Mapped<Bucket>, rows: Mapped<SessionRow>) -> Result<Self> {
        let buckets = index.len().checked_sub(1).filter(|n| *n > 0).context("the index of sessions has no bucket")?;
        let mut header = SessionIndex::from_bucket(&index.read(0));
        if header.buckets() == 0 {
            let Key(seeds) = random_key()?;
            header = SessionIndex::new(seeds, buckets);
            index.write(0, &header.to_bucket());
        }
        ensure!(header.buckets() == u64::from(buckets), "the index of sessions was made for another size");
        let table = Self { index, rows, header, end: AtomicU32::new(0), writing: Mutex::default() };
        table.repair();
        Ok(table)
    }

    /// A daemon that was killed may have left a row without an entry, which is nobody's; and an index may be older than the table, as its size does
    /// not change with every change of the table's: then its entries are nobody's.
    fn repair(&self) {
        for bucket in 1..self.index.len() {
            for (at, entry) in self.entries(bucket).filter(|(_, entry)| *entry != IndexEntry::NONE) {
                let client = (entry.slot() < self.rows.len()).then(|| self.rows.read(entry.slot()).client);
                let place = client.filter(|client| *client != ClientKey::NONE).map(|client| self.header.place(client));
                if !place.is_some_and(|place| entry.has(place.tag) && place.buckets.contains(&bucket)) {
                    self.set(at, IndexEntry::NONE);
                }
            }
        }
        for slot in 0..self.rows.len() {
            let SessionRow { client, .. } = self.rows.read(slot);
            if client == ClientKey::NONE {
                continue;
            }
            if self.entry(client).is_none_or(|(_, entry)| entry.slot() != slot) {
                self.forget(slot);
            } else {
                self.end.store(slot + 1, Release);
            }
        }
    }

    /// How many sessions fit.
    pub fn capacity(&self) -> u32 {
        self.rows.len()
    }

    /// The client's session, live or expired.
    pub fn get(&self, client: ClientKey) -> Option<Session> {
        let (_, entry) = self.entry(client)?;
        let row = self.rows.read(entry.slot());
        (row.client == client).then_some(row.session)
    }

    /// Writes the client's session, into the slot it names: the client's own, or a free one. When this returns, the gate lets the client through.
    pub fn insert(&self, client: ClientKey, session: Session) -> Result<(), InsertError> {
        let _writing = self.lock();
        let slot = session.slot();
        if slot >= self.capacity() {
            return Err(InsertError::Full { capacity: self.capacity() });
        }
        let previous = self.entry(client);
        let at = match previous {
            Some((at, _)) => at,
            None => self.free(client).ok_or(InsertError::Crowded)?,
        };
        // Where the client's session runs on in its slot, each word of it changes by itself: for some nanoseconds it has new limits and an old end.
        self.end.fetch_max(slot + 1, AcqRel);
        self.rows.write(slot, &SessionRow { client, session });
        self.set(at, IndexEntry::new(self.header.place(client).tag, slot));
        if let Some((_, entry)) = previous
            && entry.slot() != slot
        {
            self.forget(entry.slot());
        }
        Ok(())
    }

    /// Removes the client's session; whether there was one. When this returns, the client is a stranger.
    pub fn remove(&self, client: ClientKey) -> bool {
        let _writing = self.lock();
        let Some((at, entry)) = self.entry(client) else { return false };
        self.set(at, IndexEntry::NONE);
        self.forget(entry.slot());
        true
    }

    /// The clients whose session is wanted, in the order of their slots.
    ///
    /// Writers go on meanwhile: what they change during the walk may or may not be seen. Takes some nanoseconds for each place in the table.
    pub fn find(&self, wanted: impl Fn(ClientKey, &Session) -> bool) -> Vec<(ClientKey, Session)> {
        let mut found = Vec::new();
        for slot in 0..self.end.load(Acquire) {
            if self.rows.words(slot)[0].load(Acquire) == ClientKey::NONE.to_word() {
                continue;
            }
            let SessionRow { client, session } = self.rows.read(slot);
            // A slot may be on its way from one client to another.
            let settled = session.slot() == slot && self.entry(client).is_some_and(|(_, entry)| entry.slot() == slot);
            if settled && wanted(client, &session) {
                found.push((client, session));
            }
        }
        found
    }

    /// The client's entry.
    fn entry(&self, client: ClientKey) -> Option<(At, IndexEntry)> {
        let place = self.header.place(client);
        let all = place.buckets.into_iter().flat_map(|bucket| self.entries(bucket));
        let mut own = all.filter(|(_, entry)| entry.has(place.tag) && entry.slot() < self.rows.len());
        own.find(|(_, entry)| self.rows.words(entry.slot())[0].load(Acquire) == client.to_word())
    }

    /// A free place for the client's entry, in the emptier of its buckets.
    fn free(&self, client: ClientKey) -> Option<At> {
        let place = self.header.place(client);
        let mut emptiest: Option<(usize, At)> = None;
        for bucket in place.buckets {
            // In a bucket the gate looks at the first entry with the tag alone.
            if self.entries(bucket).any(|(_, entry)| entry.has(place.tag)) {
                continue;
            }
            let mut free = self.entries(bucket).filter(|(_, entry)| *entry == IndexEntry::NONE).map(|(at, _)| at);
            if let Some(first) = free.next() {
                let room = 1 + free.count();
                if emptiest.is_none_or(|(most, _)| room > most) {
                    emptiest = Some((room, first));
                }
            }
        }
        emptiest.map(|(_, at)| at)
    }

    fn entries(&self, bucket: u32) -> impl Iterator<Item = (At, IndexEntry)> {
        let words = self.index.words(bucket).iter().enumerate();
        words.map(move |(i, word)| ((bucket, i), IndexEntry::from_word(word.load(Acquire))))
    }

    fn set(&self, (bucket, i): At, entry: IndexEntry) {
        self.index.words(bucket)[i].store(entry.to_word(), Release);
    }

    /// Makes the slot nobody's.
    fn forget(&self, slot: u32) {
        self.rows.words(slot)[0].store(ClientKey::NONE.to_word(), Release);
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        // What it guards is consistent after each store.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
