//! Who is kept out of which zone, by an operator or by a spent quota: what is done to that, and asked of it.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError, RwLock},
    time::SystemTime,
};

use anyhow::{Context as _, Result};
use portal_common::tables::{ClientKey, Zone};

use super::{
    BarView, Cause, Clocks, SessionError, SessionStore,
    admission::{Barred, QuotaPolicy, quota_at_login},
    bar_file::BarFile,
    bars::{Bars, OperatorBar},
    ledger::Ledger,
    store::Entry,
    usage::UsageRow,
};
use crate::{config::QuotaPer, datapath::usage::UsageMap, net::Mac};

/// What is written down of clients beside their sessions.
pub(super) struct Records {
    /// What they have used of their quotas. Changed only while the store's `writing` is held, with the session that it is of.
    ledger: Mutex<Ledger>,
    /// Whom operators keep out. Likewise.
    bars: RwLock<Bars>,
    file: Option<BarFile>,
    /// Held over what an operator changes, which may wait for a disk. Taken before `writing`.
    changing: Mutex<()>,
}

/// What a session's beginning means for what is written down of its client.
#[derive(Clone, Copy, Debug)]
pub(super) enum Account {
    /// The client logs in, if it may, with what is left of its quota.
    Login,
    /// An operator lets it through, with this quota where he gave one: whatever kept it out is lifted.
    Grant(Option<(u64, QuotaPer)>),
}

impl Records {
    /// Of nobody; they end with the daemon.
    pub(super) fn new(clients: u32) -> Self {
        Self {
            ledger: Mutex::new(Ledger::new(clients)),
            bars: RwLock::default(),
            file: None,
            changing: Mutex::default(),
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses a state directory that could not be used: before anything is touched.
pub fn check_state(directory: &Path) -> Result<()> {
    BarFile::below(directory).read().context(UNKNOWN).map(drop)
}

const UNKNOWN: &str = "it is not known whom an operator has blocked";

impl SessionStore {
    /// The same with what an earlier daemon wrote down: what clients have used, in this map, and whom operators keep out, in this directory.
    pub fn remembering(mut self, usage: UsageMap, state: &Path) -> Result<Self> {
        let file = BarFile::below(state);
        self.records = Records {
            ledger: Mutex::new(Ledger::over(self.capacity(), usage, Clocks::now().gate_ns)?),
            bars: RwLock::new(file.read().context(UNKNOWN)?),
            file: Some(file),
            changing: Mutex::default(),
        };
        Ok(self)
    }

    /// Everybody who is kept out at this instant, by zone and MAC address. A walk: not for an async task.
    pub fn kept_out(&self) -> Result<Vec<BarView>, SessionError> {
        let now = Clocks::now();
        let bars = self.bars();
        let by_operator = bars.iter().filter_map(|(zone, mac, bar)| {
            bar.bars(now.calendar).map(|barred| BarView::new(zone, mac, barred, Some(bar)))
        });
        let rows: Vec<(ClientKey, UsageRow)> = self.records.ledger().iter().collect();
        let by_quota = rows.into_iter().filter_map(|(client, row)| {
            let (zone, mac) = (self.zone_name(client.zone()), Mac::from_table(client.mac()));
            let barred = quota_at_login(&self.policy(client.zone()), None, Some(&row), now).err()?;
            (bars.get(&zone, mac).is_none() && self.table.get(client).is_none())
                .then(|| BarView::new(&zone, mac, barred, None))
        });
        let mut all: Vec<_> = by_operator.chain(by_quota).collect();
        all.sort_unstable_by(|a, b| (&a.zone, a.mac).cmp(&(&b.zone, b.mac)));
        Ok(all)
    }

    /// Why the client may not log in at this instant, if it may not. A session of which it has spent the quota ends with that.
    pub(super) fn bars_now(&self, client: ClientKey) -> Result<Option<Barred>, SessionError> {
        self.end_if_over(client)?;
        let _writing = self.lock();
        if self.table.get(client).is_some() {
            return Ok(None);
        }
        Ok(self.admitted(client, Clocks::now()).err())
    }

    /// The same, as people and programs see it.
    pub(super) fn keeps_out(&self, client: ClientKey) -> Result<Option<BarView>, SessionError> {
        Ok(self.bars_now(client)?.map(|barred| self.bar_view(client, barred)))
    }

    /// How many bytes the client may carry in a session that begins now; the caller holds `writing`.
    pub(super) fn admitted(&self, client: ClientKey, now: Clocks) -> Result<u64, Barred> {
        let row = self.records.ledger().get(client);
        let bars = self.bars();
        let bar = bars.get(&self.zone_name(client.zone()), Mac::from_table(client.mac()));
        quota_at_login(&self.policy(client.zone()), bar, row.as_ref(), now)
    }

    /// Writes down what a session has carried that is about to end; the caller holds `writing`.
    pub(super) fn write_down(&self, Entry { client, session, state }: &Entry, now_ns: u64) {
        let mut ledger = self.records.ledger();
        let policy = self.policy(client.zone());
        let row = UsageRow::after(ledger.get(*client), session, state.quota_used, &policy, now_ns);
        ledger.set(*client, row, now_ns);
    }

    /// Writes down that an operator has let the client through; the caller holds `writing`.
    pub(super) fn write_down_grant(
        &self,
        Entry { client, session, .. }: &Entry,
        is_running: bool,
        quota: Option<(u64, QuotaPer)>,
        now_ns: u64,
    ) {
        let mut ledger = self.records.ledger();
        let row = UsageRow::let_through(ledger.get(*client), session, is_running, quota, now_ns);
        ledger.set(*client, row, now_ns);
    }

    /// The quota that the client has, what it is of, and the day that it is in.
    pub(super) fn quota_of(&self, Entry { client, session, .. }: &Entry, now_ns: u64) -> super::view::QuotaOf {
        let row = UsageRow::current(self.records.ledger().get(*client), session, now_ns);
        let day = row.day(&self.policy(client.zone()), now_ns);
        super::view::QuotaOf {
            per: if day.is_some() { QuotaPer::Day } else { self.policy(client.zone()).per },
            used_before: day.map_or(0, |day| day.used),
            day_left: day.map(|day| day.left),
        }
    }

    /// Keeps the client out from now on; its session, if it had a live one, has ended. Waits for a disk: not for an async task.
    pub(super) fn bar(&self, client: ClientKey, bar: &OperatorBar) -> Result<(BarView, bool), SessionError> {
        let _changing = self.changing();
        let (zone, mac, now) = (self.zone_name(client.zone()), Mac::from_table(client.mac()), Clocks::now());
        let mut next = self.bars().clone();
        if !next.insert(&zone, mac, bar.clone(), now.calendar) {
            return Err(SessionError::BarsFull);
        }
        // First on the disk: what was said to be done is done, whatever comes.
        self.keep(&next)?;
        let _writing = self.lock();
        *self.records.bars.write().unwrap_or_else(PoisonError::into_inner) = next;
        let ended = self.remove_locked(client, Cause::Revoked)?.is_some();
        let barred = bar.bars(bar.since).unwrap_or(Barred { cause: bar.cause, left: None });
        Ok((BarView::new(&zone, mac, barred, Some(bar)), ended))
    }

    /// Lets the client log in again, whatever keeps it out; what kept it out. As [`Self::bar`].
    pub(super) fn unbar(&self, client: ClientKey) -> Result<Option<BarView>, SessionError> {
        let _changing = self.changing();
        let kept_out = self.keeps_out(client)?;
        if kept_out.is_some() {
            self.lift(client)?;
            let _writing = self.lock();
            if self.admitted(client, Clocks::now()).is_err() {
                self.records.ledger().remove(client);
            }
        }
        Ok(kept_out)
    }

    /// Lifts an operator's bar, if there is one; the caller holds [`Self::changing`].
    pub(super) fn lift(&self, client: ClientKey) -> Result<(), SessionError> {
        let (zone, mac) = (self.zone_name(client.zone()), Mac::from_table(client.mac()));
        let mut next = self.bars().clone();
        if next.remove(&zone, mac).is_none() {
            return Ok(());
        }
        self.keep(&next)?;
        let _writing = self.lock();
        *self.records.bars.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    /// Held over what an operator changes.
    pub(super) fn changing(&self) -> MutexGuard<'_, ()> {
        self.records.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what is over.
    pub(super) fn expire_records(&self, now_ns: u64) {
        let _writing = self.lock();
        self.records.ledger().expire(now_ns);
    }

    /// Forgets what the clients of these zones have used: their numbers will be other zones'.
    pub(super) fn forget_usage(&self, zones: &[Zone]) {
        let _writing = self.lock();
        self.records.ledger().remove_zones(zones);
    }

    /// Notes what the zone says about quotas.
    pub(super) fn set_policy(&self, zone: Zone, policy: QuotaPolicy) {
        self.policies.write().unwrap_or_else(PoisonError::into_inner).insert(zone, policy);
    }

    fn policy(&self, zone: Zone) -> QuotaPolicy {
        self.policies.read().unwrap_or_else(PoisonError::into_inner).get(&zone).copied().unwrap_or_default()
    }

    fn bar_view(&self, client: ClientKey, barred: Barred) -> BarView {
        let (zone, mac) = (self.zone_name(client.zone()), Mac::from_table(client.mac()));
        let bar = self.bars().get(&zone, mac).cloned();
        BarView::new(&zone, mac, barred, bar.as_ref())
    }

    fn bars(&self) -> std::sync::RwLockReadGuard<'_, Bars> {
        self.records.bars.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, bars: &Bars) -> Result<(), SessionError> {
        self.records.file.as_ref().map_or(Ok(()), |file| file.write(bars)).map_err(SessionError::State)
    }
}

impl BarView {
    fn new(zone: &str, mac: Mac, barred: Barred, bar: Option<&OperatorBar>) -> Self {
        let Barred { cause, left } = barred;
        let at = |time: Option<SystemTime>| super::view::rfc3339(time);
        Self {
            mac,
            zone: zone.to_owned(),
            cause,
            since: bar.map(|bar| at(SystemTime::UNIX_EPOCH.checked_add(std::time::Duration::from_millis(bar.since.0)))),
            until: left.map(|left| at(SystemTime::now().checked_add(left))),
            remaining_seconds: left.map(|left| (left + std::time::Duration::from_millis(500)).as_secs()),
            reason: bar.and_then(|bar| bar.reason.clone()),
        }
    }
}
