//! The rows of the verdict table.

use portal_common::{
    Reason,
    decide::{Action, Outbound},
    reason::Outcome,
};

use super::{
    frames::{Ack, Arp, Dns, Extension, Frame, Ipv4, Ipv6, Network, Payload, Tcp},
    setting::{
        ALL_NODES_V6, CLIENT_V4, CLIENT_V6, ELSEWHERE, ELSEWHERES_V4, ELSEWHERES_V6, EXPIRED, FAST, FAST_V4, FAST_V6,
        FORGOTTEN_V4, FREE, GARDEN_V4, GARDEN_V6, GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, GUEST, GUEST_V4, GUEST_V6, IDLE,
        LINK_LOCAL_V6, NAMED_V4, NAMED_V6, NOTED_PORT, NTP_V4, NTP_V6, OWNED_V4, OWNED_V6, OWNER, RESOLVER_V4,
        RESOLVER_V6, SETTLED, SETTLED_V4, SITE_V4, SITE_V6, SPENT, SPENT_V4, SPENT_V6, STRANGER, in_guests, who,
    },
};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const CLIENT_ISN: u32 = 0xffff_fff0;
const BROADCAST: [u8; 6] = [0xff; 6];

/// A frame that a guest sends, and what becomes of it.
#[derive(Clone, Debug)]
pub struct Row {
    /// What the row shows.
    pub sentence: &'static str,
    /// The frame.
    pub frame: Frame,
    /// What is decided: in shadow mode it is not done.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// What is demanded of the answer.
    pub reply: Reply,
}

/// What is demanded of the answer, beside correct checksums and swapped addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// There is none.
    None,
    /// A TCP segment.
    Tcp {
        /// Its flags.
        flags: u8,
        /// Its data offset.
        words: u8,
        /// What it acknowledges, relative to the client's sequence number.
        acknowledges: Option<u32>,
    },
    /// An ICMP message of this type and code.
    Icmp(u8, u8),
}

/// A frame that goes to a guest, and what becomes of it.
#[derive(Clone, Debug)]
pub struct OutboundRow {
    /// What the row shows.
    pub sentence: &'static str,
    /// The frame.
    pub frame: Frame,
    /// What the guest has sent a moment before.
    pub asked: Option<Frame>,
    /// Whether the daemon has learned from it, and sends it on.
    pub relayed: bool,
    /// Whether it has come in by another interface.
    pub forwarded: bool,
    /// What is decided: in shadow mode a drop is not done.
    pub decision: Outbound,
}

fn frame(network: Network) -> Frame {
    Frame { destination: GATEWAY_MAC, source: STRANGER, tags: Vec::new(), network, padding: 0 }
}

fn packet_v4(destination: [u8; 4], payload: Payload) -> Frame {
    frame(Network::V4(Ipv4 {
        source: CLIENT_V4,
        destination,
        ttl: 64,
        options: Vec::new(),
        flags_and_offset: 0x4000,
        length_error: 0,
        bad_checksum: false,
        version_and_ihl: None,
        payload,
    }))
}

fn packet_v6(destination: [u8; 16], payload: Payload) -> Frame {
    frame(Network::V6(Ipv6 {
        source: CLIENT_V6,
        destination,
        hop_limit: 64,
        length_error: 0,
        version: 6,
        extensions: Vec::new(),
        payload,
    }))
}

fn v4(payload: Payload) -> Frame {
    packet_v4(SITE_V4, payload)
}

fn v6(payload: Payload) -> Frame {
    packet_v6(SITE_V6, payload)
}

/// IPv6 with these extension headers, each with its length field.
fn extended(extensions: &[(u8, u8)], payload: Payload) -> Frame {
    let extensions = extensions.iter().map(|(protocol, units)| Extension { protocol: *protocol, units: *units });
    with_v6(v6(payload), |p| p.extensions = extensions.collect())
}

fn arp(operation: u16, sender: [u8; 4]) -> Frame {
    let destination = if operation == 1 { BROADCAST } else { GATEWAY_MAC };
    let arp = Arp { operation, hardware: 1, sender_mac: None, sender, target: GATEWAY_V4, len: 28 };
    Frame { destination, ..frame(Network::Arp(arp)) }
}

fn other(ether_type: u16) -> Frame {
    frame(Network::Other { ether_type, payload: vec![0; 46] })
}

fn solicitation(kind: u8) -> Frame {
    with_v6(packet_v6(ALL_NODES_V6, Payload::Icmpv6(kind)), |p| p.hop_limit = 255)
}

fn advertisement(target: [u8; 16]) -> Frame {
    with_v6(packet_v6(GATEWAY_V6, Payload::Advertisement(target)), |p| p.hop_limit = 255)
}

fn tcp(destination_port: u16, flags: u8) -> Tcp {
    Tcp {
        source_port: 40_000,
        destination_port,
        seq: CLIENT_ISN,
        ack: Ack::Number(7),
        flags,
        options: 5,
        data: 0,
        data_offset: None,
    }
}

fn segment_to(destination_port: u16, flags: u8) -> Payload {
    Payload::Tcp(tcp(destination_port, flags))
}

/// A segment of an intercepted connection, after the client received so many bytes of the response.
fn intercepted_on(port: u16, flags: u8, data: usize, received: u32) -> Payload {
    Payload::Tcp(Tcp {
        seq: CLIENT_ISN.wrapping_add(1),
        ack: Ack::Cookie { client_isn: CLIENT_ISN, received },
        data,
        options: 3,
        ..tcp(port, flags)
    })
}

fn intercepted(flags: u8, data: usize, received: u32) -> Payload {
    intercepted_on(80, flags, data, received)
}

/// The same segment so many bytes later in the client's stream.
fn behind(payload: Payload, bytes: u32) -> Payload {
    match payload {
        Payload::Tcp(tcp) => Payload::Tcp(Tcp { seq: tcp.seq.wrapping_add(bytes), ..tcp }),
        _ => unreachable!("only TCP has a stream"),
    }
}

fn udp(source_port: u16, destination_port: u16, data: usize) -> Payload {
    Payload::Udp { source_port, destination_port, data, length_error: 0 }
}

/// A DHCP client's message with this hardware address and these options.
fn dhcp(mac: [u8; 6], options: &[u8]) -> Payload {
    let mut bytes = [68u16.to_be_bytes(), 67u16.to_be_bytes()].concat();
    let mut message = vec![0; 240];
    message[..3].copy_from_slice(&[1, 1, 6]);
    message[28..34].copy_from_slice(&mac);
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    message.extend([53, 1, 1]);
    message.extend(options);
    message.push(255);
    bytes.extend((8 + message.len() as u16).to_be_bytes());
    bytes.extend([0; 2]);
    bytes.extend(message);
    let id = if options.is_empty() { "" } else { ", with options" };
    Payload::Bytes { protocol: 17, what: format!("DHCP for {}{id}", who(mac)), bytes }
}

/// A DHCPv6 client's message, with an identifier (DUID-LL) that holds this address.
fn dhcpv6(mac: [u8; 6]) -> Payload {
    let message =
        [&[1, 1, 2, 3, 0, 1, 0, 10, 0, 3, 0, 1][..], &mac, &[0, 8, 0, 2, 0, 0], &[0, 16, 0, 20], &[0; 20]].concat();
    let mut bytes = [546u16.to_be_bytes(), 547u16.to_be_bytes()].concat();
    bytes.extend((8 + message.len() as u16).to_be_bytes());
    bytes.extend([0; 2]);
    bytes.extend(message);
    Payload::Bytes { protocol: 17, what: format!("DHCPv6 with the identifier of {}", who(mac)), bytes }
}

/// Neighbour discovery of this type about an address, with the link-layer address option of this type.
fn claim(kind: u8, target: [u8; 16], option: u8, mac: [u8; 6]) -> Frame {
    let bytes = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target, &[option, 1], &mac].concat();
    let what = format!("ICMPv6 type {kind} that says {}", who(mac));
    with_v6(packet_v6(ALL_NODES_V6, Payload::Bytes { protocol: 58, what, bytes }), |p| p.hop_limit = 255)
}

/// An echo request or reply of this type, as long as `ping`'s.
fn ping(kind: u8) -> Payload {
    let protocol = if kind < 128 { 1 } else { 58 };
    let bytes = [&[kind, 0, 0, 0, 0, 1, 0, 1][..], &[0; 56]].concat();
    Payload::Bytes { protocol, what: format!("ICMP type {kind}, 64 bytes"), bytes }
}

/// An error of this type that a stranger sends about a segment from this server and port to it.
fn report(kind: u8, server_v4: [u8; 4], server_v6: [u8; 16], port: u16) -> Frame {
    let segment = Payload::Tcp(Tcp { source_port: port, ..tcp(40_000, ACK) });
    let quoted = if matches!(kind, 3 | 11 | 12) {
        with_v4(packet_v4(CLIENT_V4, segment), |p| p.source = server_v4).network
    } else {
        with_v6(packet_v6(CLIENT_V6, segment), |p| p.source = server_v6).network
    };
    let payload = Payload::Error { kind, quoted: Box::new(quoted) };
    if matches!(kind, 3 | 11 | 12) { packet_v4(server_v4, payload) } else { packet_v6(server_v6, payload) }
}

/// An IGMP message of this type behind a router alert.
fn membership(kind: u8, ttl: u8) -> Frame {
    let what = format!("IGMP type {kind:#04x}");
    let bytes = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    with_v4(packet_v4([224, 0, 0, 22], Payload::Bytes { protocol: 2, what, bytes }), |p| {
        p.options = vec![148, 4, 0, 0];
        p.ttl = ttl;
    })
}

fn any_udp() -> Payload {
    udp(5353, 9999, 64)
}

fn with(mut frame: Frame, change: impl FnOnce(&mut Frame)) -> Frame {
    change(&mut frame);
    frame
}

fn with_v4(frame: Frame, change: impl FnOnce(&mut Ipv4)) -> Frame {
    with(frame, |frame| match &mut frame.network {
        Network::V4(packet) => change(packet),
        Network::V6(_) | Network::Arp(_) | Network::Other { .. } => unreachable!("only IPv4 frames are changed so"),
    })
}

fn with_v6(frame: Frame, change: impl FnOnce(&mut Ipv6)) -> Frame {
    with(frame, |frame| match &mut frame.network {
        Network::V6(packet) => change(packet),
        Network::V4(_) | Network::Arp(_) | Network::Other { .. } => unreachable!("only IPv6 frames are changed so"),
    })
}

/// The same from another station.
fn by(source: [u8; 6], frame: Frame) -> Frame {
    Frame { source, ..frame }
}

/// The same from a guest with a session, from addresses of its own.
fn by_guest(frame: Frame) -> Frame {
    sent_from(GUEST_V4, GUEST_V6, by(GUEST, frame))
}

/// The same with the source address of its family.
fn sent_from(source_v4: [u8; 4], source_v6: [u8; 16], mut frame: Frame) -> Frame {
    match &mut frame.network {
        Network::V4(packet) => packet.source = source_v4,
        Network::V6(packet) => packet.source = source_v6,
        Network::Arp(arp) => arp.sender = source_v4,
        Network::Other { .. } => {}
    }
    frame
}

/// The same in a VLAN.
fn vlan(id: u16, frame: Frame) -> Frame {
    Frame { tags: vec![(0x8100, id)], ..frame }
}

fn pass(sentence: &'static str, frame: Frame, reason: Reason) -> Row {
    Row { sentence, frame, action: Action::Pass, reason, reply: Reply::None }
}

fn drop(sentence: &'static str, frame: Frame, reason: Reason) -> Row {
    Row { sentence, frame, action: Action::Drop, reason, reply: Reply::None }
}

fn redirect(sentence: &'static str, frame: Frame, reason: Reason) -> Row {
    Row { sentence, frame, action: Action::Redirect, reason, reply: Reply::None }
}

fn answer(sentence: &'static str, frame: Frame, reason: Reason, reply: Reply) -> Row {
    Row { sentence, frame, action: Action::Answer, reason, reply }
}

/// UDP that is refused with an ICMP error of its family.
fn refused(sentence: &'static str, frame: Frame) -> Row {
    let (kind, code) = if matches!(frame.network, Network::V6(_)) { (1, 1) } else { (3, 13) };
    answer(sentence, frame, Reason::UdpRefused, Reply::Icmp(kind, code))
}

fn segment(flags: u8, acknowledges: Option<u32>) -> Reply {
    Reply::Tcp { flags, words: 5, acknowledges }
}

const SYN_ACK: Reply = Reply::Tcp { flags: SYN | ACK, words: 6, acknowledges: Some(1) };

/// Every row about frames that guests send, with a responder attached.
pub fn rows() -> Vec<Row> {
    let rows: Vec<Row> = [
        members(),
        zones(),
        link(),
        icmp(),
        icmp_reports(),
        headers(),
        extensions(),
        addresses(),
        services(),
        connections(),
        udp_rows(),
        tcp_rows(),
        http(),
        tls(),
        budgets(),
        shadow(),
        jumbo(),
    ]
    .into_iter()
    .flatten()
    .collect();
    for row in &rows {
        let outcome = match row.action {
            Action::Pass => Outcome::Passed,
            Action::Answer => Outcome::Answered,
            Action::Redirect => Outcome::Redirected,
            Action::Drop => Outcome::Dropped,
        };
        assert_eq!(row.reason.outcome(), outcome, "{}", row.sentence);
    }
    rows
}

/// What becomes of requests when no responder is attached. The gate alone can tell: what is decided is the same.
pub fn rows_without_responder() -> Vec<Row> {
    let request = || intercepted(ACK | PSH, 70, 0);
    vec![
        drop("a request while portald is not running", v4(request()), Reason::ResponderAbsent),
        drop("the same over IPv6", v6(request()), Reason::ResponderAbsent),
        drop(
            "a ClientHello while portald is not running",
            vlan(10, v4(intercepted_on(443, ACK | PSH, 200, 0))),
            Reason::ResponderAbsent,
        ),
    ]
}

#[expect(clippy::too_many_lines, reason = "a table has a line for each row")]
fn members() -> Vec<Row> {
    use Reason as R;
    vec![
        pass("anything from a guest with a session", by_guest(v4(any_udp())), R::Authorized),
        pass("anything from it over IPv6", by_guest(v6(any_udp())), R::Authorized),
        pass("a fragment from it", with_v4(by_guest(v4(any_udp())), |p| p.flags_and_offset = 0x2000), R::Authorized),
        pass("a ping from it", by_guest(v6(Payload::Icmpv6(128))), R::Authorized),
        pass("an unknown EtherType from it", by(GUEST, other(0x1234)), R::Authorized),
        pass("a tunnel from it", by_guest(v4(Payload::Other(47))), R::Authorized),
        pass("multicast from it", by_guest(packet_v4([224, 0, 0, 251], udp(5353, 5353, 40))), R::Authorized),
        pass("IPv4 options from it", with_v4(by_guest(v4(any_udp())), |p| p.options = vec![7, 7, 4, 0]), R::Authorized),
        pass("extension headers from it", by_guest(extended(&[(0, 0), (60, 0)], any_udp())), R::Authorized),
        pass("ARP from it", by_guest(arp(1, GUEST_V4)), R::Authorized),
        pass(
            "DHCP from it, before it has an address",
            {
                let frame = Frame { destination: BROADCAST, ..packet_v4([255; 4], dhcp(GUEST, &[])) };
                sent_from([0; 4], [0; 16], by(GUEST, frame))
            },
            R::Authorized,
        ),
        pass("a neighbour advertisement of its own address", by_guest(advertisement(GUEST_V6)), R::Authorized),
        pass(
            "anything from a guest that owns the address",
            sent_from(OWNED_V4, OWNED_V6, by(OWNER, v4(any_udp()))),
            R::Authorized,
        ),
        refused("a guest whose session expired is a stranger", by(EXPIRED, v4(any_udp()))),
        refused("a guest whose session expired is a stranger over IPv6", by(EXPIRED, v6(any_udp()))),
        refused("a guest that was silent for too long is a stranger", by(IDLE, v4(any_udp()))),
        refused(
            "a guest with a session is a stranger in another zone",
            Frame { tags: vec![(0x88a8, 100), (0x8100, 20)], ..by_guest(v4(any_udp())) },
        ),
        drop(
            "a guest that sends faster than its limit",
            sent_from([192, 0, 2, 54], [0; 16], by(FAST, v4(any_udp()))),
            R::RateUp,
        ),
        // From an address of its own: one that it shared with strangers would be its own from here on, and refused to them.
        drop("the same over IPv6", sent_from([0; 4], FAST_V6, by(FAST, v6(any_udp()))), R::RateUp),
        drop(
            "a guest that has used up its quota",
            sent_from([192, 0, 2, 55], [0; 16], by(SPENT, v4(any_udp()))),
            R::QuotaSpent,
        ),
        drop(
            "a router advertisement from a guest with a session",
            by_guest(with_v6(packet_v6(ALL_NODES_V6, Payload::Icmpv6(134)), |p| p.hop_limit = 255)),
            R::RouterAdvertisement,
        ),
        drop("a redirect from a guest with a session", by_guest(v6(Payload::Icmpv6(137))), R::RouterAdvertisement),
        drop("a DHCP server that has a session", by_guest(v4(udp(67, 68, 240))), R::DhcpServer),
        drop("a DHCPv6 server that has a session", by_guest(v6(udp(547, 546, 60))), R::DhcpServer),
        drop(
            "an IPv4 packet longer than its frame, from a guest with a session",
            with_v4(by_guest(v4(any_udp())), |p| p.length_error = 1),
            R::Ipv4Malformed,
        ),
        drop(
            "an IPv6 packet longer than its frame, from a guest with a session",
            with_v6(by_guest(v6(any_udp())), |p| p.length_error = 1),
            R::Ipv6Malformed,
        ),
        // Addresses
        drop(
            "a guest with a session that uses another guest's address",
            sent_from(OWNED_V4, OWNED_V6, by(GUEST, v4(any_udp()))),
            R::SpoofedAddress,
        ),
        drop("the same over IPv6", sent_from(OWNED_V4, OWNED_V6, by(GUEST, v6(any_udp()))), R::SpoofedAddress),
        drop("ARP by which it claims another guest's address", by(GUEST, arp(2, OWNED_V4)), R::SpoofedAddress),
        drop(
            "a neighbour advertisement by which it claims another guest's address",
            by_guest(advertisement(OWNED_V6)),
            R::SpoofedAddress,
        ),
        drop("a stranger that uses a guest's address", sent_from(OWNED_V4, OWNED_V6, v4(any_udp())), R::SpoofedAddress),
        drop("the same over IPv6", sent_from(OWNED_V4, OWNED_V6, v6(segment_to(80, SYN))), R::SpoofedAddress),
        drop("ARP by which a stranger claims a guest's address", arp(1, OWNED_V4), R::SpoofedAddress),
        drop(
            "a neighbour advertisement by which a stranger claims a guest's address",
            advertisement(OWNED_V6),
            R::SpoofedAddress,
        ),
        drop(
            "a stranger that uses the gateway's address",
            sent_from(GATEWAY_V4, GATEWAY_V6, v4(any_udp())),
            R::GatewayAddress,
        ),
        drop("the same over IPv6", sent_from(GATEWAY_V4, GATEWAY_V6, v6(any_udp())), R::GatewayAddress),
        drop("ARP by which a stranger claims the gateway's address", arp(2, GATEWAY_V4), R::GatewayAddress),
        drop(
            "a neighbour advertisement by which a stranger claims the gateway's address",
            with_v6(packet_v6(ALL_NODES_V6, Payload::Advertisement(GATEWAY_V6)), |p| p.hop_limit = 255),
            R::GatewayAddress,
        ),
        drop(
            "a guest with a session that uses the gateway's address",
            sent_from(GATEWAY_V4, GATEWAY_V6, by(GUEST, v6(any_udp()))),
            R::GatewayAddress,
        ),
        drop("ARP by which it claims the gateway's address", by(GUEST, arp(2, GATEWAY_V4)), R::GatewayAddress),
        drop(
            "a stranger that answers in a resolver's name",
            sent_from(RESOLVER_V4, RESOLVER_V6, v4(udp(53, 40_000, 64))),
            R::GatewayAddress,
        ),
        refused(
            "where addresses are strict, one too many makes a guest a stranger",
            vlan(10, sent_from([192, 0, 2, 70], [0; 16], by(SETTLED, v4(any_udp())))),
        ),
        pass(
            "its first addresses stay its own",
            vlan(10, sent_from(SETTLED_V4, [0; 16], by(SETTLED, v4(any_udp())))),
            R::Authorized,
        ),
        pass(
            "where addresses are not looked at, another guest's will do",
            vlan(30, sent_from(OWNED_V4, OWNED_V6, by(FREE, v6(any_udp())))),
            R::Authorized,
        ),
        refused(
            "there a stranger with a guest's address is a stranger like any",
            vlan(30, sent_from(OWNED_V4, OWNED_V6, v4(any_udp()))),
        ),
    ]
}

fn zones() -> Vec<Row> {
    use Reason as R;
    let tagged = |tags: &[(u16, u16)], frame| Frame { tags: tags.to_vec(), ..frame };
    vec![
        refused("one VLAN tag, kept in the answer", vlan(10, v4(any_udp()))),
        refused("two VLAN tags", tagged(&[(0x88a8, 100), (0x8100, 20)], v6(any_udp()))),
        refused("two tags of the customer's kind", tagged(&[(0x8100, 100), (0x8100, 20)], v4(any_udp()))),
        refused("a tag that carries only a priority is no VLAN", vlan(0xa000, v4(any_udp()))),
        refused("nor is one outside of a VLAN's", tagged(&[(0x8100, 0xe000), (0x8100, 30)], v4(any_udp()))),
        refused("a priority beside the VLAN's id", vlan(0x700a, v6(any_udp()))),
        drop("a VLAN that is no zone", vlan(99, v4(any_udp())), R::NoZone),
        drop("one from a guest with a session elsewhere", vlan(99, by_guest(v6(any_udp()))), R::NoZone),
        drop("a zone's VLAN within another VLAN", tagged(&[(0x88a8, 99), (0x8100, 10)], v4(any_udp())), R::NoZone),
        drop("a VLAN within a zone's VLAN", tagged(&[(0x8100, 10), (0x8100, 99)], v4(any_udp())), R::NoZone),
        drop("ARP in no zone", vlan(99, arp(1, CLIENT_V4)), R::NoZone),
        drop("a zone that nobody has configured", vlan(70, v4(any_udp())), R::ConfigMissing),
        drop("even ARP there", vlan(70, arp(1, CLIENT_V4)), R::ConfigMissing),
        drop("three VLAN tags", tagged(&[(0x8100, 1); 3], v4(any_udp())), R::VlanTags),
        drop(
            "three of which two are a zone's",
            tagged(&[(0x88a8, 100), (0x8100, 20), (0x8100, 1)], v6(any_udp())),
            R::VlanTags,
        ),
        drop(
            "a stranger from an address that is not of the network",
            sent_from([198, 51, 100, 9], SITE_V6, packet_v4(GATEWAY_V4, segment_to(8080, SYN))),
            R::ForeignSource,
        ),
        drop(
            "the same over IPv6",
            sent_from(SITE_V4, NTP_V6, packet_v6(GATEWAY_V6, segment_to(8080, SYN))),
            R::ForeignSource,
        ),
        drop("ARP about such an address", arp(2, [198, 51, 100, 9]), R::ForeignSource),
        drop(
            "a guest with a session from such an address",
            sent_from([198, 51, 100, 9], NTP_V6, by(GUEST, v4(any_udp()))),
            R::ForeignSource,
        ),
        drop("the same over IPv6", sent_from([198, 51, 100, 9], NTP_V6, by(GUEST, v6(any_udp()))), R::ForeignSource),
        drop(
            "a guest with a session from the gateway's address on another interface",
            sent_from(ELSEWHERES_V4, ELSEWHERES_V6, by(GUEST, v4(any_udp()))),
            R::ForeignSource,
        ),
        drop("the same over IPv6", sent_from(ELSEWHERES_V4, ELSEWHERES_V6, by(GUEST, v6(any_udp()))), R::ForeignSource),
        pass(
            "anything where addresses are not looked at",
            vlan(30, sent_from([198, 51, 100, 9], NTP_V6, by(FREE, v4(any_udp())))),
            R::Authorized,
        ),
        drop("a group address as the source MAC", by([3, 0, 0, 0, 0, 1], v4(any_udp())), R::SourceMac),
        drop("a zero source MAC", by([0; 6], v4(any_udp())), R::SourceMac),
    ]
}

fn link() -> Vec<Row> {
    use Reason as R;
    let arp_but = |change: fn(&mut Arp)| {
        with(arp(1, CLIENT_V4), |frame| {
            if let Network::Arp(arp) = &mut frame.network {
                change(arp);
            }
        })
    };
    vec![
        pass("ARP", arp(1, CLIENT_V4), R::Arp),
        pass("an ARP reply", arp(2, CLIENT_V4), R::Arp),
        pass("an ARP probe, from no address (RFC 5227)", arp(1, [0; 4]), R::Arp),
        pass("ARP in a VLAN", vlan(10, arp(1, CLIENT_V4)), R::Arp),
        drop("ARP that ends early", arp_but(|arp| arp.len = 27), R::ArpMalformed),
        drop("ARP of another hardware", arp_but(|arp| arp.hardware = 6), R::ArpMalformed),
        drop("ARP of nothing, from a guest with a session", by(GUEST, other(0x0806)), R::ArpMalformed),
        pass("EAPOL", other(0x888e), R::Eapol),
        drop("an unknown EtherType", other(0x1234), R::EtherType),
        drop("the last number that no EtherType has (IEEE 802.3)", other(0x05ff), R::LengthField),
        drop("an 802.3 length instead of an EtherType", other(46), R::LengthField),
        drop(
            "an Ethernet header with nothing behind it",
            frame(Network::Other { ether_type: 0x0800, payload: Vec::new() }),
            R::FrameTruncated,
        ),
        drop("the same for IPv6", frame(Network::Other { ether_type: 0x86dd, payload: Vec::new() }), R::FrameTruncated),
        drop(
            "a frame that ends in its VLAN tag",
            frame(Network::Other { ether_type: 0x8100, payload: vec![0, 10] }),
            R::FrameTruncated,
        ),
        drop("ARP that says another's hardware address", arp_but(|arp| arp.sender_mac = Some(OWNER)), R::ArpIdentity),
        drop(
            "the same from a guest with a session",
            by(GUEST, arp_but(|arp| (arp.sender, arp.sender_mac) = (GUEST_V4, Some(OWNER)))),
            R::ArpIdentity,
        ),
        drop(
            "an ARP probe that says another's",
            arp_but(|arp| (arp.sender, arp.sender_mac) = ([0; 4], Some(OWNER))),
            R::ArpIdentity,
        ),
        // DHCP
        drop("DHCP for another station", packet_v4([255; 4], dhcp(OWNER, &[])), R::DhcpIdentity),
        drop("the same from a guest with a session", by_guest(packet_v4([255; 4], dhcp(OWNER, &[]))), R::DhcpIdentity),
        drop(
            "DHCP with another's identifier",
            packet_v4([255; 4], dhcp(STRANGER, &[61, 7, 1, 2, 0, 0, 0, 1, 7])),
            R::DhcpIdentity,
        ),
        drop("DHCP without a message", v4(udp(68, 67, 240)), R::DhcpIdentity),
        drop("DHCPv6 with another guest's identifier", v6(dhcpv6(OWNER)), R::DhcpIdentity),
        drop("the same from a guest with a session", by_guest(v6(dhcpv6(OWNER))), R::DhcpIdentity),
        drop("a DHCP server that sends from another port", v4(udp(9, 68, 240)), R::DhcpServer),
        drop("a DHCPv6 server that sends from another port", v6(udp(9, 546, 60)), R::DhcpServer),
        pass(
            "a DHCP client without an address",
            with_v4(Frame { destination: BROADCAST, ..packet_v4([255; 4], dhcp(STRANGER, &[])) }, |p| {
                p.source = [0; 4];
            }),
            R::Dhcp,
        ),
        pass(
            "a DHCPv6 client",
            with_v6(packet_v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2], dhcpv6(STRANGER)), |p| {
                p.source = LINK_LOCAL_V6;
            }),
            R::Dhcp,
        ),
        pass("a DHCP client that renews at the gateway", packet_v4(GATEWAY_V4, dhcp(STRANGER, &[])), R::Dhcp),
        pass("a DHCPv6 client that asks the gateway", packet_v6(GATEWAY_V6, dhcpv6(STRANGER)), R::Dhcp),
        refused("DHCP to the internet, as a tunnel would send", v4(dhcp(STRANGER, &[]))),
        refused("DHCPv6 to the internet", v6(dhcpv6(STRANGER))),
        drop(
            "DHCPv6 to a group beyond the link",
            packet_v6([0xff, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 3], dhcpv6(STRANGER)),
            R::DestinationAddress,
        ),
        drop("a DHCP server among the guests", v4(udp(67, 68, 240)), R::DhcpServer),
        drop("a DHCPv6 server among the guests", v6(udp(547, 546, 60)), R::DhcpServer),
    ]
}

/// Pings, reports of errors, and of groups.
fn icmp_reports() -> Vec<Row> {
    use Reason as R;
    vec![
        answer("a ping of somewhere else", v4(ping(8)), R::EchoRefused, Reply::Icmp(3, 13)),
        answer("the same over IPv6", v6(ping(128)), R::EchoRefused, Reply::Icmp(1, 1)),
        drop("a ping smaller than the answer would be", v4(Payload::Icmp(8)), R::AnswerTooLarge),
        drop("the same over IPv6", v6(Payload::Icmpv6(128)), R::AnswerTooLarge),
        pass("a ping of the gateway", packet_v4(GATEWAY_V4, ping(8)), R::Echo),
        pass("the same over IPv6", packet_v6(GATEWAY_V6, ping(128)), R::Echo),
        pass("a reply to the gateway's ping", packet_v4(GATEWAY_V4, ping(0)), R::Echo),
        pass("the same over IPv6", packet_v6(GATEWAY_V6, ping(129)), R::Echo),
        drop("a reply to somewhere else", v4(ping(0)), R::Icmp),
        drop("the same over IPv6", v6(ping(129)), R::Icmp),
        drop("a ping to a group", packet_v4([224, 0, 0, 1], ping(8)), R::DestinationAddress),
        drop("a timestamp request", packet_v4(GATEWAY_V4, Payload::Icmp(13)), R::Icmp),
        pass(
            "fragmentation needed, about what the page has sent",
            report(3, GATEWAY_V4, GATEWAY_V6, 8080),
            R::IcmpError,
        ),
        pass("packet too big, likewise", report(2, GATEWAY_V4, GATEWAY_V6, 8080), R::IcmpError),
        pass("time exceeded", report(11, GATEWAY_V4, GATEWAY_V6, 8080), R::IcmpError),
        pass("an error about a resolver's answer over TCP", report(3, RESOLVER_V4, RESOLVER_V6, 53), R::IcmpError),
        pass(
            "an error about what the walled garden has sent",
            vlan(10, report(3, GARDEN_V4, GARDEN_V6, 8443)),
            R::IcmpError,
        ),
        pass("the same over IPv6", vlan(10, report(1, GARDEN_V4, GARDEN_V6, 8443)), R::IcmpError),
        drop("an error about what somebody else has sent", report(3, SITE_V4, SITE_V6, 8080), R::Icmp),
        drop("the same over IPv6", report(2, SITE_V4, SITE_V6, 8080), R::Icmp),
        drop("an error about another port of the gateway's", report(3, GATEWAY_V4, GATEWAY_V6, 22), R::Icmp),
        drop(
            "an error about what another station was sent",
            sent_from([192, 0, 2, 77], in_guests(0x77), report(3, GATEWAY_V4, GATEWAY_V6, 8080)),
            R::Icmp,
        ),
        drop(
            "the same over IPv6",
            sent_from([192, 0, 2, 77], in_guests(0x77), report(2, GATEWAY_V4, GATEWAY_V6, 8080)),
            R::Icmp,
        ),
        drop(
            "an error that goes to another than it is about",
            with_v4(report(3, GATEWAY_V4, GATEWAY_V6, 8080), |p| p.destination = RESOLVER_V4),
            R::Icmp,
        ),
        pass("a membership report", membership(0x16, 1), R::Igmp),
        pass("an older one", membership(0x12, 1), R::Igmp),
        drop("a membership query of a guest", membership(0x11, 1), R::Protocol),
        drop("a membership report that could leave the link", membership(0x16, 2), R::Protocol),
        drop(
            "a membership report to an address",
            with_v4(membership(0x16, 1), |p| p.destination = GATEWAY_V4),
            R::Protocol,
        ),
        drop(
            "another option than the router alert",
            with_v4(membership(0x16, 1), |p| p.options = vec![148, 4, 0, 1]),
            R::Ipv4Options,
        ),
    ]
}

fn icmp() -> Vec<Row> {
    use Reason as R;
    let short = |kind, code, len| {
        with_v6(packet_v6(ALL_NODES_V6, Payload::ShortIcmpv6 { kind, code, len }), |p| p.hop_limit = 255)
    };
    vec![
        pass("a neighbour solicitation", solicitation(135), R::NeighborDiscovery),
        pass("one with its own address", claim(135, GATEWAY_V6, 1, STRANGER), R::NeighborDiscovery),
        drop("one with another's address", claim(135, GATEWAY_V6, 1, OWNER), R::NeighborIdentity),
        drop("a neighbour advertisement with another's address", claim(136, CLIENT_V6, 2, OWNER), R::NeighborIdentity),
        drop("the same from a guest with a session", by_guest(claim(136, GUEST_V6, 2, OWNER)), R::NeighborIdentity),
        drop(
            "neighbour discovery of a guest with a session, behind options",
            with_v6(by_guest(claim(136, GUEST_V6, 2, GUEST)), |p| {
                p.extensions = vec![Extension { protocol: 60, units: 0 }];
            }),
            R::HiddenDiscovery,
        ),
        drop(
            "the same in fragments",
            with_v6(by_guest(claim(136, GUEST_V6, 2, GUEST)), |p| {
                p.extensions = vec![Extension { protocol: 44, units: 0 }];
            }),
            R::HiddenDiscovery,
        ),
        drop("an ICMP redirect", v4(Payload::Icmp(5)), R::RouterAdvertisement),
        drop("the same from a guest with a session", by_guest(v4(Payload::Icmp(5))), R::RouterAdvertisement),
        pass(
            "one for duplicate address detection, from no address",
            with_v6(solicitation(135), |p| p.source = [0; 16]),
            R::NeighborDiscovery,
        ),
        pass("a neighbour advertisement to the gateway", advertisement(CLIENT_V6), R::NeighborDiscovery),
        pass(
            "one to a link-local address",
            with_v6(advertisement(CLIENT_V6), |p| p.destination = LINK_LOCAL_V6),
            R::NeighborDiscovery,
        ),
        pass("a router solicitation", solicitation(133), R::NeighborDiscovery),
        pass("a router solicitation of eight bytes", short(133, 0, 8), R::NeighborDiscovery),
        drop(
            "a neighbour solicitation to the internet, as a tunnel would send",
            with_v6(v6(Payload::Icmpv6(135)), |p| p.hop_limit = 255),
            R::Icmp,
        ),
        drop("one to a multicast group beyond the link", with_v6(solicitation(135), |p| p.destination[1] = 5), R::Icmp),
        drop("a neighbour solicitation that is too short", short(135, 0, 23), R::Icmp),
        drop("one with a code", short(135, 1, 24), R::Icmp),
        drop("neighbour discovery that crossed a router", with_v6(solicitation(135), |p| p.hop_limit = 254), R::Icmp),
        drop("an ICMPv6 message of one byte", with_v6(short(135, 0, 2), |p| p.length_error = -1), R::Ipv6Malformed),
        drop(
            "a router advertisement",
            with_v6(v6(Payload::Icmpv6(134)), |p| p.hop_limit = 255),
            R::RouterAdvertisement,
        ),
        drop("a redirect", with_v6(v6(Payload::Icmpv6(137)), |p| p.hop_limit = 255), R::RouterAdvertisement),
        pass(
            "a multicast listener report",
            with_v6(packet_v6(ALL_NODES_V6, Payload::RouterAlert(143)), |p| p.hop_limit = 1),
            R::MulticastListener,
        ),
        drop(
            "a listener report to one station",
            with_v6(v6(Payload::RouterAlert(143)), |p| p.hop_limit = 1),
            R::Ipv6Extension,
        ),
        drop(
            "a router alert before anything else",
            with_v6(packet_v6(ALL_NODES_V6, Payload::RouterAlert(128)), |p| p.hop_limit = 1),
            R::Ipv6Extension,
        ),
        drop("an ICMP error is never answered", v4(Payload::Icmp(3)), R::Icmp),
        drop("an ICMPv6 error is never answered", v6(Payload::Icmpv6(1)), R::Icmp),
    ]
}

fn headers() -> Vec<Row> {
    use Reason as R;
    let options = |options: &[u8]| with_v4(v4(any_udp()), |p| p.options = options.to_vec());
    vec![
        drop("IPv4 with version 5", with_v4(v4(any_udp()), |p| p.version_and_ihl = Some(0x55)), R::Ipv4Malformed),
        drop(
            "an IPv4 header of 16 bytes",
            with_v4(v4(any_udp()), |p| p.version_and_ihl = Some(0x44)),
            R::Ipv4Malformed,
        ),
        drop("an IPv4 packet longer than its frame", with_v4(v4(any_udp()), |p| p.length_error = 1), R::Ipv4Malformed),
        drop(
            "an IPv4 header with a wrong checksum",
            with_v4(v4(any_udp()), |p| p.bad_checksum = true),
            R::Ipv4Malformed,
        ),
        drop("IPv4 options", options(&[1, 1, 1, 1]), R::Ipv4Options),
        drop("a record route", options(&[7, 7, 4, 0, 0, 0, 0]), R::Ipv4Options),
        drop("a loose source route", options(&[131, 7, 4, 198, 51, 100, 9]), R::SourceRoute),
        drop("a strict source route behind a no-operation", options(&[1, 137, 7, 4, 198, 51, 100, 9]), R::SourceRoute),
        drop("the first of IPv4 fragments", with_v4(v4(any_udp()), |p| p.flags_and_offset = 0x2000), R::Fragment),
        drop("a later IPv4 fragment", with_v4(v4(any_udp()), |p| p.flags_and_offset = 0x0001), R::Fragment),
        drop("IPv6 with version 7", with_v6(v6(any_udp()), |p| p.version = 7), R::Ipv6Malformed),
        drop("an IPv6 packet longer than its frame", with_v6(v6(any_udp()), |p| p.length_error = 1), R::Ipv6Malformed),
        drop("SCTP", v4(Payload::Other(132)), R::Protocol),
        drop("SCTP over IPv6", v6(Payload::Other(132)), R::Protocol),
        drop("IPv4 in IPv4", v4(Payload::Other(4)), R::Tunnel),
        drop("IPv6 in IPv4", v4(Payload::Other(41)), R::Tunnel),
        drop("GRE", v4(Payload::Other(47)), R::Tunnel),
        drop("ESP", v4(Payload::Other(50)), R::Tunnel),
        drop("AH over IPv4", v4(Payload::Other(51)), R::Tunnel),
        drop("IPv4 in IPv6", v6(Payload::Other(4)), R::Tunnel),
        drop("IPv6 in IPv6", v6(Payload::Other(41)), R::Tunnel),
        drop("GRE over IPv6", v6(Payload::Other(47)), R::Tunnel),
        drop("ESP over IPv6", v6(Payload::Other(50)), R::Tunnel),
    ]
}

fn extensions() -> Vec<Row> {
    use Reason as R;
    const HBH: (u8, u8) = (0, 0);
    const ROUTING: (u8, u8) = (43, 2);
    const FRAGMENT: (u8, u8) = (44, 0);
    const AH: (u8, u8) = (51, 4);
    const DESTINATION: (u8, u8) = (60, 0);
    vec![
        drop("an IPv6 routing header of type 0", extended(&[ROUTING], any_udp()), R::SourceRoute),
        drop("one behind hop-by-hop options", extended(&[HBH, ROUTING], any_udp()), R::SourceRoute),
        drop("an IPv6 fragment", extended(&[FRAGMENT], any_udp()), R::Fragment),
        drop("one behind destination options", extended(&[DESTINATION, FRAGMENT], any_udp()), R::Fragment),
        drop("one behind AH", extended(&[AH, FRAGMENT], any_udp()), R::Fragment),
        drop("one behind hop-by-hop options and AH", extended(&[HBH, AH, FRAGMENT], any_udp()), R::Fragment),
        drop("IPv6 destination options", extended(&[DESTINATION], any_udp()), R::Ipv6Extension),
        drop("hop-by-hop options before a SYN", extended(&[HBH], segment_to(80, SYN)), R::Ipv6Extension),
        drop("AH", extended(&[AH], any_udp()), R::Ipv6Extension),
        drop("AH before a SYN", extended(&[AH], segment_to(80, SYN)), R::Ipv6Extension),
        drop("three extension headers", extended(&[HBH, DESTINATION, AH], any_udp()), R::Ipv6Extension),
        drop("a tunnel behind destination options", extended(&[DESTINATION], Payload::Other(41)), R::Tunnel),
        drop("ESP behind AH", extended(&[AH], Payload::Other(50)), R::Tunnel),
        drop("four extension headers", extended(&[HBH, DESTINATION, AH, DESTINATION], any_udp()), R::ExtensionChain),
        drop("eight extension headers", extended(&[DESTINATION; 8], segment_to(80, SYN)), R::ExtensionChain),
        drop(
            "a header beyond what is read of a frame",
            extended(&[(60, 127), DESTINATION], any_udp()),
            R::ExtensionChain,
        ),
        drop(
            "an extension header longer than its packet",
            with_v6(extended(&[DESTINATION], any_udp()), |p| p.length_error = -76),
            R::Ipv6Malformed,
        ),
        drop(
            "hop-by-hop options with nothing behind them",
            with_v6(extended(&[HBH], any_udp()), |p| p.length_error = -72),
            R::Ipv6Malformed,
        ),
    ]
}

fn addresses() -> Vec<Row> {
    use Reason as R;
    vec![
        drop("from a loopback address", with_v4(v4(any_udp()), |p| p.source = [127, 0, 0, 1]), R::SourceAddress),
        drop("from the broadcast address", with_v4(v4(any_udp()), |p| p.source = [255; 4]), R::SourceAddress),
        drop("from a multicast address", with_v6(v6(any_udp()), |p| p.source = ALL_NODES_V6), R::SourceAddress),
        drop("from no address", with_v4(v4(segment_to(80, SYN)), |p| p.source = [0; 4]), R::SourceAddress),
        drop("from the destination's own address", with_v4(v4(any_udp()), |p| p.source = SITE_V4), R::SourceAddress),
        drop(
            "from an IPv4-mapped address",
            with_v6(v6(any_udp()), |p| p.source = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 9]),
            R::SourceAddress,
        ),
        drop("mDNS", packet_v4([224, 0, 0, 251], udp(5353, 5353, 40)), R::DestinationAddress),
        drop(
            "mDNS over IPv6",
            packet_v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfb], udp(5353, 5353, 40)),
            R::DestinationAddress,
        ),
        drop("a SYN to a multicast group", packet_v4([224, 0, 0, 1], segment_to(80, SYN)), R::DestinationAddress),
        drop("UDP to the broadcast address", packet_v4([255; 4], any_udp()), R::DestinationAddress),
        drop("UDP to the loopback address", packet_v4([127, 0, 0, 1], any_udp()), R::DestinationAddress),
        drop(
            "a SYN to the IPv4-mapped address of the portal",
            packet_v6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 1], segment_to(8080, SYN)),
            R::DestinationAddress,
        ),
        drop("to another station's MAC", with(v4(any_udp()), |f| f.destination = ELSEWHERE), R::DestinationMac),
        drop(
            "a SYN to the broadcast MAC",
            with(v4(segment_to(80, SYN)), |f| f.destination = BROADCAST),
            R::DestinationMac,
        ),
        drop(
            "a SYN to a group's MAC over IPv6",
            with(v6(segment_to(80, SYN)), |f| f.destination = [0x33, 0x33, 0, 0, 0, 1]),
            R::DestinationMac,
        ),
    ]
}

fn services() -> Vec<Row> {
    use Reason as R;
    vec![
        pass("DNS to a permitted resolver", packet_v4(GATEWAY_V4, udp(40_000, 53, 30)), R::Dns),
        pass("DNS to it over IPv6", packet_v6(GATEWAY_V6, udp(40_000, 53, 30)), R::Dns),
        pass("DNS to a permitted resolver beyond the gateway", packet_v4(RESOLVER_V4, udp(40_000, 53, 30)), R::Dns),
        pass("DNS over TCP", packet_v4(GATEWAY_V4, segment_to(53, SYN)), R::DnsTcp),
        pass("DNS over TCP and IPv6", packet_v6(RESOLVER_V6, segment_to(53, SYN)), R::DnsTcp),
        refused("DNS to any other resolver", v4(udp(40_000, 53, 30))),
        pass("the login page", packet_v4(GATEWAY_V4, segment_to(8080, SYN)), R::PortalService),
        pass("the login page over IPv6", packet_v6(GATEWAY_V6, segment_to(8080, SYN)), R::PortalService),
        pass("a reset to the login page", packet_v6(GATEWAY_V6, segment_to(8080, RST)), R::PortalService),
        pass("time, where it is permitted", vlan(10, packet_v4(NTP_V4, udp(123, 123, 48))), R::Ntp),
        pass("time over IPv6", vlan(10, packet_v6(NTP_V6, udp(123, 123, 48))), R::Ntp),
        refused("time from another server", vlan(10, v4(udp(123, 123, 48)))),
        refused("time where it is not permitted", packet_v4(NTP_V4, udp(123, 123, 48))),
        pass("a prefix of the walled garden", vlan(10, packet_v4(GARDEN_V4, segment_to(8443, SYN))), R::Garden),
        pass("one over IPv6", vlan(10, packet_v6(GARDEN_V6, segment_to(8443, SYN))), R::Garden),
        pass("an address of which every UDP port is open", vlan(10, packet_v6(GARDEN_V6, any_udp())), R::Garden),
        answer(
            "another port of a prefix that is open for one",
            vlan(10, packet_v4(GARDEN_V4, segment_to(8444, SYN))),
            R::TcpRefused,
            segment(RST | ACK, Some(1)),
        ),
        refused("another protocol on that port", vlan(10, packet_v4(GARDEN_V4, udp(40_000, 8443, 64)))),
        answer(
            "an address beside the prefix",
            vlan(10, packet_v4([203, 0, 113, 191], segment_to(8443, SYN))),
            R::TcpRefused,
            segment(RST | ACK, Some(1)),
        ),
        answer(
            "another zone's walled garden",
            packet_v4(GARDEN_V4, segment_to(8443, SYN)),
            R::TcpRefused,
            segment(RST | ACK, Some(1)),
        ),
        pass("a name of the walled garden", vlan(10, packet_v4(NAMED_V4, segment_to(443, SYN))), R::GardenName),
        pass("a name over IPv6", vlan(10, packet_v6(NAMED_V6, segment_to(443, SYN))), R::GardenName),
        pass("a name of which every UDP port is open", vlan(10, packet_v4(NAMED_V4, any_udp())), R::GardenName),
        answer(
            "a name whose time is over",
            vlan(10, packet_v4(FORGOTTEN_V4, segment_to(443, SYN))),
            R::TlsHandshake,
            SYN_ACK,
        ),
    ]
}

/// A segment from the port from which another station has begun connections to the portal.
fn noted(flags: u8, data: usize) -> Payload {
    Payload::Tcp(Tcp { source_port: NOTED_PORT, data, ..tcp(8080, flags) })
}

fn connections() -> Vec<Row> {
    use Reason as R;
    let (v4, v6) = (|payload| packet_v4(GATEWAY_V4, payload), |payload| packet_v6(GATEWAY_V6, payload));
    let theirs = |frame| by(ELSEWHERE, frame);
    // Where addresses are not looked at a guest can have any.
    let free = |frame| vlan(30, by(FREE, frame));
    let hidden =
        |protocol| with_v6(v6(noted(PSH | ACK, 60)), |p| p.extensions = vec![Extension { protocol, units: 0 }]);
    vec![
        pass("a form, from who opened the connection", theirs(v4(noted(PSH | ACK, 60))), R::PortalService),
        pass("a form over IPv6, from who opened the connection", theirs(v6(noted(PSH | ACK, 60))), R::PortalService),
        pass("its last segment", theirs(v4(noted(FIN | ACK, 0))), R::PortalService),
        pass("a segment of a connection that nobody was seen to open", v4(segment_to(8080, ACK)), R::PortalService),
        drop("a form in another station's connection", v4(noted(PSH | ACK, 60)), R::ConnectionOfAnother),
        drop("a form in another's connection over IPv6", v6(noted(PSH | ACK, 60)), R::ConnectionOfAnother),
        drop("another's connection, behind a tag", vlan(10, v4(noted(ACK, 0))), R::ConnectionOfAnother),
        drop("another's connection over IPv6, behind a tag", vlan(10, v6(noted(ACK, 0))), R::ConnectionOfAnother),
        drop("a reset of another's connection", v4(noted(RST, 0)), R::ConnectionOfAnother),
        drop("a SYN in place of another's connection", v4(noted(SYN, 0)), R::ConnectionOfAnother),
        drop("a SYN in place of another's over IPv6", v6(noted(SYN, 0)), R::ConnectionOfAnother),
        drop("a guest's form in another's connection", free(v4(noted(PSH | ACK, 60))), R::ConnectionOfAnother),
        drop("a guest's form in another's over IPv6", free(v6(noted(PSH | ACK, 60))), R::ConnectionOfAnother),
        pass("the same port, to somewhere else", free(packet_v4(SITE_V4, noted(ACK, 0))), R::Authorized),
        pass("a guest opens a connection to the login page", by_guest(v4(segment_to(8080, SYN))), R::Authorized),
        pass("a guest opens one over IPv6", by_guest(v6(segment_to(8080, SYN))), R::Authorized),
        pass("its form", by_guest(v6(segment_to(8080, PSH | ACK))), R::Authorized),
        drop(
            "a guest's form in fragments",
            with_v4(by_guest(v4(segment_to(8080, PSH | ACK))), |p| p.flags_and_offset = 0x2000),
            R::ConnectionHidden,
        ),
        drop("a guest's form in an IPv6 fragment", free(hidden(44)), R::ConnectionHidden),
        drop("a guest's form behind destination options", free(hidden(60)), R::ConnectionHidden),
        drop("a guest's form behind a routing header", free(hidden(43)), R::ConnectionHidden),
        pass(
            "a guest's segment behind destination options, to somewhere else",
            with_v6(by_guest(packet_v6(SITE_V6, segment_to(8080, PSH | ACK))), |p| {
                p.extensions = vec![Extension { protocol: 60, units: 0 }];
            }),
            R::Authorized,
        ),
    ]
}

fn udp_rows() -> Vec<Row> {
    use Reason as R;
    vec![
        answer("QUIC", v4(udp(40_000, 443, 1200)), R::QuicRefused, Reply::Icmp(3, 3)),
        answer("QUIC over IPv6", v6(udp(40_000, 443, 1200)), R::QuicRefused, Reply::Icmp(1, 4)),
        refused("UDP", v4(any_udp())),
        refused("UDP over IPv6", v6(udp(40_000, 123, 48))),
        drop("UDP smaller than the answer would be", v4(udp(40_000, 9, 27)), R::AnswerTooLarge),
        refused("UDP just as large", v4(udp(40_000, 9, 28))),
        drop("UDP over IPv6 smaller than the answer would be", v6(udp(40_000, 9, 47)), R::AnswerTooLarge),
        drop(
            "a UDP header longer than its packet",
            v4(Payload::Udp { source_port: 1, destination_port: 2, data: 4, length_error: 1 }),
            R::UdpMalformed,
        ),
        drop(
            "a UDP header that ends in itself",
            v6(Payload::Udp { source_port: 1, destination_port: 2, data: 4, length_error: -5 }),
            R::UdpMalformed,
        ),
    ]
}

fn tcp_rows() -> Vec<Row> {
    use Reason as R;
    let payload = |tcp: Tcp| Payload::Tcp(tcp);
    vec![
        answer(
            "a SYN to TCP/22 over IPv6 is reset",
            v6(segment_to(22, SYN)),
            R::TcpRefused,
            segment(RST | ACK, Some(1)),
        ),
        answer("DNS over TLS is reset", v4(segment_to(853, SYN)), R::TcpRefused, segment(RST | ACK, Some(1))),
        answer(
            "data of an old connection is reset",
            v4(payload(Tcp { data: 9, ..tcp(22, ACK) })),
            R::TcpRefused,
            segment(RST, None),
        ),
        answer(
            "a segment without ACK is reset with what it took",
            v6(payload(Tcp { data: 9, ..tcp(22, FIN) })),
            R::TcpRefused,
            segment(RST | ACK, Some(10)),
        ),
        answer(
            "a SYN to TCP/443, by the policy `reset`",
            v4(segment_to(443, SYN)),
            R::HttpsRefused,
            segment(RST | ACK, Some(1)),
        ),
        answer("the same over IPv6", v6(segment_to(443, SYN)), R::HttpsRefused, segment(RST | ACK, Some(1))),
        answer(
            "data of an old connection to TCP/443",
            v4(payload(Tcp { data: 9, ..tcp(443, ACK) })),
            R::HttpsRefused,
            segment(RST, None),
        ),
        drop("a SYN to TCP/443, by the policy `drop`", vlan(30, v4(segment_to(443, SYN))), R::HttpsDropped),
        drop("the same over IPv6", vlan(30, v6(segment_to(443, SYN))), R::HttpsDropped),
        drop("a reset is never answered", v4(segment_to(443, RST | ACK)), R::TcpReset),
        drop("a reset on TCP/80 neither", v6(segment_to(80, RST)), R::TcpReset),
        drop("SYN and FIN at once", v4(segment_to(80, SYN | FIN)), R::TcpMalformed),
        drop("a TCP header of 16 bytes", v4(payload(Tcp { data_offset: Some(0x40), ..tcp(80, SYN) })), R::TcpMalformed),
        drop(
            "a TCP header longer than its packet",
            v6(payload(Tcp { data_offset: Some(0xf0), ..tcp(80, SYN) })),
            R::TcpMalformed,
        ),
    ]
}

fn http() -> Vec<Row> {
    use Reason as R;
    vec![
        answer("a SYN to TCP/80", v4(segment_to(80, SYN)), R::HttpHandshake, SYN_ACK),
        answer("a SYN to TCP/80 over IPv6", v6(segment_to(80, SYN)), R::HttpHandshake, SYN_ACK),
        answer(
            "a SYN without options gets none, so that the answer is no larger",
            v4(Payload::Tcp(Tcp { options: 0, ..tcp(80, SYN) })),
            R::HttpHandshake,
            segment(SYN | ACK, Some(1)),
        ),
        answer(
            "data on a SYN is not taken",
            v6(Payload::Tcp(Tcp { data: 40, ..tcp(80, SYN) })),
            R::HttpHandshake,
            SYN_ACK,
        ),
        drop("the ACK of our handshake", v4(intercepted(ACK, 0, 0)), R::HttpAckOnly),
        redirect("a request", v4(intercepted(ACK | PSH, 70, 0)), R::HttpRequest),
        redirect("a request over IPv6", v6(intercepted(ACK | PSH, 70, 0)), R::HttpRequest),
        redirect("a request in a VLAN", vlan(30, v6(intercepted(ACK | PSH, 70, 0))), R::HttpRequest),
        redirect("the bare FIN behind a request", v4(behind(intercepted(ACK | FIN, 0, 0), 70)), R::HttpRequest),
        redirect("the same over IPv6", v6(behind(intercepted(ACK | FIN, 0, 0), 70)), R::HttpRequest),
        redirect("a client that closes without a request", v4(intercepted(ACK | FIN, 0, 0)), R::HttpRequest),
        drop("the acknowledgement of our response", v6(intercepted(ACK, 0, 701)), R::HttpAckOnly),
        answer(
            "the client's FIN after our response",
            v4(intercepted(ACK | FIN, 0, 701)),
            R::HttpAcknowledged,
            segment(ACK, Some(1)),
        ),
        answer(
            "more data after our response",
            v6(intercepted(ACK, 100, 701)),
            R::HttpAcknowledged,
            segment(ACK, Some(100)),
        ),
        answer(
            "data on TCP/80 of a connection that is not ours",
            v4(Payload::Tcp(Tcp { data: 70, ..tcp(80, ACK) })),
            R::HttpForeign,
            segment(RST, None),
        ),
        answer("a SYN-ACK that nobody asked for", v6(segment_to(80, SYN | ACK)), R::HttpForeign, segment(RST, None)),
        answer("a FIN scan of TCP/80", v4(segment_to(80, FIN)), R::HttpForeign, segment(RST | ACK, Some(1))),
        answer(
            "a guest whose session expired, in mid-flow",
            by(EXPIRED, v6(Payload::Tcp(Tcp { data: 70, ..tcp(80, ACK) }))),
            R::HttpForeign,
            segment(RST, None),
        ),
    ]
}

fn tls() -> Vec<Row> {
    use Reason as R;
    let tls = |flags, data, received| intercepted_on(443, flags, data, received);
    vec![
        answer("a SYN to TCP/443, by the policy `alert`", vlan(10, v4(segment_to(443, SYN))), R::TlsHandshake, SYN_ACK),
        answer("the same over IPv6", vlan(10, v6(segment_to(443, SYN))), R::TlsHandshake, SYN_ACK),
        drop("the ACK of our handshake on TCP/443", vlan(10, v4(tls(ACK, 0, 0))), R::TlsAckOnly),
        redirect("a ClientHello", vlan(10, v4(tls(ACK | PSH, 517, 0))), R::TlsHello),
        redirect("a ClientHello over IPv6", vlan(10, v6(tls(ACK | PSH, 517, 0))), R::TlsHello),
        redirect("its second segment", vlan(10, v4(behind(tls(ACK | PSH, 300, 0), 1220))), R::TlsHello),
        redirect("a client that closes without a ClientHello", vlan(10, v6(tls(ACK | FIN, 0, 0))), R::TlsHello),
        drop("the acknowledgement of our alert", vlan(10, v4(tls(ACK, 0, 8))), R::TlsAckOnly),
        answer(
            "the client's FIN after our alert",
            vlan(10, v4(tls(ACK | FIN, 0, 8))),
            R::TlsAcknowledged,
            segment(ACK, Some(1)),
        ),
        answer(
            "more data after our alert",
            vlan(10, v6(tls(ACK, 100, 7))),
            R::TlsAcknowledged,
            segment(ACK, Some(100)),
        ),
        answer(
            "data on TCP/443 of a connection that is not ours",
            vlan(10, v4(Payload::Tcp(Tcp { data: 70, ..tcp(443, ACK) }))),
            R::TlsForeign,
            segment(RST, None),
        ),
        answer("a FIN scan of TCP/443", vlan(10, v6(segment_to(443, FIN))), R::TlsForeign, segment(RST | ACK, Some(1))),
    ]
}

fn budgets() -> Vec<Row> {
    use Reason as R;
    let spent = |sentence, frame, reason| drop(sentence, vlan(60, frame), reason);
    vec![
        spent("a request over budget", v4(intercepted(ACK | PSH, 70, 0)), R::BudgetRequests),
        spent("one over IPv6", v6(intercepted(ACK | PSH, 70, 0)), R::BudgetRequests),
        spent("a DNS query over budget", packet_v4(GATEWAY_V4, udp(40_000, 53, 30)), R::BudgetDnsQueries),
        spent("one over IPv6", packet_v6(GATEWAY_V6, udp(40_000, 53, 30)), R::BudgetDnsQueries),
        spent("DNS over TCP over budget", packet_v4(GATEWAY_V4, segment_to(53, SYN)), R::BudgetDnsBytes),
        spent("ARP over budget", arp(1, CLIENT_V4), R::BudgetLink),
        spent("neighbour discovery over budget", solicitation(135), R::BudgetLink),
        spent("DHCP over budget", packet_v4(GATEWAY_V4, dhcp(STRANGER, &[])), R::BudgetLink),
        spent("EAPOL over budget", other(0x888e), R::BudgetLink),
        spent(
            "a listener report over budget",
            with_v6(packet_v6(ALL_NODES_V6, Payload::RouterAlert(143)), |p| p.hop_limit = 1),
            R::BudgetLink,
        ),
        spent("a SYN over budget: silence", v4(segment_to(80, SYN)), R::BudgetReplies),
        spent("UDP over budget: silence", v6(any_udp()), R::BudgetReplies),
        spent("the login page over budget", packet_v6(GATEWAY_V6, segment_to(8080, SYN)), R::BudgetServices),
        spent("time over budget", packet_v4(NTP_V4, udp(123, 123, 48)), R::BudgetServices),
        spent("what is dropped anyhow keeps its reason", v4(Payload::Icmp(13)), R::Icmp),
    ]
}

fn shadow() -> Vec<Row> {
    use Reason as R;
    vec![
        refused("in shadow mode UDP passes, and what would have been is counted", vlan(20, v4(any_udp()))),
        answer("a SYN in shadow mode", vlan(20, v6(segment_to(80, SYN))), R::HttpHandshake, SYN_ACK),
        redirect("a request in shadow mode", vlan(20, v4(intercepted(ACK | PSH, 70, 0))), R::HttpRequest),
        drop("an ICMP message in shadow mode", vlan(20, v6(Payload::Icmpv6(200))), R::Icmp),
        drop(
            "a guest beyond its rate in shadow mode",
            vlan(20, sent_from([192, 0, 2, 54], [0; 16], by(FAST, v4(any_udp())))),
            R::RateUp,
        ),
        pass("a guest with a session in shadow mode", vlan(20, by_guest(v6(any_udp()))), R::Authorized),
        pass("DNS in shadow mode", vlan(20, packet_v4(GATEWAY_V4, udp(40_000, 53, 30))), R::Dns),
        drop(
            "a guest's address in shadow mode: its owner is in another zone",
            vlan(20, v4(Payload::Other(47))),
            R::Tunnel,
        ),
    ]
}

fn jumbo() -> Vec<Row> {
    use Reason as R;
    vec![
        pass("a jumbo frame from a guest with a session", by_guest(v4(udp(5353, 9999, 3_000))), R::Authorized),
        pass("one of several buffers", by_guest(v6(udp(5353, 9999, 8_900))), R::Authorized),
        pass(
            "one of several buffers that is no IP",
            by(GUEST, frame(Network::Other { ether_type: 0x1234, payload: vec![7; 8_000] })),
            R::Authorized,
        ),
        pass("DNS of several buffers", packet_v4(GATEWAY_V4, udp(40_000, 53, 6_000)), R::Dns),
        refused("UDP of several buffers is answered with a small frame", v4(udp(40_000, 9, 8_900))),
        refused("the same over IPv6", v6(udp(40_000, 9, 8_900))),
        redirect(
            "a request in a jumbo frame, cut to what the responder takes",
            v6(intercepted(ACK | PSH, 3_000, 0)),
            R::HttpRequest,
        ),
        redirect("a request of several buffers, cut likewise", v4(intercepted(ACK | PSH, 8_000, 0)), R::HttpRequest),
        drop(
            "an IPv4 packet longer than its several buffers",
            with_v4(v4(udp(40_000, 9, 8_900)), |p| p.length_error = 1),
            R::Ipv4Malformed,
        ),
    ]
}

/// Every row about frames that go to guests.
pub fn outbound_rows() -> Vec<OutboundRow> {
    [to_members(), to_strangers(), dns_answers(), icmp_to_strangers(), to_groups(), of_no_zone()].concat()
}

/// Forwarded, and answering nothing.
fn row(sentence: &'static str, frame: Frame, decision: Outbound) -> OutboundRow {
    OutboundRow { sentence, frame, asked: None, relayed: false, forwarded: true, decision }
}

/// The same of the gateway's own.
fn own(sentence: &'static str, frame: Frame, decision: Outbound) -> OutboundRow {
    OutboundRow { forwarded: false, ..row(sentence, frame, decision) }
}

fn to(client: [u8; 6], frame: Frame) -> Frame {
    Frame { source: GATEWAY_MAC, destination: client, ..frame }
}

/// From this server, to a stranger's address.
fn down_v4(source: [u8; 4], payload: Payload) -> Frame {
    to(STRANGER, with_v4(packet_v4(CLIENT_V4, payload), |p| p.source = source))
}

fn down_v6(source: [u8; 16], payload: Payload) -> Frame {
    to(STRANGER, with_v6(packet_v6(CLIENT_V6, payload), |p| p.source = source))
}

/// From somewhere on the internet, to this client at this address.
fn guests_v4(client: [u8; 6], address: [u8; 4]) -> Frame {
    to(client, with_v4(packet_v4(address, any_udp()), |p| p.source = SITE_V4))
}

fn guests_v6(client: [u8; 6], address: [u8; 16]) -> Frame {
    to(client, with_v6(packet_v6(address, any_udp()), |p| p.source = SITE_V6))
}

fn to_members() -> Vec<OutboundRow> {
    use Outbound::{Drop, Metered};
    vec![
        row("to a guest with a session", guests_v4(OWNER, OWNED_V4), Metered),
        row("to it over IPv6", guests_v6(OWNER, OWNED_V6), Metered),
        row("anything else to it", to(OWNER, other(0x1234)), Metered),
        row("to its station, for an address that is not its own", guests_v4(OWNER, CLIENT_V4), Drop(Reason::ToAnother)),
        row("the same over IPv6", guests_v6(OWNER, CLIENT_V6), Drop(Reason::ToAnother)),
        row(
            "to another's station, for an address that is a guest's",
            guests_v4(FAST, OWNED_V4),
            Drop(Reason::ToAnother),
        ),
        row("the same over IPv6", guests_v6(FAST, OWNED_V6), Drop(Reason::ToAnother)),
        row("where addresses are not looked at", vlan(30, guests_v4(FREE, CLIENT_V4)), Metered),
        row("the same over IPv6", vlan(30, guests_v6(FREE, CLIENT_V6)), Metered),
        row(
            "to a guest that has as many addresses as there can be, for one more that nobody has",
            vlan(10, guests_v4(SETTLED, CLIENT_V4)),
            Metered,
        ),
        own(
            "the login page's answer to a guest that has logged in, and shown no address since",
            to(GUEST, down_v4(GATEWAY_V4, Payload::Tcp(Tcp { source_port: 8080, ..tcp(40_000, ACK) }))),
            Metered,
        ),
        own("a solicitation for an address that a guest has not shown", to(OWNER, discovery(135)), Metered),
        row("to a guest beyond its rate", guests_v4(FAST, FAST_V4), Drop(Reason::RateDown)),
        row("the same over IPv6", guests_v6(FAST, FAST_V6), Drop(Reason::RateDown)),
        row("to a guest beyond its rate in shadow mode", vlan(20, guests_v4(FAST, FAST_V4)), Drop(Reason::RateDown)),
        row("to a guest that has used up its quota", guests_v4(SPENT, SPENT_V4), Drop(Reason::QuotaSpent)),
        row("the same over IPv6", guests_v6(SPENT, SPENT_V6), Drop(Reason::QuotaSpent)),
        row(
            "forwarded to a guest, from the gateway's address",
            with_v6(guests_v6(OWNER, OWNED_V6), |p| p.source = GATEWAY_V6),
            Drop(Reason::GatewayForged),
        ),
    ]
}

/// From the gateway's link-local address, of the last hop limit there is.
fn discovery(kind: u8) -> Frame {
    with_v6(down_v6(LINK_LOCAL_V6, Payload::Icmpv6(kind)), |p| p.hop_limit = 255)
}

fn to_strangers() -> Vec<OutboundRow> {
    use Outbound::{Drop, Pass};
    const NOTHING: Outbound = Drop(Reason::ToStranger);
    let from_port = |port| Payload::Tcp(Tcp { source_port: port, ..tcp(40_000, ACK) });
    vec![
        row("UDP to a stranger", down_v4(SITE_V4, any_udp()), NOTHING),
        row("UDP to a stranger over IPv6", down_v6(SITE_V6, any_udp()), NOTHING),
        row("TCP to a stranger", down_v4(SITE_V4, from_port(443)), NOTHING),
        row("TCP to a stranger over IPv6", down_v6(SITE_V6, from_port(80)), NOTHING),
        row("another protocol", down_v4(SITE_V4, Payload::Other(47)), NOTHING),
        row("the same over IPv6", down_v6(SITE_V6, Payload::Other(47)), NOTHING),
        row("UDP to a stranger in shadow mode", vlan(20, down_v4(SITE_V4, any_udp())), NOTHING),
        row("UDP behind an extension header", extended_down(60), NOTHING),
        row("a fragment over IPv6", extended_down(44), NOTHING),
        own("a fragment", with_v4(down_v4(GATEWAY_V4, udp(53, 40_000, 64)), |p| p.flags_and_offset = 0x2000), NOTHING),
        row("to a guest whose session expired", to(EXPIRED, down_v6(SITE_V6, any_udp())), NOTHING),
        row("to a guest that was silent for too long", to(IDLE, down_v4(SITE_V4, any_udp())), NOTHING),
        row("to a station that nobody has seen", to(ELSEWHERE, down_v4(SITE_V4, any_udp())), NOTHING),
        own("anything of the gateway's", down_v4(GATEWAY_V4, any_udp()), NOTHING),
        own("another EtherType", to(STRANGER, other(0x1234)), NOTHING),
        own("ARP", to(STRANGER, arp(2, GATEWAY_V4)), Pass(Reason::Arp)),
        own("EAPOL", to(STRANGER, other(0x888e)), Pass(Reason::Eapol)),
        own("a router advertisement", discovery(134), Pass(Reason::NeighborDiscovery)),
        own("a neighbour solicitation", discovery(135), Pass(Reason::NeighborDiscovery)),
        own("a neighbour advertisement", discovery(136), Pass(Reason::NeighborDiscovery)),
        own("a redirect", discovery(137), Pass(Reason::NeighborDiscovery)),
        row("a neighbour advertisement that crossed a router", with_v6(discovery(136), |p| p.hop_limit = 254), NOTHING),
        own("a DHCP server's message", down_v4(GATEWAY_V4, udp(67, 68, 240)), Pass(Reason::Dhcp)),
        own("the same over IPv6", down_v6(LINK_LOCAL_V6, udp(547, 546, 60)), Pass(Reason::Dhcp)),
        row("UDP with a DHCP server's ports from elsewhere", down_v4(SITE_V4, udp(67, 68, 240)), NOTHING),
        row("the same over IPv6", down_v6(SITE_V6, udp(547, 546, 60)), NOTHING),
        own("the login page", down_v4(GATEWAY_V4, from_port(8080)), Pass(Reason::PortalService)),
        own("the login page over IPv6", down_v6(GATEWAY_V6, from_port(8080)), Pass(Reason::PortalService)),
        row("the same, but forwarded", down_v6(GATEWAY_V6, from_port(8080)), Drop(Reason::GatewayForged)),
        own("another port of the gateway's", down_v4(GATEWAY_V4, from_port(22)), NOTHING),
        own("the login page over budget", vlan(60, down_v6(GATEWAY_V6, from_port(8080))), Drop(Reason::BudgetServices)),
        row("the walled garden", vlan(10, down_v4(GARDEN_V4, from_port(8443))), Pass(Reason::Garden)),
        row("the walled garden over IPv6", vlan(10, down_v6(GARDEN_V6, udp(9, 40_000, 60))), Pass(Reason::Garden)),
        row("another port of it", vlan(10, down_v4(GARDEN_V4, from_port(443))), NOTHING),
        row("the walled garden, by name", vlan(10, down_v4(NAMED_V4, from_port(443))), Pass(Reason::GardenName)),
        row("the same over IPv6", vlan(10, down_v6(NAMED_V6, from_port(443))), Pass(Reason::GardenName)),
        row("by a name whose time is over", vlan(10, down_v4(FORGOTTEN_V4, from_port(443))), NOTHING),
        row("time that nobody asked for", vlan(10, down_v4(NTP_V4, udp(123, 123, 48))), Drop(Reason::DnsUnasked)),
        OutboundRow {
            asked: Some(vlan(10, packet_v4(NTP_V4, udp(123, 123, 48)))),
            ..row("the time that was asked for", vlan(10, down_v4(NTP_V4, udp(123, 123, 48))), Pass(Reason::Ntp))
        },
    ]
}

fn extended_down(protocol: u8) -> Frame {
    with_v6(down_v6(GATEWAY_V6, udp(53, 40_000, 64)), |p| {
        p.source = SITE_V6;
        p.extensions = vec![Extension { protocol, units: 0 }];
    })
}

const QUERY: Dns =
    Dns { source_port: 40_000, destination_port: 53, id: 0x1234, name: "www.Example.org", answer: false };
const ANSWER: Dns = Dns { source_port: 53, destination_port: 40_000, answer: true, ..QUERY };

fn dns_answers() -> Vec<OutboundRow> {
    use Outbound::{Drop, Hold, Pass};
    let asked_v4 = |dns| Some(packet_v4(RESOLVER_V4, Payload::Dns(dns)));
    let asked_v6 = |dns| Some(packet_v6(RESOLVER_V6, Payload::Dns(dns)));
    let unasked = Drop(Reason::DnsUnasked);
    let v4 = |sentence, dns, decision| OutboundRow {
        asked: asked_v4(QUERY),
        ..row(sentence, down_v4(RESOLVER_V4, Payload::Dns(dns)), decision)
    };
    let v6 = |sentence, dns, decision| OutboundRow {
        asked: asked_v6(QUERY),
        ..row(sentence, down_v6(RESOLVER_V6, Payload::Dns(dns)), decision)
    };
    let tagged = |mut row: OutboundRow| {
        row.frame = vlan(10, row.frame);
        row.asked = row.asked.map(|frame| vlan(10, frame));
        row
    };
    let other_case = Dns { name: "WWW.example.ORG", ..ANSWER };
    let tcp_53 = || Payload::Tcp(Tcp { source_port: 53, ..tcp(40_000, ACK) });
    vec![
        row("a DNS answer that nobody asked for", down_v4(RESOLVER_V4, Payload::Dns(Dns { id: 1, ..ANSWER })), unasked),
        row("the same over IPv6", down_v6(RESOLVER_V6, Payload::Dns(Dns { id: 1, ..ANSWER })), unasked),
        v4("a DNS answer to what was asked", ANSWER, Pass(Reason::Dns)),
        v6("the same over IPv6", ANSWER, Pass(Reason::Dns)),
        v4("the same once more, with letters of another case", other_case, Pass(Reason::Dns)),
        v4("with another id", Dns { id: 0x1235, ..ANSWER }, unasked),
        v6("with another id over IPv6", Dns { id: 0x1235, ..ANSWER }, unasked),
        v4("to another port", Dns { destination_port: 40_001, ..ANSWER }, unasked),
        v6("to another port over IPv6", Dns { destination_port: 40_001, ..ANSWER }, unasked),
        v4("for another name", Dns { name: "www.example.net", ..ANSWER }, unasked),
        v6("for another name over IPv6", Dns { name: "www.example.net", ..ANSWER }, unasked),
        v4("a question in place of an answer", Dns { answer: false, ..ANSWER }, unasked),
        OutboundRow {
            asked: asked_v4(QUERY),
            ..own("by another resolver", down_v4(GATEWAY_V4, Payload::Dns(ANSWER)), unasked)
        },
        OutboundRow {
            asked: asked_v6(QUERY),
            ..row("to another station", to(ELSEWHERE, down_v6(RESOLVER_V6, Payload::Dns(ANSWER))), unasked)
        },
        OutboundRow {
            asked: Some(packet_v6(GATEWAY_V6, Payload::Dns(QUERY))),
            ..row("forwarded, from the gateway", down_v6(GATEWAY_V6, Payload::Dns(ANSWER)), Drop(Reason::GatewayForged))
        },
        OutboundRow {
            asked: Some(packet_v6(GATEWAY_V6, Payload::Dns(QUERY))),
            ..own("the gateway's own", down_v6(GATEWAY_V6, Payload::Dns(ANSWER)), Pass(Reason::Dns))
        },
        row("from port 53 of who is no resolver", down_v4(SITE_V4, Payload::Dns(ANSWER)), Drop(Reason::ToStranger)),
        tagged(v4("asked for where the walled garden has names", ANSWER, Hold)),
        tagged(v6("the same over IPv6", ANSWER, Hold)),
        tagged(OutboundRow {
            relayed: true,
            ..own(
                "the same when the daemon has learned from it",
                down_v4(RESOLVER_V4, Payload::Dns(ANSWER)),
                Pass(Reason::Dns),
            )
        }),
        tagged(row("over TCP", down_v4(RESOLVER_V4, tcp_53()), Pass(Reason::DnsTcp))),
        tagged(row("over TCP and IPv6", down_v6(RESOLVER_V6, tcp_53()), Pass(Reason::DnsTcp))),
    ]
}

fn icmp_to_strangers() -> Vec<OutboundRow> {
    use Outbound::{Drop, Pass};
    let v4 = |kind, quoted: Frame| down_v4(SITE_V4, Payload::Error { kind, quoted: Box::new(quoted.network) });
    let v6 = |kind, quoted: Frame| down_v6(SITE_V6, Payload::Error { kind, quoted: Box::new(quoted.network) });
    let unrelated = Drop(Reason::IcmpUnrelated);
    let query = Dns { id: 0x4321, ..QUERY };
    let asked_v4 = || packet_v4(RESOLVER_V4, Payload::Dns(query));
    let asked_v6 = || packet_v6(RESOLVER_V6, Payload::Dns(query));
    let to_page = |flags| segment_to(8080, flags);
    vec![
        row("an error about what a stranger may not send", v4(3, packet_v4(SITE_V4, any_udp())), unrelated),
        row("the same over IPv6", v6(1, packet_v6(SITE_V6, any_udp())), unrelated),
        row(
            "an error about the walled garden",
            vlan(10, v4(3, packet_v4(GARDEN_V4, segment_to(8443, ACK)))),
            Pass(Reason::IcmpRelated),
        ),
        row(
            "packet too big, over IPv6",
            vlan(10, v6(2, packet_v6(GARDEN_V6, segment_to(8443, ACK)))),
            Pass(Reason::IcmpRelated),
        ),
        row("time exceeded", vlan(10, v4(11, packet_v4(GARDEN_V4, segment_to(8443, ACK)))), Pass(Reason::IcmpRelated)),
        row(
            "about what another has sent",
            vlan(10, v4(3, with_v4(packet_v4(GARDEN_V4, segment_to(8443, ACK)), |p| p.source = GUEST_V4))),
            unrelated,
        ),
        row(
            "about what another has sent over IPv6",
            vlan(10, v6(3, with_v6(packet_v6(GARDEN_V6, segment_to(8443, ACK)), |p| p.source = GUEST_V6))),
            unrelated,
        ),
        row(
            "about a fragment",
            vlan(10, v4(3, with_v4(packet_v4(GARDEN_V4, segment_to(8443, ACK)), |p| p.flags_and_offset = 9))),
            unrelated,
        ),
        row("about a question that nobody has asked", v4(3, asked_v4()), unrelated),
        row("the same over IPv6", v6(1, asked_v6()), unrelated),
        OutboundRow {
            asked: Some(asked_v4()),
            ..row("about one that was", v4(3, asked_v4()), Pass(Reason::IcmpRelated))
        },
        OutboundRow {
            asked: Some(asked_v6()),
            ..row("the same over IPv6", v6(1, asked_v6()), Pass(Reason::IcmpRelated))
        },
        own(
            "the gateway's own, about its page",
            with_v4(v4(3, packet_v4(GATEWAY_V4, to_page(ACK))), |p| p.source = GATEWAY_V4),
            Pass(Reason::IcmpRelated),
        ),
        own(
            "the same over IPv6",
            with_v6(v6(2, packet_v6(GATEWAY_V6, to_page(ACK))), |p| p.source = GATEWAY_V6),
            Pass(Reason::IcmpRelated),
        ),
        own("an echo reply of the gateway's", down_v4(GATEWAY_V4, Payload::Icmp(0)), Pass(Reason::GatewayEcho)),
        own(
            "an echo request of the gateway's, as of a DHCP server",
            down_v4(GATEWAY_V4, Payload::Icmp(8)),
            Pass(Reason::GatewayEcho),
        ),
        own("an echo reply over IPv6", down_v6(GATEWAY_V6, Payload::Icmpv6(129)), Pass(Reason::GatewayEcho)),
        own("an echo request over IPv6", down_v6(GATEWAY_V6, Payload::Icmpv6(128)), Pass(Reason::GatewayEcho)),
        row("an echo request from elsewhere", down_v4(SITE_V4, Payload::Icmp(8)), Drop(Reason::ToStranger)),
        row(
            "an echo request from elsewhere over IPv6",
            down_v6(SITE_V6, Payload::Icmpv6(128)),
            Drop(Reason::ToStranger),
        ),
        row(
            "one from the gateway's address, but forwarded",
            down_v6(GATEWAY_V6, Payload::Icmpv6(128)),
            Drop(Reason::GatewayForged),
        ),
    ]
}

fn to_groups() -> Vec<OutboundRow> {
    use Outbound::{Drop, Pass};
    const NOTHING: Outbound = Drop(Reason::ToGroup);
    const MDNS_V4: [u8; 4] = [224, 0, 0, 251];
    const STREAM_V4: [u8; 4] = [239, 1, 2, 3];
    const STREAM_V6: [u8; 16] = [0xff, 0x0e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3];
    let all = |frame| to(BROADCAST, frame);
    let group_v4 = |group, source, payload| all(with_v4(packet_v4(group, payload), |p| p.source = source));
    let group_v6 = |group, source, payload| all(with_v6(packet_v6(group, payload), |p| p.source = source));
    vec![
        row("to everybody, but for one address", all(guests_v4(OWNER, OWNED_V4)), NOTHING),
        row("the same over IPv6", all(guests_v6(OWNER, OWNED_V6)), NOTHING),
        row("a stream to a group", group_v4(STREAM_V4, SITE_V4, any_udp()), NOTHING),
        row("the same over IPv6", group_v6(STREAM_V6, SITE_V6, any_udp()), NOTHING),
        row("forwarded to a group within the link", group_v4(MDNS_V4, SITE_V4, udp(5353, 5353, 60)), NOTHING),
        row("the same over IPv6", group_v6(ALL_NODES_V6, SITE_V6, udp(5353, 5353, 60)), NOTHING),
        own("the gateway's multicast DNS", group_v4(MDNS_V4, GATEWAY_V4, udp(5353, 5353, 60)), Pass(Reason::LinkGroup)),
        own("the same over IPv6", group_v6(ALL_NODES_V6, LINK_LOCAL_V6, udp(5353, 5353, 60)), Pass(Reason::LinkGroup)),
        own("the gateway's UDP to everybody", group_v4([255; 4], GATEWAY_V4, any_udp()), NOTHING),
        own("ARP to everybody", all(arp(1, GATEWAY_V4)), Pass(Reason::Arp)),
        own("a router advertisement to everybody", all(discovery(134)), Pass(Reason::NeighborDiscovery)),
        own(
            "a DHCP server's message to everybody",
            group_v4([255; 4], GATEWAY_V4, udp(67, 68, 240)),
            Pass(Reason::Dhcp),
        ),
        row(
            "a listener query",
            with_v6(group_v6(ALL_NODES_V6, LINK_LOCAL_V6, Payload::RouterAlert(130)), |p| p.hop_limit = 1),
            Pass(Reason::MulticastListener),
        ),
        own(
            "spanning tree",
            all(frame(Network::Other { ether_type: 39, payload: vec![0; 46] })),
            Pass(Reason::LinkGroup),
        ),
        row("the same, but forwarded", all(frame(Network::Other { ether_type: 39, payload: vec![0; 46] })), NOTHING),
    ]
}

fn of_no_zone() -> Vec<OutboundRow> {
    use Outbound::Drop;
    vec![
        row("in a VLAN that is no zone", vlan(99, guests_v4(GUEST, GUEST_V4)), Drop(Reason::NoZone)),
        row("in a zone that nobody has configured", vlan(70, down_v4(SITE_V4, any_udp())), Drop(Reason::ConfigMissing)),
        row(
            "with three tags",
            Frame { tags: vec![(0x8100, 1), (0x8100, 2), (0x8100, 3)], ..down_v4(SITE_V4, any_udp()) },
            Drop(Reason::VlanTags),
        ),
        row(
            "cut off within IPv4's header",
            with_v4(down_v4(SITE_V4, any_udp()), |p| p.length_error = 100),
            Drop(Reason::Ipv4Malformed),
        ),
        row(
            "longer than it is over IPv6",
            with_v6(down_v6(SITE_V6, any_udp()), |p| p.length_error = 100),
            Drop(Reason::Ipv6Malformed),
        ),
    ]
}
