//! What a client that has logged in may use.

use super::{
    quantity::{BitRate, ByteCount, IdleTime, OrNone, RateBurst},
    section::section,
};

section! {
    /// What each client that has logged in may use.
    SessionLimits,
    /// A zone's own limits.
    SessionLimitsOverride {
        /// How fast it may send.
        rate_up: OrNone<BitRate> = OrNone::NONE,
        /// How fast it may be sent to.
        rate_down: OrNone<BitRate> = OrNone::NONE,
        /// How far it may run ahead of these rates.
        rate_burst: RateBurst = RateBurst::default(),
        /// How many bytes it may send and receive, together, in a session.
        quota: OrNone<ByteCount> = OrNone::NONE,
        /// Whether it is counted what it sends and receives.
        accounting: bool = true,
        /// After how long without a frame from it a session ends.
        idle: OrNone<IdleTime> = OrNone::NONE,
    }
}
