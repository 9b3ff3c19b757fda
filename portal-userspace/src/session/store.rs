//! The kernel's tables of sessions: everything that is done to them, for all zones.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use anyhow::Result;
use portal_common::tables::{ClientKey, ClientState, Session, Zone};

use super::{
    Cause, ClientView, Clocks, SessionError, SessionEvents,
    admission::QuotaPolicy,
    barring::{Account, Records},
    eviction::{self, Candidates, Gathering},
    slots::Slots,
};
use crate::{
    clock,
    datapath::{owners::Owners, pins::max_owners, sessions::SessionTable},
    net::Mac,
};

/// A full table is searched for sessions that are over, or may be given up, at most this often, so that strangers can't keep the daemon busy.
const SWEEP_WHEN_FULL_EVERY: Duration = Duration::from_secs(1);
/// Nor for more than one part in this many of the time: a search of a large table takes long.
const SEARCH_SHARE: u32 = 20;
/// How often a login tries to get a place of a full table: others may be faster at the one that was made for it.
const TRIES_WHEN_FULL: u32 = 4;

/// The sessions of all zones.
pub struct SessionStore {
    pub(super) table: SessionTable,
    pub(super) owners: Owners,
    pub(super) slots: Slots,
    zones: RwLock<HashMap<Zone, String>>,
    pub(super) policies: RwLock<HashMap<Zone, QuotaPolicy>>,
    pub(super) records: Records,
    events: SessionEvents,
    /// Held over every read that a write follows: for a few system calls, never for a walk.
    writing: Mutex<()>,
    /// Held while a full table is searched; when it may be searched again.
    pub(super) search: Mutex<Option<Instant>>,
    /// Whom a full table gives up next. Never locked before `search` or `writing`, and never over them.
    candidates: Mutex<Candidates>,
}

/// A client's session, and what it has carried.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) client: ClientKey,
    pub(super) session: Session,
    pub(super) state: ClientState<u64>,
}

impl Entry {
    /// Why it is over, if it is.
    pub(super) fn over(&self, now_ns: u64) -> Option<Cause> {
        let Self { session, state, .. } = self;
        if !session.is_live(now_ns) {
            Some(Cause::Expired)
        } else if session.is_idle(state.last_seen_ns, now_ns) {
            Some(Cause::Idle)
        } else {
            // The frame that crosses the quota is counted too, so that it stays crossed.
            (state.quota_used > session.quota_bytes()).then_some(Cause::Quota)
        }
    }
}

impl SessionStore {
    /// The sessions in these tables; what is in them stays.
    pub fn over(table: SessionTable, owners: Owners) -> Result<Self> {
        let used: Vec<u32> = table.find(|_, _| true).iter().map(|(_, session)| session.slot()).collect();
        let slots = Slots::new(table.capacity(), used);
        let records = Records::new(table.capacity());
        Ok(Self {
            table,
            owners,
            slots,
            zones: RwLock::default(),
            policies: RwLock::default(),
            records,
            events: SessionEvents::default(),
            writing: Mutex::default(),
            search: Mutex::default(),
            candidates: Mutex::default(),
        })
    }

    /// Sessions in tables of their own, that no program reads.
    pub fn create(capacity: u32) -> Result<Self> {
        let table = SessionTable::create(capacity)?;
        let owners = Owners::create(max_owners(capacity), table.address_hash())?;
        Self::over(table, owners)
    }

    /// As the next daemon finds it.
    #[cfg(test)]
    pub(super) fn reopened(self) -> Self {
        Self::over(self.table, self.owners).unwrap()
    }

    /// How many sessions fit, in all zones together.
    pub fn capacity(&self) -> u32 {
        self.table.capacity()
    }

    /// What happens to sessions.
    pub fn events(&self) -> &SessionEvents {
        &self.events
    }

    /// The zone's name; its number where it is not known.
    pub fn zone_name(&self, zone: Zone) -> String {
        let zones = self.zones.read().unwrap_or_else(PoisonError::into_inner);
        zones.get(&zone).cloned().unwrap_or_else(|| format!("#{}", zone.number()))
    }

    /// Notes the zone's name.
    pub(super) fn name_zone(&self, zone: Zone, name: &str) {
        self.zones.write().unwrap_or_else(PoisonError::into_inner).insert(zone, name.to_owned());
    }

    /// How many sessions are live, in all zones. Up to a microsecond for each session: not for an async task.
    pub fn count(&self) -> Result<usize, SessionError> {
        Ok(self.find(|_| true, |entry, now| entry.over(now).is_none()).len())
    }

    /// Every live session, sorted by zone number and MAC address. As [`Self::count`].
    pub fn list(&self) -> Result<Vec<ClientView>, SessionError> {
        let now = clock::now_ns();
        let live = self.find(|_| true, |entry, now| entry.over(now).is_none());
        Ok(live.iter().map(|entry| self.view(&self.zone_name(entry.client.zone()), entry, now)).collect())
    }

    /// The session as people and programs see it.
    pub(super) fn view(&self, zone: &str, entry: &Entry, now_ns: u64) -> ClientView {
        // One that cannot be read is left out: it is shown, and nothing depends on it.
        let address = |word| self.owners.address(entry.client.zone(), word).ok().flatten();
        let bound = entry.state.bindings.iter().filter_map(address).map(IpAddr::from).collect();
        ClientView::new(zone, entry, bound, self.quota_of(entry, now_ns), now_ns)
    }

    /// Removes sessions that are over, and notes whom a full table may give up; how many were removed. Up to a microsecond for each session: not for an
    /// async task.
    pub fn sweep(&self) -> Result<usize, SessionError> {
        let mut gathering = Gathering::default();
        let over = self.find(
            |_| true,
            |entry, now| {
                let over = entry.over(now).is_some();
                if !over {
                    gathering.meet(entry, now);
                }
                over
            },
        );
        *self.candidates() = gathering.finish();
        let mut removed = 0;
        for entry in over {
            removed += usize::from(self.end_if_over(entry.client)?);
        }
        self.expire_records(clock::now_ns());
        Ok(removed)
    }

    /// Removes the client's session if it is over by now; whether it was. To be called when the gate says that a quota is spent, so that the client
    /// gets to the login page at once.
    pub fn end_if_over(&self, client: ClientKey) -> Result<bool, SessionError> {
        // Not for longer, so that nobody waits for a whole sweep, and nobody renews it meanwhile.
        let _writing = self.lock();
        match self.read(client) {
            Some(entry) => match entry.over(clock::now_ns()) {
                Some(cause) => {
                    self.end(&entry, cause)?;
                    Ok(true)
                }
                None => Ok(false),
            },
            None => Ok(false),
        }
    }

    /// Gives up addresses of clients that have no session; how many. A walk: not for an async task.
    ///
    /// The gate may bind an address to a session at the very moment at which it ends. Such a row keeps nobody out, but takes up room.
    pub fn release_stale_addresses(&self) -> Result<usize, SessionError> {
        let gone = |client| self.table.get(client).is_none();
        self.owners.release_where(gone).map_err(SessionError::Kernel)
    }

    /// Removes the sessions of zones that are no more; how many. A walk: not for an async task.
    pub fn remove_zones(&self, zones: &[Zone]) -> Result<usize, SessionError> {
        if zones.is_empty() {
            return Ok(0);
        }
        let found = self.table.find(|client, _| zones.contains(&client.zone()));
        for (client, _) in &found {
            let _writing = self.lock();
            if let Some(entry) = self.read(*client) {
                self.end(&entry, Cause::Revoked)?;
            }
        }
        self.forget_usage(zones);
        self.owners.release_where(|client| zones.contains(&client.zone())).map_err(SessionError::Kernel)?;
        Ok(found.len())
    }

    /// The entries of these clients for which this is so at this instant, each client once, in the order of zones and MAC addresses. A walk: not for an async task.
    pub(super) fn find(
        &self,
        whose: impl Fn(ClientKey) -> bool,
        mut wanted: impl FnMut(&Entry, u64) -> bool,
    ) -> Vec<Entry> {
        let now = clock::now_ns();
        let mut found = Vec::new();
        for (client, session) in self.table.find(|client, _| whose(client)) {
            let state = self.table.state(session.slot());
            let entry = Entry { client, session, state };
            if wanted(&entry, now) {
                found.push(entry);
            }
        }
        found.sort_unstable_by_key(|entry| entry.client);
        found.dedup_by_key(|entry| entry.client);
        found
    }

    /// The client's entry, over or not.
    pub(super) fn read(&self, client: ClientKey) -> Option<Entry> {
        let session = self.table.get(client)?;
        let state = self.table.state(session.slot());
        Some(Entry { client, session, state })
    }

    /// Ends the client's session, over or not; the session, if it was not.
    pub(super) fn remove(&self, client: ClientKey, cause: Cause) -> Result<Option<Entry>, SessionError> {
        let _writing = self.lock();
        self.remove_locked(client, cause)
    }

    /// As [`Self::remove`]; the caller holds `writing`.
    pub(super) fn remove_locked(&self, client: ClientKey, cause: Cause) -> Result<Option<Entry>, SessionError> {
        let Some(entry) = self.read(client) else { return Ok(None) };
        let over = entry.over(clock::now_ns());
        self.end(&entry, over.unwrap_or(cause))?;
        Ok(over.is_none().then_some(entry))
    }

    /// Writes the client's session as `session` makes it of the instant, the running one, the place of its state, and the quota that is left to a client
    /// that logs in without a running one. A client that is kept out gets none.
    ///
    /// When this returns, the kernel has it. A full table is searched first, and gives up whoever was never seen, or not for long: not for an async task.
    pub(super) fn write(
        &self,
        client: ClientKey,
        account: Account,
        session: impl Fn(u64, Option<&Session>, u32, Option<u64>) -> Session,
    ) -> Result<Entry, SessionError> {
        for _ in 1..TRIES_WHEN_FULL {
            match self.try_write(client, account, &session) {
                Err(SessionError::Full { .. }) if self.make_room()? => {}
                other => return other,
            }
        }
        self.try_write(client, account, &session)
    }

    fn try_write(
        &self,
        client: ClientKey,
        account: Account,
        session: &impl Fn(u64, Option<&Session>, u32, Option<u64>) -> Session,
    ) -> Result<Entry, SessionError> {
        let _writing = self.lock();
        let clocks = Clocks::now();
        let now = clocks.gate_ns;
        let mut running = self.read(client);
        if let Some(entry) = &running
            && let Some(over) = entry.over(now)
        {
            // What it carried is not the new one's.
            self.end(entry, over)?;
            running = None;
        }
        let is_running = running.is_some();
        // Decided on the same lock on which what was before has been ended and written down: no button is pressed in between.
        let quota = match account {
            Account::Login if !is_running => Some(
                self.admitted(client, clocks)
                    .map_err(|barred| SessionError::Barred { mac: Mac::from_table(client.mac()), barred })?,
            ),
            Account::Login | Account::Grant(_) => None,
        };
        let entry = if let Some(Entry { session: old, state, .. }) = running {
            let session = session(now, Some(&old), old.slot(), quota);
            self.table.insert(client, session)?;
            Entry { client, session, state }
        } else {
            let slot = self.slots.take().ok_or(SessionError::Full { capacity: self.capacity() })?;
            let state = ClientState::default();
            let session = session(now, None, slot, quota);
            self.table.write_state(slot, &state);
            if let Err(e) = self.table.insert(client, session) {
                self.slots.untake(slot);
                return Err(e.into());
            }
            Entry { client, session, state }
        };
        let cause = match account {
            Account::Login => Cause::Login,
            Account::Grant(quota) => {
                self.write_down_grant(&entry, is_running, quota, now);
                Cause::Allowed
            }
        };
        self.tell(client, cause);
        Ok(entry)
    }

    /// Removes the session; the caller holds `writing`.
    fn end(&self, entry: &Entry, cause: Cause) -> Result<(), SessionError> {
        let Entry { client, session, .. } = entry;
        // Before it ends: who kills the daemon in between has this counted twice, and gains nothing.
        self.write_down(entry, clock::now_ns());
        self.table.remove(*client);
        // From here on the client is a stranger. Its state is read again: the gate may have bound another address.
        let state = self.table.state(session.slot());
        for word in state.bindings.iter() {
            self.owners.release(client.zone(), word, *client).map_err(SessionError::Kernel)?;
        }
        self.slots.give_back(session.slot());
        self.tell(*client, cause);
        Ok(())
    }

    /// Makes room in a full table: removes sessions that are over, or else one that may be given up; whether there was any. Nobody waits for it but the
    /// caller.
    fn make_room(&self) -> Result<bool, SessionError> {
        let never_seen = self.candidates().begins_with_never_seen();
        // Before somebody goes who was seen once: the last walk may have been too early for others that were not.
        Ok(!never_seen && self.search()? || self.give_up_one()?)
    }

    /// Gives up the next one of those that the last walk found; whether there was one.
    fn give_up_one(&self) -> Result<bool, SessionError> {
        loop {
            // A statement of its own, so that the list is free again.
            let next = self.candidates().take();
            let Some(client) = next else { return Ok(false) };
            if self.give_up(client)? {
                return Ok(true);
            }
        }
    }

    /// Ends the client's session if it is over by now, or still may be given up; whether it was.
    fn give_up(&self, client: ClientKey) -> Result<bool, SessionError> {
        let _writing = self.lock();
        let Some(entry) = self.read(client) else { return Ok(false) };
        let now = clock::now_ns();
        let cause = entry.over(now).or_else(|| eviction::rank(&entry, now).map(|_| Cause::Evicted));
        cause.map_or(Ok(false), |cause| self.end(&entry, cause).map(|()| true))
    }

    fn candidates(&self) -> MutexGuard<'_, Candidates> {
        // Whatever is in it is looked at again.
        self.candidates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Searches a full table, if that was not done a moment ago; whether sessions were over.
    fn search(&self) -> Result<bool, SessionError> {
        // Where another search is under way, this one would find nothing more.
        let Ok(mut next) = self.search.try_lock() else { return Ok(false) };
        let begin = Instant::now();
        if next.is_some_and(|next| begin < next) {
            return Ok(false);
        }
        let removed = self.sweep();
        *next = Some(Instant::now() + SWEEP_WHEN_FULL_EVERY.max(begin.elapsed() * SEARCH_SHARE));
        Ok(removed? > 0)
    }

    fn tell(&self, client: ClientKey, cause: Cause) {
        self.events.tell(&self.zone_name(client.zone()), Mac::from_table(client.mac()), cause);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, ()> {
        // What it guards is in the kernel, and consistent whatever a panicking thread was doing.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
