//! Quotas of a day and bars, over the kernel's own tables: what the gate would write there is written by the tests.

use std::path::Path;

use portal_common::tables::ClientState;

use super::*;
use crate::datapath::usage::UsageMap;

fn on(store: &Arc<SessionStore>, zone: Zone, name: &str, limits: &str) -> SessionService {
    let text = format!("[guest]\nname = \"{name}\"\ninterface = \"eth1\"\n[session]\n{limits}");
    let config = Config::parse(&text, Path::new("test")).unwrap();
    SessionService::new(Arc::clone(store), zone, &config.zones()[0])
}

fn store() -> Arc<SessionStore> {
    Arc::new(SessionStore::create(8).expect("a BPF map needs root"))
}

fn service(limits: &str) -> SessionService {
    on(&store(), Zone::FIRST, "guest", limits)
}

fn mac(last: u8) -> Mac {
    Mac::new([0x02, 0, 0x5e, 0x10, 0, last]).unwrap()
}

/// What the gate counts as a client sends so much.
fn carries(service: &SessionService, mac: Mac, bytes: u64) {
    let slot = service.store.table.get(service.key(mac)).unwrap().slot();
    let state = service.store.table.state(slot);
    service.store.table.write_state(slot, &ClientState { quota_used: state.quota_used + bytes, ..state });
}

fn left(service: &SessionService, mac: Mac) -> u64 {
    service.login(mac).unwrap().limits.quota_remaining_bytes.unwrap()
}

fn cause(service: &SessionService, mac: Mac) -> Option<BarCause> {
    match service.login(mac) {
        Ok(_) => None,
        Err(SessionError::Barred { barred, .. }) => Some(barred.cause),
        Err(other) => panic!("{other}"),
    }
}

fn time(text: &str) -> BarTime {
    text.parse().unwrap()
}

/// A BPF file system of a test's own.
struct Bpffs(tempfile::TempDir);

impl Bpffs {
    fn mount() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mounted = portal_tools::command("mount").args(["-t", "bpf", "bpf"]).arg(directory.path()).status().unwrap();
        assert!(mounted.success(), "mounting needs root");
        Self(directory)
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        // Where it fails, the directory stays, and nothing depends on it.
        let _: std::io::Result<std::process::ExitStatus> = portal_tools::command("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_button_gives_no_second_quota_however_the_first_session_ended() {
    type End<'e> = &'e dyn Fn(&SessionService);
    let table: [(&str, u64, End<'_>); 6] = [
        ("spent, and nobody has noticed yet", 1_500, &|_| ()),
        ("spent, and the gate has told it", 1_500, &|s| assert!(s.store.end_if_over(s.key(mac(1))).unwrap())),
        ("spent, and swept", 1_500, &|s| assert_eq!(s.store.sweep().unwrap(), 1)),
        ("used up to the last byte, and logged out", 1_000, &|s| assert!(s.logout(mac(1)).unwrap())),
        ("spent, and logged out", 1_500, &|s| assert!(!s.logout(mac(1)).unwrap())),
        ("used up, and revoked", 1_000, &|s| s.revoke(mac(1)).unwrap()),
    ];
    for (sentence, bytes, end) in table {
        let service = service("quota = \"1kB\"\n");
        assert_eq!(left(&service, mac(1)), 1_000);
        carries(&service, mac(1), bytes);
        end(&service);
        for _ in 0..3 {
            assert_eq!(cause(&service, mac(1)), Some(BarCause::Day), "{sentence}");
        }
        assert_eq!(service.barred(mac(1)).unwrap().map(|barred| barred.cause), Some(BarCause::Day), "{sentence}");
        assert!(service.show(mac(1)).is_err(), "{sentence}");
        assert_eq!(cause(&service, mac(2)), None, "{sentence}: nobody else");
    }
}

#[test]
fn a_further_login_of_a_day_gets_what_is_left() {
    let service = service("quota = \"1kB\"\n");
    service.login(mac(1)).unwrap();
    carries(&service, mac(1), 300);
    service.logout(mac(1)).unwrap();
    let limits = service.login(mac(1)).unwrap().limits;
    assert_eq!((limits.quota_bytes, limits.quota_remaining_bytes), (Some(1_000), Some(700)));
    assert_eq!(limits.quota_per, Some(QuotaPer::Day));
    assert!(limits.quota_day_remaining_seconds.is_some_and(|left| (86_390..=86_400).contains(&left)), "{limits:?}");
    carries(&service, mac(1), 600);
    assert_eq!(service.login(mac(1)).unwrap().limits.quota_remaining_bytes, Some(100), "a running one goes on");
    service.logout(mac(1)).unwrap();
    assert_eq!(left(&service, mac(1)), 100);
}

#[test]
fn a_quota_of_a_session_is_new_with_each_unless_a_spent_one_bars() {
    let free = service("quota = \"1kB\"\nquota_per = \"session\"\n");
    let strict = service("quota = \"1kB\"\nquota_per = \"session\"\nbar_after_quota = \"1h\"\n");
    for service in [&free, &strict] {
        service.login(mac(1)).unwrap();
        carries(service, mac(1), 1_000);
        service.logout(mac(1)).unwrap();
        assert_eq!(left(service, mac(1)), 1_000);
        carries(service, mac(1), 1_001);
    }
    assert_eq!(left(&free, mac(1)), 1_000);
    assert_eq!(cause(&strict, mac(1)), Some(BarCause::Quota));
    let [bar] = <[BarView; 1]>::try_from(strict.store.kept_out().unwrap()).unwrap();
    assert_eq!((bar.mac, bar.zone.as_str(), bar.cause), (mac(1), "guest", BarCause::Quota));
    assert!(
        bar.remaining_seconds.is_some_and(|left| (3_595..=3_600).contains(&left)) && bar.since.is_none(),
        "{bar:?}"
    );
}

#[test]
fn who_is_blocked_is_a_stranger_until_an_operator_lets_it_in() {
    let service = service("");
    service.login(mac(1)).unwrap();
    let reason = "sold the password".parse().unwrap();
    let (bar, ended) = service.block(mac(1), time("2h"), Some(reason)).unwrap();
    assert!(ended && bar.remaining_seconds == Some(7_200) && bar.since.is_some() && bar.reason.is_some(), "{bar:?}");
    assert!(service.show(mac(1)).is_err());
    assert_eq!(cause(&service, mac(1)), Some(BarCause::Blocked));
    let (bar, ended) = service.block(mac(1), time("forever"), None).unwrap();
    assert_eq!((bar.until.as_ref(), bar.reason.as_ref(), ended), (None, None, false), "the last word counts");
    assert_eq!(service.store.kept_out().unwrap(), std::slice::from_ref(&bar));
    assert_eq!(service.unblock(mac(1)).unwrap(), bar);
    assert!(matches!(service.unblock(mac(1)), Err(SessionError::NotBarred(_))));
    assert_eq!(cause(&service, mac(1)), None);
    service.block(mac(1), time("1s"), None).unwrap();
    assert_eq!(cause(&service, mac(1)), Some(BarCause::Blocked));
    std::thread::sleep(Duration::from_millis(1_100));
    assert_eq!(cause(&service, mac(1)), None, "it is over by itself");
}

#[test]
fn a_revocation_bars_if_that_is_said() {
    let plain = service("");
    let strict = service("bar_after_revoke = \"30m\"\n");
    for service in [&plain, &strict] {
        service.login(mac(1)).unwrap();
        service.revoke(mac(1)).unwrap();
    }
    assert_eq!((cause(&plain, mac(1)), cause(&strict, mac(1))), (None, Some(BarCause::Revoked)));
    let bar = plain.revoke_and_bar(mac(1), Some(time("2h"))).unwrap().unwrap();
    assert_eq!((bar.cause, bar.remaining_seconds), (BarCause::Revoked, Some(7_200)));
    assert_eq!(cause(&plain, mac(1)), Some(BarCause::Revoked));
    assert!(matches!(plain.revoke_and_bar(mac(2), Some(time("2h"))), Err(SessionError::NotFound(_))));
    assert_eq!(cause(&plain, mac(2)), None, "who had no session is not kept out by that");
}

#[test]
fn an_operator_lets_through_whoever_was_kept_out() {
    let service = service("quota = \"1kB\"\nbar_after_quota = \"forever\"\n");
    let spend = |last| {
        service.login(mac(last)).unwrap();
        carries(&service, mac(last), 1_001);
    };
    service.block(mac(1), time("forever"), None).unwrap();
    spend(2);
    let lifted = |view: ClientView| view.lifted_bar.map(|bar| bar.cause);
    assert_eq!(lifted(service.allow(mac(1), None).unwrap()), Some(BarCause::Blocked));
    let view = service.allow(mac(2), None).unwrap();
    assert_eq!(view.limits.quota_remaining_bytes, Some(1_000), "its day begins anew");
    assert_eq!(lifted(view), Some(BarCause::Quota));
    assert_eq!(lifted(service.allow(mac(3), None).unwrap()), None);
    for last in 1..4 {
        service.logout(mac(last)).unwrap();
        assert_eq!(cause(&service, mac(last)), None, "{last}");
    }
    spend(2);
    assert_eq!(service.unblock(mac(2)).unwrap().cause, BarCause::Quota);
    assert_eq!(left(&service, mac(2)), 1_000);
}

#[test]
fn an_operators_quota_of_a_day_is_also_for_later_logins() {
    let grant = |per| Grant { quota: Some("5kB".parse().unwrap()), quota_per: per, ..Grant::default() };
    let table = [
        ("as configured", "quota = \"1kB\"\n", None, Some(2_000)),
        ("of the day", "quota = \"1kB\"\nquota_per = \"session\"\n", Some(QuotaPer::Day), Some(2_000)),
        ("of the session", "quota = \"1kB\"\nquota_per = \"session\"\n", None, Some(1_000)),
        ("of the session, and the day's is used", "quota = \"1kB\"\n", Some(QuotaPer::Session), None),
    ];
    for (sentence, limits, per, expected) in table {
        let service = service(limits);
        assert_eq!(service.grant(mac(1), &grant(per)).unwrap().limits.quota_remaining_bytes, Some(5_000), "{sentence}");
        carries(&service, mac(1), 3_000);
        service.logout(mac(1)).unwrap();
        let left = service.login(mac(1)).ok().and_then(|view| view.limits.quota_remaining_bytes);
        assert_eq!(left, expected, "{sentence}");
    }
}

#[test]
fn zones_keep_their_own_accounts() {
    let store = store();
    let [guest, staff] =
        [(0, "guest"), (1, "staff")].map(|(n, name)| on(&store, Zone::new(n), name, "quota = \"1kB\"\n"));
    guest.login(mac(1)).unwrap();
    carries(&guest, mac(1), 1_001);
    staff.block(mac(2), time("forever"), None).unwrap();
    let causes = |last| [&guest, &staff].map(|service| cause(service, mac(last)));
    assert_eq!(causes(1), [Some(BarCause::Day), None]);
    assert_eq!(causes(2), [None, Some(BarCause::Blocked)]);
    store.remove_zones(&[Zone::FIRST]).unwrap();
    let other = on(&store, Zone::FIRST, "other", "quota = \"1kB\"\n");
    assert_eq!(cause(&other, mac(1)), None, "another network has the number now");
}

/// The button is pressed all the while, by somebody who hopes for the moment in between.
#[test]
fn no_moment_gives_a_fresh_quota() {
    let service = service("quota = \"1kB\"\n");
    let total = std::sync::atomic::AtomicU64::new(0);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Acquire) {
                    let _: Result<ClientView, SessionError> = service.login(mac(1));
                    let _: Result<bool, SessionError> = service.store.end_if_over(service.key(mac(1)));
                }
            });
        }
        service.login(mac(1)).unwrap();
        for _ in 0..50 {
            // As the gate: it counts in the slot of a session that is live.
            if let Some(entry) = service.store.read(service.key(mac(1)))
                && entry.over(clock::now_ns()).is_none()
            {
                let _writing = service.store.lock();
                if service.store.table.get(service.key(mac(1))).is_some() {
                    carries(&service, mac(1), 300);
                    total.fetch_add(300, std::sync::atomic::Ordering::Relaxed);
                }
            }
            std::thread::yield_now();
        }
        done.store(true, std::sync::atomic::Ordering::Release);
    });
    assert_eq!(total.into_inner(), 1_200, "the fourth frame crosses, and there is no fifth");
    assert_eq!(cause(&service, mac(1)), Some(BarCause::Day));
}

#[test]
fn the_next_daemon_knows_who_is_kept_out_and_what_was_used() {
    let state = tempfile::tempdir().unwrap();
    let directory = state.path().join("portal");
    let pins = Bpffs::mount();
    let pin = pins.0.path().join("USAGE");
    let usage = || UsageMap::at(&pin, 8).unwrap();
    let start = |store: SessionStore| Arc::new(store.remembering(usage(), &directory).unwrap());
    let first = start(SessionStore::create(8).unwrap());
    let limits = "quota = \"1kB\"\n";
    let service = on(&first, Zone::FIRST, "guest", limits);
    for (last, bytes) in [(1, 1_001), (2, 400)] {
        service.login(mac(last)).unwrap();
        carries(&service, mac(last), bytes);
    }
    service.logout(mac(2)).unwrap();
    service.block(mac(3), time("forever"), None).unwrap();
    service.block(mac(4), time("2h"), None).unwrap();
    service.unblock(mac(4)).unwrap();
    drop(service);
    // The first client's session is still in the kernel, spent.
    let next = start(Arc::into_inner(first).unwrap().reopened());
    let service = on(&next, Zone::FIRST, "guest", limits);
    assert_eq!(cause(&service, mac(1)), Some(BarCause::Day));
    assert_eq!(left(&service, mac(2)), 600);
    assert_eq!((cause(&service, mac(3)), cause(&service, mac(4))), (Some(BarCause::Blocked), None));
    // After a restart of the machine there is no map, and who was blocked still is.
    drop(service);
    std::fs::remove_file(&pin).unwrap();
    let service = on(&start(SessionStore::create(8).unwrap()), Zone::FIRST, "guest", limits);
    assert_eq!([1, 3].map(|last| cause(&service, mac(last))), [None, Some(BarCause::Blocked)]);
}

#[test]
fn a_block_that_cannot_be_written_down_is_not_made() {
    let state = tempfile::tempdir().unwrap();
    let file = state.path().join("no directory");
    let store = SessionStore::create(8).unwrap().remembering(UsageMap::create(8).unwrap(), &file).unwrap();
    let service = on(&Arc::new(store), Zone::FIRST, "guest", "");
    std::fs::write(&file, "").unwrap();
    service.login(mac(1)).unwrap();
    assert!(matches!(service.block(mac(1), time("forever"), None), Err(SessionError::State(_))));
    assert!(service.show(mac(1)).is_ok(), "nothing was changed");
    assert_eq!(cause(&service, mac(1)), None);
}
