//! One `AF_XDP` socket: its memory, its rings, and the frames that go round between them.
//!
//! A frame is always in one place: free, in the fill ring (the kernel may receive into it), in our hands for the length of
//! one [`Socket::turn`], or in flight (given to the kernel to send, not yet completed). [`Frames`] counts them; none is
//! ever lost, as each lost one would make the responder a little more deaf.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{SendFlags, send},
};
use xdp::{
    CompletionRing, Packet, RingConfigBuilder, RxRing, Umem, WakableFillRing, WakableTxRing,
    error::SocketError,
    nic::NicIndex,
    slab::{Slab as _, StackSlab},
    socket::{XdpSocket, XdpSocketBuilder},
    umem::{FrameSize, UmemCfgBuilder},
};

use super::segment::REPLY_MAX;

/// What a frame of 2 KiB holds beside the headroom that the kernel keeps for itself (`XDP_PACKET_HEADROOM`).
pub(super) const FRAME_CAPACITY: usize = 2048 - 256;
const _: () = assert!(REPLY_MAX <= FRAME_CAPACITY);

/// How many frames are handled in one turn.
const BATCH: usize = 64;
/// How many frames the kernel sends in one call, at most (`TX_BATCH_SIZE` in `net/xdp/xsk.c`): more calls are needed for more,
/// and the kernel asks for them with EAGAIN.
const KERNEL_BATCH: usize = 32;
/// How often a call to send is repeated beyond that before other work is done.
const RETRIES: usize = 8;
/// When the kernel is called again after it could not take everything.
const CONGESTED: Duration = Duration::from_millis(1);
/// When it is called again after the interface was down, or gone.
const DOWN: Duration = Duration::from_millis(200);
/// When completions are looked for again while so many frames are in flight that the fill ring might run dry: a dry fill
/// ring receives nothing, and so would never wake us.
const IN_FLIGHT: Duration = Duration::from_millis(5);
/// The kernel gives up a closed socket's queue from a work queue (`xp_put_pool` in `net/xdp/xsk_buff_pool.c`), so that a
/// restarted daemon finds it busy for a moment.
const BIND_PATIENCE: Duration = Duration::from_secs(3);
const BIND_PAUSE: Duration = Duration::from_millis(50);

/// How a socket is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// How many frames of 2 KiB each socket has: a power of two.
    pub frames: u32,
    /// Demand that the driver receives into our memory without copying. Few drivers can; veth can't.
    pub zero_copy: bool,
}

impl Default for SocketOptions {
    /// 2,048 frames, 4 MiB; copying.
    fn default() -> Self {
        Self { frames: 2048, zero_copy: false }
    }
}

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The number of frames is no ring size.
    #[error("a socket can't have {0} frames: use a power of two from 64 to 65,536")]
    Frames(u32),
    /// The memory could not be had.
    #[error("no memory for {frames} frames of 2 KiB: lower the number of frames")]
    Memory {
        /// How many frames were asked for.
        frames: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("cannot {step} an AF_XDP socket on queue {queue} of interface {ifindex}: {remedy}")]
    Kernel {
        /// What was being done.
        step: &'static str,
        /// On which queue.
        queue: u32,
        /// On which interface.
        ifindex: u32,
        /// What to do about it.
        remedy: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Where the frames are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frames {
    /// Nobody uses them.
    pub free: usize,
    /// The kernel may receive into them, or has and we have not looked yet.
    pub filling: usize,
    /// The kernel sends them.
    pub in_flight: usize,
}

impl Frames {
    /// All of them.
    pub fn total(&self) -> usize {
        self.free + self.filling + self.in_flight
    }
}

/// What a turn has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Frames received.
    pub received: usize,
    /// Frames given to the kernel to send.
    pub sent: usize,
    /// Calls to send that the kernel refused for the moment.
    pub retries: u64,
    /// Frames that could not be given to the kernel. The rings are large enough for all frames, so there should be none.
    pub unsent: usize,
    /// Why the kernel does not send at all now.
    pub stopped: Option<Errno>,
}

impl Turn {
    /// Whether there may be more to receive at once.
    pub fn is_full(&self) -> bool {
        self.received == BATCH
    }
}

/// A received frame, to be read and then rewritten in place.
pub struct Frame<'a>(&'a mut Packet);

impl Frame<'_> {
    /// What was received.
    pub fn bytes(&self) -> &[u8] {
        self.0
    }

    /// Replaces it by a frame of this length; whether that fits.
    pub fn rewrite(&mut self, length: usize, write: impl FnOnce(&mut [u8])) -> bool {
        self.0.clear();
        let fits = i32::try_from(length).is_ok_and(|length| self.0.adjust_tail(length).is_ok());
        if fits {
            write(self.0);
        }
        fits
    }
}

/// An `AF_XDP` socket with memory of its own.
pub struct Socket {
    // Dropped first, so that the kernel has let go of the memory when it is unmapped.
    descriptor: XdpSocket,
    fill: WakableFillRing,
    receive: RxRing,
    send: WakableTxRing,
    completion: CompletionRing,
    memory: Umem,
    total: usize,
    filling: usize,
    in_flight: usize,
    retry_after: Option<Duration>,
}

impl Socket {
    /// Opens a socket on a receive queue. Until it is put into the gate's table of sockets it receives nothing.
    pub fn open(ifindex: u32, queue: u32, options: SocketOptions) -> Result<Self, OpenError> {
        if !options.frames.is_power_of_two() || !(64..=65536).contains(&options.frames) {
            return Err(OpenError::Frames(options.frames));
        }
        let mut waited = Duration::ZERO;
        loop {
            match Self::try_open(ifindex, queue, options) {
                Err(OpenError::Kernel { source, .. })
                    if source.raw_os_error() == Some(libc::EBUSY) && waited < BIND_PATIENCE =>
                {
                    std::thread::sleep(BIND_PAUSE);
                    waited += BIND_PAUSE;
                }
                done => return done,
            }
        }
    }

    fn try_open(ifindex: u32, queue: u32, options: SocketOptions) -> Result<Self, OpenError> {
        let refused = |step, error| kernel_refused(ifindex, queue, step, error);
        let frames = options.frames;
        let memory = UmemCfgBuilder { frame_size: FrameSize::TwoK, frame_count: frames, ..UmemCfgBuilder::default() }
            .build()
            .map_err(|_| OpenError::Frames(frames))?;
        let memory = Umem::map(memory).map_err(|source| OpenError::Memory { frames, source })?;
        // Every ring can hold every frame: no ring is ever full.
        let rings =
            RingConfigBuilder { rx_count: frames, tx_count: frames, fill_count: frames, completion_count: frames }
                .build()
                .map_err(|_| OpenError::Frames(frames))?;
        let mut builder = XdpSocketBuilder::new().map_err(|e| refused("create", e))?;
        let (rings, mut flags) = builder.build_wakable_rings(&memory, rings).map_err(|e| refused("set up", e))?;
        if options.zero_copy {
            flags.force_zerocopy();
        } else {
            flags.force_copy();
        }
        let descriptor = builder.bind(NicIndex::new(ifindex), queue, flags).map_err(|e| refused("bind", e))?;
        let mut socket = Self {
            descriptor,
            fill: rings.fill_ring,
            receive: rings.rx_ring.expect("its size is not zero"),
            send: rings.tx_ring.expect("its size is not zero"),
            completion: rings.completion_ring,
            memory,
            total: frames as usize,
            filling: 0,
            in_flight: 0,
            retry_after: None,
        };
        socket.recycle();
        Ok(socket)
    }

    /// Where the frames are.
    pub fn frames(&self) -> Frames {
        Frames { free: self.memory.allocatable(), filling: self.filling, in_flight: self.in_flight }
    }

    /// Receives a batch, lets `handle` rewrite each frame, and sends those for which it returns true. Never blocks.
    pub fn turn(&mut self, mut handle: impl FnMut(&mut Frame<'_>) -> bool) -> Turn {
        let mut turn = Turn::default();
        let mut received = StackSlab::<BATCH>::new();
        let mut outgoing = StackSlab::<BATCH>::new();
        self.recycle();
        // SAFETY: the packets stay in `received` and `outgoing`, which don't outlive this call, and `self.memory` does.
        turn.received = unsafe { self.receive.recv(&self.memory, &mut received) };
        self.filling -= turn.received;
        while let Some(mut packet) = received.pop_back() {
            let rejected = if handle(&mut Frame(&mut packet)) { outgoing.push_front(packet) } else { Some(packet) };
            if let Some(packet) = rejected {
                self.memory.free_packet(packet);
            }
        }
        if !outgoing.is_empty() {
            // SAFETY: `self.memory` owns the packets, and it is dropped after `self.descriptor`. Without the wakeup there is no
            // system call that could fail.
            turn.sent = unsafe { self.send.send(&mut outgoing, false) }.unwrap_or_default();
            self.in_flight += turn.sent;
            while let Some(packet) = outgoing.pop_back() {
                turn.unsent += 1;
                self.memory.free_packet(packet);
            }
        }
        if turn.sent > 0 || self.retry_after.is_some() {
            self.push(&mut turn);
        }
        self.recycle();
        debug_assert_eq!(self.frames().total(), self.total, "a frame is lost");
        turn
    }

    /// Makes the kernel send what is in the ring.
    fn push(&mut self, turn: &mut Turn) {
        self.retry_after = Some(CONGESTED);
        for _ in 0..self.in_flight / KERNEL_BATCH + RETRIES {
            match send(&*self, &[], SendFlags::DONTWAIT) {
                Ok(_) => {
                    self.retry_after = None;
                    return;
                }
                // The batch is full, the completion ring is, the driver's queue is, or the socket's send buffer: each is
                // normal, and completing what was sent makes room.
                Err(Errno::AGAIN | Errno::BUSY | Errno::NOBUFS | Errno::INTR) => {
                    turn.retries += 1;
                    self.recycle();
                }
                // The interface is down or gone. The frames wait in the ring.
                Err(error) => {
                    self.retry_after = Some(DOWN);
                    turn.stopped = Some(error);
                    return;
                }
            }
        }
    }

    /// Takes back what was sent, and offers all free frames to the kernel to receive into.
    fn recycle(&mut self) {
        self.in_flight -= self.completion.dequeue(&mut self.memory, self.total);
        // SAFETY: `self.memory` is dropped after `self.descriptor`. Without the wakeup there is no system call that could fail:
        // the kernel needs none in copy mode, and in zero-copy mode `poll` is one.
        self.filling += unsafe { self.fill.enqueue(&mut self.memory, self.total, false) }.unwrap_or_default();
    }

    /// Sleeps until there is something to do: a frame has come, `wake` is readable, or the kernel can be called again for what
    /// it could not send.
    pub fn wait(&self, wake: BorrowedFd<'_>) -> io::Result<()> {
        let many_in_flight = self.in_flight * 2 >= self.total;
        let timeout = self.retry_after.or(many_in_flight.then_some(IN_FLIGHT));
        let timeout =
            timeout.map(|t| Timespec { tv_sec: t.as_secs().cast_signed(), tv_nsec: i64::from(t.subsec_nanos()) });
        let mut fds = [PollFd::new(self, PollFlags::IN), PollFd::from_borrowed_fd(wake, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: `self.descriptor` owns the descriptor, keeps it open for as long as `self` is borrowed, and it is not -1.
        unsafe { BorrowedFd::borrow_raw(self.descriptor.as_raw_fd()) }
    }
}

impl std::os::fd::AsRawFd for Socket {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.descriptor.as_raw_fd()
    }
}

fn kernel_refused(ifindex: u32, queue: u32, step: &'static str, error: SocketError) -> OpenError {
    let source = match error {
        SocketError::SocketCreation(e) | SocketError::Bind(e) => e,
        SocketError::SetSockOpt { inner, .. }
        | SocketError::GetSockOpt { inner, .. }
        | SocketError::RingMap { inner, .. } => inner,
    };
    let remedy = match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "run as root, or with CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF",
        Some(libc::EAFNOSUPPORT) => "this kernel has no AF_XDP: use one with CONFIG_XDP_SOCKETS",
        Some(libc::EBUSY) => "another program has a socket on this queue: stop it (`ss --xdp` shows which)",
        Some(libc::EOPNOTSUPP) => "the driver can't do zero-copy: turn it off in the configuration",
        Some(libc::EINVAL) => "the interface has no such queue: `ethtool -l` shows how many it has",
        Some(libc::ENODEV) => "there is no such interface any more",
        Some(libc::ENETDOWN) => "the interface is down: `ip link set DEV up`",
        Some(libc::ENOBUFS | libc::ENOMEM) => {
            "the limit of locked memory is too low: raise `LimitMEMLOCK` (`ulimit -l`)"
        }
        _ => "see the cause below",
    };
    OpenError::Kernel { step, queue, ifindex, remedy, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_remedy() {
        assert_eq!(
            Socket::open(1, 0, SocketOptions { frames: 100, ..SocketOptions::default() }).err().unwrap().to_string(),
            "a socket can't have 100 frames: use a power of two from 64 to 65,536"
        );
        for (code, expected) in [
            (libc::EPERM, "run as root"),
            (libc::EBUSY, "another program"),
            (libc::EINVAL, "no such queue"),
            (libc::ENODEV, "no such interface"),
        ] {
            let error = kernel_refused(7, 3, "bind", SocketError::Bind(io::Error::from_raw_os_error(code)));
            let text = error.to_string();
            assert!(text.contains("queue 3 of interface 7") && text.contains(expected), "{text}");
        }
    }
}
