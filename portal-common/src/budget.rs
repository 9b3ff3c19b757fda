//! What a stranger may use up before it logs in.
//!
//! Every answer and every pass spends from the client's own budget of its reason's class, so that one client cannot take the responder, the
//! resolver or the gateway's CPU from the others. Over budget is a drop with a reason of its own.

use core::mem::size_of;

use crate::reason::Reason;

/// What is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Class {
    /// Segments that go to the responder: packets.
    Requests = 0,
    /// DNS queries: packets.
    DnsQueries = 1,
    /// DNS in both directions: bytes of frames.
    DnsBytes = 2,
    /// ARP, neighbour discovery, DHCP, EAPOL: packets.
    Link = 3,
    /// Answers that the gate makes itself: packets.
    Replies = 4,
    /// The login page, the walled garden, time: bytes of frames.
    Services = 5,
}

impl Class {
    /// How many there are.
    pub const COUNT: usize = 6;
    /// Every class, by number.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Requests, Self::DnsQueries, Self::DnsBytes, Self::Link, Self::Replies, Self::Services];

    /// The class with this number.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Requests),
            1 => Some(Self::DnsQueries),
            2 => Some(Self::DnsBytes),
            3 => Some(Self::Link),
            4 => Some(Self::Replies),
            5 => Some(Self::Services),
            _ => None,
        }
    }

    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::DnsQueries => "dns_queries",
            Self::DnsBytes => "dns_bytes",
            Self::Link => "link",
            Self::Replies => "replies",
            Self::Services => "services",
        }
    }

    /// Whether it counts bytes, not packets.
    #[inline(always)]
    pub const fn counts_bytes(self) -> bool {
        matches!(self, Self::DnsBytes | Self::Services)
    }

    /// How many units a frame of so many bytes is.
    #[inline(always)]
    pub const fn units(self, bytes: u64) -> u64 {
        if self.counts_bytes() { bytes } else { 1 }
    }

    /// Why a packet is dropped when the budget is spent.
    #[inline(always)]
    pub const fn exhausted(self) -> Reason {
        match self {
            Self::Requests => Reason::BudgetRequests,
            Self::DnsQueries => Reason::BudgetDnsQueries,
            Self::DnsBytes => Reason::BudgetDnsBytes,
            Self::Link => Reason::BudgetLink,
            Self::Replies => Reason::BudgetReplies,
            Self::Services => Reason::BudgetServices,
        }
    }
}

/// How fast a budget is filled, and how much it holds: a token bucket ([`crate::bucket`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Limit {
    /// How long a unit takes, in 1/1024 nanoseconds; 0 for no limit.
    unit: u64,
    burst_ns: u64,
}

impl Limit {
    /// No limit.
    pub const NONE: Self = Self { unit: 0, burst_ns: 0 };
    /// Nothing at all: a unit takes a nanosecond, and none can be spent at once.
    pub const NOTHING: Self = Self { unit: 1 << Self::FRACTION_BITS, burst_ns: 0 };

    /// What an ordinary client never comes near, but a flood or a tunnel does: in the order of the classes.
    pub const DEFAULTS: [Self; Class::COUNT] = [
        Self::new(20, 100),
        Self::new(10, 200),
        // 3.2 kbit/s: a tunnel through the resolver is not worth its while. 32 KiB resolve some 150 names at once.
        Self::new(400, 32 * 1024),
        Self::new(50, 200),
        Self::new(100, 500),
        Self::new(256 * 1024, 2 * 1024 * 1024),
    ];

    /// So many units (packets, or bytes) a second, and so many at once. Both at least 1.
    pub const fn new(per_second: u64, burst: u64) -> Self {
        const SECOND: u64 = 1_000_000_000 << Limit::FRACTION_BITS;
        let unit = SECOND / if per_second == 0 { 1 } else { per_second };
        let unit = if unit == 0 { 1 } else { unit };
        Self { unit, burst_ns: (unit * if burst == 0 { 1 } else { burst }) >> Self::FRACTION_BITS }
    }

    const FRACTION_BITS: u32 = 10;

    /// Whether there is a limit.
    #[inline(always)]
    pub const fn is_limited(&self) -> bool {
        self.unit != 0
    }

    /// What so many units cost, nanoseconds.
    #[inline(always)]
    pub const fn cost_ns(&self, units: u64) -> u64 {
        (self.unit * units) >> Self::FRACTION_BITS
    }

    /// Whether so many units are more than the limit allows even who has spent nothing.
    #[inline(always)]
    pub const fn forbids(&self, units: u64) -> bool {
        self.is_limited() && self.cost_ns(units) > self.burst_ns
    }

    /// How much can be spent at once, nanoseconds.
    #[inline(always)]
    pub const fn burst_ns(&self) -> u64 {
        self.burst_ns
    }
}

/// What a stranger has spent. `W` as in [`crate::tables::ClientState`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Budgets<W> {
    /// A token bucket for each class.
    pub buckets: [W; Class::COUNT],
    /// When it was last told that one was spent, nanoseconds of CLOCK_MONOTONIC.
    pub told_ns: W,
    /// A token bucket for the connections to the portal's services that it begins: whether or not it is logged in.
    pub connections: W,
}

const _: () = assert!(size_of::<Limit>() == 16);
const _: () = assert!(size_of::<Budgets<u64>>() == 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_what_it_says() {
        for (per_second, burst) in [(1, 1), (20, 100), (400, 32_768), (262_144, 2_097_152), (1_000_000_000, 1)] {
            let limit = Limit::new(per_second, burst);
            let second = limit.cost_ns(per_second);
            assert!(second.abs_diff(1_000_000_000) < 2_000_000, "{per_second}/s: {second} ns");
            assert!(limit.cost_ns(burst) <= limit.burst_ns() && limit.cost_ns(burst + 1) >= limit.burst_ns());
        }
    }

    #[test]
    fn the_default_for_dns_keeps_a_tunnel_below_8_kbit_s_over_a_minute() {
        let limit = Limit::DEFAULTS[Class::DnsBytes as usize];
        let bytes_in_a_minute = (limit.burst_ns() + 60_000_000_000) / limit.cost_ns(1);
        assert!(bytes_in_a_minute * 8 / 60 < 8_000, "{bytes_in_a_minute}");
    }
}
