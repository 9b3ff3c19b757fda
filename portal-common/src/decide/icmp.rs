//! ICMP of a stranger: errors about what it may be sent, and echoes. Whoever may use a service must be able to report on it: where "fragmentation needed"
//! does not arrive, the login page never loads behind a smaller MTU (RFC 1191 section 3, RFC 8201 section 4, RFC 4890 section 4.3.1).

use super::{
    Decision, Tables,
    network::Network,
    quoted::{self, Quoted},
    stranger::{check_addresses, is_to_gateway, permitted, refuse},
};
use crate::{
    answer::Kind,
    family::Family,
    frame::Frame,
    protocol::{self as p, icmp, icmpv6},
    reason::Reason,
    tables::{GateConfig, Zone},
};

const HEADER_LEN: usize = 8;

/// What the rules say of an ICMP message over IPv4.
#[inline(always)]
pub(super) fn v4<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    config: &GateConfig,
    zone: Zone,
    network: &Network,
) -> Decision {
    let at = network.payload_at();
    let Some([kind, code]) = frame.read::<2>(at).filter(|_| network.payload_len() >= HEADER_LEN) else {
        return Decision::drop(Reason::Icmp);
    };
    match kind {
        icmp::ECHO_REQUEST if code == 0 => echo_request(frame, tables, config, zone, network),
        icmp::ECHO_REPLY if code == 0 => echo_reply(tables, zone, network),
        icmp::DESTINATION_UNREACHABLE | icmp::TIME_EXCEEDED | icmp::PARAMETER_PROBLEM => {
            // What it quotes is looked at apart, by `is_related`: the BPF stack has no room for it here.
            Decision::pass(Reason::IcmpError)
        }
        _ => Decision::drop(Reason::Icmp),
    }
}

/// What the rules say of an ICMPv6 message that is none of neighbour discovery.
#[inline(always)]
pub(super) fn v6<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    config: &GateConfig,
    (zone, network): (Zone, &Network),
    kind: u8,
) -> Decision {
    if network.payload_len() < HEADER_LEN {
        return Decision::drop(Reason::Icmp);
    }
    match kind {
        icmpv6::ECHO_REQUEST => echo_request(frame, tables, config, zone, network),
        icmpv6::ECHO_REPLY => echo_reply(tables, zone, network),
        icmpv6::DESTINATION_UNREACHABLE
        | icmpv6::PACKET_TOO_BIG
        | icmpv6::TIME_EXCEEDED
        | icmpv6::PARAMETER_PROBLEM => Decision::pass(Reason::IcmpError),
        _ => Decision::drop(Reason::Icmp),
    }
}

/// Whether an error may pass: if what it quotes came from a permitted service to this very station, and if it goes to that service.
#[inline(always)]
pub(super) fn is_related<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    config: &GateConfig,
    zone: Zone,
    network: &Network,
) -> bool {
    let at = network.payload_at() + HEADER_LEN;
    let quoted = match network.family() {
        Family::V4 => quoted::v4(frame, at),
        Family::V6 => quoted::v6(frame, at),
    };
    let Some(Quoted { source, destination, protocol, at }) = quoted else { return false };
    if source != network.destination() || destination != network.source() || !matches!(protocol, p::TCP | p::UDP) {
        return false;
    }
    frame
        .read::<2>(at)
        .is_some_and(|port| permitted(tables, config, zone, source, protocol, u16::from_be_bytes(port)).is_some())
}

/// The gateway answers by itself: guests and their devices look so whether it is there. Elsewhere a ping is refused, sooner than it would time out.
#[inline(always)]
fn echo_request<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    config: &GateConfig,
    zone: Zone,
    network: &Network,
) -> Decision {
    if let Err(reason) = check_addresses(network) {
        return Decision::drop(reason);
    }
    if is_to_gateway(tables, zone, network) {
        return Decision::pass(Reason::Echo);
    }
    refuse(frame, config, network, (Reason::EchoRefused, Kind::Prohibited))
}

/// A reply to the gateway: DHCP servers ask so whether an address is in use (RFC 2131 section 2.2).
#[inline(always)]
fn echo_reply<T: Tables>(tables: &T, zone: Zone, network: &Network) -> Decision {
    if let Err(reason) = check_addresses(network) {
        return Decision::drop(reason);
    }
    if is_to_gateway(tables, zone, network) { Decision::pass(Reason::Echo) } else { Decision::drop(Reason::Icmp) }
}

/// A membership report (RFC 2236 section 2, RFC 3376 section 4.2): with a router alert or without, to a group, and it does not leave the link.
#[inline(always)]
pub(super) fn igmp<F: Frame + ?Sized>(frame: &F, network: &Network) -> Decision {
    const REPORTS: [u16; 4] = [0x12, 0x16, 0x17, 0x22];
    const GROUPS: u32 = 0xe;
    let kind = frame.byte(network.at() + network.header_len());
    let is_report = kind == REPORTS[0] || kind == REPORTS[1] || kind == REPORTS[2] || kind == REPORTS[3];
    let to_group = network.destination()[1] as u32 >> 28 == GROUPS;
    if is_report && network.hop_limit == 1 && to_group && network.payload_len() >= HEADER_LEN {
        Decision::pass(Reason::Igmp)
    } else {
        Decision::drop(Reason::Protocol)
    }
}
