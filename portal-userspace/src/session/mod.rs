//! Who is logged in: what may be done to the kernel's tables of sessions.

mod events;
mod grant;
pub mod image;
mod load;
mod slots;
mod store;
mod sweep;
mod view;

use std::{sync::Arc, time::Duration};

use portal_common::tables::{ClientKey, Session, Zone};

use self::{grant::KernelLimits, store::Entry};
use crate::{
    clock,
    config::{Config, SessionLength, ZoneConfig},
    datapath::sessions::InsertError,
    net::Mac,
};

pub use events::{Cause, SessionEvent, SessionEvents};
pub use grant::{Grant, Length};
pub use load::{Clocks, LoadError, Loaded};
pub use store::SessionStore;
pub use sweep::sweep_regularly;
pub use view::{ClientView, FlowView, LimitsView};

/// Why a session could not be changed or shown.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Every place is taken by a live session.
    #[error("all {capacity} places of the session table are taken by clients that are logged in")]
    Full {
        /// How many sessions the table holds.
        capacity: u32,
    },
    /// The client has no session, or it is over.
    #[error("client {0} has no session")]
    NotFound(Mac),
    /// The session would be too short or too long.
    #[error("{0}")]
    Length(String),
    /// The kernel refused.
    #[error("the kernel's session table failed: {0:#}")]
    Kernel(anyhow::Error),
}

impl From<InsertError> for SessionError {
    fn from(e: InsertError) -> Self {
        match e {
            InsertError::Full { capacity } => Self::Full { capacity },
            crowded @ InsertError::Crowded => Self::Kernel(crowded.into()),
        }
    }
}

/// The sessions of one zone.
pub struct SessionService {
    store: Arc<SessionStore>,
    zone: Zone,
    name: String,
    length: Duration,
    limits: KernelLimits,
}

impl SessionService {
    /// The sessions of this zone, as its configuration says where nothing else is said.
    pub fn new(store: Arc<SessionStore>, zone: Zone, config: &ZoneConfig) -> Self {
        let name = config.guest.name.to_string();
        store.name_zone(zone, &name);
        let limits = KernelLimits::configured(&config.session);
        Self { store, zone, name, length: config.portal.session.get(), limits }
    }

    /// The sessions of the first zone in tables of their own, that no program reads, each as long as this where nothing else is said: for tests.
    pub fn standalone(capacity: u32, length: SessionLength) -> anyhow::Result<Self> {
        let config = Config::parse("[guest]\ninterface = \"eth1\"\n", std::path::Path::new("standalone"))?;
        let mut zone = config.zones().remove(0);
        zone.portal.session = length;
        Ok(Self::new(Arc::new(SessionStore::create(capacity)?), Zone::FIRST, &zone))
    }

    /// The zone.
    pub fn zone(&self) -> Zone {
        self.zone
    }

    /// The zone's name.
    pub fn zone_name(&self) -> &str {
        &self.name
    }

    /// How many sessions fit, in all zones together.
    pub fn capacity(&self) -> u32 {
        self.store.capacity()
    }

    /// Lets the client through for this long from now, or for the configured time: [`Self::grant`] without anything else.
    pub fn allow(&self, mac: Mac, length: Option<Duration>) -> Result<ClientView, SessionError> {
        self.grant(mac, &Grant { length: length.map(Length::For), ..Grant::default() })
    }

    /// Lets the client through until it is revoked: [`Self::grant`] without anything else.
    pub fn allow_forever(&self, mac: Mac) -> Result<ClientView, SessionError> {
        self.grant(mac, &Grant { length: Some(Length::Forever), ..Grant::default() })
    }

    /// Lets the client through. A running session keeps its beginning, what it has carried, and the limits that are not given.
    ///
    /// When this returns, the kernel has it. A full table is searched first: not for an async task.
    pub fn grant(&self, mac: Mac, grant: &Grant) -> Result<ClientView, SessionError> {
        let length = match grant.length {
            None => Some(self.length),
            Some(Length::For(length)) => Some(SessionLength::try_from(length).map_err(SessionError::Length)?.get()),
            Some(Length::Forever) => None,
        };
        self.write(mac, Cause::Allowed, |now, running, slot| {
            let expires = length.map_or(Session::NEVER, |length| clock::after(now, length));
            let limits = running.map_or(self.limits, KernelLimits::of).with(grant);
            limits.session(running.map_or(now, Session::started_ns), expires, slot)
        })
    }

    /// Lets the client through for the configured time. A running session is never shortened, and keeps its limits: an operator may have given
    /// it others.
    ///
    /// When this returns, the kernel has it. A full table is searched first: not for an async task.
    pub fn login(&self, mac: Mac) -> Result<ClientView, SessionError> {
        self.write(mac, Cause::Login, |now, running, slot| {
            let expires = clock::after(now, self.length);
            match running {
                Some(session) => {
                    let expires = session.expires_ns().max(expires);
                    KernelLimits::of(session).session(session.started_ns(), expires, slot)
                }
                None => self.limits.session(now, expires, slot),
            }
        })
    }

    /// Ends the client's session, by the operator. When this returns, the client is a stranger.
    pub fn revoke(&self, mac: Mac) -> Result<(), SessionError> {
        let removed = self.store.remove(self.key(mac), Cause::Revoked)?;
        removed.map(drop).ok_or(SessionError::NotFound(mac))
    }

    /// Ends the client's session, by the client; whether it had a live one. When this returns, the client is a stranger.
    pub fn logout(&self, mac: Mac) -> Result<bool, SessionError> {
        Ok(self.store.remove(self.key(mac), Cause::LoggedOut)?.is_some())
    }

    /// The client's live session.
    pub fn show(&self, mac: Mac) -> Result<ClientView, SessionError> {
        let now = clock::now_ns();
        let entry = self.store.read(self.key(mac)).filter(|entry| entry.over(now).is_none());
        entry.map(|entry| self.view(&entry, now)).ok_or(SessionError::NotFound(mac))
    }

    /// How many sessions are live. Up to a microsecond for each session: not for an async task.
    pub fn count(&self) -> Result<usize, SessionError> {
        Ok(self.find_live().len())
    }

    /// Every live session, sorted by MAC address. Up to a microsecond for each session: not for an async task.
    pub fn list(&self) -> Result<Vec<ClientView>, SessionError> {
        let now = clock::now_ns();
        Ok(self.find_live().iter().map(|entry| self.view(entry, now)).collect())
    }

    fn write(
        &self,
        mac: Mac,
        cause: Cause,
        session: impl Fn(u64, Option<&Session>, u32) -> Session,
    ) -> Result<ClientView, SessionError> {
        let entry = self.store.write(self.key(mac), cause, session)?;
        Ok(self.view(&entry, clock::now_ns()))
    }

    fn find_live(&self) -> Vec<Entry> {
        self.store.find(|client| client.zone() == self.zone, |entry, now| entry.over(now).is_none())
    }

    fn view(&self, entry: &Entry, now_ns: u64) -> ClientView {
        self.store.view(&self.name, entry, now_ns)
    }

    fn key(&self, mac: Mac) -> ClientKey {
        ClientKey::new(self.zone, mac.bytes())
    }
}

#[cfg(test)]
mod tests;
