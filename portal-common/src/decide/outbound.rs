//! What happens to the frames that go to a client: they are metered, and DNS answers are charged and learned from.

use super::{Case, Tables, link, network::Kind, network::Network, refusal};
use crate::{
    bucket,
    budget::Class,
    frame::Frame,
    meter::{self, Direction, Load},
    protocol as p,
    reason::Reason,
    tables::{ClientKey, Counters, GateConfig, UNZONED_ROW},
    word::Word as _,
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
}

/// What is to be done with a frame that goes to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outbound {
    /// Let it go; it is no client's, or not metered.
    Pass,
    /// Let it go; it was counted for this client.
    Metered,
    /// Give it to nobody.
    Drop(Reason),
    /// Give it to the daemon, which learns from it and sends it on.
    Hold,
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

/// Decides about a frame that goes to a client.
#[inline(always)]
pub fn outbound<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    departure: Departure,
    case: &mut Case,
) -> OutboundVerdict {
    let nowhere = OutboundVerdict {
        decision: Outbound::Pass,
        row: UNZONED_ROW,
        shadow: false,
        client: ClientKey::NONE,
        capture: false,
    };
    let link = link::Link::parse(frame);
    let (outer, inner) = if departure.vlan == 0 { (link.outer, link.inner) } else { (departure.vlan, link.outer) };
    let Some(zone) = tables.zone(outer, inner) else { return nowhere };
    let Some(config) = tables.config(zone).filter(|config| config.is_ready()) else { return nowhere };
    let Some(destination) = frame.read::<6>(0) else { return nowhere };
    let client = ClientKey::new(zone, destination);
    let decision = if destination[0] & 1 == 0 {
        case.client = client;
        to_client(frame, tables, config, &link, departure, case)
    } else {
        Outbound::Pass
    };
    let shadow = config.is_shadow();
    OutboundVerdict { decision, row: Counters::row(zone, shadow), shadow, client, capture: config.is_capturing() }
}

#[inline(always)]
fn to_client<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    config: &GateConfig,
    link: &link::Link,
    departure: Departure,
    case: &mut Case,
) -> Outbound {
    let client = case.client;
    let now_ns = tables.now_ns();
    if let Some((session, state)) = tables.member(&client)
        && session.is_live(now_ns)
        && !session.is_idle(state.last_seen_ns.load(), now_ns)
    {
        let charged = meter::charge(state, session, Direction::Down, departure.load, now_ns, config);
        return match charged {
            Ok(()) => Outbound::Metered,
            Err(refused) => Outbound::Drop(refusal(tables, refused, Direction::Down, client, now_ns)),
        };
    }
    let Some(over_udp) = is_dns_answer(frame, link, &mut case.network) else { return Outbound::Pass };
    if over_udp && config.has_names() && !departure.relayed {
        // Charged when it comes back.
        return Outbound::Hold;
    }
    // Only who has asked has a row: what nobody asked for costs nobody.
    if let Some(budgets) = tables.budgets(&client) {
        let limit = &config.limits()[Class::DnsBytes as usize];
        if limit.is_limited() {
            let bucket = &budgets.buckets[Class::DnsBytes as usize];
            bucket::charge(bucket, now_ns, limit.cost_ns(departure.load.bytes), limit.burst_ns());
        }
    }
    Outbound::Pass
}

/// Whether the frame comes from port 53, and if so whether by UDP.
#[inline(always)]
fn is_dns_answer<F: Frame + ?Sized>(frame: &F, link: &link::Link, network: &mut Network) -> Option<bool> {
    network.parse(frame, link.ether_type, link.end);
    let first = matches!(network.kind, Kind::V4 | Kind::V6) && network.is_first();
    let port = frame.read::<2>(network.at() + network.header_len()).filter(|_| first && network.fault.is_none())?;
    if u16::from_be_bytes(port) != p::PORT_DNS {
        return None;
    }
    match network.protocol {
        p::UDP => Some(true),
        p::TCP => Some(false),
        _ => None,
    }
}
