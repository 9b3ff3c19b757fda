//! Where a client's session is in the table of clients: a hash index in an array.
//!
//! A BPF hash map costs a call and a walk along a list, 33 ns at best and 290 to 490 ns among a million clients. Of this index the gate reads one cache
//! line, without a call. Only the daemon writes it.
//!
//! A client has two buckets, a cache line of fifteen entries each, and is in the second only where it found no room in the first. The first counts whom it
//! has sent away: one in a hundred of a full table's has sent anybody.
//!
//! For strangers even that line is mostly spared: a word for each bucket has three bits set for each client whose first bucket it is (a Bloom filter, Bloom
//! 1970). A stranger's three are set by chance in 3 of 100 cases. The words of a million clients take a megabyte, which stays in a CPU's own cache;
//! their buckets take eight, which do not (105 ns, measured with a million strangers at random).
//!
//! In the array come the header, the words of the filter, eight to the row, and the buckets.

use core::mem::{align_of, size_of};

use super::{AddressHash, ClientKey};

/// Places in a bucket.
pub const BUCKET_ENTRIES: usize = 15;
/// Words in a bucket: a cache line.
pub const BUCKET_WORDS: usize = 8;
/// How full buckets are on average where all clients are there. Of buckets with as many at random one in 120 would need more than there are places.
const CLIENTS_PER_BUCKET: u32 = 8;
/// How many buckets are more than a CPU keeps in its own caches: a megabyte of them.
const FILTERED_FROM: u32 = 1 << 14;
/// Words of the filter in a row.
const FILTER_WORDS: u32 = BUCKET_WORDS as u32;

/// A row of the array. A bucket of the index: two halves to the word, the lower first. The first half counts, the others are entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Bucket([u64; BUCKET_WORDS]);

impl Bucket {
    /// Clients whose first bucket this is, and that are in their second.
    #[inline(always)]
    pub const fn sent_away(&self) -> u32 {
        self.0[0] as u32
    }

    /// The place in the table of clients that may be this client's, if any is. What is there says for sure.
    #[inline(always)]
    pub const fn slot_of(&self, place: &IndexPlace) -> Option<u32> {
        let mut half = 1;
        while half <= BUCKET_ENTRIES {
            // One subtraction takes the tag off, and leaves more than a slot can be where it is another's.
            let slot = (self.0[half / 2] >> (half % 2 * 32)) as u32;
            let slot = slot.wrapping_sub(place.tag);
            if slot <= place.slots {
                return Some(slot);
            }
            half += 1;
        }
        None
    }

    /// Whether the client may be in one of its buckets, says its word of the filter, which is in this row.
    #[inline(always)]
    pub const fn may_have(&self, place: &IndexPlace) -> bool {
        self.0[place.filter.1] & place.bits == place.bits
    }

    /// What the bucket consists of.
    pub const fn to_words(self) -> [u64; BUCKET_WORDS] {
        self.0
    }

    /// The bucket that [`Bucket::to_words`] gave.
    pub const fn from_words(words: [u64; BUCKET_WORDS]) -> Self {
        Self(words)
    }

    /// The entry at this place, below [`BUCKET_ENTRIES`].
    pub const fn entry(&self, at: usize) -> IndexEntry {
        IndexEntry(self.half(at + 1))
    }

    /// With this entry at this place, below [`BUCKET_ENTRIES`].
    #[must_use]
    pub const fn with_entry(self, at: usize, entry: IndexEntry) -> Self {
        self.with_half(at + 1, entry.0)
    }

    /// Having sent so many away.
    #[must_use]
    pub const fn with_sent_away(self, clients: u32) -> Self {
        self.with_half(0, clients)
    }

    const fn half(&self, half: usize) -> u32 {
        (self.0[half / 2] >> (half % 2 * 32)) as u32
    }

    const fn with_half(mut self, half: usize, value: u32) -> Self {
        let shift = half % 2 * 32;
        let others = self.0[half / 2] & !((u32::MAX as u64) << shift);
        self.0[half / 2] = others | (value as u64) << shift;
        self
    }
}

/// Which place of the table of clients may be a client's: above the bits that a place needs, a tag of the client, which is never 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct IndexEntry(u32);

impl IndexEntry {
    /// Nobody's.
    pub const NONE: Self = Self(0);

    /// For this client, whose session is in this place of the table.
    pub const fn new(client: &IndexPlace, slot: u32) -> Self {
        Self(client.tag | (slot & client.slots))
    }

    /// The place in the table of clients, of an entry that is somebody's. `any` client of the same index tells how many bits it has.
    pub const fn slot(self, any: &IndexPlace) -> u32 {
        self.0 & any.slots
    }

    /// The place in the table of clients, if the entry may be of this client.
    pub const fn slot_of(self, client: &IndexPlace) -> Option<u32> {
        let slot = self.0.wrapping_sub(client.tag);
        if slot <= client.slots { Some(slot) } else { None }
    }
}

/// How the index is hashed. It is kept in place of the index's first bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionIndex {
    /// Secret, so that nobody can choose MAC addresses that all go to a victim's buckets.
    seeds: [u64; 2],
    /// How many buckets there are.
    buckets: u32,
    /// The row of the first bucket.
    first: u32,
    /// The bits that a place in the table of clients needs, set.
    slots: u32,
}

/// Where a client is to be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexPlace {
    tag: u32,
    slots: u32,
    /// Where its first bucket's word of the filter is: the row, and the word in it.
    pub filter: (u32, usize),
    /// The client's bits in that word.
    pub bits: u64,
    /// The rows of the buckets it may be in.
    pub buckets: [u32; 2],
}

impl SessionIndex {
    /// An index with these secrets, of a table of so many clients.
    pub const fn new(seeds: [u64; 2], sessions: u32) -> Self {
        let buckets = Self::buckets_for(sessions);
        Self { seeds, buckets, first: 1 + buckets.div_ceil(FILTER_WORDS), slots: Self::slot_bits(sessions) }
    }

    /// How many rows an index of so many sessions has.
    pub const fn rows_for(sessions: u32) -> u32 {
        let buckets = Self::buckets_for(sessions);
        1 + buckets.div_ceil(FILTER_WORDS) + buckets
    }

    /// Some more where they are few.
    const fn buckets_for(sessions: u32) -> u32 {
        sessions.div_ceil(CLIENTS_PER_BUCKET).saturating_add(7)
    }

    const fn slot_bits(sessions: u32) -> u32 {
        sessions.next_power_of_two() - 1
    }

    /// What the first bucket says; all zero, it says nothing.
    #[inline(always)]
    pub const fn from_bucket(bucket: &Bucket) -> Self {
        let [sizes, first, second, rest, ..] = bucket.0;
        Self { seeds: [first, second], buckets: sizes as u32, first: (sizes >> 32) as u32, slots: rest as u32 }
    }

    /// What the first bucket has to say.
    pub const fn to_bucket(self) -> Bucket {
        let mut words = [0; BUCKET_WORDS];
        // The sizes in front: they are written last, and what is half written says nothing.
        words[0] = self.buckets as u64 | (self.first as u64) << 32;
        words[1] = self.seeds[0];
        words[2] = self.seeds[1];
        words[3] = self.slots as u64;
        Bucket(words)
    }

    /// The rows of the buckets.
    pub const fn bucket_rows(&self) -> core::ops::Range<u32> {
        self.first..self.first + self.buckets
    }

    /// Where a bucket's word of the filter is.
    #[inline(always)]
    pub const fn filter_of(&self, bucket_row: u32) -> (u32, usize) {
        let number = bucket_row.wrapping_sub(self.first);
        (1 + number / FILTER_WORDS, (number % FILTER_WORDS) as usize)
    }

    /// Whether the filter is worth asking: buckets of fewer clients are in the caches as well as it is, and asking costs 3 ns.
    #[inline(always)]
    pub const fn is_filtered(&self) -> bool {
        self.buckets >= FILTERED_FROM
    }

    /// Whether it is filled.
    pub const fn is_filled(&self) -> bool {
        self.buckets != 0
    }

    /// Whether it is one for a table of so many clients.
    pub const fn is_for(&self, sessions: u32) -> bool {
        let Self { buckets, first, slots, .. } = Self::new(self.seeds, sessions);
        self.buckets == buckets && self.first == first && self.slots == slots
    }

    /// How clients' addresses are hashed.
    #[inline(always)]
    pub const fn address_hash(&self) -> AddressHash {
        AddressHash::new(self.seeds[0])
    }

    /// Where this client is to be looked for.
    #[inline(always)]
    pub fn place(&self, client: ClientKey) -> IndexPlace {
        // Two rounds of multiply and shift (the finalizer of MurmurHash3 has three), the second by a secret: what one round leaves of
        // the structure of MAC addresses nobody can compute.
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut hash = (client.to_word() ^ self.seeds[0]).wrapping_mul(ODD);
        hash ^= hash >> 32;
        hash = hash.wrapping_mul(self.seeds[1] | 1);
        let high = (hash >> 32) as u32;
        let low = hash as u32 ^ high;
        // Never 0, which is the tag of an entry that is nobody's: its lowest bit is the one above the slot's.
        let tag = (high & !self.slots) | self.slots.wrapping_add(1);
        let buckets = [self.bucket(low), self.bucket(low.wrapping_mul(ODD as u32))];
        let bit = |six: u32| 1 << (high >> six & 63);
        let bits = bit(0) | bit(6) | bit(12);
        IndexPlace { tag, slots: self.slots, filter: self.filter_of(buckets[0]), bits, buckets }
    }

    /// Scales a hash to a bucket's row, without a division.
    #[inline(always)]
    const fn bucket(&self, hash: u32) -> u32 {
        self.first + ((hash as u64 * self.buckets as u64) >> 32) as u32
    }
}

const _: () = assert!(size_of::<Bucket>() == 64 && align_of::<Bucket>() == 8);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::Zone;

    #[test]
    fn an_unfilled_index_and_an_empty_entry_are_nobodys() {
        let place = SessionIndex::default().place(ClientKey::new(Zone::FIRST, [2, 0, 0, 0, 0, 1]));
        assert_eq!((place.filter.0, place.buckets), (1, [0, 0]), "an unfilled index");
        assert!(!Bucket::default().may_have(&place));
        for sessions in [1, 2, 3, 1 << 16, 1_000_000, 1 << 22] {
            let index = SessionIndex::new([3, 5], sessions);
            assert_eq!(SessionIndex::from_bucket(&index.to_bucket()), index);
            assert!(index.is_for(sessions) && !index.is_for(sessions * 2));
            for last in 0..=255 {
                let place = index.place(ClientKey::new(Zone::FIRST, [2, 0, 0, 0, 0, last]));
                assert_eq!(IndexEntry::NONE.slot_of(&place), None);
                assert_eq!(Bucket::default().slot_of(&place), None);
                assert!(place.buckets.iter().all(|bucket| index.bucket_rows().contains(bucket)));
                assert!((1..index.bucket_rows().start).contains(&place.filter.0));
                for slot in [0, sessions - 1] {
                    let entry = IndexEntry::new(&place, slot);
                    assert_ne!(entry, IndexEntry::NONE);
                    assert_eq!(entry.slot_of(&place), Some(slot));
                }
            }
        }
    }

    #[test]
    fn a_bucket_holds_what_is_put_into_it() {
        let index = SessionIndex::new([3, 5], 100);
        let place = |last| index.place(ClientKey::new(Zone::FIRST, [2, 0, 0, 0, 0, last]));
        let [one, other] = [place(1), place(2)];
        assert_ne!(one.tag, other.tag);
        for at in 0..BUCKET_ENTRIES {
            let entry = IndexEntry::new(&one, 77);
            let bucket = Bucket::default().with_entry(at, entry).with_sent_away(at as u32);
            assert_eq!((bucket.entry(at), bucket.sent_away()), (entry, at as u32));
            assert_eq!((bucket.slot_of(&one), bucket.slot_of(&other)), (Some(77), None), "place {at}");
            assert_eq!(Bucket::from_words(bucket.to_words()), bucket);
            assert_eq!(bucket.with_entry(at, IndexEntry::NONE), Bucket::default().with_sent_away(at as u32));
        }
    }
}
