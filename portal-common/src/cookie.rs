//! SYN cookies (RFC 4987 section 3.6): the whole state of an intercepted connection, kept in its sequence numbers.
//!
//! Our initial sequence number has one of two layouts. The connection's port tells which, so nothing has to remember it: 443 has the
//! one for TLS alerts, every other port the one for HTTP responses.
//!
//! ```text
//!        31 30 29                    16 15        11 10                    0
//!       +-----+------------------------+------------+-----------------------+
//! HTTP  |slot | hash of the connection | first mark | offset                |
//!       +-----+------------------------+------------+-----------------------+
//!       31 30 29                    16 15                        4 3        0
//!       +-----+------------------------+---------------------------+--------+
//! alert |slot | hash of the connection | first mark                | offset |
//!       +-----+------------------------+---------------------------+--------+
//! ```
//!
//! - `slot`: the low bits of the time slot, which pick the key and let a cookie grow old.
//! - hash of the connection: keyed, of the 4-tuple and the slot, 14 bits. A blind guess passes once in 16,384 tries, and gains one answer to the guesser's own MAC, which
//!   an ordinary handshake would have gained as well.
//! - first mark: a keyed hash of the client's initial sequence number, 12 bits, which tell the first segment of the request. An HTTP cookie has 7 of
//!   them in where its `offset` starts.
//! - `offset`: how much of our answer the client has received. In HTTP it starts below [`RESPONSE_MIN`], and every response is between
//!   [`RESPONSE_MIN`] and [`RESPONSE_MAX`] bytes and one segment. An alert is [`ALERT_LEN`] bytes, too few for that, so there the offset
//!   starts at 0 and has the low bits for itself. Either way what the client acknowledges tells how far the exchange got, without
//!   any memory of it, and never carries into the bits above.

use crate::{
    protocol::PORT_HTTPS,
    siphash::{Key, siphash},
    tables::{Address, CookieKeys},
};

/// The shortest response payload, bytes.
pub const RESPONSE_MIN: usize = 1 << START_BITS;
/// The longest response payload, bytes: it must fit one segment on any path (IPv6's minimum MTU is 1,280).
pub const RESPONSE_MAX: usize = 1200;
/// The length of a TLS alert in the clear: the record's header, its level and its description (RFC 8446 sections 5.1 and 6).
pub const ALERT_LEN: usize = 7;

/// How long a slot lasts.
pub const SLOT_NS: u64 = 64 * 1_000_000_000;
/// In how many slots a cookie is good: the one it was made in and those after it. With 64 s slots, 128 to 192 s.
pub const LIVE_SLOTS: u64 = 3;

const START_BITS: u32 = 7;
const OFFSET_BITS: u32 = 11;
const OFFSET_MASK: u32 = (1 << OFFSET_BITS) - 1;
const SLOT_SHIFT: u32 = 30;
const SLOT_MASK: u64 = 3;
const HASH_SHIFT: u32 = 16;
const HASH_MASK: u32 = (1 << (SLOT_SHIFT - HASH_SHIFT)) - 1;
const MARK_BITS: u32 = START_BITS + HASH_SHIFT - OFFSET_BITS;
const ALERT_OFFSET_BITS: u32 = HASH_SHIFT - MARK_BITS;
const ALERT_OFFSET_MASK: u32 = (1 << ALERT_OFFSET_BITS) - 1;

// FIN takes a sequence number too. The offset must not carry into the bits above.
const _: () = assert!(RESPONSE_MIN + RESPONSE_MAX < 1 << OFFSET_BITS);
const _: () = assert!(ALERT_LEN < ALERT_OFFSET_MASK as usize);
const _: () = assert!(MARK_BITS == 12);
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

impl FourTuple {
    /// Whether the client expects TLS there: it gets an alert, and its cookies have the layout for that.
    #[inline(always)]
    pub const fn is_tls(&self) -> bool {
        self.destination_port == PORT_HTTPS
    }
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
    ((slot & SLOT_MASK) as u32) << SLOT_SHIFT
        | checked_part(hash) << HASH_SHIFT
        | start(tuple.is_tls(), first_mark(hash, client_isn))
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
    let progress = progress(tuple.is_tls(), received)?;
    Some(match progress {
        Progress::Nothing { mark } => Phase::Request { first: mark == first_mark(hash, seq.wrapping_sub(1)) },
        Progress::Answer => Phase::Answered,
    })
}

/// What the bits below the hash say.
enum Progress {
    Nothing { mark: u32 },
    Answer,
}

/// The bits below the hash, before anything is received.
#[inline(always)]
const fn start(is_tls: bool, mark: u32) -> u32 {
    if is_tls {
        mark << ALERT_OFFSET_BITS
    } else {
        (mark >> START_BITS) << OFFSET_BITS | mark & (RESPONSE_MIN as u32 - 1)
    }
}

/// The reverse of [`start`], and of what an answer adds to it; nothing if neither leads to these bits.
#[inline(always)]
const fn progress(is_tls: bool, received: u32) -> Option<Progress> {
    let low = received & ((1 << HASH_SHIFT) - 1);
    let (offset, nothing_below, answer_up_to, mark) = if is_tls {
        // A client that has closed without a request gets a FIN alone: it acknowledges 1.
        (low & ALERT_OFFSET_MASK, 1, ALERT_LEN as u32 + 1, low >> ALERT_OFFSET_BITS)
    } else {
        let offset = low & OFFSET_MASK;
        (
            offset,
            RESPONSE_MIN as u32,
            (RESPONSE_MIN + RESPONSE_MAX) as u32,
            // Of no consequence unless the offset is below RESPONSE_MIN.
            (low >> OFFSET_BITS) << START_BITS | offset,
        )
    };
    if offset < nothing_below {
        Some(Progress::Nothing { mark })
    } else if offset <= answer_up_to {
        Some(Progress::Answer)
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

/// What marks the first segment. The low half of the hash is a secret of this connection, so a multiplicative hash is enough.
#[inline(always)]
const fn first_mark(hash: u64, client_isn: u32) -> u32 {
    (client_isn ^ hash as u32).wrapping_mul(0x9e37_79b1) >> (u32::BITS - MARK_BITS)
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
        let port = prop_oneof![Just(80), Just(443), any::<u16>()];
        (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<u16>(), port).prop_map(|(s, d, source_port, destination_port)| {
            FourTuple { source: Address(s), destination: Address(d), source_port, destination_port }
        })
    }

    /// Connections, each with what our side may send on it, FIN included: a response, an alert, or a FIN alone.
    fn answered() -> impl Strategy<Value = (FourTuple, u32)> {
        let http = (tuple(), RESPONSE_MIN..=RESPONSE_MAX, 0..=1u32).prop_map(|(t, response, fin)| {
            let destination_port = if t.destination_port == 443 { 80 } else { t.destination_port };
            (FourTuple { destination_port, ..t }, response as u32 + fin)
        });
        let alert = prop_oneof![Just(1), Just(ALERT_LEN as u32), Just(ALERT_LEN as u32 + 1)];
        let alert = (tuple(), alert).prop_map(|(t, received)| (FourTuple { destination_port: 443, ..t }, received));
        prop_oneof![http, alert]
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
            (t, received) in answered(), client_isn: u32, now in 0..u64::MAX / 2, seq: u32,
        ) {
            let isn = isn(&keys(), &t, client_isn, now);
            let ack = isn.wrapping_add(1 + received);
            prop_assert_eq!(phase(&keys(), &t, seq, ack, now), Some(Phase::Answered));
        }

        #[test]
        fn what_was_never_sent_on_443_is_not_acknowledged(t in tuple(), client_isn: u32, now in 0..u64::MAX / 2, seq: u32, beyond in 9u32..16) {
            let t = FourTuple { destination_port: 443, ..t };
            let isn = isn(&keys(), &t, client_isn, now);
            prop_assert_eq!(phase(&keys(), &t, seq, isn.wrapping_add(1 + beyond), now), None);
        }

        #[test]
        fn any_segment_can_be_judged(t in tuple(), seq: u32, ack: u32, now: u64) {
            let _ = phase(&keys(), &t, seq, ack, now);
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
            // Later still the slot bits come round again, and only the 14 bits of the hash stand between.
        }
    }

    fn connection(destination_port: u16) -> FourTuple {
        FourTuple {
            source: Address::v4([192, 0, 2, 1]),
            destination: Address::v4([198, 51, 100, 1]),
            source_port: 4711,
            destination_port,
        }
    }

    #[test]
    fn a_guess_is_right_about_once_in_many_thousands() {
        let now = 10 * SLOT_NS;
        // 2^20 guesses at 14 bits, 3 of 4 slots live. HTTP: offsets 0..=1328 of 2,048, about 31. An alert: 0..=8 of 16, about 27.
        for port in [80, 443] {
            let right = (0..1u32 << 20)
                .filter(|i| phase(&keys(), &connection(port), 1, i.wrapping_mul(0x9e37_79b1), now).is_some())
                .count();
            assert!((10..=70).contains(&right), "{port}: {right}");
        }
    }

    #[test]
    fn a_later_segment_is_taken_for_the_first_about_once_in_4096_times() {
        for port in [80, 443] {
            let connection = connection(port);
            let made = isn(&keys(), &connection, 7, SLOT_NS);
            let first = |seq| {
                phase(&keys(), &connection, seq, made.wrapping_add(1), SLOT_NS) == Some(Phase::Request { first: true })
            };
            assert!(first(8));
            let mistaken = (9..9 + (1u32 << 18)).filter(|&seq| first(seq)).count();
            // 2^18 at 12 bits: about 64.
            assert!((30..=110).contains(&mistaken), "{port}: {mistaken}");
        }
    }

    #[test]
    fn another_port_is_another_connection() {
        for port in [80, 443] {
            let t = connection(port);
            let made = isn(&keys(), &t, 1, SLOT_NS);
            for other in [FourTuple { source_port: 4712, ..t }, FourTuple { destination_port: 523 - port, ..t }] {
                assert_eq!(phase(&keys(), &other, 2, made.wrapping_add(1), SLOT_NS), None);
            }
        }
    }
}
