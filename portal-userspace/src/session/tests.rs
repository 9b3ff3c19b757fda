//! Over the kernel's own tables, which no program writes: what the gate would write there is written by the tests.

use std::{path::Path, time::Instant};

use portal_common::tables::{Address, ClientState, OwnedAddress};
use proptest::prelude::*;
use tokio::sync::watch;

use super::*;
use crate::config::Config;

fn service(capacity: u32, length: &str) -> SessionService {
    limited(capacity, length, "")
}

fn limited(capacity: u32, length: &str, limits: &str) -> SessionService {
    let store = Arc::new(SessionStore::create(capacity).expect("a BPF map needs root"));
    zone(&store, Zone::FIRST, "guest", length, limits)
}

fn zone(store: &Arc<SessionStore>, zone: Zone, name: &str, length: &str, limits: &str) -> SessionService {
    let text = format!(
        "[guest]\nname = \"{name}\"\ninterface = \"eth1\"\n[portal]\nsession = \"{length}\"\n[session]\n{limits}"
    );
    let config = Config::parse(&text, Path::new("test")).unwrap();
    SessionService::new(Arc::clone(store), zone, &config.zones()[0])
}

fn mac(last: u8) -> Mac {
    Mac::new([0x02, 0, 0x5e, 0x10, 0, last]).unwrap()
}

/// Puts a session that has just expired into the table.
fn expired(service: &SessionService, mac: Mac) {
    service.allow(mac, None).unwrap();
    let old = in_kernel(service, mac).unwrap();
    let now = clock::now_ns();
    service.store.table.insert(service.key(mac), Session::new(now - 1, now, old.slot())).unwrap();
}

/// How many sessions the table holds, live or over.
fn all(service: &SessionService) -> usize {
    service.store.table.find(|_, _| true).len()
}

fn in_kernel(service: &SessionService, mac: Mac) -> Option<Session> {
    service.store.table.get(service.key(mac))
}

/// Writes what the gate would.
fn carry(service: &SessionService, mac: Mac, change: impl Fn(&mut ClientState<u64>)) {
    let slot = in_kernel(service, mac).unwrap().slot();
    let mut state = service.store.table.state(slot);
    change(&mut state);
    service.store.table.write_state(slot, &state);
}

#[test]
fn allow_show_list_revoke() {
    let service = service(8, "8h");
    assert!(matches!(service.show(mac(1)), Err(SessionError::NotFound(m)) if m == mac(1)));
    let view = service.allow(mac(1), None).unwrap();
    assert_eq!(view.remaining_seconds, Some(8 * 3600));
    let first = in_kernel(&service, mac(1)).unwrap();
    assert!(first.is_live(clock::now_ns()));
    let view = service.allow(mac(1), Some(Duration::from_mins(2))).unwrap();
    assert_eq!(view.remaining_seconds, Some(120), "an operator may shorten a session");
    let second = in_kernel(&service, mac(1)).unwrap();
    assert_eq!((second.started_ns(), second.slot()), (first.started_ns(), first.slot()));
    service.allow(mac(0), None).unwrap();
    assert_eq!(service.list().unwrap().iter().map(|v| v.mac).collect::<Vec<_>>(), [mac(0), mac(1)]);
    service.revoke(mac(1)).unwrap();
    assert_eq!(in_kernel(&service, mac(1)), None);
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
    assert_eq!(service.store.sweep().unwrap(), 0);
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
    assert_eq!(in_kernel(&service, mac(1)), None);
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
    *service.store.search.lock().unwrap() = None;
    service.login(mac(9)).unwrap();
    assert_eq!(service.list().unwrap().len(), 4);
    assert_eq!(in_kernel(&service, mac(2)), None);
}

/// Puts a session into the table that began this many seconds ago, and whose client was last seen so many seconds ago.
fn begun(service: &SessionService, mac: Mac, begun: u64, seen: Option<u64>) {
    let ago = |seconds: u64| clock::now_ns().saturating_sub(seconds * 1_000_000_000).max(1);
    service.login(mac).unwrap();
    let new = in_kernel(service, mac).unwrap();
    let earlier = KernelLimits::of(&new).session(ago(begun), new.expires_ns(), new.slot());
    service.store.table.insert(service.key(mac), earlier).unwrap();
    carry(service, mac, |state| state.last_seen_ns = seen.map_or(0, ago));
}

#[test]
fn a_full_table_gives_up_the_never_seen_then_the_longest_unseen_and_never_an_active_guest() {
    let service = limited(6, "8h", "quota = \"1MB\"\n");
    service.allow_forever(mac(0)).unwrap();
    begun(&service, mac(1), 3_000, Some(0));
    begun(&service, mac(2), 3_000, Some(400));
    begun(&service, mac(3), 3_000, Some(900));
    carry(&service, mac(3), |state| state.quota_used = 1_000);
    begun(&service, mac(4), 20, None);
    begun(&service, mac(5), 30, None);
    let mut events = service.store.events().subscribe();
    for (new, gives_way) in [(11, 5), (12, 4), (13, 3), (14, 2)] {
        *service.store.search.lock().unwrap() = None;
        service.login(mac(new)).unwrap();
        let (gone, come) = (events.try_recv().unwrap(), events.try_recv().unwrap());
        assert_eq!((gone.mac, gone.cause, gone.cause.name()), (mac(gives_way), Cause::Evicted, "evicted"), "{new}");
        assert_eq!((come.mac, come.cause), (mac(new), Cause::Login));
        assert_eq!(in_kernel(&service, mac(gives_way)), None);
    }
    *service.store.search.lock().unwrap() = None;
    assert!(matches!(service.login(mac(15)), Err(SessionError::Full { capacity: 6 })), "all others are active, or new");
    assert!(service.show(mac(0)).is_ok() && service.show(mac(1)).is_ok());
    service.revoke(mac(14)).unwrap();
    let again = service.login(mac(3)).unwrap().limits;
    assert_eq!(again.quota_remaining_bytes, Some(999_000), "what it used before it was given up counts");
}

#[test]
fn who_is_seen_or_renewed_after_the_walk_is_not_given_up() {
    let service = service(3, "8h");
    for i in 0..3 {
        begun(&service, mac(i), 60, None);
    }
    service.store.sweep().unwrap();
    carry(&service, mac(0), |state| state.last_seen_ns = clock::now_ns());
    service.logout(mac(1)).unwrap();
    service.login(mac(1)).unwrap();
    service.login(mac(7)).expect("one is left that was never seen");
    assert!(service.show(mac(0)).is_ok() && service.show(mac(1)).is_ok() && service.show(mac(2)).is_err());
    assert!(matches!(service.login(mac(8)), Err(SessionError::Full { .. })));
}

#[test]
fn one_walk_makes_room_for_many_logins() {
    let service = service(200, "8h");
    for i in 0..200 {
        begun(&service, mac(i), 60, None);
    }
    let later = Instant::now() + Duration::from_hours(1);
    service.store.sweep().unwrap();
    // From here on no walk is made.
    *service.store.search.lock().unwrap() = Some(later);
    for i in 0..200 {
        let [_, n] = u16::to_be_bytes(i);
        service.login(Mac::new([0x02, 0, 0x5e, 0x20, 0, n]).unwrap()).unwrap();
    }
    assert!(matches!(service.login(mac(1)), Err(SessionError::Full { .. })));
    assert_eq!(service.count().unwrap(), 200);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn no_flood_of_logins_ends_an_active_session(
        before in proptest::collection::vec((0u64..2_000, proptest::option::of(0u64..2_000)), 1..24),
        flood in 1u8..40,
    ) {
        let service = service(u32::try_from(before.len()).unwrap(), "8h");
        // A second on either side of the bounds may pass while the test runs.
        let clear = |(begun, seen): (u64, Option<u64>)| seen.map_or(begun, |seen| seen.min(begun));
        let active = |guest: (u64, Option<u64>)| clear(guest) <= if guest.1.is_some() { 290 } else { 5 };
        let idle = |guest: (u64, Option<u64>)| clear(guest) > if guest.1.is_some() { 301 } else { 11 };
        for (i, (ago, seen)) in (0u8..).zip(&before) {
            begun(&service, mac(i), *ago, *seen);
        }
        let mut admitted = 0;
        for i in 0..flood {
            *service.store.search.lock().unwrap() = None;
            admitted += usize::from(service.login(mac(100 + i)).is_ok());
        }
        for (i, guest) in (0u8..).zip(&before) {
            prop_assert!(!active(*guest) || service.show(mac(i)).is_ok(), "{:?} was given up", guest);
        }
        let (least, most) = (before.iter().filter(|guest| idle(**guest)).count(), before.iter().filter(|guest| !active(**guest)).count());
        prop_assert!((least.min(flood.into())..=most).contains(&admitted), "{} of {}..{}", admitted, least, most);
        prop_assert_eq!(service.count().unwrap(), before.len());
    }
}

#[test]
fn a_sweep_removes_the_expired_and_nothing_else() {
    let service = service(8, "8h");
    service.allow(mac(1), None).unwrap();
    expired(&service, mac(2));
    expired(&service, mac(3));
    assert_eq!(service.store.sweep().unwrap(), 2);
    assert_eq!(service.store.sweep().unwrap(), 0);
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
    // Without end: none of them is given up, however long the test takes on a busy machine.
    for n in 0..65_535 {
        service.allow_forever(station(n)).unwrap();
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
    let task = tokio::spawn(sweep_regularly(Arc::clone(&service.store), stopping));
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

/// What the gate writes into a session's state.
type Write<'w> = &'w dyn Fn(&mut ClientState<u64>);

#[test]
fn a_session_is_over_when_its_quota_is_spent_or_its_client_silent() {
    let service = limited(8, "8h", "quota = \"1kB\"\nquota_per = \"session\"\nidle = \"10s\"\nrate_up = \"1mbit\"\n");
    let second = 1_000_000_000;
    let table: [(&str, Write<'_>, bool); 5] = [
        ("a new one", &|_| (), true),
        ("exactly its quota", &|state| state.quota_used = 1000, true),
        ("a byte more", &|state| state.quota_used = 1001, false),
        ("seen just now", &|state| state.last_seen_ns = clock::now_ns(), true),
        ("seen a while ago, but it has just begun", &|state| state.last_seen_ns = clock::now_ns() - 11 * second, true),
    ];
    for (sentence, change, live) in table {
        service.login(mac(1)).unwrap();
        carry(&service, mac(1), change);
        assert_eq!(service.show(mac(1)).is_ok(), live, "{sentence}");
        assert_eq!(service.count().unwrap(), usize::from(live), "{sentence}");
        assert_eq!(service.store.end_if_over(service.key(mac(1))).unwrap(), !live, "{sentence}");
        service.logout(mac(1)).unwrap();
    }
    let now = clock::now_ns();
    let silent = Session::new(now - 11 * second, Session::NEVER, 7).with_idle_s(10);
    service.store.table.insert(service.key(mac(1)), silent).unwrap();
    assert!(service.show(mac(1)).is_err());
    assert_eq!(service.store.sweep().unwrap(), 1);
}

#[test]
fn a_login_after_the_quota_is_a_new_session_that_has_carried_nothing() {
    let service = limited(8, "8h", "quota = \"1kB\"\nquota_per = \"session\"\n");
    service.login(mac(1)).unwrap();
    let first = in_kernel(&service, mac(1)).unwrap();
    carry(&service, mac(1), |state| (state.quota_used, state.up.bytes) = (2000, 2000));
    let view = service.login(mac(1)).unwrap();
    assert_eq!((view.up.bytes, view.limits.quota_remaining_bytes), (0, Some(1000)));
    let second = in_kernel(&service, mac(1)).unwrap();
    assert_ne!(second.slot(), first.slot(), "its place is used again last");
    assert!(service.store.end_if_over(service.key(mac(1))).is_ok_and(|ended| !ended));
}

#[test]
fn an_operator_says_what_a_client_may_use_and_the_rest_stays() {
    let service = limited(8, "8h", "quota = \"1kB\"\nrate_down = \"5mbit\"\n");
    let grant =
        Grant { rate_up: Some("1mbit".parse().unwrap()), quota: Some("none".parse().unwrap()), ..Grant::default() };
    let limits = service.grant(mac(1), &grant).unwrap().limits;
    assert_eq!((limits.rate_up_bits_per_second, limits.rate_down_bits_per_second), (Some(1_000_000), Some(5_000_000)));
    assert_eq!((limits.quota_bytes, limits.idle_timeout_seconds), (None, None));
    carry(&service, mac(1), |state| state.up.bytes = 77);
    let grant = Grant { idle: Some("30m".parse().unwrap()), ..Grant::default() };
    let view = service.grant(mac(1), &grant).unwrap();
    assert_eq!((view.limits.rate_up_bits_per_second, view.limits.idle_timeout_seconds), (Some(1_000_000), Some(1800)));
    assert_eq!((view.limits.quota_bytes, view.up.bytes), (None, 77));
    assert_eq!(service.login(mac(1)).unwrap().limits, view.limits, "a login changes none of it");
}

#[test]
fn zones_have_sessions_of_their_own_in_one_table() {
    let store = Arc::new(SessionStore::create(3).unwrap());
    let one = zone(&store, Zone::new(1), "one", "1h", "");
    let two = zone(&store, Zone::new(2), "two", "2h", "");
    one.allow(mac(1), None).unwrap();
    assert!(two.show(mac(1)).is_err());
    two.allow(mac(1), None).unwrap();
    two.allow(mac(2), None).unwrap();
    assert_eq!((one.count().unwrap(), two.count().unwrap(), store.count().unwrap()), (1, 2, 3));
    let all: Vec<_> = store.list().unwrap().iter().map(|view| (view.zone.clone(), view.mac)).collect();
    assert_eq!(all, [("one".into(), mac(1)), ("two".into(), mac(1)), ("two".into(), mac(2))]);
    assert!(matches!(one.allow(mac(3), None), Err(SessionError::Full { capacity: 3 })), "the table is everybody's");
    assert_eq!(store.remove_zones(&[Zone::new(2)]).unwrap(), 2);
    assert_eq!((one.count().unwrap(), two.count().unwrap()), (1, 0));
    one.allow(mac(3), None).unwrap();
}

#[test]
fn what_a_client_used_is_free_when_its_session_ends() {
    let service = service(8, "8h");
    let address = |last| match last {
        1 => Address::v4([192, 0, 2, 1]),
        last => Address::v6(std::array::from_fn(|i| if i == 0 { 0xfe } else { last })),
    };
    let owned = |last| OwnedAddress::new(Zone::FIRST, address(last));
    let owners = &service.store.owners;
    service.allow(mac(1), None).unwrap();
    carry(&service, mac(1), |state| {
        state.bindings.words[0] = owners.hash().word(address(1)).to_word();
        state.bindings.words[5] = owners.hash().word(address(2)).to_word();
    });
    owners.insert(owned(1), service.key(mac(1))).unwrap();
    owners.insert(owned(2), service.key(mac(2))).unwrap();
    owners.insert(owned(3), service.key(mac(1))).unwrap();
    assert_eq!(service.show(mac(1)).unwrap().bound_addresses.len(), 2);
    service.revoke(mac(1)).unwrap();
    assert_eq!(owners.owner(&owned(1)).unwrap(), None);
    assert_eq!(owners.owner(&owned(2)).unwrap(), Some(service.key(mac(2))), "another client's by now");
    service.allow(mac(2), None).unwrap();
    assert_eq!(service.store.release_stale_addresses().unwrap(), 1, "bound as the session ended");
    assert_eq!(owners.owner(&owned(3)).unwrap(), None);
    assert!(owners.owner(&owned(2)).unwrap().is_some());
}

#[test]
fn a_restart_finds_the_free_places_by_the_sessions_there_are() {
    let service = service(4, "8h");
    for i in 0..3 {
        service.allow(mac(i), None).unwrap();
    }
    service.revoke(mac(1)).unwrap();
    let used = |service: &SessionService| {
        let mut slots: Vec<_> = service.store.table.find(|_, _| true).iter().map(|(_, s)| s.slot()).collect();
        slots.sort_unstable();
        slots
    };
    assert_eq!(used(&service), [0, 2]);
    let SessionService { store, .. } = service;
    let store = Arc::into_inner(store).unwrap();
    let again = Arc::new(store.reopened());
    let service = zone(&again, Zone::FIRST, "guest", "8h", "");
    service.allow(mac(7), None).unwrap();
    service.allow(mac(8), None).unwrap();
    assert_eq!(used(&service), [0, 1, 2, 3]);
    assert!(matches!(service.allow(mac(9), None), Err(SessionError::Full { .. })));
}

#[test]
fn what_happens_is_told() {
    let service = limited(8, "8h", "quota = \"1kB\"\n");
    let mut events = service.store.events().subscribe();
    service.login(mac(1)).unwrap();
    service.allow(mac(1), None).unwrap();
    service.logout(mac(1)).unwrap();
    expired(&service, mac(2));
    service.store.sweep().unwrap();
    service.allow(mac(3), None).unwrap();
    carry(&service, mac(3), |state| state.quota_used = 9999);
    service.store.end_if_over(service.key(mac(3))).unwrap();
    service.allow(mac(4), None).unwrap();
    service.revoke(mac(4)).unwrap();
    let told: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).map(|e| (e.zone, e.mac, e.cause)).collect();
    let expected = [
        (1, Cause::Login),
        (1, Cause::Allowed),
        (1, Cause::LoggedOut),
        (2, Cause::Allowed),
        (2, Cause::Expired),
        (3, Cause::Allowed),
        (3, Cause::Quota),
        (4, Cause::Allowed),
        (4, Cause::Revoked),
    ];
    assert_eq!(told, expected.map(|(n, cause)| ("guest".to_owned(), mac(n), cause)));
}
