//! The types that cross between the kernel and user space.
//!
//! Keys are byte arrays in network order, so that they have neither padding nor an endianness; values are fixed-width integers.
//! A layout is what a pinned map holds: a change is a new pin version.

mod binding;
mod client;
mod connection;
mod counters;
mod index;
mod known_answer;
mod question;
mod recent;
mod service;
mod session;
mod zone;

pub use binding::{AddressHash, AddressWord, Bindings, MAX_BINDINGS};
pub use client::{ClientRow, ClientState, Flow};
pub use connection::{ConnectionKey, ConnectionNote};
pub use counters::{COUNTER_ROWS, Counters, UNZONED_ROW};
pub use index::{BUCKET_ENTRIES, BUCKET_WORDS, Bucket, IndexEntry, IndexPlace, SessionIndex};
pub use known_answer::{
    KNOWN_PLACES, KNOWN_REQUEST_MAX, KNOWN_REQUEST_MIN, KNOWN_REQUEST_WORDS, KNOWN_ROWS, KNOWN_SEEDS, KNOWN_STATUSES,
    KnownAnswer, KnownPlace, asked, is_known,
};
pub use question::{ANSWERED_WITHIN_NS, Asked, MAX_QUESTIONS, Question};
pub use recent::{RecentPass, Seal, SealKeys, recent_row, rests_until};
pub use service::{Address, AddressOwner, GardenKey, OwnedAddress, OwnedWord, Service, ServiceKey, Source};
pub use session::{ClientKey, Rate, Session};
pub use zone::{Attachment, GateConfig, HttpsPolicy, MAX_ZONES, Strictness, ZONE_PROBES, ZONE_ROWS, Zone, ZoneRow};

use core::mem::size_of;

use crate::siphash::Key;

/// The most receive queues of an interface that the gate serves.
pub const MAX_QUEUES: u32 = 64;
/// The most interfaces that the gate guards at once.
pub const MAX_INTERFACES: u32 = 16;

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

const _: () = assert!(size_of::<CookieKeys>() == 64 && align_of::<CookieKeys>() == 8);
