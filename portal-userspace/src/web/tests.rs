//! Over real sockets and with the kernel's session table; only whose a connection is is given (the gate's table of that is tested in `datapath`).

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::Mutex,
    time::{Duration, Instant},
};

use axum::{body::Bytes, http::StatusCode};
use http_body_util::Full;
use hyper::{Request, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use portal_common::tables::Zone;

use crate::{config::Config, net::client::exchange, session::SessionStore};

/// Stations as a test says, by their addresses.
#[derive(Default)]
struct Given(Mutex<HashMap<IpAddr, Mac>>);

impl Stations for Given {
    fn station(&self, peer: SocketAddr) -> anyhow::Result<Option<Mac>> {
        anyhow::ensure!(peer.ip() != IpAddr::from([127, 0, 0, 66]), "the kernel does not say");
        Ok(self.0.lock().unwrap().get(&peer.ip()).copied())
    }
}

struct Site {
    sessions: Arc<SessionService>,
    stations: Arc<Given>,
    v4: SocketAddr,
    v6: SocketAddr,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

const PHONE: &str = "02:00:5e:10:00:01";

/// The page on loopback, where 127.0.0.1 and `::1` are the phone, and 127.0.0.2 is nobody.
async fn site(capacity: u32, rest: &str) -> Site {
    let text = format!("[guest]\ninterface = \"eth1\"\n{rest}");
    let mut config = Config::parse(&text, Path::new("test")).unwrap();
    config.portal.url_v4 = Some("http://192.0.2.1:8080/".to_owned().try_into().unwrap());
    let store = Arc::new(SessionStore::create(capacity).expect("a BPF map needs root"));
    let sessions = Arc::new(SessionService::new(store, Zone::FIRST, &config.zones()[0]));
    let given = Arc::new(Given::default());
    for address in ["127.0.0.1", "::1"] {
        given.0.lock().unwrap().insert(address.parse().unwrap(), PHONE.parse().unwrap());
    }
    given.0.lock().unwrap().insert("127.0.0.3".parse().unwrap(), "02:00:5e:10:00:03".parse().unwrap());
    let listeners = bind(&["0.0.0.0:0".parse().unwrap(), "[::1]:0".parse().unwrap()], None).await.unwrap();
    let addresses = local_addresses(&listeners).unwrap();
    let (stop, stopping) = watch::channel(false);
    let page = LoginPage::new(&config.zones()[0], config.limits, Arc::clone(&sessions), Arc::<Given>::clone(&given));
    let task = tokio::spawn(page.serve(listeners, stopping));
    let v4 = SocketAddr::new("127.0.0.1".parse().unwrap(), addresses[0].port());
    Site { sessions, stations: given, v4, v6: addresses[1], stop, task }
}

impl Site {
    async fn ask_from(&self, from: &str, request: Request<Full<Bytes>>) -> Response<Bytes> {
        let from: IpAddr = from.parse().unwrap();
        let (socket, to) = if from.is_ipv4() {
            (tokio::net::TcpSocket::new_v4().unwrap(), self.v4)
        } else {
            (tokio::net::TcpSocket::new_v6().unwrap(), self.v6)
        };
        socket.bind(SocketAddr::new(from, 0)).unwrap();
        let stream = socket.connect(to).await.unwrap();
        exchange(stream, request, Duration::from_secs(10)).await.unwrap()
    }

    /// From now on connections of this address are this station's, or nobody's.
    fn note(&self, address: &str, station: Option<&str>) {
        let mut given = self.stations.0.lock().unwrap();
        let address: IpAddr = address.parse().unwrap();
        match station {
            Some(mac) => given.insert(address, mac.parse().unwrap()),
            None => given.remove(&address),
        };
    }

    async fn ask(&self, request: Request<Full<Bytes>>) -> Response<Bytes> {
        self.ask_from("127.0.0.1", request).await
    }

    fn is_in(&self, mac: &str) -> bool {
        self.sessions.show(mac.parse().unwrap()).is_ok()
    }
}

fn get(path: &str) -> Request<Full<Bytes>> {
    request("GET", path, &[], "")
}

fn post(path: &str, body: &'static str) -> Request<Full<Bytes>> {
    request("POST", path, &[], body)
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &'static str) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path).header("host", "192.0.2.1:8080");
    if method == "POST" {
        request = request.header("content-type", "application/x-www-form-urlencoded");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap()
}

fn text(response: &Response<Bytes>) -> &str {
    std::str::from_utf8(response.body()).unwrap()
}

#[tokio::test]
async fn who_is_kept_out_is_told_so_and_until_when_over_both_families() {
    let site = site(8, "[session]\nbar_after_revoke = \"forever\"\n").await;
    let phone: Mac = PHONE.parse().unwrap();
    let block = || site.sessions.block(phone, "2h".parse().unwrap(), None).unwrap();
    let revoke = || {
        site.sessions.login(phone).unwrap();
        site.sessions.revoke(phone).unwrap();
    };
    for from in ["127.0.0.1", "::1"] {
        for timed in [true, false] {
            if timed {
                drop(block());
            } else {
                revoke();
            }
            for request in [post("/login", "accept=yes"), get("/")] {
                let page = site.ask_from(from, request).await;
                assert_eq!(page.status(), StatusCode::FORBIDDEN);
                assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
                let says = |part: &str| assert!(text(&page).contains(part), "no «{part}»: {}", text(&page));
                says("<h1>This device cannot connect now</h1>");
                says(if timed { "It can connect again in " } else { "ask the operator" });
                assert_eq!(page.headers().get("retry-after").is_some(), timed);
                assert!(!text(&page).contains("action=\"/login\""), "there is no button to press");
                assert!(!site.is_in(PHONE));
            }
            site.sessions.unblock(phone).unwrap();
        }
        assert_eq!(site.ask_from(from, post("/login", "accept=yes")).await.status(), StatusCode::SEE_OTHER);
        site.sessions.logout(phone).unwrap();
    }
}

#[tokio::test]
async fn a_stranger_accepts_the_terms_and_is_in_and_logs_out_again_over_both_families() {
    let site = site(8, "[portal]\nsession = \"90m\"\n").await;
    for from in ["127.0.0.1", "::1"] {
        let page = site.ask_from(from, get("/")).await;
        assert_eq!(page.status(), StatusCode::OK);
        assert!(text(&page).contains("By connecting you agree") && text(&page).contains("1 hour 30 minutes"));
        assert!(text(&page).contains(r#"<form method="post" action="/login"><button name="accept" value="yes">"#));
        assert!(!site.is_in(PHONE));

        let answer = site.ask_from(from, post("/login", "accept=yes")).await;
        // Whole, and another page than that with the form: links would show the one that it has.
        let after = "http://192.0.2.1:8080/online".parse().unwrap();
        assert_eq!((answer.status(), &answer.headers()["location"]), (StatusCode::SEE_OTHER, &after));
        assert!(site.is_in(PHONE), "the kernel has it before the answer");
        let page = site.ask_from(from, get("/online")).await;
        assert!(text(&page).contains("You are online") && text(&page).contains(r#"action="/logout""#));

        let answer = site.ask_from(from, post("/logout", "")).await;
        let start = "http://192.0.2.1:8080/".parse().unwrap();
        assert_eq!((answer.status(), &answer.headers()["location"]), (StatusCode::SEE_OTHER, &start));
        assert!(!site.is_in(PHONE));
        assert!(text(&site.ask_from(from, get("/online")).await).contains("Accept and connect"), "not a lie later");
        assert!(text(&site.ask_from(from, get("/")).await).contains("Accept and connect"));
    }
}

#[tokio::test]
async fn every_answer_carries_the_protecting_headers_and_nothing_from_elsewhere() {
    let site = site(8, "").await;
    for request in
        [get("/"), get("/nothing"), get("/login"), post("/", ""), post("/login", ""), post("/login", "accept=yes")]
    {
        let what = format!("{} {}", request.method(), request.uri());
        let answer = site.ask(request).await;
        let header = |name: &str| answer.headers().get(name).map_or("", |v| v.to_str().unwrap());
        assert_eq!(header("cache-control"), "no-store", "{what}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{what}");
        assert_eq!(header("referrer-policy"), "same-origin", "{what}");
        assert!(header("content-security-policy").contains("frame-ancestors 'none'"), "{what}");
        assert!(header("set-cookie").is_empty() && header("strict-transport-security").is_empty(), "{what}");
        for banned in ["<script", "http://", "https://", "//", "url(", "@import"] {
            assert!(!text(&answer).contains(banned), "{what}: {banned}");
        }
        if answer.headers().contains_key("content-type") {
            assert_eq!(header("content-type"), "text/html; charset=utf-8", "{what}");
            let nonce = text(&answer).split("nonce=\"").nth(1).unwrap().split('"').next().unwrap();
            assert!(nonce.len() == 32 && header("content-security-policy").contains(nonce), "{what}");
            assert!(text(&answer).contains("name=\"viewport\"") && text(&answer).contains("lang=\"en\""), "{what}");
        }
    }
}

/// (sentence, method, path, headers, body, status, what the page says, whether the phone is in afterwards)
type Refusal = (
    &'static str,
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
    u16,
    &'static str,
    bool,
);

#[tokio::test]
async fn what_the_page_refuses_changes_nothing() {
    let refusals: &[Refusal] = &[
        ("no acceptance", "POST", "/login", &[], "", 400, "not accepted", false),
        ("another value", "POST", "/login", &[], "accept=no", 400, "not accepted", false),
        (
            "another origin",
            "POST",
            "/login",
            &[("origin", "http://evil.example")],
            "accept=yes",
            403,
            "another website",
            false,
        ),
        (
            "another port",
            "POST",
            "/login",
            &[("origin", "http://192.0.2.1")],
            "accept=yes",
            403,
            "another website",
            false,
        ),
        ("an opaque origin", "POST", "/login", &[("origin", "null")], "accept=yes", 403, "another website", false),
        (
            "fetch metadata",
            "POST",
            "/login",
            &[("sec-fetch-site", "cross-site")],
            "accept=yes",
            403,
            "another website",
            false,
        ),
        ("a sibling site", "POST", "/logout", &[("sec-fetch-site", "same-site")], "", 403, "another website", false),
        ("JSON", "POST", "/login", &[("content-type", "application/json")], "accept=yes", 415, "did not work", false),
        ("twice", "POST", "/login", &[], "accept=yes&accept=yes", 422, "did not work", false),
        ("no such page", "GET", "/generate_204", &[], "", 404, "no such page", false),
        ("another method", "DELETE", "/", &[], "", 405, "does not work here", false),
        ("its own origin", "POST", "/login", &[("origin", "http://192.0.2.1:8080")], "accept=yes", 303, "", true),
        ("its own site", "POST", "/login", &[("sec-fetch-site", "same-origin")], "accept=yes", 303, "", true),
        (
            "headers can't name another client",
            "POST",
            "/logout",
            &[("x-forwarded-for", "127.0.0.2")],
            "",
            303,
            "",
            false,
        ),
    ];
    let site = site(8, "").await;
    for (sentence, method, path, headers, body, status, says, is_in) in refusals {
        let mut request = request(method, path, headers, body);
        if *sentence == "JSON" {
            request.headers_mut().remove("content-type");
            request.headers_mut().insert("content-type", "application/json".parse().unwrap());
        }
        let answer = site.ask(request).await;
        assert_eq!(answer.status().as_u16(), *status, "{sentence}: {}", text(&answer));
        assert!(text(&answer).contains(says), "{sentence}: {}", text(&answer));
        assert_eq!(site.is_in(PHONE), *is_in, "{sentence}");
        if *is_in {
            site.sessions.revoke(PHONE.parse().unwrap()).unwrap();
        }
    }
}

#[tokio::test]
async fn a_name_that_is_not_ours_changes_nothing_and_leads_to_the_page() {
    let site = site(8, "").await;
    // A page of evil.example's, whose name now resolves to this machine: to the browser it is the same origin.
    let rebound = |method: &str, path: &str, body| {
        let mut request = request(method, path, &[("origin", "http://evil.example:8080")], body);
        request.headers_mut().insert("host", "evil.example:8080".parse().unwrap());
        request
    };
    site.sessions.allow("02:00:5e:10:00:03".parse().unwrap(), None).unwrap();
    for (from, path, body) in [("127.0.0.1", "/login", "accept=yes"), ("127.0.0.3", "/logout", "")] {
        let answer = site.ask_from(from, rebound("POST", path, body)).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{path}");
        let link = text(&answer).split("href=\"").nth(1).unwrap().split('"').next().unwrap().replace("&#x2f;", "/");
        assert_eq!(link, "http://192.0.2.1:8080/", "{path}");
        assert_eq!(answer.headers()["cache-control"], "no-store");
    }
    assert!(!site.is_in(PHONE) && site.is_in("02:00:5e:10:00:03"));
    for (method, path) in [("GET", "/"), ("HEAD", "/"), ("GET", "/nothing")] {
        let answer = site.ask(rebound(method, path, "")).await;
        assert_eq!(
            (answer.status(), &answer.headers()["location"]),
            (StatusCode::SEE_OTHER, &"http://192.0.2.1:8080/".parse().unwrap())
        );
    }
    // The address that the connection was made to needs no configuration.
    for (from, host) in [("127.0.0.1", site.v4), ("::1", site.v6)] {
        let mut request = get("/");
        request.headers_mut().insert("host", host.to_string().parse().unwrap());
        assert_eq!(site.ask_from(from, request).await.status(), StatusCode::OK, "{host}");
    }
}

#[tokio::test]
async fn stations_that_fill_every_place_in_silence_do_not_keep_the_others_out() {
    let site = site(8, "[limits]\nlogin_connections = 8\nlogin_connections_per_client = 2\n").await;
    let mut held = Vec::new();
    for last in 100..108 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).unwrap();
        let mut stream = socket.connect(site.v4).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        held.push(stream);
    }
    let begin = Instant::now();
    for _ in 0..3 {
        assert_eq!(site.ask(post("/login", "accept=yes")).await.status(), StatusCode::SEE_OTHER);
    }
    assert!(begin.elapsed() < Duration::from_secs(4), "waited until they ran out of time: {:?}", begin.elapsed());
    let mut byte = [0];
    let oldest = tokio::time::timeout(Duration::from_secs(2), held[0].read(&mut byte)).await;
    assert!(matches!(oldest, Ok(Ok(0) | Err(_))), "the oldest has given way");
}

#[tokio::test]
async fn without_terms_nothing_is_asked_to_be_accepted() {
    let site = site(8, "[portal]\nterms = \"\"\n").await;
    let page = site.ask(get("/")).await;
    assert!(!text(&page).contains("class=\"terms\"") && !text(&page).contains("ccept the terms"), "{}", text(&page));
    assert_eq!(site.ask(post("/login", "accept=yes")).await.status(), StatusCode::SEE_OTHER);
    assert!(site.is_in(PHONE));
    site.sessions.allow_forever(PHONE.parse().unwrap()).unwrap();
    let page = site.ask(get("/")).await;
    assert!(text(&page).contains("This device is connected."), "{}", text(&page));
}

#[tokio::test]
async fn whose_connection_the_gate_did_not_note_is_told_so() {
    let site = site(8, "").await;
    for request in [get("/"), post("/login", "accept=yes"), post("/logout", "")] {
        let answer = site.ask_from("127.0.0.2", request).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        assert!(text(&answer).contains("could not find your device") && text(&answer).contains("Load this page again"));
    }
    let answer = site.ask_from("127.0.0.66", post("/login", "accept=yes")).await;
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR, "the kernel did not say");
    assert_eq!(site.sessions.list().unwrap(), []);
}

#[tokio::test]
async fn a_connection_that_has_become_anothers_acts_for_nobody() {
    const VICTIM: &str = "02:00:5e:10:00:03";
    let site = site(8, "").await;
    let cases = [("another station's", Some(VICTIM)), ("nobody's", None)];
    for (sentence, became) in cases {
        for (path, body) in [("/logout", ""), ("/login", "accept=yes"), ("/", "")] {
            site.sessions.allow(VICTIM.parse().unwrap(), None).unwrap();
            let before = site.sessions.list().unwrap().len();
            site.note("127.0.0.1", Some(PHONE));
            // Accepted as the phone's; by the time its request is read it is another's.
            let stream = TcpStream::connect(site.v4).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            site.note("127.0.0.1", became);
            let request = if path == "/" { get(path) } else { post(path, body) };
            let answer = exchange(stream, request, Duration::from_secs(10)).await.unwrap();
            assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{sentence}, {path}");
            assert!(text(&answer).contains("could not find your device"), "{sentence}, {path}");
            assert!(site.is_in(VICTIM) && !site.is_in(PHONE), "{sentence}, {path}");
            assert_eq!(site.sessions.list().unwrap().len(), before);
        }
    }
}

#[tokio::test]
async fn too_many_logins_are_asked_to_come_again_in_a_moment() {
    let site = site(8, "[limits]\nlogins = \"1/s burst 1\"\n").await;
    let begin = Instant::now();
    site.note("127.0.0.4", Some("02:00:5e:10:00:04"));
    site.note("::1", Some("02:00:5e:10:00:06"));
    site.sessions.block("02:00:5e:10:00:04".parse().unwrap(), "2h".parse().unwrap(), None).unwrap();
    let blocked = site.ask_from("127.0.0.4", post("/login", "accept=yes")).await;
    assert_eq!(blocked.status(), StatusCode::FORBIDDEN, "who is kept out takes no place");
    assert_eq!(site.ask(post("/login", "accept=yes")).await.status(), StatusCode::SEE_OTHER, "the first one is in");
    for (sentence, from, station) in [("IPv4", "127.0.0.3", "02:00:5e:10:00:03"), ("IPv6", "::1", "02:00:5e:10:00:06")]
    {
        let answer = site.ask_from(from, post("/login", "accept=yes")).await;
        assert!(begin.elapsed() < Duration::from_secs(1), "the machine is too slow for this test");
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{sentence}");
        assert_eq!(answer.headers()["retry-after"], "5", "{sentence}");
        assert!(text(&answer).contains("try again in a moment"), "{sentence}: {}", text(&answer));
        assert!(!site.is_in(station), "{sentence}");
    }
    assert_eq!(
        site.ask(post("/login", "accept=yes")).await.status(),
        StatusCode::SEE_OTHER,
        "who is in is not limited"
    );
    site.sessions.allow("02:00:5e:10:00:09".parse().unwrap(), None).expect("an operator is not limited");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let answer = site.ask_from("127.0.0.3", post("/login", "accept=yes")).await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER, "a moment later");
    assert!(site.is_in("02:00:5e:10:00:03"));
}

#[tokio::test]
async fn a_full_table_is_a_page_and_not_a_crash() {
    let site = site(1, "").await;
    site.sessions.allow("02:00:5e:10:00:99".parse().unwrap(), None).unwrap();
    let answer = site.ask(post("/login", "accept=yes")).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(text(&answer).contains("network is full"));
    assert_eq!(answer.headers()["retry-after"], "60");
}

#[tokio::test]
async fn the_operators_words_are_text_and_never_markup() {
    let site =
        site(8, "[portal]\ntitle = \"<b>Cafe & Bar</b>\"\nterms = \"\"\"One <script>alert(1)</script>\n\nTwo\"\"\"\n")
            .await;
    let page = site.ask(get("/")).await;
    assert!(text(&page).contains("&lt;b&gt;Cafe &amp; Bar&lt;"), "{}", text(&page));
    assert!(!text(&page).contains("<script>") && !text(&page).contains("<b>"));
    assert!(text(&page).contains("<p>Two</p>"));
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let site = site(8, "").await;
    let answer = site.ask(request("HEAD", "/", &[], "")).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.body().is_empty() && answer.headers()["content-length"] != "0");
}

#[tokio::test]
async fn a_large_request_is_refused_with_an_answer() {
    let site = site(8, "").await;
    let mut stream = TcpStream::connect(site.v4).await.unwrap();
    let head = "POST /login HTTP/1.1\r\nHost: 192.0.2.1\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 10485760\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut read, mut write) = stream.split();
    let sending = async {
        let chunk = vec![b'a'; 65_536];
        for _ in 0..160 {
            write.write_all(&chunk).await?;
        }
        io::Result::Ok(())
    };
    let mut answer = String::new();
    let reading = read.read_to_string(&mut answer);
    let (sent, received) = tokio::join!(sending, reading);
    received.unwrap();
    sent.expect("the rest is read, so that the answer is not destroyed");
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    // A head without end.
    let mut stream = TcpStream::connect(site.v4).await.unwrap();
    let mut head = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
    head.resize(64 * 1024, b'x');
    // The answer may come before all is sent.
    let _: io::Result<()> = stream.write_all(&head).await;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn garbage_gets_400_or_nothing_and_the_next_client_its_page() {
    let site = site(8, "").await;
    for garbage in [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"\0\0\0\0\r\n\r\n", b"GET\r\n\r\n"] {
        let mut stream = TcpStream::connect(site.v4).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(site.ask(get("/")).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn one_client_that_holds_connections_open_does_not_keep_the_others_out() {
    let site = site(8, "[limits]\nlogin_connections = 8\nlogin_connections_per_client = 3\n").await;
    let mut held = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(site.v4).await.unwrap();
        // A head that never ends; where the connection has been closed already, that is what we want.
        let _: io::Result<()> = stream.write_all(b"GET / HTTP/1.1\r\n").await;
        held.push(stream);
    }
    let others = site.ask_from("127.0.0.3", get("/")).await;
    assert_eq!(others.status(), StatusCode::OK);
    // Of the twenty, three are open: the others have been closed, or will be when a loaded machine comes to it. After five seconds none
    // is open: they send no whole head.
    let until = Instant::now() + Duration::from_millis(2500);
    loop {
        let mut open = 0;
        for stream in &mut held {
            let mut byte = [0];
            if tokio::time::timeout(Duration::from_millis(50), stream.read(&mut byte)).await.is_err() {
                open += 1;
            }
        }
        if open <= 3 || Instant::now() > until {
            break assert_eq!(open, 3);
        }
    }
    // The phone's other address counts as the same client.
    let mut stream = TcpStream::connect(site.v6).await.unwrap();
    let mut byte = [0];
    let closed = tokio::time::timeout(Duration::from_secs(2), stream.read(&mut byte)).await;
    assert!(matches!(closed, Ok(Ok(0) | Err(_))));
    drop(held);
    // What they held is free again once the server has seen them close.
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        let stream = TcpStream::connect(site.v4).await.unwrap();
        match exchange(stream, get("/"), Duration::from_secs(2)).await {
            Ok(answer) => break assert_eq!(answer.status(), StatusCode::OK),
            Err(e) => assert!(Instant::now() < until, "{e}"),
        }
    }
}

#[tokio::test]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let site = site(8, "").await;
    let mut stream = TcpStream::connect(site.v4).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let mut answer = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(15), stream.read_to_end(&mut answer)).await;
    assert!(end.is_ok(), "still open after 15 s");
}

#[tokio::test]
async fn stopping_closes_the_listeners() {
    let site = site(8, "").await;
    assert_eq!(site.ask(get("/")).await.status(), StatusCode::OK);
    site.stop.send(true).unwrap();
    tokio::time::timeout(Duration::from_secs(5), site.task).await.unwrap().unwrap();
    assert_eq!(TcpStream::connect(site.v4).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn where_the_page_cannot_listen_the_error_names_address_cause_and_remedy() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let message = bind(&[address], None).await.unwrap_err().to_string();
    assert!(
        message.contains(&address.to_string()) && message.contains("another program") && message.contains("ss -ltnp"),
        "{message}"
    );
    let message = bind(&["192.0.2.99:8080".parse().unwrap()], None).await.unwrap_err().to_string();
    assert!(message.contains("192.0.2.99:8080") && message.contains("does not have the address"), "{message}");
}

/// Runs curl in the thread's network namespace; its output, and on the last line the status.
fn curl(words: &[&str]) -> String {
    let output = portal_tools::command("curl")
        .args(["-sS", "-m", "10", "-w", "\n%{http_code}"])
        .args(words)
        .output()
        .expect("curl is installed");
    assert!(output.status.success(), "curl {words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_guest_across_a_wire_is_served_over_every_family() {
    use crate::net::{
        Interface,
        testing::{in_namespace, ip},
    };

    in_namespace(|| async {
        ip("link add gate address 02:00:5e:10:00:ff type veth peer name guest address 02:00:5e:10:00:01");
        ip("address add 192.0.2.1/24 dev gate");
        ip("address add 2001:db8::1/64 dev gate nodad");
        ip("link set gate addrgenmode none");
        ip("address add fe80::1/64 dev gate nodad");
        ip("link set gate up");
        let index = Interface::by_name("gate").await.unwrap().index;
        let scoped = std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 8080, 0, index);
        let addresses = ["192.0.2.1:8080".parse().unwrap(), "[2001:db8::1]:8080".parse().unwrap(), scoped.into()];
        let listeners = bind(&addresses, None).await.unwrap();
        let config = Config::parse("[guest]\ninterface = \"gate\"\n", Path::new("test")).unwrap();
        let sessions = Arc::new(SessionService::standalone(8, config.portal.session).expect("a BPF map needs root"));
        let stations = Given::default();
        for address in ["192.0.2.7", "2001:db8::7", "fe80::7"] {
            stations.0.lock().unwrap().insert(address.parse().unwrap(), PHONE.parse().unwrap());
        }
        let (stop, stopping) = watch::channel(false);
        let page = tokio::spawn(
            LoginPage::new(&config.zones()[0], config.limits, Arc::clone(&sessions), Arc::new(stations))
                .serve(listeners, stopping),
        );

        // The gateway itself is nobody's guest. Loopback is what it reaches its own addresses by.
        ip("link set lo up");
        let own = tokio::task::spawn_blocking(|| curl(&["http://192.0.2.1:8080/"])).await.unwrap();
        assert!(own.contains("could not find your device") && own.ends_with("\n403"), "{own}");

        // The guest is a namespace of its own, with the wire's other end.
        let (thread_id, wire) = (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
        let (send_id, receive_wire) = (thread_id.0, wire.1);
        let guest = tokio::task::spawn_blocking(move || {
            in_namespace(move || async move {
                send_id.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
                receive_wire.recv().unwrap();
                ip("link set guest addrgenmode none");
                ip("address add 192.0.2.7/24 dev guest");
                ip("address add 2001:db8::7/64 dev guest nodad");
                ip("address add fe80::7/64 dev guest nodad");
                ip("link set guest up");
                let sites = ["http://192.0.2.1:8080", "http://[2001:db8::1]:8080", "http://[fe80::1%25guest]:8080"];
                for site in sites {
                    let (login, logout) = (format!("{site}/login"), format!("{site}/logout"));
                    assert!(
                        curl(&["--retry", "5", "--retry-connrefused", site]).contains("Accept and connect"),
                        "{site}"
                    );
                    assert!(curl(&["-d", "accept=yes", "-L", &login]).contains("You are online"), "{site}");
                    assert!(curl(&[site]).contains("You are online"), "{site}");
                    assert!(curl(&["-d", "", &logout]).ends_with("\n303"), "{site}");
                    assert!(curl(&[site]).contains("Accept and connect"), "{site}");
                }
                assert!(curl(&["-d", "accept=yes", "http://192.0.2.1:8080/login"]).ends_with("\n303"));
            });
        });
        let id = tokio::task::spawn_blocking(move || thread_id.1.recv().unwrap()).await.unwrap();
        ip(&format!("link set guest netns {id}"));
        wire.0.send(()).unwrap();
        guest.await.unwrap();
        let online: Vec<String> = sessions.list().unwrap().iter().map(|c| c.mac.to_string()).collect();
        assert_eq!(online, ["02:00:5e:10:00:01"]);
        stop.send(true).unwrap();
        page.await.unwrap();
    });
}
