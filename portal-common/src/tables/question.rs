//! What clients without a session have asked servers beyond their reach: only what was asked is answered.

use core::mem::{align_of, size_of};

use super::{AddressWord, ClientKey};

/// For how long an answer may come: a resolver's client gives up sooner (RFC 1035 section 4.2.1 asks for 2 to 5 seconds).
pub const ANSWERED_WITHIN_NS: u64 = 10 * 1_000_000_000;
/// How many questions are remembered. An LRU's rows: a flood of questions displaces the oldest.
pub const MAX_QUESTIONS: u32 = 65_536;

/// A question by UDP: whose it is, from where, to whom, and what it asks. An answer has the same.
// Words alone, so that there is no padding that the kernel would compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct Question {
    client: u64,
    address: u64,
    server: u64,
    what: u64,
}

impl Question {
    /// Asked by this client, from this address and port, of this server.
    #[inline(always)]
    pub const fn new(client: ClientKey, address: AddressWord, server: AddressWord, port: u16, asked: Asked) -> Self {
        let what = (port as u64) << 48 | (asked.id as u64) << 32 | asked.hash as u64;
        Self { client: client.to_word(), address: address.to_word(), server: server.to_word(), what }
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The DNS message's id.
    id: u16,
    /// Of the question; 0 stands for the time.
    hash: u32,
}

impl Asked {
    /// The time (NTP).
    pub const TIME: Self = Self { id: 0, hash: 0 };

    /// This DNS question.
    #[inline(always)]
    pub const fn name(id: u16, hash: u32) -> Self {
        Self { id, hash: hash | 1 }
    }
}

const _: () = assert!(size_of::<Question>() == 32 && align_of::<Question>() == 8);
