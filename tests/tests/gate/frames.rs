//! Frames, well-formed or not, from a description in fields.

use portal_common::{
    checksum::Sum,
    cookie::{self, FourTuple},
    tables::{Address, CookieKeys},
};

pub(crate) const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const STRANGER: [u8; 6] = [2, 0, 0, 0, 1, 1];
pub(crate) const GUEST: [u8; 6] = [2, 0, 0, 0, 1, 2];
pub(crate) const EXPIRED: [u8; 6] = [2, 0, 0, 0, 1, 3];

pub(crate) const CLIENT_V4: [u8; 4] = [192, 0, 2, 50];
pub(crate) const GATEWAY_V4: [u8; 4] = [192, 0, 2, 1];
pub(crate) const SITE_V4: [u8; 4] = [198, 51, 100, 80];
pub(crate) const CLIENT_V6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x50];
pub(crate) const GATEWAY_V6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub(crate) const SITE_V6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80];
pub(crate) const LINK_LOCAL_V6: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x50];
pub(crate) const ALL_NODES_V6: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// A frame in fields.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) destination: [u8; 6],
    pub(crate) source: [u8; 6],
    pub(crate) tags: Vec<(u16, u16)>,
    pub(crate) network: Network,
    /// Bytes after the packet, as short frames have them.
    pub(crate) padding: usize,
}

#[derive(Clone, Debug)]
pub(crate) enum Network {
    V4(Ipv4),
    V6(Ipv6),
    Other { ether_type: u16, payload: Vec<u8> },
}

#[derive(Clone, Debug)]
pub(crate) struct Ipv4 {
    pub(crate) source: [u8; 4],
    pub(crate) destination: [u8; 4],
    /// Four-byte words of options.
    pub(crate) options: u8,
    pub(crate) flags_and_offset: u16,
    /// Added to the true total length.
    pub(crate) length_error: i16,
    pub(crate) bad_checksum: bool,
    pub(crate) version_and_ihl: Option<u8>,
    pub(crate) payload: Payload,
}

#[derive(Clone, Debug)]
pub(crate) struct Ipv6 {
    pub(crate) source: [u8; 16],
    pub(crate) destination: [u8; 16],
    pub(crate) hop_limit: u8,
    pub(crate) length_error: i16,
    pub(crate) version: u8,
    pub(crate) payload: Payload,
}

#[derive(Clone, Debug)]
pub(crate) enum Payload {
    Tcp(Tcp),
    Udp {
        source_port: u16,
        destination_port: u16,
        data: usize,
        length_error: i16,
    },
    Icmp(u8),
    Icmpv6(u8),
    /// One of this type, code and length.
    ShortIcmpv6 {
        kind: u8,
        code: u8,
        len: usize,
    },
    /// A hop-by-hop header with a router alert, then an ICMPv6 message of this type.
    RouterAlert(u8),
    Other(u8),
}

#[derive(Clone, Debug)]
pub(crate) struct Tcp {
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) seq: u32,
    pub(crate) ack: Ack,
    pub(crate) flags: u8,
    /// Four-byte words of options.
    pub(crate) options: u8,
    pub(crate) data: usize,
    pub(crate) data_offset: Option<u8>,
}

/// An acknowledgement number.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ack {
    /// Just this.
    Number(u32),
    /// Of our cookie for this connection and this client's initial sequence number, and so many bytes of the response.
    Cookie { client_isn: u32, received: u32 },
}

/// What it takes to make a valid cookie.
pub(crate) struct Cookies {
    pub(crate) keys: CookieKeys,
    pub(crate) now_ns: u64,
}

impl Frame {
    pub(crate) fn to_bytes(&self, cookies: &Cookies) -> Vec<u8> {
        let mut bytes = [self.destination, self.source].concat();
        for (protocol, tag) in &self.tags {
            bytes.extend(protocol.to_be_bytes());
            bytes.extend(tag.to_be_bytes());
        }
        match &self.network {
            Network::V4(packet) => {
                bytes.extend([0x08, 0x00]);
                bytes.extend(packet.to_bytes(cookies));
            }
            Network::V6(packet) => {
                bytes.extend([0x86, 0xdd]);
                bytes.extend(packet.to_bytes(cookies));
            }
            Network::Other { ether_type, payload } => {
                bytes.extend(ether_type.to_be_bytes());
                bytes.extend(payload);
            }
        }
        bytes.extend(std::iter::repeat_n(0, self.padding));
        bytes
    }
}

impl Ipv4 {
    fn to_bytes(&self, cookies: &Cookies) -> Vec<u8> {
        let (protocol, payload) =
            self.payload.to_bytes(Address::v4(self.source), Address::v4(self.destination), cookies);
        let header_len = 20 + 4 * usize::from(self.options);
        let total = ((header_len + payload.len()) as u16).wrapping_add_signed(self.length_error);
        let mut header = vec![0x40 | (header_len / 4) as u8, 0];
        header.extend(total.to_be_bytes());
        header.extend([0x12, 0x34]);
        header.extend(self.flags_and_offset.to_be_bytes());
        header.extend([64, protocol, 0, 0]);
        header.extend(self.source);
        header.extend(self.destination);
        header.extend(std::iter::repeat_n(1, 4 * usize::from(self.options)));
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
        let mut bytes = vec![self.version << 4, 0, 0, 0];
        bytes.extend((payload.len() as u16).wrapping_add_signed(self.length_error).to_be_bytes());
        bytes.extend([protocol, self.hop_limit]);
        bytes.extend(self.source);
        bytes.extend(self.destination);
        bytes.extend(payload);
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
            // As long as the longest that neighbour discovery demands.
            Self::Icmpv6(kind) => (58, [vec![*kind, 0, 0, 0], vec![0; 20]].concat()),
            Self::ShortIcmpv6 { kind, code, len } => {
                (58, [vec![*kind, *code], vec![0; len.saturating_sub(2)]].concat())
            }
            Self::RouterAlert(kind) => (0, vec![58, 0, 5, 2, 0, 0, 1, 0, *kind, 0, 0, 0, 0, 0, 0, 0]),
            Self::Other(protocol) => (*protocol, vec![0; 16]),
        }
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
