//! The DNS message in an Ethernet frame, and its UDP checksum.

use std::{net::IpAddr, ops::Range};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use portal_common::checksum::Sum;

use super::ports::UDP;

/// The port that resolvers answer from.
const DNS_PORT: u16 = 53;
/// Where UDP's header has its checksum (RFC 768).
const CHECKSUM: Range<usize> = 6..8;
const HEADER: usize = 8;

/// What a UDP checksum is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// It is right, or over IPv4 absent.
    Good,
    /// The kernel has left it to the NIC: it is the sum over the pseudo-header alone (`CHECKSUM_PARTIAL`). This is what it must be.
    Partial(u16),
    /// It is wrong: whoever receives it drops it.
    Bad,
}

/// A UDP datagram from a resolver's port, unfragmented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Who sends it.
    pub source: IpAddr,
    /// Who is to get it.
    pub destination: IpAddr,
    /// Its checksum.
    pub checksum: Checksum,
    /// Where in the frame it lies, from its header on.
    at: Range<usize>,
}

impl Datagram {
    /// Finds it in a frame with any number of VLAN tags that the gate serves; None if it is none.
    pub fn find(frame: &[u8]) -> Option<Self> {
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let Some(TransportSlice::Udp(udp)) = packet.transport else { return None };
        if udp.source_port() != DNS_PORT {
            return None;
        }
        let (source, destination) = match packet.net? {
            NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            NetSlice::Arp(_) => return None,
        };
        let bytes = udp.slice();
        // The slice is a part of the frame: where it begins is the distance of the two.
        let start = bytes.as_ptr().addr() - frame.as_ptr().addr();
        let checksum = judge(source, destination, bytes);
        Some(Self { source, destination, checksum, at: start..start + bytes.len() })
    }

    /// The DNS message in the frame that it was found in.
    pub fn message<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        &frame[self.at.start + HEADER..self.at.end]
    }

    /// Writes this checksum, and nothing else, into the frame that it was found in.
    pub fn complete(&self, frame: &mut [u8], checksum: u16) {
        frame[self.at.clone()][CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// The sum over the pseudo-header (RFC 768, RFC 8200 section 8.1).
fn pseudo_header(source: IpAddr, destination: IpAddr, length: usize) -> Sum {
    let address = |sum: Sum, address| match address {
        IpAddr::V4(address) => sum.array(&address.octets()),
        IpAddr::V6(address) => sum.array(&address.octets()),
    };
    let sum = address(address(Sum::new(), source), destination);
    sum.word(UDP.into()).word(u16::try_from(length).expect("a frame is shorter than 64 KiB"))
}

fn judge(source: IpAddr, destination: IpAddr, udp: &[u8]) -> Checksum {
    let field = u16::from_be_bytes([udp[CHECKSUM.start], udp[CHECKSUM.start + 1]]);
    let pseudo = pseudo_header(source, destination, udp.len());
    let sum = pseudo.sum(Sum::new().bytes(udp));
    if field == 0 {
        // RFC 768: no checksum; RFC 8200 section 8.1: not over IPv6.
        return if source.is_ipv4() { Checksum::Good } else { Checksum::Bad };
    }
    if sum.checksum() == 0 {
        return Checksum::Good;
    }
    // `~csum_tcpudp_magic()`, as `udp_send_skb()` in net/ipv4/udp.c leaves it.
    if field == !pseudo.checksum() {
        // The sum has the field in it, which counts as zero: adding its complement takes it out.
        let complete = sum.word(!field).checksum();
        // RFC 768: a computed zero is sent as all ones.
        return Checksum::Partial(if complete == 0 { 0xffff } else { complete });
    }
    Checksum::Bad
}

#[cfg(test)]
pub(super) mod tests {
    use etherparse::{PacketBuilder, VlanId};
    use proptest::prelude::*;

    use super::*;

    pub(in crate::garden) const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
    pub(in crate::garden) const GUEST: [u8; 6] = [2, 0, 0, 0, 0, 1];

    /// A resolver's answer with a right checksum; `tags` VLAN tags.
    pub(in crate::garden) fn frame(v6: bool, tags: usize, port: u16, message: &[u8]) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2(GATEWAY, GUEST);
        let mut bytes = Vec::new();
        let (source, guest) = ([192, 0, 2, 1], [192, 0, 2, 7]);
        let address6 = |last| [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
        let id = |n: u16| VlanId::try_new(n).unwrap();
        let result = match (tags, v6) {
            (0, false) => ethernet.ipv4(source, guest, 64).udp(port, 5353).write(&mut bytes, message),
            (0, true) => ethernet.ipv6(address6(1), address6(7), 64).udp(port, 5353).write(&mut bytes, message),
            (1, false) => {
                ethernet.single_vlan(id(7)).ipv4(source, guest, 64).udp(port, 5353).write(&mut bytes, message)
            }
            (_, false) => {
                ethernet.double_vlan(id(9), id(7)).ipv4(source, guest, 64).udp(port, 5353).write(&mut bytes, message)
            }
            (_, true) => ethernet
                .double_vlan(id(9), id(7))
                .ipv6(address6(1), address6(7), 64)
                .udp(port, 5353)
                .write(&mut bytes, message),
        };
        result.unwrap();
        bytes
    }

    /// Sets the checksum to what the kernel leaves for the NIC.
    pub(in crate::garden) fn make_partial(frame: &mut [u8]) {
        let found = Datagram::find(frame).unwrap();
        let partial = !pseudo_header(found.source, found.destination, found.at.len()).checksum();
        found.complete(frame, partial);
    }

    #[test]
    fn answers_are_found_behind_tags_of_both_families() {
        for v6 in [false, true] {
            for tags in [0, 1, 2] {
                let frame = frame(v6, tags, 53, b"message");
                let found = Datagram::find(&frame).unwrap();
                assert_eq!(found.message(&frame), b"message");
                assert_eq!(found.checksum, Checksum::Good);
                let (source, guest) = if v6 { ("2001:db8::1", "2001:db8::7") } else { ("192.0.2.1", "192.0.2.7") };
                assert_eq!((found.source, found.destination), (source.parse().unwrap(), guest.parse().unwrap()));
            }
        }
    }

    #[test]
    fn what_is_none() {
        let good = frame(false, 0, 53, b"message");
        let with = |at: usize, byte: u8| {
            let mut frame = good.clone();
            frame[at] = byte;
            frame
        };
        let table = [
            ("another port", frame(false, 0, 54, b"message")),
            ("ARP", with(13, 6)),
            ("TCP", with(23, 6)),
            ("a first fragment", with(20, 0x20)),
            ("a later fragment", with(21, 1)),
            ("a header length that is too short", with(14, 0x44)),
            ("more in it than there is", with(17, 200)),
            ("a UDP length beyond the packet", with(39, 200)),
            ("a UDP length shorter than its header", with(39, 7)),
            ("half of it", good[..30].to_vec()),
        ];
        for (sentence, frame) in table {
            assert_eq!(Datagram::find(&frame), None, "{sentence}");
        }
    }

    #[test]
    fn what_a_checksum_is_worth() {
        for v6 in [false, true] {
            let good = frame(v6, 0, 53, b"message");
            let at = Datagram::find(&good).unwrap().at.start + CHECKSUM.start;
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert_eq!(Datagram::find(&bad).unwrap().checksum, Checksum::Bad);
            let mut absent = good.clone();
            absent[at..at + 2].fill(0);
            let expected = if v6 { Checksum::Bad } else { Checksum::Good };
            assert_eq!(Datagram::find(&absent).unwrap().checksum, expected);
        }
    }

    proptest! {
        #[test]
        fn a_completed_checksum_is_what_the_sender_would_have_computed(
            v6: bool, tags in 0usize..3, message in proptest::collection::vec(any::<u8>(), 0..1200), padding in 0usize..20,
        ) {
            let mut whole = frame(v6, tags, 53, &message);
            // Ethernet's padding does not count.
            whole.extend(std::iter::repeat_n(0xaa, padding));
            let mut partial = whole.clone();
            make_partial(&mut partial);
            let found = Datagram::find(&partial).unwrap();
            match found.checksum {
                Checksum::Partial(complete) => found.complete(&mut partial, complete),
                // One in 65,536 is right as it is.
                other => prop_assert_eq!(other, Checksum::Good),
            }
            prop_assert_eq!(partial, whole);
        }

        #[test]
        fn no_frame_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), byte: u8) {
            let _ = Datagram::find(&bytes);
            let mut damaged = frame(at.index(2) == 0, at.index(3), 53, b"message");
            let at = at.index(damaged.len());
            damaged[at] = byte;
            if let Some(found) = Datagram::find(&damaged) {
                let _ = found.message(&damaged);
            }
        }
    }
}
