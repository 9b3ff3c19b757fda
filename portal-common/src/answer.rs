//! The answers that the gate writes into the frame it answers.
//!
//! None is larger than its cause, so that a spoofed source gains nothing and a frame only ever shrinks.

use core::num::NonZeroUsize;

use crate::{checksum::Sum, family::Family, flag, frame::Frame, protocol as p};

/// An answer to a frame, to be written over it.
// Flat on purpose: an enum with payloads would lie in memory as overlapping bytes, which the BPF stack cannot hold unaligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What to answer.
    pub kind: Kind,
    /// The family of the frame's network header.
    pub family: Family,
    /// Where the frame's network header starts, bytes.
    pub network_at: usize,
    /// The sequence number of a TCP answer.
    pub seq: u32,
    /// The acknowledgement number of a TCP answer.
    pub ack: u32,
}

/// What to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A SYN-ACK without options.
    SynAck,
    /// A SYN-ACK that announces our maximum segment size.
    SynAckWithMss,
    /// An acknowledgement.
    Ack,
    /// A reset.
    Reset,
    /// A reset that acknowledges, in answer to a segment that does not.
    ResetAck,
    /// Nothing listens there: ICMP 3/3 (RFC 792), ICMPv6 1/4 (RFC 4443 section 3.1).
    PortUnreachable,
    /// A policy forbids it: ICMP 3/13 (RFC 1812 section 5.2.7.1), ICMPv6 1/1.
    Prohibited,
}

impl Kind {
    /// TCP's flags, nothing for ICMP.
    #[inline(always)]
    const fn tcp_flags(self) -> Option<u8> {
        match self {
            Self::SynAck | Self::SynAckWithMss => Some(flag::SYN | flag::ACK),
            Self::Ack => Some(flag::ACK),
            Self::Reset => Some(flag::RST),
            Self::ResetAck => Some(flag::RST | flag::ACK),
            Self::PortUnreachable | Self::Prohibited => None,
        }
    }
}

/// A response that the gate sends in the responder's stead: one segment with FIN, as the responder writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// The family of the frame's network header.
    pub family: Family,
    /// Where the frame's network header starts, bytes.
    pub network_at: usize,
    /// The sequence number.
    pub seq: u32,
    /// The acknowledgement number.
    pub ack: u32,
    /// The response's length, bytes.
    pub len: usize,
    /// The sum of the response's bytes.
    pub sum: Sum,
}

impl Response {
    /// Where the response begins in its frame, bytes.
    #[inline(always)]
    pub const fn payload_at(&self) -> usize {
        self.network_at + self.family.header_len() + TCP_LEN
    }

    /// The length of its frame, bytes.
    #[inline(always)]
    pub const fn frame_len(&self) -> usize {
        self.payload_at() + self.len
    }

    /// Writes the headers over those of the frame with the request. The response itself belongs at [`Response::payload_at`].
    #[inline(always)]
    #[must_use]
    pub fn write_headers<F: Frame + ?Sized>(&self, frame: &mut F) -> Option<()> {
        let Self { family, network_at, seq, ack, len, sum } = *self;
        let head = Answer { kind: Kind::Ack, family, network_at, seq, ack };
        let pseudo = match family {
            Family::V4 => head.reverse_ipv4(frame, p::TCP, TCP_LEN + len)?,
            Family::V6 => head.reverse_ipv6(frame, p::TCP, TCP_LEN + len)?,
        };
        head.write_tcp(frame, flag::FIN | flag::PSH | flag::ACK, pseudo.sum(sum))?;
        swap::<6, F>(frame, 0, 6)?;
        Some(())
    }
}

const TCP_LEN: usize = 20;
/// The length of a TCP header with the one option, bytes.
pub(crate) const TCP_LEN_WITH_MSS: usize = TCP_LEN + 4;
/// A request in segments of this size crosses any link that IPv6 crosses (RFC 8200 section 5), and fits an AF_XDP frame.
const MSS: u16 = 1220;
/// RFC 9293 section 3.2: kind 2, length 4.
const MSS_OPTION: u32 = 0x0204 << 16 | MSS as u32;
/// Room for a request while the responder reads it. Without window scaling this is the most there is.
const WINDOW: u16 = u16::MAX;

/// The shortest frame on a wire, without the check sequence, bytes (IEEE 802.3 section 3.2.7).
const ETHERNET_MIN: usize = 60;

const ICMP_HEADER_LEN: usize = 8;
/// What is quoted of the payload: the ports, which is what RFC 792 demands and what a host needs to find its socket. RFC 1812 and RFC 4443
/// ask for as much as fits; the rule that an answer is never larger than its cause comes first here.
const QUOTED_PAYLOAD_LEN: usize = 8;
const IPV4_QUOTE_LEN: usize = Family::V4.header_len() + QUOTED_PAYLOAD_LEN;
const IPV6_QUOTE_LEN: usize = Family::V6.header_len() + QUOTED_PAYLOAD_LEN;
/// The length of an ICMP answer with its IPv4 header, bytes.
pub(crate) const ICMPV4_ANSWER_LEN: usize = Family::V4.header_len() + ICMP_HEADER_LEN + IPV4_QUOTE_LEN;
/// The length of an ICMPv6 answer with its IPv6 header, bytes.
pub(crate) const ICMPV6_ANSWER_LEN: usize = Family::V6.header_len() + ICMP_HEADER_LEN + IPV6_QUOTE_LEN;

const _: () = assert!(IPV4_QUOTE_LEN == 3 * 8 + 4 && IPV6_QUOTE_LEN == 6 * 8);
// The quote is copied forwards, so it must not overlap what it quotes.
const _: () = assert!(IPV4_QUOTE_LEN <= Family::V4.header_len() + ICMP_HEADER_LEN);
const _: () = assert!(IPV6_QUOTE_LEN <= Family::V6.header_len() + ICMP_HEADER_LEN);

const HOP_LIMIT: u8 = 64;

impl Answer {
    /// Fills the place of an answer where there is none.
    pub(crate) const NONE: Self = Self { kind: Kind::Ack, family: Family::V4, network_at: 0, seq: 0, ack: 0 };

    /// Writes the answer over the frame that it answers; the frame's new length, or nothing if the frame is too short.
    // The writers are functions of their own in the kernel too: inlined, they would need more than the 512 bytes of BPF stack.
    // For its sake they also go word by word. A BPF function returns one register, hence the lengths that are never zero.
    #[inline(always)]
    #[must_use]
    pub fn write<F: Frame + ?Sized>(&self, frame: &mut F) -> Option<NonZeroUsize> {
        let payload_len = match (self.family, self.kind.tcp_flags()) {
            (Family::V4, Some(flags)) => self.write_tcp_v4(frame, flags)?,
            (Family::V6, Some(flags)) => self.write_tcp_v6(frame, flags)?,
            (Family::V4, None) => self.write_icmp_v4(frame)?,
            (Family::V6, None) => self.write_icmp_v6(frame)?,
        };
        swap::<6, F>(frame, 0, 6)?;
        // Not every driver pads the frames that XDP sends. What pads here is left of the frame that is answered.
        NonZeroUsize::new((self.payload_at() + payload_len.get()).max(ETHERNET_MIN).min(frame.len()))
    }

    #[inline(always)]
    const fn payload_at(&self) -> usize {
        self.network_at + self.family.header_len()
    }

    #[inline(never)]
    fn write_tcp_v4<F: Frame + ?Sized>(&self, frame: &mut F, flags: u8) -> Option<NonZeroUsize> {
        let pseudo = self.reverse_ipv4(frame, p::TCP, self.tcp_len())?;
        self.write_tcp(frame, flags, pseudo)
    }

    #[inline(never)]
    fn write_tcp_v6<F: Frame + ?Sized>(&self, frame: &mut F, flags: u8) -> Option<NonZeroUsize> {
        let pseudo = self.reverse_ipv6(frame, p::TCP, self.tcp_len())?;
        self.write_tcp(frame, flags, pseudo)
    }

    #[inline(always)]
    const fn tcp_len(&self) -> usize {
        match self.kind {
            Kind::SynAckWithMss => TCP_LEN_WITH_MSS,
            _ => TCP_LEN,
        }
    }

    #[inline(always)]
    fn write_tcp<F: Frame + ?Sized>(&self, frame: &mut F, flags: u8, pseudo: Sum) -> Option<NonZeroUsize> {
        let at = self.payload_at();
        let len = self.tcp_len();
        let data_offset_and_flags = u16::from_be_bytes([(len as u8 / 4) << 4, flags]);
        let mut sum = pseudo.sum(swap::<2, F>(frame, at, at + 2)?);
        sum = sum.sum(put(frame, at + 4, self.seq)?);
        sum = sum.sum(put(frame, at + 8, self.ack)?);
        sum = sum.sum(put(frame, at + 12, u32::from(data_offset_and_flags) << 16 | u32::from(WINDOW))?);
        if len == TCP_LEN_WITH_MSS {
            sum = sum.sum(put(frame, at + TCP_LEN, MSS_OPTION)?);
        }
        // The urgent pointer stays zero.
        put(frame, at + 16, u32::from(sum.checksum()) << 16)?;
        NonZeroUsize::new(len)
    }

    #[inline(never)]
    fn write_icmp_v4<F: Frame + ?Sized>(&self, frame: &mut F) -> Option<NonZeroUsize> {
        const LEN: usize = ICMP_HEADER_LEN + IPV4_QUOTE_LEN;
        let quote = self
            .quote::<8, F>(frame, 0)?
            .sum(self.quote::<8, F>(frame, 8)?)
            .sum(self.quote::<8, F>(frame, 16)?)
            .sum(self.quote::<4, F>(frame, 24)?);
        let code = if matches!(self.kind, Kind::PortUnreachable) { 3 } else { 13 };
        self.reverse_ipv4(frame, p::ICMP, LEN)?;
        self.write_icmp(frame, [3, code], quote)?;
        NonZeroUsize::new(LEN)
    }

    #[inline(never)]
    fn write_icmp_v6<F: Frame + ?Sized>(&self, frame: &mut F) -> Option<NonZeroUsize> {
        const LEN: usize = ICMP_HEADER_LEN + IPV6_QUOTE_LEN;
        let quote = self
            .quote::<8, F>(frame, 0)?
            .sum(self.quote::<8, F>(frame, 8)?)
            .sum(self.quote::<8, F>(frame, 16)?)
            .sum(self.quote::<8, F>(frame, 24)?)
            .sum(self.quote::<8, F>(frame, 32)?)
            .sum(self.quote::<8, F>(frame, 40)?);
        let code = if matches!(self.kind, Kind::PortUnreachable) { 4 } else { 1 };
        let pseudo = self.reverse_ipv6(frame, p::ICMPV6, LEN)?;
        self.write_icmp(frame, [1, code], pseudo.sum(quote))?;
        NonZeroUsize::new(LEN)
    }

    #[inline(always)]
    fn write_icmp<F: Frame + ?Sized>(&self, frame: &mut F, type_and_code: [u8; 2], sum: Sum) -> Option<()> {
        let type_and_code = u16::from_be_bytes(type_and_code);
        let checksum = sum.word(type_and_code).checksum();
        put(frame, self.payload_at(), u32::from(type_and_code) << 16 | u32::from(checksum))?;
        put(frame, self.payload_at() + 4, 0)?;
        Some(())
    }

    /// Copies a word of the packet to where the message quotes it; the word's sum. It is written out for each word: as a loop, the
    /// bounds checks become arithmetic on the packet's end, which the verifier forbids.
    #[inline(always)]
    fn quote<const LEN: usize, F: Frame + ?Sized>(&self, frame: &mut F, from: usize) -> Option<Sum> {
        let word: [u8; LEN] = frame.read(self.network_at + from)?;
        frame.write(self.payload_at() + ICMP_HEADER_LEN + from, &word)?;
        Some(Sum::new().array(&word))
    }

    /// Turns the IPv4 header back to the frame's source; the sum of its pseudo-header (RFC 9293 section 3.1).
    #[inline(always)]
    fn reverse_ipv4<F: Frame + ?Sized>(&self, frame: &mut F, protocol: u8, payload_len: usize) -> Option<Sum> {
        const VERSION_AND_LENGTH: u32 = 0x45 << 24;
        // An atomic packet needs no identification (RFC 6864 section 4.1).
        const DONT_FRAGMENT: u32 = 0x4000;
        let at = self.network_at;
        let ttl_and_protocol = u16::from_be_bytes([HOP_LIMIT, protocol]);
        let addresses = swap::<4, F>(frame, at + 12, at + 16)?;
        let sum = addresses
            .sum(put(frame, at, VERSION_AND_LENGTH | (Family::V4.header_len() + payload_len) as u32)?)
            .sum(put(frame, at + 4, DONT_FRAGMENT)?)
            .word(ttl_and_protocol);
        put(frame, at + 8, u32::from(ttl_and_protocol) << 16 | u32::from(sum.checksum()))?;
        Some(addresses.word(u16::from(protocol)).word(payload_len as u16))
    }

    /// Turns the IPv6 header back to the frame's source; the sum of its pseudo-header (RFC 8200 section 8.1).
    #[inline(always)]
    fn reverse_ipv6<F: Frame + ?Sized>(&self, frame: &mut F, protocol: u8, payload_len: usize) -> Option<Sum> {
        const VERSION: u32 = 6 << 28;
        let at = self.network_at;
        put(frame, at, VERSION)?;
        put(frame, at + 4, (payload_len as u32) << 16 | u32::from(u16::from_be_bytes([protocol, HOP_LIMIT])))?;
        let addresses = swap::<8, F>(frame, at + 8, at + 24)?.sum(swap::<8, F>(frame, at + 16, at + 32)?);
        Some(addresses.word(u16::from(protocol)).word(payload_len as u16))
    }
}

/// Writes a word in network order; its sum.
#[inline(always)]
fn put<F: Frame + ?Sized>(frame: &mut F, at: usize, word: u32) -> Option<Sum> {
    let bytes = word.to_be_bytes();
    frame.write(at, &bytes)?;
    Some(Sum::new().array(&bytes))
}

/// Swaps two words of the frame; their sum.
#[inline(always)]
fn swap<const LEN: usize, F: Frame + ?Sized>(frame: &mut F, one: usize, other: usize) -> Option<Sum> {
    let (a, b): ([u8; LEN], [u8; LEN]) = (frame.read(one)?, frame.read(other)?);
    frame.write(one, &b)?;
    frame.write(other, &a)?;
    Some(Sum::new().array(&a).array(&b))
}
