//! The types that cross between the kernel and user space, and the lookups the decision makes in them.
//!
//! Keys are byte arrays in network order, so that they have neither padding nor an endianness; values are fixed-width integers.

use core::mem::{align_of, size_of};

use crate::{reason::REASON_SLOTS, siphash::Key};

/// The most receive queues of an interface that the gate serves.
pub const MAX_QUEUES: u32 = 64;

/// A guest network: an interface, or an interface and a VLAN. Each has sessions of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Zone([u8; 2]);

impl Zone {
    /// The zone of the one guest interface.
    pub const FIRST: Self = Self([0; 2]);

    /// The zone with this number.
    pub const fn new(number: u16) -> Self {
        Self(number.to_be_bytes())
    }

    /// The zone's number.
    pub const fn number(self) -> u16 {
        u16::from_be_bytes(self.0)
    }
}

/// Who a client is: a MAC address within a zone.
// The alignment makes it one word, which the gate builds in a register and the BPF stack holds without a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C, align(8))]
pub struct ClientKey([u8; 8]);

impl ClientKey {
    /// The client with this MAC address in this zone.
    #[inline(always)]
    pub const fn new(zone: Zone, mac: [u8; 6]) -> Self {
        let [z0, z1] = zone.0;
        let [m0, m1, m2, m3, m4, m5] = mac;
        Self([z0, z1, m0, m1, m2, m3, m4, m5])
    }

    /// The zone the client is in.
    pub const fn zone(self) -> Zone {
        let [z0, z1, ..] = self.0;
        Zone([z0, z1])
    }

    /// The client's MAC address.
    pub const fn mac(self) -> [u8; 6] {
        let [_, _, mac @ ..] = self.0;
        mac
    }
}

/// That a client has logged in, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Session {
    started_ns: u64,
    expires_ns: u64,
}

impl Session {
    /// A session that does not expire has this expiry.
    pub const NEVER: u64 = u64::MAX;

    /// A session between two instants, both in nanoseconds of CLOCK_MONOTONIC.
    pub const fn new(started_ns: u64, expires_ns: u64) -> Self {
        Self { started_ns, expires_ns }
    }

    /// When it began: nanoseconds of CLOCK_MONOTONIC.
    pub const fn started_ns(&self) -> u64 {
        self.started_ns
    }

    /// When it ends: nanoseconds of CLOCK_MONOTONIC, or [`Session::NEVER`].
    pub const fn expires_ns(&self) -> u64 {
        self.expires_ns
    }

    /// Whether it still lets packets through at this instant.
    pub const fn is_live(&self, now_ns: u64) -> bool {
        now_ns < self.expires_ns
    }
}

/// An IPv4 or IPv6 address in 16 bytes; IPv4 is mapped into `::ffff:0:0/96` (RFC 4291 section 2.5.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Address(pub [u8; 16]);

impl Address {
    /// An IPv4 address.
    pub const fn v4(a: [u8; 4]) -> Self {
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a[0], a[1], a[2], a[3]])
    }

    /// An IPv6 address.
    pub const fn v6(a: [u8; 16]) -> Self {
        Self(a)
    }

    /// The high and the low half.
    #[inline(always)]
    pub const fn words(self) -> [u64; 2] {
        let [high @ .., _, _, _, _, _, _, _, _] = self.0;
        let [_, _, _, _, _, _, _, _, low @ ..] = self.0;
        [u64::from_be_bytes(high), u64::from_be_bytes(low)]
    }
}

impl From<core::net::IpAddr> for Address {
    fn from(a: core::net::IpAddr) -> Self {
        match a {
            core::net::IpAddr::V4(a) => Self::v4(a.octets()),
            core::net::IpAddr::V6(a) => Self::v6(a.octets()),
        }
    }
}

/// A destination a stranger may reach: an address, an IP protocol and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C, align(4))]
pub struct ServiceKey {
    address: Address,
    port: [u8; 2],
    protocol: u8,
    reserved: u8,
}

impl ServiceKey {
    /// The service at this address, IP protocol number and port.
    pub const fn new(address: Address, protocol: u8, port: u16) -> Self {
        Self { address, port: port.to_be_bytes(), protocol, reserved: 0 }
    }

    /// The row that tells that an address is the gateway's own. No TCP or UDP service has this key.
    pub const fn of_gateway(address: Address) -> Self {
        Self::new(address, 0, 0)
    }
}

/// What a permitted destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Service {
    /// A DNS resolver.
    Resolver = 1,
    /// One of the portal's own listeners.
    Portal = 2,
    /// The gateway itself, under [`ServiceKey::of_gateway`]: neighbour discovery and DHCP may be sent to it.
    Gateway = 3,
}

impl TryFrom<u32> for Service {
    type Error = u32;

    fn try_from(number: u32) -> Result<Self, u32> {
        match number {
            1 => Ok(Self::Resolver),
            2 => Ok(Self::Portal),
            3 => Ok(Self::Gateway),
            other => Err(other),
        }
    }
}

/// What the gate must know of the interface it guards. All zero, as a new map holds it, means "not configured".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct GateConfig {
    gateway_mac: [u8; 6],
    zone: Zone,
    ready: u32,
    reserved: u32,
}

impl GateConfig {
    /// What a map holds that user space has not filled.
    pub const UNFILLED: Self = Self { gateway_mac: [0; 6], zone: Zone([0; 2]), ready: 0, reserved: 0 };

    /// The configuration of the gate in front of the station with this MAC address.
    pub const fn new(zone: Zone, gateway_mac: [u8; 6]) -> Self {
        Self { gateway_mac, zone, ready: 1, reserved: 0 }
    }

    /// Whether user space has filled it.
    pub const fn is_ready(&self) -> bool {
        self.ready == 1
    }

    /// The zone of the guarded interface.
    pub const fn zone(&self) -> Zone {
        self.zone
    }

    /// The MAC address that guests send to.
    pub const fn gateway_mac(&self) -> [u8; 6] {
        self.gateway_mac
    }
}

/// The secrets behind the SYN cookies, one for each of four time slots: see [`crate::cookie`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct CookieKeys {
    pub(crate) keys: [Key; 4],
}

impl CookieKeys {
    /// The keys of four consecutive slots; a slot's number modulo four picks its key.
    pub const fn new(keys: [Key; 4]) -> Self {
        Self { keys }
    }
}

/// How often each reason was given, on one CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// Packets, indexed by the reason's number.
    pub packets: [u64; REASON_SLOTS],
}

// The layouts are what the maps hold: a change is a new pin version.
const _: () = assert!(size_of::<ClientKey>() == 8 && align_of::<ClientKey>() == 8);
const _: () = assert!(size_of::<Session>() == 16 && align_of::<Session>() == 8);
const _: () = assert!(size_of::<ServiceKey>() == 20 && align_of::<ServiceKey>() == 4);
const _: () = assert!(size_of::<GateConfig>() == 16 && align_of::<GateConfig>() == 4);
const _: () = assert!(size_of::<CookieKeys>() == 64 && align_of::<CookieKeys>() == 8);
const _: () = assert!(size_of::<Counters>() == 8 * REASON_SLOTS);
