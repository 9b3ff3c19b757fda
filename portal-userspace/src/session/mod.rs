//! Who is logged in: what may be done to the kernel's tables of sessions.

mod admission;
mod bar_file;
mod barring;
mod bars;
mod events;
mod eviction;
mod grant;
pub mod image;
mod ledger;
mod load;
mod slots;
mod store;
mod sweep;
mod usage;
mod view;

use std::{sync::Arc, time::Duration};

use portal_common::tables::{ClientKey, Session, Zone};

use self::{admission::QuotaPolicy, barring::Account, bars::OperatorBar, grant::KernelLimits, store::Entry};
use crate::{
    clock,
    config::{BarTime, Config, QuotaPer, SessionLength, ZoneConfig},
    datapath::sessions::InsertError,
    net::Mac,
};

pub use admission::{BarCause, Barred};
pub use barring::check_state;
pub use bars::Reason;
pub use events::{Cause, SessionEvent, SessionEvents};
pub use grant::{Grant, Length};
pub use load::{Clocks, LoadError, Loaded};
pub use store::SessionStore;
pub use sweep::sweep_regularly;
pub use view::{BarView, ClientView, FlowView, LimitsView};

/// Why a session could not be changed or shown.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Every place is taken by a live session.
    #[error("all {capacity} places of the session table are taken by clients that are logged in and were seen of late")]
    Full {
        /// How many sessions the table holds.
        capacity: u32,
    },
    /// The client has no session, or it is over.
    #[error("client {0} has no session")]
    NotFound(Mac),
    /// The client may not log in.
    #[error("client {mac} may not log in{}: {}", barred.how_long(), barred.cause.in_words())]
    Barred {
        /// The client.
        mac: Mac,
        /// Why, and for how long.
        barred: Barred,
    },
    /// Nothing keeps the client out.
    #[error("nothing keeps client {0} out")]
    NotBarred(Mac),
    /// An operator keeps out as many as there can be.
    #[error("{} clients are kept out already, which is as many as there can be", bars::MAX_BARS)]
    BarsFull,
    /// What an operator said could not be written down; nothing was changed.
    #[error("{0:#}")]
    State(anyhow::Error),
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
    quota_per: QuotaPer,
    bar_after_revoke: Option<BarTime>,
}

impl SessionService {
    /// The sessions of this zone, as its configuration says where nothing else is said.
    pub fn new(store: Arc<SessionStore>, zone: Zone, config: &ZoneConfig) -> Self {
        let name = config.guest.name.to_string();
        store.name_zone(zone, &name);
        store.set_policy(zone, QuotaPolicy::configured(&config.session));
        let limits = KernelLimits::configured(&config.session);
        let (quota_per, bar_after_revoke) = (config.session.quota_per, config.session.bar_after_revoke.get());
        Self { store, zone, name, length: config.portal.session.get(), limits, quota_per, bar_after_revoke }
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

    /// Lets the client through. A running session keeps its beginning, what it has carried, and the limits that are not given. Whatever kept the client
    /// out is lifted, and where it had no running session, its day begins anew.
    ///
    /// When this returns, the kernel has it. A full table is searched first, and a bar is removed from a disk: not for an async task.
    pub fn grant(&self, mac: Mac, grant: &Grant) -> Result<ClientView, SessionError> {
        let length = match grant.length {
            None => Some(self.length),
            Some(Length::For(length)) => Some(SessionLength::try_from(length).map_err(SessionError::Length)?.get()),
            Some(Length::Forever) => None,
        };
        let quota = grant.quota.map(|quota| (grant::bytes(quota), grant.quota_per.unwrap_or(self.quota_per)));
        // Held to the end: a block that comes meanwhile comes after it, and ends the session.
        let _changing = self.store.changing();
        let lifted_bar = self.store.keeps_out(self.key(mac))?;
        let view = self.write(mac, Account::Grant(quota), |now, running, slot, _| {
            let expires = length.map_or(Session::NEVER, |length| clock::after(now, length));
            let limits = running.map_or(self.limits, KernelLimits::of).with(grant);
            limits.session(running.map_or(now, Session::started_ns), expires, slot)
        })?;
        self.store.lift(self.key(mac))?;
        Ok(ClientView { lifted_bar, ..view })
    }

    /// Lets the client through for the configured time, unless it is kept out or nothing is left of its quota. A running session is never shortened,
    /// and keeps its limits: an operator may have given it others.
    ///
    /// When this returns, the kernel has it. A full table is searched first: not for an async task.
    pub fn login(&self, mac: Mac) -> Result<ClientView, SessionError> {
        self.write(mac, Account::Login, |now, running, slot, quota| {
            let expires = clock::after(now, self.length);
            match running {
                Some(session) => {
                    let expires = session.expires_ns().max(expires);
                    KernelLimits::of(session).session(session.started_ns(), expires, slot)
                }
                None => self.limits.with_quota(quota).session(now, expires, slot),
            }
        })
    }

    /// Ends the client's session, by the operator, and keeps it out as the configuration says: [`Self::revoke_and_bar`].
    pub fn revoke(&self, mac: Mac) -> Result<(), SessionError> {
        self.revoke_and_bar(mac, self.bar_after_revoke).map(drop)
    }

    /// How long a client is kept out whose session an operator has revoked, where nothing else is said.
    pub fn bar_after_revoke(&self) -> Option<BarTime> {
        self.bar_after_revoke
    }

    /// Ends the client's session, by the operator, and keeps it out for this long, if at all. When this returns, the client is a stranger.
    ///
    /// A bar is written to a disk: not for an async task.
    pub fn revoke_and_bar(&self, mac: Mac, bar: Option<BarTime>) -> Result<Option<BarView>, SessionError> {
        let Some(time) = bar else {
            let removed = self.store.remove(self.key(mac), Cause::Revoked)?;
            return removed.map(|_| None).ok_or(SessionError::NotFound(mac));
        };
        self.show(mac)?;
        let (view, _) = self.store.bar(self.key(mac), &operator_bar(BarCause::Revoked, time, None))?;
        Ok(Some(view))
    }

    /// Keeps the client out for this long; and whether that ended a session. When this returns, the client is a stranger.
    ///
    /// It is written to a disk: not for an async task.
    pub fn block(&self, mac: Mac, time: BarTime, reason: Option<Reason>) -> Result<(BarView, bool), SessionError> {
        self.store.bar(self.key(mac), &operator_bar(BarCause::Blocked, time, reason))
    }

    /// Lets the client log in again, whatever kept it out: a block, a revocation, or a spent quota. As [`Self::block`].
    pub fn unblock(&self, mac: Mac) -> Result<BarView, SessionError> {
        self.store.unbar(self.key(mac))?.ok_or(SessionError::NotBarred(mac))
    }

    /// Why the client may not log in at this instant, if it may not.
    pub fn barred(&self, mac: Mac) -> Result<Option<Barred>, SessionError> {
        self.store.bars_now(self.key(mac))
    }

    /// The same, as people and programs see it.
    pub fn kept_out(&self, mac: Mac) -> Result<Option<BarView>, SessionError> {
        self.store.keeps_out(self.key(mac))
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
        account: Account,
        session: impl Fn(u64, Option<&Session>, u32, Option<u64>) -> Session,
    ) -> Result<ClientView, SessionError> {
        let entry = self.store.write(self.key(mac), account, session)?;
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

fn operator_bar(cause: BarCause, time: BarTime, reason: Option<Reason>) -> OperatorBar {
    let since = Clocks::now().calendar;
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let until = time.get().map(|time| image::UnixMs(since.0.saturating_add(ms(time))));
    OperatorBar { cause, since, until, reason }
}

#[cfg(test)]
mod barring_tests;
#[cfg(test)]
mod tests;
