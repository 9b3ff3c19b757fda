//! Whose packets were let through lately, by the address they came from: an accelerator over the table of clients.
//!
//! For clients that are not metered one row of 16 bytes says all that a packet needs: whose address it is, and until when nothing has to be looked at. It
//! says so for a minute at most, then the table is asked again. Rows lie by the low bits of the address, so that a pool of IPv4 addresses fills
//! them one by one; of IPv6, by a hash. A row that another has taken, or that was never filled, costs the way by the table, and nothing else.

use core::mem::size_of;

use super::{AddressWord, ClientKey, Session};
use crate::word::Word;

/// A row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RecentPass<W> {
    /// Whose it is.
    pub client: W,
    /// A [`Seal`]; 0 where it is nobody's.
    pub seal: W,
}

/// From which address, and until when, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal(u64);

/// Time is counted in units of 2^28 ns, about 0.27 s: 32 bits of them are 36 years.
const UNIT_BITS: u32 = 28;
/// For how long nothing has to be looked at, where nothing ends sooner, nanoseconds: 69 s.
const LASTS_NS: u64 = 1 << 36;
/// Of an idle timeout, of which a second is 10^9 ns, a fifteenth: 2^26 ns.
const IDLE_SHARE_BITS: u32 = 26;

impl Seal {
    /// What says nothing.
    pub const NONE: u64 = 0;

    /// Of this client's packets from this address, until then.
    #[inline(always)]
    pub const fn new(client: ClientKey, address: AddressWord, until: u32) -> Self {
        Self((check(client, address) as u64) << 32 | until as u64)
    }

    /// The seal of which [`Seal::to_word`] gave this.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// In one word.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        self.0
    }

    /// Whether it lets this client's packets from this address through at this instant.
    #[inline(always)]
    pub const fn holds(self, client: ClientKey, address: AddressWord, now_ns: u64) -> bool {
        (self.0 >> 32) as u32 == check(client, address) && ((now_ns >> UNIT_BITS) as u32) < self.0 as u32
    }
}

/// Of an IPv4 address, whose upper half is always the same, this is as good as the address; of a hash, half of it beside what the row's place says. The
/// client is in it too, so that two that wrote one row at once leave one that is nobody's.
#[inline(always)]
const fn check(client: ClientKey, address: AddressWord) -> u32 {
    let folded = address.to_word() ^ address.to_word() >> 32;
    folded as u32 ^ (client.to_word().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

/// The row of an address, of a table with a power of two of rows; `mask` is one less.
#[inline(always)]
pub const fn recent_row(client: ClientKey, address: AddressWord, mask: u32) -> u32 {
    // Zones have pools that are alike: each begins somewhere else.
    (address.to_word() as u32).wrapping_add((client.zone_bits()).wrapping_mul(0x9e37_79b1)) & mask
}

/// Until when a session that is live at this instant need not be looked at, for the seal; 0 where every packet has to be.
#[inline(always)]
pub const fn rests_until(session: &Session, now_ns: u64) -> u32 {
    if session.rate_up().is_limited() || session.quota_bytes() != Session::NO_QUOTA {
        return 0;
    }
    // A packet that is not looked at is not seen: an idle session ends early by no more than this.
    let share = (session.idle_s() as u64) << IDLE_SHARE_BITS;
    let lasts = if session.idle_s() != 0 && share < LASTS_NS { share } else { LASTS_NS };
    let end = now_ns.saturating_add(lasts);
    let end = if end < session.expires_ns() { end } else { session.expires_ns() };
    // Rounded down: never longer than the session.
    (end >> UNIT_BITS) as u32
}

/// Takes away what a row says of this client's packets from this address.
#[inline(always)]
pub fn revoke<W: Word>(row: &RecentPass<W>, client: ClientKey) {
    if row.client.load() == client.to_word() {
        row.seal.store(Seal::NONE);
    }
}

const _: () = assert!(size_of::<RecentPass<u64>>() == 16);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::{Address, AddressHash, Rate, Zone};

    const S: u64 = 1_000_000_000;
    const NOW: u64 = 1_000 * S;

    #[test]
    fn a_seal_holds_for_one_client_one_address_and_a_while() {
        let hash = AddressHash::new(3 << 32 | 5);
        let client = ClientKey::new(Zone::new(3), [2, 0, 0, 0, 0, 1]);
        let other_zone = ClientKey::new(Zone::new(4), [2, 0, 0, 0, 0, 1]);
        let v6 = |last| Address::v6(core::array::from_fn(|i| if i == 15 { last } else { 0x20 }));
        for [own, next] in [[Address::v4([10, 0, 0, 1]), Address::v4([10, 0, 0, 2])], [v6(1), v6(2)]] {
            let [own, next] = [own, next].map(|address| hash.word(address));
            let until = rests_until(&Session::new(0, Session::NEVER, 0), NOW);
            let seal = Seal::new(client, own, until);
            assert!(seal.holds(client, own, NOW) && seal.holds(client, own, NOW + 68 * S));
            assert!(!seal.holds(client, own, NOW + 69 * S), "it is looked at again");
            assert!(!seal.holds(other_zone, own, NOW) && !seal.holds(client, next, NOW));
            assert!(!Seal::from_word(Seal::NONE).holds(client, own, NOW));
        }
    }

    #[test]
    fn a_session_rests_for_no_longer_than_it_lasts() {
        let session = Session::new(0, Session::NEVER, 0);
        let fast = Rate::bits_per_second(Rate::MAX_BITS_PER_SECOND);
        let table = [
            ("without an end", session, Some(LASTS_NS)),
            ("ending in 10 s", Session::new(0, NOW + 10 * S, 0), Some(10 * S)),
            ("idle after 30 s", session.with_idle_s(30), Some(2 * S)),
            ("idle after a day", session.with_idle_s(86_400), Some(LASTS_NS)),
            ("limited in what it sends", session.with_rates(fast, Rate::UNLIMITED), None),
            ("limited in what it receives", session.with_rates(Rate::UNLIMITED, fast), Some(LASTS_NS)),
            ("with a quota", session.with_quota(1 << 40), None),
        ];
        for (sentence, session, lasts) in table {
            let until = u64::from(rests_until(&session, NOW)) << UNIT_BITS;
            match lasts {
                None => assert_eq!(until, 0, "{sentence}"),
                Some(lasts) => {
                    let slack = 2 << UNIT_BITS;
                    assert!(until <= NOW + lasts && until + slack >= NOW + lasts, "{sentence}: {until}");
                }
            }
        }
    }

    #[test]
    fn a_pool_of_addresses_fills_the_table() {
        let client = ClientKey::new(Zone::new(3), [2, 0, 0, 0, 0, 1]);
        let mut taken = [false; 1 << 10];
        for n in 0..1 << 10 {
            let row = recent_row(client, AddressWord::v4(0x0a00_0000 + n), (1 << 10) - 1);
            assert!(!core::mem::replace(&mut taken[row as usize], true), "address {n}");
        }
    }
}
