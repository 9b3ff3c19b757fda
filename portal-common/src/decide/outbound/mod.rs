//! What happens to the frames that go to a client: the gate's other half. A client with a session is metered; to any other station goes only what the
//! [`rules`] permit, and its budget allows.

mod rules;

pub(super) use rules::Inquiry;
pub use rules::{consider, inquire};

use super::{
    Action, Case, Decision, Delivery, Tables, addresses, link, network::Kind, questions::check_asked, refusal,
};
use crate::{
    budget::Class,
    frame::Frame,
    meter::{self, Direction, Load},
    protocol as p,
    reason::Reason,
    tables::{
        Address, AddressWord, Bindings, ClientKey, Counters, GateConfig, MAX_BINDINGS, Service, ServiceKey, Strictness,
        UNZONED_ROW,
    },
    word::Word,
};

/// A frame on its way to a client, with what the kernel knows of it beside its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Departure {
    /// The VLAN id that the kernel keeps beside the frame; 0 where there is none.
    pub vlan: u16,
    /// What it is on the wire: more than a frame, if the NIC is to make several of it.
    pub load: Load,
    /// The daemon has learned from it, and sends it on.
    pub relayed: bool,
    /// It has come in by an interface: the gateway has not made it itself.
    pub forwarded: bool,
}

/// What is to be done with a frame that goes to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outbound {
    /// Let it go: this rule permits it to whoever has no session.
    Pass(Reason),
    /// Let it go; it was counted for this client.
    Metered,
    /// Give it to nobody.
    Drop(Reason),
    /// Give it to the daemon, which learns from it and sends it on.
    Hold,
}

impl Outbound {
    /// Why.
    #[inline(always)]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Pass(reason) | Self::Drop(reason) => reason,
            Self::Metered => Reason::Authorized,
            Self::Hold => Reason::Dns,
        }
    }
}

/// The decision about a frame that goes to a client, and where it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboundVerdict {
    /// What is to be done.
    pub decision: Outbound,
    /// The row of the counters.
    pub row: u32,
    /// The zone is in shadow mode: the frame passes, whatever was decided, unless it is held.
    pub shadow: bool,
    /// To whom it goes; [`ClientKey::NONE`] where it belongs to no zone.
    pub client: ClientKey,
    /// The client's frames are to be captured, if it is among those that are.
    pub capture: bool,
}

/// What the rules for stations without a session need to know of a frame beside its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Passage {
    ether_type: u16,
    /// Where the network header starts.
    at: u8,
    forwarded: bool,
    relayed: bool,
    to_group: bool,
}

impl Passage {
    const FORWARDED: u64 = 1 << 32;
    const RELAYED: u64 = 1 << 33;
    const TO_GROUP: u64 = 1 << 34;

    /// In one word.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        self.ether_type as u64
            | (self.at as u64) << 16
            | if self.forwarded { Self::FORWARDED } else { 0 }
            | if self.relayed { Self::RELAYED } else { 0 }
            | if self.to_group { Self::TO_GROUP } else { 0 }
    }

    /// What [`Passage::to_word`] gave.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self {
            ether_type: word as u16,
            at: (word >> 16) as u8,
            forwarded: word & Self::FORWARDED != 0,
            relayed: word & Self::RELAYED != 0,
            to_group: word & Self::TO_GROUP != 0,
        }
    }
}

/// Decides about a frame that goes to a client.
#[inline(always)]
pub fn outbound<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    departure: Departure,
    case: &mut Case,
) -> OutboundVerdict {
    let mut verdict = OutboundVerdict {
        decision: Outbound::Drop(Reason::NoZone),
        row: UNZONED_ROW,
        shadow: false,
        client: ClientKey::NONE,
        capture: false,
    };
    let link = link::Link::parse(frame);
    let (outer, inner) = if departure.vlan == 0 { (link.outer, link.inner) } else { (departure.vlan, link.outer) };
    // Of the source nothing is asked here: it is the gateway's.
    let mut fault = link.fault.filter(|fault| *fault != Reason::SourceMac);
    if departure.vlan != 0 && link.inner != 0 {
        fault = Some(Reason::VlanTags);
    }
    let zone = if let Some(zone) = tables.zone(outer, inner) {
        zone
    } else {
        let why = fault.unwrap_or(Reason::NoZone);
        fault = Some(why);
        verdict.decision = Outbound::Drop(why);
        let Some(zone) = tables.zone(super::ANY_VLAN, super::ANY_VLAN) else { return verdict };
        zone
    };
    // Fail closed, as in the other direction.
    let Some(config) = tables.config(zone).filter(|config| config.is_ready()) else {
        verdict.decision = Outbound::Drop(Reason::ConfigMissing);
        verdict.row = Counters::row(zone, false);
        return verdict;
    };
    verdict.shadow = config.is_shadow();
    verdict.row = Counters::row(zone, verdict.shadow);
    verdict.capture = config.is_capturing();
    let destination = frame.read::<6>(0);
    if let Some(destination) = destination {
        verdict.client = ClientKey::new(zone, destination);
    }
    let fault = if destination.is_none() { Some(Reason::FrameTruncated) } else { fault };
    verdict.decision = match fault {
        Some(fault) => Outbound::Drop(fault),
        None => to_client(frame, tables, config, &link, departure, (verdict.client, case)),
    };
    verdict
}

#[inline(always)]
fn to_client<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    config: &GateConfig,
    link: &link::Link,
    departure: Departure,
    (client, case): (ClientKey, &mut Case),
) -> Outbound {
    let now_ns = tables.now_ns();
    let to_group = client.is_group();
    let member = if to_group { None } else { tables.member(&client) };
    let live = member
        .filter(|(session, state)| session.is_live(now_ns) && !session.is_idle(state.last_seen_ns.load(), now_ns));
    if let Some((session, state)) = live
        && is_its_own(frame, tables, config, link, departure, (client, &state.bindings))
    {
        return metered(tables, config, client, (session, state), departure.load, now_ns);
    }
    case.client = client;
    case.now_ns = now_ns;
    case.decision = Decision::drop(Reason::ConfigMissing);
    let passage = Passage {
        ether_type: link.ether_type,
        at: link.end as u8,
        forwarded: departure.forwarded,
        relayed: departure.relayed,
        to_group,
    };
    tables.depart(frame, config, passage, case);
    let Decision { action, reason, .. } = case.decision;
    if matches!(action, Action::Drop) {
        // To a guest goes what is for its own addresses; beside that what is permitted to everybody.
        let another = live.is_some() && matches!(reason, Reason::ToStranger);
        return Outbound::Drop(if another { Reason::ToAnother } else { reason });
    }
    if let Some((session, state)) = live {
        return metered(tables, config, client, (session, state), departure.load, now_ns);
    }
    let class = if departure.relayed { None } else { class(reason, departure.forwarded) };
    if let Some(class) = class
        && let Some(refused) = tables.afford(&Delivery { client, class, bytes: departure.load.bytes as u32, now_ns })
    {
        return Outbound::Drop(refused);
    }
    if matches!(action, Action::Redirect) { Outbound::Hold } else { Outbound::Pass(reason) }
}

/// What a stranger pays with for what it is sent.
#[inline(always)]
const fn class(reason: Reason, forwarded: bool) -> Option<Class> {
    match reason {
        Reason::PortalService | Reason::Garden | Reason::GardenName => Some(Class::Services),
        Reason::Dns | Reason::DnsTcp | Reason::Ntp => Some(Class::DnsBytes),
        // What others report could carry anything: it comes from the smallest of the budgets.
        Reason::IcmpRelated if forwarded => Some(Class::DnsBytes),
        Reason::IcmpRelated | Reason::GatewayEcho => Some(Class::Link),
        // The link's own traffic, which no router forwards.
        _ => None,
    }
}

#[inline(always)]
fn metered<T: Tables>(
    tables: &T,
    config: &GateConfig,
    client: ClientKey,
    (session, state): super::Member<'_, T::Word>,
    load: Load,
    now_ns: u64,
) -> Outbound {
    let charged = if T::LIVE {
        meter::charge(state, session, Direction::Down, load, now_ns, config)
    } else {
        meter::check(state, session, Direction::Down, load, now_ns, config)
    };
    match charged {
        Ok(()) => Outbound::Metered,
        Err(refused) => Outbound::Drop(refusal(tables, refused, Direction::Down, client, now_ns)),
    }
}

/// Whether a frame to the station of a client that is logged in is for this client, as far as it need be asked: it is no IP packet, or for one of the
/// addresses that the session is bound to. What is for any other is nobody's to charge for.
#[inline(always)]
fn is_its_own<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    config: &GateConfig,
    link: &link::Link,
    departure: Departure,
    (client, bindings): (ClientKey, &Bindings<T::Word>),
) -> bool {
    let address = match link.ether_type {
        p::ETHER_IPV4 => match frame.read::<4>(link.end + 16) {
            Some(address) => AddressWord::v4(u32::from_be_bytes(address)),
            None => return false,
        },
        p::ETHER_IPV6 => {
            // One after the other: of a pair of options the compiler would use what is not there, which the verifier refuses.
            let Some(high) = frame.read::<8>(link.end + 24) else { return false };
            let Some(low) = frame.read::<8>(link.end + 32) else { return false };
            if departure.forwarded && is_forged(frame, tables, config, client, link.end) {
                return false;
            }
            tables.address_hash().v6([high, low].map(u64::from_be_bytes))
        }
        _ => return true,
    };
    matches!(config.strictness(), Strictness::Off)
        || addresses::is_bound(bindings, address)
        || is_crowded(tables, client, bindings, address)
}

/// Whether an IPv6 packet that was forwarded says that the gateway has sent it. IPv4 packets like this the kernel does not forward (RFC 1812 section
/// 5.3.8; `fib_validate_source`).
#[inline(always)]
fn is_forged<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    config: &GateConfig,
    client: ClientKey,
    at: usize,
) -> bool {
    let Some(high) = frame.read::<8>(at + 8) else { return true };
    let Some(low) = frame.read::<8>(at + 16) else { return true };
    is_gateways(tables, config, client, [high, low].map(u64::from_be_bytes))
}

/// Whether an address is one of the gateway's own.
#[inline(always)]
fn is_gateways<T: Tables>(tables: &T, config: &GateConfig, client: ClientKey, address: [u64; 2]) -> bool {
    let key = ServiceKey::of_gateway(client.zone(), Address::from_words(address));
    config.may_serve(&key) && tables.service(&key) == Some(Service::Gateway)
}

/// Whether the session has as many addresses as there can be, so that one that it uses may have been displaced; and nobody else has this one.
#[inline(always)]
fn is_crowded<T: Tables>(tables: &T, client: ClientKey, bindings: &Bindings<T::Word>, address: AddressWord) -> bool {
    let mut i = 0;
    while i < MAX_BINDINGS {
        if bindings.words[i].load() == 0 {
            return false;
        }
        i += 1;
    }
    tables.owner_of(client.zone(), address).is_none()
}

/// Whether an EtherType is one of IP's.
#[inline(always)]
const fn is_ip(kind: Kind) -> bool {
    matches!(kind, Kind::V4 | Kind::V6)
}

/// What the rules say about a frame to a station without a session, or to a group. What is decided is in the case; a redirection stands for holding it.
#[inline(always)]
pub fn depart<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    config: &GateConfig,
    passage: Passage,
    case: &mut Case,
) {
    if consider(frame, tables, config, passage, case)
        && let Some(topic) = inquire(tables, config, passage, case)
    {
        check_asked(frame, tables, topic, case);
    }
}
