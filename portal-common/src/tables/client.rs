//! What the kernel keeps of each client that is logged in.

use core::mem::{align_of, offset_of, size_of};

use super::{AddressWord, Bindings, ClientKey, Session};

/// A row of the table of clients: three cache lines. A packet needs the first, the line of its address where that is not the first, and the last where it is
/// metered.
///
/// `W` is the form of a word: atomic in the kernel, where several CPUs write; plain where it has been read out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ClientRow<W> {
    /// Whose it is; [`ClientKey::NONE`] for nobody's.
    pub client: ClientKey,
    /// What the daemon wrote.
    pub session: Session,
    /// What came of it.
    pub state: ClientState<W>,
}

/// What the kernel keeps of a session, beside what the daemon wrote. Zeroed by the daemon before it is handed to a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ClientState<W> {
    /// When the client last sent a frame that passed, nanoseconds of CLOCK_MONOTONIC; late by up to a second,
    /// and where the client rests ([`super::RecentPass`]) by up to 69 s.
    pub last_seen_ns: W,
    /// The addresses it uses.
    pub bindings: Bindings<W>,
    /// What puts the rest into a cache line of its own.
    pub reserved: [W; 2],
    /// Bytes counted against the quota; counted only where there is one.
    pub quota_used: W,
    /// What the client sent.
    pub up: Flow<W>,
    /// What the client received.
    pub down: Flow<W>,
}

/// What passed in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Flow<W> {
    /// Frames.
    pub packets: W,
    /// Bytes of whole Ethernet frames, without the check sequence.
    pub bytes: W,
    /// The rate limit's token bucket: see [`crate::bucket`].
    pub bucket: W,
}

const LINE: usize = 64;
const _: () = assert!(size_of::<ClientRow<u64>>() == 3 * LINE && align_of::<ClientRow<u64>>() == 8);
const _: () = assert!(size_of::<ClientRow<core::sync::atomic::AtomicU64>>() == 3 * LINE);
// The first address is in the first line, and all that is metered is in the last.
const STATE: usize = offset_of!(ClientRow<u64>, state);
const _: () = assert!(STATE + offset_of!(ClientState<u64>, bindings) + size_of::<AddressWord>() == LINE);
const _: () = assert!(STATE + offset_of!(ClientState<u64>, quota_used) >= 2 * LINE);
