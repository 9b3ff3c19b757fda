//! How often each reason was given.

use core::mem::size_of;

use super::{MAX_ZONES, Zone};
use crate::reason::REASON_SLOTS;

/// How many rows of counters there are: one for each zone, one for each zone in shadow mode, and one for frames of no zone.
pub const COUNTER_ROWS: u32 = 2 * MAX_ZONES + 1;
/// The row of frames that belong to no zone.
pub const UNZONED_ROW: u32 = 2 * MAX_ZONES;

/// How often each reason was given in one row, on one CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// Packets, indexed by the reason's number.
    pub packets: [u64; REASON_SLOTS],
}

impl Counters {
    /// The row of a zone; in shadow mode another one, as what was decided there was not done.
    #[inline(always)]
    pub const fn row(zone: Zone, shadow: bool) -> u32 {
        zone.number() as u32 + if shadow { MAX_ZONES } else { 0 }
    }
}

const _: () = assert!(size_of::<Counters>() == 8 * REASON_SLOTS);
