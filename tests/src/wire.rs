//! Frames as they are on a wire: sent and seen at an interface, whatever the stack would make of them.
#![expect(
    unsafe_code,
    reason = "packet sockets and their auxiliary data (packet(7)) have no safe wrapper in the crates in use"
)]

use std::{
    io::{Error, ErrorKind, Result},
    mem::size_of,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr,
    time::{Duration, Instant},
};

/// The longest frame that is received whole.
const LONGEST: usize = 65_536;

/// A packet socket on one interface.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
    index: libc::c_int,
}

/// A frame that was seen at the interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The whole frame, with its VLAN tags, without its check sequence.
    pub frame: Vec<u8>,
    /// Whether this machine sent it; otherwise it arrived.
    pub sent: bool,
}

impl Wire {
    /// Opens the interface in the calling thread's network namespace: call it in [`crate::Namespace::enter`]. Frames are seen
    /// behind an XDP program of the interface, and behind what tcx lets out of it.
    pub fn open(interface: &str) -> Result<Self> {
        Self::open_with(interface, (libc::ETH_P_ALL as u16).to_be())
    }

    fn open_with(interface: &str, protocol: u16) -> Result<Self> {
        // Of no protocol at first: nothing of another interface is received before the binding.
        // SAFETY: no pointer is passed.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        check(fd)?;
        // SAFETY: the descriptor is new, and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let index = rustix::net::netdevice::name_to_index(&socket, interface)?;
        let index = libc::c_int::try_from(index).map_err(|_| Error::from(ErrorKind::InvalidData))?;
        let wire = Self { socket, index };
        let address = wire.address(protocol);
        // SAFETY: the address is initialised and of the length that is given.
        check(unsafe {
            libc::bind(wire.socket.as_raw_fd(), ptr::from_ref(&address).cast(), size_of::<libc::sockaddr_ll>() as u32)
        })?;
        wire.set(libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)?;
        wire.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 64 << 20)?;
        Ok(wire)
    }

    fn set(&self, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> Result<()> {
        let length = size_of::<libc::c_int>() as u32;
        // SAFETY: the value is an int, as these options take it, and of the length that is given.
        check(unsafe {
            libc::setsockopt(self.socket.as_raw_fd(), level, option, ptr::from_ref(&value).cast(), length)
        })?;
        Ok(())
    }

    fn address(&self, protocol: u16) -> libc::sockaddr_ll {
        libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: protocol,
            sll_ifindex: self.index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [0; 8],
        }
    }

    /// Sends the frame as it is. It must have an Ethernet header at least.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let address = self.address(0);
        // SAFETY: the frame and the address are of the lengths that are given.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                ptr::from_ref(&address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        if sent < 0 { Err(Error::last_os_error()) } else { Ok(()) }
    }

    /// Sends the frames, as many as the kernel takes at once; returns how many that were.
    pub fn send_many(&self, frames: &[Vec<u8>]) -> Result<usize> {
        let mut vectors: Vec<_> =
            frames.iter().map(|f| libc::iovec { iov_base: f.as_ptr().cast_mut().cast(), iov_len: f.len() }).collect();
        let header = |vector: &mut libc::iovec| {
            // SAFETY: all zero is a valid header: null pointers with lengths of zero.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            (message.msg_hdr.msg_iov, message.msg_hdr.msg_iovlen) = (vector, 1);
            message
        };
        let mut messages: Vec<_> = vectors.iter_mut().map(header).collect();
        // SAFETY: each header has a vector, and each vector a frame, that outlive the call; what is sent is only read.
        let sent = unsafe {
            libc::sendmmsg(self.socket.as_raw_fd(), messages.as_mut_ptr(), messages.len() as libc::c_uint, 0)
        };
        usize::try_from(sent).map_err(|_| Error::last_os_error())
    }

    /// Takes the shortest way to the driver, for whoever sends much.
    pub fn bypass_queueing(&self) -> Result<()> {
        self.set(libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)
    }

    /// A socket for sending alone: nothing is received. Sending waits while this much memory is on its way (socket(7),
    /// SO_SNDBUF), some 800 bytes for a small frame.
    pub fn open_for_sending(interface: &str, on_its_way: i32) -> Result<Self> {
        let wire = Self::open_with(interface, 0)?;
        // The kernel doubles it.
        wire.set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, on_its_way / 2)?;
        Ok(wire)
    }

    /// The next frame, if one comes until then.
    pub fn next(&self, until: Instant) -> Result<Option<Seen>> {
        let left = until.saturating_duration_since(Instant::now());
        let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let milliseconds = libc::c_int::try_from(left.as_micros().div_ceil(1000)).unwrap_or(libc::c_int::MAX);
        // SAFETY: one descriptor is passed, and one is there.
        if check(unsafe { libc::poll(&raw mut poll, 1, milliseconds) })? == 0 {
            return Ok(None);
        }
        self.receive().map(Some)
    }

    /// What comes within this time, until nothing has come for that long.
    pub fn within(&self, limit: Duration) -> Result<Vec<Seen>> {
        let until = Instant::now() + limit;
        let mut seen = Vec::new();
        while let Some(frame) = self.next(until)? {
            seen.push(frame);
        }
        Ok(seen)
    }

    /// Throws away what has come so far.
    pub fn clear(&self) -> Result<()> {
        self.within(Duration::ZERO).map(drop)
    }

    fn receive(&self) -> Result<Seen> {
        let mut frame = vec![0_u8; LONGEST];
        let mut vector = libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() };
        let mut from = self.address(0);
        // Aligned as control messages are, and larger than one of auxiliary data.
        let mut control = [0_u64; 16];
        // SAFETY: all zero is a valid header: null pointers with lengths of zero.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_name = ptr::from_mut(&mut from).cast();
        header.msg_namelen = size_of::<libc::sockaddr_ll>() as u32;
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control);
        // SAFETY: every pointer in the header is to memory of the length beside it, which outlives the call.
        let length = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut header, 0) };
        let length = usize::try_from(length).map_err(|_| Error::last_os_error())?;
        frame.truncate(length);
        // SAFETY: the kernel has filled the header in.
        let mut message = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
        while !message.is_null() {
            // SAFETY: it is not null, so it is a whole message in the buffer; this level and type have this data.
            unsafe {
                if ((*message).cmsg_level, (*message).cmsg_type) == (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
                    let data = ptr::read_unaligned(libc::CMSG_DATA(message).cast::<libc::tpacket_auxdata>());
                    put_tag_back(&mut frame, &data);
                }
                message = libc::CMSG_NXTHDR(&raw const header, message);
            }
        }
        Ok(Seen { frame, sent: from.sll_pkttype == libc::PACKET_OUTGOING })
    }
}

/// The kernel takes the outermost VLAN tag out of a frame before a packet socket sees it (`skb_vlan_untag` in
/// net/core/dev.c, Linux 6.18).
fn put_tag_back(frame: &mut Vec<u8>, data: &libc::tpacket_auxdata) {
    if data.tp_status & libc::TP_STATUS_VLAN_VALID == 0 || frame.len() < 12 {
        return;
    }
    let protocol = if data.tp_status & libc::TP_STATUS_VLAN_TPID_VALID == 0 { 0x8100 } else { data.tp_vlan_tpid };
    let tag = [protocol.to_be_bytes(), data.tp_vlan_tci.to_be_bytes()].concat();
    frame.splice(12..12, tag);
}

fn check(result: libc::c_int) -> Result<libc::c_int> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}
