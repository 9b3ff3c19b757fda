//! The `portalctl` program against a real control server.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    os::unix::fs::PermissionsExt as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use portal_common::{
    Reason,
    tables::{ClientKey, Zone},
};
use portal_userspace::{
    config::Config,
    control::{
        Access, Control, ControlSocket, Group, Guarded, Zones,
        api::{GateInfo, Lost, ZoneView},
    },
    daemon::zones::ZoneError,
    datapath::counters::CounterReader,
    garden::{self, table::Garden},
    net::{Mac, Neighbour, Neighbours, NetError},
    observe::{
        capture::{CapturedTable, Captures},
        events::EventLine,
        explain::{Departing, ExplainProgram, Explainer, Ran},
        hub::EventHub,
        pcapng::CapturedFrame,
    },
    session::{SessionService, SessionStore},
};
use tokio::{runtime::Runtime, sync::watch};

struct One;

impl Neighbours for One {
    fn all(&self) -> BoxFuture<'_, Result<Vec<Neighbour>, NetError>> {
        let mac = PHONE.parse().unwrap();
        let of = |address: &str| Neighbour { mac, address: address.parse().unwrap() };
        let all = vec![of("192.0.2.7"), of("2001:db8:1234:5678:9abc:def0:1234:5678")];
        Box::pin(async move { Ok(all) })
    }
}

const PHONE: &str = "02:00:5e:10:00:01";

struct Guests(Arc<SessionStore>);

impl Zones for Guests {
    fn guarded(&self) -> Vec<Guarded> {
        let config = Config::parse("[guest]\ninterface = \"eth1\"\n", Path::new("test.toml")).unwrap();
        let zone = &config.zones()[0];
        vec![Guarded {
            name: zone.guest.name.to_string(),
            number: Zone::FIRST,
            interface: "eth1".into(),
            interface_index: 3,
            sessions: Arc::new(SessionService::new(Arc::clone(&self.0), Zone::FIRST, zone)),
            neighbours: Arc::new(One),
        }]
    }

    fn list(&self) -> BoxFuture<'_, Vec<ZoneView>> {
        let view = serde_json::json!({
            "name": "guest", "attached": true, "number": 0, "interface": "eth1", "interface_index": 3, "xdp_mode": "native",
            "gateway_addresses": ["192.0.2.1", "2001:db8::1"], "gateway_mac": "02:00:00:00:00:01", "shadow": false, "https": "reset",
            "anti_spoofing": "learn", "url_v4": "http://192.0.2.1:8080/", "listeners": []
        });
        Box::pin(async { vec![serde_json::from_value(view).unwrap()] })
    }

    fn attach<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<ZoneView, ZoneError>> {
        Box::pin(async { Err(ZoneError::Unknown { name: name.to_owned(), known: vec!["guest".into()] }) })
    }

    fn detach<'a>(&'a self, name: &'a str, may_open: bool) -> BoxFuture<'a, Result<(), ZoneError>> {
        let refused = ZoneError::WouldOpen { name: name.to_owned(), interface: "eth1".into() };
        Box::pin(async move { if may_open { Ok(()) } else { Err(refused) } })
    }
}

/// Sends every frame back, with its addresses turned round.
struct Answers;

impl ExplainProgram for Answers {
    fn run_out(&self, _: &[u8], departing: Departing) -> anyhow::Result<u32> {
        // The gateway's own passes.
        let (action, reason) = if departing.forwarded { (2, Reason::ToStranger) } else { (0, Reason::PortalService) };
        Ok(action | (reason as u32) << 8)
    }

    fn run(&self, frame: &[u8], _: u32) -> anyhow::Result<Ran> {
        let (to, rest) = frame.split_at(6);
        let (from, rest) = rest.split_at(6);
        Ok(Ran { value: 3 | (Reason::TcpRefused as u32) << 8, frame: [from, to, rest].concat() })
    }
}

/// The kernel's tables, which take everything.
struct Free;

impl CapturedTable for Free {
    fn insert(&mut self, _: ClientKey) -> anyhow::Result<()> {
        Ok(())
    }

    fn remove(&mut self, _: ClientKey) -> anyhow::Result<()> {
        Ok(())
    }
}

impl garden::table::PrefixSink for Free {
    fn insert_prefix(&mut self, _: Zone, _: garden::rules::GardenRow) -> anyhow::Result<()> {
        Ok(())
    }

    fn remove_prefix(&mut self, _: Zone, _: garden::rules::GardenRow) -> anyhow::Result<()> {
        Ok(())
    }
}

impl garden::learned::LearnedSink for Free {
    fn insert(&mut self, _: garden::learned::LearnedKey, _: u64) -> anyhow::Result<()> {
        Ok(())
    }

    fn remove(&mut self, _: garden::learned::LearnedKey) -> anyhow::Result<()> {
        Ok(())
    }
}

struct Daemon {
    directory: tempfile::TempDir,
    events: EventHub,
    captures: Arc<Captures>,
    _stop: watch::Sender<bool>,
    _runtime: Runtime,
}

fn daemon(capacity: u32, group: Option<&Group>) -> Daemon {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(SessionStore::create(capacity).expect("a BPF map needs root"));
    let (events, captures) = (EventHub::default(), Captures::new(Free));
    let mut garden = Garden::new(garden::table::Policy::default(), Free);
    let zone = garden::table::ZoneGarden { name: "guest".into(), ..garden::table::ZoneGarden::default() };
    garden.set_zone(Zone::FIRST, zone).unwrap();
    let control = Control {
        gate: GateInfo {
            interface: "eth1".into(),
            interface_index: 3,
            xdp_mode: "native".into(),
            queues: 1,
            program_id: 77,
            url_v4: "http://192.0.2.1:8080/".into(),
            url_v6: "http://[2001:db8::1]:8080/".into(),
            listeners: vec!["192.0.2.1:8080".parse().unwrap()],
        },
        sessions: Arc::clone(&store),
        counters: Arc::new(CounterReader::create().unwrap()),
        responder: Arc::new(|| vec![("requests", 5)]),
        access: Access::new(group.cloned()),
        started: Instant::now(),
        zones: Arc::new(Guests(store)),
        garden: Some(Arc::new(Mutex::new(garden))),
        explainer: Arc::new(Explainer::new(Answers, Box::new(|_, _| None))),
        events: events.clone(),
        captures: Arc::clone(&captures),
        lost: Arc::new(|| Ok(Lost::default())),
    };
    let (stop, stopping) = watch::channel(false);
    let path = directory.path().join("portald.sock");
    runtime.block_on(async {
        let socket = ControlSocket::bind(&path, group).unwrap();
        drop(tokio::spawn(control.serve(socket, stopping)));
    });
    Daemon { directory, events, captures, _stop: stop, _runtime: runtime }
}

impl Daemon {
    fn socket(&self) -> PathBuf {
        self.directory.path().join("portald.sock")
    }

    fn run(&self, words: &str) -> Output {
        run(&self.socket(), words)
    }

    /// Runs it, expects success, and gives what it printed.
    fn ok(&self, words: &str) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words}: {output:?}");
        assert!(output.stderr.is_empty(), "{words}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn portalctl(socket: &Path) -> Command {
    let mut command = portal_tools::command(env!("CARGO_BIN_EXE_portalctl"));
    command.arg("--socket").arg(socket).env_remove("PORTAL_SOCKET");
    command
}

fn run(socket: &Path, words: &str) -> Output {
    portalctl(socket).args(words.split_whitespace()).output().unwrap()
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn an_operator_lets_a_client_in_sees_it_and_logs_it_out() {
    let daemon = daemon(8, None);
    assert_eq!(daemon.ok("clients list"), "No client is logged in.\n");
    let text = daemon.ok("allow 0200.5e10.0001 --for 2h");
    assert!(text.starts_with(&format!("{PHONE} is let through for 2h, until ")), "{text}");
    let text = daemon.ok("clients list");
    assert!(text.starts_with("CLIENT") && text.contains(PHONE) && text.contains("192.0.2.7"), "{text}");
    assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    assert!(text.contains("2001:db8:1234:5678:9abc:def0:1234:5678"), "an address is not broken: {text}");
    let text = daemon.ok(&format!("clients show {PHONE}"));
    assert!(text.contains("since") && text.contains("until"), "{text}");
    let text = daemon.ok("status");
    for part in ["eth1", "native", "1 receive queue", "1 online, room for 8", "http://192.0.2.1:8080/", "5 requests"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    // This daemon has counters that no gate counts in. JSON has every reason, the table those that happened.
    assert_eq!(daemon.ok("drops"), "No packet was counted.\n");
    let names = |text: &str| -> Vec<serde_json::Value> {
        json(text)["reasons"].as_array().unwrap().iter().map(|reason| reason["name"].clone()).collect()
    };
    assert!(names(&daemon.ok("drops --json")).contains(&"config_missing".into()));
    assert!(!names(&daemon.ok("drops --json")).contains(&"authorized".into()));
    assert!(names(&daemon.ok("drops --all --json")).contains(&"authorized".into()));
    assert_eq!(daemon.ok(&format!("revoke {PHONE}")), format!("{PHONE} is logged out.\n"));
    let text = daemon.ok(&format!("allow {PHONE} --for forever"));
    assert_eq!(text, format!("{PHONE} is let through until it is revoked or the gateway restarts.\n"));
    for words in ["clients list", "clients show 02:00:5e:10:00:01"] {
        assert!(daemon.ok(words).contains(" forever"), "{words}");
    }
    assert_eq!(json(&daemon.ok("clients list --json"))["clients"][0]["remaining_seconds"], serde_json::Value::Null);
}

#[test]
fn an_operator_keeps_a_client_out_and_lets_it_in_again() {
    let daemon = daemon(8, None);
    assert_eq!(daemon.ok("blocks"), "Nobody is kept out.\n");
    daemon.ok(&format!("allow {PHONE}"));
    let text = daemon.ok(&format!("block {PHONE} --for 2h --reason noise"));
    assert!(
        text.starts_with(&format!("{PHONE} is blocked for 2h, until ")) && text.contains("session has ended"),
        "{text}"
    );
    let text = daemon.ok("blocks");
    for part in ["CLIENT", PHONE, "blocked", "1h 59m", "Z", "noise"] {
        assert!(text.contains(part) || part == "1h 59m" && text.contains("2h"), "{part}: {text}");
    }
    assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    let shown = daemon.run(&format!("clients show {PHONE}"));
    let said = String::from_utf8(shown.stderr).unwrap();
    assert!(shown.status.code() == Some(1) && said.contains("kept out of `guest` until 20"), "{said}");
    assert_eq!(daemon.ok(&format!("unblock {PHONE}")), format!("{PHONE} may log in again.\n"));
    assert_eq!(daemon.ok(&format!("block {PHONE}")), format!("{PHONE} is blocked until it is unblocked.\n"));
    let bar = json(&daemon.ok("blocks --json"))["blocks"][0].clone();
    assert_eq!(
        (&bar["cause"], &bar["until"], &bar["zone"]),
        (&"blocked".into(), &serde_json::Value::Null, &"guest".into())
    );
    let text = daemon.ok(&format!("allow {PHONE}"));
    assert!(text.contains("It was kept out (blocked), and is no longer."), "{text}");
    let text = daemon.ok(&format!("revoke {PHONE} --bar 2h"));
    assert!(text.starts_with(&format!("{PHONE} is logged out, and kept out for 2h, until ")), "{text}");
    assert_eq!(json(&daemon.ok(&format!("unblock {PHONE} --json")))["block"]["cause"], "revoked");
    daemon.ok(&format!("allow {PHONE}"));
    assert_eq!(json(&daemon.ok(&format!("revoke {PHONE} --bar none --json")))["bar"], serde_json::Value::Null);
    let blocked = json(&daemon.ok(&format!("block {PHONE} --for forever --json")));
    assert_eq!((&blocked["ended_session"], &blocked["block"]["mac"]), (&false.into(), &PHONE.into()));
    let text = daemon.ok(&format!("allow {PHONE} --quota 2GB --quota-per day"));
    assert!(text.contains("let through"), "{text}");
    let text = daemon.ok(&format!("clients show {PHONE}"));
    assert!(text.contains("quota per") && text.contains("day, which ends in 2"), "{text}");
    assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    for (words, code) in [
        ("unblock 02:00:5e:10:00:09", 1),
        ("block 02:00:5e:10:00:09 --zone pool", 1),
        ("block", 2),
        ("block 02:00:5e:10:00:09 --for soon", 2),
        ("block 02:00:5e:10:00:09 --for 0s", 2),
        ("revoke 02:00:5e:10:00:09 --bar soon", 2),
        ("allow 02:00:5e:10:00:09 --quota-per day", 2),
        ("allow 02:00:5e:10:00:09 --quota 2GB --quota-per month", 2),
    ] {
        assert_eq!(daemon.run(words).status.code(), Some(code), "{words}");
    }
    assert!(daemon.ok("completions bash").contains("unblock"));
}

#[test]
fn json_is_printed_on_request_for_every_answer() {
    let daemon = daemon(8, None);
    assert_eq!(json(&daemon.ok(&format!("allow {PHONE} --json")))["remaining_seconds"], 8 * 3600);
    assert_eq!(json(&daemon.ok("--json clients list"))["clients"][0]["mac"], PHONE);
    assert_eq!(json(&daemon.ok(&format!("clients show {PHONE} --json")))["mac"], PHONE);
    assert_eq!(json(&daemon.ok("status --json"))["clients"]["online"], 1);
    assert_eq!(json(&daemon.ok("drops --json"))["reasons"][0]["outcome"], "dropped");
    assert_eq!(json(&daemon.ok(&format!("revoke {PHONE} --json")))["mac"], PHONE);
    let output = daemon.run(&format!("revoke {PHONE} --json"));
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert_eq!(json(&String::from_utf8(output.stderr).unwrap())["error"]["code"], "no_such_client");
}

#[test]
fn what_can_go_wrong_is_said_with_its_remedy_and_exit_code() {
    let daemon = daemon(1, None);
    daemon.ok(&format!("allow {PHONE}"));
    let cases = [
        ("revoke 02:00:5e:10:00:02", 1, vec!["02:00:5e:10:00:02 has no session", "portalctl clients list"]),
        ("clients show 02:00:5e:10:00:02", 1, vec!["has no session"]),
        ("allow 02:00:5e:10:00:02", 1, vec!["all 1 places", "limits.clients"]),
        ("allow nonsense", 2, vec!["not a MAC address", "02-00-5e-10-00-01"]),
        ("allow ff:ff:ff:ff:ff:ff", 2, vec!["group address"]),
        ("revoke 00:00:00:00:00:00", 2, vec!["zero address"]),
        ("allow 02:00:5e:10:00:02 --for soon", 2, vec!["not a duration", "8h"]),
        ("allow 02:00:5e:10:00:02 --for 0s", 2, vec!["from 1s"]),
        ("allow 02:00:5e:10:00:02 --for 1500ms", 2, vec!["whole seconds"]),
        ("man nonsense", 2, vec!["no command `nonsense`", "allow, revoke"]),
        ("man allow nonsense", 2, vec!["no commands of its own"]),
        ("man clients nonsense", 2, vec!["list, show"]),
        ("alow", 2, vec!["allow"]),
        ("clients", 2, vec!["list"]),
        ("", 2, vec!["Usage"]),
    ];
    for (words, code, parts) in cases {
        let output = daemon.run(words);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{words}: {text}");
        assert!(output.stdout.is_empty(), "{words}");
        for part in parts {
            assert!(text.contains(part), "{words}: no «{part}» in {text}");
        }
    }
}

#[test]
fn without_a_daemon_it_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("none.sock");
    let output = run(&socket, "status");
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("portald is not running") && text.contains(&*socket.to_string_lossy()), "{text}");
}

#[test]
fn without_permission_it_names_the_group_that_has_it() {
    // Debian's group 4.
    let group = Group { gid: 4, name: "adm".into() };
    let daemon = daemon(8, Some(&group));
    // The program and the socket must be within the user's reach: a copy beside it.
    std::fs::set_permissions(daemon.directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = daemon.directory.path().join("portalctl");
    std::fs::copy(env!("CARGO_BIN_EXE_portalctl"), &program).unwrap();
    let run_as = |uid: u32, gid: u32| {
        let mut command = portal_tools::command(&program);
        command.arg("--socket").arg(daemon.socket()).arg("status").uid(uid).gid(gid);
        command.output().unwrap()
    };
    let output = run_as(64_000, 64_000);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("no permission") && text.contains("group `adm`"), "{text}");
    let output = run_as(64_000, 4);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let daemon = daemon(8, None);
    let mut child = portalctl(&daemon.socket())
        .args(["drops", "--all"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn completions_and_manual_need_no_daemon() {
    let nowhere = Path::new("/nonexistent/portald.sock");
    for words in [
        "completions bash",
        "completions zsh",
        "completions fish",
        "man",
        "man allow",
        "man clients show",
        "--help",
        "--version",
    ] {
        let output = run(nowhere, words);
        assert!(output.status.success() && output.stdout.len() > 10, "{words}: {output:?}");
    }
}

#[test]
fn an_operator_asks_the_gate_about_frames() {
    let daemon = daemon(8, None);
    let text = daemon.ok(&format!("explain --mac {PHONE} --dport 443"));
    let expected = [
        "frame     02:00:5e:10:00:01 > 02:00:00:00:00:01, 60 bytes",
        "          IPv4 192.0.2.254 > 198.51.100.80, TTL 64",
        "          TCP 40000 > 443, SYN, seq 1000, window 65535, MSS 1460",
        "verdict   answered",
        "reason    tcp_refused",
        "rule      TCP to anything not permitted before login: reset (RFC 9293 section 3.5.2).",
        "reply     02:00:00:00:00:01 > 02:00:5e:10:00:01, 60 bytes",
    ];
    assert_eq!(text.lines().take(expected.len()).collect::<Vec<_>>(), expected, "{text}");
    let text = daemon.ok("explain --json 020000000001 02005e100001 88b5");
    assert_eq!(
        text,
        format!(
            "{{\"verdict\":\"answered\",\"reason\":\"tcp_refused\",\"rule\":\"{}\",\"reply_hex\":\"02005e10000102000000000188b5\"}}\n",
            Reason::TcpRefused.text()
        )
    );
    // A capture file, by name and through standard input; and what the build makes of flags is read back as hexadecimal.
    let file = daemon.directory.path().join("dump.txt");
    std::fs::write(&file, "00".repeat(60) + "\n\n" + &"01".repeat(14)).unwrap();
    let text = daemon.ok(&format!("explain --file {}", file.display()));
    assert!(text.contains("frame 1   00:00") && text.contains("\n\nframe 2   01:01"), "{text}");
    let mut child = portalctl(&daemon.socket())
        .args(["explain", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().lines().count(), 2);
}

#[test]
fn what_is_no_frame_is_refused_with_the_cause() {
    let daemon = daemon(8, None);
    let cases = [
        ("explain", 2, "required"),
        ("explain 0200 zz", 2, "`zz` is not hexadecimal"),
        ("explain 00112233445566778899aabbcc", 2, "frame 1 has 13 bytes"),
        ("explain --dport 80 0011", 2, "--mac"),
        ("explain --mac 02:00:5e:10:00:01 --proto icmp --src 2001:db8::1", 2, "--proto icmpv6"),
        ("explain --mac 02:00:5e:10:00:01 --flags sin", 2, "known: fin, syn"),
        ("explain --file /nonexistent.pcap", 1, "cannot open /nonexistent.pcap"),
        ("explain --file /dev/null", 1, "no frame"),
        ("explain --mac 02:00:5e:10:00:01 --zone staff", 1, "no zone `staff`"),
        ("drops --count 1", 2, "--watch"),
        ("drops --zone staff", 1, "no zone `staff`"),
        ("capture --client nonsense", 2, "not a MAC address"),
        ("capture --client 02:00:5e:10:00:01 --write /nonexistent/file", 1, "cannot write /nonexistent/file"),
        ("zones detach guest", 1, "--open"),
        ("zones attach staff", 1, "[[zone]]"),
        ("garden add not_a_name! --port 443/tcp", 2, "not_a_name!"),
        ("garden remove pay.example", 1, "no rule for pay.example"),
    ];
    for (words, code, part) in cases {
        let output = daemon.run(words);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{words}: {text}");
        assert!(text.contains(part), "{words}: no «{part}» in {text}");
    }
}

#[test]
fn an_operator_watches_events_and_captures_frames() {
    let daemon = daemon(8, None);
    let spawn = |words: &str| {
        let mut command = portalctl(&daemon.socket());
        command.args(words.split_whitespace()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let lines = |child: std::process::Child| String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let event = || EventLine { client: Some(PHONE.parse().unwrap()), ..EventLine::now("login") };
    // They begin to watch when they do: tell until they have heard enough.
    for (words, part) in [("monitor --count 2 --json", "\"event\":\"login\""), ("monitor --count 2", "  login ")] {
        let mut child = spawn(words);
        for _ in 0..500 {
            daemon.events.tell(event());
            if child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let text = lines(child);
        assert_eq!(text.lines().count(), 2, "{words}: {text}");
        assert!(text.lines().all(|line| line.contains(part) && line.contains(PHONE)), "{words}: {text}");
    }
    let file = daemon.directory.path().join("phone.pcapng");
    let mut child = spawn(&format!("capture --client {PHONE} --count 3 --write {}", file.display()));
    let frame = CapturedFrame {
        at: Duration::from_secs(1),
        ifindex: 3,
        bytes: vec![2; 60],
        whole_len: 60,
        tag: None,
        outbound: false,
        comment: "dropped: fragment: why".into(),
    };
    let phone = ClientKey::new(Zone::FIRST, PHONE.parse::<Mac>().unwrap().bytes());
    for _ in 0..500 {
        daemon.captures.deliver(phone, &frame);
        if child.try_wait().unwrap().is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(child.wait().unwrap().success());
    let output = portal_tools::command("tshark")
        .args(["-T", "fields", "-e", "frame.comment", "-e", "frame.interface_name", "-r"])
        .arg(&file)
        .output()
        .expect("tshark is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.lines().collect::<Vec<_>>(), ["dropped: fragment: why\teth1"; 3], "{output:?}");
    assert_eq!(daemon.ok("drops --watch --count 1"), "", "nothing is counted here");
}

#[test]
fn ctrl_c_ends_a_capture_with_a_whole_file() {
    let daemon = daemon(8, None);
    let file = daemon.directory.path().join("none.pcapng");
    let mut child = portalctl(&daemon.socket())
        .args(["capture", "--client", PHONE, "--write"])
        .arg(&file)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The file's beginning is there at once.
    for _ in 0..500 {
        if std::fs::metadata(&file).is_ok_and(|m| m.len() > 0) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let id = child.id().to_string();
    assert!(portal_tools::command("kill").args(["-INT", &id]).status().unwrap().success());
    assert!(child.wait().unwrap().success());
    let output = portal_tools::command("capinfos").arg(&file).output().expect("capinfos is installed");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn zones_and_garden_are_shown_and_changed() {
    let daemon = daemon(8, None);
    let text = daemon.ok("zones list");
    assert!(text.starts_with("ZONE") && text.contains("guarded") && text.lines().all(|l| l.len() <= 80), "{text}");
    assert_eq!(json(&daemon.ok("zones list --json"))["zones"][0]["gateway_mac"], "02:00:00:00:00:01");
    assert_eq!(daemon.ok("zones detach guest --open"), "guest is no longer guarded.\n");
    assert!(daemon.ok("garden list").contains("nothing beside the login page"));
    let text = daemon.ok("garden add *.pay.example --port 443/tcp --port 8443/tcp");
    assert!(text.contains("*.pay.example on 443/tcp, 8443/tcp"), "{text}");
    daemon.ok("garden add 203.0.113.0/24 --zone guest");
    let list = json(&daemon.ok("garden list --json"));
    assert_eq!(list["rules"][1]["ports"], serde_json::json!(["80/tcp", "443/tcp"]));
    assert!(daemon.ok("garden list").contains("203.0.113.0/24"));
    assert!(daemon.ok("garden remove *.pay.example").contains("closed"));
}

#[test]
fn a_client_is_let_through_with_limits_and_shown_with_what_it_has_used() {
    let daemon = daemon(8, None);
    daemon.ok(&format!("allow {PHONE} --up 10mbit --down 20mbit --quota 2GB --idle 30m --for 1h"));
    let text = daemon.ok(&format!("clients show {PHONE}"));
    for part in [
        "rate up       10mbit",
        "rate down     20mbit",
        "2.0 GB, 2.0 GB left",
        "idle timeout  30m",
        "0 B in 0 packets",
        "never",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    daemon.ok(&format!("allow {PHONE} --up none"));
    let view = json(&daemon.ok(&format!("clients show {PHONE} --json")));
    assert_eq!(view["limits"]["rate_up_bits_per_second"], serde_json::Value::Null);
    assert_eq!(view["limits"]["quota_bytes"], 2_000_000_000_u64);
    for (words, part) in [("--up fast", "not a rate"), ("--quota 0B", "bytes is from"), ("--idle never", "idle")] {
        let output = daemon.run(&format!("allow {PHONE} {words}"));
        assert_eq!(output.status.code(), Some(2), "{words}");
        assert!(String::from_utf8(output.stderr).unwrap().contains(part), "{words}");
    }
}
