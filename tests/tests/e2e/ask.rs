//! Asking the gate of a running daemon: what it would do, what it has done, what happens, and what it does with a client's frames.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use etherparse::PacketBuilder;
use portal_common::Reason;
use portal_lab::{
    Lab, Portald, Settings,
    addresses::{
        GATEWAY_MAC, GATEWAY_V4, GUEST_MAC, GUEST_V4, GUEST_V6, OTHER_MAC, PORTAL_URL, SECOND_INTERFACE, SITE_V4,
        SITE_V6, SITES, THIRD_MAC, THIRD_V4, VISITOR_MAC, mac,
    },
    clients::{
        dns::{self, Record},
        http,
    },
    portald::{config_text, portalctl, portalctl_json, portalctl_start},
    process::{Service, run, wait_for},
    wire::Wire,
};
use portal_userspace::observe::input::to_hex;
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    expect::{a_guest, a_stranger, counted, done},
    turn::lab,
};

/// What `portalctl explain --json` prints: an object for each frame, in one line, with these fields and no others.
fn explain(lab: &Lab, arguments: &[&str]) -> Result<Vec<Value>> {
    let arguments = [&["explain", "--json"], arguments].concat();
    let text = portalctl(lab, &arguments)?.success().with_context(|| arguments.join(" "))?;
    let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    for line in &lines {
        let fields: Vec<&String> = line.as_object().context("no object")?.keys().collect();
        assert_eq!(fields.iter().collect::<BTreeSet<_>>().len(), 4, "{line}");
        for field in ["verdict", "reason", "rule", "reply_hex"] {
            ensure!(fields.iter().any(|name| *name == field), "no {field}: {line}");
        }
        let reason = Reason::ALL.iter().find(|reason| line["reason"] == reason.name()).context("an unknown reason")?;
        ensure!(line["rule"] == reason.text() && line["verdict"] == reason.outcome().name(), "{line}");
    }
    Ok(lines)
}

/// The one frame's explanation.
pub(crate) fn explain_one(lab: &Lab, arguments: &[&str]) -> Result<Value> {
    let [line] = &explain(lab, arguments)?[..] else { anyhow::bail!("not one line: {arguments:?}") };
    Ok(line.clone())
}

pub(crate) fn bytes(hex: &Value) -> Result<Vec<u8>> {
    let text = hex.as_str().with_context(|| format!("no reply: {hex}"))?;
    let pairs = text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair)?, 16).context("hex"));
    pairs.collect()
}

/// A SYN of the guest's to the web server.
fn syn(v6: bool, port: u16) -> Vec<u8> {
    syn_of(GUEST_MAC, if v6 { IpAddr::V6(GUEST_V6) } else { IpAddr::V4(GUEST_V4) }, port)
}

/// A SYN to the web server, from this MAC and this address.
fn syn_of(client: &str, source: IpAddr, port: u16) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(mac(client), mac(GATEWAY_MAC));
    let builder = match source {
        IpAddr::V4(v4) => builder.ipv4(v4.octets(), SITE_V4.octets(), 64),
        IpAddr::V6(v6) => builder.ipv6(v6.octets(), SITE_V6.octets(), 64),
    };
    let mut frame = Vec::new();
    builder.tcp(40_000, port, 77, 1024).syn().write(&mut frame, &[]).expect("a Vec takes all");
    frame.resize(frame.len().max(60), 0);
    frame
}

/// The counters of these reasons, of every zone together and of each.
fn counters(lab: &Lab, reasons: &BTreeSet<String>) -> Result<Vec<(Value, Value)>> {
    let drops = portalctl_json(lab, &["drops", "--all"])?;
    let zones = drops["zones"].as_array().context("no zones")?;
    let rows = zones.iter().chain([&drops]).filter_map(|zone| zone["reasons"].as_array()).flatten();
    let asked = rows.filter(|row| row["name"].as_str().is_some_and(|name| reasons.contains(name)));
    Ok(asked.map(|row| (row["name"].clone(), row["packets"].clone())).collect())
}

#[test]
fn explain_says_what_would_happen_and_changes_nothing() -> Result<()> {
    let lab = lab()?;
    let _portald = Portald::start(&lab, &Settings::default())?;
    // A client that sends nothing by itself.
    done(&lab, &["allow", VISITOR_MAC])?;
    let (site, gateway) = (SITE_V6.to_string(), GATEWAY_V4.to_string());
    let client_before = portalctl_json(&lab, &["clients", "show", VISITOR_MAC])?;
    let stranger: [(&[&str], &str); 9] = [
        (&[], "http_handshake"),
        (&["--dst", &site], "http_handshake"),
        (&["--dport", "443"], "https_refused"),
        (&["--dport", "22"], "tcp_refused"),
        (&["--proto", "udp", "--dst", &gateway], "dns"),
        (&["--proto", "icmp"], "echo_refused"),
        (&["--vlan", "5"], "no_zone"),
        (&["--data", "GET / HTTP/1.1\\r\\nHost: a.example\\r\\n\\r\\n"], "http_foreign"),
        (&["--proto", "udp", "--dport", "443"], "quic_refused"),
    ];
    let asked: BTreeSet<String> =
        stranger.iter().map(|(_, r)| *r).chain(["authorized", "http_request"]).map(str::to_owned).collect();
    let before = counters(&lab, &asked)?;
    ensure!(!before.is_empty());
    for (flags, reason) in stranger {
        let line = explain_one(&lab, &[&["--mac", GUEST_MAC], flags].concat())?;
        ensure!(line["reason"] == reason, "{flags:?}: {line}");
        ensure!(line["reply_hex"].is_string() == (line["verdict"] == "answered"), "{flags:?}: {line}");
        let text = portalctl(&lab, &[&["explain", "--mac", GUEST_MAC], flags].concat())?.success()?;
        ensure!(text.contains(reason), "for people: {text}");
    }
    assert_eq!(explain_one(&lab, &["--mac", VISITOR_MAC])?["reason"], "authorized");

    // A whole exchange, without a packet: the handshake's answer, then the request that acknowledges it.
    let answer = bytes(&explain_one(&lab, &["--mac", GUEST_MAC, "--src", "192.0.2.10"])?["reply_hex"])?;
    let cookie = u32::from_be_bytes(answer[38..42].try_into()?);
    let ack = cookie.wrapping_add(1).to_string();
    let request = "GET / HTTP/1.1\\r\\nHost: www.example.com\\r\\n\\r\\n";
    let flags = ["--mac", GUEST_MAC, "--src", "192.0.2.10", "--seq", "1001", "--ack", &ack, "--data", request];
    let line = explain_one(&lab, &flags)?;
    ensure!(line["reason"] == "http_request" && line["verdict"] == "redirected", "{line}");
    let response = String::from_utf8_lossy(&bytes(&line["reply_hex"])?).into_owned();
    ensure!(response.contains("HTTP/1.1 511 "), "{response}");

    // The same frames from a file, which tcpdump may have written.
    let frames = [syn(false, 443), syn(true, 443), syn(false, 80)];
    let record = |frame: &Vec<u8>| {
        [&[0, 0, frame.len() as u32, frame.len() as u32].map(u32::to_ne_bytes).concat(), &frame[..]].concat()
    };
    let header = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1_u32].map(u32::to_ne_bytes).concat();
    let file = lab.directory().join("frames.pcap");
    fs::write(&file, [header, frames.iter().flat_map(record).collect()].concat())?;
    let file = file.display().to_string();
    let lines = explain(&lab, &["--file", &file])?;
    let reasons: Vec<_> = lines.iter().map(|line| line["reason"].as_str().unwrap_or_default()).collect();
    assert_eq!(reasons, ["https_refused", "https_refused", "http_handshake"]);
    for (frame, line) in frames.iter().zip(&lines).take(2) {
        assert_eq!(&explain_one(&lab, &[&to_hex(frame)])?, line, "in hexadecimal");
    }
    assert_eq!(counters(&lab, &asked)?, before, "explaining is counted");
    let client = portalctl_json(&lab, &["clients", "show", VISITOR_MAC])?;
    for field in ["up", "down", "bound_addresses", "last_seen_seconds"] {
        assert_eq!(client[field], client_before[field], "explaining changes a session");
    }

    // And that is what happens, to the byte.
    let wire = lab.guest.enter(|| Ok(Wire::open("eth0")?))?;
    for (frame, line) in frames.iter().zip(&lines).take(2) {
        let expected = bytes(&line["reply_hex"])?;
        wire.send(frame)?;
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            let seen = wire.next(until)?.with_context(|| format!("{} did not come", to_hex(&expected)))?;
            if !seen.sent && seen.frame == expected {
                break;
            }
        }
    }
    assert_eq!(counted(&lab, Some("guest"), false, "https_refused")?, 2);
    Ok(())
}

/// Waits until portalctl, which goes on until it is stopped, has printed a line of which this holds; `again` may make it come.
fn wait_for_line(
    told: &Service,
    what: &str,
    line: impl Fn(&Value) -> bool,
    again: impl Fn() -> Result<()>,
) -> Result<()> {
    let has_come = || {
        let come = told.log().lines().filter_map(|line| serde_json::from_str(line).ok()).any(|value| line(&value));
        if come {
            return Some(Ok(()));
        }
        again().err().map(Err)
    };
    wait_for(what, Duration::from_secs(20), has_come).with_context(|| told.log())?
}

/// It ends as by Ctrl-C.
fn interrupt(mut told: Service) -> Result<()> {
    told.signal(Signal::INT)?;
    let status = told.wait(Duration::from_secs(30))?;
    ensure!(status.success(), "{status}: {}", told.log());
    Ok(())
}

#[test]
fn monitor_tells_what_happens_as_lines_of_json() -> Result<()> {
    let lab = lab()?;
    let config = config_text(&lab, &Settings::default());
    let config = format!("{config}\n[[garden]]\nto = \"*.named.example\"\n");
    let _portald = Portald::start_with(&lab, &config, &[])?;
    let told = portalctl_start(&lab, "monitor", &["monitor", "--json"])?;
    let of = |event: &'static str, client: &'static str| {
        move |line: &Value| line["event"] == event && line["client"] == client && line["zone"] == "guest"
    };
    let nothing = || Ok(());
    // Once it is told anything it is told everything.
    wait_for_line(&told, "`allowed`", of("allowed", OTHER_MAC), || done(&lab, &["allow", OTHER_MAC]))?;
    assert_eq!(http::log_in(&lab.guest, PORTAL_URL)?.status, 200);
    wait_for_line(&told, "`login`", of("login", GUEST_MAC), nothing)?;
    // By the kernel: a stranger that was not seen before, and somebody with another's address.
    a_guest(&lab.guest)?;
    let wire = lab.guest.enter(|| Ok(Wire::open_for_sending("eth0", 64 << 10)?))?;
    wire.send(&syn_of(VISITOR_MAC, IpAddr::V4(GUEST_V4), 80))?;
    wait_for_line(&told, "`stranger`", of("stranger", VISITOR_MAC), nothing)?;
    let is_spoof = |line: &Value| {
        of("spoofed_address", VISITOR_MAC)(line)
            && line["owner"] == GUEST_MAC
            && line["address"] == GUEST_V4.to_string()
    };
    wait_for_line(&told, "`spoofed_address`", is_spoof, nothing)?;
    // What is asked for too often, and once more: 500 answers and a few are what one stranger gets at once.
    let refused = syn_of(THIRD_MAC, IpAddr::V4(THIRD_V4), 22);
    let spent = |line: &Value| of("budget_spent", THIRD_MAC)(line) && line["reason"] == "budget_replies";
    wait_for_line(&told, "`budget_spent`", spent, || (0..200).try_for_each(|_| Ok(wire.send(&refused)?)))?;
    done(&lab, &["revoke", OTHER_MAC])?;
    wait_for_line(&told, "`revoked`", of("revoked", OTHER_MAC), nothing)?;
    lab.other.enter(|| dns::ask(IpAddr::V4(GATEWAY_V4), "site1.named.example", Record::A))?;
    let learned = |line: &Value| {
        of("garden_learned", OTHER_MAC)(line) && line["name"] == "site1.named.example" && line["count"] == 2
    };
    wait_for_line(&told, "`garden_learned`", learned, nothing)?;
    // A session's end by itself is told within a minute, or as soon as somebody comes upon it.
    done(&lab, &["allow", OTHER_MAC, "--for", "1s"])?;
    thread::sleep(Duration::from_millis(1200));
    ensure!(portalctl(&lab, &["revoke", OTHER_MAC])?.code == Some(1), "there is no session any more");
    wait_for_line(&told, "`expired`", of("expired", OTHER_MAC), nothing)?;
    done(&lab, &["allow", OTHER_MAC, "--quota", "100B"])?;
    http::curl(&lab.other, &["--max-time", "1", "http://198.51.100.80/"])?;
    wait_for_line(&told, "`quota_spent`", of("quota_spent", OTHER_MAC), nothing)?;
    for line in told.log().lines() {
        let line: Value = serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
        ensure!(line["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{line}");
    }
    interrupt(told)?;

    // For people, and a number of events.
    let mut told = portalctl_start(&lab, "words", &["monitor", "--count", "1"])?;
    let said = || {
        let said = told.log();
        let line = said.lines().next().map(str::to_owned);
        line.map_or_else(|| done(&lab, &["allow", OTHER_MAC]).err().map(Err), |line| Some(Ok(line)))
    };
    let line = wait_for("a line", Duration::from_secs(20), said)??;
    ensure!(line.contains("allowed") && line.contains(OTHER_MAC), "{line}");
    ensure!(told.wait(Duration::from_secs(30))?.success());
    Ok(())
}

#[test]
fn capture_writes_a_clients_frames_with_what_was_done_with_them() -> Result<()> {
    let lab = lab()?;
    let _portald = Portald::start(&lab, &Settings::default())?;
    let file = lab.directory().join("client.pcapng");
    let path = file.display().to_string();
    let capture = portalctl_start(&lab, "capture", &["capture", "--client", GUEST_MAC, "--write", &path])?;
    let begun = || fs::metadata(&file).ok().filter(|file| file.len() > 0).map(drop);
    wait_for("the capture's beginning", Duration::from_secs(10), begun).with_context(|| capture.log())?;
    a_stranger(&lab.guest)?;
    a_stranger(&lab.other)?;
    done(&lab, &["allow", GUEST_MAC])?;
    a_guest(&lab.guest)?;

    let read = |filter: &str| -> Result<Vec<String>> {
        let mut tshark = portal_tools::command("tshark");
        tshark.args(["-n", "-r", &path, "-Y", filter, "-T", "fields", "-e", "frame.comment"]);
        Ok(run(&mut tshark, Duration::from_secs(20))?.success()?.lines().map(str::to_owned).collect())
    };
    let (from, to) = (format!("eth.src == {GUEST_MAC}"), format!("eth.dst == {GUEST_MAC}"));
    // Frames come as they are read from the kernel: the last one may take a moment.
    let all_there = || {
        let last = read(&format!(
            "{to} && ipv6 && tcp.srcport == 80 && tcp.len > 0 && frame.comment contains \"passed: authorized\""
        ));
        last.map(|frames| (!frames.is_empty()).then_some(())).transpose()
    };
    wait_for("the site's page", Duration::from_secs(20), all_there)??;
    interrupt(capture)?;
    for version in ["ip.version == 4", "ipv6.version == 6"] {
        let table = [
            ("the stranger's SYN", &from, "tcp.flags.syn == 1", "answered: http_handshake: "),
            ("its request", &from, "http.request", "redirected: http_request: "),
            ("the guest's SYN", &from, "tcp.flags.syn == 1", "passed: authorized: "),
            ("the guest's request", &from, "http.request", "passed: authorized: "),
            ("the site's page", &to, "tcp.srcport == 80 && tcp.len > 0", "passed: authorized: "),
        ];
        for (sentence, direction, filter, comment) in table {
            let comments = read(&format!("{version} && {direction} && {filter}"))?;
            ensure!(comments.iter().any(|c| c.starts_with(comment)), "{version}, {sentence}: {comments:?}");
        }
    }
    assert_eq!(read(&format!("!({from} || {to})"))?, Vec::<String>::new(), "another client's");
    let without = read("!frame.comment")?;
    ensure!(without.is_empty(), "{} frames without a comment", without.len());

    // What is in it can be asked about again.
    ensure!(explain(&lab, &["--file", &path])?.len() > 10);
    Ok(())
}

#[test]
fn a_capture_goes_on_where_its_network_is_attached_again() -> Result<()> {
    let mut lab = lab()?;
    let visitor = lab.add_second_network()?;
    let _portald = Portald::start_with(&lab, &two_networks(&lab), &[])?;
    let file = lab.directory().join("visitor.pcapng");
    let path = file.display().to_string();
    let arguments = ["capture", "--client", VISITOR_MAC, "--zone", "second", "--write", &path];
    let capture = portalctl_start(&lab, "capture", &arguments)?;
    let length = || fs::metadata(&file).map_or(0, |file| file.len());
    let grows = |what: &str, beyond: u64| {
        wait_for(what, Duration::from_secs(10), || (length() > beyond).then_some(())).with_context(|| capture.log())
    };
    grows("the capture's beginning", 0)?;
    let begun = length();
    whisper(&visitor)?;
    grows("a captured frame", begun)?;
    done(&lab, &["zones", "detach", "second", "--open"])?;
    done(&lab, &["zones", "attach", "second"])?;
    let before = length();
    whisper(&visitor)?;
    grows("a frame after the network was attached again", before)?;
    interrupt(capture)
}

/// The first network, and a second that differs.
fn two_networks(lab: &Lab) -> String {
    let config = config_text(lab, &Settings::default());
    format!("{config}\n[[zone]]\nname = \"second\"\ninterface = \"{SECOND_INTERFACE}\"\nhttps = \"drop\"\n")
}

/// Sends a datagram of one byte to the site: too little to be answered.
fn whisper(from: &portal_lab::Namespace) -> Result<()> {
    from.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.send_to(&[1], (SITE_V4, 9_999))?;
        Ok(())
    })
}

const TOO_LARGE: &str = Reason::AnswerTooLarge.name();

#[test]
fn drops_are_counted_by_network_and_reason() -> Result<()> {
    let mut lab = lab()?;
    let visitor = lab.add_second_network()?;
    let _portald = Portald::start_with(&lab, &two_networks(&lab), &[])?;
    let dropped = |zone: &str, reason: &str| counted(&lab, Some(zone), false, reason);
    whisper(&lab.guest)?;
    whisper(&visitor)?;
    whisper(&visitor)?;
    assert_eq!((dropped("guest", TOO_LARGE)?, dropped("second", TOO_LARGE)?), (1, 2));
    visitor.enter(|| {
        for site in SITES {
            let _: std::io::Result<_> =
                TcpStream::connect_timeout(&SocketAddr::new(site, 443), Duration::from_millis(200));
        }
        Ok(())
    })?;
    ensure!(dropped("second", "https_dropped")? >= 2);
    assert_eq!(dropped("guest", "https_dropped")?, 0);
    let one = portalctl_json(&lab, &["drops", "--zone", "second"])?;
    let rows = one["reasons"].as_array().context("no reasons")?;
    ensure!(rows.iter().all(|row| row["outcome"] == "dropped"), "{one}");
    let row = rows.iter().find(|row| row["name"] == TOO_LARGE).with_context(|| format!("no {TOO_LARGE}"))?;
    assert_eq!((row["packets"].as_u64(), row["text"].as_str()), (Some(2), Some(Reason::AnswerTooLarge.text())));
    let text = portalctl(&lab, &["drops"])?.success()?;
    for words in ["zone guest:", "zone second:", TOO_LARGE, "https_dropped"] {
        ensure!(text.contains(words), "no {words}: {text}");
    }
    let refused = portalctl(&lab, &["drops", "--zone", "third"])?;
    ensure!(refused.code == Some(1) && refused.stderr.contains("second"), "{refused:?}");

    let watch = portalctl_start(&lab, "drops", &["drops", "--watch", "--json"])?;
    for (client, zone) in [(&lab.guest, "guest"), (&visitor, "second")] {
        let added = |line: &Value| {
            line["reason"] == TOO_LARGE && line["zone"] == zone && line["packets"].as_u64().is_some_and(|n| n > 0)
        };
        wait_for_line(&watch, "what was added", added, || whisper(client))?;
    }
    interrupt(watch)
}
