//! Who is logged in: what may be done to the kernel's table of sessions.

mod events;
mod view;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use portal_common::tables::{ClientKey, Session, Zone};
use tokio::sync::watch;

use crate::{
    clock,
    config::SessionLength,
    datapath::sessions::{InsertError, SessionTable},
    net::{Mac, serve::stopped},
};

pub use events::{Cause, SessionEvent, SessionEvents};
pub use view::ClientView;

/// How often expired sessions are removed. They let nothing through before that either: the gate compares the clock.
const SWEEP_EVERY: Duration = Duration::from_mins(1);
/// A full table is searched for expired sessions at most this often, so that strangers can't keep the daemon busy.
const SWEEP_WHEN_FULL_EVERY: Duration = Duration::from_secs(1);
/// Nor for more than one part in this many of the time: a search of a large table takes long.
const SEARCH_SHARE: u32 = 20;

/// Why a session could not be changed or shown.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Every place is taken by a live session.
    #[error("all {capacity} places of the session table are taken by clients that are logged in")]
    Full {
        /// How many sessions the table holds.
        capacity: u32,
    },
    /// The client has no session, or it has expired.
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
            InsertError::Kernel(e) => Self::Kernel(e.into()),
        }
    }
}

/// The sessions of one zone.
pub struct SessionService {
    table: SessionTable,
    zone: Zone,
    length: Duration,
    /// Held over every read that a write follows: for a few system calls, never for a walk.
    writing: Mutex<()>,
    /// Held while a full table is searched; when it may be searched again.
    search: Mutex<Option<Instant>>,
}

impl SessionService {
    /// The sessions of this zone in this table, each as long as this where nothing else is said.
    pub fn new(table: SessionTable, zone: Zone, length: SessionLength) -> Self {
        Self { table, zone, length: length.get(), writing: Mutex::default(), search: Mutex::default() }
    }

    /// How many sessions fit.
    pub fn capacity(&self) -> u32 {
        self.table.capacity()
    }

    /// Lets the client through for this long from now, or for the configured time. A running session keeps its beginning.
    ///
    /// When this returns, the kernel has it. A full table is searched first: not for an async task.
    pub fn allow(&self, mac: Mac, length: Option<Duration>) -> Result<ClientView, SessionError> {
        let length = match length {
            Some(length) => SessionLength::try_from(length).map_err(SessionError::Length)?.get(),
            None => self.length,
        };
        self.write(mac, |now, _| clock::after(now, length))
    }

    /// Lets the client through until it is revoked or the machine restarts (its table is in the kernel's memory).
    ///
    /// When this returns, the kernel has it. A full table is searched first: not for an async task.
    pub fn allow_forever(&self, mac: Mac) -> Result<ClientView, SessionError> {
        self.write(mac, |_, _| Session::NEVER)
    }

    /// Lets the client through for the configured time. A running session is never shortened: an operator may have
    /// given it longer.
    ///
    /// When this returns, the kernel has it. A full table is searched first: not for an async task.
    pub fn login(&self, mac: Mac) -> Result<ClientView, SessionError> {
        self.write(mac, |now, running| {
            let expires = clock::after(now, self.length);
            running.map_or(expires, |session| session.expires_ns().max(expires))
        })
    }

    /// Ends the client's session. When this returns, the client is a stranger.
    pub fn revoke(&self, mac: Mac) -> Result<(), SessionError> {
        if self.logout(mac)? { Ok(()) } else { Err(SessionError::NotFound(mac)) }
    }

    /// Ends the client's session; whether it had a live one. When this returns, the client is a stranger.
    pub fn logout(&self, mac: Mac) -> Result<bool, SessionError> {
        let _writing = self.lock();
        let live = self.live(mac)?.is_some();
        // Removed even where expired or unread: a stranger either way.
        self.table.remove(self.key(mac)).map_err(SessionError::Kernel)?;
        Ok(live)
    }

    /// The client's live session.
    pub fn show(&self, mac: Mac) -> Result<ClientView, SessionError> {
        let session = self.live(mac)?.ok_or(SessionError::NotFound(mac))?;
        Ok(ClientView::new(mac, &session, clock::now_ns()))
    }

    /// How many sessions are live. Up to a microsecond for each place in the table: not for an async task.
    pub fn count(&self) -> Result<usize, SessionError> {
        Ok(self.find_live(clock::now_ns())?.len())
    }

    /// Every live session, sorted by MAC address. Up to a microsecond for each place in the table: not for an async task.
    pub fn list(&self) -> Result<Vec<ClientView>, SessionError> {
        let now = clock::now_ns();
        let live = self.find_live(now)?;
        Ok(live.iter().map(|(client, session)| ClientView::new(Mac::from_table(client.mac()), session, now)).collect())
    }

    /// Removes expired sessions, of every zone; how many. Up to a microsecond for each place in the table: not for an
    /// async task.
    pub fn sweep(&self) -> Result<usize, SessionError> {
        let now = clock::now_ns();
        let expired = self.table.find(|_, session| !session.is_live(now)).map_err(SessionError::Kernel)?;
        let mut removed = 0;
        for (client, _) in expired {
            // Released between two, so that nobody waits for all.
            let _writing = self.lock();
            removed += usize::from(self.remove_expired(client)?);
        }
        Ok(removed)
    }

    fn write(&self, mac: Mac, expires: impl Fn(u64, Option<&Session>) -> u64) -> Result<ClientView, SessionError> {
        match self.try_write(mac, &expires) {
            Err(SessionError::Full { .. }) if self.make_room()? => self.try_write(mac, &expires),
            other => other,
        }
    }

    fn try_write(&self, mac: Mac, expires: impl Fn(u64, Option<&Session>) -> u64) -> Result<ClientView, SessionError> {
        let _writing = self.lock();
        let now = clock::now_ns();
        let running = self.live(mac)?;
        let started = running.as_ref().map_or(now, Session::started_ns);
        let session = Session::new(started, expires(now, running.as_ref()));
        self.table.insert(self.key(mac), session)?;
        Ok(ClientView::new(mac, &session, now))
    }

    /// Removes expired sessions from a full table; whether there were any. Nobody waits for it but the caller.
    fn make_room(&self) -> Result<bool, SessionError> {
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

    /// Removes this session if it has expired by now; the caller holds `writing`, so nobody renews it meanwhile.
    fn remove_expired(&self, client: ClientKey) -> Result<bool, SessionError> {
        match self.table.get(client).map_err(SessionError::Kernel)? {
            Some(session) if !session.is_live(clock::now_ns()) => {
                self.table.remove(client).map_err(SessionError::Kernel)
            }
            _ => Ok(false),
        }
    }

    /// Every live session of the zone once, sorted by MAC address.
    fn find_live(&self, now: u64) -> Result<Vec<(ClientKey, Session)>, SessionError> {
        let live = |client: ClientKey, session: &Session| client.zone() == self.zone && session.is_live(now);
        let mut found = self.table.find(live).map_err(SessionError::Kernel)?;
        found.sort_unstable_by_key(|(client, _)| *client);
        found.dedup_by_key(|(client, _)| *client);
        Ok(found)
    }

    fn live(&self, mac: Mac) -> Result<Option<Session>, SessionError> {
        let session = self.table.get(self.key(mac)).map_err(SessionError::Kernel)?;
        Ok(session.filter(|session| session.is_live(clock::now_ns())))
    }

    fn key(&self, mac: Mac) -> ClientKey {
        ClientKey::new(self.zone, mac.bytes())
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        // What it guards is in the kernel, and consistent whatever a panicking thread was doing.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes expired sessions once a minute until the daemon stops.
pub async fn sweep_regularly(sessions: std::sync::Arc<SessionService>, stop: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stop = std::pin::pin!(stopped(stop));
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = &mut stop => return,
        }
        let sessions = std::sync::Arc::clone(&sessions);
        match tokio::task::spawn_blocking(move || sessions.sweep()).await {
            Ok(Ok(0)) => {}
            Ok(Ok(removed)) => tracing::debug!(removed, "expired sessions removed"),
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot remove expired sessions; they let nothing through, but take places");
            }
            Err(error) => tracing::error!(%error, "removing expired sessions panicked"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn service(capacity: u32, length: &str) -> SessionService {
        let table = SessionTable::create(capacity).expect("a BPF map needs root");
        SessionService::new(table, Zone::FIRST, length.parse().unwrap())
    }

    fn mac(last: u8) -> Mac {
        Mac::new([0x02, 0, 0x5e, 0x10, 0, last]).unwrap()
    }

    /// Puts a session that has just expired into the table.
    fn expired(service: &SessionService, mac: Mac) {
        let now = clock::now_ns();
        service.table.insert(service.key(mac), Session::new(now - 1, now)).unwrap();
    }

    /// How many sessions the table holds, live or expired.
    fn all(service: &SessionService) -> usize {
        service.table.find(|_, _| true).unwrap().len()
    }

    #[test]
    fn allow_show_list_revoke() {
        let service = service(8, "8h");
        assert!(matches!(service.show(mac(1)), Err(SessionError::NotFound(m)) if m == mac(1)));
        let view = service.allow(mac(1), None).unwrap();
        assert_eq!(view.remaining_seconds, Some(8 * 3600));
        let in_kernel = service.table.get(service.key(mac(1))).unwrap().unwrap();
        assert!(in_kernel.is_live(clock::now_ns()));
        let view = service.allow(mac(1), Some(Duration::from_mins(2))).unwrap();
        assert_eq!(view.remaining_seconds, Some(120), "an operator may shorten a session");
        assert_eq!(service.table.get(service.key(mac(1))).unwrap().unwrap().started_ns(), in_kernel.started_ns());
        service.allow(mac(0), None).unwrap();
        assert_eq!(service.list().unwrap().iter().map(|v| v.mac).collect::<Vec<_>>(), [mac(0), mac(1)]);
        service.revoke(mac(1)).unwrap();
        assert_eq!(service.table.get(service.key(mac(1))).unwrap(), None);
        assert!(matches!(service.revoke(mac(1)), Err(SessionError::NotFound(_))));
        assert!(!service.logout(mac(1)).unwrap());
    }

    #[test]
    fn a_login_never_shortens_what_the_operator_gave() {
        let service = service(8, "1h");
        service.allow(mac(1), Some(Duration::from_hours(30))).unwrap();
        assert_eq!(service.login(mac(1)).unwrap().remaining_seconds, Some(30 * 3600));
        service.allow(mac(1), Some(Duration::from_secs(5))).unwrap();
        assert_eq!(service.login(mac(1)).unwrap().remaining_seconds, Some(3600));
    }

    #[test]
    fn a_session_without_end_stays_until_it_is_revoked() {
        let service = service(8, "1h");
        let view = service.allow_forever(mac(1)).unwrap();
        assert_eq!((view.expires_at, view.remaining_seconds), (None, None));
        assert_eq!(service.login(mac(1)).unwrap().remaining_seconds, None, "a login does not shorten it");
        assert_eq!(service.sweep().unwrap(), 0);
        assert_eq!((service.count().unwrap(), service.list().unwrap()[0].remaining_seconds), (1, None));
        assert_eq!(service.allow(mac(1), None).unwrap().remaining_seconds, Some(3600), "an operator does");
        service.allow_forever(mac(1)).unwrap();
        service.revoke(mac(1)).unwrap();
        assert_eq!(service.count().unwrap(), 0);
    }

    #[test]
    fn an_expired_session_is_none() {
        let service = service(8, "8h");
        expired(&service, mac(1));
        assert!(matches!(service.show(mac(1)), Err(SessionError::NotFound(_))));
        assert_eq!(service.list().unwrap(), []);
        assert!(matches!(service.revoke(mac(1)), Err(SessionError::NotFound(_))));
        assert_eq!(service.table.get(service.key(mac(1))).unwrap(), None);
        expired(&service, mac(1));
        assert_eq!(service.login(mac(1)).unwrap().remaining_seconds, Some(8 * 3600));
    }

    #[test]
    fn a_full_table_makes_room_by_what_has_expired_and_else_says_so() {
        let service = service(4, "8h");
        for i in 0..4 {
            service.allow(mac(i), None).unwrap();
        }
        assert!(matches!(service.allow(mac(9), None), Err(SessionError::Full { capacity: 4 })));
        service.allow(mac(3), None).expect("a client that is in may be renewed");
        expired(&service, mac(2));
        assert!(matches!(service.login(mac(9)), Err(SessionError::Full { .. })), "searched less than a second ago");
        *service.search.lock().unwrap() = None;
        service.login(mac(9)).unwrap();
        assert_eq!(service.list().unwrap().len(), 4);
        assert_eq!(service.table.get(service.key(mac(2))).unwrap(), None);
    }

    #[test]
    fn a_sweep_removes_the_expired_and_nothing_else() {
        let service = service(8, "8h");
        service.allow(mac(1), None).unwrap();
        expired(&service, mac(2));
        expired(&service, mac(3));
        assert_eq!(service.sweep().unwrap(), 2);
        assert_eq!(service.sweep().unwrap(), 0);
        assert_eq!(all(&service), 1);
    }

    /// Prints how long an operator and a guest wait with the default table full, alone and beside each other.
    #[test]
    fn nobody_waits_for_a_walk_over_the_table() {
        let service = service(65_536, "8h");
        let station = |n: u32| {
            let [_, a, b, c] = n.to_be_bytes();
            Mac::new([0x02, 0, 0x5e, a, b, c]).unwrap()
        };
        for n in 0..65_535 {
            service.allow(station(n), None).unwrap();
        }
        let begin = Instant::now();
        assert_eq!(service.count().unwrap(), 65_535);
        println!("65,536 places: count {:?}", begin.elapsed());
        let walking = std::sync::atomic::AtomicBool::new(true);
        let (mut worst, mut during, mut wrong) = (Duration::ZERO, 0, 0);
        std::thread::scope(|scope| {
            let walker = scope.spawn(|| {
                let counts: Vec<usize> = (0..3).map(|_| service.count().unwrap()).collect();
                walking.store(false, std::sync::atomic::Ordering::Release);
                counts
            });
            // A guest that logs in and out all the time makes the walk start again, but none is counted twice.
            while walking.load(std::sync::atomic::Ordering::Acquire) {
                let begin = Instant::now();
                service.login(station(70_000)).unwrap();
                wrong += u32::from(!service.logout(station(70_000)).unwrap());
                worst = worst.max(begin.elapsed());
                during += 1;
            }
            for count in walker.join().unwrap() {
                assert!((65_535..=65_536).contains(&count), "{count}");
            }
        });
        println!("beside three counts: {during} logins and logouts, the slowest pair {worst:?}");
        assert!(during > 10 && wrong == 0, "logins waited for the walk: {during}");
        service.login(station(70_000)).unwrap();
        let begin = Instant::now();
        assert!(matches!(service.login(station(70_001)), Err(SessionError::Full { .. })));
        let first = begin.elapsed();
        let begin = Instant::now();
        assert!(matches!(service.login(station(70_001)), Err(SessionError::Full { .. })));
        println!("full: the first refusal {first:?}, the next {:?}", begin.elapsed());
    }

    #[test]
    fn a_length_out_of_bounds_is_refused() {
        let service = service(8, "8h");
        for length in [Duration::ZERO, Duration::from_millis(1), Duration::from_millis(1500), Duration::MAX] {
            let message = service.allow(mac(1), Some(length)).unwrap_err().to_string();
            assert!(message.contains("1s to 3650days"), "{message}");
        }
        assert_eq!(service.list().unwrap(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn expired_sessions_go_within_a_minute() {
        let service = Arc::new(service(8, "8h"));
        let (stop, stopping) = watch::channel(false);
        let task = tokio::spawn(sweep_regularly(Arc::clone(&service), stopping));
        tokio::time::sleep(Duration::from_secs(1)).await;
        expired(&service, mac(1));
        tokio::time::sleep(Duration::from_secs(61)).await;
        // The sweep is on another thread, whose clock is not paused.
        for _ in 0..200 {
            if all(&service) == 0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(all(&service), 0);
        stop.send(true).unwrap();
        task.await.unwrap();
    }
}
