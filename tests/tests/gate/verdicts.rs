//! The verdict table: what the gate does with which frame, in the kernel and on the host.

use etherparse::{NetHeaders, PacketHeaders, TransportHeader};
use portal_common::Reason;

use crate::{
    bench::{Action, Bench, Outcome},
    frames::{
        ALL_NODES_V6, Ack, CLIENT_V4, CLIENT_V6, EXPIRED, Frame, GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, GUEST, Ipv4,
        Ipv6, LINK_LOCAL_V6, Network, Payload, SITE_V4, SITE_V6, STRANGER, Tcp,
    },
};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const CLIENT_ISN: u32 = 0xffff_fff0;

struct Row {
    sentence: &'static str,
    frame: Frame,
    action: Action,
    reason: Reason,
    reply: Reply,
}

/// What is demanded of the answer, beside correct checksums and swapped addresses.
#[derive(Clone, Copy)]
enum Reply {
    None,
    /// Flags, data offset in words, and what is acknowledged relative to the client's sequence number.
    Tcp {
        flags: u8,
        words: u8,
        acknowledges: Option<u32>,
    },
    /// Type and code.
    Icmp(u8, u8),
}

fn v4(payload: Payload) -> Frame {
    packet_v4(SITE_V4, payload)
}

fn packet_v4(destination: [u8; 4], payload: Payload) -> Frame {
    frame(Network::V4(Ipv4 {
        source: CLIENT_V4,
        destination,
        options: 0,
        flags_and_offset: 0x4000,
        length_error: 0,
        bad_checksum: false,
        version_and_ihl: None,
        payload,
    }))
}

fn v6(payload: Payload) -> Frame {
    packet_v6(SITE_V6, payload)
}

fn packet_v6(destination: [u8; 16], payload: Payload) -> Frame {
    frame(Network::V6(Ipv6 { source: CLIENT_V6, destination, hop_limit: 64, length_error: 0, version: 6, payload }))
}

fn frame(network: Network) -> Frame {
    Frame { destination: GATEWAY_MAC, source: STRANGER, tags: Vec::new(), network, padding: 0 }
}

fn other(ether_type: u16) -> Frame {
    frame(Network::Other { ether_type, payload: vec![0; 46] })
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

/// A segment of an intercepted connection, after the client received so many bytes of the response.
fn intercepted(flags: u8, data: usize, received: u32) -> Payload {
    Payload::Tcp(Tcp {
        seq: CLIENT_ISN.wrapping_add(1),
        ack: Ack::Cookie { client_isn: CLIENT_ISN, received },
        data,
        options: 3,
        ..tcp(80, flags)
    })
}

fn udp(source_port: u16, destination_port: u16, data: usize) -> Payload {
    Payload::Udp { source_port, destination_port, data, length_error: 0 }
}

fn with(mut frame: Frame, change: impl FnOnce(&mut Frame)) -> Frame {
    change(&mut frame);
    frame
}

fn with_v4(frame: Frame, change: impl FnOnce(&mut Ipv4)) -> Frame {
    with(frame, |frame| match &mut frame.network {
        Network::V4(packet) => change(packet),
        Network::V6(_) | Network::Other { .. } => unreachable!("only IPv4 frames are changed so"),
    })
}

fn with_v6(frame: Frame, change: impl FnOnce(&mut Ipv6)) -> Frame {
    with(frame, |frame| match &mut frame.network {
        Network::V6(packet) => change(packet),
        Network::V4(_) | Network::Other { .. } => unreachable!("only IPv6 frames are changed so"),
    })
}

fn pass(sentence: &'static str, frame: Frame, reason: Reason) -> Row {
    Row { sentence, frame, action: Action::Pass, reason, reply: Reply::None }
}

fn drop(sentence: &'static str, frame: Frame, reason: Reason) -> Row {
    Row { sentence, frame, action: Action::Drop, reason, reply: Reply::None }
}

fn redirect(sentence: &'static str, frame: Frame) -> Row {
    Row { sentence, frame, action: Action::Redirect, reason: Reason::HttpRequest, reply: Reply::None }
}

/// The same segment so many bytes later in the client's stream.
fn behind(payload: Payload, bytes: u32) -> Payload {
    match payload {
        Payload::Tcp(tcp) => Payload::Tcp(Tcp { seq: tcp.seq.wrapping_add(bytes), ..tcp }),
        _ => unreachable!("only TCP has a stream"),
    }
}

fn answer(sentence: &'static str, frame: Frame, reason: Reason, reply: Reply) -> Row {
    Row { sentence, frame, action: Action::Tx, reason, reply }
}

fn segment(flags: u8, acknowledges: Option<u32>) -> Reply {
    Reply::Tcp { flags, words: 5, acknowledges }
}

#[expect(clippy::too_many_lines, reason = "a table has a line for each row")]
fn rows() -> Vec<Row> {
    use Reason as R;
    let any_udp = || udp(5353, 9999, 64);
    vec![
        pass("anything from a client with a session", with(v4(any_udp()), |f| f.source = GUEST), R::Authorized),
        pass("anything from it over IPv6", with(v6(any_udp()), |f| f.source = GUEST), R::Authorized),
        pass(
            "a fragment from it",
            with_v4(with(v4(any_udp()), |f| f.source = GUEST), |p| p.flags_and_offset = 0x2000),
            R::Authorized,
        ),
        pass("an unknown EtherType from it", with(other(0x1234), |f| f.source = GUEST), R::Authorized),
        answer(
            "a client whose session expired is a stranger",
            with(v4(any_udp()), |f| f.source = EXPIRED),
            R::UdpRefused,
            Reply::Icmp(3, 13),
        ),
        pass("ARP", with(other(0x0806), |f| f.destination = [0xff; 6]), R::Arp),
        pass("EAPOL", other(0x888e), R::Eapol),
        drop("an unknown EtherType", other(0x1234), R::EtherType),
        drop("an 802.3 length instead of an EtherType", other(46), R::EtherType),
        drop("a group address as the source MAC", with(v4(any_udp()), |f| f.source = [3, 0, 0, 0, 0, 1]), R::SourceMac),
        drop("a zero source MAC", with(v4(any_udp()), |f| f.source = [0; 6]), R::SourceMac),
        drop(
            "an Ethernet header with nothing behind it",
            frame(Network::Other { ether_type: 0x0800, payload: Vec::new() }),
            R::FrameTruncated,
        ),
        drop("the same for IPv6", frame(Network::Other { ether_type: 0x86dd, payload: Vec::new() }), R::FrameTruncated),
        drop(
            "a frame that ends in its VLAN tag",
            frame(Network::Other { ether_type: 0x8100, payload: vec![0, 1] }),
            R::FrameTruncated,
        ),
        answer(
            "one VLAN tag is looked through, and kept in the answer",
            with(v4(any_udp()), |f| f.tags = vec![(0x8100, 10)]),
            R::UdpRefused,
            Reply::Icmp(3, 13),
        ),
        answer(
            "two VLAN tags as well",
            with(v6(any_udp()), |f| f.tags = vec![(0x88a8, 10), (0x8100, 20)]),
            R::UdpRefused,
            Reply::Icmp(1, 1),
        ),
        drop("three are too many", with(v4(any_udp()), |f| f.tags = vec![(0x8100, 1); 3]), R::VlanTags),
        // DHCP
        pass(
            "a DHCP client without an address",
            with_v4(with(packet_v4([255; 4], udp(68, 67, 240)), |f| f.destination = [0xff; 6]), |p| p.source = [0; 4]),
            R::Dhcp,
        ),
        pass(
            "a DHCPv6 client",
            with_v6(packet_v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2], udp(546, 547, 60)), |p| {
                p.source = LINK_LOCAL_V6;
            }),
            R::Dhcp,
        ),
        pass("a DHCP client that renews at the gateway", packet_v4(GATEWAY_V4, udp(68, 67, 240)), R::Dhcp),
        pass("a DHCPv6 client that asks the gateway", packet_v6(GATEWAY_V6, udp(546, 547, 60)), R::Dhcp),
        answer("DHCP to the internet, as a tunnel would send", v4(udp(68, 67, 240)), R::UdpRefused, Reply::Icmp(3, 13)),
        answer("DHCPv6 to the internet", v6(udp(546, 547, 60)), R::UdpRefused, Reply::Icmp(1, 1)),
        drop(
            "DHCPv6 to a group beyond the link",
            packet_v6([0xff, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 3], udp(546, 547, 60)),
            R::DestinationAddress,
        ),
        drop("a DHCP server among the guests", v4(udp(67, 68, 240)), R::DhcpServer),
        drop("a DHCPv6 server among the guests", v6(udp(547, 546, 60)), R::DhcpServer),
        // ICMP
        pass(
            "a neighbour solicitation",
            with_v6(packet_v6(ALL_NODES_V6, Payload::Icmpv6(135)), |p| p.hop_limit = 255),
            R::NeighborDiscovery,
        ),
        pass(
            "one for duplicate address detection, from no address",
            with_v6(packet_v6(ALL_NODES_V6, Payload::Icmpv6(135)), |p| (p.source, p.hop_limit) = ([0; 16], 255)),
            R::NeighborDiscovery,
        ),
        pass(
            "a neighbour advertisement to the gateway",
            with_v6(packet_v6(GATEWAY_V6, Payload::Icmpv6(136)), |p| p.hop_limit = 255),
            R::NeighborDiscovery,
        ),
        pass(
            "one to a link-local address",
            with_v6(packet_v6(LINK_LOCAL_V6, Payload::Icmpv6(136)), |p| (p.source, p.hop_limit) = (CLIENT_V6, 255)),
            R::NeighborDiscovery,
        ),
        drop(
            "a neighbour solicitation to the internet, as a tunnel would send",
            with_v6(v6(Payload::Icmpv6(135)), |p| p.hop_limit = 255),
            R::Icmp,
        ),
        drop(
            "one to a multicast group beyond the link",
            with_v6(packet_v6([0xff, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], Payload::Icmpv6(135)), |p| {
                p.hop_limit = 255;
            }),
            R::Icmp,
        ),
        drop(
            "a neighbour solicitation that is too short",
            with_v6(packet_v6(ALL_NODES_V6, Payload::ShortIcmpv6 { kind: 135, code: 0, len: 23 }), |p| {
                p.hop_limit = 255;
            }),
            R::Icmp,
        ),
        drop(
            "one with a code",
            with_v6(packet_v6(ALL_NODES_V6, Payload::ShortIcmpv6 { kind: 135, code: 1, len: 24 }), |p| {
                p.hop_limit = 255;
            }),
            R::Icmp,
        ),
        pass(
            "a router solicitation of eight bytes",
            with_v6(packet_v6(ALL_NODES_V6, Payload::ShortIcmpv6 { kind: 133, code: 0, len: 8 }), |p| {
                p.hop_limit = 255;
            }),
            R::NeighborDiscovery,
        ),
        drop(
            "a listener report to one station",
            with_v6(v6(Payload::RouterAlert(143)), |p| p.hop_limit = 1),
            R::Ipv6Extension,
        ),
        pass(
            "a router solicitation",
            with_v6(packet_v6(ALL_NODES_V6, Payload::Icmpv6(133)), |p| p.hop_limit = 255),
            R::NeighborDiscovery,
        ),
        drop(
            "neighbour discovery that crossed a router",
            with_v6(v6(Payload::Icmpv6(135)), |p| p.hop_limit = 254),
            R::Icmp,
        ),
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
            "a router alert before anything else",
            with_v6(packet_v6(ALL_NODES_V6, Payload::RouterAlert(128)), |p| p.hop_limit = 1),
            R::Ipv6Extension,
        ),
        drop("a ping", v4(Payload::Icmp(8)), R::Icmp),
        drop("a ping over IPv6", v6(Payload::Icmpv6(128)), R::Icmp),
        // What the network header says
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
        drop("IPv4 options", with_v4(v4(any_udp()), |p| p.options = 2), R::Ipv4Options),
        drop("the first of IPv4 fragments", with_v4(v4(any_udp()), |p| p.flags_and_offset = 0x2000), R::Fragment),
        drop("a later IPv4 fragment", with_v4(v4(any_udp()), |p| p.flags_and_offset = 0x0001), R::Fragment),
        drop("IPv6 with version 7", with_v6(v6(any_udp()), |p| p.version = 7), R::Ipv6Malformed),
        drop("an IPv6 packet longer than its frame", with_v6(v6(any_udp()), |p| p.length_error = 1), R::Ipv6Malformed),
        drop("an IPv6 fragment", v6(Payload::Other(44)), R::Fragment),
        drop("an IPv6 routing header", v6(Payload::Other(43)), R::Ipv6Extension),
        drop("IPv6 destination options", v6(Payload::Other(60)), R::Ipv6Extension),
        drop("SCTP", v4(Payload::Other(132)), R::Protocol),
        drop("GRE over IPv6", v6(Payload::Other(47)), R::Protocol),
        drop("from a loopback address", with_v4(v4(any_udp()), |p| p.source = [127, 0, 0, 1]), R::SourceAddress),
        drop("from a multicast address", with_v6(v6(any_udp()), |p| p.source = ALL_NODES_V6), R::SourceAddress),
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
        drop(
            "a SYN to the IPv4-mapped address of the portal",
            packet_v6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 1], Payload::Tcp(tcp(8080, SYN))),
            R::DestinationAddress,
        ),
        // Services
        pass("DNS to a permitted resolver", packet_v4(GATEWAY_V4, udp(40_000, 53, 30)), R::Dns),
        pass("DNS to it over IPv6", packet_v6(GATEWAY_V6, udp(40_000, 53, 30)), R::Dns),
        pass("DNS over TCP to it", packet_v4(GATEWAY_V4, Payload::Tcp(tcp(53, SYN))), R::Dns),
        pass("the login page", packet_v4(GATEWAY_V4, Payload::Tcp(tcp(8080, SYN))), R::PortalService),
        pass("the login page over IPv6", packet_v6(GATEWAY_V6, Payload::Tcp(tcp(8080, SYN))), R::PortalService),
        pass("a reset to the login page", packet_v6(GATEWAY_V6, Payload::Tcp(tcp(8080, RST))), R::PortalService),
        answer("DNS to any other resolver", v4(udp(40_000, 53, 30)), R::UdpRefused, Reply::Icmp(3, 13)),
        // UDP
        answer("QUIC", v4(udp(40_000, 443, 1200)), R::QuicRefused, Reply::Icmp(3, 3)),
        answer("QUIC over IPv6", v6(udp(40_000, 443, 1200)), R::QuicRefused, Reply::Icmp(1, 4)),
        answer("UDP over IPv6", v6(udp(40_000, 123, 48)), R::UdpRefused, Reply::Icmp(1, 1)),
        drop("UDP smaller than the answer would be", v4(udp(40_000, 9, 27)), R::AnswerTooLarge),
        answer("UDP just as large", v4(udp(40_000, 9, 28)), R::UdpRefused, Reply::Icmp(3, 13)),
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
        drop(
            "to another station's MAC",
            with(v4(any_udp()), |f| f.destination = [2, 0, 0, 0, 9, 9]),
            R::DestinationMac,
        ),
        drop(
            "a SYN to the broadcast MAC",
            with(v4(Payload::Tcp(tcp(80, SYN))), |f| f.destination = [0xff; 6]),
            R::DestinationMac,
        ),
        // TCP
        answer(
            "a SYN to TCP/443 is reset",
            v4(Payload::Tcp(tcp(443, SYN))),
            R::TcpRefused,
            segment(RST | ACK, Some(1)),
        ),
        answer(
            "a SYN to TCP/22 over IPv6 is reset",
            v6(Payload::Tcp(tcp(22, SYN))),
            R::TcpRefused,
            segment(RST | ACK, Some(1)),
        ),
        answer(
            "data of an old connection is reset",
            v4(Payload::Tcp(Tcp { data: 9, ..tcp(443, ACK) })),
            R::TcpRefused,
            segment(RST, None),
        ),
        answer(
            "a segment without ACK is reset with what it took",
            v6(Payload::Tcp(Tcp { data: 9, ..tcp(443, FIN) })),
            R::TcpRefused,
            segment(RST | ACK, Some(10)),
        ),
        drop("a reset is never answered", v4(Payload::Tcp(tcp(443, RST | ACK))), R::TcpReset),
        drop("a reset on TCP/80 neither", v6(Payload::Tcp(tcp(80, RST))), R::TcpReset),
        drop("SYN and FIN at once", v4(Payload::Tcp(tcp(80, SYN | FIN))), R::TcpMalformed),
        drop(
            "a TCP header of 16 bytes",
            v4(Payload::Tcp(Tcp { data_offset: Some(0x40), ..tcp(80, SYN) })),
            R::TcpMalformed,
        ),
        drop(
            "a TCP header longer than its packet",
            v6(Payload::Tcp(Tcp { data_offset: Some(0xf0), ..tcp(80, SYN) })),
            R::TcpMalformed,
        ),
        // The intercepted exchange
        answer(
            "a SYN to TCP/80",
            v4(Payload::Tcp(tcp(80, SYN))),
            R::HttpHandshake,
            Reply::Tcp { flags: SYN | ACK, words: 6, acknowledges: Some(1) },
        ),
        answer(
            "a SYN to TCP/80 over IPv6",
            v6(Payload::Tcp(tcp(80, SYN))),
            R::HttpHandshake,
            Reply::Tcp { flags: SYN | ACK, words: 6, acknowledges: Some(1) },
        ),
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
            Reply::Tcp { flags: SYN | ACK, words: 6, acknowledges: Some(1) },
        ),
        drop("the ACK of our handshake", v4(intercepted(ACK, 0, 0)), R::HttpAckOnly),
        redirect("a request", v4(intercepted(ACK | PSH, 70, 0))),
        redirect("a request over IPv6", v6(intercepted(ACK | PSH, 70, 0))),
        redirect("a request in a jumbo frame, cut to what the responder takes", v6(intercepted(ACK | PSH, 3000, 0))),
        redirect("the bare FIN behind a request", v4(behind(intercepted(ACK | FIN, 0, 0), 70))),
        redirect("the same over IPv6", v6(behind(intercepted(ACK | FIN, 0, 0), 70))),
        redirect("a client that closes without a request", v4(intercepted(ACK | FIN, 0, 0))),
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
        answer(
            "a SYN-ACK that nobody asked for",
            v6(Payload::Tcp(tcp(80, SYN | ACK))),
            R::HttpForeign,
            segment(RST, None),
        ),
        answer("a FIN scan of TCP/80", v4(Payload::Tcp(tcp(80, FIN))), R::HttpForeign, segment(RST | ACK, Some(1))),
    ]
}

#[test]
fn the_verdict_table_holds_in_the_kernel_and_on_the_host() {
    let mut bench = Bench::new();
    let mut wrong = Vec::new();
    for row in rows() {
        let cause = row.frame.to_bytes(&bench.cookies());
        let (kernel, host) = bench.run(|cookies| row.frame.to_bytes(cookies));
        let sentence = row.sentence;
        if (kernel.action, kernel.reason) != (row.action, row.reason) {
            wrong.push(format!(
                "{sentence}: expected {:?} {:?}, the kernel says {:?} {:?}",
                row.action, row.reason, kernel.action, kernel.reason
            ));
        }
        if kernel != host {
            wrong.push(format!("{sentence}: the host says {host:?}, the kernel {kernel:?}"));
        }
        if let Err(complaint) = check_reply(row.reply, &cause, &kernel) {
            wrong.push(format!("{sentence}: {complaint}; {:02x?}", kernel.frame));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_reason_has_a_row() {
    // The first two have tests of their own; the third is the kernel's refusal, which nothing here can bring about.
    let elsewhere = [Reason::ConfigMissing, Reason::ResponderAbsent, Reason::AnswerFailed];
    let rows = rows();
    for reason in Reason::ALL.iter().filter(|reason| !elsewhere.contains(reason)) {
        assert!(rows.iter().any(|row| row.reason == *reason), "{reason:?} has no row");
    }
}

#[test]
fn without_a_responder_a_request_is_dropped_and_counted() {
    let mut bench = Bench::without_responder();
    for frame in [v4(intercepted(ACK | PSH, 70, 0)), v6(intercepted(ACK | PSH, 70, 0))] {
        let (kernel, host) = bench.run(|cookies| frame.to_bytes(cookies));
        assert_eq!((kernel.action, kernel.reason), (Action::Drop, Reason::ResponderAbsent));
        assert_eq!(kernel, host);
    }
}

/// Judges an answer with a parser and checksums that are not ours.
fn check_reply(expected: Reply, cause: &[u8], outcome: &Outcome) -> Result<(), String> {
    if outcome.action != Action::Tx {
        return if matches!(expected, Reply::None) { Ok(()) } else { Err("no answer".into()) };
    }
    let answer = &outcome.frame;
    let demand = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
    demand(answer.len() <= cause.len(), "the answer is larger than its cause")?;
    let asked = PacketHeaders::from_ethernet_slice(cause).map_err(|e| e.to_string())?;
    let parsed = PacketHeaders::from_ethernet_slice(answer).map_err(|e| e.to_string())?;
    let (asked_link, link) = (asked.link.ok_or("no link")?, parsed.link.ok_or("no link")?);
    let (asked_link, link) = (asked_link.ethernet2().ok_or("no Ethernet")?, link.ethernet2().ok_or("no Ethernet")?);
    demand(
        (link.source, link.destination) == (asked_link.destination, asked_link.source),
        "the MAC addresses are not swapped",
    )?;
    demand(parsed.link_exts == asked.link_exts, "the VLAN tags differ")?;
    let payload = parsed.payload.slice();
    let transport = parsed.transport.as_ref().ok_or("no transport header")?;
    match (asked.net.as_ref().ok_or("no network")?, parsed.net.as_ref().ok_or("no network")?) {
        (NetHeaders::Ipv4(asked, _), NetHeaders::Ipv4(ip, _)) => {
            demand((ip.source, ip.destination) == (asked.destination, asked.source), "the addresses are not swapped")?;
            demand(ip.header_checksum == ip.calc_header_checksum(), "wrong IPv4 checksum")?;
            match transport {
                TransportHeader::Tcp(tcp) => {
                    demand(Ok(tcp.checksum) == tcp.calc_checksum_ipv4(ip, payload), "wrong TCP checksum")?;
                }
                TransportHeader::Icmpv4(icmp) => {
                    demand(icmp.checksum == icmp.icmp_type.calc_checksum(payload), "wrong ICMP checksum")?;
                }
                _ => return Err("neither TCP nor ICMP".into()),
            }
        }
        (NetHeaders::Ipv6(asked, _), NetHeaders::Ipv6(ip, _)) => {
            demand((ip.source, ip.destination) == (asked.destination, asked.source), "the addresses are not swapped")?;
            match transport {
                TransportHeader::Tcp(tcp) => {
                    demand(Ok(tcp.checksum) == tcp.calc_checksum_ipv6(ip, payload), "wrong TCP checksum")?;
                }
                TransportHeader::Icmpv6(icmp) => demand(
                    Ok(icmp.checksum) == icmp.icmp_type.calc_checksum(ip.source, ip.destination, payload),
                    "wrong ICMPv6 checksum",
                )?,
                _ => return Err("neither TCP nor ICMPv6".into()),
            }
        }
        _ => return Err("the family changed".into()),
    }
    match (expected, transport) {
        (Reply::Tcp { flags, words, acknowledges }, TransportHeader::Tcp(tcp)) => {
            let Some(TransportHeader::Tcp(asked)) = asked.transport else { return Err("the cause is not TCP".into()) };
            let bytes = tcp.to_bytes();
            demand(bytes[13] == flags, &format!("flags {:#04x}", bytes[13]))?;
            demand(tcp.data_offset() == words, "wrong header length")?;
            demand(
                (tcp.source_port, tcp.destination_port) == (asked.destination_port, asked.source_port),
                "the ports are not swapped",
            )?;
            match acknowledges {
                Some(bytes) => demand(
                    tcp.acknowledgment_number == asked.sequence_number.wrapping_add(bytes),
                    "wrong acknowledgement number",
                )?,
                None => demand(tcp.acknowledgment_number == 0, "an acknowledgement number without ACK")?,
            }
            if asked.ack {
                demand(tcp.sequence_number == asked.acknowledgment_number, "wrong sequence number")?;
            }
            if words == 6 {
                demand(tcp.options.as_slice() == [2, 4, 0x04, 0xc4], "not the one option, an MSS of 1220")?;
            }
            demand(payload.is_empty(), "data in an answer")
        }
        (Reply::Icmp(kind, code), TransportHeader::Icmpv4(_) | TransportHeader::Icmpv6(_)) => {
            let icmp = match transport {
                TransportHeader::Icmpv4(icmp) => icmp.to_bytes().to_vec(),
                TransportHeader::Icmpv6(icmp) => icmp.to_bytes().to_vec(),
                _ => unreachable!("matched above"),
            };
            demand((icmp[0], icmp[1]) == (kind, code), &format!("type {} code {}", icmp[0], icmp[1]))?;
            let network_at = 14 + 4 * usize::from(!asked.link_exts.is_empty()) * asked.link_exts.len();
            demand(cause[network_at..].starts_with(payload), "the quote is not the start of the packet")?;
            let header = if matches!(transport, TransportHeader::Icmpv4(_)) { 20 } else { 40 };
            demand(payload.len() == header + 8, "the quote is not the header and eight bytes")
        }
        _ => Err("another kind of answer".into()),
    }
}
