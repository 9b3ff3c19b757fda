//! Guest networks: which frames belong to which, and what the gate must know of each.

use core::mem::{align_of, size_of};

use super::{Service, ServiceKey};
use crate::budget::{Class, Limit};

/// How many zones the gate can guard.
pub const MAX_ZONES: u32 = 64;

/// A guest network: an interface, or an interface and a VLAN. Each has sessions of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Zone([u8; 2]);

impl Zone {
    /// The zone with the lowest number.
    pub const FIRST: Self = Self([0; 2]);

    /// The zone with this number, below [`MAX_ZONES`].
    #[inline(always)]
    pub const fn new(number: u16) -> Self {
        Self(number.to_be_bytes())
    }

    /// The zone's number.
    #[inline(always)]
    pub const fn number(self) -> u16 {
        u16::from_be_bytes(self.0)
    }

    #[inline(always)]
    pub(crate) const fn bytes(self) -> [u8; 2] {
        self.0
    }

    pub(super) const fn from_bytes(bytes: [u8; 2]) -> Self {
        Self(bytes)
    }
}

/// Where frames of a zone arrive: an interface, and the VLAN ids of their tags, the outer first. 0 stands for "no tag"; a tag with
/// VLAN id 0 carries only a priority, and counts as none (IEEE 802.1Q-2018 section 9.6).
// One word, which the gate builds in a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Attachment(u64);

impl Attachment {
    /// Frames that arrive at the interface of this index under these VLAN ids.
    #[inline(always)]
    pub const fn new(ifindex: u32, outer: u16, inner: u16) -> Self {
        Self((ifindex as u64) << 32 | (outer as u64 & 0xfff) << 20 | (inner as u64 & 0xfff) << 8)
    }

    /// The interface's index.
    pub const fn ifindex(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The outer and the inner VLAN id; 0 where there is no tag.
    pub const fn vlans(self) -> (u16, u16) {
        ((self.0 >> 20) as u16 & 0xfff, (self.0 >> 8) as u16 & 0xfff)
    }
}

/// How many rows the table of attachments has: many more than there are attachments, so that most are found where they are looked for first.
pub const ZONE_ROWS: u32 = 4096;
/// Behind how many rows an attachment may be, beginning with its own.
pub const ZONE_PROBES: u32 = 4;

/// A row of the table that says which frames belong to which zone: an attachment, and in its low bits the zone. All zero is none.
// One word, so that it is changed in one step. A hash map would cost a call for each frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct ZoneRow(u64);

impl ZoneRow {
    /// A free row.
    pub const NONE: Self = Self(0);
    const ZONE: u64 = 0xff;

    /// Frames of this attachment belong to this zone.
    pub const fn new(attachment: Attachment, zone: Zone) -> Self {
        Self(attachment.0 | (zone.number() as u64 + 1))
    }

    /// The zone, if the row is this attachment's.
    #[inline(always)]
    pub const fn zone_of(self, attachment: Attachment) -> Option<Zone> {
        // A zone's number is never so large that the row of one attachment could look like another's.
        let number = (self.0 ^ attachment.0).wrapping_sub(1);
        if number < MAX_ZONES as u64 { Some(Zone::new(number as u16)) } else { None }
    }

    /// The attachment and the zone; nothing for a free row.
    pub const fn get(self) -> Option<(Attachment, Zone)> {
        let attachment = Attachment(self.0 & !Self::ZONE);
        match self.zone_of(attachment) {
            Some(zone) => Some((attachment, zone)),
            None => None,
        }
    }
}

impl Attachment {
    /// The row at which it is looked for first; the others follow it, and the first the last.
    #[inline(always)]
    pub const fn row(self) -> u32 {
        (self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - ZONE_ROWS.trailing_zeros())) as u32
    }
}

/// What a stranger's connection to TCP/443 gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum HttpsPolicy {
    /// A reset: a browser shows an error at once.
    #[default]
    Reset = 0,
    /// A fatal TLS alert after the ClientHello: browsers look for a portal at once.
    Alert = 1,
    /// Silence.
    Drop = 2,
}

/// What happens to a client that sends from an address that is not its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Strictness {
    /// Nothing: addresses are not looked at.
    Off = 0,
    /// A session's addresses are learned as it uses them, the newest displacing others where there are too many. With the address of another
    /// client, or of the gateway, it is a stranger.
    #[default]
    Learn = 1,
    /// As `Learn`, but a session keeps the first addresses it used: with one too many it is a stranger.
    Strict = 2,
}

/// What the gate must know of a zone. All zero, as a new map holds it, means "not configured".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct GateConfig {
    gateway_mac: [u8; 6],
    https: u8,
    strictness: u8,
    flags: u32,
    /// Where the interface's sockets begin in the table of the responder's sockets.
    xsk_base: u32,
    /// How far a rate-limited client may run ahead of its rate, nanoseconds.
    rate_burst_ns: u64,
    /// Which destinations may be among the services: see [`GateConfig::may_serve`].
    services: [u64; SERVICE_WORDS],
    /// Which ports the portal's services may have: those that are this one, where it counts. In network order. See [`GateConfig::may_be_portal`].
    portal_port: [u8; 2],
    /// Which of its bits count.
    portal_port_mask: [u8; 2],
    reserved: u32,
    limits: [Limit; Class::COUNT],
}

const SERVICE_WORDS: usize = 4;

/// Which bit of which word of the filter is a destination's. Not the protocol's: nearly all is one.
#[inline(always)]
const fn service_bit([high, low]: [u64; 2], port: u16) -> (usize, u64) {
    let mixed = (low ^ high.rotate_left(24) ^ (port as u64) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed >> 62) as usize, 1 << (mixed >> 56 & 63))
}

const READY: u32 = 1;
const SHADOW: u32 = 2;
const GARDEN: u32 = 4;
const NAMES: u32 = 8;
const CAPTURING: u32 = 16;
const SOURCES: u32 = 64;
/// Zero, as everything, stands for what is done where nothing is said.
const UNCOUNTED: u32 = 32;

impl GateConfig {
    /// What a map holds that user space has not filled.
    pub const UNFILLED: Self = Self {
        gateway_mac: [0; 6],
        https: 0,
        strictness: 0,
        flags: 0,
        xsk_base: 0,
        rate_burst_ns: 0,
        services: [0; SERVICE_WORDS],
        portal_port: [0; 2],
        portal_port_mask: [0; 2],
        reserved: 0,
        limits: [Limit::NONE; Class::COUNT],
    };

    /// How far a rate-limited client may run ahead of its rate where nothing else is said: TCP waits out a burst of losses for at least
    /// 200 ms (Linux `TCP_RTO_MIN`), and what it could have sent meanwhile must not be lost to it.
    pub const DEFAULT_RATE_BURST_NS: u64 = 500_000_000;

    /// The configuration of the gate in front of the station with this MAC address, with every default.
    pub const fn new(gateway_mac: [u8; 6]) -> Self {
        Self {
            gateway_mac,
            https: HttpsPolicy::Reset as u8,
            strictness: Strictness::Learn as u8,
            flags: READY,
            xsk_base: 0,
            rate_burst_ns: Self::DEFAULT_RATE_BURST_NS,
            services: [u64::MAX; SERVICE_WORDS],
            portal_port: [0; 2],
            portal_port_mask: [0; 2],
            reserved: 0,
            limits: Limit::DEFAULTS,
        }
    }

    /// With this policy for TCP/443.
    #[must_use]
    pub const fn with_https(self, https: HttpsPolicy) -> Self {
        Self { https: https as u8, ..self }
    }

    /// With this strictness about clients' addresses.
    #[must_use]
    pub const fn with_strictness(self, strictness: Strictness) -> Self {
        Self { strictness: strictness as u8, ..self }
    }

    /// In shadow mode or not: decide and count, enforce nothing.
    #[must_use]
    pub const fn with_shadow(self, shadow: bool) -> Self {
        self.with_flag(SHADOW, shadow)
    }

    /// With a walled garden or without: whether the prefixes and the learned addresses are looked up at all, and whether DNS answers are learned from.
    #[must_use]
    pub const fn with_garden(self, garden: bool, names: bool) -> Self {
        self.with_flag(GARDEN, garden || names).with_flag(NAMES, names)
    }

    /// With captures or without: whether it is looked up which clients' frames are captured.
    #[must_use]
    pub const fn with_capturing(self, capturing: bool) -> Self {
        self.with_flag(CAPTURING, capturing)
    }

    /// With the interface's sockets from this index on.
    #[must_use]
    pub const fn with_xsk_base(self, xsk_base: u32) -> Self {
        Self { xsk_base, ..self }
    }

    /// With this burst for rate-limited clients, nanoseconds.
    #[must_use]
    pub const fn with_rate_burst_ns(self, rate_burst_ns: u64) -> Self {
        Self { rate_burst_ns, ..self }
    }

    /// With this limit for strangers' packets of a class.
    #[must_use]
    pub const fn with_limit(mut self, class: Class, limit: Limit) -> Self {
        self.limits[class as usize] = limit;
        self
    }

    const fn with_flag(self, flag: u32, on: bool) -> Self {
        let flags = if on { self.flags | flag } else { self.flags & !flag };
        Self { flags, ..self }
    }

    #[inline(always)]
    const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Whether user space has filled it.
    #[inline(always)]
    pub const fn is_ready(&self) -> bool {
        self.has(READY)
    }

    /// With these destinations as the only ones that can be among the services. Without, any can.
    #[must_use]
    pub fn with_services<'a>(self, services: impl IntoIterator<Item = (&'a ServiceKey, &'a Service)>) -> Self {
        let mut words = [0; SERVICE_WORDS];
        let mut ports = None;
        for (key, service) in services {
            let (word, bit) = service_bit(key.address().words(), key.port());
            words[word] |= bit;
            if matches!(service, Service::Portal) {
                let (first, mask) = ports.unwrap_or((key.port(), u16::MAX));
                ports = Some((first, mask & !(first ^ key.port())));
            }
        }
        // Where there is none, no packet is for it: TCP has no port 0.
        let (port, mask) = ports.unwrap_or((0, u16::MAX));
        let (portal_port, portal_port_mask) = (port.to_be_bytes(), mask.to_be_bytes());
        Self { services: words, portal_port, portal_port_mask, ..self }
    }

    /// Whether the destination may be among the services; if not, the table need not be asked, which costs some 40 ns: a Bloom filter with one hash.
    /// Of a hundred strangers' destinations fewer than ten come through with twenty services.
    #[inline(always)]
    pub const fn may_serve(&self, destination: &ServiceKey) -> bool {
        self.may_serve_at(destination.address().words(), destination.port())
    }

    /// Whether this port, in network order, may be one of the portal's services': exact where all have one, or differ in few bits. Of most packets that says
    /// already that they are not for them.
    #[inline(always)]
    pub const fn may_be_portal(&self, port: [u8; 2]) -> bool {
        let (own, mask) = (u16::from_ne_bytes(self.portal_port), u16::from_ne_bytes(self.portal_port_mask));
        (u16::from_ne_bytes(port) ^ own) & mask == 0
    }

    /// As [`GateConfig::may_serve`], of an address in words.
    #[inline(always)]
    pub const fn may_serve_at(&self, address: [u64; 2], port: u16) -> bool {
        let (word, bit) = service_bit(address, port);
        self.services[word] & bit != 0
    }

    /// Counting what clients carry, or not.
    #[must_use]
    pub const fn with_accounting(self, accounting: bool) -> Self {
        self.with_flag(UNCOUNTED, !accounting)
    }

    /// Whether it is counted what clients carry.
    #[inline(always)]
    pub const fn is_accounting(&self) -> bool {
        !self.has(UNCOUNTED)
    }

    /// With a look at whether clients' addresses are of this network, or without.
    #[must_use]
    pub const fn with_source_check(self, check: bool) -> Self {
        self.with_flag(SOURCES, check)
    }

    /// Whether clients' addresses must be of this network.
    #[inline(always)]
    pub const fn checks_sources(&self) -> bool {
        self.has(SOURCES)
    }

    /// Whether the zone is configured, enforces, and captures nothing.
    #[inline(always)]
    pub const fn is_plain(&self) -> bool {
        self.flags & (READY | SHADOW | CAPTURING) == READY
    }

    /// Whether the zone is in shadow mode.
    #[inline(always)]
    pub const fn is_shadow(&self) -> bool {
        self.has(SHADOW)
    }

    /// Whether the zone has a walled garden.
    #[inline(always)]
    pub const fn has_garden(&self) -> bool {
        self.has(GARDEN)
    }

    /// Whether the garden has names, so that DNS answers are learned from.
    #[inline(always)]
    pub const fn has_names(&self) -> bool {
        self.has(NAMES)
    }

    /// Whether there are clients whose frames are captured.
    #[inline(always)]
    pub const fn is_capturing(&self) -> bool {
        self.has(CAPTURING)
    }

    /// The MAC address that guests send to.
    #[inline(always)]
    pub const fn gateway_mac(&self) -> [u8; 6] {
        self.gateway_mac
    }

    /// What a stranger's connection to TCP/443 gets. A number of another version means the default.
    #[inline(always)]
    pub const fn https(&self) -> HttpsPolicy {
        match self.https {
            1 => HttpsPolicy::Alert,
            2 => HttpsPolicy::Drop,
            _ => HttpsPolicy::Reset,
        }
    }

    /// What happens to a client that sends from an address that is not its own. A number of another version means the strictest.
    #[inline(always)]
    pub const fn strictness(&self) -> Strictness {
        match self.strictness {
            0 => Strictness::Off,
            1 => Strictness::Learn,
            _ => Strictness::Strict,
        }
    }

    /// Where the interface's sockets begin in the table of the responder's sockets.
    #[inline(always)]
    pub const fn xsk_base(&self) -> u32 {
        self.xsk_base
    }

    /// How far a rate-limited client may run ahead of its rate, nanoseconds.
    #[inline(always)]
    pub const fn rate_burst_ns(&self) -> u64 {
        self.rate_burst_ns
    }

    /// The limits of strangers' packets, by class.
    #[inline(always)]
    pub const fn limits(&self) -> &[Limit; Class::COUNT] {
        &self.limits
    }
}

const _: () = assert!(ZONE_ROWS.is_power_of_two() && MAX_ZONES < 0xff);
const _: () = assert!(size_of::<ZoneRow>() == 8 && align_of::<ZoneRow>() == 8);
const _: () = assert!(size_of::<Attachment>() == 8 && align_of::<Attachment>() == 8);
const _: () =
    assert!(size_of::<GateConfig>() == 24 + 8 * SERVICE_WORDS + 8 + 16 * Class::COUNT && align_of::<GateConfig>() == 8);
