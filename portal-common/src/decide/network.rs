//! The network header: ARP, IPv4 or IPv6, as far as both members and strangers are judged by it.

use crate::{
    checksum::Sum,
    family::Family,
    frame::Frame,
    protocol::{self as p, icmpv6},
    reason::Reason,
    tables::Address,
};

/// What the rules need to know of the network header.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) kind: Kind,
    // Narrow types: the verifier knows no more of what is read back from a map.
    /// Where the network header starts.
    at: u8,
    /// IPv4: the header's length, bytes.
    header_len: u8,
    /// How many bytes follow the network header, by its own account. IPv6: extension headers included.
    payload_len: u16,
    /// IPv6: the first header that follows.
    pub(super) protocol: u8,
    pub(super) hop_limit: u8,
    /// IPv4: flags and fragment offset.
    pub(super) fragment: u16,
    // In words, the high and the low half: put together byte by byte, an address costs the gate 20 ns.
    source: [u64; 2],
    destination: [u64; 2],
    /// The address that the sender says is its own: the source, or what a neighbour advertisement is about. Unspecified where it says none.
    claimed: [u64; 2],
    /// The frame's length, bytes.
    frame_len: u32,
    /// Why the frame goes nowhere, whoever sent it.
    pub(super) fault: Option<Reason>,
}

/// What is behind the Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    V4,
    V6,
    Arp,
    Eapol,
    /// A length: IEEE 802.3.
    Length,
    Other,
}

/// The longest frame that is not a jumbo frame, bytes: with two VLAN tags. No frame whose first buffer is this short has more buffers, in the
/// drivers that make several; if one had, its length would be read where the packet says that it is longer.
pub(super) const USUAL_LEN: usize = 1522;

impl Network {
    pub(super) const EMPTY: Self = Self {
        kind: Kind::Other,
        at: 0,
        header_len: 0,
        payload_len: 0,
        protocol: 0,
        hop_limit: 0,
        fragment: 0,
        source: [0; 2],
        destination: [0; 2],
        claimed: [0; 2],
        frame_len: 0,
        fault: None,
    };

    /// Reads the network header at an offset. Every field gets a value.
    // A function of its own in the kernel too, for the BPF stack's sake.
    #[inline(never)]
    pub(super) fn parse<F: Frame + ?Sized>(&mut self, frame: &F, ether_type: u16, at: usize) {
        self.at = at as u8;
        self.header_len = 0;
        self.payload_len = 0;
        self.protocol = 0;
        self.hop_limit = 0;
        self.fragment = 0;
        // Bytes are counted, so that the whole length matters; and that is a call.
        let head_len = frame.head_len();
        self.frame_len = if head_len > USUAL_LEN { frame.len() } else { head_len } as u32;
        self.fault = None;
        self.kind = match ether_type {
            p::ETHER_IPV4 => Kind::V4,
            p::ETHER_IPV6 => Kind::V6,
            p::ETHER_ARP => Kind::Arp,
            p::ETHER_EAPOL => Kind::Eapol,
            // IEEE 802.3-2018 section 3.2.6.
            0..0x600 => Kind::Length,
            _ => Kind::Other,
        };
        let read = match self.kind {
            Kind::V4 => self.ipv4(frame).map_err(Some),
            Kind::V6 => self.ipv6(frame).map_err(Some),
            Kind::Arp => self.arp(frame).map_err(Some),
            Kind::Eapol | Kind::Length | Kind::Other => Err(None),
        };
        if let Err(fault) = read {
            self.fault = fault;
            // Only here: where there are addresses, zeroes in front of them would cost 20 ns.
            self.source = [0; 2];
            self.claimed = [0; 2];
        }
    }

    pub(super) const fn family(&self) -> Family {
        if matches!(self.kind, Kind::V6) { Family::V6 } else { Family::V4 }
    }

    /// Where the payload of a header without options or extensions starts.
    #[inline(always)]
    pub(super) const fn payload_at(&self) -> usize {
        self.at() + self.family().header_len()
    }

    /// Whether the packet's payload begins here: it is no fragment, or the first (RFC 791 section 3.1).
    #[inline(always)]
    pub(super) const fn is_first(&self) -> bool {
        const OFFSET: u16 = 0x1fff;
        self.fragment & OFFSET == 0
    }

    /// Whether the packet is a fragment: not the last, or not the first (RFC 791 section 3.1).
    #[inline(always)]
    pub(super) const fn is_fragment(&self) -> bool {
        const MORE_OR_OFFSET: u16 = 0x3fff;
        self.fragment & MORE_OR_OFFSET != 0
    }

    /// The source, in words.
    #[inline(always)]
    pub(super) const fn source(&self) -> [u64; 2] {
        self.source
    }

    /// The destination, in words.
    #[inline(always)]
    pub(super) const fn destination(&self) -> [u64; 2] {
        self.destination
    }

    /// The address that the sender says is its own.
    #[inline(always)]
    pub(super) fn claimed(&self) -> Address {
        Address::from_words(self.claimed)
    }

    /// Where the network header starts.
    #[inline(always)]
    pub(super) const fn at(&self) -> usize {
        self.at as usize
    }

    /// The network header's length, options included and extension headers not, bytes.
    #[inline(always)]
    pub(super) const fn header_len(&self) -> usize {
        self.header_len as usize
    }

    /// How many bytes follow the network header, by its own account. IPv6: extension headers included.
    #[inline(always)]
    pub(super) const fn payload_len(&self) -> usize {
        self.payload_len as usize
    }

    /// The frame's length, bytes.
    #[inline(always)]
    pub(super) const fn frame_len(&self) -> u32 {
        self.frame_len
    }

    #[inline(always)]
    fn ipv4<F: Frame + ?Sized>(&mut self, frame: &F) -> Result<(), Reason> {
        const LEN: usize = Family::V4.header_len();
        let h = frame.read::<LEN>(self.at()).ok_or(Reason::FrameTruncated)?;
        let total_len = usize::from(u16::from_be_bytes([h[2], h[3]]));
        let header_len = usize::from(h[0] & 0x0f) * 4;
        if h[0] >> 4 != 4 || header_len < LEN || total_len < header_len || !self.holds(frame, total_len) {
            return Err(Reason::Ipv4Malformed);
        }
        self.header_len = header_len as u8;
        self.payload_len = (total_len - header_len) as u16;
        self.protocol = h[9];
        self.hop_limit = h[8];
        self.fragment = u16::from_be_bytes([h[6], h[7]]);
        let addresses = frame.read::<8>(self.at() + 12).ok_or(Reason::FrameTruncated)?;
        let both = u64::from_be_bytes(addresses);
        self.source = mapped((both >> 32) as u32);
        self.destination = mapped(both as u32);
        self.claimed = claimed_v4((both >> 32) as u32);
        Ok(())
    }

    /// Whether the checksum of a header without options, or with a router alert, is right. It is always complete, unlike TCP's and UDP's, which a local sender
    /// leaves to the NIC. Of a member's packets the kernel checks it.
    #[inline(always)]
    pub(super) fn checksum_is_right<F: Frame + ?Sized>(&self, frame: &F) -> bool {
        const LEN: usize = Family::V4.header_len();
        let Some(h) = frame.read::<LEN>(self.at()) else { return false };
        let sum = Sum::new().array(&h);
        let sum = if self.header_len() == LEN {
            sum
        } else {
            let Some(option) = frame.read::<4>(self.at() + LEN) else { return false };
            sum.array(&option)
        };
        sum.checksum() == 0
    }

    /// Whether the only option is a router alert (RFC 2113).
    #[inline(always)]
    pub(super) fn has_router_alert<F: Frame + ?Sized>(&self, frame: &F) -> bool {
        const LEN: usize = Family::V4.header_len();
        const ROUTER_ALERT: [u8; 4] = [0x94, 4, 0, 0];
        self.header_len() == LEN + ROUTER_ALERT.len()
            && frame
                .read::<4>(self.at() + LEN)
                .is_some_and(|option| u32::from_ne_bytes(option) == u32::from_ne_bytes(ROUTER_ALERT))
    }

    #[inline(always)]
    fn ipv6<F: Frame + ?Sized>(&mut self, frame: &F) -> Result<(), Reason> {
        const LEN: usize = Family::V6.header_len();
        let h = frame.read::<8>(self.at()).ok_or(Reason::FrameTruncated)?;
        let source = frame.read::<16>(self.at() + h.len()).ok_or(Reason::FrameTruncated)?;
        let destination = frame.read::<16>(self.at() + h.len() + source.len()).ok_or(Reason::FrameTruncated)?;
        self.header_len = LEN as u8;
        self.payload_len = u16::from_be_bytes([h[4], h[5]]);
        if h[0] >> 4 != 6 || !self.holds(frame, LEN + self.payload_len()) {
            return Err(Reason::Ipv6Malformed);
        }
        self.protocol = h[6];
        self.hop_limit = h[7];
        self.source = Address(source).words();
        self.destination = Address(destination).words();
        self.claimed = self.source;
        if self.protocol == p::ICMPV6 && frame.byte(self.payload_at()) == u16::from(icmpv6::NEIGHBOR_ADVERTISEMENT) {
            const TARGET_AT: usize = 8;
            let target = frame.read::<16>(self.payload_at() + TARGET_AT);
            self.claimed = target.map_or([0; 2], |target| Address(target).words());
        }
        Ok(())
    }

    /// RFC 826, for IPv4 over Ethernet.
    #[inline(always)]
    fn arp<F: Frame + ?Sized>(&mut self, frame: &F) -> Result<(), Reason> {
        const LEN: usize = 28;
        const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
        let h = frame.read::<LEN>(self.at()).ok_or(Reason::ArpMalformed)?;
        if [h[0], h[1], h[2], h[3], h[4], h[5]] != ETHERNET_IPV4 {
            return Err(Reason::ArpMalformed);
        }
        let sender = u32::from_be_bytes([h[14], h[15], h[16], h[17]]);
        self.source = mapped(sender);
        self.claimed = claimed_v4(sender);
        Ok(())
    }

    /// Whether the frame holds so many bytes from the network header on. The frame's whole length costs a call, and only a
    /// frame of several buffers has more than its head.
    #[inline(always)]
    fn holds<F: Frame + ?Sized>(&mut self, frame: &F, len: usize) -> bool {
        let end = (self.at() + len) as u32;
        if end > self.frame_len {
            self.frame_len = frame.len() as u32;
        }
        end <= self.frame_len
    }
}

/// An IPv4 address among those of IPv6, in words (RFC 4291 section 2.5.5.2).
#[inline(always)]
pub(super) const fn mapped(address: u32) -> [u64; 2] {
    [0, 0xffff << 32 | address as u64]
}

/// A client that has no address yet says so by an unspecified one: DHCP, RFC 5227 section 2.1.1; over IPv6 RFC 4862 section 5.4.2.
#[inline(always)]
const fn claimed_v4(source: u32) -> [u64; 2] {
    if source == 0 { [0; 2] } else { mapped(source) }
}
