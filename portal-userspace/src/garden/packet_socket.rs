//! The raw socket that held frames go on by.
#![expect(unsafe_code, reason = "no crate makes the address of a link-layer socket")]

use std::io;

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use super::relay::FrameSender;

// Only who has CAP_NET_ADMIN can set it.
pub use portal_common::event::RELAYED_MARK as MARK;

/// Sends whole Ethernet frames out of any interface of the network namespace it was opened in. It receives nothing.
#[derive(Debug)]
pub struct PacketSocket(Socket);

impl PacketSocket {
    /// Opens it. It needs CAP_NET_RAW, and CAP_NET_ADMIN for the mark.
    pub fn open() -> Result<Self, OpenError> {
        let step = |step| move |source| OpenError { step, source };
        // Protocol 0: the kernel gives it no frames (packet(7)).
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0))).map_err(step("open"))?;
        socket.set_mark(MARK).map_err(step("mark"))?;
        // A full queue loses an answer, which the guest asks for again; waiting would hold up everybody's.
        socket.set_nonblocking(true).map_err(step("set up"))?;
        Ok(Self(socket))
    }
}

/// Why it could not be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot {step} the raw socket that DNS answers go on by: {source}; portald needs CAP_NET_RAW and CAP_NET_ADMIN for names in the garden"
)]
pub struct OpenError {
    step: &'static str,
    source: io::Error,
}

impl FrameSender for PacketSocket {
    fn send(&mut self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        let ifindex = libc::c_int::try_from(ifindex).map_err(|_| io::ErrorKind::InvalidInput)?;
        let sent = self.0.send_to(frame, &address(ifindex, 0))?;
        if sent == frame.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}

/// The address of an interface (packet(7)); `protocol` in network byte order, 0 to only send.
pub(super) fn address(ifindex: libc::c_int, protocol: u16) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: every field of `sockaddr_ll` is an integer or an array of them, and it is not larger than the storage, which the
    // method asserts.
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family = libc::AF_PACKET as libc::sa_family_t;
    link.sll_protocol = protocol;
    link.sll_ifindex = ifindex;
    // SAFETY: the storage holds a `sockaddr_ll`, whose length this is.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}
