//! Over a real Unix socket, with the kernel's maps.

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use portal_common::{
    Reason,
    tables::{ClientKey, Zone},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::watch,
};

use super::{
    api::{AllowRequest, BarCause, BlockRequest, GateInfo},
    *,
};
use crate::{
    config::{Config, GroupName},
    daemon::zones::ZoneError,
    datapath::counters::CounterReader,
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

fn seconds(n: u64) -> AllowRequest {
    AllowRequest { for_seconds: Some(n), ..AllowRequest::default() }
}

/// Every station has two addresses.
struct Two;

const ADDRESSES: [&str; 2] = ["192.0.2.7", "2001:db8::7"];

fn mac(last: u8) -> Mac {
    Mac::new([0x02, 0, 0x5e, 0x10, 0, last]).unwrap()
}

impl Neighbours for Two {
    fn all(&self) -> BoxFuture<'_, Result<Vec<Neighbour>, NetError>> {
        let of = |m: u8| ADDRESSES.map(|a| Neighbour { mac: mac(m), address: a.parse().unwrap() });
        Box::pin(async move { Ok([of(1), of(9)].concat()) })
    }
}

/// Guest networks with the sessions in a store of their own.
fn zones(store: &Arc<SessionStore>) -> [Guarded; 2] {
    let text = "[guest]\ninterface = \"eth1\"\nname = \"guests\"\n\
                [[zone]]\ninterface = \"eth2\"\nname = \"staff\"\n";
    let config = Config::parse(text, Path::new("test.toml")).unwrap();
    let zone = |number: u16, neighbours: Arc<dyn Neighbours>| {
        let zone = &config.zones()[usize::from(number)];
        Guarded {
            name: zone.guest.name.to_string(),
            number: Zone::new(number),
            interface: zone.guest.interface.to_string(),
            interface_index: 3 + u32::from(number),
            sessions: Arc::new(SessionService::new(Arc::clone(store), Zone::new(number), zone)),
            neighbours,
        }
    };
    [zone(0, Arc::new(Two)), zone(1, Arc::new(Nobody))]
}

struct Nobody;

impl Neighbours for Nobody {
    fn all(&self) -> BoxFuture<'_, Result<Vec<Neighbour>, NetError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

struct Networks(Vec<Guarded>);

impl Zones for Networks {
    fn guarded(&self) -> Vec<Guarded> {
        self.0.clone()
    }

    fn list(&self) -> BoxFuture<'_, Vec<api::ZoneView>> {
        let view = |zone: &Guarded| {
            serde_json::from_value(serde_json::json!({
                "name": zone.name, "attached": true, "number": zone.number.number(), "interface": zone.interface,
                "interface_index": zone.interface_index, "gateway_addresses": ["192.0.2.1"], "gateway_mac": mac(254),
                "xdp_mode": "native", "shadow": false, "https": "reset", "anti_spoofing": "learn", "listeners": []
            }))
            .unwrap()
        };
        Box::pin(async move { self.0.iter().map(view).collect() })
    }

    fn attach<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<api::ZoneView, ZoneError>> {
        Box::pin(async { Err(ZoneError::Attached(name.to_owned())) })
    }

    fn detach<'a>(&'a self, name: &'a str, may_open: bool) -> BoxFuture<'a, Result<(), ZoneError>> {
        let refused = ZoneError::WouldOpen { name: name.to_owned(), interface: "eth1".into() };
        Box::pin(async move { if may_open { Ok(()) } else { Err(refused) } })
    }
}

/// A gate that resets everything, with the frame turned round, on interface 3; and drops everything elsewhere.
struct Resets;

impl ExplainProgram for Resets {
    fn run_out(&self, _: &[u8], _: Departing) -> anyhow::Result<u32> {
        Ok((Reason::ToStranger as u32) << 8 | 2)
    }

    fn run(&self, frame: &[u8], ifindex: u32) -> anyhow::Result<Ran> {
        let value =
            if ifindex == 3 { 3 | (Reason::TcpRefused as u32) << 8 } else { 1 | (Reason::Fragment as u32) << 8 };
        Ok(Ran { value, frame: frame.iter().rev().copied().collect() })
    }
}

/// Whose frames are captured.
#[derive(Clone, Default)]
struct Kernel(Arc<Mutex<BTreeSet<ClientKey>>>);

impl CapturedTable for Kernel {
    fn insert(&mut self, client: ClientKey) -> anyhow::Result<()> {
        self.0.lock().unwrap().insert(client);
        Ok(())
    }

    fn remove(&mut self, client: ClientKey) -> anyhow::Result<()> {
        self.0.lock().unwrap().remove(&client);
        Ok(())
    }
}

pub(crate) struct Daemon {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) sessions: Arc<SessionService>,
    events: EventHub,
    kernel: Kernel,
    captures: Arc<Captures>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

/// A control server for `capacity` clients of one zone.
pub(crate) fn daemon(capacity: u32, access: Access) -> Daemon {
    daemon_of(1, capacity, access)
}

/// A control server for `capacity` clients of so many zones.
fn daemon_of(count: usize, capacity: u32, access: Access) -> Daemon {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(SessionStore::create(capacity).expect("a BPF map needs root"));
    let zones = zones(&store)[..count].to_vec();
    let sessions = Arc::clone(&zones[0].sessions);
    let events = EventHub::default();
    let kernel = Kernel::default();
    let captures = Captures::new(kernel.clone());
    let control = Control {
        gate: GateInfo {
            interface: "eth1".into(),
            interface_index: 3,
            xdp_mode: "native".into(),
            queues: 2,
            program_id: 77,
            url_v4: "http://192.0.2.1:8080/".into(),
            url_v6: "http://[2001:db8::1]:8080/".into(),
            listeners: vec!["192.0.2.1:8080".parse().unwrap(), "[2001:db8::1]:8080".parse().unwrap()],
        },
        sessions: store,
        counters: Arc::new(CounterReader::create().unwrap()),
        responder: Arc::new(|| vec![("requests", 5), ("answers_511", 4)]),
        access,
        started: Instant::now(),
        zones: Arc::new(Networks(zones)),
        garden: None,
        explainer: Arc::new(Explainer::new(Resets, Box::new(|_, _| None))),
        events: events.clone(),
        captures: Arc::clone(&captures),
        lost: Arc::new(|| Ok(api::Lost { events: 3, ..api::Lost::default() })),
    };
    let socket = ControlSocket::bind(&directory.path().join("portald.sock"), None).unwrap();
    let (stop, stopping) = watch::channel(false);
    let task = tokio::spawn(control.serve(socket, stopping));
    Daemon { directory, sessions, events, kernel, captures, stop, task }
}

impl Daemon {
    pub(crate) fn socket(&self) -> std::path::PathBuf {
        self.directory.path().join("portald.sock")
    }

    /// Sends these bytes and reads the whole answer.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.socket()).await.unwrap();
        // The answer may come, and the connection end, before all is sent.
        let _: io::Result<()> = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }
}

#[tokio::test]
async fn the_client_and_the_server_agree() {
    let daemon = daemon(8, Access::new(None));
    let client = Client::new(daemon.socket());
    let status = client.status().await.unwrap();
    assert_eq!((status.gate.program_id, status.clients.online, status.clients.capacity), (77, 0, 8));
    assert_eq!(status.pid, std::process::id());
    assert_eq!(status.responder["requests"], 5);

    let view = client.allow(mac(1), None, seconds(7200)).await.unwrap();
    assert_eq!(view.remaining_seconds, Some(7200));
    assert_eq!(view.addresses, ADDRESSES.map(|a| a.parse::<IpAddr>().unwrap()));
    assert!(daemon.sessions.show(mac(1)).is_ok(), "the kernel has it");
    client.allow(mac(0), None, AllowRequest::default()).await.unwrap();
    let list = client.clients(None).await.unwrap().clients;
    assert_eq!(list.iter().map(|c| (c.mac, c.addresses.len())).collect::<Vec<_>>(), [(mac(0), 0), (mac(1), 2)]);
    assert_eq!(client.client(mac(1), None).await.unwrap().mac, mac(1));
    assert_eq!(client.status().await.unwrap().clients.online, 2);

    assert_eq!(client.revoke(mac(1), None).await.unwrap().mac, mac(1));
    assert!(daemon.sessions.show(mac(1)).is_err());
    for error in [client.revoke(mac(1), None).await.unwrap_err(), client.client(mac(1), None).await.unwrap_err()] {
        assert_eq!(error.info().code, "no_such_client");
    }
    let dropping = Reason::ALL.iter().filter(|r| r.outcome().name() == "dropped").count();
    assert_eq!(client.drops(false, None).await.unwrap().reasons.len(), dropping);
    assert_eq!(client.drops(true, None).await.unwrap().reasons.len(), Reason::ALL.len());
}

#[tokio::test]
async fn a_full_table_and_bad_lengths_are_refused_by_code() {
    let daemon = daemon(1, Access::new(None));
    let client = Client::new(daemon.socket());
    assert_eq!(client.allow(mac(1), None, seconds(0)).await.unwrap_err().info().code, "bad_length");
    assert_eq!(client.allow(mac(1), None, seconds(u64::MAX)).await.unwrap_err().info().code, "bad_length");
    client.allow(mac(1), None, AllowRequest::default()).await.unwrap();
    let error = client.allow(mac(2), None, AllowRequest::default()).await.unwrap_err().info();
    assert_eq!(error.code, "table_full");
    assert!(error.remedy.contains("limits.clients"));
}

#[tokio::test]
async fn what_curl_can_send_gets_a_status_a_code_and_a_remedy() {
    let daemon = daemon(8, Access::new(None));
    let big = format!(
        "PUT /v1/clients/02:00:5e:10:00:01 HTTP/1.1\r\nHost: a\r\nContent-Length: 10485760\r\n\r\n{}",
        "x".repeat(1 << 20)
    );
    let cases: &[(&str, &str, &str, &str)] = &[
        ("no such path", "GET /v2/status HTTP/1.1\r\nHost: a\r\n\r\n", "404", "no_such_path"),
        (
            "another method",
            "POST /v1/status HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            "405",
            "method_not_allowed",
        ),
        ("no MAC", "GET /v1/clients/x HTTP/1.1\r\nHost: a\r\n\r\n", "400", "bad_mac"),
        ("a group's MAC", "DELETE /v1/clients/01:00:5e:00:00:01 HTTP/1.1\r\nHost: a\r\n\r\n", "400", "bad_mac"),
        ("no such client", "DELETE /v1/clients/02:00:5e:10:00:08 HTTP/1.1\r\nHost: a\r\n\r\n", "404", "no_such_client"),
        (
            "an unknown field",
            "PUT /v1/clients/02:00:5e:10:00:01 HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{\"for\":1}",
            "400",
            "bad_request",
        ),
        (
            "for an hour and forever",
            "PUT /v1/clients/02:00:5e:10:00:01 HTTP/1.1\r\nHost: a\r\nContent-Length: 37\r\n\r\n{\"for_seconds\":3600,\"forever\":true   }",
            "400",
            "bad_request",
        ),
        ("a bad query", "GET /v1/drops?all=perhaps HTTP/1.1\r\nHost: a\r\n\r\n", "400", "bad_request"),
        ("10 MB", &big, "413", "bad_request"),
    ];
    for (sentence, request, status, code) in cases {
        let answer = daemon.raw(request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{sentence}: {answer}");
        let body: api::ErrorBody = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).expect(sentence);
        assert_eq!(body.error.code, *code, "{sentence}");
        assert!(!body.error.message.is_empty() && !body.error.remedy.is_empty(), "{sentence}");
    }
    assert!(daemon.raw(b"\x16\x03\x01\0\0").await.starts_with("HTTP/1.1 400 "));
    let forever =
        "PUT /v1/clients/02:00:5e:10:00:01 HTTP/1.1\r\nHost: a\r\nContent-Length: 16\r\n\r\n{\"forever\":true}";
    let answer = daemon.raw(forever.as_bytes()).await;
    assert!(answer.contains("\"expires_at\":null") && answer.contains("\"remaining_seconds\":null"), "{answer}");
    let answer = daemon.raw(b"POST /v1/clients HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    assert!(answer.contains("GET, PUT and DELETE for /v1/clients/{mac}"), "{answer}");
    let allow = "PUT /v1/clients/0200.5e10.0001 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    assert!(daemon.raw(allow.as_bytes()).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(daemon.sessions.show(mac(1)).unwrap().remaining_seconds, Some(8 * 3600));
}

#[tokio::test]
async fn the_json_schema_is_stable() {
    let daemon = daemon(8, Access::new(None));
    let client = Client::new(daemon.socket());
    client.allow(mac(1), None, AllowRequest::default()).await.unwrap();
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    let status = serde_json::to_value(client.status().await.unwrap()).unwrap();
    assert_eq!(keys(&status), "clients gate lost packets pid responder uptime_seconds version zones");
    assert_eq!(keys(&status["gate"]), "interface interface_index listeners program_id queues url_v4 url_v6 xdp_mode");
    assert_eq!(keys(&status["clients"]), "capacity online");
    assert_eq!(keys(&status["packets"]), "answered dropped passed redirected");
    let list = serde_json::to_value(client.clients(None).await.unwrap()).unwrap();
    assert_eq!(
        keys(&list["clients"][0]),
        "addresses bound_addresses down expires_at last_seen_seconds limits mac online_seconds remaining_seconds started_at up zone"
    );
    assert_eq!(keys(&status["lost"]), "answers captures events watchers");
    let zones = serde_json::to_value(client.zones().await.unwrap()).unwrap();
    assert_eq!(
        keys(&zones["zones"][0]),
        "anti_spoofing attached gateway_addresses gateway_interface gateway_mac https interface interface_index listeners name number \
         queues shadow url_v4 url_v6 vlan xdp_mode"
    );
    let explained =
        client.explain(&api::ExplainRequest { frames: vec!["00".repeat(14)], ..Default::default() }).await.unwrap();
    let explained = serde_json::to_value(explained).unwrap();
    assert_eq!(keys(&explained["frames"][0]), "reason reply_hex rule verdict");
    let drops = serde_json::to_value(client.drops(false, None).await.unwrap()).unwrap();
    assert_eq!(keys(&drops["reasons"][0]), "name outcome packets text");
}

#[test]
fn packets_are_summed_by_outcome() {
    let sum = api::Packets::sum(&[
        (Reason::Authorized, 1),
        (Reason::Arp, 2),
        (Reason::HttpHandshake, 4),
        (Reason::HttpRequest, 8),
        (Reason::Fragment, 16),
    ]);
    assert_eq!(sum, api::Packets { passed: 3, answered: 4, redirected: 8, dropped: 16 });
}

#[tokio::test]
async fn who_is_neither_root_nor_a_member_is_refused_by_the_server_too() {
    use std::os::unix::process::CommandExt as _;

    let group = Group { gid: 64_001, name: "portal-testers".into() };
    let daemon = daemon(8, Access { owner: 0, group: Some(group) });
    // Past the file's mode, so that the server itself has to refuse.
    std::fs::set_permissions(daemon.socket(), std::fs::Permissions::from_mode(0o666)).unwrap();
    std::fs::set_permissions(daemon.directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let curl = |uid: u32, gid: u32| {
        let socket = daemon.socket();
        tokio::task::spawn_blocking(move || {
            let mut curl = portal_tools::command("curl");
            curl.args(["-s", "-m", "10", "-w", "\n%{http_code}", "--unix-socket"])
                .arg(socket)
                .arg("http://portald/v1/status");
            // Setting the user drops root's supplementary groups.
            let output = curl.uid(uid).gid(gid).output().expect("curl is installed");
            String::from_utf8(output.stdout).unwrap()
        })
    };
    let stranger = curl(64_000, 64_000).await.unwrap();
    assert!(stranger.ends_with("\n403") && stranger.contains("portal-testers"), "{stranger}");
    let member = curl(64_000, 64_001).await.unwrap();
    assert!(member.ends_with("\n200"), "{member}");
}

#[tokio::test]
async fn a_dead_daemons_socket_is_replaced_and_a_live_ones_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run/portald.sock");
    std::fs::create_dir(directory.path().join("run")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a dead daemon leaves its socket");
    let socket = ControlSocket::bind(&path, None).unwrap();
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!((metadata.mode() & 0o777, metadata.uid()), (0o600, 0));
    let message = ControlSocket::bind(&path, None).unwrap_err().to_string();
    assert!(message.contains("another portald is running") && message.contains("paths.socket"), "{message}");
    drop(socket);
    assert!(!path.exists());

    let group = Group { gid: 64_001, name: "portal-testers".into() };
    let socket = ControlSocket::bind(&path, Some(&group)).unwrap();
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!((metadata.mode() & 0o777, metadata.gid()), (0o660, 64_001));
    // Another took the name: the file is not ours to remove.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "").unwrap();
    drop(socket);
    assert!(path.exists());
    assert!(matches!(ControlSocket::bind(&path, None), Err(SocketError::NotASocket(p)) if p == path));
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    let name = GroupName::try_from("no-such-group".to_owned()).unwrap();
    let message = ControlSocket::group(Some(&name)).unwrap_err().to_string();
    assert!(message.contains("groupadd") && message.contains("control.group"), "{message}");
}

#[tokio::test]
async fn stopping_removes_the_socket_and_the_client_says_what_is_missing() {
    let daemon = daemon(8, Access::new(None));
    let socket = daemon.socket();
    Client::new(&socket).status().await.unwrap();
    daemon.stop.send(true).unwrap();
    tokio::time::timeout(Duration::from_secs(5), daemon.task).await.unwrap().unwrap();
    assert!(!socket.exists());
    let info = Client::new(&socket).status().await.unwrap_err().info();
    assert_eq!(info.code, "not_running");
    assert!(info.message.contains(&*socket.to_string_lossy()), "{info:?}");
    // Refused: a file without a listener.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert_eq!(Client::new(&socket).status().await.unwrap_err().info().code, "not_running");
    assert_eq!(Client::new(Path::new("/proc/self/status")).status().await.unwrap_err().info().code, "not_running");
}

/// A sentence, frames, a zone, and the error's code and a part of its remedy.
type Row<'a> = (&'a str, &'a [&'a str], Option<&'a str>, &'a str, &'a str);

#[tokio::test]
async fn the_gate_is_asked_about_frames_in_a_zone() {
    let daemon = daemon(8, Access::new(None));
    let client = Client::new(daemon.socket());
    let ask = |frames: &[&str], zone: Option<&str>| {
        let request = api::ExplainRequest {
            frames: frames.iter().map(|f| (*f).to_owned()).collect(),
            zone: zone.map(String::from),
            ..Default::default()
        };
        let client = &client;
        async move { client.explain(&request).await }
    };
    let frame = "000102030405060708090a0b0c0d";
    let answer = ask(&[frame, frame], Some("guests")).await.unwrap().frames;
    assert_eq!(answer.len(), 2);
    assert_eq!((answer[0].verdict.as_str(), answer[0].reason.as_str()), ("answered", "tcp_refused"));
    assert_eq!(answer[1].reply_hex.as_deref(), Some("0d0c0b0a09080706050403020100"));
    assert_eq!(ask(&[frame], None).await.unwrap().frames[0].verdict, "answered", "the first zone's interface");
    let many = vec![frame; api::MOST_FRAMES + 1];
    let table: [Row<'_>; 5] = [
        ("no such zone", &[frame], Some("staff"), "no_such_zone", "guests"),
        ("13 bytes", &[frame, &frame[2..]], None, "bad_request", "frame 2 has 13 bytes"),
        ("no digits", &["hello"], None, "bad_request", "hello"),
        ("spaces", &["00 01"], None, "bad_request", "hexadecimal"),
        ("too many", &many, None, "bad_request", "257 frames"),
    ];
    for (sentence, frames, zone, code, part) in table {
        let info = ask(frames, zone).await.unwrap_err().info();
        assert_eq!(info.code, code, "{sentence}");
        assert!(format!("{} {}", info.message, info.remedy).contains(part), "{sentence}: {info:?}");
    }
    let jumbos = vec!["00".repeat(9_000); 200];
    let jumbos: Vec<&str> = jumbos.iter().map(String::as_str).collect();
    assert_eq!(ask(&jumbos, None).await.unwrap().frames.len(), 200, "3.6 MB of digits");
}

/// The next line, within a second.
async fn line(download: &mut Download) -> Option<EventLine> {
    let piece = tokio::time::timeout(Duration::from_secs(1), download.next()).await.expect("in time").unwrap()?;
    Some(serde_json::from_slice(&piece).unwrap())
}

#[tokio::test]
async fn events_are_streamed_to_everybody_until_the_daemon_stops() {
    let daemon = daemon(8, Access::new(None));
    let client = Client::new(daemon.socket());
    let mut one = client.events().await.unwrap();
    let mut other = client.events().await.unwrap();
    for name in ["login", "expired"] {
        let event = EventLine { client: Some(mac(1)), ..EventLine::now(name) };
        daemon.events.tell(event.clone());
        assert_eq!(line(&mut one).await.unwrap(), event);
        assert_eq!(line(&mut other).await.unwrap(), event);
    }
    drop(one);
    assert_eq!(client.status().await.unwrap().lost.events, 3);
    daemon.stop.send(true).unwrap();
    assert_eq!(line(&mut other).await, None, "the end, and no broken connection");
    tokio::time::timeout(Duration::from_secs(5), daemon.task).await.unwrap().unwrap();
    assert!(daemon.events.is_unwatched());
}

#[tokio::test(start_paused = true)]
async fn a_stream_lasts_longer_than_a_question_may() {
    let daemon = daemon(8, Access::new(None));
    let client = Client::new(daemon.socket());
    let mut events = client.events().await.unwrap();
    tokio::time::sleep(Duration::from_hours(1)).await;
    daemon.events.tell(EventLine::now("login"));
    let piece = events.next().await.unwrap().expect("an hour later");
    assert!(piece.starts_with(b"{\"event\":\"login\""));
}

#[tokio::test(start_paused = true)]
async fn however_many_watch_questions_are_answered_and_who_waits_in_vain_is_told_why() {
    let daemon = daemon(8, Access::new(None));
    let client = Client::new(daemon.socket());
    let mut watching = Vec::new();
    for _ in 0..64 {
        watching.push(client.events().await.unwrap());
    }
    let begun = tokio::time::Instant::now();
    let one_more = tokio::spawn({
        let client = client.clone();
        async move { client.events().await.map(drop) }
    });
    client.allow(mac(1), None, AllowRequest::default()).await.unwrap();
    client.revoke(mac(1), None).await.unwrap();
    client.status().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20), "before anybody was told anything");
    let info = one_more.await.unwrap().unwrap_err().info();
    assert_eq!(info.code, "streams_full");
    assert!(info.message.contains("all 64 places of user 0") && info.remedy.contains("portalctl monitor"), "{info:?}");
    drop(watching.pop());
    client.events().await.unwrap();
}

#[tokio::test]
async fn thousands_who_ask_at_once_are_all_answered() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit { current: maximum.map_or(Some(32_768), |most| Some(most.min(32_768))), maximum },
    )
    .unwrap();
    let daemon = daemon(8, Access::new(None));
    let client = Client::new(daemon.socket());
    // So many who say nothing take no places.
    let silent = futures::future::join_all((0..200).map(|_| UnixStream::connect(daemon.socket()))).await;
    assert!(silent.iter().all(Result::is_ok));
    for (at_once, rounds) in [(2_000, 1), (60, 20)] {
        for _ in 0..rounds {
            for answer in futures::future::join_all((0..at_once).map(|_| client.status())).await {
                answer.unwrap();
            }
        }
    }
}

fn captured(bytes: u8) -> CapturedFrame {
    CapturedFrame {
        at: Duration::from_secs(1),
        ifindex: 3,
        bytes: vec![bytes; 60],
        whole_len: 60,
        tag: None,
        outbound: false,
        comment: "dropped: fragment: why".into(),
    }
}

/// Waits until the kernel's table is so.
async fn captures(daemon: &Daemon, clients: &[ClientKey]) {
    for _ in 0..2_000 {
        if daemon.kernel.0.lock().unwrap().iter().eq(clients) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?} are captured, not {clients:?}", daemon.kernel.0.lock().unwrap());
}

#[tokio::test]
async fn a_capture_is_a_pcapng_file_and_lasts_as_long_as_its_connection() {
    let daemon = daemon(8, Access::new(None));
    let client = Client::new(daemon.socket());
    let key = ClientKey::new(Zone::FIRST, mac(1).bytes());
    let mut capture = client.capture(mac(1), Some("guests"), Some(2), None).await.unwrap();
    let mut file = capture.next().await.unwrap().expect("the file's beginning comes at once").to_vec();
    captures(&daemon, &[key]).await;
    for n in 0..3 {
        daemon.captures.deliver(key, &captured(n));
    }
    while let Some(piece) = capture.next().await.unwrap() {
        file.extend(piece);
    }
    let frames = crate::observe::input::read(&file).unwrap();
    assert_eq!(frames, [vec![0; 60], vec![1; 60]], "two, as was wanted");
    captures(&daemon, &[]).await;

    let capture = client.capture(mac(1), None, None, None).await.unwrap();
    captures(&daemon, &[key]).await;
    drop(capture);
    captures(&daemon, &[]).await;

    let mut short = client.capture(mac(1), None, None, Some(1)).await.unwrap();
    while short.next().await.unwrap().is_some() {}
    captures(&daemon, &[]).await;
    assert_eq!(client.capture(mac(1), Some("staff"), None, None).await.err().unwrap().info().code, "no_such_zone");
    let answer = daemon.raw(b"GET /v1/capture?client=ff:ff:ff:ff:ff:ff HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("group address"), "{answer}");

    let mut last = client.capture(mac(2), None, None, None).await.unwrap();
    last.next().await.unwrap().unwrap();
    daemon.stop.send(true).unwrap();
    assert_eq!(last.next().await.unwrap(), None);
    captures(&daemon, &[]).await;
}

#[tokio::test]
async fn clients_are_of_a_zone() {
    let daemon = daemon_of(2, 8, Access::new(None));
    let client = Client::new(daemon.socket());
    let request = AllowRequest {
        rate_up: Some("10mbit".parse().unwrap()),
        quota: Some("2GB".parse().unwrap()),
        idle: Some("30m".parse().unwrap()),
        ..AllowRequest::default()
    };
    let info = client.allow(mac(1), None, request).await.unwrap_err().info();
    assert_eq!(info.code, "which_zone");
    assert!(info.remedy.contains("guests, staff"), "{info:?}");
    let view = client.allow(mac(1), Some("staff"), request).await.unwrap();
    assert_eq!((view.zone.as_str(), view.addresses.len()), ("staff", 0), "the guests' neighbours are not the staff's");
    assert_eq!(view.limits.rate_up_bits_per_second, Some(10_000_000));
    assert_eq!((view.limits.quota_bytes, view.limits.idle_timeout_seconds), (Some(2_000_000_000), Some(1_800)));
    assert_eq!(client.client(mac(1), None).await.unwrap().zone, "staff", "where it has a session");
    assert_eq!(client.client(mac(1), Some("guests")).await.unwrap_err().info().code, "no_such_client");
    let unlimited = AllowRequest { rate_up: Some("none".parse().unwrap()), ..AllowRequest::default() };
    let view = client.allow(mac(1), Some("staff"), unlimited).await.unwrap();
    assert_eq!((view.limits.rate_up_bits_per_second, view.limits.quota_bytes), (None, Some(2_000_000_000)));
    client.allow(mac(1), Some("guests"), AllowRequest::default()).await.unwrap();
    assert_eq!(client.client(mac(1), None).await.unwrap_err().info().code, "which_zone");
    let list = |zone: Option<&'static str>| {
        let client = &client;
        async move {
            let clients = client.clients(zone).await.unwrap().clients;
            clients.into_iter().map(|c| (c.zone, c.addresses.len())).collect::<Vec<_>>()
        }
    };
    assert_eq!(list(None).await, [("guests".into(), 2), ("staff".into(), 0)]);
    assert_eq!(list(Some("staff")).await, [("staff".into(), 0)]);
    assert_eq!(client.clients(Some("pool & bar")).await.unwrap_err().info().code, "no_such_zone");
    assert_eq!(client.revoke(mac(1), Some("guests")).await.unwrap().zone, "guests");
    assert_eq!(client.revoke(mac(1), None).await.unwrap().zone, "staff");
    assert_eq!(client.revoke(mac(1), None).await.unwrap_err().info().code, "no_such_client");
    let drops = client.drops(false, None).await.unwrap();
    let rows: Vec<_> = drops.zones.iter().map(|row| (row.zone.as_deref(), row.shadow)).collect();
    assert_eq!(
        rows,
        [(Some("guests"), false), (Some("guests"), true), (Some("staff"), false), (Some("staff"), true), (None, false)]
    );
    assert_eq!(client.drops(true, Some("staff")).await.unwrap().zones.len(), 2);
}

#[tokio::test]
async fn clients_are_kept_out_and_let_in_again() {
    let daemon = daemon_of(2, 8, Access::new(None));
    let client = Client::new(daemon.socket());
    let forever = BlockRequest::default();
    let two_hours = BlockRequest { for_seconds: Some(7_200), reason: Some("noise".parse().unwrap()) };
    assert_eq!(client.block(mac(1), None, &forever).await.unwrap_err().info().code, "which_zone");
    client.allow(mac(1), Some("staff"), AllowRequest::default()).await.unwrap();
    let blocked = client.block(mac(1), None, &two_hours).await.unwrap();
    assert_eq!((blocked.block.zone.as_str(), blocked.ended_session), ("staff", true), "where it has a session");
    assert_eq!((blocked.block.cause, blocked.block.remaining_seconds), (BarCause::Blocked, Some(7_200)));
    assert!(!client.block(mac(2), Some("guests"), &forever).await.unwrap().ended_session);
    let info = client.client(mac(1), None).await.unwrap_err().info();
    assert_eq!(info.code, "client_barred");
    let until = blocked.block.until.as_ref().unwrap();
    assert!(info.message.contains(&until[..16]) && info.remedy.contains("unblock"), "{info:?}");
    assert_eq!(client.client(mac(3), None).await.unwrap_err().info().code, "no_such_client");
    let list = |zone: Option<&'static str>| {
        let client = &client;
        async move { client.blocks(zone).await.unwrap().blocks.iter().map(|bar| bar.mac).collect::<Vec<_>>() }
    };
    assert_eq!((list(None).await, list(Some("staff")).await), (vec![mac(2), mac(1)], vec![mac(1)]));
    let json = serde_json::to_value(client.blocks(None).await.unwrap()).unwrap();
    let keys = json["blocks"][0].as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(keys, "cause mac reason remaining_seconds since until zone");
    assert_eq!((&json["blocks"][1]["cause"], &json["blocks"][1]["reason"]), (&"blocked".into(), &"noise".into()));
    let unblocked = client.unblock(mac(1), None).await.unwrap();
    assert_eq!((unblocked.zone.as_str(), unblocked.block.cause), ("staff", BarCause::Blocked), "where it is kept out");
    assert_eq!(client.unblock(mac(1), Some("staff")).await.unwrap_err().info().code, "not_blocked");
    let view = client.allow(mac(2), Some("guests"), AllowRequest::default()).await.unwrap();
    assert_eq!(
        view.lifted_bar.map(|bar| bar.cause),
        Some(BarCause::Blocked),
        "an operator's allow lifts it, and says so"
    );
    assert_eq!(list(None).await, []);
    let revoked = client.revoke_and_bar(mac(2), None, Some("2h".parse().unwrap())).await.unwrap();
    assert_eq!(revoked.bar.map(|bar| (bar.cause, bar.remaining_seconds)), Some((BarCause::Revoked, Some(7_200))));
    assert_eq!(list(None).await, [mac(2)]);

    let put = |path: &str, body: &str| {
        format!("PUT /v1/blocks/{path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let here = "02:00:5e:10:00:05?zone=staff";
    for (sentence, request, status, code) in [
        ("no MAC", put("x", ""), "400", "bad_mac"),
        ("no time at all", put(here, "{\"for_seconds\":0}"), "400", "bad_length"),
        ("a field that is none", put(here, "{\"for\":1}"), "400", "bad_request"),
        ("a reason of two lines", put(here, "{\"reason\":\"a\\nb\"}"), "400", "bad_request"),
        ("no such zone", put("02:00:5e:10:00:05?zone=pool", ""), "404", "no_such_zone"),
        (
            "a bar that is no duration",
            "DELETE /v1/clients/02:00:5e:10:00:05?bar=soon HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "400",
            "bad_length",
        ),
    ] {
        let answer = daemon.raw(request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(code), "{sentence}: {answer}");
    }
}

#[tokio::test]
async fn zones_are_changed_and_the_cause_of_a_refusal_told() {
    let daemon = daemon_of(2, 8, Access::new(None));
    let client = Client::new(daemon.socket());
    let zones = client.zones().await.unwrap().zones;
    assert_eq!(zones.iter().map(|zone| zone.name.as_str()).collect::<Vec<_>>(), ["guests", "staff"]);
    assert_eq!(client.status().await.unwrap().zones, ["guests", "staff"]);
    assert_eq!(client.attach_zone("guests").await.unwrap_err().info().code, "zone_attached");
    let info = client.detach_zone("guests", false).await.unwrap_err().info();
    assert_eq!(info.code, "would_open_network");
    assert!(info.remedy.contains("--open"), "{info:?}");
    assert_eq!(client.detach_zone("guests", true).await.unwrap().name, "guests");
    assert_eq!(client.garden().await.unwrap_err().info().code, "no_garden");
}
