//! What a client is let through with.

use std::time::Duration;

use portal_common::tables::{Rate, Session};

use crate::config::{BitRate, ByteCount, IdleTime, OrNone, QuotaPer, SessionLimits};

/// What an operator lets a client through with. What is not said is as in the client's session, or without one as the zone's configuration says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// How long from now; None: as long as a login's.
    pub length: Option<Length>,
    /// How fast it may send.
    pub rate_up: Option<OrNone<BitRate>>,
    /// How fast it may be sent to.
    pub rate_down: Option<OrNone<BitRate>>,
    /// How many bytes it may send and receive, together, from the session's beginning.
    pub quota: Option<OrNone<ByteCount>>,
    /// What that quota is of, where one is given; None: as the zone's configuration says.
    pub quota_per: Option<QuotaPer>,
    /// After how long without a frame from it the session ends.
    pub idle: Option<OrNone<IdleTime>>,
}

/// How long a session lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// This long, from 1 second to 3650 days, in whole seconds.
    For(Duration),
    /// Until it is revoked or the machine restarts (its table is in the kernel's memory).
    Forever,
}

/// Limits as the kernel holds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KernelLimits {
    rate_up: Rate,
    rate_down: Rate,
    quota_bytes: u64,
    idle_s: u32,
}

impl KernelLimits {
    pub(super) fn configured(limits: &SessionLimits) -> Self {
        let SessionLimits { rate_up, rate_down, quota, idle, .. } = limits;
        Self {
            rate_up: rate(*rate_up),
            rate_down: rate(*rate_down),
            quota_bytes: bytes(*quota),
            idle_s: seconds(*idle),
        }
    }

    pub(super) fn of(session: &Session) -> Self {
        Self {
            rate_up: session.rate_up(),
            rate_down: session.rate_down(),
            quota_bytes: session.quota_bytes(),
            idle_s: session.idle_s(),
        }
    }

    /// With what the operator says in place of the same.
    pub(super) fn with(self, grant: &Grant) -> Self {
        Self {
            rate_up: grant.rate_up.map_or(self.rate_up, rate),
            rate_down: grant.rate_down.map_or(self.rate_down, rate),
            quota_bytes: grant.quota.map_or(self.quota_bytes, bytes),
            idle_s: grant.idle.map_or(self.idle_s, seconds),
        }
    }

    /// With this quota, where there is one.
    pub(super) fn with_quota(self, bytes: Option<u64>) -> Self {
        Self { quota_bytes: bytes.unwrap_or(self.quota_bytes), ..self }
    }

    /// A session with these limits.
    pub(super) fn session(self, started_ns: u64, expires_ns: u64, slot: u32) -> Session {
        let Self { rate_up, rate_down, quota_bytes, idle_s } = self;
        Session::new(started_ns, expires_ns, slot)
            .with_rates(rate_up, rate_down)
            .with_quota(quota_bytes)
            .with_idle_s(idle_s)
    }
}

fn rate(limit: OrNone<BitRate>) -> Rate {
    limit.get().map_or(Rate::UNLIMITED, |rate| Rate::bits_per_second(rate.bits_per_second()))
}

pub(super) fn bytes(limit: OrNone<ByteCount>) -> u64 {
    limit.get().map_or(Session::NO_QUOTA, ByteCount::get)
}

fn seconds(limit: OrNone<IdleTime>) -> u32 {
    limit.get().map_or(0, IdleTime::seconds)
}
