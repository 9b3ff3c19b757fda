//! What a stranger may do, rule by rule. Whatever no rule permits is dropped.

use super::{
    Action, Decision, Request, Tables, icmp,
    network::{Kind as Header, Network},
    tcp::{self, Segment, TcpAnswer},
};
use crate::{
    answer::{Answer, ICMPV4_ANSWER_LEN, ICMPV6_ANSWER_LEN, Kind},
    family::Family,
    flag,
    frame::Frame,
    protocol::{self as p, TcpFlags, icmpv6},
    reason::Reason,
    tables::{Address, GardenKey, GateConfig, Service, ServiceKey, Zone},
};

/// What the rules say, before the client's budget is asked.
#[inline(always)]
pub(super) fn decide<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    config: &GateConfig,
    zone: Zone,
    network: &Network,
) -> Decision {
    if let Some(fault) = network.fault {
        return Decision::drop(fault);
    }
    match network.kind {
        Header::V4 => ipv4(frame, tables, config, zone, network),
        Header::V6 => ipv6(frame, tables, config, zone, network),
        Header::Arp => Decision::pass(Reason::Arp),
        Header::Eapol => Decision::pass(Reason::Eapol),
        Header::Length => Decision::drop(Reason::LengthField),
        Header::Other => Decision::drop(Reason::EtherType),
    }
}

#[inline(always)]
fn ipv4<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    config: &GateConfig,
    zone: Zone,
    network: &Network,
) -> Decision {
    // A report to the routers of the link says so in an option, the only one that a stranger may send.
    let reports = network.protocol == p::IGMP && network.has_router_alert(frame);
    if network.header_len() != Family::V4.header_len() && !reports {
        return Decision::drop(options(frame, network));
    }
    if !network.checksum_is_right(frame) {
        return Decision::drop(Reason::Ipv4Malformed);
    }
    // More fragments follow, or this is not the first (RFC 791 section 3.1).
    if network.fragment & 0x3fff != 0 {
        return Decision::drop(Reason::Fragment);
    }
    match network.protocol {
        p::TCP => tcp(frame, tables, config, zone, network),
        p::UDP => udp(frame, tables, config, zone, network),
        p::ICMP => icmp::v4(frame, tables, config, zone, network),
        p::IGMP => icmp::igmp(frame, network),
        p::IPV4 | p::IPV6 | p::GRE | p::ESP | p::AUTHENTICATION | p::ETHERIP | p::L2TP => {
            Decision::drop(Reason::Tunnel)
        }
        _ => Decision::drop(Reason::Protocol),
    }
}

/// Options are refused in any case; a source route by its name.
#[inline(always)]
fn options<F: Frame + ?Sized>(frame: &F, network: &Network) -> Reason {
    const NO_OPERATION: u16 = 1;
    const LOOSE: u16 = 131;
    const STRICT: u16 = 137;
    // RFC 791 section 3.1: the first option, or the first behind so many no-operations.
    let mut at = network.at() + Family::V4.header_len();
    let end = network.at() + network.header_len();
    let mut i = 0;
    while i < 4 && at < end {
        let option = frame.byte(at);
        if option == LOOSE || option == STRICT {
            return Reason::SourceRoute;
        }
        if option != NO_OPERATION {
            break;
        }
        at += 1;
        i += 1;
    }
    Reason::Ipv4Options
}

#[inline(always)]
fn ipv6<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    config: &GateConfig,
    zone: Zone,
    network: &Network,
) -> Decision {
    match network.protocol {
        p::TCP => tcp(frame, tables, config, zone, network),
        p::UDP => udp(frame, tables, config, zone, network),
        p::ICMPV6 => icmpv6_message(frame, tables, config, zone, network),
        p::HOP_BY_HOP => hop_by_hop(frame, network),
        p::FRAGMENT => Decision::drop(Reason::Fragment),
        p::ROUTING | p::DESTINATION_OPTIONS | p::AUTHENTICATION | p::MOBILITY | p::HIP | p::SHIM6 => {
            Decision::drop(extension(frame, network))
        }
        p::IPV4 | p::IPV6 | p::GRE | p::ESP | p::ETHERIP | p::L2TP => Decision::drop(Reason::Tunnel),
        _ => Decision::drop(Reason::Protocol),
    }
}

/// RFC 4861 sections 6.1 and 7.1: a message that crossed a router has lost a hop, and is not from this link. Nor may one leave the link:
/// only a hop limit would stop it.
#[inline(always)]
fn icmpv6_message<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    config: &GateConfig,
    zone: Zone,
    network: &Network,
) -> Decision {
    const ON_LINK_HOP_LIMIT: u8 = 255;
    const SOLICITATION_LEN: usize = 8;
    const NEIGHBOR_LEN: usize = 24;
    let Some([kind, code]) = frame.read::<2>(network.payload_at()).filter(|_| network.payload_len() >= 2) else {
        return Decision::drop(Reason::Ipv6Malformed);
    };
    let least = match kind {
        icmpv6::ROUTER_SOLICITATION => SOLICITATION_LEN,
        icmpv6::NEIGHBOR_SOLICITATION | icmpv6::NEIGHBOR_ADVERTISEMENT => NEIGHBOR_LEN,
        _ => return icmp::v6(frame, tables, config, (zone, network), kind),
    };
    if network.hop_limit == ON_LINK_HOP_LIMIT
        && code == 0
        && network.payload_len() >= least
        && stays_on_link(tables, zone, network)
    {
        Decision::pass(Reason::NeighborDiscovery)
    } else {
        Decision::drop(Reason::Icmp)
    }
}

/// Whether nobody beyond the gateway can be reached so: link-local (RFC 4291 sections 2.5.6 and 2.7, RFC 919), or the gateway itself.
/// What passes on trust must not become a tunnel.
#[inline(always)]
fn stays_on_link<T: Tables>(tables: &T, zone: Zone, network: &Network) -> bool {
    let [high, low] = network.destination();
    let link_local = match network.family() {
        Family::V4 => low as u32 == u32::MAX,
        Family::V6 => high >> 48 == 0xff02 || high >> 54 == 0xfe80 >> 6,
    };
    link_local || is_to_gateway(tables, zone, network)
}

/// Whether it is for the gateway itself.
#[inline(always)]
pub(super) fn is_to_gateway<T: Tables>(tables: &T, zone: Zone, network: &Network) -> bool {
    tables.service(&ServiceKey::of_gateway(zone, Address::from_words(network.destination()))) == Some(Service::Gateway)
}

/// The one extension header that a stranger needs: the router alert in front of a multicast listener report (RFC 3810 section 5, RFC 2711).
#[inline(always)]
fn hop_by_hop<F: Frame + ?Sized>(frame: &F, network: &Network) -> Decision {
    const MIN_LEN: usize = 8;
    let Some([next, units, _, _, _, _, _, _, kind]) =
        frame.read::<{ MIN_LEN + 1 }>(network.payload_at()).filter(|_| network.payload_len() > MIN_LEN)
    else {
        return Decision::drop(Reason::Ipv6Malformed);
    };
    let to_group = network.destination()[0] >> 56 == 0xff;
    let is_report = matches!(kind, icmpv6::LISTENER_REPORT_V1 | icmpv6::LISTENER_DONE | icmpv6::LISTENER_REPORT_V2);
    // A whole message: RFC 2710 section 3 and RFC 3810 section 5.2. What is cut short is no report, but could carry something.
    let least = MIN_LEN + if kind == icmpv6::LISTENER_REPORT_V2 { 8 } else { 24 };
    let whole = network.payload_len() >= least;
    if next == p::ICMPV6 && units == 0 && is_report && whole && to_group && network.hop_limit == 1 {
        Decision::pass(Reason::MulticastListener)
    } else {
        Decision::drop(extension(frame, network))
    }
}

/// What a chain of extension headers leads to. All of it is dropped; the reason tells the operator which it was. A bounded walk (RFC 8504
/// section 5.3 lets a host bound it too): no client needs more, and each header costs a stranger's sender less than it costs the gate.
#[inline(always)]
fn extension<F: Frame + ?Sized>(frame: &F, network: &Network) -> Reason {
    const MOST: usize = 4;
    let end = network.at() + network.header_len() + network.payload_len();
    let mut at = network.payload_at();
    let mut next = network.protocol;
    let mut i = 0;
    while i < MOST {
        // RFC 8200 section 4 counts in 8 bytes, not counting the first; RFC 4302 section 2.2 in 4 bytes, not counting the first two.
        let unit = match next {
            p::ROUTING => return Reason::SourceRoute,
            p::FRAGMENT => return Reason::Fragment,
            p::IPV4 | p::IPV6 | p::GRE | p::ESP | p::ETHERIP | p::L2TP => return Reason::Tunnel,
            p::AUTHENTICATION => 4,
            p::HOP_BY_HOP | p::DESTINATION_OPTIONS | p::MOBILITY | p::HIP | p::SHIM6 => 8,
            _ => return Reason::Ipv6Extension,
        };
        let Some([following, units]) = frame.read::<2>(at) else {
            // Beyond what is read of a frame, or beyond the frame.
            return if at + 2 > end { Reason::Ipv6Malformed } else { Reason::ExtensionChain };
        };
        at += 8 + usize::from(units) * unit;
        if at > end {
            return Reason::Ipv6Malformed;
        }
        next = following;
        i += 1;
    }
    Reason::ExtensionChain
}

#[inline(always)]
fn udp<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    config: &GateConfig,
    zone: Zone,
    network: &Network,
) -> Decision {
    const LEN: usize = 8;
    let Some(h) = frame.read::<LEN>(network.payload_at()).filter(|_| network.payload_len() >= LEN) else {
        return Decision::drop(Reason::UdpMalformed);
    };
    let source_port = u16::from_be_bytes([h[0], h[1]]);
    let destination_port = u16::from_be_bytes([h[2], h[3]]);
    let udp_len = usize::from(u16::from_be_bytes([h[4], h[5]]));
    if udp_len < LEN || udp_len > network.payload_len() {
        return Decision::drop(Reason::UdpMalformed);
    }
    // DHCP comes before the addresses are judged: a client without an address sends from 0.0.0.0 to everybody.
    let (dhcp_client, dhcp_server) = match network.family() {
        Family::V4 => (p::PORT_DHCP_CLIENT, p::PORT_DHCP_SERVER),
        Family::V6 => (p::PORT_DHCPV6_CLIENT, p::PORT_DHCPV6_SERVER),
    };
    if source_port == dhcp_client && destination_port == dhcp_server && stays_on_link(tables, zone, network) {
        return Decision::pass(Reason::Dhcp);
    }
    if let Err(reason) = check_addresses(network) {
        return Decision::drop(reason);
    }
    if let Some(permitted) = permitted(tables, config, zone, network.destination(), p::UDP, destination_port) {
        return Decision::pass(permitted);
    }
    let refusal = if destination_port == p::PORT_HTTPS {
        (Reason::QuicRefused, Kind::PortUnreachable)
    } else {
        (Reason::UdpRefused, Kind::Prohibited)
    };
    refuse(frame, config, network, refusal)
}

/// Refuses a packet by an ICMP error of this kind, if it is for the gateway to answer and no smaller than the answer.
#[inline(always)]
pub(super) fn refuse<F: Frame + ?Sized>(
    frame: &F,
    config: &GateConfig,
    network: &Network,
    (reason, kind): (Reason, Kind),
) -> Decision {
    if !is_for(config, frame) {
        return Decision::drop(Reason::DestinationMac);
    }
    let answer_len = match network.family() {
        Family::V4 => ICMPV4_ANSWER_LEN,
        Family::V6 => ICMPV6_ANSWER_LEN,
    };
    if network.family().header_len() + network.payload_len() < answer_len {
        return Decision::drop(Reason::AnswerTooLarge);
    }
    answer(reason, network, (kind, 0, 0))
}

#[inline(always)]
fn tcp<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    config: &GateConfig,
    zone: Zone,
    network: &Network,
) -> Decision {
    const LEN: usize = 20;
    let Some(h) = frame.read::<LEN>(network.payload_at()).filter(|_| network.payload_len() >= LEN) else {
        return Decision::drop(Reason::TcpMalformed);
    };
    let header_len = usize::from(h[12] >> 4) * 4;
    let flags = TcpFlags(h[13]);
    // A SYN opens a connection and a FIN closes one: no segment does both.
    if header_len < LEN || header_len > network.payload_len() || (flags.has(flag::SYN) && flags.has(flag::FIN)) {
        return Decision::drop(Reason::TcpMalformed);
    }
    if let Err(reason) = check_addresses(network) {
        return Decision::drop(reason);
    }
    let segment = Segment {
        source_port: u16::from_be_bytes([h[0], h[1]]),
        destination_port: u16::from_be_bytes([h[2], h[3]]),
        seq: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
        ack: u32::from_be_bytes([h[8], h[9], h[10], h[11]]),
        flags,
        header_len,
        data_len: network.payload_len() - header_len,
    };
    if let Some(permitted) = permitted(tables, config, zone, network.destination(), p::TCP, segment.destination_port) {
        return Decision::pass(permitted);
    }
    if flags.has(flag::RST) {
        return Decision::drop(Reason::TcpReset);
    }
    if !is_for(config, frame) {
        return Decision::drop(Reason::DestinationMac);
    }
    tcp::refuse(tables, config, network, &segment)
}

/// Judged only where it matters: a flag that is carried along would double what the kernel has to verify.
#[inline(always)]
pub(super) fn check_addresses(network: &Network) -> Result<(), Reason> {
    let (source, destination) = (network.source(), network.destination());
    if !is_unicast(network.family(), source) || source == destination {
        Err(Reason::SourceAddress)
    } else if !is_unicast(network.family(), destination) {
        Err(Reason::DestinationAddress)
    } else {
        Ok(())
    }
}

#[inline(always)]
const fn is_unicast(family: Family, [high, low]: [u64; 2]) -> bool {
    match family {
        // Neither "this network", loopback, multicast, reserved nor broadcast (RFC 1122 section 3.2.1.3, RFC 1112).
        Family::V4 => {
            let first = (low >> 24) as u8;
            first != 0 && first != 127 && first < 224
        }
        // Neither multicast, nor ::/96, which holds the unspecified, loopback and IPv4-compatible addresses (RFC 4291 section 2.5.5.1),
        // nor mapped: on the wire that would meet the IPv4 entries of the tables.
        Family::V6 => high >> 56 != 0xff && !(high == 0 && (low >> 32 == 0 || low >> 32 == 0xffff)),
    }
}

/// Whether the frame is addressed to the gateway, so that the gate may answer it.
#[inline(always)]
fn is_for<F: Frame + ?Sized>(config: &GateConfig, frame: &F) -> bool {
    frame.read::<6>(0) == Some(config.gateway_mac())
}

/// Design lines 2 to 4: the resolvers, the portal's own services, time, the walled garden. What may be reached at an address may also answer from it.
#[inline(always)]
pub(super) fn permitted<T: Tables>(
    tables: &T,
    config: &GateConfig,
    zone: Zone,
    address: [u64; 2],
    protocol: u8,
    port: u16,
) -> Option<Reason> {
    let key = ServiceKey::new(zone, Address::from_words(address), protocol, port);
    let service = if config.may_serve(&key) { tables.service(&key) } else { None };
    match service {
        Some(Service::Resolver) if protocol == p::TCP => return Some(Reason::DnsTcp),
        Some(Service::Resolver) => return Some(Reason::Dns),
        Some(Service::Portal) => return Some(Reason::PortalService),
        Some(Service::Ntp) => return Some(Reason::Ntp),
        // Under its own key alone.
        Some(Service::Gateway) | None => {}
    }
    if !config.has_garden() {
        return None;
    }
    let learned = |key| tables.learned_until(key).is_some_and(|until| tables.now_ns() < until);
    if config.has_names()
        && (learned(&key) || learned(&ServiceKey::new(zone, Address::from_words(address), protocol, ANY_PORT)))
    {
        return Some(Reason::GardenName);
    }
    let in_garden = |port| tables.garden(&GardenKey::new(zone, protocol, port, Address::from_words(address)));
    (in_garden(port) || in_garden(ANY_PORT)).then_some(Reason::Garden)
}

/// Stands for every port in the garden's rows.
const ANY_PORT: u16 = 0;

#[inline(always)]
pub(super) const fn answer(reason: Reason, network: &Network, (kind, seq, ack): TcpAnswer) -> Decision {
    Decision {
        action: Action::Answer,
        reason,
        answer: Answer { kind, family: network.family(), network_at: network.at(), seq, ack },
        request: Request::NONE,
    }
}
