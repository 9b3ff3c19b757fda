//! The gate's crafted replies are accepted by Linux's own stack: what is refused fails at once, rather than hangs.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use portal_lab::{
    Lab, Portald, Settings,
    addresses::SITES,
    clients::http::{self, Family},
};

/// What "at once" is.
const AT_ONCE: Duration = Duration::from_millis(500);

#[test]
fn refused_traffic_fails_at_once() -> Result<()> {
    let lab = Lab::new()?;
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
