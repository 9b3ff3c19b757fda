//! Who opened a connection to the portal's own services. The login page learns its clients from here, and from nowhere else: what ARP and neighbour discovery
//! say is what a station says of itself and of others; the source of a frame is who sent it.
//!
//! The gate notes the station with the SYN, and from then on lets segments of this address and port through from this station alone. So who sent the form is who
//! sent the SYN. What another says of its or anybody's address changes where answers go, and not who acts.

use super::{
    Action, Case, Decision, Tables,
    network::{Kind, Network},
};
use crate::{
    bucket,
    budget::Limit,
    flag,
    frame::{Frame, NO_BYTE},
    protocol::{self as p, TcpFlags},
    reason::Reason,
    tables::{Address, ClientKey, ConnectionKey, ConnectionNote, GateConfig, Service, ServiceKey},
};

/// When a connection is over for certain: the login page gives none more than 30 s. Then another station's SYN may take its place; sooner it could make the
/// page take one's form for the other's.
const OVER_AFTER_NS: u64 = 30 * 1_000_000_000;
/// How exactly it is known when a note was used: each use would be a write to what all CPUs read.
const RENEWED_EVERY_NS: u64 = 1_000_000_000;
/// How many connections a client may begin in a second, and at once: a household behind one MAC address needs fewer. Guests are bound by it as strangers are: so
/// that nobody can fill the table of notes, or note itself for all ports of another's address, but by inventing a station for every two hundred. A note that is
/// evicted harms nobody but its client, whose page says to load it again; and those that have only had a SYN are the first to be.
const BEGUN: Limit = Limit::new(20, 200);

/// Notes who began the connection to the portal that this frame is a segment of, if it is one, and drops it if another did.
#[inline(always)]
pub fn follow<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T, config: &GateConfig, case: &mut Case) {
    let Case { network, client, now_ns, decision, inquiry: _ } = case;
    if let Some(reason) = refused(frame, tables, config, *client, network, *now_ns)
        // In shadow mode it may have been refused for another reason before.
        && decision.action == Action::Pass
    {
        *decision = Decision::drop(reason);
    }
}

/// Why the frame must not reach the portal's services; nothing of what is not for them.
#[inline(always)]
fn refused<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    config: &GateConfig,
    client: ClientKey,
    network: &Network,
    now_ns: u64,
) -> Option<Reason> {
    const FLAGS_AT: usize = 13;
    if network.fault.is_some() {
        return None;
    }
    let at = match network.kind {
        Kind::V4 => network.at() + network.header_len(),
        Kind::V6 => network.payload_at(),
        Kind::Arp | Kind::Eapol | Kind::Length | Kind::Other => return None,
    };
    let (zone, destination) = (client.zone(), Address::from_words(network.destination()));
    if matches!(network.kind, Kind::V6) && p::extends_v6(network.protocol) {
        // Of strangers none comes so far. What is not for the gateway is no business of ours here.
        let hides =
            hides_segment(frame.byte(at)) && tables.service(&ServiceKey::of_gateway(zone, destination)).is_some();
        return hides.then_some(Reason::ConnectionHidden);
    }
    // A later fragment is nothing without the first.
    if network.protocol != p::TCP || !network.is_first() {
        return None;
    }
    let Some([s0, s1, d0, d1]) = frame.read::<4>(at) else { return Some(Reason::ConnectionHidden) };
    let service = ServiceKey::new(zone, destination, p::TCP, u16::from_be_bytes([d0, d1]));
    if !config.may_serve(&service) || tables.service(&service) != Some(Service::Portal) {
        return None;
    }
    let flags = frame.byte(at + FLAGS_AT);
    // What the kernel would put together the gate does not see as a whole.
    if network.is_fragment() || flags == NO_BYTE {
        return Some(Reason::ConnectionHidden);
    }
    let flags = TcpFlags(flags as u8);
    let key = ConnectionKey::new(zone, Address::from_words(network.source()), u16::from_be_bytes([s0, s1]));
    note(tables, &key, client, flags.has(flag::SYN) && !flags.has(flag::ACK), now_ns)
}

/// Whether the header behind an extension header may be TCP's: it is, or it extends further.
#[inline(always)]
const fn hides_segment(next: u16) -> bool {
    next == NO_BYTE || next == p::TCP as u16 || p::extends_v6(next as u8)
}

#[inline(always)]
fn note<T: Tables>(tables: &T, key: &ConnectionKey, client: ClientKey, begins: bool, now_ns: u64) -> Option<Reason> {
    let noted = tables.connection(key);
    let age = match noted {
        Some(noted) => now_ns.saturating_sub(noted.seen_ns),
        None => 0,
    };
    let is_own = match noted {
        Some(noted) if noted.client == client => true,
        Some(_) if !begins || age < OVER_AFTER_NS => return Some(Reason::ConnectionOfAnother),
        // Of a connection that the gate did not see begin: the page does not know whose it is, and says so.
        None if !begins => return None,
        Some(_) | None => false,
    };
    if is_own && age < RENEWED_EVERY_NS {
        return None;
    }
    if !is_own && !may_begin(tables, client, now_ns) {
        return Some(Reason::BudgetConnections);
    }
    // Another CPU may have been faster, for another station; or there is no room. The client sends its SYN again.
    let done = !T::LIVE || tables.note(key, ConnectionNote { client, seen_ns: now_ns }, noted.is_none());
    if done || is_own { None } else { Some(Reason::ConnectionOfAnother) }
}

/// Whether the client may begin one more connection.
#[inline(always)]
fn may_begin<T: Tables>(tables: &T, client: ClientKey, now_ns: u64) -> bool {
    let mut budgets = tables.budgets(&client);
    if T::LIVE && budgets.is_none() {
        // A guest that was never a stranger here. That it is new is nothing to tell.
        tables.open_budgets(&client);
        budgets = tables.budgets(&client);
    }
    let Some(budgets) = budgets else { return !T::LIVE };
    let cost = BEGUN.cost_ns(1);
    if T::LIVE {
        bucket::spend(&budgets.connections, now_ns, cost, BEGUN.burst_ns())
    } else {
        bucket::has(&budgets.connections, now_ns, cost, BEGUN.burst_ns())
    }
}
