//! SYN cookies (RFC 4987 section 3.6): the whole state of an intercepted connection, kept in its sequence numbers.
//!
//! Our initial sequence number is
//!
//! ```text
//!  31 30 29                                11 10                     0
//! +-----+------------------------------------+------------------------+
//! |slot |  keyed hash of 4-tuple and slot    |  offset                |
//! +-----+------------------------------------+------------------------+
//! ```
//!
//! - `slot`: the low bits of the time slot, which pick the key and let a cookie grow old.
//! - the hash: 19 bits, so that a blind guess passes once in 524,288 tries; all it gains is one answer to the guesser's own MAC.
//! - `offset` starts at a keyed value below [`RESPONSE_MIN`], made from the client's initial sequence number. As every response is between
//!   [`RESPONSE_MIN`] and [`RESPONSE_MAX`] bytes and one segment, what the client acknowledges tells how far the exchange
//!   got, without any memory of it, and never carries into the hash.

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
const HASH_MASK: u32 = (1 << (SLOT_SHIFT - OFFSET_BITS)) - 1;

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
        /// The segment starts where the client's stream starts. A later segment is taken for the first once in 128
        /// times, which matters only where the first was lost or overtaken.
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
    ((slot & SLOT_MASK) as u32) << SLOT_SHIFT | checked_part(hash) << OFFSET_BITS | start(hash, client_isn)
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
    if received >> OFFSET_BITS & HASH_MASK != checked_part(hash) {
        return None;
    }
    let offset = received & OFFSET_MASK;
    if offset < RESPONSE_MIN as u32 {
        Some(Phase::Request { first: offset == start(hash, seq.wrapping_sub(1)) })
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

/// Where the offset starts. The low half of the hash is a secret of this connection, so a multiplicative hash is enough.
#[inline(always)]
const fn start(hash: u64, client_isn: u32) -> u32 {
    (client_isn ^ hash as u32).wrapping_mul(0x9e37_79b1) >> (u32::BITS - START_BITS)
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

    #[test]
    fn a_guess_is_right_about_once_in_half_a_million() {
        let t = FourTuple {
            source: Address::v4([192, 0, 2, 1]),
            destination: Address::v4([198, 51, 100, 1]),
            source_port: 4711,
            destination_port: 80,
        };
        let now = 10 * SLOT_NS;
        let right =
            (0..1u32 << 20).filter(|i| phase(&keys(), &t, 1, i.wrapping_mul(0x9e37_79b1), now).is_some()).count();
        // 2^20 guesses, 3 of 4 slots live, offsets 0..=1328 of 2,048: about one.
        assert!(right <= 8, "{right}");
    }

    #[test]
    fn another_port_is_another_connection() {
        let t = FourTuple {
            source: Address::v4([192, 0, 2, 1]),
            destination: Address::v4([198, 51, 100, 1]),
            source_port: 4711,
            destination_port: 80,
        };
        let made = isn(&keys(), &t, 1, SLOT_NS);
        let other = FourTuple { source_port: 4712, ..t };
        assert_eq!(phase(&keys(), &other, 2, made.wrapping_add(1), SLOT_NS), None);
    }
}
