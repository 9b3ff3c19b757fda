//! Judges a frame that Portal sends, by another implementation of the formats than its own.

use etherparse::{LinkExtSlice, NetSlice, SlicedPacket, TcpHeader, TransportSlice};

/// A TCP segment of ours.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// Its header.
    pub tcp: TcpHeader,
    /// Its data.
    pub payload: Vec<u8>,
}

/// Reads our segment for a client that sent `cause`.
///
/// # Panics
/// If it is malformed, has a wrong checksum, or does not go back the way the cause came.
pub fn tcp(cause: &[u8], reply: &[u8]) -> Parsed {
    assert!(reply.len() >= 60, "shorter than Ethernet permits: {reply:02x?}");
    assert_eq!((&reply[..6], &reply[6..12]), (&cause[6..12], &cause[..6]), "from and to the right stations");
    let sliced = SlicedPacket::from_ethernet(reply).expect("a well-formed frame");
    let tags = sliced.link_exts.iter().filter(|tag| matches!(tag, LinkExtSlice::Vlan(_))).count();
    let network_at = 14 + 4 * tags;
    assert_eq!(reply[12..network_at], cause[12..network_at], "the tags and the EtherType are the cause's");
    let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else { panic!("no TCP: {reply:02x?}") };
    let header = tcp.to_header();
    let (checksum, addresses, ip_length) = match sliced.net.as_ref().expect("a network header") {
        NetSlice::Ipv4(ip) => {
            let ip_header = ip.header().to_header();
            assert_eq!(ip_header.header_checksum, ip_header.calc_header_checksum());
            let checksum = header.calc_checksum_ipv4(&ip_header, tcp.payload()).expect("a valid length");
            (checksum, (network_at + 12, 4), usize::from(ip_header.total_len))
        }
        NetSlice::Ipv6(ip) => {
            let ip_header = ip.header().to_header();
            let checksum = header.calc_checksum_ipv6(&ip_header, tcp.payload()).expect("a valid length");
            (checksum, (network_at + 8, 16), 40 + usize::from(ip_header.payload_length))
        }
        NetSlice::Arp(arp) => panic!("{arp:?}"),
    };
    assert_eq!(header.checksum, checksum, "TCP's checksum");
    let (at, length) = addresses;
    let (source, destination) = (at..at + length, at + length..at + 2 * length);
    assert_eq!(reply[source.clone()], cause[destination.clone()], "from the address that the client wanted");
    assert_eq!(reply[destination], cause[source], "to the client's address");
    assert_eq!(reply.len(), (network_at + ip_length).max(60), "as long as its header says, or padded");
    assert!(reply[network_at + ip_length..].iter().all(|byte| *byte == 0), "padded with zeros");
    Parsed { tcp: header, payload: tcp.payload().to_vec() }
}
