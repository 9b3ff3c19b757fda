//! A session as people and programs see it: in wall-clock time.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use portal_common::tables::Session;
use serde::{Deserialize, Serialize};

use crate::net::Mac;

/// A client that is logged in. The JSON form is stable.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ClientView {
    /// The client.
    pub mac: Mac,
    /// When the session began, by the wall clock as it stands now (RFC 3339, UTC).
    pub started_at: String,
    /// When the session ends, likewise; None: not before it is revoked or the machine restarts.
    pub expires_at: Option<String>,
    /// Seconds since the session began.
    pub online_seconds: u64,
    /// Seconds until it ends, rounded; None as with `expires_at`.
    pub remaining_seconds: Option<u64>,
    /// The addresses that the kernel's neighbour table has for the client.
    pub addresses: Vec<IpAddr>,
}

impl ClientView {
    /// The session as seen at this instant of `CLOCK_MONOTONIC`, in nanoseconds.
    pub(super) fn new(mac: Mac, session: &Session, now_ns: u64) -> Self {
        let online = Duration::from_nanos(now_ns.saturating_sub(session.started_ns()));
        let remaining = Duration::from_nanos(session.expires_ns().saturating_sub(now_ns));
        let wall = SystemTime::now();
        let never = session.expires_ns() == Session::NEVER;
        Self {
            mac,
            started_at: rfc3339(wall.checked_sub(online)),
            expires_at: (!never).then(|| rfc3339(wall.checked_add(remaining))),
            online_seconds: online.as_secs(),
            remaining_seconds: (!never).then(|| (remaining + Duration::from_millis(500)).as_secs()),
            addresses: Vec::new(),
        }
    }
}

fn rfc3339(time: Option<SystemTime>) -> String {
    // CLOCK_MONOTONIC spans 584 years: from 1970 that is short of the year 9999, where the format ends. A wall clock
    // set before 1970 has no place in it.
    let time = time.filter(|t| *t >= SystemTime::UNIX_EPOCH).unwrap_or(SystemTime::UNIX_EPOCH);
    humantime::format_rfc3339_seconds(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_of_the_wall_clock() {
        let second = 1_000_000_000;
        let mac = Mac::new([2, 0, 0, 0, 0, 1]).unwrap();
        let view = ClientView::new(mac, &Session::new(50 * second, 160 * second), 100 * second);
        assert_eq!((view.online_seconds, view.remaining_seconds), (50, Some(60)));
        let started = humantime::parse_rfc3339(&view.started_at).unwrap();
        let ago = SystemTime::now().duration_since(started).unwrap().as_secs();
        assert!((50..=53).contains(&ago), "{ago}");
        let expires = humantime::parse_rfc3339(&view.expires_at.unwrap()).unwrap();
        assert_eq!(expires.duration_since(started).unwrap().as_secs(), 110);
        let forever = ClientView::new(mac, &Session::new(0, Session::NEVER), 100 * second);
        assert_eq!((forever.expires_at, forever.remaining_seconds), (None, None));
        let long = ClientView::new(mac, &Session::new(0, Session::NEVER - 1), 100 * second);
        assert!(long.expires_at.unwrap().starts_with("26"));
    }
}
