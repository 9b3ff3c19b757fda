//! Who is logged in, until when, and with which limits.

use core::mem::{align_of, size_of};

use super::Zone;

/// Who a client is: a MAC address within a zone.
// The alignment makes it one word, which the gate builds in a register and the BPF stack holds without a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C, align(8))]
pub struct ClientKey([u8; 8]);

impl ClientKey {
    /// Nobody: no station has the MAC address zero.
    pub const NONE: Self = Self([0; 8]);

    /// The client with this MAC address in this zone.
    #[inline(always)]
    pub const fn new(zone: Zone, mac: [u8; 6]) -> Self {
        let [z0, z1] = zone.bytes();
        let [m0, m1, m2, m3, m4, m5] = mac;
        Self([z0, z1, m0, m1, m2, m3, m4, m5])
    }

    /// The client with the MAC address that stands behind these bytes' first two, in no zone yet.
    // The gate reads them as one word, where [`ClientKey::new`] puts bytes together: 20 instructions more.
    #[inline(always)]
    pub const fn with_mac_behind(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// The same client in this zone.
    #[must_use]
    #[inline(always)]
    pub const fn in_zone(self, zone: Zone) -> Self {
        let zone = u16::from_le_bytes(zone.bytes()) as u64;
        Self((u64::from_le_bytes(self.0) & !0xffff | zone).to_le_bytes())
    }

    /// Whether it is a station's address: neither a group's nor zero (IEEE 802.3-2018 section 3.2.3).
    #[inline(always)]
    pub const fn is_station(&self) -> bool {
        let mac = u64::from_le_bytes(self.0) >> 16;
        mac & 1 == 0 && mac != 0
    }

    /// Whether it is a group's address (IEEE 802.3-2018 section 3.2.3).
    #[inline(always)]
    pub const fn is_group(&self) -> bool {
        u64::from_le_bytes(self.0) >> 16 & 1 != 0
    }

    /// The key in one word.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        u64::from_ne_bytes(self.0)
    }

    /// The key that [`ClientKey::to_word`] gave.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word.to_ne_bytes())
    }

    /// The zone the client is in, as any number of its own.
    #[inline(always)]
    pub(crate) const fn zone_bits(self) -> u32 {
        self.to_word() as u32 & 0xffff
    }

    /// The zone the client is in.
    pub const fn zone(self) -> Zone {
        let [z0, z1, ..] = self.0;
        Zone::from_bytes([z0, z1])
    }

    /// The client's MAC address.
    pub const fn mac(self) -> [u8; 6] {
        let [_, _, mac @ ..] = self.0;
        mac
    }
}

/// A rate limit: how long a byte takes. All zero is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Rate(u32);

impl Rate {
    /// No limit.
    pub const UNLIMITED: Self = Self(0);
    /// The slowest rate there is, bits per second.
    pub const MIN_BITS_PER_SECOND: u64 = 2_000;
    /// The fastest rate worth a limit, bits per second: beyond it a nanosecond's fraction gets coarse.
    pub const MAX_BITS_PER_SECOND: u64 = 100_000_000_000;
    /// Nanoseconds per byte are kept in units of 1/1024.
    const FRACTION_BITS: u32 = 10;

    /// This many bits per second, held within [`Rate::MIN_BITS_PER_SECOND`] and [`Rate::MAX_BITS_PER_SECOND`].
    pub const fn bits_per_second(bits: u64) -> Self {
        let bits = if bits < Self::MIN_BITS_PER_SECOND {
            Self::MIN_BITS_PER_SECOND
        } else if bits > Self::MAX_BITS_PER_SECOND {
            Self::MAX_BITS_PER_SECOND
        } else {
            bits
        };
        Self(((8_000_000_000u64 << Self::FRACTION_BITS) / bits) as u32)
    }

    /// Bits per second, rounded; None for no limit.
    pub const fn to_bits_per_second(self) -> Option<u64> {
        if self.0 == 0 {
            return None;
        }
        let unit = 8_000_000_000u64 << Self::FRACTION_BITS;
        Some((unit + self.0 as u64 / 2) / self.0 as u64)
    }

    /// How long so many bytes take, nanoseconds; 0 for no limit.
    #[inline(always)]
    pub const fn cost_ns(self, bytes: u64) -> u64 {
        (bytes * self.0 as u64) >> Self::FRACTION_BITS
    }

    /// Whether there is a limit.
    #[inline(always)]
    pub const fn is_limited(self) -> bool {
        self.0 != 0
    }
}

/// That a client has logged in, until when, and with which limits. Only the daemon writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Session {
    started_ns: u64,
    expires_ns: u64,
    quota_bytes: u64,
    slot: u32,
    idle_s: u32,
    rate_up: Rate,
    rate_down: Rate,
}

impl Session {
    /// A session that does not expire has this expiry.
    pub const NEVER: u64 = u64::MAX;
    /// A session without a quota has this one.
    pub const NO_QUOTA: u64 = u64::MAX;

    /// A session between two instants, both in nanoseconds of CLOCK_MONOTONIC, whose state is in this place of the table of states.
    /// Without limits.
    pub const fn new(started_ns: u64, expires_ns: u64, slot: u32) -> Self {
        Self {
            started_ns,
            expires_ns,
            quota_bytes: Self::NO_QUOTA,
            slot,
            idle_s: 0,
            rate_up: Rate::UNLIMITED,
            rate_down: Rate::UNLIMITED,
        }
    }

    /// With these rate limits.
    #[must_use]
    pub const fn with_rates(self, up: Rate, down: Rate) -> Self {
        Self { rate_up: up, rate_down: down, ..self }
    }

    /// With a quota: bytes of whole frames in both directions together, from the session's beginning.
    #[must_use]
    pub const fn with_quota(self, bytes: u64) -> Self {
        Self { quota_bytes: bytes, ..self }
    }

    /// Ending when the client has sent nothing for so many seconds; 0 for never.
    #[must_use]
    pub const fn with_idle_s(self, seconds: u32) -> Self {
        Self { idle_s: seconds, ..self }
    }

    /// When it began: nanoseconds of CLOCK_MONOTONIC.
    pub const fn started_ns(&self) -> u64 {
        self.started_ns
    }

    /// When it ends: nanoseconds of CLOCK_MONOTONIC, or [`Session::NEVER`].
    #[inline(always)]
    pub const fn expires_ns(&self) -> u64 {
        self.expires_ns
    }

    /// How many bytes it may carry, or [`Session::NO_QUOTA`].
    #[inline(always)]
    pub const fn quota_bytes(&self) -> u64 {
        self.quota_bytes
    }

    /// Where its state is in the table of states.
    #[inline(always)]
    pub const fn slot(&self) -> u32 {
        self.slot
    }

    /// After how many seconds without a frame from the client it ends; 0 for never.
    #[inline(always)]
    pub const fn idle_s(&self) -> u32 {
        self.idle_s
    }

    /// The limit for what the client sends.
    #[inline(always)]
    pub const fn rate_up(&self) -> Rate {
        self.rate_up
    }

    /// The limit for what the client receives.
    #[inline(always)]
    pub const fn rate_down(&self) -> Rate {
        self.rate_down
    }

    /// Whether it has not expired at this instant.
    #[inline(always)]
    pub const fn is_live(&self, now_ns: u64) -> bool {
        now_ns < self.expires_ns
    }

    /// Whether the client has been silent for too long at this instant. It was seen when the session began, at the latest.
    #[inline(always)]
    pub const fn is_idle(&self, last_seen_ns: u64, now_ns: u64) -> bool {
        const SECOND_NS: u64 = 1_000_000_000;
        let seen = if last_seen_ns > self.started_ns { last_seen_ns } else { self.started_ns };
        self.idle_s != 0 && now_ns.saturating_sub(seen) >= self.idle_s as u64 * SECOND_NS
    }
}

const _: () = assert!(size_of::<ClientKey>() == 8 && align_of::<ClientKey>() == 8);
const _: () = assert!(size_of::<Session>() == 40 && align_of::<Session>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_read_as_a_word_is_the_same_key() {
        assert!(!ClientKey::with_mac_behind([1, 1, 0, 0, 0, 0, 0, 0]).is_station());
        for mac in [[2, 0x11, 0x22, 0x33, 0x44, 0x55], [0xfe, 0xff, 0, 1, 2, 3], [1, 0, 0x5e, 0, 0, 1]] {
            let [m0, m1, m2, m3, m4, m5] = mac;
            let read = ClientKey::with_mac_behind([0xaa, 0xbb, m0, m1, m2, m3, m4, m5]);
            for zone in [0, 1, 63] {
                assert_eq!(read.in_zone(Zone::new(zone)), ClientKey::new(Zone::new(zone), mac));
            }
            assert_eq!(read.is_station(), mac[0] & 1 == 0);
        }
    }

    #[test]
    fn a_rate_costs_what_it_says() {
        for (bits, bytes, expected_ns) in [
            (8_000_000, 1_000, 1_000_000u64),
            (10_000_000, 1_514, 1_211_200),
            (10_000_000_000, 1_500, 1_200),
            (2_000, 1, 4_000_000),
        ] {
            let cost = Rate::bits_per_second(bits).cost_ns(bytes);
            assert!(cost.abs_diff(expected_ns) * 500 <= expected_ns, "{bits} bit/s, {bytes} B: {cost} ns");
        }
        assert_eq!(Rate::UNLIMITED.cost_ns(1_500), 0);
        assert_eq!(Rate::bits_per_second(10_000_000).to_bits_per_second(), Some(10_000_000));
        assert_eq!(Rate::bits_per_second(1), Rate::bits_per_second(Rate::MIN_BITS_PER_SECOND));
    }

    #[test]
    fn a_session_is_idle_from_the_second_it_says() {
        const S: u64 = 1_000_000_000;
        let session = Session::new(10 * S, Session::NEVER, 0).with_idle_s(60);
        for (sentence, last_seen, now, idle) in [
            ("never seen, but just begun", 0, 11 * S, false),
            ("never seen since", 0, 70 * S, true),
            ("seen just in time", 20 * S, 80 * S - 1, false),
            ("silent for as long", 20 * S, 80 * S, true),
            ("seen by another CPU after this one read the clock", 30 * S, 29 * S, false),
        ] {
            assert_eq!(session.is_idle(last_seen, now), idle, "{sentence}");
        }
        assert!(!Session::new(0, Session::NEVER, 0).is_idle(0, u64::MAX), "without a timeout never");
    }
}
