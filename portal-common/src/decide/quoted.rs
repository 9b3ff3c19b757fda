//! The packet inside of an ICMP error: what somebody has sent, and what it is about (RFC 792, RFC 4443 section 3).

use super::network::mapped;
use crate::{family::Family, frame::Frame};

/// What an error quotes.
pub(super) struct Quoted {
    pub(super) source: [u64; 2],
    pub(super) destination: [u64; 2],
    /// The IP protocol number.
    pub(super) protocol: u8,
    /// Where its header starts.
    pub(super) at: usize,
}

/// The IPv4 packet at this offset.
#[inline(always)]
pub(super) fn v4<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<Quoted> {
    const LEN: usize = Family::V4.header_len();
    const WITHOUT_OPTIONS: u8 = 0x45;
    let h = frame.read::<LEN>(at)?;
    // A fragment that is not the first has no ports.
    if h[0] != WITHOUT_OPTIONS || u16::from_be_bytes([h[6], h[7]]) & 0x1fff != 0 {
        return None;
    }
    let word = |i: usize| mapped(u32::from_be_bytes([h[i], h[i + 1], h[i + 2], h[i + 3]]));
    Some(Quoted { source: word(12), destination: word(16), protocol: h[9], at: at + LEN })
}

/// The IPv6 packet at this offset.
#[inline(always)]
pub(super) fn v6<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<Quoted> {
    const LEN: usize = Family::V6.header_len();
    let h = frame.read::<8>(at)?;
    if h[0] >> 4 != 6 {
        return None;
    }
    let half = |i: usize| frame.read::<8>(at + i).map(u64::from_be_bytes);
    Some(Quoted { source: [half(8)?, half(16)?], destination: [half(24)?, half(32)?], protocol: h[6], at: at + LEN })
}
