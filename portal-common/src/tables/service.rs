//! Addresses, and what a stranger may reach there.

use core::mem::{align_of, size_of};

use super::{AddressHash, AddressWord, ClientKey, Zone};

/// An IPv4 or IPv6 address in 16 bytes; IPv4 is mapped into `::ffff:0:0/96` (RFC 4291 section 2.5.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Address(pub [u8; 16]);

impl Address {
    /// The unspecified address of IPv6, which stands for none.
    pub const UNSPECIFIED: Self = Self([0; 16]);

    /// An IPv4 address.
    #[inline(always)]
    pub const fn v4(a: [u8; 4]) -> Self {
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a[0], a[1], a[2], a[3]])
    }

    /// An IPv6 address.
    #[inline(always)]
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

    /// The address of these two halves.
    #[inline(always)]
    pub fn from_words([high, low]: [u64; 2]) -> Self {
        Self((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
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

impl From<Address> for core::net::IpAddr {
    fn from(a: Address) -> Self {
        core::net::Ipv6Addr::from(a.0).to_canonical()
    }
}

/// A destination a stranger may reach: an address, an IP protocol and a port, in a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C, align(8))]
pub struct ServiceKey {
    address: Address,
    zone: [u8; 2],
    port: [u8; 2],
    // Wider than it need be: three bytes behind a byte are a loop in the kernel.
    protocol: u32,
}

impl ServiceKey {
    /// The service at this address, IP protocol number and port.
    #[inline(always)]
    pub const fn new(zone: Zone, address: Address, protocol: u8, port: u16) -> Self {
        Self { address, zone: zone.bytes(), port: port.to_be_bytes(), protocol: protocol as u32 }
    }

    /// The row that tells that an address is the gateway's own. No TCP or UDP service has this key.
    #[inline(always)]
    pub const fn of_gateway(zone: Zone, address: Address) -> Self {
        Self::new(zone, address, 0, 0)
    }

    /// Its zone.
    pub const fn zone(&self) -> Zone {
        Zone::from_bytes(self.zone)
    }

    /// Its address.
    #[inline(always)]
    pub const fn address(&self) -> Address {
        self.address
    }

    /// Its IP protocol number.
    pub const fn protocol(&self) -> u8 {
        self.protocol as u8
    }

    /// Its port.
    #[inline(always)]
    pub const fn port(&self) -> u16 {
        u16::from_be_bytes(self.port)
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
    /// The gateway itself, under [`ServiceKey::of_gateway`]: neighbour discovery and DHCP may be sent to it, and nobody else may use its address.
    Gateway = 3,
    /// A time server.
    Ntp = 4,
}

impl TryFrom<u32> for Service {
    type Error = u32;

    #[inline(always)]
    fn try_from(number: u32) -> Result<Self, u32> {
        match number {
            1 => Ok(Self::Resolver),
            2 => Ok(Self::Portal),
            3 => Ok(Self::Gateway),
            4 => Ok(Self::Ntp),
            other => Err(other),
        }
    }
}

/// A row of the walled garden, without its prefix length: the zone, the IP protocol and the port must be the same, of the address as much as
/// the prefix says. Port 0 stands for every port, and protocol 0, with port 0, for every protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C, align(4))]
pub struct GardenKey {
    zone: [u8; 2],
    port: [u8; 2],
    // Wider than it need be: three bytes behind a byte are a loop in the kernel.
    protocol: u32,
    address: Address,
}

impl GardenKey {
    /// The bits that must be the same whatever the prefix.
    pub const EXACT_BITS: u32 = 64;
    /// The bits of an IPv4 address' mapping that come before it.
    pub const V4_BITS: u32 = 96;
    /// A prefix length that covers the whole key, for lookups.
    pub const ALL_BITS: u32 = Self::EXACT_BITS + 128;

    /// The row of this address.
    #[inline(always)]
    pub const fn new(zone: Zone, protocol: u8, port: u16, address: Address) -> Self {
        Self { zone: zone.bytes(), port: port.to_be_bytes(), protocol: protocol as u32, address }
    }

    /// The row of this address among those that say which addresses are a zone's own.
    #[inline(always)]
    pub const fn of_source(zone: Zone, address: Address) -> Self {
        Self::new(zone, 0, 0, address)
    }

    /// Its zone.
    pub const fn zone(&self) -> Zone {
        Zone::from_bytes(self.zone)
    }

    /// Its address.
    #[inline(always)]
    pub const fn address(&self) -> Address {
        self.address
    }

    /// Its IP protocol number; 0 for every protocol.
    pub const fn protocol(&self) -> u8 {
        self.protocol as u8
    }

    /// Its port; 0 for every port.
    #[inline(always)]
    pub const fn port(&self) -> u16 {
        u16::from_be_bytes(self.port)
    }
}

/// What the longest prefix of a source says; where there is none, the source is foreign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Source {
    /// Clients of the zone may have it.
    Own = 1,
    /// It is of the gateway's or of another network's.
    Foreign = 2,
}

/// An address in a zone, which at most one client uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnedAddress {
    zone: Zone,
    address: Address,
}

impl OwnedAddress {
    /// This address in this zone.
    #[inline(always)]
    pub const fn new(zone: Zone, address: Address) -> Self {
        Self { zone, address }
    }

    /// Its zone.
    #[inline(always)]
    pub const fn zone(&self) -> Zone {
        self.zone
    }

    /// The address.
    #[inline(always)]
    pub const fn address(&self) -> Address {
        self.address
    }

    /// Its row in the table of addresses.
    #[inline(always)]
    pub const fn row(&self, hash: &AddressHash) -> OwnedWord {
        OwnedWord::new(self.zone, hash.word(self.address))
    }
}

/// A row's key in the table of addresses: an [`OwnedAddress`] in two words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct OwnedWord {
    zone: u64,
    address: u64,
}

impl OwnedWord {
    /// The address in this zone that has this word.
    #[inline(always)]
    pub const fn new(zone: Zone, address: AddressWord) -> Self {
        Self { zone: zone.number() as u64, address: address.to_word() }
    }
}

/// Who uses an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct AddressOwner {
    /// Who.
    pub client: ClientKey,
    /// The address.
    pub address: Address,
}

const _: () = assert!(size_of::<ServiceKey>() == 24 && align_of::<ServiceKey>() == 8);
const _: () = assert!(size_of::<GardenKey>() == 24 && align_of::<GardenKey>() == 4);
const _: () = assert!(size_of::<OwnedWord>() == 16 && align_of::<OwnedWord>() == 8);
const _: () = assert!(size_of::<AddressOwner>() == 24 && align_of::<AddressOwner>() == 8);
