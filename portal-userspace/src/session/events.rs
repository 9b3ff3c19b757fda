//! What happens to sessions, for whoever watches.

use std::time::SystemTime;

use tokio::sync::broadcast;

use crate::net::Mac;

/// How many events a slow watcher may be behind before it loses some, which it is told.
const BACKLOG: usize = 1024;

/// Why a session began, changed or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The client logged in at the login page.
    Login,
    /// The operator let it through.
    Allowed,
    /// The operator ended the session.
    Revoked,
    /// The client logged out.
    LoggedOut,
    /// The session's time was over.
    Expired,
    /// The client was silent for too long.
    Idle,
    /// The client had used up its quota.
    Quota,
    /// The table was full, and the client was never seen, or not for long.
    Evicted,
}

impl Cause {
    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Allowed => "allowed",
            Self::Revoked => "revoked",
            Self::LoggedOut => "logged_out",
            Self::Expired => "expired",
            Self::Idle => "idle",
            Self::Quota => "quota",
            Self::Evicted => "evicted",
        }
    }
}

/// That a session began, changed or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionEvent {
    /// The client's zone, by name.
    pub zone: String,
    /// The client.
    pub mac: Mac,
    /// What happened.
    pub cause: Cause,
    /// When. The end of a session by itself is told when it is found, up to a minute late.
    pub at: SystemTime,
}

/// Tells everybody who has subscribed.
#[derive(Clone, Debug)]
pub struct SessionEvents(broadcast::Sender<SessionEvent>);

impl SessionEvents {
    /// Every event from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<SessionEvent> {
        self.0.subscribe()
    }

    pub(super) fn tell(&self, zone: &str, mac: Mac, cause: Cause) {
        // Nobody listens: nobody is told.
        let _: Result<usize, _> =
            self.0.send(SessionEvent { zone: zone.to_owned(), mac, cause, at: SystemTime::now() });
    }
}

impl Default for SessionEvents {
    fn default() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }
}
