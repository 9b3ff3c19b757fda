//! The gate's crafted replies are accepted by Linux's own stack: what is refused fails at once, rather than hangs.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use portal_lab::{
    Lab, Portald, Settings,
    addresses::{GUEST_MAC, SITES},
    clients::http::{self, Family},
    process::{succeed, wait_for},
};

use crate::{
    expect::{REQUEST, connections, done, read_to_end, the_511},
    turn::lab,
};

/// What "at once" is: sooner than the first repetition of a SYN (1 s, RFC 6298), which tells a refusal from a loss.
const AT_ONCE: Duration = Duration::from_millis(900);

#[test]
fn refused_traffic_fails_at_once() -> Result<()> {
    let lab = lab()?;
    let _portald = Portald::start(&lab, &Settings::default())?;
    for family in Family::ALL {
        let output = http::curl(&lab.guest, &["-k", family.option(), "https://www.example.com/"])?;
        // curl(1): 7 is a connection that was refused.
        ensure!(output.code == Some(7) && output.took < AT_ONCE, "{family:?}: {output:?}");
    }
    for site in SITES {
        for port in [22, 443, 853, 8080] {
            let (kind, took) = lab.guest.enter(|| Ok(tcp_error(SocketAddr::new(site, port))))?;
            ensure!(
                kind == Some(ErrorKind::ConnectionRefused) && took < AT_ONCE,
                "TCP {site} {port}: {kind:?}, {took:?}"
            );
        }
        // An ICMP port unreachable.
        udp_fails(&lab, site, 443, &[libc::ECONNREFUSED])?;
        // Administratively prohibited: Linux says EHOSTUNREACH for IPv4 (net/ipv4/icmp.c) and EACCES for IPv6 (net/ipv6/icmp.c).
        udp_fails(&lab, site, 9999, &[libc::EHOSTUNREACH, libc::EACCES])?;
    }
    Ok(())
}

fn tcp_error(to: SocketAddr) -> (Option<ErrorKind>, Duration) {
    let start = Instant::now();
    let result = TcpStream::connect_timeout(&to, Duration::from_secs(3));
    (result.err().map(|e| e.kind()), start.elapsed())
}

/// A datagram brings back one of these errors at once.
fn udp_fails(lab: &Lab, to: IpAddr, port: u16, expected: &[i32]) -> Result<()> {
    let local = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    lab.guest.enter(|| {
        let socket = UdpSocket::bind(local)?;
        socket.connect((to, port))?;
        socket.set_read_timeout(Some(Duration::from_secs(3)))?;
        let start = Instant::now();
        // The answer quotes what it answers and is never larger than that, so a short datagram gets none.
        socket.send(&[b'x'; 200])?;
        let result = socket.recv(&mut [0; 64]);
        let took = start.elapsed();
        match result {
            Err(e) if e.raw_os_error().is_some_and(|n| expected.contains(&n)) && took < AT_ONCE => Ok(()),
            result => bail!("UDP {to} {port}: {result:?} after {took:?}"),
        }
    })
}

#[test]
fn an_open_connection_of_a_revoked_client_is_reset_at_once() -> Result<()> {
    let lab = lab()?;
    let _portald = Portald::start(&lab, &Settings::default())?;
    for site in SITES {
        for port in [80, 443] {
            done(&lab, &["allow", GUEST_MAC])?;
            let mut stream = lab.guest.connect(site, port, Duration::from_secs(5))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            if port == 80 {
                // It is the site that the connection leads to.
                stream.write_all(b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n")?;
                let mut answer = [0; 4096];
                let length = stream.read(&mut answer)?;
                ensure!(answer[..length].starts_with(b"HTTP/1.1 200 "), "{site}: {answer:?}");
                // The rest of it, if there is: the read below must find nothing but the reset.
                stream.set_read_timeout(Some(Duration::from_millis(300)))?;
                while stream.read(&mut answer).is_ok_and(|n| n > 0) {}
                stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            }
            done(&lab, &["revoke", GUEST_MAC])?;
            let start = Instant::now();
            stream.write_all(REQUEST)?;
            let result = stream.read(&mut [0; 64]);
            let took = start.elapsed();
            let kind = result.as_ref().map_err(std::io::Error::kind);
            ensure!(
                kind == Err(ErrorKind::ConnectionReset) && took < AT_ONCE,
                "{site} port {port}: {result:?} after {took:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_client_that_closes_without_a_request_is_closed_on_both_sides() -> Result<()> {
    let lab = lab()?;
    let _portald = Portald::start(&lab, &Settings::default())?;
    for (site, stream) in connections(&lab.guest)? {
        let port = stream.local_addr()?.port();
        // Its FIN must be acknowledged, and the gate's own accepted: TIME-WAIT follows only then (RFC 9293 section 3.3.2).
        drop(stream);
        let state = || {
            let filter = format!("sport = :{port}");
            let shown = succeed(lab.guest.client("ss").args(["-H", "-tan", &filter])).unwrap_or_else(|e| e.to_string());
            shown.split_whitespace().next().unwrap_or_default().to_owned()
        };
        wait_for("TIME-WAIT", AT_ONCE, || (state() == "TIME-WAIT").then_some(()))
            .with_context(|| format!("{site}: the socket is in {:?}", state()))?;
    }
    Ok(())
}

#[test]
fn a_long_upload_is_acknowledged_to_its_end() -> Result<()> {
    let lab = lab()?;
    let _portald = Portald::start_without_budgets(&lab)?;
    for (site, mut stream) in connections(&lab.guest)? {
        let expected = the_511(&lab, site)?;
        stream.set_write_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(b"POST /upload HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 10000000\r\n\r\n")?;
        stream.write_all(&vec![b'x'; 10_000_000]).with_context(|| format!("{site}: the body is refused"))?;
        let answer = read_to_end(&mut stream).with_context(|| format!("{site}"))?;
        ensure!(answer == expected, "{site}: {}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}
