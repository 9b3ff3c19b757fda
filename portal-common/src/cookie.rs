//! SYN cookies (RFC 4987 section 3.6): the whole state of an intercepted connection, kept in its sequence numbers.
//!
//! Our initial sequence number is
//!
//! ```text
//!  31 30 29                    16 15        11 10                    0
//! +-----+------------------------+------------+-----------------------+
//! |slot | hash of the connection | first mark | offset                |
//! +-----+------------------------+------------+-----------------------+
//! ```
//!
//! - `slot`: the low bits of the time slot, which pick the key and let a cookie grow old.
//! - hash of the connection: keyed, of the 4-tuple and the slot, 14 bits. A blind guess passes once in 16,384 tries, and gains one answer to the guesser's own MAC, which
//!   an ordinary handshake would have gained as well.
//! - first mark: with the 7 bits in which `offset` starts, a keyed hash of the client's initial sequence number. Its 12 bits tell the first
//!   segment of the request.
//! - `offset` starts below [`RESPONSE_MIN`]. As every response is between [`RESPONSE_MIN`] and [`RESPONSE_MAX`] bytes and one
//!   segment, what the client acknowledges tells how far the exchange got, without any memory of it, and never carries into the bits above.

use crate::{
    siphash::{Key, siphash},
    tables::{Address, CookieKeys},
};

/// The shortest response payload, bytes.
pub const RESPONSE_MIN: usize = 1 << START_BITS;
/// The longest response payload, bytes: it must fit one segment on any path (IPv6's minimum MTU is 1,280).
pub const RESPONSE_MAX: usize = 1200;

/// How long a slot lasts.
pub const SLOT_NS: u64 = 64 * 1_000_000_000;
/// In how many slots a cookie is good: the one it was made in and those after it. With 64 s slots, 128 to 192 s.
pub const LIVE_SLOTS: u64 = 3;

const START_BITS: u32 = 7;
const OFFSET_BITS: u32 = 11;
const OFFSET_MASK: u32 = (1 << OFFSET_BITS) - 1;
const SLOT_SHIFT: u32 = 30;
const SLOT_MASK: u64 = 3;
const MARK_BITS: u32 = 5;
const MARK_MASK: u32 = (1 << MARK_BITS) - 1;
const HASH_SHIFT: u32 = OFFSET_BITS + MARK_BITS;
const HASH_MASK: u32 = (1 << (SLOT_SHIFT - HASH_SHIFT)) - 1;

// FIN takes a sequence number too. The offset must not carry into the hash.
const _: () = assert!(RESPONSE_MIN + RESPONSE_MAX < 1 << OFFSET_BITS);
const _: () = assert!(LIVE_SLOTS < SLOT_MASK + 1, "the slot to come needs a place of its own for its key");

/// The two ends of a TCP connection, as the client's packets name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FourTuple {
    /// The client's address.
    pub source: Address,
    /// The address the client believes it talks to.
    pub destination: Address,
    /// The client's port.
    pub source_port: u16,
    /// The port the client believes it talks to.
    pub destination_port: u16,
}

/// How far an intercepted connection got, as a segment of the client shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The client has received nothing yet beyond the SYN-ACK.
    Request {
        /// The segment starts where the client's stream starts. A later segment is taken for the first once in 4,096 times.
        first: bool,
    },
    /// The client has received our response.
    Answered,
}

/// The slot that an instant (nanoseconds of CLOCK_MONOTONIC) falls in.
#[inline(always)]
pub const fn slot(now_ns: u64) -> u64 {
    now_ns / SLOT_NS
}

/// Our initial sequence number for a SYN with the client's initial sequence number.
#[inline(always)]
pub fn isn(keys: &CookieKeys, tuple: &FourTuple, client_isn: u32, now_ns: u64) -> u32 {
    let slot = slot(now_ns);
    let hash = hash(keys, tuple, slot);
    let (mark, start) = first_mark(hash, client_isn);
    ((slot & SLOT_MASK) as u32) << SLOT_SHIFT | checked_part(hash) << HASH_SHIFT | mark << OFFSET_BITS | start
}

/// How far the connection got, by a segment's sequence and acknowledgement numbers; nothing if we never made such a cookie or it is
/// too old.
#[inline(always)]
pub fn phase(keys: &CookieKeys, tuple: &FourTuple, seq: u32, ack: u32, now_ns: u64) -> Option<Phase> {
    // Our SYN took one sequence number.
    let received = ack.wrapping_sub(1);
    let now_slot = slot(now_ns);
    let age = now_slot.wrapping_sub(u64::from(received >> SLOT_SHIFT)) & SLOT_MASK;
    if age >= LIVE_SLOTS || age > now_slot {
        return None;
    }
    let hash = hash(keys, tuple, now_slot - age);
    if received >> HASH_SHIFT & HASH_MASK != checked_part(hash) {
        return None;
    }
    let offset = received & OFFSET_MASK;
    if offset < RESPONSE_MIN as u32 {
        let seen = (received >> OFFSET_BITS & MARK_MASK, offset);
        Some(Phase::Request { first: seen == first_mark(hash, seq.wrapping_sub(1)) })
    } else if offset <= (RESPONSE_MIN + RESPONSE_MAX) as u32 {
        Some(Phase::Answered)
    } else {
        None
    }
}

#[inline(always)]
fn hash(keys: &CookieKeys, tuple: &FourTuple, slot: u64) -> u64 {
    let [s0, s1] = tuple.source.words();
    let [d0, d1] = tuple.destination.words();
    let ports = u64::from(tuple.source_port) << 16 | u64::from(tuple.destination_port);
    siphash(keys.of_slot(slot), [s0, s1, d0, d1, ports, slot])
}

#[inline(always)]
const fn checked_part(hash: u64) -> u32 {
    (hash >> 32) as u32 & HASH_MASK
}

/// What marks the first segment: the bits above the offset, and where the offset starts. The low half of the hash is a secret of this
/// connection, so a multiplicative hash is enough.
#[inline(always)]
const fn first_mark(hash: u64, client_isn: u32) -> (u32, u32) {
    let mixed = (client_isn ^ hash as u32).wrapping_mul(0x9e37_79b1) >> (u32::BITS - START_BITS - MARK_BITS);
    (mixed >> START_BITS, mixed & (RESPONSE_MIN as u32 - 1))
}

impl CookieKeys {
    /// The key of a slot.
    #[inline(always)]
    pub const fn of_slot(&self, slot: u64) -> Key {
        self.keys[(slot & SLOT_MASK) as usize]
    }

    /// Replaces the key of the slot after this one, which no live cookie was made with.
    pub const fn renew_next(&mut self, now_ns: u64, key: Key) {
        self.keys[((slot(now_ns) + 1) & SLOT_MASK) as usize] = key;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> CookieKeys {
        CookieKeys::new(core::array::from_fn(|i| Key([i as u64 * 77 + 1, i as u64 + 5])))
    }

    fn tuple() -> impl Strategy<Value = FourTuple> {
        (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<u16>(), any::<u16>()).prop_map(
            |(s, d, source_port, destination_port)| FourTuple {
                source: Address(s),
                destination: Address(d),
                source_port,
                destination_port,
            },
        )
    }

    proptest! {
        #[test]
        fn the_first_segment_of_a_connection_is_recognised(t in tuple(), client_isn: u32, now in 0..u64::MAX / 2) {
            let isn = isn(&keys(), &t, client_isn, now);
            let seen = phase(&keys(), &t, client_isn.wrapping_add(1), isn.wrapping_add(1), now);
            prop_assert_eq!(seen, Some(Phase::Request { first: true }));
        }

        #[test]
        fn what_the_client_acknowledges_tells_the_phase(
            t in tuple(), client_isn: u32, now in 0..u64::MAX / 2, response in RESPONSE_MIN..=RESPONSE_MAX, fin in 0u32..=1, seq: u32,
        ) {
            let isn = isn(&keys(), &t, client_isn, now);
            let ack = isn.wrapping_add(1 + response as u32 + fin);
            prop_assert_eq!(phase(&keys(), &t, seq, ack, now), Some(Phase::Answered));
        }

        #[test]
        fn a_cookie_outlives_the_renewal_of_keys_but_not_its_slots(t in tuple(), client_isn: u32, start in 0..u64::MAX / 2, later in 0..8 * SLOT_NS) {
            let mut keys = keys();
            let made = isn(&keys, &t, client_isn, start);
            for s in slot(start)..=slot(start + later) {
                keys.renew_next(s * SLOT_NS, Key([s, !s]));
            }
            let seen = phase(&keys, &t, client_isn.wrapping_add(1), made.wrapping_add(1), start + later);
            let age = slot(start + later) - slot(start);
            if age < LIVE_SLOTS {
                prop_assert_eq!(seen, Some(Phase::Request { first: true }));
            } else if age == LIVE_SLOTS {
                prop_assert_eq!(seen, None);
            }
            // Later still the slot bits come round again, and only the 19 bits of the hash stand between.
        }
    }

    fn connection() -> FourTuple {
        FourTuple {
            source: Address::v4([192, 0, 2, 1]),
            destination: Address::v4([198, 51, 100, 1]),
            source_port: 4711,
            destination_port: 80,
        }
    }

    #[test]
    fn a_guess_is_right_about_once_in_many_thousands() {
        let now = 10 * SLOT_NS;
        let right = (0..1u32 << 20)
            .filter(|i| phase(&keys(), &connection(), 1, i.wrapping_mul(0x9e37_79b1), now).is_some())
            .count();
        // 2^20 guesses at 14 bits, 3 of 4 slots live, offsets 0..=1328 of 2,048: about 31.
        assert!((10..=70).contains(&right), "{right}");
    }

    #[test]
    fn a_later_segment_is_taken_for_the_first_about_once_in_4096_times() {
        let made = isn(&keys(), &connection(), 7, SLOT_NS);
        let first = |seq| {
            phase(&keys(), &connection(), seq, made.wrapping_add(1), SLOT_NS) == Some(Phase::Request { first: true })
        };
        assert!(first(8));
        let mistaken = (9..9 + (1u32 << 18)).filter(|&seq| first(seq)).count();
        // 2^18 at 12 bits: about 64.
        assert!((30..=110).contains(&mistaken), "{mistaken}");
    }

    #[test]
    fn another_port_is_another_connection() {
        let t = connection();
        let made = isn(&keys(), &t, 1, SLOT_NS);
        let other = FourTuple { source_port: 4712, ..t };
        assert_eq!(phase(&keys(), &other, 2, made.wrapping_add(1), SLOT_NS), None);
    }
}
