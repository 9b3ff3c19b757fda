//! What a frame says of who its sender is, against the Ethernet source.

use super::*;
use crate::reason::Reason;

const ALL_NODES: Address = Address::v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
const ALL_SERVERS: Address = Address::v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2]);
const LINK_LOCAL: Address = Address::v6([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
const BROADCAST: Address = Address::v4([255; 4]);
const NOBODY: Address = Address::v4([0; 4]);
const NOTHING: [u8; 0] = [];

/// The link-layer address option of this type.
fn link_layer(kind: u8, mac: [u8; 6]) -> Vec<u8> {
    [&[kind, 1][..], &mac].concat()
}

/// Neighbour discovery of this type with these options, from this station.
fn discovery(kind: u8, options: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    if (135..=136).contains(&kind) {
        message.extend(LINK_LOCAL.0);
    }
    if kind == 137 {
        message.extend([LINK_LOCAL.0, LINK_LOCAL.0].concat());
    }
    message.extend(options);
    message
}

fn icmpv6(by: [u8; 6], message: &[u8]) -> Vec<u8> {
    let mut frame = packet([GATEWAY_MAC, by].concat(), [LINK_LOCAL, ALL_NODES], p::ICMPV6, message);
    frame[21] = 255;
    frame
}

/// The message behind these extension headers: each its number, its length field, and its first two bytes of content.
fn extended(by: [u8; 6], headers: &[(u8, u8, [u8; 2])], protocol: u8, message: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (i, (kind, units, content)) in headers.iter().enumerate() {
        let next = headers.get(i + 1).map_or(protocol, |(next, ..)| *next);
        let unit = if *kind == p::AUTHENTICATION { 4 } else { 8 };
        let len = if *kind == p::FRAGMENT { 8 } else { 8 + usize::from(*units) * unit };
        let mut header = vec![next, *units, content[0], content[1]];
        header.resize(len, 0);
        payload.extend(header);
    }
    payload.extend(message);
    let mut frame = packet([GATEWAY_MAC, by].concat(), [LINK_LOCAL, ALL_NODES], headers[0].0, &payload);
    frame[21] = 255;
    frame
}

fn arp(by: [u8; 6], operation: u8, hardware: [u8; 6], sender: Address) -> Vec<u8> {
    let frame = ethernet([0xff; 6], by, &[], p::ETHER_ARP);
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    [&frame, &head[..], &hardware, &sender.0[12..], &[0; 6], &[192, 0, 2, 1]].concat()
}

/// A DHCP message from this station with this hardware address and these options.
fn dhcp(by: [u8; 6], chaddr: [u8; 6], change: impl FnOnce(&mut Vec<u8>), options: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..3].copy_from_slice(&[1, 1, 6]);
    message[28..34].copy_from_slice(&chaddr);
    message[236..240].copy_from_slice(&[99, 130, 83, 99]);
    change(&mut message);
    message.extend(options);
    dhcp_ports(by, [68, 67], &message)
}

fn dhcp_ports(by: [u8; 6], [from, to]: [u16; 2], message: &[u8]) -> Vec<u8> {
    let mut payload = [from.to_be_bytes(), to.to_be_bytes(), (8 + message.len() as u16).to_be_bytes()].concat();
    payload.extend([0; 2]);
    payload.extend(message);
    packet([[0xff; 6], by].concat(), [NOBODY, BROADCAST], p::UDP, &payload)
}

/// A DHCPv6 message of this type from this station.
fn dhcpv6(by: [u8; 6], [from, to]: [u16; 2], kind: u8, options: &[u8]) -> Vec<u8> {
    let message = [&[kind, 1, 2, 3], options].concat();
    packet([[0x33; 6], by].concat(), [LINK_LOCAL, ALL_SERVERS], p::UDP, &udp_of([from, to], &message))
}

fn udp_of([from, to]: [u16; 2], message: &[u8]) -> Vec<u8> {
    let head = [from.to_be_bytes(), to.to_be_bytes(), (8 + message.len() as u16).to_be_bytes(), [0; 2]].concat();
    [&head, message].concat()
}

/// A client identifier of DHCPv6 that holds a MAC address, by the DUID's type.
fn duid(kind: u8, mac: [u8; 6]) -> Vec<u8> {
    let time: &[u8] = if kind == 1 { &[9; 4] } else { &NOTHING };
    let body = [&[0, kind, 0, 1], time, &mac].concat();
    [&[0, 1, 0, body.len() as u8][..], &body].concat()
}

/// The frame as an IPv4 fragment with these flags and offset.
fn fragmented(mut frame: Vec<u8>, flags_and_offset: u16) -> Vec<u8> {
    frame[20..22].copy_from_slice(&flags_and_offset.to_be_bytes());
    frame[24..26].fill(0);
    let checksum = Sum::new().bytes(&frame[14..34]).checksum();
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// What becomes of a frame: what it contradicts, or that it contradicts nothing.
type Row = (&'static str, fn([u8; 6]) -> Vec<u8>, Option<Reason>);

const FRAGMENT_FIRST: [u8; 2] = [0, 1];
const FRAGMENT_LATER: [u8; 2] = [1, 1];

fn rows() -> Vec<Row> {
    use Reason::{ArpIdentity as Arp, NeighborIdentity as Nd, RouterAdvertisement as Ra};
    vec![
        ("an ARP request of its own", |me| arp(me, 1, me, host(30)), None),
        ("an ARP probe of its own", |me| arp(me, 1, me, NOBODY), None),
        ("an ARP request with another's hardware address", |me| arp(me, 1, OTHER, host(30)), Some(Arp)),
        ("an ARP reply with another's", |me| arp(me, 2, OTHER, host(30)), Some(Arp)),
        ("an ARP probe with another's", |me| arp(me, 1, OTHER, NOBODY), Some(Arp)),
        (
            "an ARP reply with one that differs in its last byte",
            |me| {
                let mut other = me;
                other[5] ^= 1;
                arp(me, 2, other, host(30))
            },
            Some(Arp),
        ),
        ("a router solicitation", |me| icmpv6(me, &discovery(133, &link_layer(1, me))), None),
        (
            "a router solicitation with another's address",
            |me| icmpv6(me, &discovery(133, &link_layer(1, OTHER))),
            Some(Nd),
        ),
        ("a neighbour solicitation without option", |me| icmpv6(me, &discovery(135, &NOTHING)), None),
        ("a neighbour solicitation with a nonce", |me| icmpv6(me, &discovery(135, &[14, 1, 1, 2, 3, 4, 5, 6])), None),
        (
            "a neighbour solicitation with another's address",
            |me| icmpv6(me, &discovery(135, &link_layer(1, OTHER))),
            Some(Nd),
        ),
        (
            "a neighbour solicitation with another's address as the target's",
            |me| icmpv6(me, &discovery(135, &link_layer(2, OTHER))),
            Some(Nd),
        ),
        ("a neighbour advertisement", |me| icmpv6(me, &discovery(136, &link_layer(2, me))), None),
        (
            "a neighbour advertisement with another's address",
            |me| icmpv6(me, &discovery(136, &link_layer(2, OTHER))),
            Some(Nd),
        ),
        (
            "with its own address first, and another's behind it",
            |me| icmpv6(me, &discovery(136, &[link_layer(2, me), link_layer(2, OTHER)].concat())),
            Some(Nd),
        ),
        (
            "with another's behind four unknown options",
            |me| icmpv6(me, &discovery(136, &[[200, 1, 0, 0, 0, 0, 0, 0].repeat(4), link_layer(2, OTHER)].concat())),
            Some(Nd),
        ),
        (
            "with more options than are read",
            |me| icmpv6(me, &discovery(136, &[200, 1, 0, 0, 0, 0, 0, 0].repeat(9))),
            Some(Nd),
        ),
        ("with an option of no length", |me| icmpv6(me, &discovery(136, &[200, 0, 0, 0, 0, 0, 0, 0])), Some(Nd)),
        (
            "with an address option of two units",
            |me| icmpv6(me, &discovery(136, &[&[2, 2][..], &me, &[0; 8]].concat())),
            Some(Nd),
        ),
        ("with an option that is cut short", |me| icmpv6(me, &discovery(136, &[2, 1, 0])), Some(Nd)),
        ("a router advertisement", |me| icmpv6(me, &discovery(134, &[0; 8])), Some(Ra)),
        ("a redirect", |me| icmpv6(me, &discovery(137, &NOTHING)), Some(Ra)),
        (
            "an ICMP redirect",
            |me| packet([GATEWAY_MAC, me].concat(), [host(30), GATEWAY], p::ICMP, &[5, 1, 0, 0, 0, 0, 0, 0]),
            Some(Ra),
        ),
        (
            "an ICMP router advertisement",
            |me| packet([GATEWAY_MAC, me].concat(), [host(30), GATEWAY], p::ICMP, &[9, 0, 0, 0, 0, 0, 0, 0]),
            Some(Ra),
        ),
    ]
}

/// As [`rows`], of DHCP.
fn dhcp_rows() -> Vec<Row> {
    use Reason::{DhcpIdentity as Dhcp, DhcpServer as Server};
    vec![
        ("a DHCP message of its own", |me| dhcp(me, me, |_| (), &[53, 1, 1, 255]), None),
        (
            "with its own identifier",
            |me| dhcp(me, me, |_| (), &[&[53, 1, 1, 61, 7, 1][..], &me, &[255]].concat()),
            None,
        ),
        ("with an identifier that is no MAC address", |me| dhcp(me, me, |_| (), &[61, 4, 0, 1, 2, 3, 255]), None),
        ("a BOOTP request of its own", |me| dhcp(me, me, |message| message.truncate(236), &NOTHING), None),
        ("a DHCP message with another's hardware address", |me| dhcp(me, OTHER, |_| (), &[53, 1, 1, 255]), Some(Dhcp)),
        (
            "with another's identifier",
            |me| dhcp(me, me, |_| (), &[&[53, 1, 1, 61, 7, 1][..], &OTHER, &[255]].concat()),
            Some(Dhcp),
        ),
        (
            "with another's identifier behind padding",
            |me| dhcp(me, me, |_| (), &[&[0; 10][..], &[61, 7, 1], &OTHER, &[255]].concat()),
            Some(Dhcp),
        ),
        ("with more options than are read", |me| dhcp(me, me, |_| (), &[&[0; 60][..], &[255]].concat()), Some(Dhcp)),
        ("with options in the fields of names", |me| dhcp(me, me, |_| (), &[52, 1, 3, 255]), Some(Dhcp)),
        ("from a relay", |me| dhcp(me, me, |message| message[24] = 10, &[255]), Some(Dhcp)),
        ("of another kind of network", |me| dhcp(me, me, |message| message[1] = 6, &[255]), Some(Dhcp)),
        ("a DHCP message in fragments", |me| fragmented(dhcp(me, me, |_| (), &[255]), 0x2000), Some(Dhcp)),
        ("from a DHCP server's port", |me| dhcp_ports(me, [67, 68], &[2, 1, 6]), Some(Server)),
        ("to a DHCP client's port, from any", |me| dhcp_ports(me, [9, 68], &[2, 1, 6]), Some(Server)),
        ("a DHCPv6 message with its own identifier", |me| dhcpv6(me, [546, 547], 1, &duid(3, me)), None),
        (
            "with one of an interface that nobody has",
            |me| dhcpv6(me, [546, 547], 1, &duid(1, [2, 9, 9, 9, 9, 9])),
            None,
        ),
        ("with one of a number", |me| dhcpv6(me, [546, 547], 1, &[0, 1, 0, 6, 0, 2, 0, 0, 1, 1]), None),
        ("with another guest's", |me| dhcpv6(me, [546, 547], 8, &duid(3, OTHER)), Some(Dhcp)),
        ("with another guest's and a time", |me| dhcpv6(me, [546, 547], 8, &duid(1, OTHER)), Some(Dhcp)),
        (
            "with another guest's behind other options",
            |me| dhcpv6(me, [546, 547], 8, &[[0, 8, 0, 2, 0, 0].repeat(5), duid(1, OTHER)].concat()),
            Some(Dhcp),
        ),
        ("with more options than are read", |me| dhcpv6(me, [546, 547], 8, &[0, 8, 0, 0].repeat(30)), Some(Dhcp)),
        ("from a DHCPv6 relay", |me| dhcpv6(me, [547, 547], 12, &NOTHING), Some(Server)),
        ("from a DHCPv6 relay at another port", |me| dhcpv6(me, [9, 547], 12, &NOTHING), Some(Dhcp)),
        ("from a DHCPv6 server's port", |me| dhcpv6(me, [547, 546], 7, &NOTHING), Some(Server)),
        ("to a DHCPv6 client's port, from any", |me| dhcpv6(me, [9, 546], 7, &NOTHING), Some(Server)),
    ]
}

/// What only a member can send beside: a stranger is given nothing that extension headers lead to.
fn extended_rows() -> Vec<Row> {
    use Reason::{ExtensionChain as Chain, HiddenDiscovery as Hidden};
    const HOPS: (u8, u8, [u8; 2]) = (p::HOP_BY_HOP, 0, [1, 4]);
    const OPTIONS: (u8, u8, [u8; 2]) = (p::DESTINATION_OPTIONS, 0, [1, 4]);
    vec![
        ("an echo request behind options", |me| extended(me, &[OPTIONS], p::ICMPV6, &[128, 0, 0, 0, 0, 0, 0, 0]), None),
        ("UDP behind options", |me| extended(me, &[HOPS, OPTIONS], p::UDP, &udp_of([9, 9], &[0; 8])), None),
        ("nothing behind options", |me| extended(me, &[OPTIONS], 59, &NOTHING), None),
        (
            "a neighbour advertisement behind options",
            |me| extended(me, &[OPTIONS], p::ICMPV6, &discovery(136, &link_layer(2, me))),
            Some(Hidden),
        ),
        (
            "a router advertisement behind two headers",
            |me| extended(me, &[HOPS, OPTIONS], p::ICMPV6, &discovery(134, &[0; 8])),
            Some(Hidden),
        ),
        (
            "a solicitation behind an authentication header",
            |me| extended(me, &[(p::AUTHENTICATION, 4, [0; 2])], p::ICMPV6, &discovery(135, &NOTHING)),
            Some(Hidden),
        ),
        (
            "a redirect behind a routing header",
            |me| extended(me, &[(p::ROUTING, 0, [0; 2])], p::ICMPV6, &discovery(137, &NOTHING)),
            Some(Hidden),
        ),
        (
            "an advertisement in the first of several fragments",
            |me| extended(me, &[(p::FRAGMENT, 0, FRAGMENT_FIRST)], p::ICMPV6, &discovery(136, &link_layer(2, me))),
            Some(Hidden),
        ),
        (
            "an advertisement in a fragment that is the whole",
            |me| extended(me, &[(p::FRAGMENT, 0, [0, 0])], p::ICMPV6, &discovery(136, &link_layer(2, me))),
            Some(Hidden),
        ),
        (
            "a first fragment that ends within its headers",
            |me| extended(me, &[(p::FRAGMENT, 0, FRAGMENT_FIRST), OPTIONS], p::ICMPV6, &NOTHING),
            Some(Hidden),
        ),
        (
            "a first fragment whose header is cut",
            |me| {
                let frame = extended(
                    me,
                    &[(p::FRAGMENT, 0, FRAGMENT_FIRST), (p::DESTINATION_OPTIONS, 9, [1, 4])],
                    p::ICMPV6,
                    &NOTHING,
                );
                let mut cut = frame[..14 + 40 + 8 + 8].to_vec();
                cut[18..20].copy_from_slice(&16u16.to_be_bytes());
                cut
            },
            Some(Hidden),
        ),
        (
            "an echo request in the first of several fragments",
            |me| extended(me, &[(p::FRAGMENT, 0, FRAGMENT_FIRST)], p::ICMPV6, &[128, 0, 0, 0, 0, 0, 0, 0]),
            None,
        ),
        (
            "a later fragment",
            |me| extended(me, &[(p::FRAGMENT, 0, FRAGMENT_LATER)], p::ICMPV6, &discovery(136, &NOTHING)),
            None,
        ),
        (
            "DHCPv6 behind options",
            |me| extended(me, &[OPTIONS], p::UDP, &udp_of([546, 547], &[1, 0, 0, 0])),
            Some(Hidden),
        ),
        (
            "a DHCPv6 server's behind options",
            |me| extended(me, &[OPTIONS], p::UDP, &udp_of([547, 546], &[7, 0, 0, 0])),
            Some(Hidden),
        ),
        (
            "to a DHCPv6 client's port behind options",
            |me| extended(me, &[OPTIONS], p::UDP, &udp_of([9, 546], &[7, 0, 0, 0])),
            Some(Hidden),
        ),
        ("more headers than are read", |me| extended(me, &[OPTIONS; 7], p::UDP, &udp_of([9, 9], &[0; 8])), Some(Chain)),
        (
            "a header that reaches beyond what is read",
            |me| extended(me, &[(p::DESTINATION_OPTIONS, 200, [1, 4])], p::ICMPV6, &discovery(136, &NOTHING)),
            Some(Chain),
        ),
    ]
}

#[test]
fn what_a_frame_says_of_its_sender_is_what_its_source_says() {
    let mut rows: Vec<_> = rows().into_iter().chain(dhcp_rows()).map(|row| (row, true)).collect();
    rows.extend(extended_rows().into_iter().chain(dhcp_rows()).map(|row| (row, false)));
    for strictness in [Strictness::Off, Strictness::Learn, Strictness::Strict] {
        for tags in [&[][..], &[5], &[5, 6]] {
            for ((sentence, frame, expected), for_strangers) in &rows {
                let world = || {
                    let mut world = World::new(strictness);
                    world.0.zones.insert(Attachment::new(0, 5, 0), ZONE);
                    world.0.zones.insert(Attachment::new(0, 5, 6), ZONE);
                    world.log_in(ONE, 0, |session| session);
                    world.log_in(OTHER, 1, |session| session);
                    world
                };
                let (mut world, mut strangers_world) = (world(), world());
                let by_member = world.send(&tagged(&frame(ONE), tags));
                let expected_of_member = expected.unwrap_or(Reason::Authorized);
                assert_eq!(by_member, expected_of_member, "a member, {tags:?}, {strictness:?}: {sentence}");
                if let Familiar::Decided { reason, .. } = familiar(&tagged(&frame(ONE), tags)[..], &world.0) {
                    assert_eq!(reason, by_member, "the short way, {tags:?}, {strictness:?}: {sentence}");
                }
                if *for_strangers {
                    let by_stranger = strangers_world.send(&tagged(&frame(STRANGER), tags));
                    match expected {
                        Some(reason) => assert_eq!(by_stranger, *reason, "a stranger, {tags:?}: {sentence}"),
                        None => {
                            assert!(by_stranger.class().is_some(), "a stranger, {tags:?}: {sentence}: {by_stranger:?}");
                        }
                    }
                }
            }
        }
    }
}
