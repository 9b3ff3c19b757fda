//! The `portalctl` program against a real control server.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
    time::Instant,
};

use futures::future::BoxFuture;
use portal_userspace::{
    control::{Access, Control, ControlSocket, Group, api::GateInfo},
    datapath::counters::CounterReader,
    net::{Mac, Neighbour, Neighbours, NetError},
    session::SessionService,
};
use tokio::{runtime::Runtime, sync::watch};

struct One;

impl Neighbours for One {
    fn mac_of(&self, _: SocketAddr) -> BoxFuture<'_, Result<Option<Mac>, NetError>> {
        Box::pin(async { Ok(None) })
    }

    fn all(&self) -> BoxFuture<'_, Result<Vec<Neighbour>, NetError>> {
        let mac = PHONE.parse().unwrap();
        let of = |address: &str| Neighbour { mac, address: address.parse().unwrap() };
        let all = vec![of("192.0.2.7"), of("2001:db8:1234:5678:9abc:def0:1234:5678")];
        Box::pin(async move { Ok(all) })
    }
}

const PHONE: &str = "02:00:5e:10:00:01";

struct Daemon {
    directory: tempfile::TempDir,
    _stop: watch::Sender<bool>,
    _runtime: Runtime,
}

fn daemon(capacity: u32, group: Option<&Group>) -> Daemon {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
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
        sessions: Arc::new(SessionService::standalone(capacity, "8h".parse().unwrap()).expect("a BPF map needs root")),
        counters: Arc::new(CounterReader::create().unwrap()),
        responder: Arc::new(|| vec![("requests", 5)]),
        neighbours: Arc::new(One),
        access: Access::new(group.cloned()),
        started: Instant::now(),
    };
    let (stop, stopping) = watch::channel(false);
    let path = directory.path().join("portald.sock");
    runtime.block_on(async {
        let socket = ControlSocket::bind(&path, group).unwrap();
        drop(tokio::spawn(control.serve(socket, stopping)));
    });
    Daemon { directory, _stop: stop, _runtime: runtime }
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
    let mut command = Command::new(env!("CARGO_BIN_EXE_portalctl"));
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
        let mut command = Command::new(&program);
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
