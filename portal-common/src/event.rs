//! What the kernel tells the daemon: records in ring buffers.

use core::mem::size_of;

use crate::{
    reason::Reason,
    tables::{Address, ClientKey, OwnedAddress},
};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum EventKind {
    /// A client sent from an address that belongs to `other`.
    SpoofedAddress = 1,
    /// A client sent from the gateway's address or a resolver's.
    GatewayAddress = 2,
    /// A client used more addresses than a session may have (only where strict).
    TooManyAddresses = 3,
    /// A stranger has spent the budget that `reason` names. Told at most once in ten seconds for each stranger.
    BudgetSpent = 4,
    /// A client has used up its quota.
    QuotaSpent = 5,
    /// A stranger was seen for the first time, or for the first time in a long while.
    Stranger = 6,
    /// A session got a new address.
    AddressLearned = 7,
}

impl EventKind {
    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SpoofedAddress => "spoofed_address",
            Self::GatewayAddress => "gateway_address",
            Self::TooManyAddresses => "too_many_addresses",
            Self::BudgetSpent => "budget_spent",
            Self::QuotaSpent => "quota_spent",
            Self::Stranger => "stranger",
            Self::AddressLearned => "address_learned",
        }
    }
}

impl TryFrom<u32> for EventKind {
    type Error = u32;

    fn try_from(number: u32) -> Result<Self, u32> {
        Ok(match number {
            1 => Self::SpoofedAddress,
            2 => Self::GatewayAddress,
            3 => Self::TooManyAddresses,
            4 => Self::BudgetSpent,
            5 => Self::QuotaSpent,
            6 => Self::Stranger,
            7 => Self::AddressLearned,
            other => return Err(other),
        })
    }
}

/// What the gate tells. Numbers that user space does not know are of another version, and are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// When: nanoseconds of CLOCK_MONOTONIC, by the tick.
    pub at_ns: u64,
    /// An [`EventKind`]'s number.
    pub kind: u32,
    /// A [`Reason`]'s number, or 0.
    pub reason: u32,
    /// Whose frame it was.
    pub client: ClientKey,
    /// The client that the address belongs to, or all zero.
    pub other: ClientKey,
    /// The address that it is about, or all zero.
    pub address: Address,
}

impl Event {
    /// An event about a client, and nothing else.
    #[inline(always)]
    pub const fn new(at_ns: u64, kind: EventKind, client: ClientKey) -> Self {
        Self { at_ns, kind: kind as u32, reason: 0, client, other: ClientKey::NONE, address: Address([0; 16]) }
    }

    /// About this address.
    #[inline(always)]
    #[must_use]
    pub const fn with_address(self, owned: &OwnedAddress) -> Self {
        Self { address: owned.address(), ..self }
    }

    /// About this other client.
    #[inline(always)]
    #[must_use]
    pub const fn with_other(self, other: ClientKey) -> Self {
        Self { other, ..self }
    }

    /// For this reason.
    #[inline(always)]
    #[must_use]
    pub const fn with_reason(self, reason: Reason) -> Self {
        Self { reason: reason as u32, ..self }
    }
}

/// What the daemon marks a DNS answer with (SO_MARK) that it has learned from and sends on: "PORT" in ASCII.
pub const RELAYED_MARK: u32 = 0x504f_5254;

/// As much of a frame as a record holds, bytes: a full Ethernet frame with two VLAN tags fits. A power of two, so that a length can be masked.
pub const RECORDED_BYTES: usize = 2048;

/// A frame that crossed the gate or the meter, for a capture or to be learned from.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct FrameRecord {
    /// When: nanoseconds of CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// The interface's index.
    pub ifindex: u32,
    /// The frame's length, bytes; may be more than was recorded.
    pub frame_len: u32,
    /// How much was recorded, bytes.
    pub len: u32,
    /// A [`Reason`]'s number, or 0.
    pub reason: u32,
    /// The zone's number.
    pub zone: u16,
    /// The tag control information of a VLAN tag that the kernel keeps beside the frame. Outbound frames only.
    pub vlan_tci: u16,
    /// The EtherType of that tag; 0 where there is none.
    pub vlan_protocol: u16,
    /// What was done with it: an XDP action's number; for an outbound frame 2 (passed) or 1 (dropped).
    pub action: u8,
    /// [`FrameRecord::OUTBOUND`] and [`FrameRecord::SHADOW`], or 0.
    pub flags: u8,
    /// The frame's first `len` bytes.
    pub bytes: [u8; RECORDED_BYTES],
}

/// How many records found no room in their ring buffer, or came too fast, on one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Lost {
    /// Of [`Event`]s.
    pub events: u64,
    /// Of captured frames.
    pub captures: u64,
    /// Of DNS answers to be learned from, which were dropped.
    pub answers: u64,
    /// What keeps a flood of events from occupying the daemon: a token bucket.
    pub bucket: u64,
}

impl FrameRecord {
    /// A flag: the client is sent it. Without, the client sent it.
    pub const OUTBOUND: u8 = 1;
    /// A flag: the zone is in shadow mode, so that the frame passed whatever the action says.
    pub const SHADOW: u8 = 2;
    /// What stands before the frame's bytes, bytes.
    pub const HEAD_BYTES: usize = size_of::<Self>() - RECORDED_BYTES;
}

const _: () = assert!(size_of::<Event>() == 48);
const _: () = assert!(size_of::<FrameRecord>() == 32 + RECORDED_BYTES);
