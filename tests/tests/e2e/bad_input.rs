//! Bad input: a clear error or a counted drop; nothing lost, nothing let through.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use portal_lab::{
    Lab, Portald, Settings,
    addresses::{GUEST_MAC, OTHER_MAC},
    portald::{config_text, portalctl, portalctl_json, portald, refused, socket},
    process::{Output, run},
};

use crate::expect::{REQUEST, a_guest, a_stranger, connections, done};

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
    let lab = Lab::new()?;
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
    let lab = Lab::new()?;
    let mut first = Portald::start(&lab, &Settings::default())?;
    let output = refused(&lab, &config_text(&lab, &Settings::default()))?;
    assert_refused("a second portald", &output, 1, &["another portald is running"]);
    // With a socket of its own it still finds the pins taken.
    let other_socket = config_text(&lab, &Settings::default()).replace("portald.sock", "second.sock");
    assert_refused("a second portald with its own socket", &refused(&lab, &other_socket)?, 1, &["another portald"]);
    a_stranger(&lab.guest)?;
    done(&lab, &["status"])?;
    assert!(first.stop(Duration::from_secs(2))?.success());
    Ok(())
}

#[test]
fn portalctl_says_what_is_wrong() -> Result<()> {
    let lab = Lab::new()?;
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
    let mut nobody = Command::new("setpriv");
    nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups", "curl", "-sS", "--fail", "--unix-socket"]);
    let output = run(nobody.arg(socket(&lab)).arg("http://localhost/v1/status"), Duration::from_secs(5))?;
    assert_ne!(output.code, Some(0), "everybody may use the control socket: {output:?}");
    a_stranger(&lab.guest)
}

#[test]
fn a_full_client_map_refuses_the_next_and_keeps_the_others() -> Result<()> {
    let lab = Lab::new()?;
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
fn whatever_comes_on_port_80_gets_a_fixed_answer_or_none() -> Result<()> {
    let lab = Lab::new()?;
    let mut portald = Portald::start(&lab, &Settings::default())?;
    let hello = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];
    let tls: Vec<u8> = hello.into_iter().chain((0..506_u32).map(|n| (n * 97 % 251) as u8)).collect();
    let garbage: Vec<u8> = (0..1000_u32).map(|n| (n * 7919 % 256) as u8).collect();
    let head = b"POST /upload HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 10000000\r\n\r\n";
    let big: Vec<u8> = head.iter().copied().chain(std::iter::repeat_n(b'x', 10_000_000)).collect();
    let long: Vec<u8> = b"GET /".iter().copied().chain(std::iter::repeat_n(b'a', 20_000)).collect();
    for (sentence, bytes, statuses) in [
        ("TLS", &tls, vec!["400"]),
        ("garbage", &garbage, vec!["400"]),
        ("a 10 MB request", &big, vec!["511"]),
        ("a request line without an end", &long, vec!["400", "414", "511"]),
    ] {
        for (site, mut stream) in connections(&lab.guest)? {
            let answer = send_and_read(&mut stream, bytes).with_context(|| format!("{sentence} to {site}"))?;
            let text = String::from_utf8_lossy(&answer);
            let status = text.split(' ').nth(1).unwrap_or_default();
            assert!(text.starts_with("HTTP/1.1 ") && statuses.contains(&status), "{sentence} to {site}: {text}");
            assert!(!text.contains("upload") && !text.contains("aaaa"), "{sentence} to {site} is reflected: {text}");
        }
    }
    // Connections that say nothing, or half of something, and go.
    for (_, stream) in connections(&lab.guest)? {
        stream.shutdown(Shutdown::Both)?;
    }
    for (_, mut stream) in connections(&lab.guest)? {
        stream.write_all(&REQUEST[..10])?;
    }
    a_stranger(&lab.guest)?;
    let drops = portalctl_json(&lab, &["drops", "--all"])?;
    println!("drops: {drops}");
    assert!(portald.is_running()?);
    done(&lab, &["status"])
}

/// Sends what the other side takes, then what it answers. It may close before it has all.
fn send_and_read(stream: &mut TcpStream, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut reader = stream.try_clone()?;
    reader.set_read_timeout(Some(Duration::from_secs(8)))?;
    stream.set_write_timeout(Some(Duration::from_secs(8)))?;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // A reset while sending is no matter here: what was answered is.
            let _ = stream.write_all(bytes);
        });
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(answer),
                Ok(n) => answer.extend_from_slice(&buffer[..n]),
                Err(_) if !answer.is_empty() => return Ok(answer),
                Err(e) => return Err(e.into()),
            }
        }
    })
}
