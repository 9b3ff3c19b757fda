//! Frames: a client's segment read in place, and our segment written for it.
//!
//! The gate has validated what it redirects. Here everything is checked again, as far as reading it safely needs.

use portal_common::{
    checksum::Sum,
    cookie::{FourTuple, RESPONSE_MAX},
    flag,
    tables::Address,
};

use super::{
    answers::{Answer, Family},
    policies::Vlans,
};

/// The longest frame that [`Reply::write`] makes: Ethernet, two VLAN tags, IPv6, TCP, the longest response.
pub const REPLY_MAX: usize = ETHERNET + 2 * VLAN_TAG + IPV6 + TCP + RESPONSE_MAX;

/// The shortest frame, without its check sequence (IEEE 802.3 section 3.2.7).
const FRAME_MIN: usize = 60;
const ETHERNET: usize = 14;
const VLAN_TAG: usize = 4;
const IPV4: usize = 20;
const IPV6: usize = 40;
const TCP: usize = 20;
const PROTOCOL_TCP: u8 = 6;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const HOP_LIMIT: u8 = 64;
/// We take any request there is room for: [`super::request::HEAD_MAX`] is far below.
const WINDOW: u16 = u16::MAX;

/// Up to two VLAN tags, as they are in the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tags {
    bytes: [u8; 2 * VLAN_TAG],
    length: u8,
}

impl Tags {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// The VLANs, without the priorities and the kind of tag.
    fn vlans(&self) -> Vlans {
        const VID_MASK: u16 = 0x0fff;
        let [_, _, outer_high, outer_low, _, _, inner_high, inner_low] = self.bytes;
        let vid = |high, low| u16::from_be_bytes([high, low]) & VID_MASK;
        // A tag that is not there is all zero. An outer tag that only says a priority is none, as the gate has it.
        match (vid(outer_high, outer_low), vid(inner_high, inner_low)) {
            (0, inner) => (inner, 0),
            vlans => vlans,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Addresses {
    V4 { client: [u8; 4], server: [u8; 4] },
    V6 { client: [u8; 16], server: [u8; 16] },
}

/// The two ends of an exchange, down to the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    client_mac: [u8; 6],
    own_mac: [u8; 6],
    tags: Tags,
    addresses: Addresses,
    client_port: u16,
    server_port: u16,
}

impl Path {
    /// The MAC address of the station that sent the segment.
    pub fn client_mac(&self) -> [u8; 6] {
        self.client_mac
    }

    /// The network it is in.
    pub fn vlans(&self) -> Vlans {
        self.tags.vlans()
    }

    /// The IP version.
    pub fn family(&self) -> Family {
        match self.addresses {
            Addresses::V4 { .. } => Family::V4,
            Addresses::V6 { .. } => Family::V6,
        }
    }

    /// Whether the client expects TLS there.
    pub fn is_tls(&self) -> bool {
        self.tuple().is_tls()
    }

    /// The connection, as the client's packets name it.
    pub fn tuple(&self) -> FourTuple {
        let (source, destination) = match self.addresses {
            Addresses::V4 { client, server } => (Address::v4(client), Address::v4(server)),
            Addresses::V6 { client, server } => (Address::v6(client), Address::v6(server)),
        };
        FourTuple { source, destination, source_port: self.client_port, destination_port: self.server_port }
    }
}

/// A client's TCP segment.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Between whom.
    pub path: Path,
    /// The sequence number of the first byte.
    pub seq: u32,
    /// The acknowledgement number.
    pub ack: u32,
    /// TCP's flags, see [`portal_common::flag`].
    pub flags: u8,
    /// The data, as far as it was captured.
    pub data: &'a [u8],
    /// How much data the client sent: more than `data` if the frame was trimmed.
    pub length: u32,
}

impl<'a> Segment<'a> {
    /// Reads a frame. Nothing if it isn't a TCP segment in an IPv4 packet without options or an IPv6 packet without
    /// extension headers, unfragmented, with at most two VLAN tags and whole headers.
    pub fn read(frame: &'a [u8]) -> Option<Self> {
        let (own_mac, rest) = frame.split_first_chunk::<6>()?;
        let (client_mac, mut rest) = rest.split_first_chunk::<6>()?;
        let mut tags = Tags::default();
        let ether_type = loop {
            let (ether_type, after) = split_u16(rest)?;
            rest = after;
            if !matches!(ether_type, 0x8100 | 0x88a8) {
                break ether_type;
            }
            let (control, after) = split_u16(rest)?;
            rest = after;
            let tag = tags.bytes[usize::from(tags.length)..].first_chunk_mut::<VLAN_TAG>()?;
            [tag[0], tag[1]] = ether_type.to_be_bytes();
            [tag[2], tag[3]] = control.to_be_bytes();
            tags.length += VLAN_TAG as u8;
        };
        let (addresses, claimed, captured) = match ether_type {
            ETHERTYPE_IPV4 => read_ipv4(rest)?,
            ETHERTYPE_IPV6 => read_ipv6(rest)?,
            _ => return None,
        };
        let (header, _) = captured.split_first_chunk::<TCP>()?;
        let header_length = usize::from(header[12] >> 4) * 4;
        if header_length < TCP || header_length > claimed {
            return None;
        }
        Some(Self {
            path: Path {
                client_mac: *client_mac,
                own_mac: *own_mac,
                tags,
                addresses,
                client_port: u16::from_be_bytes([header[0], header[1]]),
                server_port: u16::from_be_bytes([header[2], header[3]]),
            },
            seq: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            ack: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
            flags: header[13],
            data: captured.get(header_length..)?,
            length: u32::try_from(claimed - header_length).ok()?,
        })
    }
}

fn split_u16(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (word, rest) = bytes.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*word), rest))
}

/// The addresses, the length of the payload by the header, and as much of the payload as was captured.
fn read_ipv4(packet: &[u8]) -> Option<(Addresses, usize, &[u8])> {
    let (header, rest) = packet.split_first_chunk::<IPV4>()?;
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
    if header[0] != 0x45 || fragment != 0 || header[9] != PROTOCOL_TCP {
        return None;
    }
    let claimed = usize::from(u16::from_be_bytes([header[2], header[3]])).checked_sub(IPV4)?;
    let client = [header[12], header[13], header[14], header[15]];
    let server = [header[16], header[17], header[18], header[19]];
    // A short frame is padded to 60 bytes by its sender (IEEE 802.3): the header's length is what counts.
    Some((Addresses::V4 { client, server }, claimed, &rest[..rest.len().min(claimed)]))
}

/// As [`read_ipv4`].
fn read_ipv6(packet: &[u8]) -> Option<(Addresses, usize, &[u8])> {
    let (header, rest) = packet.split_first_chunk::<IPV6>()?;
    if header[0] >> 4 != 6 || header[6] != PROTOCOL_TCP {
        return None;
    }
    let claimed = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let client = *header[8..].first_chunk::<16>()?;
    let server = *header[24..].first_chunk::<16>()?;
    Some((Addresses::V6 { client, server }, claimed, &rest[..rest.len().min(claimed)]))
}

/// Our segment for a client.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// Between whom, as the client's segment had it.
    pub path: Path,
    /// Our sequence number.
    pub seq: u32,
    /// What we have received.
    pub ack: u32,
    /// What it carries.
    pub content: Content<'a>,
}

/// What a segment of ours carries.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// Nothing: a bare acknowledgement.
    Nothing,
    /// The whole response, with FIN.
    Answer(&'a Answer),
    /// FIN alone.
    Fin,
}

impl Content<'_> {
    /// What people call it: stable, as in `portalctl explain --json`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Nothing => "acknowledgement",
            Self::Answer(answer) => answer.status().name(),
            Self::Fin => "close",
        }
    }
}

impl Reply<'_> {
    fn ip_length(&self) -> usize {
        match self.path.family() {
            Family::V4 => IPV4,
            Family::V6 => IPV6,
        }
    }

    fn tcp_length(&self) -> usize {
        match self.content {
            Content::Answer(answer) => TCP + answer.bytes().len(),
            Content::Nothing | Content::Fin => TCP,
        }
    }

    fn unpadded_length(&self) -> usize {
        ETHERNET + usize::from(self.path.tags.length) + self.ip_length() + self.tcp_length()
    }

    /// The length of the frame, bytes: at most [`REPLY_MAX`].
    ///
    /// A bare segment over IPv4 would take 54 bytes: it is padded here, as not every driver does so for frames of an `AF_XDP`
    /// socket as it does for the stack's (`eth_skb_pad`), or pads them with zeros.
    pub fn frame_length(&self) -> usize {
        self.unpadded_length().max(FRAME_MIN)
    }

    /// Writes the frame.
    ///
    /// # Panics
    /// If the buffer is not [`Reply::frame_length`] bytes long.
    pub fn write(&self, frame: &mut [u8]) {
        assert_eq!(frame.len(), self.frame_length());
        let (frame, padding) = frame.split_at_mut(self.unpadded_length());
        // The buffer holds the client's frame.
        padding.fill(0);
        let path = &self.path;
        let (mac, rest) = frame.split_at_mut(2 * 6);
        mac[..6].copy_from_slice(&path.client_mac);
        mac[6..].copy_from_slice(&path.own_mac);
        let (tags, rest) = rest.split_at_mut(usize::from(path.tags.length));
        tags.copy_from_slice(path.tags.bytes());
        let (ether_type, rest) = rest.split_at_mut(2);
        let (ip, tcp) = rest.split_at_mut(self.ip_length());
        let tcp_length = self.tcp_length() as u16;
        let pseudo_header = Sum::new().word(u16::from(PROTOCOL_TCP)).word(tcp_length);
        let pseudo_header = match path.addresses {
            Addresses::V4 { client, server } => {
                ether_type.copy_from_slice(&ETHERTYPE_IPV4.to_be_bytes());
                let total = (IPV4 as u16 + tcp_length).to_be_bytes();
                // Identification 0 and DF: an atomic datagram needs no identification (RFC 6864 section 4.1).
                let mut header =
                    [0x45, 0, total[0], total[1], 0, 0, 0x40, 0, HOP_LIMIT, PROTOCOL_TCP, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                header[12..16].copy_from_slice(&server);
                header[16..20].copy_from_slice(&client);
                let checksum = Sum::new().array(&header).checksum().to_be_bytes();
                header[10..12].copy_from_slice(&checksum);
                ip.copy_from_slice(&header);
                pseudo_header.array(&client).array(&server)
            }
            Addresses::V6 { client, server } => {
                ether_type.copy_from_slice(&ETHERTYPE_IPV6.to_be_bytes());
                let length = tcp_length.to_be_bytes();
                ip[..8].copy_from_slice(&[0x60, 0, 0, 0, length[0], length[1], PROTOCOL_TCP, HOP_LIMIT]);
                ip[8..24].copy_from_slice(&server);
                ip[24..40].copy_from_slice(&client);
                pseudo_header.array(&client).array(&server)
            }
        };
        let flags = match self.content {
            Content::Nothing => flag::ACK,
            Content::Answer(_) => flag::PSH | flag::FIN | flag::ACK,
            Content::Fin => flag::FIN | flag::ACK,
        };
        let mut header = [0; TCP];
        header[0..2].copy_from_slice(&path.server_port.to_be_bytes());
        header[2..4].copy_from_slice(&path.client_port.to_be_bytes());
        header[4..8].copy_from_slice(&self.seq.to_be_bytes());
        header[8..12].copy_from_slice(&self.ack.to_be_bytes());
        header[12] = (TCP as u8 / 4) << 4;
        header[13] = flags;
        header[14..16].copy_from_slice(&WINDOW.to_be_bytes());
        let mut sum = pseudo_header.array(&header);
        let (tcp_header, payload) = tcp.split_at_mut(TCP);
        if let Content::Answer(answer) = self.content {
            payload.copy_from_slice(answer.bytes());
            sum = sum.sum(answer.sum());
        }
        header[16..18].copy_from_slice(&sum.checksum().to_be_bytes());
        tcp_header.copy_from_slice(&header);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use etherparse::{PacketBuilder, SlicedPacket, TcpHeader, TransportSlice};
    use proptest::prelude::*;

    use super::*;
    use crate::responder::answers::{Answers, Choice, Status};

    pub(crate) const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    pub(crate) const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];

    /// A client's frame.
    pub(crate) fn frame(family: Family, tags: &[(u16, u16)], tcp: TcpHeader, data: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        match family {
            Family::V4 => PacketBuilder::ipv4([192, 0, 2, 7], [198, 51, 100, 80], 64),
            Family::V6 => PacketBuilder::ipv6([0x20; 16], [0x21; 16], 64),
        }
        .tcp_header(tcp)
        .write(&mut packet, data)
        .unwrap();
        let mut frame = [OWN_MAC, CLIENT_MAC].concat();
        for (kind, id) in tags {
            frame.extend_from_slice(&kind.to_be_bytes());
            frame.extend_from_slice(&id.to_be_bytes());
        }
        frame.extend_from_slice(match family {
            Family::V4 => &[0x08, 0x00],
            Family::V6 => &[0x86, 0xdd],
        });
        frame.extend_from_slice(&packet);
        frame
    }

    pub(crate) fn tcp(seq: u32, ack: u32, fin: bool) -> TcpHeader {
        let mut tcp = TcpHeader::new(40000, 80, seq, 1024);
        tcp.acknowledgment_number = ack;
        tcp.ack = true;
        tcp.fin = fin;
        tcp.psh = seq.is_multiple_of(2);
        tcp
    }

    /// What a frame of ours says, its checksums verified by another implementation.
    pub(crate) fn verify(frame: &[u8]) -> (TcpHeader, Vec<u8>) {
        let sliced = SlicedPacket::from_ethernet(frame).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else { panic!("no TCP") };
        let header = tcp.to_header();
        let checksum = match sliced.net.as_ref().unwrap() {
            etherparse::NetSlice::Ipv4(ip) => {
                let ip_header = ip.header().to_header();
                assert_eq!(ip_header.header_checksum, ip_header.calc_header_checksum());
                assert!(ip_header.dont_fragment && ip_header.identification == 0 && ip_header.time_to_live == 64);
                header.calc_checksum_ipv4(&ip_header, tcp.payload()).unwrap()
            }
            etherparse::NetSlice::Ipv6(ip) => {
                header.calc_checksum_ipv6(&ip.header().to_header(), tcp.payload()).unwrap()
            }
            etherparse::NetSlice::Arp(arp) => panic!("{arp:?}"),
        };
        assert_eq!(header.checksum, checksum);
        (header, tcp.payload().to_vec())
    }

    const TAGS: [(&[(u16, u16)], Vlans); 5] = [
        (&[], (0, 0)),
        (&[(0x8100, 0x6000)], (0, 0)),
        (&[(0x8100, 0x6123)], (0x123, 0)),
        (&[(0x88a8, 7), (0x8100, 0xfff)], (7, 0xfff)),
        (&[(0x8100, 0), (0x8100, 0x3007)], (7, 0)),
    ];

    #[test]
    fn a_reply_goes_back_the_way_the_segment_came() {
        let answers = Answers::new("http://192.0.2.1/", "http://[2001:db8::1]/").unwrap();
        for family in [Family::V4, Family::V6] {
            for (tags, vlans) in TAGS {
                let received = frame(family, tags, tcp(u32::MAX - 3, 5, true), b"GET / HTTP/1.1\r\n");
                let segment = Segment::read(&received).unwrap();
                assert_eq!(segment.data, b"GET / HTTP/1.1\r\n");
                assert_eq!((segment.seq, segment.ack, segment.length), (u32::MAX - 3, 5, 16));
                assert_eq!(segment.flags & flag::FIN, flag::FIN);
                assert_eq!((segment.path.client_mac(), segment.path.vlans()), (CLIENT_MAC, vlans));
                let choice = Choice { status: Status::AuthenticationRequired, head: false };
                let answer = answers.pick(choice, family);
                for (content, payload_sent, fin) in [
                    (Content::Nothing, &[][..], false),
                    (Content::Fin, &[], true),
                    (Content::Answer(answer), answer.bytes(), true),
                ] {
                    let reply = Reply { path: segment.path, seq: 5, ack: 14, content };
                    let mut sent = vec![0xaa; reply.frame_length()];
                    reply.write(&mut sent);
                    let ip_length = if family == Family::V4 { 20 } else { 40 };
                    let unpadded = 14 + 4 * tags.len() + ip_length + 20 + payload_sent.len();
                    assert_eq!(sent.len(), unpadded.max(60));
                    assert!(sent.len() <= REPLY_MAX && sent[unpadded..].iter().all(|byte| *byte == 0));
                    let ip = 12 + 4 * tags.len();
                    assert_eq!(sent[..6], CLIENT_MAC);
                    assert_eq!(sent[6..12], OWN_MAC);
                    assert_eq!(sent[12..ip + 2], received[12..ip + 2], "tags and EtherType as they came");
                    let (header, payload) = verify(&sent);
                    assert_eq!((header.sequence_number, header.acknowledgment_number), (5, 14));
                    assert_eq!((header.source_port, header.destination_port, header.window_size), (80, 40000, 65535));
                    assert!(header.ack && !header.syn && !header.rst);
                    assert_eq!((header.fin, header.psh), (fin, !payload.is_empty()));
                    assert_eq!(payload, payload_sent);
                    let back = Segment::read(&sent).unwrap().path;
                    let (there, back) = (segment.path.tuple(), back.tuple());
                    assert_eq!((back.source, back.destination), (there.destination, there.source));
                }
            }
        }
    }

    #[test]
    fn only_what_was_captured_is_data() {
        for family in [Family::V4, Family::V6] {
            let mut whole = frame(family, &[], tcp(1, 1, false), &[b'x'; 100]);
            let trimmed = Segment::read(&whole[..whole.len() - 40]).unwrap();
            assert_eq!((trimmed.data.len(), trimmed.length), (60, 100), "trimmed");
            whole.extend_from_slice(&[0; 20]);
            let padded = Segment::read(&whole).unwrap();
            assert_eq!((padded.data, padded.length), (&[b'x'; 100][..], 100), "padded");
        }
    }

    #[test]
    fn frames_that_are_no_segment() {
        let ipv4 = || frame(Family::V4, &[], tcp(1, 1, false), b"x");
        let ipv6 = || frame(Family::V6, &[], tcp(1, 1, false), b"x");
        let patched = |mut frame: Vec<u8>, at: usize, byte: u8| {
            frame[at] = byte;
            frame
        };
        for (sentence, frame) in [
            ("empty", Vec::new()),
            ("three tags", frame(Family::V4, &[(0x8100, 1); 3], tcp(1, 1, false), b"x")),
            ("ARP", patched(ipv4(), 13, 0x06)),
            ("another IP version", patched(ipv4(), 14, 0x55)),
            ("IPv4 options", patched(ipv4(), 14, 0x46)),
            ("IPv4 header length below 5", patched(ipv4(), 14, 0x44)),
            ("a first fragment", patched(ipv4(), 20, 0x20)),
            ("a later fragment", patched(ipv4(), 21, 0x01)),
            ("IPv4 length below its header", patched(ipv4(), 17, 19)),
            ("IPv4 length below TCP's header", patched(ipv4(), 17, 39)),
            ("UDP", patched(ipv4(), 23, 17)),
            ("UDP over IPv6", patched(ipv6(), 20, 17)),
            ("an extension header", patched(ipv6(), 20, 0)),
            ("IPv6 in name only", patched(ipv6(), 14, 0x50)),
            ("IPv6 length 0", patched(ipv6(), 19, 0)),
            ("TCP data offset below 5", patched(ipv4(), 46, 0x40)),
            ("TCP data offset beyond the packet", patched(ipv4(), 46, 0xf0)),
        ] {
            assert!(Segment::read(&frame).is_none(), "{sentence}");
        }
        assert!(Segment::read(&ipv4()).is_some() && Segment::read(&ipv6()).is_some());
        for whole in [ipv4(), ipv6()] {
            for length in 0..whole.len() - 1 {
                assert!(Segment::read(&whole[..length]).is_none(), "cut to {length}");
            }
        }
    }

    proptest! {
        /// The gate's writer is another than ours, as it works on the request's frame: their bytes are the same.
        #[test]
        fn the_gate_writes_an_answer_as_we_do(
            v6: bool, tags in proptest::collection::vec((prop_oneof![Just(0x8100u16), Just(0x88a8)], any::<u16>()), 0..=2),
            seq: u32, ack: u32, request in proptest::collection::vec(any::<u8>(), 16..=512), padding in 0usize..9,
            status in proptest::sample::select(Status::ALL[..7].to_vec()), head: bool, path in "[a-z]{0,280}", tos: u8,
        ) {
            let family = if v6 { Family::V6 } else { Family::V4 };
            let url = format!("http://192.0.2.1/{path}");
            let answers = Answers::new(&url, &url).unwrap();
            let answer = answers.pick(Choice { status, head }, family);
            let mut cause = frame(family, &tags, tcp(seq, ack, false), &request);
            // What the answer must not take over: the service type or the flow label.
            let network_at = ETHERNET + tags.len() * VLAN_TAG;
            if v6 { cause[network_at + 3] = tos } else { cause[network_at + 1] = tos }
            cause.resize(cause.len() + padding, 0xee);
            let segment = Segment::read(&cause).unwrap();
            let end = seq.wrapping_add(request.len() as u32);
            let ours = Reply { path: segment.path, seq: ack, ack: end, content: Content::Answer(answer) };
            let mut expected = vec![0; ours.frame_length()];
            ours.write(&mut expected);

            let len = answer.bytes().len();
            let gates = portal_common::answer::Response { family, network_at, seq: ack, ack: end, len, sum: answer.sum() };
            cause.resize(gates.frame_len(), 0xdd);
            gates.write_headers(&mut cause[..]).unwrap();
            cause[gates.payload_at()..].copy_from_slice(answer.bytes());
            prop_assert_eq!(cause, expected);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(frame in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(segment) = Segment::read(&frame) {
                prop_assert!(segment.data.len() <= segment.length as usize);
            }
        }
    }
}
