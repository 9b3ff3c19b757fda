//! Bad input: a clear error or a counted drop; nothing lost, nothing let through.

use std::{
    collections::BTreeMap,
    io::Write as _,
    net::{Shutdown, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};
use portal_lab::{
    Lab, Portald, Settings,
    addresses::{GUEST_MAC, OTHER_MAC},
    portald::{binary, config_text, portalctl, portalctl_json, portald, refused, socket},
    process::{Output, run, wait_for},
};
use portal_userspace::responder::answers::{Answers, Choice, Family as IpVersion, Status};
use serde_json::Value;

use crate::expect::{REQUEST, a_guest, a_stranger, connections, done, read_to_end};
use crate::turn::lab;

/// The command must fail with this code and name all of these on standard error, and must not panic.
fn assert_refused(sentence: &str, output: &Output, code: i32, words: &[&str]) {
    assert_eq!(output.code, Some(code), "{sentence}: {output:?}");
    for word in words {
        assert!(
            output.stderr.to_lowercase().contains(&word.to_lowercase()),
            "{sentence}: no \"{word}\" in: {}",
            output.stderr
        );
    }
    assert!(!output.stderr.contains("panicked"), "{sentence}: {}", output.stderr);
}

#[test]
fn portald_refuses_what_it_cannot_guard_and_says_why() -> Result<()> {
    let lab = lab()?;
    lab.gateway.ip("link add bridge0 type bridge")?;
    lab.gateway.ip("link set bridge0 up")?;
    lab.gateway.ip("addr add 203.0.113.1/24 dev bridge0")?;
    let on = |interface: &str| config_text(&lab, &Settings { interface: interface.to_owned(), ..Settings::default() });
    let good = on("guest0");
    for (sentence, config, words) in [
        ("no such interface", on("nowhere0"), vec!["nowhere0"]),
        ("an interface without native XDP", on("bridge0"), vec!["bridge0", "generic"]),
        ("not TOML", "[guest\n".to_owned(), vec!["refused.toml"]),
        ("an unknown key", good.replace("xdp_mode", "xdp_mod"), vec!["xdp_mod", "xdp_mode"]),
        ("an unknown value", good.replace("\"native\"", "\"fast\""), vec!["fast", "native", "generic"]),
        ("no interface", "[portal]\nsession = \"8h\"\n".to_owned(), vec!["interface"]),
        ("a session that is no time", good.replace("\"8h\"", "\"soon\""), vec!["session"]),
        ("room for nobody", format!("{good}[limits]\nclients = 0\n"), vec!["clients"]),
    ] {
        let output = refused(&lab, &config)?;
        assert_refused(sentence, &output, 1, &words);
    }
    let missing = lab.directory().join("missing.toml").display().to_string();
    assert_refused("no config file", &portald(&lab, &["--config", &missing])?, 1, &["missing.toml"]);
    // Root reads whatever its mode is, so the unreadable config is a directory.
    let directory = lab.directory().display().to_string();
    assert_refused("an unreadable config", &portald(&lab, &["--config", &directory])?, 1, &[&directory]);
    assert_refused("no such option", &portald(&lab, &["--nonsense"])?, 2, &["--nonsense"]);
    let shown = lab.gateway.ip("link show")?;
    assert!(!shown.contains("xdp"), "a refused start must leave nothing attached: {shown}");
    Ok(())
}

#[test]
fn a_second_portald_is_refused_and_the_first_goes_on() -> Result<()> {
    let lab = lab()?;
    let mut first = Portald::start(&lab, &Settings::default())?;
    let output = refused(&lab, &config_text(&lab, &Settings::default()))?;
    assert_refused("a second portald", &output, 1, &["another portald is running"]);
    // With a socket of its own it still finds the pins taken.
    let other_socket = config_text(&lab, &Settings::default()).replace("portald.sock", "second.sock");
    assert_refused("a second portald with its own socket", &refused(&lab, &other_socket)?, 1, &["another portald"]);
    a_stranger(&lab.guest)?;
    done(&lab, &["status"])?;
    assert!(first.stop(Duration::from_secs(30))?.success());
    Ok(())
}

#[test]
fn portalctl_says_what_is_wrong() -> Result<()> {
    let lab = lab()?;
    let output = portalctl(&lab, &["status"])?;
    assert_refused("portald is not running", &output, 1, &["portald", "running"]);
    let _portald = Portald::start(&lab, &Settings::default())?;
    for (sentence, arguments, code, words) in [
        ("a MAC that isn't one", vec!["allow", "nonsense"], 2, vec!["nonsense", "MAC"]),
        ("a MAC of a group", vec!["allow", "01:00:5e:00:00:01"], 2, vec!["01:00:5e:00:00:01"]),
        ("a time that isn't one", vec!["allow", GUEST_MAC, "--for", "soon"], 2, vec!["soon"]),
        ("a client that isn't there", vec!["clients", "show", GUEST_MAC], 1, vec![GUEST_MAC]),
        ("revoking a client that isn't there", vec!["revoke", GUEST_MAC], 1, vec![GUEST_MAC]),
        ("no such command", vec!["nonsense"], 2, vec!["nonsense"]),
    ] {
        assert_refused(sentence, &portalctl(&lab, &arguments)?, code, &words);
    }
    // Someone who is neither root nor in the socket's group.
    let output = as_nobody(&binary("portalctl")?, &["--socket", &socket(&lab).display().to_string(), "status"])?;
    assert_refused("someone without permission", &output, 1, &["permission", "root"]);
    a_stranger(&lab.guest)
}

/// Runs the program as a user without any right, even one to the directories that the program is in.
fn as_nobody(program: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = portal_tools::command("sh");
    command.args([
        "-c",
        "exec 9<\"$0\" && exec setpriv --reuid=65534 --regid=65534 --clear-groups /proc/self/fd/9 \"$@\"",
    ]);
    run(command.arg(program).args(arguments), Duration::from_secs(10))
}

#[test]
fn the_lab_refuses_whoever_is_not_root_and_says_why() -> Result<()> {
    let _lab = lab()?;
    for action in ["up", "demo"] {
        let output = as_nobody(Path::new(env!("CARGO_BIN_EXE_lab")), &[action])?;
        assert_refused(action, &output, 1, &["root", "namespaces"]);
    }
    // Root, but of a user namespace only.
    let as_rootless = |program: &str, arguments: &[&str]| {
        let mut command = portal_tools::command("unshare");
        run(command.args(["--user", "--map-root-user", program]).args(arguments), Duration::from_secs(10))
    };
    // In a chroot the kernel makes no user namespaces (user_namespaces(7)), and an administrator can forbid them.
    if as_rootless("true", &[])?.code == Some(0) {
        let output = as_rootless(env!("CARGO_BIN_EXE_lab"), &["up"])?;
        assert_refused("rootless", &output, 1, &["root", "rootless container"]);
    } else {
        println!("not shown: this machine makes no user namespaces");
    }
    Ok(())
}

#[test]
fn a_full_client_map_refuses_the_next_and_keeps_the_others() -> Result<()> {
    let lab = lab()?;
    let _portald = Portald::start(&lab, &Settings { clients: Some(2), ..Settings::default() })?;
    done(&lab, &["allow", GUEST_MAC])?;
    done(&lab, &["allow", OTHER_MAC])?;
    assert_refused(
        "a third client",
        &portalctl(&lab, &["allow", "00:00:5e:00:53:12"])?,
        1,
        &["2 places", "limits.clients"],
    );
    a_guest(&lab.guest)?;
    a_guest(&lab.other)?;
    // A place that is given back is a place.
    done(&lab, &["revoke", OTHER_MAC])?;
    a_stranger(&lab.other)?;
    done(&lab, &["allow", "00:00:5e:00:53:12"])
}

#[test]
fn whatever_comes_on_port_80_gets_its_fixed_answer() -> Result<()> {
    let lab = lab()?;
    let mut portald = Portald::start_without_budgets(&lab)?;
    let gate = &portalctl_json(&lab, &["status"])?["gate"];
    let url = |name: &str| gate[name].as_str().with_context(|| format!("no {name} in {gate}"));
    let answers = Answers::new(url("url_v4")?, url("url_v6")?)?;
    let hello = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];
    let tls: Vec<u8> = hello.into_iter().chain((0..506_u32).map(|n| (n * 97 % 251) as u8)).collect();
    let garbage: Vec<u8> = (0..1000_u32).map(|n| (n * 7919 % 256) as u8).collect();
    let head = b"POST /upload HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 10000000\r\n\r\n";
    let big: Vec<u8> = head.iter().copied().chain(std::iter::repeat_n(b'x', 10_000_000)).collect();
    let long: Vec<u8> = b"GET /".iter().copied().chain(std::iter::repeat_n(b'a', 20_000)).collect();
    let fields: Vec<u8> =
        b"GET / HTTP/1.1\r\nHost: a\r\nX: ".iter().copied().chain(std::iter::repeat_n(b'a', 20_000)).collect();
    for (sentence, bytes, status) in [
        ("TLS", tls.as_slice(), Status::BadRequest),
        ("garbage", &garbage, Status::BadRequest),
        ("no Host", b"GET / HTTP/1.1\r\n\r\n", Status::BadRequest),
        ("another version", b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", Status::VersionNotSupported),
        ("a 10 MB request", &big, Status::AuthenticationRequired),
        ("a request line without an end", &long, Status::TargetTooLong),
        ("a header without an end", &fields, Status::FieldsTooLarge),
    ] {
        let before = Counters::read(&lab)?;
        for (site, mut stream) in connections(&lab.guest)? {
            let family = if site.is_ipv4() { IpVersion::V4 } else { IpVersion::V6 };
            let answer = send_and_read(&mut stream, bytes).with_context(|| format!("{sentence} to {site}"))?;
            let expected = answers.pick(Choice { status, head: false }, family).bytes();
            assert_eq!(String::from_utf8_lossy(&answer), String::from_utf8_lossy(expected), "{sentence} to {site}");
        }
        let grown = Counters::read(&lab)?.since(&before);
        for reason in ["http_handshake", "http_request"] {
            assert!(grown.reasons.get(reason) >= Some(&2), "{sentence}: {reason} did not grow by 2: {grown:?}");
        }
        // One answer per IP version, and no answer of another kind.
        let answered: Vec<_> = grown.responder.iter().filter(|(name, _)| name.starts_with("answered_")).collect();
        assert!(
            matches!(answered[..], [(name, count)] if name == status.counter_name() && *count >= 2),
            "{sentence}: {answered:?}"
        );
    }
    // Connections that say nothing, or half of something, and go.
    let before = Counters::read(&lab)?;
    for (_, stream) in connections(&lab.guest)? {
        stream.shutdown(Shutdown::Both)?;
    }
    for (_, mut stream) in connections(&lab.guest)? {
        stream.write_all(&REQUEST[..10])?;
    }
    let counted = || {
        let grown = Counters::read(&lab).ok()?.since(&before).responder;
        // Half of a request is answered as a bad one (RFC 9112 section 8).
        ["closed", "answered_400"].iter().all(|name| grown.get(*name) >= Some(&2)).then_some(())
    };
    wait_for("two closed connections and two answered with 400", Duration::from_secs(30), counted)
        .with_context(|| format!("{:?}", Counters::read(&lab).map(|now| now.since(&before))))?;
    a_stranger(&lab.guest)?;
    assert!(portald.is_running()?);
    done(&lab, &["status"])
}

/// What portalctl counts.
#[derive(Debug)]
struct Counters {
    responder: BTreeMap<String, u64>,
    reasons: BTreeMap<String, u64>,
}

impl Counters {
    fn read(lab: &Lab) -> Result<Self> {
        let responder = portalctl_json(lab, &["status"])?["responder"].clone();
        let drops = portalctl_json(lab, &["drops", "--all"])?;
        let reasons = drops["reasons"].as_array().with_context(|| format!("no reasons in {drops}"))?;
        let row = |row: &Value| {
            let (name, packets) =
                row["name"].as_str().zip(row["packets"].as_u64()).with_context(|| format!("{row}"))?;
            Ok((name.to_owned(), packets))
        };
        Ok(Self {
            responder: serde_json::from_value(responder)?,
            reasons: reasons.iter().map(row).collect::<Result<_>>()?,
        })
    }

    /// What has grown, and by how much.
    fn since(&self, before: &Self) -> Self {
        let grown = |now: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>| {
            let rows = now.iter().map(|(name, n)| (name.clone(), n - before.get(name).unwrap_or(&0)));
            rows.filter(|(_, n)| *n > 0).collect()
        };
        Self { responder: grown(&self.responder, &before.responder), reasons: grown(&self.reasons, &before.reasons) }
    }
}

/// Sends what the other side takes, then what it answers, which must end with the end of the stream and not with a reset.
fn send_and_read(stream: &mut TcpStream, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut reader = stream.try_clone()?;
    stream.set_write_timeout(Some(Duration::from_secs(8)))?;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // A reset while sending is no matter here: the reader meets it too.
            let _ = stream.write_all(bytes);
        });
        read_to_end(&mut reader)
    })
}
