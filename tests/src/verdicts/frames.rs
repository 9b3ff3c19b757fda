//! Frames, well-formed or not, from a description in fields.

use std::{
    fmt::{Arguments, Write as _},
    net::{Ipv4Addr, Ipv6Addr},
};

use portal_common::{
    checksum::Sum,
    cookie::{self, FourTuple},
    tables::{Address, CookieKeys},
};

use super::setting::{self, GATEWAY_MAC};

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;
const AUTHENTICATION: u8 = 51;

/// A frame in fields.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The MAC address it goes to.
    pub destination: [u8; 6],
    /// The MAC address it comes from.
    pub source: [u8; 6],
    /// VLAN tags, the outer first: EtherType and control information.
    pub tags: Vec<(u16, u16)>,
    /// What is behind the tags.
    pub network: Network,
    /// Bytes after the packet, as short frames have them.
    pub padding: usize,
}

/// What is behind the Ethernet header.
#[derive(Clone, Debug)]
pub enum Network {
    /// IPv4.
    V4(Ipv4),
    /// IPv6.
    V6(Ipv6),
    /// ARP.
    Arp(Arp),
    /// Anything else.
    Other {
        /// The EtherType, or a length.
        ether_type: u16,
        /// What follows it.
        payload: Vec<u8>,
    },
}

/// An ARP packet (RFC 826).
#[derive(Clone, Debug)]
pub struct Arp {
    /// 1 for a request, 2 for a reply.
    pub operation: u16,
    /// 1 for Ethernet.
    pub hardware: u16,
    /// The hardware address the sender says is its own; where nothing is said, the frame's source.
    pub sender_mac: Option<[u8; 6]>,
    /// The address the sender says is its own.
    pub sender: [u8; 4],
    /// The address it is about.
    pub target: [u8; 4],
    /// How many of the 28 bytes there are.
    pub len: usize,
}

/// An IPv4 packet.
#[derive(Clone, Debug)]
pub struct Ipv4 {
    /// The source address.
    pub source: [u8; 4],
    /// The destination address.
    pub destination: [u8; 4],
    /// The time to live.
    pub ttl: u8,
    /// Options, to be padded to four bytes; at most 40.
    pub options: Vec<u8>,
    /// Flags and fragment offset.
    pub flags_and_offset: u16,
    /// Added to the true total length.
    pub length_error: i16,
    /// Whether the header's checksum is wrong.
    pub bad_checksum: bool,
    /// In place of the true first byte.
    pub version_and_ihl: Option<u8>,
    /// What it carries.
    pub payload: Payload,
}

/// An IPv6 packet.
#[derive(Clone, Debug)]
pub struct Ipv6 {
    /// The source address.
    pub source: [u8; 16],
    /// The destination address.
    pub destination: [u8; 16],
    /// The hop limit.
    pub hop_limit: u8,
    /// Added to the true payload length.
    pub length_error: i16,
    /// The version.
    pub version: u8,
    /// Extension headers, in their order.
    pub extensions: Vec<Extension>,
    /// What it carries.
    pub payload: Payload,
}

/// An IPv6 extension header.
#[derive(Clone, Copy, Debug)]
pub struct Extension {
    /// Its IP protocol number.
    pub protocol: u8,
    /// Its length field; of a fragment header a reserved field.
    pub units: u8,
}

/// What an IP packet carries.
#[derive(Clone, Debug)]
pub enum Payload {
    /// A TCP segment.
    Tcp(Tcp),
    /// A UDP datagram.
    Udp {
        /// The source port.
        source_port: u16,
        /// The destination port.
        destination_port: u16,
        /// How many bytes of data.
        data: usize,
        /// Added to the true length.
        length_error: i16,
    },
    /// An ICMP message of this type.
    Icmp(u8),
    /// An ICMPv6 message of this type.
    Icmpv6(u8),
    /// A neighbour advertisement about this address.
    Advertisement([u8; 16]),
    /// An ICMPv6 message of this type, code and length.
    ShortIcmpv6 {
        /// The type.
        kind: u8,
        /// The code.
        code: u8,
        /// How long it is, bytes.
        len: usize,
    },
    /// A hop-by-hop header with a router alert, then an ICMPv6 message of this type.
    RouterAlert(u8),
    /// These bytes of this IP protocol number.
    Bytes {
        /// The IP protocol number.
        protocol: u8,
        /// What they are, in words.
        what: String,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// A DNS message with one question, over UDP.
    Dns(Dns),
    /// An ICMP or ICMPv6 error of this type about this packet.
    Error {
        /// The type.
        kind: u8,
        /// The packet.
        quoted: Box<Network>,
    },
    /// Sixteen zeros of this IP protocol number.
    Other(u8),
}

/// A DNS message with one question, of type A.
#[derive(Clone, Copy, Debug)]
pub struct Dns {
    /// The UDP source port.
    pub source_port: u16,
    /// The UDP destination port.
    pub destination_port: u16,
    /// Its id.
    pub id: u16,
    /// The name that is asked for.
    pub name: &'static str,
    /// Whether it is an answer.
    pub answer: bool,
}

/// A TCP segment.
#[derive(Clone, Debug)]
pub struct Tcp {
    /// The source port.
    pub source_port: u16,
    /// The destination port.
    pub destination_port: u16,
    /// The sequence number.
    pub seq: u32,
    /// The acknowledgement number.
    pub ack: Ack,
    /// The flags.
    pub flags: u8,
    /// Four-byte words of options.
    pub options: u8,
    /// How many bytes of data.
    pub data: usize,
    /// In place of the true data offset's byte.
    pub data_offset: Option<u8>,
}

/// An acknowledgement number.
#[derive(Clone, Copy, Debug)]
pub enum Ack {
    /// Just this.
    Number(u32),
    /// Of our cookie for this connection.
    Cookie {
        /// The client's initial sequence number.
        client_isn: u32,
        /// How many bytes of the response it has received.
        received: u32,
    },
}

/// What it takes to make a valid cookie.
#[derive(Clone, Copy, Debug)]
pub struct Cookies {
    /// The secrets.
    pub keys: CookieKeys,
    /// When the handshake was, nanoseconds of CLOCK_MONOTONIC.
    pub now_ns: u64,
}

impl Frame {
    /// The frame's bytes.
    pub fn to_bytes(&self, cookies: &Cookies) -> Vec<u8> {
        let mut bytes = [self.destination, self.source].concat();
        for (protocol, tag) in &self.tags {
            bytes.extend(protocol.to_be_bytes());
            bytes.extend(tag.to_be_bytes());
        }
        let (ether_type, payload) = match &self.network {
            Network::V4(packet) => (IPV4, packet.to_bytes(cookies)),
            Network::V6(packet) => (IPV6, packet.to_bytes(cookies)),
            Network::Arp(packet) => (ARP, packet.to_bytes(self.source)),
            Network::Other { ether_type, payload } => (*ether_type, payload.clone()),
        };
        bytes.extend(ether_type.to_be_bytes());
        bytes.extend(payload);
        bytes.extend(std::iter::repeat_n(0, self.padding));
        bytes
    }

    /// The frame in words, for people.
    pub fn describe(&self) -> String {
        let mut words = vec![self.network.describe()];
        match &self.tags[..] {
            [] => {}
            [(_, tag)] if vlan_id(*tag) == 0 => words.push("priority tag".into()),
            [(_, tag)] => words.push(format!("VLAN {}", vlan_id(*tag))),
            tags => {
                let ids: Vec<_> = tags.iter().map(|(_, tag)| vlan_id(*tag).to_string()).collect();
                words.push(format!("VLANs {}", ids.join(", ")));
            }
        }
        words.push(format!("from {}", setting::who(self.source)));
        match self.destination {
            GATEWAY_MAC => {}
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => words.push("to the broadcast MAC".into()),
            [first, ..] if first & 1 != 0 => words.push("to a group's MAC".into()),
            other => words.push(format!("to {}", setting::who(other))),
        }
        words.join(", ")
    }
}

impl Arp {
    fn to_bytes(&self, source: [u8; 6]) -> Vec<u8> {
        let mut bytes = self.hardware.to_be_bytes().to_vec();
        bytes.extend([8, 0, 6, 4]);
        bytes.extend(self.operation.to_be_bytes());
        bytes.extend(self.sender_mac.unwrap_or(source));
        bytes.extend(self.sender);
        bytes.extend([0; 6]);
        bytes.extend(self.target);
        bytes.truncate(self.len);
        bytes
    }
}

impl Ipv4 {
    fn to_bytes(&self, cookies: &Cookies) -> Vec<u8> {
        let (protocol, payload) =
            self.payload.to_bytes(Address::v4(self.source), Address::v4(self.destination), cookies);
        let header_len = 20 + self.options.len().next_multiple_of(4);
        let total = ((header_len + payload.len()) as u16).wrapping_add_signed(self.length_error);
        let mut header = vec![0x40 | (header_len / 4) as u8, 0];
        header.extend(total.to_be_bytes());
        header.extend([0x12, 0x34]);
        header.extend(self.flags_and_offset.to_be_bytes());
        header.extend([self.ttl, protocol, 0, 0]);
        header.extend(self.source);
        header.extend(self.destination);
        header.extend(&self.options);
        header.resize(header_len, 0);
        if let Some(first) = self.version_and_ihl {
            header[0] = first;
        }
        let checksum = Sum::new().bytes(&header).checksum() ^ u16::from(self.bad_checksum);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header.extend(payload);
        header
    }
}

impl Ipv6 {
    fn to_bytes(&self, cookies: &Cookies) -> Vec<u8> {
        let (protocol, payload) =
            self.payload.to_bytes(Address::v6(self.source), Address::v6(self.destination), cookies);
        let following = self.extensions.iter().skip(1).map(|e| e.protocol).chain([protocol]);
        let mut chain: Vec<u8> =
            self.extensions.iter().zip(following).flat_map(|(extension, next)| extension.to_bytes(next)).collect();
        chain.extend(payload);
        let first = self.extensions.first().map_or(protocol, |extension| extension.protocol);
        let mut bytes = vec![self.version << 4, 0, 0, 0];
        bytes.extend((chain.len() as u16).wrapping_add_signed(self.length_error).to_be_bytes());
        bytes.extend([first, self.hop_limit]);
        bytes.extend(self.source);
        bytes.extend(self.destination);
        bytes.extend(chain);
        bytes
    }
}

impl Extension {
    fn to_bytes(self, next: u8) -> Vec<u8> {
        // RFC 8200 section 4, RFC 4302 section 2.2.
        let len = match self.protocol {
            AUTHENTICATION => (usize::from(self.units) + 2) * 4,
            _ => (usize::from(self.units) + 1) * 8,
        };
        let mut bytes = vec![next, self.units];
        bytes.resize(len, 0);
        bytes
    }
}

impl Payload {
    fn to_bytes(&self, source: Address, destination: Address, cookies: &Cookies) -> (u8, Vec<u8>) {
        match self {
            Self::Tcp(tcp) => (6, tcp.to_bytes(source, destination, cookies)),
            Self::Udp { source_port, destination_port, data, length_error } => {
                let mut bytes = [source_port.to_be_bytes(), destination_port.to_be_bytes()].concat();
                bytes.extend(((8 + data) as u16).wrapping_add_signed(*length_error).to_be_bytes());
                bytes.extend([0xab, 0xcd]);
                bytes.extend((0..*data).map(|i| i as u8));
                (17, bytes)
            }
            Self::Icmp(kind) => (1, vec![*kind, 0, 0, 0, 0, 0, 0, 0]),
            Self::Icmpv6(133) => (58, vec![133, 0, 0, 0, 0, 0, 0, 0]),
            // As long as the longest that neighbour discovery demands.
            Self::Icmpv6(kind) => (58, [vec![*kind, 0, 0, 0], vec![0; 20]].concat()),
            Self::Advertisement(target) => (58, [&[136, 0, 0, 0, 0, 0, 0, 0][..], target].concat()),
            Self::ShortIcmpv6 { kind, code, len } => {
                (58, [vec![*kind, *code], vec![0; len.saturating_sub(2)]].concat())
            }
            Self::RouterAlert(kind) => (0, vec![58, 0, 5, 2, 0, 0, 1, 0, *kind, 0, 0, 0, 0, 0, 0, 0]),
            Self::Bytes { protocol, bytes, .. } => (*protocol, bytes.clone()),
            Self::Dns(dns) => (17, dns.to_bytes()),
            Self::Error { kind, quoted } => {
                let (protocol, quoted) = match &**quoted {
                    Network::V4(packet) => (1, packet.to_bytes(cookies)),
                    Network::V6(packet) => (58, packet.to_bytes(cookies)),
                    Network::Arp(_) | Network::Other { .. } => unreachable!("errors are about IP packets"),
                };
                (protocol, [&[*kind, 0, 0, 0, 0, 0, 0, 0][..], &quoted].concat())
            }
            Self::Other(protocol) => (*protocol, vec![0; 16]),
        }
    }
}

impl Dns {
    fn to_bytes(self) -> Vec<u8> {
        let Self { source_port, destination_port, id, name, answer } = self;
        let mut message = [id, if answer { 0x8180 } else { 0x0100 }, 1, u16::from(answer), 0, u16::from(!answer)]
            .map(u16::to_be_bytes)
            .concat();
        for label in name.split('.') {
            message.push(label.len() as u8);
            message.extend(label.bytes());
        }
        message.extend([0, 0, 1, 0, 1]);
        if answer {
            // An address, for a minute.
            message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 77]);
        } else {
            // RFC 6891: a client that takes 1,232 bytes.
            message.extend([0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0]);
        }
        let mut bytes = [source_port, destination_port, 8 + message.len() as u16].map(u16::to_be_bytes).concat();
        bytes.extend([0xab, 0xcd]);
        bytes.extend(message);
        bytes
    }
}

impl Tcp {
    fn to_bytes(&self, source: Address, destination: Address, cookies: &Cookies) -> Vec<u8> {
        let tuple =
            FourTuple { source, destination, source_port: self.source_port, destination_port: self.destination_port };
        let ack = match self.ack {
            Ack::Number(number) => number,
            Ack::Cookie { client_isn, received } => {
                cookie::isn(&cookies.keys, &tuple, client_isn, cookies.now_ns).wrapping_add(1).wrapping_add(received)
            }
        };
        let mut bytes = [self.source_port.to_be_bytes(), self.destination_port.to_be_bytes()].concat();
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(ack.to_be_bytes());
        bytes.extend([self.data_offset.unwrap_or((5 + self.options) << 4), self.flags, 0xff, 0xff, 0xde, 0xad, 0, 0]);
        bytes.extend(std::iter::repeat_n(1, 4 * usize::from(self.options)));
        bytes.extend((0..self.data).map(|i| b'a' + (i % 26) as u8));
        bytes
    }
}

impl Network {
    fn describe(&self) -> String {
        match self {
            Self::V4(packet) => packet.describe(),
            Self::V6(packet) => packet.describe(),
            Self::Arp(arp) => {
                let kind = if arp.operation == 1 { "request" } else { "reply" };
                let mut text = format!("ARP {kind} of {}", Ipv4Addr::from(arp.sender));
                if let Some(mac) = arp.sender_mac {
                    add(&mut text, format_args!(" at {}", setting::who(mac)));
                }
                if arp.hardware != 1 {
                    add(&mut text, format_args!(", hardware type {}", arp.hardware));
                }
                if arp.len < 28 {
                    add(&mut text, format_args!(", {} bytes", arp.len));
                }
                text
            }
            Self::Other { ether_type, payload } if *ether_type < 0x600 => {
                format!("IEEE 802.3, length {ether_type}, {} bytes", payload.len())
            }
            Self::Other { ether_type, payload } => format!("EtherType {ether_type:#06x}, {} bytes", payload.len()),
        }
    }
}

impl Ipv4 {
    fn describe(&self) -> String {
        let (protocol, port, details) = self.payload.describe();
        let mut text =
            format!("IPv4 {protocol} {} → {}{port}", Ipv4Addr::from(self.source), Ipv4Addr::from(self.destination));
        text += &details;
        if !self.options.is_empty() {
            add(&mut text, format_args!(", options {:02x?}", self.options));
        }
        match (self.flags_and_offset & 0x1fff, self.flags_and_offset & 0x2000 != 0) {
            (0, false) => {}
            (0, true) => text += ", first fragment",
            (offset, _) => add(&mut text, format_args!(", fragment at {}", 8 * u32::from(offset))),
        }
        if self.length_error != 0 {
            add(&mut text, format_args!(", total length {:+}", self.length_error));
        }
        if self.bad_checksum {
            text += ", wrong checksum";
        }
        if let Some(first) = self.version_and_ihl {
            add(&mut text, format_args!(", first byte {first:#04x}"));
        }
        text
    }
}

impl Ipv6 {
    fn describe(&self) -> String {
        let (protocol, port, details) = self.payload.describe();
        let destination = Ipv6Addr::from(self.destination);
        let destination = if port.is_empty() { destination.to_string() } else { format!("[{destination}]{port}") };
        let mut text = format!("IPv6 {protocol} {} → {destination}{details}", Ipv6Addr::from(self.source));
        if !self.extensions.is_empty() {
            let names: Vec<_> = self.extensions.iter().map(|e| extension_name(e.protocol)).collect();
            add(&mut text, format_args!(", behind {}", names.join(" + ")));
        }
        if self.hop_limit != 64 {
            add(&mut text, format_args!(", hop limit {}", self.hop_limit));
        }
        if self.length_error != 0 {
            add(&mut text, format_args!(", payload length {:+}", self.length_error));
        }
        if self.version != 6 {
            add(&mut text, format_args!(", version {}", self.version));
        }
        text
    }
}

fn extension_name(protocol: u8) -> String {
    match protocol {
        0 => "hop-by-hop".into(),
        43 => "routing".into(),
        44 => "fragment".into(),
        51 => "AH".into(),
        60 => "destination options".into(),
        135 => "mobility".into(),
        other => format!("header {other}"),
    }
}

impl Payload {
    /// The protocol, `:port` where there is one, and the rest.
    fn describe(&self) -> (String, String, String) {
        match self {
            Self::Tcp(tcp) => ("TCP".into(), format!(":{}", tcp.destination_port), tcp.describe()),
            Self::Udp { source_port, destination_port, data, length_error } => {
                let mut details = format!(", from port {source_port}, {data} bytes");
                if *length_error != 0 {
                    add(&mut details, format_args!(", UDP length {length_error:+}"));
                }
                ("UDP".into(), format!(":{destination_port}"), details)
            }
            Self::Icmp(kind) => (format!("ICMP type {kind}"), String::new(), String::new()),
            Self::Icmpv6(kind) => (format!("ICMPv6 type {kind}"), String::new(), String::new()),
            Self::Advertisement(target) => {
                ("ICMPv6 type 136".into(), String::new(), format!(", of {}", Ipv6Addr::from(*target)))
            }
            Self::ShortIcmpv6 { kind, code, len } => {
                (format!("ICMPv6 type {kind} code {code}"), String::new(), format!(", {len} bytes"))
            }
            Self::RouterAlert(kind) => (format!("ICMPv6 type {kind}"), String::new(), ", behind a router alert".into()),
            Self::Bytes { what, .. } => (what.clone(), String::new(), String::new()),
            Self::Dns(dns) => {
                let kind = if dns.answer { "DNS answer" } else { "DNS query" };
                (
                    "UDP".into(),
                    format!(":{}", dns.destination_port),
                    format!(", from port {}, {kind} {:#06x} for {}", dns.source_port, dns.id, dns.name),
                )
            }
            Self::Error { kind, quoted } => {
                (format!("ICMP error of type {kind}"), String::new(), format!(", about {}", quoted.describe()))
            }
            Self::Other(protocol) => (format!("protocol {protocol}"), String::new(), String::new()),
        }
    }
}

impl Tcp {
    fn describe(&self) -> String {
        const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
        let flags: Vec<_> =
            NAMES.iter().enumerate().filter(|(bit, _)| self.flags & 1 << bit != 0).map(|(_, name)| *name).collect();
        let mut text = format!(", {}", if flags.is_empty() { "no flags".into() } else { flags.join(" ") });
        match self.ack {
            Ack::Number(_) => {}
            Ack::Cookie { received: 0, .. } => text += ", after our handshake",
            Ack::Cookie { received, .. } => add(&mut text, format_args!(", has received {received} bytes of ours")),
        }
        if self.data > 0 {
            add(&mut text, format_args!(", {} bytes", self.data));
        }
        if let Some(offset) = self.data_offset {
            add(&mut text, format_args!(", data offset {}", offset >> 4));
        }
        text
    }
}

fn add(text: &mut String, more: Arguments<'_>) {
    text.write_fmt(more).expect("a string takes everything");
}

/// Of a tag's control information.
const fn vlan_id(tag: u16) -> u16 {
    tag % 0x1000
}
