//! The login page's listeners.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{self, AddressFamily, SocketFlags, SocketType, sockopt},
};
use tokio::net::TcpListener;

/// How long an IPv6 address may take to become usable: duplicate address detection takes 1 s by default, plus a random
/// delay of at most 1 s (RFC 4862 section 5.4).
const DETECTION: Duration = Duration::from_secs(4);
/// Connections that have been made but not accepted yet.
const BACKLOG: i32 = 1024;

/// Largest segment, bytes, as in the gate's own answers: it crosses any link that IPv6 crosses (RFC 8200 section 5), so that the page loads behind a tunnel or a
/// repeater whose router reports nothing.
const SEGMENT: u32 = 1220;

/// Why the login page can't listen.
#[derive(Debug, thiserror::Error)]
#[error("the login page cannot listen on {address}: {}", cause(*errno, *address))]
pub struct BindError {
    /// Where.
    pub address: SocketAddr,
    /// The kernel's answer.
    #[source]
    pub errno: Errno,
}

fn cause(errno: Errno, address: SocketAddr) -> String {
    match errno {
        Errno::ADDRINUSE => format!(
            "another program listens there (`ss -ltnp 'sport = :{}'` names it); stop it, or choose another port in \
             `portal.listen`",
            address.port()
        ),
        Errno::ADDRNOTAVAIL => "this machine does not have the address; add it to the guest interface (`ip address \
                                add`), or correct `portal.listen`"
            .into(),
        Errno::ACCESS => "permission denied; ports under 1024 need root or CAP_NET_BIND_SERVICE".into(),
        Errno::AFNOSUPPORT => "the kernel has this address family disabled; enable it, or remove the address from \
                               `portal.listen`"
            .into(),
        other => format!("{other}; check `portal.listen`"),
    }
}

/// Listens on every one of these addresses, or on none; with a device only to what arrives there.
pub async fn bind(addresses: &[SocketAddr], device: Option<&str>) -> Result<Vec<TcpListener>, BindError> {
    let until = Instant::now() + DETECTION;
    let mut listeners = Vec::with_capacity(addresses.len());
    for &address in addresses {
        let listener = loop {
            match listen(address, device) {
                // The address may be tentative still.
                Err(Errno::ADDRNOTAVAIL) if address.is_ipv6() && Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                other => break other.map_err(|errno| BindError { address, errno })?,
            }
        };
        listeners.push(listener);
    }
    Ok(listeners)
}

fn listen(address: SocketAddr, device: Option<&str>) -> Result<TcpListener, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
    // Connections of a daemon that has just ended must not keep the next one out.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        // So that `[::]` and `0.0.0.0` can stand beside each other, whatever net.ipv6.bindv6only says.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    socket2::SockRef::from(&socket).set_tcp_mss(SEGMENT).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    if let Some(device) = device {
        // Two sockets can have one address on two devices, and each hears its own network.
        socket2::SockRef::from(&socket)
            .bind_device(Some(device.as_bytes()))
            .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    }
    net::bind(&socket, &address)?;
    net::listen(&socket, BACKLOG)?;
    TcpListener::from_std(socket.into()).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
}

/// The address that a listener has: with its port where 0 was asked for.
pub fn local_addresses(listeners: &[TcpListener]) -> io::Result<Vec<SocketAddr>> {
    listeners.iter().map(TcpListener::local_addr).collect()
}
