//! The index of the kernel's table of sessions, written from user space.
//!
//! The gate reads it meanwhile. Whoever is in it is found at every instant, also while an entry moves from one bucket to another.

use std::{
    collections::HashMap,
    sync::atomic::{
        AtomicU64,
        Ordering::{AcqRel, Acquire, Release},
    },
};

use anyhow::{Result, ensure};
use aya::maps::{Array, MapData};
use portal_common::{
    siphash::Key,
    tables::{AddressHash, BUCKET_ENTRIES, BUCKET_WORDS, Bucket, ClientKey, IndexEntry, IndexPlace, SessionIndex},
};

use super::{mapped::Mapped, secrets::random_key};

/// The index. One writer at a time.
pub(super) struct IndexTable {
    rows: Mapped<Bucket>,
    header: SessionIndex,
}

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    bucket: u32,
    entry: usize,
}

/// There is no room in either bucket, nor can any be made. A full table takes half of all entries; tests meet this beyond four fifths.
#[derive(Debug)]
pub(super) struct Crowded;

impl IndexTable {
    /// An index of its own, that no program reads.
    pub(super) fn create(sessions: u32) -> Result<Self> {
        Self::over(Mapped::create(SessionIndex::rows_for(sessions))?, sessions)
    }

    /// The index in a map that a program reads, for so many sessions.
    pub(super) fn new(map: &Array<MapData, Bucket>, sessions: u32) -> Result<Self> {
        Self::over(Mapped::new(map)?, sessions)
    }

    fn over(rows: Mapped<Bucket>, sessions: u32) -> Result<Self> {
        let mut header = SessionIndex::from_bucket(&rows.read(0));
        if !header.is_filled() {
            let Key(seeds) = random_key()?;
            header = SessionIndex::new(seeds, sessions);
            rows.write(0, &header.to_bucket());
        }
        ensure!(
            header.is_for(sessions) && rows.len() == SessionIndex::rows_for(sessions),
            "the index of sessions was made for another size"
        );
        Ok(Self { rows, header })
    }

    /// Takes away what is not right: an entry whose place in the table of sessions is another's, or nobody's, and what a move or a removal that was cut short
    /// has left behind. `client` says whose a place is.
    pub(super) fn repair(&self, client: impl Fn(u32) -> ClientKey) {
        // Of each bucket, what it must say of those whose first it is.
        let mut said: HashMap<u32, (u32, u64)> = HashMap::new();
        for bucket in self.header.bucket_rows() {
            for at in places(bucket).filter(|at| self.entry(*at) != IndexEntry::NONE) {
                let found = self.client_at(at, &client);
                // In its second it must not be in its first as well.
                let right = found.filter(|place| {
                    place.buckets[0] == bucket || self.slot_in(place.buckets[0], place) != self.slot_in(bucket, place)
                });
                let Some(place) = right else {
                    self.set(at, IndexEntry::NONE);
                    continue;
                };
                let (sent_away, bits) = said.entry(place.buckets[0]).or_default();
                *sent_away += u32::from(place.buckets[0] != bucket);
                *bits |= place.bits;
            }
        }
        for bucket in self.header.bucket_rows() {
            let (sent_away, bits) = said.get(&bucket).copied().unwrap_or_default();
            self.write(bucket, self.rows.read(bucket).with_sent_away(sent_away));
            self.filter_word(bucket).store(bits, Release);
        }
    }

    /// How clients' addresses are hashed.
    pub(super) fn address_hash(&self) -> AddressHash {
        self.header.address_hash()
    }

    /// Where the client's entry is, and the place it names. `client` as in [`Self::repair`].
    pub(super) fn find(&self, of: ClientKey, client: impl Fn(u32) -> ClientKey) -> Option<(At, u32)> {
        let place = self.header.place(of);
        place.buckets.into_iter().flat_map(places).find_map(|at| {
            let slot = self.entry(at).slot_of(&place).filter(|slot| client(*slot) == of)?;
            Some((at, slot))
        })
    }

    /// Names another place in the client's entry.
    pub(super) fn rename(&self, at: At, of: ClientKey, slot: u32) {
        self.set(at, IndexEntry::new(&self.header.place(of), slot));
    }

    /// Makes an entry of a client that has none.
    pub(super) fn insert(&self, of: ClientKey, slot: u32, client: impl Fn(u32) -> ClientKey) -> Result<(), Crowded> {
        let place = self.header.place(of);
        let at = self.free_for(&place).or_else(|| {
            place.buckets.into_iter().find(|bucket| self.make_room(*bucket, &place, &client))?;
            self.free_for(&place)
        });
        self.put(at.ok_or(Crowded)?, &place, slot);
        Ok(())
    }

    /// Takes an entry away.
    pub(super) fn remove(&self, at: At, of: ClientKey, client: impl Fn(u32) -> ClientKey) {
        let place = self.header.place(of);
        self.set(at, IndexEntry::NONE);
        self.count_away(at.bucket, &place, -1);
        let [first, _] = place.buckets;
        // Of those it has sent away nobody knows the bits: they stay, all of them, until it has no more.
        if self.rows.read(first).sent_away() == 0 {
            let there = places(first).filter_map(|at| self.client_at(at, &client));
            let own = there.filter(|place| place.buckets[0] == first);
            self.filter_word(first).store(own.fold(0, |bits, place| bits | place.bits), Release);
        }
    }

    /// A place for an entry in the first bucket, or else in the second.
    fn free_for(&self, place: &IndexPlace) -> Option<At> {
        place.buckets.into_iter().find_map(|bucket| self.free_in(bucket, place))
    }

    /// A place in this bucket. The gate looks at the first entry with the tag alone, so there must be no other.
    fn free_in(&self, bucket: u32, place: &IndexPlace) -> Option<At> {
        let taken = self.slot_in(bucket, place).is_some();
        places(bucket).find(|at| self.entry(*at) == IndexEntry::NONE).filter(|_| !taken)
    }

    /// Moves one of the entries that are in the way to the other bucket it may be in; whether there was one.
    fn make_room(&self, bucket: u32, place: &IndexPlace, client: &impl Fn(u32) -> ClientKey) -> bool {
        let same_tag = self.slot_in(bucket, place).is_some();
        places(bucket).any(|from| {
            let entry = self.entry(from);
            if same_tag && entry.slot_of(place).is_none() {
                return false;
            }
            let Some(its) = self.client_at(from, client) else { return false };
            let [first, second] = its.buckets;
            let other = if bucket == first { second } else { first };
            let Some((to, slot)) = self.free_in(other, &its).zip(entry.slot_of(&its)) else { return false };
            self.put(to, &its, slot);
            self.set(from, IndexEntry::NONE);
            self.count_away(from.bucket, &its, -1);
            true
        })
    }

    /// Where the client of an entry is to be looked for, if the entry is right.
    fn client_at(&self, at: At, client: &impl Fn(u32) -> ClientKey) -> Option<IndexPlace> {
        let entry = self.entry(at);
        // The slot's bits are the same for all.
        let any = self.header.place(ClientKey::NONE);
        let of = Some(client(entry.slot(&any))).filter(|of| *of != ClientKey::NONE)?;
        let place = self.header.place(of);
        (entry.slot_of(&place).is_some() && place.buckets.contains(&at.bucket)).then_some(place)
    }

    fn put(&self, at: At, place: &IndexPlace, slot: u32) {
        // First: the gate does not look for whom the filter does not know, nor in a second bucket where nobody was sent away.
        self.filter_word(place.buckets[0]).fetch_or(place.bits, AcqRel);
        self.count_away(at.bucket, place, 1);
        self.set(at, IndexEntry::new(place, slot));
    }

    /// Counts in a client's first bucket, if its entry came or went elsewhere.
    fn count_away(&self, bucket: u32, place: &IndexPlace, by: i32) {
        let [first, _] = place.buckets;
        if bucket != first {
            let counted = self.rows.read(first);
            self.write(first, counted.with_sent_away(counted.sent_away().saturating_add_signed(by)));
        }
    }

    fn filter_word(&self, bucket: u32) -> &AtomicU64 {
        let (row, word) = self.header.filter_of(bucket);
        &self.rows.words(row)[word]
    }

    fn slot_in(&self, bucket: u32, place: &IndexPlace) -> Option<u32> {
        self.rows.read(bucket).slot_of(place)
    }

    fn entry(&self, at: At) -> IndexEntry {
        self.rows.read(at.bucket).entry(at.entry)
    }

    fn set(&self, at: At, entry: IndexEntry) {
        self.write(at.bucket, self.rows.read(at.bucket).with_entry(at.entry, entry));
    }

    /// Writes the one word that differs.
    fn write(&self, bucket: u32, new: Bucket) {
        for (word, new) in self.rows.words(bucket).iter().zip(new.to_words()) {
            if word.load(Acquire) != new {
                word.store(new, Release);
            }
        }
    }
}

fn places(bucket: u32) -> impl Iterator<Item = At> {
    (0..BUCKET_ENTRIES).map(move |entry| At { bucket, entry })
}

const _: () = assert!(BUCKET_WORDS * 2 == BUCKET_ENTRIES + 1);

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use portal_common::tables::Zone;

    use super::*;

    /// A table of sessions, of which the index knows where clients are.
    struct World {
        index: IndexTable,
        rows: RefCell<Vec<ClientKey>>,
    }

    impl World {
        fn new(sessions: u32) -> Self {
            let rows = vec![ClientKey::NONE; sessions as usize];
            Self { index: IndexTable::create(sessions).expect("a BPF map needs root"), rows: RefCell::new(rows) }
        }

        fn client(&self, slot: u32) -> ClientKey {
            self.rows.borrow().get(slot as usize).copied().unwrap_or(ClientKey::NONE)
        }

        fn log_in(&self, of: ClientKey, slot: u32) -> Result<(), Crowded> {
            self.index.insert(of, slot, |slot| self.client(slot))?;
            self.rows.borrow_mut()[slot as usize] = of;
            Ok(())
        }

        fn log_out(&self, slot: u32) {
            let of = self.client(slot);
            let (at, found) = self.index.find(of, |slot| self.client(slot)).expect("it is logged in");
            assert_eq!(found, slot);
            self.index.remove(at, of, |slot| self.client(slot));
            self.rows.borrow_mut()[slot as usize] = ClientKey::NONE;
        }

        /// As the gate looks.
        fn gate_finds(&self, of: ClientKey) -> Option<u32> {
            let place = self.index.header.place(of);
            let [first, second] = place.buckets.map(|bucket| self.index.rows.read(bucket));
            let own = |slot: &u32| self.client(*slot) == of;
            let known = self.index.rows.read(place.filter.0).may_have(&place);
            if !known {
                let there = self.index.find(of, |slot| self.client(slot));
                assert_eq!(there, None, "the filter knows everybody who is there");
                return None;
            }
            first
                .slot_of(&place)
                .filter(own)
                .or_else(|| if first.sent_away() == 0 { None } else { second.slot_of(&place).filter(own) })
        }

        fn sent_away(&self) -> u32 {
            self.index.header.bucket_rows().map(|bucket| self.index.rows.read(bucket).sent_away()).sum()
        }

        fn in_second_buckets(&self) -> u32 {
            let in_second = |of: &ClientKey| {
                let (at, _) = self.index.find(*of, |slot| self.client(slot)).expect("it is logged in");
                at.bucket != self.index.header.place(*of).buckets[0]
            };
            let there = self.rows.borrow().clone();
            there.iter().filter(|of| **of != ClientKey::NONE && in_second(of)).count() as u32
        }
    }

    /// The n-th MAC address, counted on or spread out.
    fn client(n: u64, spread: u64) -> ClientKey {
        let mut mac = [2; 6];
        mac[1..].copy_from_slice(&n.wrapping_mul(spread).to_be_bytes()[3..]);
        ClientKey::new(Zone::new(1), mac)
    }

    /// MAC addresses as they are: a few manufacturers' prefixes, and counted on; or random, with the bit of locally administered ones. They come and go,
    /// and the table is full all the time.
    #[test]
    fn every_client_of_a_full_table_is_found_and_no_other() {
        const CLIENTS: u32 = 20_000;
        for (sentence, spread) in [("counted on", 1u64), ("in steps", 256), ("at random", 0x9e37_79b9_7f4a_7c15)] {
            let world = World::new(CLIENTS);
            for n in 0..u64::from(CLIENTS) * 3 {
                let slot = if n < u64::from(CLIENTS) {
                    n as u32
                } else {
                    let slot = (n.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32) as u32 % CLIENTS;
                    let gone = world.client(slot);
                    world.log_out(slot);
                    assert_eq!(world.gate_finds(gone), None, "{sentence}");
                    slot
                };
                world.log_in(client(n, spread), slot).unwrap_or_else(|_| panic!("{sentence}: client {n} has no room"));
            }
            for slot in 0..CLIENTS {
                assert_eq!(world.gate_finds(world.client(slot)), Some(slot), "{sentence}");
            }
            let strangers = (1..=10_000).map(|n| world.index.header.place(client(1 << 39 | n, spread)));
            let taken = strangers.filter(|place| world.index.rows.read(place.filter.0).may_have(place)).count();
            assert!(taken < 600, "{sentence}: {taken} of 10,000 strangers may be clients, says the filter");
            assert_eq!(world.sent_away(), world.in_second_buckets(), "{sentence}");
            assert!(world.sent_away() < CLIENTS / 50, "{sentence}: {} are in their second bucket", world.sent_away());
            world.index.repair(|slot| world.client(slot));
            assert_eq!(world.sent_away(), world.in_second_buckets(), "{sentence}: repaired, all stays");
            for slot in 0..CLIENTS {
                world.log_out(slot);
            }
            assert_eq!(world.sent_away(), 0, "{sentence}");
            let rows = world.index.header.bucket_rows().end;
            assert!(
                (1..rows).all(|row| world.index.rows.read(row) == Bucket::default()),
                "{sentence}: nothing is left"
            );
        }
    }

    /// Too few buckets for so many: entries have to move.
    #[test]
    fn room_is_made_where_there_is_none() {
        const CLIENTS: u32 = 8_200;
        let world = World::new(CLIENTS);
        let places = world.index.header.bucket_rows().len() as u32 * BUCKET_ENTRIES as u32;
        let fits = (0..places).take_while(|n| {
            if *n >= CLIENTS {
                world.rows.borrow_mut().push(ClientKey::NONE);
            }
            world.log_in(client(u64::from(*n), 1), *n).is_ok()
        });
        let fits = fits.count() as u32;
        assert!(fits > places / 10 * 8, "{fits} of {places} places are taken");
        for slot in 0..fits {
            assert_eq!(world.gate_finds(world.client(slot)), Some(slot), "client {slot} of {fits}");
        }
        assert_eq!(world.sent_away(), world.in_second_buckets());
    }

    #[test]
    fn what_a_killed_daemon_left_is_repaired() {
        let world = World::new(1000);
        let [one, two, three] = [1, 2, 3].map(|n| client(n, 1));
        for (slot, of) in [(10, one), (20, two), (30, three)] {
            world.log_in(of, slot).unwrap();
        }
        let place = world.index.header.place(one);
        let [first, second] = place.buckets;
        // Moved, but not taken away; and sent away is nobody.
        world.index.set(At { bucket: second, entry: 5 }, IndexEntry::new(&place, 10));
        world.index.write(first, world.index.rows.read(first).with_sent_away(7));
        // An entry without its session, and one of a place that there is not.
        world.rows.borrow_mut()[20] = ClientKey::NONE;
        world.index.rename(world.index.find(three, |slot| world.client(slot)).unwrap().0, three, 1001);
        world.index.repair(|slot| world.client(slot));
        assert_eq!(world.sent_away(), 0);
        assert_eq!(world.index.rows.read(second).entry(5), IndexEntry::NONE);
        assert_eq!([one, two, three].map(|of| world.gate_finds(of)), [Some(10), None, None]);
        let left =
            world.index.header.bucket_rows().flat_map(places).filter(|at| world.index.entry(*at) != IndexEntry::NONE);
        assert_eq!(left.count(), 1);
    }
}
