//! Whose a connection to the portal's own services is.

use core::mem::{align_of, size_of};

use super::{Address, ClientKey, Zone};

/// A client's end of a TCP connection to one of the portal's services. Not the service's end: a station uses a port of its own for one thing at a time, or for
/// several of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C, align(8))]
pub struct ConnectionKey {
    address: Address,
    zone: [u8; 2],
    port: [u8; 2],
    reserved: u32,
}

impl ConnectionKey {
    /// The end at this address and port in this zone.
    #[inline(always)]
    pub const fn new(zone: Zone, address: Address, port: u16) -> Self {
        Self { address, zone: zone.bytes(), port: port.to_be_bytes(), reserved: 0 }
    }
}

/// Which station has begun a connection, by the frames that the gate has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ConnectionNote {
    /// The station.
    pub client: ClientKey,
    /// When it last sent a segment of it, nanoseconds of CLOCK_MONOTONIC; late by up to a second.
    pub seen_ns: u64,
}

const _: () = assert!(size_of::<ConnectionKey>() == 24 && align_of::<ConnectionKey>() == 8);
const _: () = assert!(size_of::<ConnectionNote>() == 16 && align_of::<ConnectionNote>() == 8);
