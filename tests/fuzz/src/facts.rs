//! What a frame is, read by another implementation than the gate's: the ground on which its verdicts are judged.

use std::net::IpAddr;

use etherparse::{EtherType, LaxNetSlice, LaxSlicedPacket, TransportSlice};

/// An IP packet.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Where it is from.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// IPv4's time to live, IPv6's hop limit.
    pub hop_limit: u8,
    /// It is one of several fragments.
    pub is_fragment: bool,
    /// Its length by its header, bytes.
    pub length: usize,
    /// What it carries; nothing if that is no whole TCP, UDP or ICMP.
    pub transport: Option<Transport>,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A TCP segment.
    Tcp {
        /// From this port.
        from: u16,
        /// To this port.
        port: u16,
        /// With RST.
        rst: bool,
    },
    /// A UDP datagram: its source and destination ports.
    Udp(u16, u16),
    /// An ICMP or ICMPv6 message's type.
    Icmp(u8),
}

/// A frame.
#[derive(Clone, Debug)]
pub struct Facts {
    /// To this station.
    pub to: [u8; 6],
    /// From this station.
    pub from: [u8; 6],
    /// The identifiers of its VLAN tags.
    pub vlans: Vec<u16>,
    /// What the tags enclose.
    pub ether_type: u16,
    /// The IP packet, if it has a whole header.
    pub packet: Option<Packet>,
}

impl Facts {
    /// Reads a frame; nothing if it has no whole Ethernet header.
    pub fn of(frame: &[u8]) -> Option<Self> {
        let (to, rest) = frame.split_first_chunk::<6>()?;
        let (from, mut rest) = rest.split_first_chunk::<6>()?;
        let mut vlans = Vec::new();
        let ether_type = loop {
            let (kind, after) = rest.split_first_chunk::<2>()?;
            let kind = u16::from_be_bytes(*kind);
            if !matches!(kind, 0x8100 | 0x88a8) {
                rest = after;
                break kind;
            }
            let (control, after) = after.split_first_chunk::<2>()?;
            vlans.push(u16::from_be_bytes(*control) & 0xfff);
            rest = after;
        };
        let packet = matches!(ether_type, 0x0800 | 0x86dd)
            .then(|| LaxSlicedPacket::from_ether_type(EtherType(ether_type), rest))
            .as_ref()
            .and_then(packet);
        Some(Self { to: *to, from: *from, vlans, ether_type, packet })
    }

    /// The VLAN ids that pick the zone, the outer first. A tag of VLAN 0 carries only a priority.
    pub fn zone_vlans(&self) -> (u16, u16) {
        match self.vlans[..] {
            [] => (0, 0),
            [0, inner, ..] => (inner, 0),
            [outer] => (outer, 0),
            [outer, inner, ..] => (outer, inner),
        }
    }

    /// The address that the sender says is its own: ARP's sender, a neighbour advertisement's target, or else the source; none if that is unspecified.
    pub fn claimed(&self, frame: &[u8]) -> Option<IpAddr> {
        let network = frame.get(14 + 4 * self.vlans.len()..)?;
        let v4 = |at: usize| network.get(at..at + 4)?.first_chunk::<4>().map(|octets| IpAddr::from(*octets));
        let v6 = |at: usize| network.get(at..at + 16)?.first_chunk::<16>().map(|octets| IpAddr::from(*octets));
        let claimed = match self.ether_type {
            0x0806 => v4(14),
            0x0800 => v4(12),
            0x86dd if network.get(6) == Some(&58) && network.get(40) == Some(&136) => v6(48),
            0x86dd => v6(8),
            _ => None,
        };
        claimed.filter(|address| !address.is_unspecified())
    }
}

fn packet(sliced: &LaxSlicedPacket<'_>) -> Option<Packet> {
    let transport = sliced.transport.as_ref().and_then(|transport| match transport {
        TransportSlice::Tcp(tcp) => {
            Some(Transport::Tcp { from: tcp.source_port(), port: tcp.destination_port(), rst: tcp.rst() })
        }
        TransportSlice::Udp(udp) => Some(Transport::Udp(udp.source_port(), udp.destination_port())),
        TransportSlice::Icmpv4(icmp) => Some(Transport::Icmp(icmp.type_u8())),
        TransportSlice::Icmpv6(icmp) => Some(Transport::Icmp(icmp.type_u8())),
        TransportSlice::Igmp(_) => None,
    });
    Some(match sliced.net.as_ref()? {
        LaxNetSlice::Ipv4(ip) => Packet {
            source: ip.header().source_addr().into(),
            destination: ip.header().destination_addr().into(),
            hop_limit: ip.header().ttl(),
            is_fragment: ip.is_payload_fragmented(),
            length: ip.header().total_len().into(),
            transport,
        },
        LaxNetSlice::Ipv6(ip) => Packet {
            source: ip.header().source_addr().into(),
            destination: ip.header().destination_addr().into(),
            hop_limit: ip.header().hop_limit(),
            is_fragment: ip.is_payload_fragmented(),
            length: 40 + usize::from(ip.header().payload_length()),
            transport,
        },
        LaxNetSlice::Arp(_) => return None,
    })
}
