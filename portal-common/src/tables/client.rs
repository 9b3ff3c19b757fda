//! What the kernel keeps of each client that is logged in.

use core::mem::{align_of, size_of};

/// How many addresses a session can be bound to: an IPv4 address, a link-local one, and what a phone uses of IPv6 at once.
pub const MAX_BINDINGS: usize = 8;

/// What the kernel keeps of a session, beside what the daemon wrote. Zeroed by the daemon before it is handed to a session.
///
/// `W` is the form of a word: atomic in the kernel, where several CPUs write; plain where it has been read out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ClientState<W> {
    /// When the client last sent a frame that passed, nanoseconds of CLOCK_MONOTONIC; late by up to a second.
    pub last_seen_ns: W,
    /// Bytes counted against the quota; counted only where there is one.
    pub quota_used: W,
    /// What the client sent.
    pub up: Flow<W>,
    /// What the client received.
    pub down: Flow<W>,
    /// The addresses it uses.
    pub bindings: Bindings<W>,
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

/// The addresses that a session is bound to, each as two words in network order ([`super::Address::words`]); zero where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Bindings<W> {
    /// In no order.
    pub addresses: [[W; 2]; MAX_BINDINGS],
}

impl Bindings<u64> {
    /// The addresses there are.
    pub fn iter(&self) -> impl Iterator<Item = super::Address> + '_ {
        self.addresses.iter().filter(|words| **words != [0; 2]).map(|words| super::Address::from_words(*words))
    }
}

const _: () = assert!(size_of::<ClientState<u64>>() == 192 && align_of::<ClientState<u64>>() == 8);
const _: () = assert!(size_of::<ClientState<core::sync::atomic::AtomicU64>>() == 192);
