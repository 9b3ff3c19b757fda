//! Where a client's session is in the table of sessions: a hash index in an array.
//!
//! A BPF hash map costs a call and a walk along a list, 33 ns at best and 290 to 490 ns among a million clients. Of this index the gate reads a cache line
//! or two, without a call. Only the daemon writes it, an entry by one store.
//!
//! A client has two buckets, a cache line of eight entries each. With two entries for each client, as [`SessionIndex::buckets_for`] says, one of the
//! sixteen is free: none of 6,000,000 logins into a full table of 65,536 at random found both its buckets full (with eight for five it was 1 in 28,000).

use core::mem::{align_of, size_of};

use super::{ClientKey, Session};

/// Places in a bucket: a cache line.
pub const BUCKET_ENTRIES: usize = 8;

/// A bucket of the index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Bucket {
    /// In no order.
    pub entries: [IndexEntry; BUCKET_ENTRIES],
}

/// Which place of the table of sessions may be a client's. All zero is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct IndexEntry(u64);

impl IndexEntry {
    /// Nobody's.
    pub const NONE: Self = Self(0);

    /// For clients with this tag.
    pub const fn new(tag: u32, slot: u32) -> Self {
        Self((tag as u64) << 32 | (slot as u64 + 1))
    }

    /// Whether it may be of a client with this tag. What is at the slot says for sure.
    #[inline(always)]
    pub const fn has(self, tag: u32) -> bool {
        (self.0 >> 32) as u32 == tag
    }

    /// The place in the table of sessions, of an entry that is somebody's.
    #[inline(always)]
    pub const fn slot(self) -> u32 {
        (self.0 as u32).wrapping_sub(1)
    }

    /// In one word.
    pub const fn to_word(self) -> u64 {
        self.0
    }

    /// From the word that [`IndexEntry::to_word`] gave.
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }
}

/// How the index is hashed. It is kept in place of the index's first bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionIndex {
    /// Secret, so that nobody can choose MAC addresses that all go to a victim's buckets.
    seeds: [u64; 2],
    /// How many buckets follow.
    buckets: u64,
}

/// Where a client is to be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexPlace {
    /// The tag of the client's entry.
    pub tag: u32,
    /// The buckets it may be in, counted with the first.
    pub buckets: [u32; 2],
}

impl SessionIndex {
    /// An index with these secrets and so many buckets.
    pub const fn new(seeds: [u64; 2], buckets: u32) -> Self {
        Self { seeds, buckets: buckets as u64 }
    }

    /// How many buckets an index of so many clients needs: two entries for each client, and some more where they are few.
    pub const fn buckets_for(clients: u32) -> u32 {
        clients.div_ceil(4).saturating_add(7)
    }

    /// What the first bucket says; all zero, it says nothing.
    #[inline(always)]
    pub const fn from_bucket(bucket: &Bucket) -> Self {
        let [buckets, first, second, ..] = bucket.entries;
        Self { seeds: [first.0, second.0], buckets: buckets.0 }
    }

    /// What the first bucket has to say.
    pub const fn to_bucket(self) -> Bucket {
        let mut entries = [IndexEntry::NONE; BUCKET_ENTRIES];
        // The number in front: it is written last, and what is half written says nothing.
        entries[0] = IndexEntry(self.buckets);
        entries[1] = IndexEntry(self.seeds[0]);
        entries[2] = IndexEntry(self.seeds[1]);
        Bucket { entries }
    }

    /// How many buckets follow the first.
    pub const fn buckets(&self) -> u64 {
        self.buckets
    }

    /// Where this client is to be looked for.
    #[inline(always)]
    pub const fn place(&self, client: ClientKey) -> IndexPlace {
        // Two rounds of multiply and shift (the finalizer of MurmurHash3 has three), the second by a secret: what one round leaves of
        // the structure of MAC addresses nobody can compute.
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut hash = (client.to_word() ^ self.seeds[0]).wrapping_mul(ODD);
        hash ^= hash >> 32;
        hash = hash.wrapping_mul(self.seeds[1] | 1);
        let high = (hash >> 32) as u32;
        let low = hash as u32 ^ high;
        // Never 0, which is the tag of an entry that is nobody's.
        IndexPlace { tag: high | 1, buckets: [self.bucket(low), self.bucket(low.wrapping_mul(ODD as u32))] }
    }

    /// Scales a hash to a bucket's number, without a division.
    #[inline(always)]
    const fn bucket(&self, hash: u32) -> u32 {
        1 + ((hash as u64 * self.buckets) >> 32) as u32
    }
}

/// A place in the table of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SessionRow {
    /// Whose it is; [`ClientKey::NONE`] for nobody's.
    pub client: ClientKey,
    /// The client's session.
    pub session: Session,
}

const _: () = assert!(size_of::<Bucket>() == 64 && align_of::<Bucket>() == 8);
const _: () = assert!(size_of::<SessionRow>() == 48 && align_of::<SessionRow>() == 8);

#[cfg(test)]
mod tests {
    use std::vec;

    use super::*;
    use crate::tables::Zone;

    /// MAC addresses as they are: a few manufacturers' prefixes, and counted on; or random, with the bit of locally administered ones. They come and go,
    /// and the table is full all the time.
    #[test]
    fn every_client_finds_room_in_one_of_its_buckets() {
        const CLIENTS: u64 = 50_000;
        const COMING: u64 = 150_000;
        for (sentence, spread) in [("counted on", 1u64), ("in steps", 256), ("at random", 0x9e37_79b9_7f4a_7c15)] {
            for seed in 1..4u64 {
                let seeds = [seed.wrapping_mul(0xd134_2543_de82_ef95), seed.wrapping_mul(0xaf25_1af3_b0f0_25b5)];
                let index = SessionIndex::new(seeds, SessionIndex::buckets_for(CLIENTS as u32));
                let mut buckets: vec::Vec<vec::Vec<u32>> = vec![vec![]; index.buckets() as usize + 1];
                let mut there: vec::Vec<(u32, u32)> = vec![];
                for n in 0..COMING {
                    if n >= CLIENTS {
                        let gone = (n.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32) % CLIENTS;
                        let (bucket, tag) = there.swap_remove(gone as usize);
                        buckets[bucket as usize].retain(|present| *present != tag);
                    }
                    let mut mac = [2; 6];
                    mac[1..].copy_from_slice(&n.wrapping_mul(spread).to_be_bytes()[3..]);
                    let place = index.place(ClientKey::new(Zone::new(1), mac));
                    // As the daemon does: in no bucket that has the tag, and in the emptier.
                    let free = place.buckets.into_iter().filter(|i| !buckets[*i as usize].contains(&place.tag));
                    let bucket = free.min_by_key(|i| buckets[*i as usize].len()).expect("the tag is in one at most");
                    buckets[bucket as usize].push(place.tag);
                    assert!(buckets[bucket as usize].len() <= BUCKET_ENTRIES, "{sentence}: client {n} finds no room");
                    there.push((bucket, place.tag));
                }
                assert!(buckets[0].is_empty(), "the first bucket is not one");
            }
        }
    }

    #[test]
    fn an_unfilled_index_and_an_empty_entry_are_nobodys() {
        let place = SessionIndex::default().place(ClientKey::new(Zone::FIRST, [2, 0, 0, 0, 0, 1]));
        assert_eq!(place.buckets, [1, 1], "behind the header of an unfilled index");
        assert!(!IndexEntry::NONE.has(place.tag));
        let entry = IndexEntry::new(place.tag, 0);
        assert!(entry.has(place.tag) && entry.slot() == 0 && entry != IndexEntry::NONE);
    }
}
