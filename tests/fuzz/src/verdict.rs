//! Target: a frame, and what the tables hold, to the gate's verdict.
//!
//! - A stranger's frame passes only for a reason of the design's lines 1 to 4, and only if another reading of the frame agrees.
//! - A logged-in client's frame is dropped only because it is malformed, or contradicts its source, or for the client's rate, quota or addresses.
//! - No ARP passes in which the sender is another station than the frame's source.
//! - An answer goes back the way its cause came, has correct checksums and is no larger; there is none to a group, a reset, or an ICMP
//!   error.
//! - The same frame in the same world has the same verdict; once more in that world, the same, or a limit is spent.

use std::net::IpAddr;

use portal_common::{
    Reason,
    answer::Answer,
    cookie,
    decide::{Action, Case, Decision, decide, locate},
    flag,
    reason::Outcome,
    tables::{HttpsPolicy, Strictness},
};
use portal_userspace::responder::segment::Segment;

use crate::{
    client::{START_NS, keys},
    facts::{Facts, Packet, Transport},
    input::Input,
    reply::{self, Message},
    world::{CLIENT_MAC, GATEWAY_MAC, World},
};

/// Which parts of the frame are put right before it is sent, so that a mutation does not always stop at them.
mod fix {
    /// It is to the gateway.
    pub(super) const TO: u8 = 1;
    /// It is from the client.
    pub(super) const FROM: u8 = 2;
    /// IP's length and checksum.
    pub(super) const LENGTH: u8 = 4;
    /// TCP's acknowledgement number is a cookie.
    pub(super) const COOKIE: u8 = 8;
}

/// Runs one input.
///
/// # Panics
/// If something is wrong with the decision.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let choices = input.take(World::BYTES);
    let (fixes, received) = (input.byte(), input.word());
    let mut frame = input.0.to_vec();
    put_right(&mut frame, fixes, received);
    let (mut world, mut again) = (World::new(choices), World::new(choices));
    let decision = decided(&mut world, &frame);
    assert_eq!(decision, decided(&mut again, &frame), "the same in the same world");
    judge(&frame, &again, decision);
    let repeated = decided(&mut world, &frame);
    assert!(repeated == decision || is_limit(repeated.reason), "{decision:?}, then {repeated:?}");
}

fn decided(world: &mut World, frame: &[u8]) -> Decision {
    let mut case = Case::EMPTY;
    match locate(frame, &world.tables) {
        Ok(place) => decide(frame, &world.tables, &place, &mut case),
        // An empty case is a drop.
        Err((_, reason)) => case.decision.reason = reason,
    }
    world.tables.settle();
    case.decision
}

fn is_limit(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::RateUp
            | Reason::QuotaSpent
            | Reason::BudgetRequests
            | Reason::BudgetDnsQueries
            | Reason::BudgetDnsBytes
            | Reason::BudgetLink
            | Reason::BudgetReplies
            | Reason::BudgetServices
            | Reason::BudgetConnections
    )
}

fn put_right(frame: &mut [u8], fixes: u8, received: u16) {
    if let Some(to) = frame.first_chunk_mut().filter(|_| fixes & fix::TO != 0) {
        *to = GATEWAY_MAC;
    }
    if let Some(from) = frame.get_mut(6..12).filter(|_| fixes & fix::FROM != 0) {
        from.copy_from_slice(&CLIENT_MAC);
    }
    let Some(facts) = Facts::of(frame) else { return };
    let at = 14 + 4 * facts.vlans.len();
    if fixes & fix::LENGTH != 0 {
        let packet = &mut frame[at..];
        let length = packet.len();
        match facts.ether_type {
            0x0800 if length >= 20 => {
                let header = usize::from(packet[0] & 0xf) * 4;
                packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
                packet[10..12].fill(0);
                let words = packet[..header.clamp(20, length)].chunks(2);
                let sum: u32 = words.map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0))).sum();
                let sum = (sum & 0xffff) + (sum >> 16);
                let sum = (sum & 0xffff) + (sum >> 16);
                packet[10..12].copy_from_slice(&(!sum as u16).to_be_bytes());
            }
            0x86dd if length >= 40 => packet[4..6].copy_from_slice(&((length - 40) as u16).to_be_bytes()),
            _ => {}
        }
    }
    if fixes & fix::COOKIE != 0
        && let Some(segment) = Segment::read(frame)
    {
        let isn = cookie::isn(&keys(), &segment.path.tuple(), segment.seq.wrapping_sub(1), START_NS);
        let ack = isn.wrapping_add(1 + u32::from(received));
        let ip = if facts.ether_type == 0x0800 { 20 } else { 40 };
        frame[at + ip + 8..at + ip + 12].copy_from_slice(&ack.to_be_bytes());
    }
}

fn judge(frame: &[u8], world: &World, decision: Decision) {
    let Decision { action, reason, answer, request } = decision;
    let outcome = match action {
        Action::Pass => Outcome::Passed,
        Action::Drop => Outcome::Dropped,
        Action::Answer => Outcome::Answered,
        Action::Redirect => Outcome::Redirected,
    };
    assert_eq!(reason.outcome(), outcome, "{reason:?}");
    let Some(facts) = Facts::of(frame) else {
        assert_eq!(outcome, Outcome::Dropped, "no frame: {reason:?}");
        return;
    };
    if let Some(Packet { source, destination, transport: Some(Transport::Tcp { from, port: 80, .. }), .. }) = facts.packet
        && World::is_gateway(destination)
        // What the kernel would not take for TCP: it has no security associations, and knows no such headers behind IPv4.
        && (source.is_ipv6() || frame.get(14 + 4 * facts.vlans.len() + 9) == Some(&6))
        && facts.zone_vlans() == (0, 0)
        && world.is_anothers_connection(facts.from, source, from)
    {
        assert_ne!(action, Action::Pass, "in another's connection to the portal, {reason:?}: {facts:?}");
    }
    if facts.ether_type == 0x0806 && action == Action::Pass {
        let at = 14 + 4 * facts.vlans.len() + 8;
        assert_eq!(frame.get(at..at + 6), Some(&facts.from[..]), "ARP for another station: {facts:?}");
    }
    let claimed = facts.claimed(frame);
    let is_member = world.is_member(facts.from, facts.zone_vlans());
    if is_member && !world.may_estrange(facts.from, claimed) {
        assert!(
            reason == Reason::Authorized
                || action == Action::Drop && (may_drop_member(reason) || may_contradict(reason, &facts)),
            "of a client that is logged in: {reason:?} {facts:?}"
        );
        return;
    }
    if is_member && reason == Reason::Authorized {
        // Strict, and every place is taken: but the address may be one of those.
        assert!(
            claimed.is_none_or(|address| !world.is_anothers(facts.from, address.into())),
            "with another's address: {facts:?}"
        );
        return;
    }
    match action {
        Action::Pass => passes(world, &facts, reason, claimed),
        Action::Drop => {}
        Action::Answer => answered(frame, &facts, &answer),
        Action::Redirect => redirected(frame, world, &facts),
    }
    if request.len > 0 {
        assert_eq!((action, reason), (Action::Redirect, Reason::HttpRequest));
        may_be_known(frame, &answer, usize::from(request.at), usize::from(request.len));
    }
}

/// What the gate may answer by itself is what the responder reads, whole, and with its numbers.
fn may_be_known(frame: &[u8], answer: &Answer, at: usize, len: usize) {
    let segment = Segment::read(frame).expect("it is a segment");
    assert_eq!(segment.data, &frame[at..at + len]);
    assert_eq!((segment.length as usize, segment.flags), (len, flag::PSH | flag::ACK));
    assert_eq!((answer.seq, answer.ack), (segment.ack, segment.seq.wrapping_add(len as u32)));
    assert_eq!(answer.family, segment.path.family());
}

/// Malformation up to the network header, what only the gateway may send, and the client's own limits.
fn may_drop_member(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::FrameTruncated
            | Reason::SourceMac
            | Reason::VlanTags
            | Reason::ConfigMissing
            | Reason::Ipv4Malformed
            | Reason::Ipv6Malformed
            | Reason::ArpMalformed
            | Reason::RouterAdvertisement
            | Reason::DhcpServer
            | Reason::RateUp
            | Reason::QuotaSpent
            | Reason::ConnectionOfAnother
            | Reason::ConnectionHidden
    )
}

/// Whether a frame may say something of its link-layer identity that is not so, or hide it, as this reason says.
fn may_contradict(reason: Reason, facts: &Facts) -> bool {
    let is_v6 = || facts.packet.as_ref().is_some_and(|packet| packet.source.is_ipv6());
    let transport = || facts.packet.as_ref().and_then(|packet| packet.transport);
    match reason {
        Reason::ArpIdentity => facts.ether_type == 0x0806,
        Reason::NeighborIdentity => is_v6() && matches!(transport(), None | Some(Transport::Icmp(133..=137))),
        Reason::DhcpIdentity => matches!(transport(), None | Some(Transport::Udp(_, 67 | 547))),
        Reason::HiddenDiscovery | Reason::ExtensionChain => is_v6(),
        _ => false,
    }
}

/// What a stranger may send, in the order of the design.
fn passes(world: &World, facts: &Facts, reason: Reason, claimed: Option<IpAddr>) {
    let packet = || facts.packet.as_ref().unwrap_or_else(|| panic!("{reason:?} is for whole packets: {facts:?}"));
    let transport = || packet().transport.unwrap_or_else(|| panic!("{reason:?} is for whole packets: {facts:?}"));
    match reason {
        Reason::Arp => assert_eq!(facts.ether_type, 0x0806),
        Reason::Eapol => assert_eq!(facts.ether_type, 0x888e),
        Reason::NeighborDiscovery => {
            assert!(matches!(transport(), Transport::Icmp(133 | 135 | 136)), "{facts:?}");
            assert!(packet().hop_limit == 255 && stays_on_link(packet()), "{facts:?}");
        }
        Reason::MulticastListener => {
            assert!(packet().hop_limit == 1 && packet().destination.is_multicast(), "{facts:?}");
            assert_eq!(facts.ether_type, 0x86dd);
        }
        Reason::Echo => {
            assert!(matches!(transport(), Transport::Icmp(0 | 8 | 128 | 129)), "{facts:?}");
            assert!(World::is_gateway(packet().destination), "{facts:?}");
        }
        Reason::IcmpError => {
            let errors: &[u8] = if packet().destination.is_ipv4() { &[3, 11, 12] } else { &[1, 2, 3, 4] };
            assert!(matches!(transport(), Transport::Icmp(kind) if errors.contains(&kind)), "{facts:?}");
        }
        Reason::Igmp => assert!(packet().hop_limit == 1 && packet().destination.is_multicast(), "{facts:?}"),
        Reason::Dhcp => {
            let ports = if packet().destination.is_ipv4() { (68, 67) } else { (546, 547) };
            assert_eq!(transport(), Transport::Udp(ports.0, ports.1));
            assert!(stays_on_link(packet()), "{facts:?}");
        }
        Reason::Dns => {
            assert!(
                matches!(transport(), Transport::Udp(_, 53)) && World::is_resolver(packet().destination),
                "{facts:?}"
            );
        }
        Reason::DnsTcp => {
            let dns = matches!(transport(), Transport::Tcp { port: 53, .. });
            assert!(dns && World::is_resolver(packet().destination), "{facts:?}");
        }
        Reason::PortalService => {
            let web = matches!(transport(), Transport::Tcp { port: 80, .. });
            assert!(web && World::is_gateway(packet().destination), "{facts:?}");
        }
        Reason::Ntp => {
            assert!(matches!(transport(), Transport::Udp(_, 123)) && World::is_ntp(packet().destination), "{facts:?}");
        }
        Reason::Garden | Reason::GardenName => {
            let (protocol, port) = match transport() {
                Transport::Tcp { port, .. } => (6, port),
                Transport::Udp(_, port) => (17, port),
                Transport::Icmp(_) => panic!("{facts:?}"),
            };
            let to = packet().destination;
            let by_prefix = reason == Reason::Garden && world.in_garden(to, protocol, port);
            assert!(by_prefix || reason == Reason::GardenName && world.is_learned(to, protocol, port), "{facts:?}");
        }
        other => panic!("a stranger's frame passes as {other:?}: {facts:?}"),
    }
    if let Some(packet) = &facts.packet {
        assert!(!packet.is_fragment, "{facts:?}");
    }
    let home = facts.zone_vlans() == (0, 0) && world.strictness != Strictness::Off;
    assert!(
        !home || claimed.is_none_or(|address| !world.is_anothers(facts.from, address.into())),
        "with another's address: {facts:?}"
    );
}

fn stays_on_link(packet: &Packet) -> bool {
    let on_link = match packet.destination {
        IpAddr::V4(address) => address.is_broadcast(),
        // Multicast of link-local scope (RFC 4291 section 2.7).
        IpAddr::V6(address) => address.is_unicast_link_local() || address.octets()[..2] == [0xff, 0x02],
    };
    on_link || World::is_gateway(packet.destination)
}

fn answered(frame: &[u8], facts: &Facts, answer: &Answer) {
    let packet = facts.packet.as_ref().unwrap_or_else(|| panic!("only whole packets are answered: {facts:?}"));
    assert_eq!(facts.to, GATEWAY_MAC, "only the gateway answers");
    assert_eq!(facts.from[0] & 1, 0);
    assert!(!packet.is_fragment, "{facts:?}");
    assert!(is_host(packet.source) && is_host(packet.destination), "{facts:?}");
    let mut sent = frame.to_vec();
    let length = answer.write(&mut sent[..]).expect("what was read can be written").get();
    assert!(length <= frame.len());
    sent.truncate(length);
    let reply::Parsed { message, unpadded } = reply::read(frame, &sent);
    let cause = 14 + 4 * facts.vlans.len() + packet.length;
    assert!(unpadded <= cause, "{unpadded} bytes answer {cause}");
    assert!(length == unpadded || length <= 60, "{length} bytes, {unpadded} without padding");
    match (message, packet.transport.expect("only known transports are answered")) {
        (Message::Tcp(header, payload), Transport::Tcp { port, rst, .. }) => {
            assert!(!rst && payload.is_empty());
            assert_eq!(header.source_port, port);
        }
        (Message::Icmp(kind, code, quoted), Transport::Udp(_, port)) => {
            let v4 = packet.source.is_ipv4();
            let refused = if v4 { (3, 13) } else { (1, 1) };
            let unreachable = if v4 { (3, 3) } else { (1, 4) };
            assert_eq!((kind, code), if port == 443 { unreachable } else { refused });
            let at = 14 + 4 * facts.vlans.len();
            assert_eq!(quoted, frame[at..at + quoted.len()], "it quotes its cause");
            assert!(quoted.len() >= if v4 { 28 } else { 48 }, "enough of it for the ports");
        }
        (Message::Icmp(kind, code, quoted), Transport::Icmp(8 | 128)) => {
            assert_eq!((kind, code), if packet.source.is_ipv4() { (3, 13) } else { (1, 1) });
            let at = 14 + 4 * facts.vlans.len();
            assert_eq!(quoted, frame[at..at + quoted.len()], "it quotes its cause");
        }
        (message, transport) => panic!("{message:?} answers {transport:?}"),
    }
}

fn redirected(frame: &[u8], world: &World, facts: &Facts) {
    let port = match facts.packet.as_ref().and_then(|packet| packet.transport) {
        Some(Transport::Tcp { port, rst: false, .. }) => port,
        other => panic!("{other:?} goes to the responder"),
    };
    assert!(port == 80 || port == 443 && world.https == HttpsPolicy::Alert);
    assert_eq!(facts.to, GATEWAY_MAC);
    let segment = Segment::read(frame).expect("the responder can read what the gate redirects");
    let phase = cookie::phase(&keys(), &segment.path.tuple(), segment.seq, segment.ack, START_NS);
    assert!(matches!(phase, Some(cookie::Phase::Request { .. })), "the client has proved the handshake: {phase:?}");
}

/// Whether a host can have this address (RFC 1122 section 3.2.1.3, RFC 4291).
fn is_host(address: IpAddr) -> bool {
    !(address.is_multicast() || address.is_loopback() || address.is_unspecified())
        && match address {
            IpAddr::V4(address) => !address.is_broadcast() && address.octets()[0] != 0,
            IpAddr::V6(address) => address.to_ipv4_mapped().is_none(),
        }
}
