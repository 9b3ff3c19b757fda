//! The short way of most packets: IPv4 or IPv6 of a client that is logged in, from an address that its session is bound to.
//!
//! What it decides, the rules would decide too ([`super::decide`]); what is in any way unusual it leaves to them. It calls nothing.
//! Of what is each client's own it reads three to five cache lines: the index's two, and one to three of the client's row.
//! Whoever has no session is found out here too, so that it is not looked for twice.

use super::{
    Action, Member, Place, Tables, addresses,
    link::Link,
    network::{USUAL_LEN, mapped},
    refusal,
};
use crate::{
    frame::Frame,
    meter::{self, Direction, Load},
    protocol::{self as p, icmp},
    reason::Reason,
    tables::{AddressHash, AddressWord, ClientKey, Counters, GateConfig, Strictness, rests_until},
    word::Word as _,
};

/// What the short way makes of a frame.
pub enum Familiar<'a> {
    /// It is decided, and charged.
    Decided {
        /// The row of the counters.
        row: u32,
        /// [`Action::Pass`] or [`Action::Drop`].
        action: Action,
        /// Why.
        reason: Reason,
    },
    /// It is of a client that is not logged in, in this place; nothing has happened.
    Stranger(Place<'a>),
    /// It is for the rules to read; nothing has happened.
    Unusual,
}

/// Decides about a packet that takes the short way, or tells a stranger's frame.
#[inline(always)]
pub fn familiar<'a, F: Frame + ?Sized, T: Tables>(frame: &F, tables: &'a T) -> Familiar<'a> {
    const UNTAGGED: usize = 14;
    const TAGGED: usize = UNTAGGED + 4;
    let Some([high, low]) = frame.read::<2>(UNTAGGED - 2) else { return Familiar::Unusual };
    // Each with offsets that the compiler knows: a frame with two tags goes the long way.
    match u16::from_be_bytes([high, low]) {
        p::ETHER_VLAN | p::ETHER_SERVICE_VLAN => {
            let Some([high, low, kind @ ..]) = frame.read::<4>(UNTAGGED) else { return Familiar::Unusual };
            match u16::from_be_bytes(kind) {
                p::ETHER_VLAN | p::ETHER_SERVICE_VLAN => Familiar::Unusual,
                kind => behind::<TAGGED, F, T>(frame, tables, u16::from_be_bytes([high, low]) & 0x0fff, kind),
            }
        }
        kind => behind::<UNTAGGED, F, T>(frame, tables, 0, kind),
    }
}

#[inline(always)]
fn behind<'a, const AT: usize, F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &'a T,
    vlan: u16,
    ether_type: u16,
) -> Familiar<'a> {
    let Some(zone) = tables.zone(vlan, 0) else { return Familiar::Unusual };
    let Some(config) = tables.config(zone).filter(|config| config.is_plain()) else { return Familiar::Unusual };
    let Some(client) = frame.read::<8>(4).map(ClientKey::with_mac_behind).filter(ClientKey::is_station) else {
        return Familiar::Unusual;
    };
    let client = client.in_zone(zone);
    let now_ns = tables.now_ns();
    let claimed = claimed::<AT, F, T>(frame, tables, config, ether_type);
    // What is not metered may need no more than this.
    if !config.is_accounting() && claimed.is_some_and(|address| tables.rests(client, address, now_ns)) {
        let row = Counters::row(zone, false);
        return Familiar::Decided { row, action: Action::Pass, reason: Reason::Authorized };
    }
    match tables.member(&client) {
        Some(found) => member(frame, tables, config, client, found, (claimed, now_ns)).unwrap_or(Familiar::Unusual),
        None => Familiar::Stranger(Place { config, client, link: Link::plain(client.mac(), ether_type, AT, vlan) }),
    }
}

#[inline(always)]
fn member<'a, F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &'a T,
    config: &GateConfig,
    client: ClientKey,
    (session, state): Member<'_, T::Word>,
    (claimed, now_ns): (Option<AddressWord>, u64),
) -> Option<Familiar<'a>> {
    let claimed = claimed?;
    let len = frame.head_len();
    if !session.is_live(now_ns) {
        return None;
    }
    if session.idle_s() != 0 && session.is_idle(state.last_seen_ns.load(), now_ns) {
        return None;
    }
    let bound = addresses::is_bound(&state.bindings, claimed);
    if !matches!(config.strictness(), Strictness::Off) && !bound {
        return None;
    }
    let charged = meter::charge(state, session, Direction::Up, Load::frame(len as u64), now_ns, config);
    let (action, reason) = match charged {
        Ok(()) => {
            if bound && !config.is_accounting() && rests_until(session, now_ns) != 0 {
                tables.rest(client, claimed, now_ns);
            }
            (Action::Pass, Reason::Authorized)
        }
        Err(refused) => (Action::Drop, refusal(tables, refused, Direction::Up, client, now_ns)),
    };
    Some(Familiar::Decided { row: Counters::row(client.zone(), false), action, reason })
}

/// The source of a packet that a guest may send and that is in no way unusual.
#[inline(always)]
fn claimed<const AT: usize, F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    config: &GateConfig,
    ether_type: u16,
) -> Option<AddressWord> {
    let len = frame.head_len();
    if len > USUAL_LEN {
        return None;
    }
    match ether_type {
        p::ETHER_IPV4 => ipv4::<AT, F>(frame, config, len),
        p::ETHER_IPV6 => ipv6::<AT, F>(frame, config, len, &tables.address_hash()),
        _ => None,
    }
}

/// Where the destination port is in a TCP header.
const PORT_AT: usize = 2;

/// The source, of a header without options that holds what it says, and that may be a guest's.
#[inline(always)]
fn ipv4<const AT: usize, F: Frame + ?Sized>(frame: &F, config: &GateConfig, len: usize) -> Option<AddressWord> {
    const LEN: usize = 20;
    const WITHOUT_OPTIONS: u8 = 0x45;
    let h = frame.read::<LEN>(AT)?;
    let total_len = usize::from(u16::from_be_bytes([h[2], h[3]]));
    if h[0] != WITHOUT_OPTIONS || total_len < LEN || AT + total_len > len {
        return None;
    }
    match h[9] {
        // Whether it is a DHCP message is for the rules to say.
        p::UDP => {
            let [source, destination] = ports::<F>(frame, AT + LEN)?;
            if source == p::PORT_DHCP_SERVER || destination == p::PORT_DHCP_SERVER || destination == p::PORT_DHCP_CLIENT
            {
                return None;
            }
        }
        // Who connects to the portal is for the rules to note. Of fragments the first has the ports, and the others are nothing without it.
        p::TCP => {
            let port = frame.read::<2>(AT + LEN + PORT_AT)?;
            if config.may_be_portal(port) {
                let destination = mapped(u32::from_be_bytes(frame.read::<4>(AT + 16)?));
                if config.may_serve_at(destination, u16::from_be_bytes(port)) {
                    return None;
                }
            }
        }
        p::ICMP if matches!(frame.byte(AT + LEN), icmp::REDIRECT_BYTE | icmp::ROUTER_ADVERTISEMENT_BYTE) => {
            return None;
        }
        _ => {}
    }
    // Read by itself: the compiler would put it together byte by byte.
    let source = u32::from_be_bytes(frame.read::<4>(AT + 12)?);
    (source != 0).then(|| AddressWord::v4(source))
}

/// As [`ipv4`]. All ICMPv6 goes the long way, as neighbour and router discovery are part of it; and so do extension headers, behind which anything could be.
#[inline(always)]
fn ipv6<const AT: usize, F: Frame + ?Sized>(
    frame: &F,
    config: &GateConfig,
    len: usize,
    hash: &AddressHash,
) -> Option<AddressWord> {
    const LEN: usize = 40;
    let h = frame.read::<8>(AT)?;
    let payload_len = usize::from(u16::from_be_bytes([h[4], h[5]]));
    if h[0] >> 4 != 6 || AT + LEN + payload_len > len {
        return None;
    }
    match h[6] {
        p::UDP => {
            let [source, destination] = ports::<F>(frame, AT + LEN)?;
            if source == p::PORT_DHCPV6_SERVER
                || destination == p::PORT_DHCPV6_SERVER
                || destination == p::PORT_DHCPV6_CLIENT
            {
                return None;
            }
        }
        p::TCP => {
            let port = frame.read::<2>(AT + LEN + PORT_AT)?;
            if config.may_be_portal(port) {
                let word = |at| Some(u64::from_be_bytes(frame.read::<8>(at)?));
                if config.may_serve_at([word(AT + 24)?, word(AT + 32)?], u16::from_be_bytes(port)) {
                    return None;
                }
            }
        }
        p::ESP => {}
        _ => return None,
    }
    let source = [u64::from_be_bytes(frame.read::<8>(AT + 8)?), u64::from_be_bytes(frame.read::<8>(AT + 16)?)];
    (source != [0; 2]).then(|| hash.v6(source))
}

/// UDP's source and destination port.
#[inline(always)]
fn ports<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<[u16; 2]> {
    let both = u32::from_be_bytes(frame.read::<4>(at)?);
    Some([(both >> 16) as u16, both as u16])
}
