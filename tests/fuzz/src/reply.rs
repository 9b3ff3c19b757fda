//! Judges a frame that Portal sends, by another implementation of the formats than its own.

use etherparse::{LinkExtSlice, NetSlice, SlicedPacket, TcpHeader, TransportSlice};

/// What a frame of ours carries.
#[derive(Clone, Debug)]
pub enum Message {
    /// A TCP segment: its header and its data.
    Tcp(TcpHeader, Vec<u8>),
    /// An ICMP or ICMPv6 message: its type, its code, and what follows the eight bytes of its header.
    Icmp(u8, u8, Vec<u8>),
}

/// A frame of ours.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// What it carries.
    pub message: Message,
    /// Its length without padding, bytes.
    pub unpadded: usize,
}

/// Reads our answer to a client that sent `cause`.
///
/// # Panics
/// If it is malformed, has a wrong checksum, or does not go back the way the cause came.
pub fn read(cause: &[u8], reply: &[u8]) -> Parsed {
    assert_eq!((&reply[..6], &reply[6..12]), (&cause[6..12], &cause[..6]), "from and to the right stations");
    let sliced = SlicedPacket::from_ethernet(reply).expect("a well-formed frame");
    let tags = sliced.link_exts.iter().filter(|tag| matches!(tag, LinkExtSlice::Vlan(_))).count();
    let network_at = 14 + 4 * tags;
    assert_eq!(reply[12..network_at], cause[12..network_at], "the tags and the EtherType are the cause's");
    let transport = sliced.transport.as_ref().expect("a transport header");
    let (addresses, ip_length, checksums) = match sliced.net.as_ref().expect("a network header") {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum(), "IPv4's checksum");
            assert!(!header.is_fragmenting_payload() && header.options.is_empty());
            let checksums = match transport {
                TransportSlice::Tcp(tcp) => {
                    let computed = tcp.to_header().calc_checksum_ipv4(&header, tcp.payload()).expect("a valid length");
                    (tcp.checksum(), computed)
                }
                TransportSlice::Icmpv4(icmp) => (icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload())),
                other => panic!("neither TCP nor ICMP: {other:?}"),
            };
            ((network_at + 12, 4), usize::from(header.total_len), checksums)
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            let checksums = match transport {
                TransportSlice::Tcp(tcp) => {
                    let computed = tcp.to_header().calc_checksum_ipv6(&header, tcp.payload()).expect("a valid length");
                    (tcp.checksum(), computed)
                }
                TransportSlice::Icmpv6(icmp) => {
                    let computed = icmp.icmp_type().calc_checksum(header.source, header.destination, icmp.payload());
                    (icmp.checksum(), computed.expect("a valid length"))
                }
                other => panic!("neither TCP nor ICMPv6: {other:?}"),
            };
            ((network_at + 8, 16), 40 + usize::from(header.payload_length), checksums)
        }
        NetSlice::Arp(arp) => panic!("{arp:?}"),
    };
    assert_eq!(checksums.0, checksums.1, "the checksum: {reply:02x?}");
    let (at, length) = addresses;
    let (source, destination) = (at..at + length, at + length..at + 2 * length);
    assert_eq!(reply[source.clone()], cause[destination.clone()], "from the address that the client wanted");
    assert_eq!(reply[destination], cause[source], "to the client's address");
    let message = match transport {
        TransportSlice::Tcp(tcp) => Message::Tcp(tcp.to_header(), tcp.payload().to_vec()),
        TransportSlice::Icmpv4(icmp) => Message::Icmp(icmp.type_u8(), icmp.code_u8(), icmp.payload().to_vec()),
        TransportSlice::Icmpv6(icmp) => Message::Icmp(icmp.type_u8(), icmp.code_u8(), icmp.payload().to_vec()),
        other => panic!("{other:?}"),
    };
    Parsed { message, unpadded: network_at + ip_length }
}

/// Reads a segment of the responder's: as [`read`], and padded as Ethernet demands.
///
/// # Panics
/// As [`read`].
pub fn segment(cause: &[u8], reply: &[u8]) -> (TcpHeader, Vec<u8>) {
    let Parsed { message, unpadded } = read(cause, reply);
    assert_eq!(reply.len(), unpadded.max(60), "as long as its header says, or padded");
    assert!(reply[unpadded..].iter().all(|byte| *byte == 0), "padded with zeros");
    let Message::Tcp(header, payload) = message else { panic!("no TCP: {reply:02x?}") };
    (header, payload)
}
