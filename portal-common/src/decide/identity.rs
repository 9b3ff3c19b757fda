//! What a frame says about who its sender is, held against the one identity that the gate knows: the Ethernet source.
//!
//! Others believe what frames say of link-layer addresses: the kernel's neighbour table what ARP and neighbour discovery say, the DHCP server what
//! its clients say. Where the two differ, one station speaks for another. So such a frame is dropped, whoever sent it, and so is what only a gateway
//! may say (RFC 826, RFC 4861 section 4.6.1, RFC 7039 section 3.2.1, RFC 7113, RFC 7610).

use super::{
    Tables,
    network::{Kind, Network},
};
use crate::{
    frame::{Frame, forget_option},
    protocol::{self as p, icmp, icmpv6},
    reason::Reason,
    tables::ClientKey,
};

/// Whether a frame can say who its sender is: most cannot, and need no look.
#[inline(always)]
pub(super) fn is_said<F: Frame + ?Sized>(frame: &F, network: &Network) -> bool {
    let (at, server, client) = match network.kind {
        Kind::Arp => return true,
        Kind::Eapol | Kind::Length | Kind::Other => return false,
        Kind::V4 => (network.at() + network.header_len(), p::PORT_DHCP_SERVER, p::PORT_DHCP_CLIENT),
        Kind::V6 => (network.payload_at(), p::PORT_DHCPV6_SERVER, p::PORT_DHCPV6_CLIENT),
    };
    match network.protocol {
        p::TCP => false,
        p::UDP => udp_ports(frame, p::UDP, at)
            .is_some_and(|[source, destination]| source == server || destination == server || destination == client),
        _ => true,
    }
}

/// Whether extension headers follow the IPv6 header.
#[inline(always)]
pub(super) const fn is_extended(network: &Network) -> bool {
    matches!(network.kind, Kind::V6) && p::extends_v6(network.protocol)
}

/// Why a frame contradicts its source; nothing where it does not.
#[inline(always)]
pub(super) fn check<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    network: &Network,
    client: ClientKey,
    now_ns: u64,
) -> Option<Reason> {
    if let Some(fault) = network.fault {
        return Some(fault);
    }
    match network.kind {
        Kind::V4 => ipv4(frame, network, client),
        Kind::V6 => ipv6(frame, tables, network, client, now_ns),
        Kind::Arp => arp(frame, network, client),
        Kind::Eapol | Kind::Length | Kind::Other => None,
    }
}

/// RFC 826: what the receiver believes is the sender's hardware address, of probes too.
#[inline(always)]
fn arp<F: Frame + ?Sized>(frame: &F, network: &Network, client: ClientKey) -> Option<Reason> {
    const SENDER_AT: usize = 8;
    let [high, low] = words(client);
    // In words: the compiler makes of two arrays a call.
    let same = frame.read::<6>(network.at() + SENDER_AT).is_some_and(|said| is_mac(said, high, low));
    (!same).then_some(Reason::ArpIdentity)
}

#[inline(always)]
fn ipv4<F: Frame + ?Sized>(frame: &F, network: &Network, client: ClientKey) -> Option<Reason> {
    /// More fragments follow (RFC 791 section 3.1).
    const MORE: u16 = 0x2000;
    if !network.is_first() {
        return None;
    }
    let at = network.at() + network.header_len();
    if network.protocol == p::ICMP {
        return match frame.byte(at) {
            icmp::REDIRECT_BYTE | icmp::ROUTER_ADVERTISEMENT_BYTE => Some(Reason::RouterAdvertisement),
            _ => None,
        };
    }
    let [source, destination] = udp_ports(frame, network.protocol, at)?;
    if source == p::PORT_DHCP_SERVER || destination == p::PORT_DHCP_CLIENT {
        return Some(Reason::DhcpServer);
    }
    if destination != p::PORT_DHCP_SERVER {
        return None;
    }
    // What is said could be in another fragment.
    if network.fragment & MORE != 0 {
        return Some(Reason::DhcpIdentity);
    }
    dhcpv4(frame, at + UDP_LEN, network.at() + network.header_len() + network.payload_len(), client)
}

const UDP_LEN: usize = 8;

/// A DHCP client's message (RFC 2131 section 2): who asks is who gets the address.
#[inline(always)]
fn dhcpv4<F: Frame + ?Sized>(frame: &F, at: usize, end: usize, client: ClientKey) -> Option<Reason> {
    /// BOOTREQUEST, of Ethernet.
    const REQUEST: [u8; 3] = [1, 1, 6];
    const RELAY_AT: usize = 24;
    const HARDWARE_AT: usize = 28;
    const OPTIONS_AT: usize = 240;
    const MAGIC: [u8; 4] = [99, 130, 83, 99];
    /// How many options are walked: clients send ten or fewer.
    const MOST: usize = 20;
    const PAD: u8 = 0;
    const OVERLOAD: u8 = 52;
    const CLIENT_ID: u8 = 61;
    const END: u8 = 255;
    /// A type byte, 1 for Ethernet, and the address (RFC 2132 section 9.14).
    const MAC_ID: [u8; 2] = [7, 1];
    let false_claim = Some(Reason::DhcpIdentity);
    let [high, low] = words(client);
    let head = frame.read::<3>(at) == Some(REQUEST);
    let relayed = frame.read::<4>(at + RELAY_AT).is_none_or(|relay| u32::from_ne_bytes(relay) != 0);
    let same = frame.read::<6>(at + HARDWARE_AT).is_some_and(|said| is_mac(said, high, low));
    if !head || relayed || !same {
        return false_claim;
    }
    // BOOTP has no options (RFC 951).
    if at + OPTIONS_AT > end || frame.read::<4>(at + OPTIONS_AT - MAGIC.len()) != Some(MAGIC) {
        return None;
    }
    // A server knows a client by its identifier sooner than by its hardware address (RFC 2131 section 4.2).
    let mut at = at + OPTIONS_AT;
    let mut i = 0;
    while i < MOST {
        if at >= end {
            return None;
        }
        let Some(here) = forget_option(frame, at) else { return false_claim };
        at = here;
        let Some([option, len]) = frame.read::<2>(at) else {
            return if frame.byte(at) == u16::from(END) { None } else { false_claim };
        };
        match option {
            END => return None,
            PAD => at += 1,
            // Options in the fields of names: no client needs it, and anything could hide there.
            OVERLOAD => return false_claim,
            CLIENT_ID => {
                if len == MAC_ID[0] {
                    let id = frame.read::<7>(at + 2);
                    let Some([kind, said @ ..]) = id else { return false_claim };
                    if kind == MAC_ID[1] && !is_mac(said, high, low) {
                        return false_claim;
                    }
                }
                at += 2 + usize::from(len);
            }
            _ => at += 2 + usize::from(len),
        }
        i += 1;
    }
    // Not read to its end.
    false_claim
}

#[inline(always)]
fn ipv6<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    network: &Network,
    client: ClientKey,
    now_ns: u64,
) -> Option<Reason> {
    let at = network.payload_at();
    let end = at + network.payload_len();
    match network.protocol {
        p::ICMPV6 => neighbour(frame, at, end, client),
        p::UDP => {
            let [source, destination] = udp_ports(frame, p::UDP, at)?;
            if source == p::PORT_DHCPV6_SERVER || destination == p::PORT_DHCPV6_CLIENT {
                return Some(Reason::DhcpServer);
            }
            if destination != p::PORT_DHCPV6_SERVER {
                return None;
            }
            dhcpv6(frame, tables, (at + UDP_LEN, end), client, now_ns)
        }
        protocol if p::extends_v6(protocol) => behind_extensions(frame, protocol, at, end),
        _ => None,
    }
}

/// Neighbour and router discovery: each link-layer address in it is the source's own (RFC 4861 sections 4.1 to 4.4, 4.6.1).
#[inline(always)]
fn neighbour<F: Frame + ?Sized>(frame: &F, at: usize, end: usize, client: ClientKey) -> Option<Reason> {
    /// How many options are walked: a client sends one or two.
    const MOST: usize = 5;
    const SOURCE_ADDRESS: u8 = 1;
    const TARGET_ADDRESS: u8 = 2;
    let false_claim = Some(Reason::NeighborIdentity);
    let fixed = match frame.byte(at) {
        icmpv6::ROUTER_ADVERTISEMENT_BYTE | icmpv6::REDIRECT_BYTE => return Some(Reason::RouterAdvertisement),
        icmpv6::ROUTER_SOLICITATION_BYTE => 8,
        icmpv6::NEIGHBOR_SOLICITATION_BYTE | icmpv6::NEIGHBOR_ADVERTISEMENT_BYTE => 24,
        _ => return None,
    };
    let [high, low] = words(client);
    let mut at = at + fixed;
    let mut i = 0;
    while i < MOST {
        if at >= end {
            return None;
        }
        let Some(here) = forget_option(frame, at) else { return false_claim };
        at = here;
        let Some([kind, units, said @ ..]) = frame.read::<8>(at) else { return false_claim };
        let is_address = kind == SOURCE_ADDRESS || kind == TARGET_ADDRESS;
        if units == 0 || (is_address && (units != 1 || !is_mac(said, high, low))) {
            return false_claim;
        }
        at += usize::from(units) * 8;
        i += 1;
    }
    // Not read to its end.
    false_claim
}

/// A DHCPv6 client's message. An identifier may hold the address of any interface of its client (RFC 8415 section 11), another than this one, or one
/// that it had before: so only one that is another guest's is false.
#[inline(always)]
fn dhcpv6<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    (at, end): (usize, usize),
    client: ClientKey,
    now_ns: u64,
) -> Option<Reason> {
    const RELAY_FORWARD: u16 = 12;
    const HEADER_LEN: usize = 4;
    const OPTION_LEN: usize = 4;
    /// How many options are walked: clients send ten or fewer.
    const MOST: usize = 12;
    const CLIENT_ID: u16 = 1;
    const LINK_LAYER_AND_TIME: u16 = 1;
    const LINK_LAYER: u16 = 3;
    const ETHERNET: u16 = 1;
    let false_claim = Some(Reason::DhcpIdentity);
    // A relay speaks for others.
    if frame.byte(at) == RELAY_FORWARD {
        return false_claim;
    }
    let mut at = at + HEADER_LEN;
    let mut i = 0;
    while i < MOST {
        if at >= end {
            return None;
        }
        let Some(here) = forget_option(frame, at) else { return false_claim };
        at = here;
        let Some([code_high, code_low, len_high, len_low]) = frame.read::<OPTION_LEN>(at) else { return false_claim };
        let body = at + OPTION_LEN;
        if u16::from_be_bytes([code_high, code_low]) == CLIENT_ID {
            let [high, low, hardware_high, hardware_low] = frame.read::<4>(body)?;
            if u16::from_be_bytes([hardware_high, hardware_low]) != ETHERNET {
                return None;
            }
            let address_at = match u16::from_be_bytes([high, low]) {
                LINK_LAYER_AND_TIME => body + 8,
                LINK_LAYER => body + 4,
                _ => return None,
            };
            let said = frame.read::<6>(address_at)?;
            let other = ClientKey::new(client.zone(), said);
            let is_guest =
                other != client && tables.member_apart(&other).is_some_and(|(session, _)| session.is_live(now_ns));
            return if is_guest { false_claim } else { None };
        }
        at = body + usize::from(u16::from_be_bytes([len_high, len_low]));
        i += 1;
    }
    // Not read to its end.
    false_claim
}

/// What extension headers lead to. No client puts discovery or DHCP behind them, or in fragments (RFC 6980, RFC 7113): there it hides from whoever
/// reads less than the kernel does. Nor is there need for more headers than are read here.
#[inline(always)]
fn behind_extensions<F: Frame + ?Sized>(frame: &F, protocol: u8, at: usize, end: usize) -> Option<Reason> {
    const MOST: usize = 5;
    let mut next = protocol;
    let mut at = at;
    let mut i = 0;
    while i < MOST {
        let Some(here) = forget_option(frame, at) else { return Some(Reason::ExtensionChain) };
        at = here;
        if !p::extends_v6(next) {
            return hidden(frame, next, at, end).then_some(Reason::HiddenDiscovery);
        }
        // Beyond what is read of a frame, or beyond the packet, as in a first fragment that ends within its headers (RFC 7112).
        let Some([following, units, offset_high, offset_low]) = frame.read::<4>(at).filter(|_| at + 8 <= end) else {
            return Some(Reason::ExtensionChain);
        };
        at += match next {
            p::FRAGMENT => {
                // Of a packet whose first fragment was not let through nothing is put together.
                if u16::from_be_bytes([offset_high, offset_low]) & !0x7 != 0 {
                    return None;
                }
                8
            }
            // RFC 4302 section 2.2.
            p::AUTHENTICATION => 8 + usize::from(units) * 4,
            _ => 8 + usize::from(units) * 8,
        };
        next = following;
        i += 1;
    }
    Some(Reason::ExtensionChain)
}

/// Whether this is what must not be behind extension headers.
#[inline(always)]
fn hidden<F: Frame + ?Sized>(frame: &F, protocol: u8, at: usize, end: usize) -> bool {
    const NOTHING_FOLLOWS: u8 = 59;
    if protocol == NOTHING_FOLLOWS {
        return false;
    }
    // What can't be read is hidden too.
    if at + 4 > end {
        return true;
    }
    match protocol {
        p::ICMPV6 => match frame.read::<1>(at) {
            Some([kind]) => (icmpv6::ROUTER_SOLICITATION..=icmpv6::REDIRECT).contains(&kind),
            None => true,
        },
        p::UDP => udp_ports(frame, p::UDP, at).is_none_or(|[source, destination]| {
            source == p::PORT_DHCPV6_SERVER
                || destination == p::PORT_DHCPV6_SERVER
                || destination == p::PORT_DHCPV6_CLIENT
        }),
        _ => false,
    }
}

/// UDP's source and destination port.
#[inline(always)]
fn udp_ports<F: Frame + ?Sized>(frame: &F, protocol: u8, at: usize) -> Option<[u16; 2]> {
    if protocol != p::UDP {
        return None;
    }
    let [a, b, c, d] = frame.read::<4>(at)?;
    Some([u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])])
}

/// A MAC address as its first four bytes and its last two.
#[inline(always)]
const fn words(client: ClientKey) -> [u32; 2] {
    let [_, _, tail @ ..] = client.mac();
    let [head @ .., _, _] = client.mac();
    let [_, _, last @ ..] = tail;
    [u32::from_be_bytes(head), u16::from_be_bytes(last) as u32]
}

#[inline(always)]
const fn is_mac(said: [u8; 6], high: u32, low: u32) -> bool {
    let [head @ .., _, _] = said;
    let [_, _, _, _, last @ ..] = said;
    u32::from_be_bytes(head) == high && u16::from_be_bytes(last) as u32 == low
}
