//! A frame from its description in fields, as an operator types it.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, Ethernet2Header, Icmpv4Header, Icmpv4Type, Icmpv6Header,
    Icmpv6Type, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, SingleVlanHeader, TcpHeader, TcpOptionElement,
    UdpHeader, VlanId, VlanPcp, icmpv4, icmpv6,
};

/// Ethernet's shortest frame without its check sequence, bytes (IEEE 802.3-2018 section 3.2.8): a NIC pads to it.
const MIN_FRAME: usize = 60;
/// What a UDP datagram holds where nothing is said: enough for the gate to answer it with an ICMP error over either family.
const UDP_DATA: usize = 48;
/// What `ping` sends.
const ECHO_DATA: usize = 56;
/// A port that Linux picks for a client (`ip_local_port_range`).
const CLIENT_PORT: u16 = 40_000;
/// What the cable bears behind IPv4 and TCP headers, bytes; IPv6's header has 20 more.
const MSS_V4: u16 = 1_460;
const MSS_V6: u16 = 1_440;
const TTL: u8 = 64;
/// Documentation addresses (RFC 5737, RFC 3849): somewhere in the internet.
const SITE_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 80);
const SITE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x80);
const HOST_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 250);
const HOST_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x250);

/// A MAC address of whatever kind: a group's and zero are what the gate may be asked about, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnyMac(pub [u8; 6]);

impl AnyMac {
    /// Every station.
    pub const BROADCAST: Self = Self([0xff; 6]);
}

impl FromStr for AnyMac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a MAC address; write six bytes in hexadecimal: 02:00:5e:10:00:01");
        let digits: String = text.chars().filter(|c| !matches!(c, ':' | '-' | '.')).collect();
        let bytes = super::input::digits(&digits).ok_or_else(wrong)?;
        bytes.try_into().map(Self).map_err(|_| wrong())
    }
}

impl fmt::Display for AnyMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, rest @ ..] = self.0;
        write!(f, "{first:02x}")?;
        rest.iter().try_for_each(|byte| write!(f, ":{byte:02x}"))
    }
}

/// The protocol of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// A TCP segment.
    #[default]
    Tcp,
    /// A UDP datagram.
    Udp,
    /// An ICMP echo request, or what `--type` says.
    Icmp,
    /// An ICMPv6 echo request, or what `--type` says.
    Icmpv6,
    /// An ARP request.
    Arp,
}

/// TCP's flags (RFC 9293 section 3.1), by name: `syn,ack`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    const NAMES: [(&'static str, u8); 8] = [
        ("fin", 0x01),
        ("syn", 0x02),
        ("rst", 0x04),
        ("psh", 0x08),
        ("ack", 0x10),
        ("urg", 0x20),
        ("ece", 0x40),
        ("cwr", 0x80),
    ];
    const SYN: Self = Self(0x02);
    const DATA: Self = Self(0x18);

    const fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }
}

impl FromStr for Flags {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(0));
        }
        text.split(',').try_fold(Self(0), |flags, name| {
            let name = name.trim().to_ascii_lowercase();
            let (_, flag) = Self::NAMES.iter().find(|(known, _)| *known == name).ok_or_else(|| {
                let known: Vec<&str> = Self::NAMES.iter().map(|(known, _)| *known).collect();
                format!("there is no TCP flag `{name}`; known: {}, and `none` alone", known.join(", "))
            })?;
            Ok(Self(flags.0 | flag))
        })
    }
}

/// VLAN ids, the outer first: `10`, or `100.10` for two tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vlans(Vec<u16>);

impl FromStr for Vlans {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ids: Result<Vec<u16>, String> = text
            .split('.')
            .map(|id| {
                let id: Option<u16> = id.parse().ok();
                id.filter(|id| *id < 4095).ok_or_else(|| {
                    format!("`{text}` is no VLAN; write an id from 0 to 4094, or two as 100.10, the outer first")
                })
            })
            .collect();
        Ok(Self(ids?))
    }
}

/// Bytes written as text, with `\r`, `\n`, `\t`, `\0`, `\\` and `\x41` for what can't be typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text(pub Vec<u8>);

impl FromStr for Text {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = Vec::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            if c != '\\' {
                bytes.extend(c.encode_utf8(&mut [0; 4]).bytes());
                continue;
            }
            bytes.push(match rest.next() {
                Some('r') => b'\r',
                Some('n') => b'\n',
                Some('t') => b'\t',
                Some('0') => 0,
                Some('\\') => b'\\',
                Some('x') => {
                    let pair: String = rest.by_ref().take(2).collect();
                    match super::input::digits(&pair).as_deref() {
                        Some([byte]) => *byte,
                        _ => return Err(format!("`\\x{pair}` is no byte; write two hexadecimal digits, as \\x0d")),
                    }
                }
                other => {
                    let other = other.map(String::from).unwrap_or_default();
                    return Err(format!("`\\{other}` stands for nothing; known: \\r \\n \\t \\0 \\\\ \\x0d"));
                }
            });
        }
        Ok(Self(bytes))
    }
}

/// A frame in fields. What is None follows from the rest, and from [`Surroundings`].
#[derive(Clone, Debug, Default)]
pub struct FrameSpec {
    /// The sender.
    pub mac: Option<AnyMac>,
    /// The receiver; None: the gateway, or everybody for ARP.
    pub dst_mac: Option<AnyMac>,
    /// VLAN tags.
    pub vlan: Vlans,
    /// The sender's address.
    pub src: Option<IpAddr>,
    /// The receiver's address, for ARP the one that is asked for.
    pub dst: Option<IpAddr>,
    /// What the packet holds.
    pub protocol: Protocol,
    /// The sender's port.
    pub sport: Option<u16>,
    /// The receiver's port; None: 80 for TCP, 53 for UDP.
    pub dport: Option<u16>,
    /// TCP's flags; None: SYN, or PSH and ACK where there is data.
    pub flags: Option<Flags>,
    /// TCP's sequence number.
    pub seq: u32,
    /// TCP's acknowledgement number.
    pub ack: u32,
    /// The ICMP type; None: an echo request.
    pub icmp_type: Option<u8>,
    /// The ICMP code.
    pub icmp_code: u8,
    /// Time to live, or hop limit.
    pub ttl: Option<u8>,
    /// What follows the headers; None: what such a packet has as a rule.
    pub data: Option<Vec<u8>>,
}

/// What a frame is like where nothing is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// Where guests send to.
    pub gateway_mac: [u8; 6],
    /// Who sends, where no `--mac` says it.
    pub mac: [u8; 6],
    /// A guest's IPv4 address that nobody uses; None: a documentation address.
    pub host_v4: Option<Ipv4Addr>,
    /// A guest's IPv6 address that nobody uses; None: a link-local one.
    pub host_v6: Option<Ipv6Addr>,
    /// The gateway's IPv4 address, which ARP asks for.
    pub gateway_v4: Option<Ipv4Addr>,
}

/// Why there is no such frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// An IPv4 address beside an IPv6 one.
    #[error("{0} and {1} are not of one family; give two IPv4 addresses or two IPv6 addresses")]
    Families(IpAddr, IpAddr),
    /// The protocol exists over the other family only.
    #[error("{protocol} is not sent from or to {address}; {remedy}")]
    Protocol {
        /// The protocol's name.
        protocol: &'static str,
        /// An address of the other family.
        address: IpAddr,
        /// What to write instead.
        remedy: &'static str,
    },
    /// There is no room for so much.
    #[error("{0} bytes of data fit into no packet; give at most 65,000")]
    TooLong(usize),
    /// Three tags or more are beyond what this describes.
    #[error("{0} VLAN tags are more than can be described so; give the frame in hexadecimal")]
    Tags(usize),
}

impl FrameSpec {
    /// The frame's bytes, padded to Ethernet's 60.
    pub fn build(&self, around: &Surroundings) -> Result<Vec<u8>, BuildError> {
        const MOST_DATA: usize = 65_000;
        if let Some(len) = self.data.as_ref().map(Vec::len).filter(|len| *len > MOST_DATA) {
            return Err(BuildError::TooLong(len));
        }
        let (ether_type, packet) =
            if self.protocol == Protocol::Arp { (EtherType::ARP, self.arp(around)?) } else { self.ip(around)? };
        let ids = &self.vlan.0;
        if ids.len() > 2 {
            return Err(BuildError::Tags(ids.len()));
        }
        // The outer of two tags is a provider's (IEEE 802.1ad).
        let tag_type = |depth: usize| {
            if depth == 0 && ids.len() == 2 { EtherType::PROVIDER_BRIDGING } else { EtherType::VLAN_TAGGED_FRAME }
        };
        let next = |depth: usize| if depth < ids.len() { tag_type(depth) } else { ether_type };
        let receiver = match self.protocol {
            Protocol::Arp => AnyMac::BROADCAST.0,
            Protocol::Tcp | Protocol::Udp | Protocol::Icmp | Protocol::Icmpv6 => around.gateway_mac,
        };
        let ethernet = Ethernet2Header {
            source: self.mac.map_or(around.mac, |mac| mac.0),
            destination: self.dst_mac.map_or(receiver, |mac| mac.0),
            ether_type: next(0),
        };
        let mut frame = ethernet.to_bytes().to_vec();
        for (depth, id) in ids.iter().enumerate() {
            let tag = SingleVlanHeader {
                pcp: VlanPcp::ZERO,
                drop_eligible_indicator: false,
                vlan_id: VlanId::try_new(*id).expect("the id was checked when it was read"),
                ether_type: next(depth + 1),
            };
            frame.extend(tag.to_bytes());
        }
        frame.extend(packet);
        if frame.len() < MIN_FRAME {
            frame.resize(MIN_FRAME, 0);
        }
        Ok(frame)
    }

    /// Who asks whose.
    fn arp(&self, around: &Surroundings) -> Result<Vec<u8>, BuildError> {
        let v4 = |address: Option<IpAddr>, otherwise: Ipv4Addr| match address {
            None => Ok(otherwise),
            Some(IpAddr::V4(address)) => Ok(address),
            Some(address @ IpAddr::V6(_)) => Err(BuildError::Protocol {
                protocol: "ARP",
                address,
                remedy: "give IPv4 addresses (IPv6 has neighbour discovery: give such a frame in hexadecimal)",
            }),
        };
        let source = v4(self.src, around.host_v4.unwrap_or(HOST_V4))?;
        let target = v4(self.dst, around.gateway_v4.unwrap_or(SITE_V4))?;
        let mac = self.mac.map_or(around.mac, |mac| mac.0);
        let request = ArpPacket::new(
            ArpHardwareId::ETHERNET,
            EtherType::IPV4,
            ArpOperation::REQUEST,
            &mac,
            &source.octets(),
            &[0; 6],
            &target.octets(),
        )
        .expect("both pairs of addresses are of one length");
        Ok(request.to_bytes().to_vec())
    }

    fn ip(&self, around: &Surroundings) -> Result<(EtherType, Vec<u8>), BuildError> {
        let remedy_v6 = "over IPv6 it is `--proto icmpv6`";
        let remedy_v4 = "over IPv4 it is `--proto icmp`";
        let given = self.src.or(self.dst);
        let mac = self.mac.map_or(around.mac, |mac| mac.0);
        if let (Some(src), Some(dst)) = (self.src, self.dst)
            && src.is_ipv4() != dst.is_ipv4()
        {
            return Err(BuildError::Families(src, dst));
        }
        let v6 = match (self.protocol, given) {
            (Protocol::Icmp, Some(address)) if address.is_ipv6() => {
                return Err(BuildError::Protocol { protocol: "ICMP", address, remedy: remedy_v6 });
            }
            (Protocol::Icmpv6, Some(address)) if address.is_ipv4() => {
                return Err(BuildError::Protocol { protocol: "ICMPv6", address, remedy: remedy_v4 });
            }
            (protocol, None) => protocol == Protocol::Icmpv6,
            (_, Some(address)) => address.is_ipv6(),
        };
        Ok(if v6 {
            let pick = |address, otherwise| if let Some(IpAddr::V6(address)) = address { address } else { otherwise };
            let source = pick(self.src, around.host_v6.unwrap_or(HOST_V6));
            let destination = pick(self.dst, SITE_V6);
            (EtherType::IPV6, self.ipv6(source, destination, mac))
        } else {
            let pick = |address, otherwise| if let Some(IpAddr::V4(address)) = address { address } else { otherwise };
            let source = pick(self.src, around.host_v4.unwrap_or(HOST_V4));
            let destination = pick(self.dst, SITE_V4);
            (EtherType::IPV4, self.ipv4(source, destination, mac))
        })
    }

    fn ipv4(&self, source: Ipv4Addr, destination: Ipv4Addr, mac: [u8; 6]) -> Vec<u8> {
        const FITS: &str = "the data's length was checked";
        let data = self.data(mac);
        let (s, d) = (source.octets(), destination.octets());
        let (number, transport) = match self.protocol {
            Protocol::Tcp => {
                let mut header = self.tcp(&data, MSS_V4);
                header.checksum = header.calc_checksum_ipv4_raw(s, d, &data).expect(FITS);
                (IpNumber::TCP, header.to_bytes().to_vec())
            }
            Protocol::Udp => {
                let mut header = self.udp(&data);
                header.checksum = header.calc_checksum_ipv4_raw(s, d, &data).expect(FITS);
                (IpNumber::UDP, header.to_bytes().to_vec())
            }
            Protocol::Icmp | Protocol::Icmpv6 | Protocol::Arp => {
                let kind = Icmpv4Type::Unknown {
                    type_u8: self.icmp_type.unwrap_or(icmpv4::TYPE_ECHO_REQUEST),
                    code_u8: self.icmp_code,
                    bytes5to8: self.echo_id(),
                };
                (IpNumber::ICMP, Icmpv4Header::with_checksum(kind, &data).to_bytes().to_vec())
            }
        };
        let len = u16::try_from(transport.len() + data.len()).expect(FITS);
        let mut header = Ipv4Header::new(len, self.ttl.unwrap_or(TTL), number, s, d).expect(FITS);
        header.header_checksum = header.calc_header_checksum();
        [&header.to_bytes()[..], &transport, &data].concat()
    }

    fn ipv6(&self, source: Ipv6Addr, destination: Ipv6Addr, mac: [u8; 6]) -> Vec<u8> {
        const FITS: &str = "the data's length was checked";
        let data = self.data(mac);
        let (s, d) = (source.octets(), destination.octets());
        let (number, transport) = match self.protocol {
            Protocol::Tcp => {
                let mut header = self.tcp(&data, MSS_V6);
                header.checksum = header.calc_checksum_ipv6_raw(s, d, &data).expect(FITS);
                (IpNumber::TCP, header.to_bytes().to_vec())
            }
            Protocol::Udp => {
                let mut header = self.udp(&data);
                header.checksum = header.calc_checksum_ipv6_raw(s, d, &data).expect(FITS);
                (IpNumber::UDP, header.to_bytes().to_vec())
            }
            Protocol::Icmp | Protocol::Icmpv6 | Protocol::Arp => {
                let kind = Icmpv6Type::Unknown {
                    type_u8: self.icmp_type.unwrap_or(icmpv6::TYPE_ECHO_REQUEST),
                    code_u8: self.icmp_code,
                    bytes5to8: self.echo_id(),
                };
                let header = Icmpv6Header::with_checksum(kind, s, d, &data).expect(FITS);
                (IpNumber::IPV6_ICMP, header.to_bytes().to_vec())
            }
        };
        let header = Ipv6Header {
            traffic_class: 0,
            flow_label: Ipv6FlowLabel::ZERO,
            payload_length: u16::try_from(transport.len() + data.len()).expect(FITS),
            next_header: number,
            hop_limit: self.ttl.unwrap_or(TTL),
            source: s,
            destination: d,
        };
        [&header.to_bytes()[..], &transport, &data].concat()
    }

    fn tcp(&self, data: &[u8], mss: u16) -> TcpHeader {
        let flags = self.flags.unwrap_or(if data.is_empty() { Flags::SYN } else { Flags::DATA });
        let mut header = TcpHeader::new(self.sport.unwrap_or(CLIENT_PORT), self.dport.unwrap_or(80), self.seq, 0xffff);
        header.acknowledgment_number = self.ack;
        header.fin = flags.has(0x01);
        header.syn = flags.has(0x02);
        header.rst = flags.has(0x04);
        header.psh = flags.has(0x08);
        header.ack = flags.has(0x10);
        header.urg = flags.has(0x20);
        header.ece = flags.has(0x40);
        header.cwr = flags.has(0x80);
        if header.syn {
            // Every client's SYN has it, and what the gate answers depends on it.
            header.set_options(&[TcpOptionElement::MaximumSegmentSize(mss)]).expect("four bytes of options fit");
        }
        header
    }

    fn udp(&self, data: &[u8]) -> UdpHeader {
        UdpHeader {
            source_port: self.sport.unwrap_or(CLIENT_PORT),
            destination_port: self.dport.unwrap_or(53),
            length: u16::try_from(8 + data.len()).expect("the data's length was checked"),
            checksum: 0,
        }
    }

    /// What an echo request has behind its checksum; other messages have something else there, or nothing.
    fn echo_id(&self) -> [u8; 4] {
        if self.icmp_type.is_none() { ECHO_ID } else { [0; 4] }
    }

    fn data(&self, mac: [u8; 6]) -> Vec<u8> {
        if let Some(data) = &self.data {
            return data.clone();
        }
        match self.protocol {
            Protocol::Tcp | Protocol::Arp => Vec::new(),
            Protocol::Udp if self.dport.is_none_or(|port| port == 53) => DNS_QUERY.to_vec(),
            // What the gate reads of them.
            Protocol::Udp if self.dport == Some(DHCP_SERVER) => dhcp_discover(mac),
            Protocol::Udp if self.dport == Some(DHCPV6_SERVER) => DHCPV6_SOLICIT.to_vec(),
            Protocol::Udp => vec![0; UDP_DATA],
            // Another message than an echo request has what its type says.
            Protocol::Icmp | Protocol::Icmpv6 if self.icmp_type.is_some() => Vec::new(),
            Protocol::Icmp | Protocol::Icmpv6 => vec![0; ECHO_DATA],
        }
    }
}

const DHCP_SERVER: u16 = 67;
const DHCPV6_SERVER: u16 = 547;
/// Type SOLICIT and a transaction's number, an identifier that is a number (DUID-UUID), and no time elapsed (RFC 8415).
const DHCPV6_SOLICIT: [u8; 32] =
    [1, 0, 0, 1, 0, 1, 0, 18, 0, 4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 8, 0, 2, 0, 0];

/// A DHCPDISCOVER of this client (RFC 2131 section 2): the fixed fields, the options' mark, the message's type, and the end.
fn dhcp_discover(mac: [u8; 6]) -> Vec<u8> {
    let mut message = vec![0; 236];
    message[..3].copy_from_slice(&[1, 1, 6]);
    message[28..34].copy_from_slice(&mac);
    message.extend([99, 130, 83, 99, 53, 1, 1, 255]);
    message
}

/// Identifier and sequence number, 1 each.
const ECHO_ID: [u8; 4] = [0, 1, 0, 1];
/// Asks for example.com's IPv4 address (RFC 1035 section 4).
const DNS_QUERY: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01";

#[cfg(test)]
mod tests {
    use etherparse::{NetHeaders, PacketHeaders, TransportHeader};

    use super::*;

    fn around() -> Surroundings {
        Surroundings {
            gateway_mac: [2, 0, 0, 0, 0, 1],
            mac: [2, 0, 0, 0, 9, 9],
            host_v4: Some([192, 0, 2, 7].into()),
            host_v6: None,
            gateway_v4: Some([192, 0, 2, 1].into()),
        }
    }

    fn spec(protocol: Protocol) -> FrameSpec {
        FrameSpec { protocol, ..FrameSpec::default() }
    }

    #[test]
    fn frames_are_what_was_described_with_correct_checksums() {
        let v6: IpAddr = "2001:db8::5".parse().unwrap();
        let table = [
            ("nothing said: a SYN to port 80", spec(Protocol::Tcp), "192.0.2.7:40000 198.51.100.80:80 tcp S"),
            (
                "a request over IPv6",
                FrameSpec { src: Some(v6), data: Some(b"GET".to_vec()), ..spec(Protocol::Tcp) },
                "2001:db8::5:40000 2001:db8:2::80:80 tcp PA 3",
            ),
            (
                "flags and ports",
                FrameSpec {
                    flags: Some("FIN,ack".parse().unwrap()),
                    sport: Some(5),
                    dport: Some(443),
                    ..spec(Protocol::Tcp)
                },
                "192.0.2.7:5 198.51.100.80:443 tcp FA",
            ),
            ("a DNS query", spec(Protocol::Udp), "192.0.2.7:40000 198.51.100.80:53 udp 29"),
            (
                "another datagram, over IPv6",
                FrameSpec { dst: Some(v6), dport: Some(443), ..spec(Protocol::Udp) },
                "fe80::250:40000 2001:db8::5:443 udp 48",
            ),
            ("a ping", spec(Protocol::Icmp), "192.0.2.7 198.51.100.80 icmp 8 56"),
            ("a ping over IPv6", spec(Protocol::Icmpv6), "fe80::250 2001:db8:2::80 icmpv6 128 56"),
            (
                "a router advertisement",
                FrameSpec { icmp_type: Some(134), ttl: Some(255), ..spec(Protocol::Icmpv6) },
                "fe80::250 2001:db8:2::80 icmpv6 134 hop limit 255",
            ),
        ];
        for (sentence, spec, expected) in table {
            let frame = spec.build(&around()).expect(sentence);
            assert!(frame.len() >= MIN_FRAME, "{sentence}");
            assert_eq!(frame[..12], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 9, 9], "{sentence}");
            assert_eq!(in_words(&frame), expected, "{sentence}");
        }
    }

    /// The packet in words; panics where a checksum is wrong.
    fn in_words(frame: &[u8]) -> String {
        let headers = PacketHeaders::from_ethernet_slice(frame).unwrap();
        let net = headers.net.unwrap();
        let transport = headers.transport.unwrap();
        let payload = headers.payload.slice();
        let mut again = transport.clone();
        let (source, destination): (IpAddr, IpAddr) = match &net {
            NetHeaders::Ipv4(h, _) => {
                assert_eq!(h.header_checksum, h.calc_header_checksum());
                again.update_checksum_ipv4(h, payload).unwrap();
                (h.source.into(), h.destination.into())
            }
            NetHeaders::Ipv6(h, _) => {
                again.update_checksum_ipv6(h, payload).unwrap();
                (h.source.into(), h.destination.into())
            }
            NetHeaders::Arp(_) => unreachable!(),
        };
        assert_eq!(again, transport, "the checksum is correct");
        let hop = match &net {
            NetHeaders::Ipv6(h, _) if h.hop_limit != 64 => format!(" hop limit {}", h.hop_limit),
            _ => String::new(),
        };
        let data = if payload.is_empty() { String::new() } else { format!(" {}", payload.len()) };
        match transport {
            TransportHeader::Tcp(h) => {
                let names = [(h.syn, 'S'), (h.fin, 'F'), (h.psh, 'P'), (h.ack, 'A')];
                let flags: String = names.iter().filter(|(set, _)| *set).map(|(_, c)| *c).collect();
                assert_eq!(h.syn, h.options.len() == 4);
                format!("{source}:{} {destination}:{} tcp {flags}{data}", h.source_port, h.destination_port)
            }
            TransportHeader::Udp(h) => {
                format!("{source}:{} {destination}:{} udp{data}", h.source_port, h.destination_port)
            }
            TransportHeader::Icmpv4(h) => format!("{source} {destination} icmp {}{data}", h.to_bytes()[0]),
            TransportHeader::Icmpv6(h) => format!("{source} {destination} icmpv6 {}{hop}{data}", h.to_bytes()[0]),
            TransportHeader::Igmp(_) => unreachable!("nothing builds IGMP"),
        }
    }

    #[test]
    fn link_layer_as_described() {
        let arp = spec(Protocol::Arp).build(&around()).unwrap();
        assert_eq!(arp[..6], [0xff; 6]);
        assert_eq!(arp[12..14], [8, 6]);
        assert_eq!(arp[28..32], [192, 0, 2, 7]);
        assert_eq!(arp[38..42], [192, 0, 2, 1]);
        let one = FrameSpec { vlan: "10".parse().unwrap(), ..spec(Protocol::Tcp) }.build(&around()).unwrap();
        assert_eq!(one[12..18], [0x81, 0, 0, 10, 8, 0]);
        let two = FrameSpec { vlan: "100.10".parse().unwrap(), ..spec(Protocol::Icmpv6) }.build(&around()).unwrap();
        assert_eq!(two[12..22], [0x88, 0xa8, 0, 100, 0x81, 0, 0, 10, 0x86, 0xdd]);
        let macs = FrameSpec {
            mac: Some("02-00-5e-10-00-01".parse().unwrap()),
            dst_mac: Some("ff:ff:ff:ff:ff:ff".parse().unwrap()),
            ..spec(Protocol::Tcp)
        };
        assert_eq!(macs.build(&around()).unwrap()[..12], [255, 255, 255, 255, 255, 255, 2, 0, 0x5e, 0x10, 0, 1]);
    }

    #[test]
    fn what_cannot_be_is_refused_with_a_remedy() {
        let (v4, v6): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let table = [
            (FrameSpec { src: Some(v4), dst: Some(v6), ..spec(Protocol::Tcp) }, "not of one family"),
            (FrameSpec { dst: Some(v6), ..spec(Protocol::Icmp) }, "--proto icmpv6"),
            (FrameSpec { src: Some(v4), ..spec(Protocol::Icmpv6) }, "--proto icmp`"),
            (FrameSpec { src: Some(v6), ..spec(Protocol::Arp) }, "neighbour discovery"),
            (FrameSpec { data: Some(vec![0; 65_001]), ..spec(Protocol::Udp) }, "65,000"),
            (FrameSpec { vlan: "1.2.3".parse().unwrap(), ..spec(Protocol::Udp) }, "hexadecimal"),
        ];
        for (spec, part) in table {
            let message = spec.build(&around()).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn words_are_read_or_refused() {
        assert_eq!("syn,ACK".parse(), Ok(Flags(0x12)));
        assert_eq!("none".parse(), Ok(Flags(0)));
        assert!("sin".parse::<Flags>().unwrap_err().contains("syn"));
        assert_eq!("100.10".parse(), Ok(Vlans(vec![100, 10])));
        for wrong in ["", "4095", "x", "1.", "-1"] {
            assert!(wrong.parse::<Vlans>().unwrap_err().contains("100.10"), "{wrong}");
        }
        assert_eq!(r"a\r\n\x41\\\0é".parse(), Ok(Text("a\r\nA\\\0é".into())));
        for wrong in [r"\q", r"\x4", r"\xzz", "\\"] {
            assert!(wrong.parse::<Text>().is_err(), "{wrong}");
        }
        assert_eq!("FF:ff:ff:ff:ff:ff".parse(), Ok(AnyMac([0xff; 6])));
        assert!("0:0".parse::<AnyMac>().unwrap_err().contains("six bytes"));
    }
}
