//! The requests that the gate answers by itself, with the bytes by which the responder has answered them before.
//!
//! What the responder says to a whole request is a function of the zone, the family and the request's bytes, and phones of one model and release send
//! probes that are the same byte for byte. So the gate needs no HTTP: it compares bytes. The comparison is exact; the hash only finds the row.

use core::mem::{align_of, offset_of, size_of};

use super::Zone;
use crate::{checksum::Sum, cookie::RESPONSE_MAX, cookie::RESPONSE_MIN, family::Family, multilinear::absorb};

/// The shortest request that is looked up, bytes.
pub const KNOWN_REQUEST_MIN: usize = 16;
/// The longest, bytes.
pub const KNOWN_REQUEST_MAX: usize = 512;
/// The longest request in words.
pub const KNOWN_REQUEST_WORDS: usize = KNOWN_REQUEST_MAX / WORD;
/// How many requests can be known. A power of two.
pub const KNOWN_PLACES: u32 = 256;
/// How many rows the table has: the first holds the secrets of the hash.
pub const KNOWN_ROWS: u32 = 1 + KNOWN_PLACES;
/// How many kinds of answers are counted apart. A power of two, so that a number can be masked.
pub const KNOWN_STATUSES: usize = 8;
/// Two secrets for each word that is hashed: the request's, and what it is asked in front of them.
pub const KNOWN_SEEDS: usize = 2 * (1 + KNOWN_REQUEST_WORDS);

const WORD: usize = size_of::<u64>();
const RESPONSE_WORDS: usize = RESPONSE_MAX / WORD;
const USED_WORDS: usize = RESPONSE_WORDS + KNOWN_REQUEST_WORDS + 6;
const ALL_WORDS: usize = 256;

/// A request with its answer: a row of the table.
// The response comes first and the row is a power of two, so that the verifier sees that a masked length stays within the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct KnownAnswer {
    /// The response, zeroes behind it.
    pub response: [u64; RESPONSE_WORDS],
    /// The request, zeroes behind it.
    pub request: [u64; KNOWN_REQUEST_WORDS],
    /// Changed before and after each change of the row, by who writes it: while it is odd, or as long as it is zero, the row is nobody's.
    pub version: u64,
    /// The hash by which the row is found.
    pub hash: u64,
    /// Of which zone, over which family, and how long the request is: [`asked`].
    pub asked: u64,
    /// The response's length, bytes, and above 32 bits the number of its kind.
    pub answer: u64,
    /// The sum of the response's bytes ([`Sum::to_raw`]).
    pub sum: u64,
    /// When it was given last, to a second or so: nanoseconds of CLOCK_MONOTONIC. The gate writes it.
    pub used_ns: u64,
    reserved: [u64; ALL_WORDS - USED_WORDS],
}

const _: () = assert!(size_of::<KnownAnswer>() == ALL_WORDS * WORD && align_of::<KnownAnswer>() == WORD);
const _: () = assert!(offset_of!(KnownAnswer, response) == 0 && RESPONSE_MAX.is_multiple_of(WORD));
const _: () = assert!(KNOWN_PLACES == 256, "a place is a byte of the hash");
const _: () = assert!(KNOWN_SEEDS <= RESPONSE_WORDS, "the secrets lie where a response would");

/// Where a request may be: its hash, and the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownPlace {
    /// The whole hash.
    pub hash: u64,
    /// The two rows, which may be the same.
    pub rows: [u32; 2],
}

/// What is asked beside the request's bytes, in a word. It is the first to be hashed.
#[inline(always)]
pub const fn asked(zone: Zone, family: Family, request_len: usize) -> u64 {
    // Never zero, as what is in a row that nobody has filled.
    1 << 63 | (zone.number() as u64) << 32 | (family as u64) << 16 | request_len as u64
}

impl KnownPlace {
    /// The rows of this hash.
    #[inline(always)]
    pub const fn of(hash: u64) -> Self {
        Self { hash, rows: [1 + (hash >> 56) as u32, 1 + ((hash >> 48) & 0xff) as u32] }
    }

    /// Where a request is to be looked for, by these secrets.
    pub fn find(seeds: &[u64; KNOWN_SEEDS], asked: u64, request: &[u64; KNOWN_REQUEST_WORDS]) -> Self {
        let (pairs, _) = seeds.as_chunks::<2>();
        // What is behind the request is zero, and adds nothing.
        let words = core::iter::once(&asked).chain(request);
        Self::of(pairs.iter().zip(words).fold(0, |hash, (pair, word)| absorb(hash, *word, *pair)))
    }
}

impl KnownAnswer {
    /// Nobody's row.
    pub const NONE: Self = Self {
        response: [0; RESPONSE_WORDS],
        request: [0; KNOWN_REQUEST_WORDS],
        version: 0,
        hash: 0,
        asked: 0,
        answer: 0,
        sum: 0,
        used_ns: 0,
        reserved: [0; ALL_WORDS - USED_WORDS],
    };

    /// The table's first row.
    pub const fn of_seeds(seeds: &[u64; KNOWN_SEEDS]) -> Self {
        let mut row = Self::NONE;
        let mut i = 0;
        while i < KNOWN_SEEDS {
            row.response[i] = seeds[i];
            i += 1;
        }
        row
    }

    /// A row, still without a version; nothing where the request or the response has not the length that a row has room for. `status` is the
    /// number of the answer's kind, below [`KNOWN_STATUSES`].
    pub fn new(
        seeds: &[u64; KNOWN_SEEDS],
        (zone, family): (Zone, Family),
        request: &[u8],
        (response, sum, status): (&[u8], Sum, u8),
    ) -> Option<Self> {
        let fits = (KNOWN_REQUEST_MIN..=KNOWN_REQUEST_MAX).contains(&request.len())
            && (RESPONSE_MIN..=RESPONSE_MAX).contains(&response.len())
            && usize::from(status) < KNOWN_STATUSES;
        if !fits {
            return None;
        }
        let asked = asked(zone, family, request.len());
        let request = to_words(request);
        Some(Self {
            response: to_words(response),
            request,
            hash: KnownPlace::find(seeds, asked, &request).hash,
            asked,
            answer: u64::from(status) << 32 | response.len() as u64,
            sum: sum.to_raw(),
            ..Self::NONE
        })
    }

    /// The rows it may be in.
    pub const fn place(&self) -> KnownPlace {
        KnownPlace::of(self.hash)
    }

    /// Whether it answers the same request.
    pub fn is_of_the_request_of(&self, other: &Self) -> bool {
        self.asked == other.asked && self.request == other.request
    }
}

/// Whether a row of this version is somebody's.
#[inline(always)]
pub const fn is_known(version: u64) -> bool {
    version != 0 && version & 1 == 0
}

/// Bytes as they lie in memory, with zeroes behind them.
fn to_words<const N: usize>(bytes: &[u8]) -> [u64; N] {
    let mut words = [0; N];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks(WORD)) {
        let mut padded = [0; WORD];
        padded[..chunk.len()].copy_from_slice(chunk);
        *word = u64::from_ne_bytes(padded);
    }
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seeds() -> [u64; KNOWN_SEEDS] {
        let mut state = 7u64;
        core::array::from_fn(|_| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            state.rotate_left(17) ^ state
        })
    }

    fn row(zone: u16, family: Family, request: &[u8]) -> Option<KnownAnswer> {
        let response = [b'r'; RESPONSE_MIN + 5];
        KnownAnswer::new(&seeds(), (Zone::new(zone), family), request, (&response, Sum::new().bytes(&response), 6))
    }

    #[test]
    fn only_what_fits_is_a_row() {
        for (length, fits) in [(15, false), (16, true), (17, true), (512, true), (513, false)] {
            assert_eq!(row(0, Family::V4, &[b'a'; 600][..length]).is_some(), fits, "a request of {length} bytes");
        }
        let made = |response: &[u8], status| {
            KnownAnswer::new(&seeds(), (Zone::new(0), Family::V4), &[1; 20], (response, Sum::new(), status))
        };
        for (length, status, fits) in
            [(127, 0, false), (128, 0, true), (1200, 7, true), (1201, 0, false), (200, 8, false)]
        {
            assert_eq!(made(&[0; 1300][..length], status).is_some(), fits, "{length} bytes, kind {status}");
        }
    }

    #[test]
    fn versions_tell_whose_a_row_is() {
        assert_eq!([0, 1, 2, 3, 4].map(is_known), [false, false, true, false, true]);
    }

    #[test]
    fn every_place_is_taken_by_some_request() {
        let mut taken = [0u32; KNOWN_ROWS as usize];
        for n in 0..20_000u32 {
            let request = [b"GET / HTTP/1.1\r\n".as_slice(), &n.to_be_bytes()].concat();
            for row in row(0, Family::V4, &request).unwrap().place().rows {
                taken[row as usize] += 1;
            }
        }
        assert_eq!(taken[0], 0, "the secrets' row");
        let (least, most) = (taken[1..].iter().min().unwrap(), taken[1..].iter().max().unwrap());
        assert!(*least > 90 && *most < 240, "{least} to {most}");
    }

    proptest! {
        #[test]
        fn a_request_that_differs_in_anything_is_another(
            request in prop::collection::vec(any::<u8>(), 17..=512), at: prop::sample::Index, byte: u8, zone in 0u16..64,
        ) {
            let one = row(zone, Family::V4, &request).unwrap();
            prop_assert!(one.is_of_the_request_of(&row(zone, Family::V4, &request).unwrap()));
            let mut changed = request.clone();
            changed[at.index(request.len())] ^= byte | 1;
            let padded = [&request[..], &[0]].concat();
            let others = [
                row(zone, Family::V4, &changed), row(zone ^ 1, Family::V4, &request), row(zone, Family::V6, &request),
                row(zone, Family::V4, &request[..request.len() - 1]), row(zone, Family::V4, &padded),
            ];
            for other in others.into_iter().flatten() {
                prop_assert!(!one.is_of_the_request_of(&other));
                prop_assert_ne!(one.hash, other.hash, "as good as never");
            }
        }

        #[test]
        fn bytes_lie_in_a_row_as_they_came(request in prop::collection::vec(any::<u8>(), 16..=512)) {
            let row = row(1, Family::V6, &request).unwrap();
            let bytes: Vec<u8> = row.request.iter().flat_map(|word| word.to_ne_bytes()).collect();
            prop_assert_eq!(&bytes[..request.len()], &request[..]);
            prop_assert!(bytes[request.len()..].iter().all(|byte| *byte == 0));
        }
    }
}
