//! A session as people and programs see it: in wall-clock time.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use portal_common::tables::{Flow, Session};
use serde::{Deserialize, Serialize};

use super::{BarCause, bars::Reason, store::Entry};
use crate::{config::QuotaPer, net::Mac};

/// A client that is logged in. The JSON form is stable.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ClientView {
    /// The client.
    pub mac: Mac,
    /// The zone it is in, by name.
    #[serde(default)]
    pub zone: String,
    /// When the session began, by the wall clock as it stands now (RFC 3339, UTC).
    pub started_at: String,
    /// When the session ends, likewise; None: not before it is revoked or the machine restarts.
    pub expires_at: Option<String>,
    /// Seconds since the session began.
    pub online_seconds: u64,
    /// Seconds until it ends, rounded; None as with `expires_at`.
    pub remaining_seconds: Option<u64>,
    /// Seconds since the client last sent a frame that passed, up to a second too many, and without accounting up to 69; None:
    /// never in this session.
    #[serde(default)]
    pub last_seen_seconds: Option<u64>,
    /// What it has sent.
    #[serde(default)]
    pub up: FlowView,
    /// What it has been sent.
    #[serde(default)]
    pub down: FlowView,
    /// What it may use.
    #[serde(default)]
    pub limits: LimitsView,
    /// The addresses that the gate has bound to the client.
    #[serde(default)]
    pub bound_addresses: Vec<IpAddr>,
    /// The addresses that the kernel's neighbour table has for the client.
    pub addresses: Vec<IpAddr>,
    /// What kept the client out until an operator let it through just now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifted_bar: Option<BarView>,
}

/// That a client is kept out. The JSON form is stable.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct BarView {
    /// The client.
    pub mac: Mac,
    /// The zone that it is kept out of, by name.
    pub zone: String,
    /// Why.
    pub cause: BarCause,
    /// When an operator said so (RFC 3339, UTC); None: it is a quota that keeps it out.
    pub since: Option<String>,
    /// Until when, likewise; None: until an operator lets it in again.
    pub until: Option<String>,
    /// Seconds until then, rounded; None as with `until`.
    pub remaining_seconds: Option<u64>,
    /// What an operator gave as the reason.
    pub reason: Option<Reason>,
}

/// What a client's quota is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QuotaOf {
    pub(super) per: QuotaPer,
    /// How many bytes the day's earlier sessions have carried.
    pub(super) used_before: u64,
    /// How long the day lasts yet.
    pub(super) day_left: Option<Duration>,
}

/// What has passed in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct FlowView {
    /// Frames.
    pub packets: u64,
    /// Bytes of whole Ethernet frames, without the check sequence.
    pub bytes: u64,
}

/// What a client may use; None is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct LimitsView {
    /// How fast it may send, bits per second.
    pub rate_up_bits_per_second: Option<u64>,
    /// How fast it may be sent to, bits per second.
    pub rate_down_bits_per_second: Option<u64>,
    /// How many bytes it may send and receive, together, in this session or in its day.
    pub quota_bytes: Option<u64>,
    /// How many of them are left.
    pub quota_remaining_bytes: Option<u64>,
    /// What the quota is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_per: Option<QuotaPer>,
    /// In how many seconds the day ends that it is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_day_remaining_seconds: Option<u64>,
    /// After how many seconds without a frame from it the session ends.
    pub idle_timeout_seconds: Option<u32>,
}

impl From<&Flow<u64>> for FlowView {
    fn from(Flow { packets, bytes, bucket: _ }: &Flow<u64>) -> Self {
        Self { packets: *packets, bytes: *bytes }
    }
}

impl LimitsView {
    fn new(Entry { session, state, .. }: &Entry, of: QuotaOf) -> Self {
        let QuotaOf { per, used_before, day_left } = of;
        let quota = Some(session.quota_bytes()).filter(|quota| *quota != Session::NO_QUOTA);
        Self {
            rate_up_bits_per_second: session.rate_up().to_bits_per_second(),
            rate_down_bits_per_second: session.rate_down().to_bits_per_second(),
            quota_bytes: quota.map(|quota| quota.saturating_add(used_before)),
            quota_remaining_bytes: quota.map(|quota| quota.saturating_sub(state.quota_used)),
            quota_per: quota.map(|_| per),
            quota_day_remaining_seconds: quota.and(day_left).map(|left| left.as_secs()),
            idle_timeout_seconds: Some(session.idle_s()).filter(|seconds| *seconds != 0),
        }
    }
}

impl ClientView {
    /// The session as seen at this instant of `CLOCK_MONOTONIC`, in nanoseconds.
    pub(super) fn new(zone: &str, entry: &Entry, bound_addresses: Vec<IpAddr>, quota: QuotaOf, now_ns: u64) -> Self {
        let Entry { client, session, state } = entry;
        let online = Duration::from_nanos(now_ns.saturating_sub(session.started_ns()));
        let remaining = Duration::from_nanos(session.expires_ns().saturating_sub(now_ns));
        let wall = SystemTime::now();
        let never = session.expires_ns() == Session::NEVER;
        let seen = Some(state.last_seen_ns).filter(|seen| *seen != 0);
        Self {
            mac: Mac::from_table(client.mac()),
            zone: zone.to_owned(),
            started_at: rfc3339(wall.checked_sub(online)),
            expires_at: (!never).then(|| rfc3339(wall.checked_add(remaining))),
            online_seconds: online.as_secs(),
            remaining_seconds: (!never).then(|| (remaining + Duration::from_millis(500)).as_secs()),
            last_seen_seconds: seen.map(|seen| Duration::from_nanos(now_ns.saturating_sub(seen)).as_secs()),
            up: FlowView::from(&state.up),
            down: FlowView::from(&state.down),
            limits: LimitsView::new(entry, quota),
            bound_addresses,
            addresses: Vec::new(),
            lifted_bar: None,
        }
    }
}

pub(super) fn rfc3339(time: Option<SystemTime>) -> String {
    // CLOCK_MONOTONIC spans 584 years: from 1970 that is short of the year 9999, where the format ends. A wall clock
    // set before 1970 has no place in it.
    let time = time.filter(|t| *t >= SystemTime::UNIX_EPOCH).unwrap_or(SystemTime::UNIX_EPOCH);
    humantime::format_rfc3339_seconds(time).to_string()
}

#[cfg(test)]
mod tests {
    use portal_common::tables::{ClientKey, ClientState, Rate, Zone};

    use super::*;

    const OF_SESSION: QuotaOf = QuotaOf { per: QuotaPer::Session, used_before: 0, day_left: None };

    #[test]
    fn times_are_of_the_wall_clock() {
        let second = 1_000_000_000;
        let client = ClientKey::new(Zone::FIRST, [2, 0, 0, 0, 0, 1]);
        let seen = |session, now| {
            let entry =
                Entry { client, session, state: ClientState { last_seen_ns: 90 * second, ..ClientState::default() } };
            ClientView::new("guest", &entry, Vec::new(), OF_SESSION, now)
        };
        let view = seen(Session::new(50 * second, 160 * second, 0), 100 * second);
        assert_eq!((view.online_seconds, view.remaining_seconds, view.last_seen_seconds), (50, Some(60), Some(10)));
        let started = humantime::parse_rfc3339(&view.started_at).unwrap();
        let ago = SystemTime::now().duration_since(started).unwrap().as_secs();
        assert!((50..=53).contains(&ago), "{ago}");
        let expires = humantime::parse_rfc3339(&view.expires_at.unwrap()).unwrap();
        assert_eq!(expires.duration_since(started).unwrap().as_secs(), 110);
        let forever = seen(Session::new(0, Session::NEVER, 0), 100 * second);
        assert_eq!((forever.expires_at, forever.remaining_seconds), (None, None));
        let long = seen(Session::new(0, Session::NEVER - 1, 0), 100 * second);
        assert!(long.expires_at.unwrap().starts_with("26"));
    }

    #[test]
    fn what_it_carried_and_may_carry_is_shown() {
        let client = ClientKey::new(Zone::FIRST, [2, 0, 0, 0, 0, 1]);
        let rate = Rate::bits_per_second(10_000_000);
        let session =
            Session::new(0, Session::NEVER, 0).with_rates(rate, Rate::UNLIMITED).with_quota(1000).with_idle_s(60);
        let mut state = ClientState { quota_used: 300, ..ClientState::default() };
        state.up = Flow { packets: 2, bytes: 200, bucket: 9 };
        state.down = Flow { packets: 1, bytes: 100, bucket: 9 };
        let bound = vec![IpAddr::from([192, 0, 2, 7])];
        let entry = Entry { client, session, state };
        let view = ClientView::new("guest", &entry, bound.clone(), OF_SESSION, 5);
        assert_eq!((view.zone.as_str(), view.last_seen_seconds), ("guest", None));
        assert_eq!((view.up, view.down), (FlowView { packets: 2, bytes: 200 }, FlowView { packets: 1, bytes: 100 }));
        assert_eq!(view.bound_addresses, bound);
        assert_eq!(
            view.limits,
            LimitsView {
                rate_up_bits_per_second: Some(10_000_000),
                rate_down_bits_per_second: None,
                quota_bytes: Some(1000),
                quota_remaining_bytes: Some(700),
                quota_per: Some(QuotaPer::Session),
                quota_day_remaining_seconds: None,
                idle_timeout_seconds: Some(60),
            }
        );
        let day = QuotaOf { per: QuotaPer::Day, used_before: 5_000, day_left: Some(Duration::from_hours(3)) };
        let limits = ClientView::new("guest", &entry, bound, day, 5).limits;
        assert_eq!((limits.quota_bytes, limits.quota_remaining_bytes), (Some(6_000), Some(700)));
        assert_eq!((limits.quota_per, limits.quota_day_remaining_seconds), (Some(QuotaPer::Day), Some(3 * 3_600)));
    }
}
