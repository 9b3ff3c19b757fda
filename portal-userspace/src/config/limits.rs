//! What a client that has logged in may use.

use super::{
    bar::{BarTime, QuotaPer},
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
        /// How many bytes it may send and receive, together.
        quota: OrNone<ByteCount> = OrNone::NONE,
        /// What that is of.
        quota_per: QuotaPer = QuotaPer::default(),
        /// How long it is kept out once a session's quota is spent.
        bar_after_quota: OrNone<BarTime> = OrNone::NONE,
        /// How long it is kept out once an operator has revoked its session.
        bar_after_revoke: OrNone<BarTime> = OrNone::NONE,
        /// Whether it is counted what it sends and receives.
        accounting: bool = true,
        /// After how long without a frame from it a session ends.
        idle: OrNone<IdleTime> = OrNone::NONE,
    }
}
