//! What happens to the frames of a client that has logged in.

use super::{Binding, Case, Decision, Member, Tables, addresses, network::Kind, network::Network, refusal};
use crate::{
    frame::Frame,
    meter::{self, Direction, Load},
    protocol::{self as p, icmpv6},
    reason::Reason,
    tables::{Address, GateConfig, Strictness},
    word::Word as _,
};

/// Why a client that is logged in is treated as a stranger.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Estranged {
    /// It was silent for too long.
    Idle,
    /// It uses an address that is not, or cannot become, its own.
    Address,
}

/// Decides, unless the client must be treated as a stranger.
// A function of its own in the kernel too: what is read back of the case there is unknown to the verifier, which checks it once.
#[inline(never)]
pub(super) fn decide<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    config: &GateConfig,
    (session, state): Member<'_, T::Word>,
    case: &mut Case,
) -> Result<(), Estranged> {
    let Case { network, client, now_ns, decision, .. } = case;
    let (client, now_ns) = (*client, *now_ns);
    if session.is_idle(state.last_seen_ns.load(), now_ns) {
        return Err(Estranged::Idle);
    }
    if let Some(fault) = network.fault.or_else(|| plays_gateway(frame, network)) {
        *decision = Decision::drop(fault);
        return Ok(());
    }
    let strictness = config.strictness();
    let claimed = network.claimed();
    if !matches!(strictness, Strictness::Off)
        && claimed != Address::UNSPECIFIED
        && !addresses::is_bound(&state.bindings, tables.address_hash().word(claimed))
        && !tables.bind(&Binding { client, claimed, slot: session.slot(), strictness, now_ns })
    {
        return Err(Estranged::Address);
    }
    let load = Load::frame(u64::from(network.frame_len()));
    let charged = if T::LIVE {
        meter::charge(state, session, Direction::Up, load, now_ns, config)
    } else {
        meter::check(state, session, Direction::Up, load, now_ns, config)
    };
    *decision = match charged {
        Ok(()) => Decision::pass(Reason::Authorized),
        Err(refused) => Decision::drop(refusal(tables, refused, Direction::Up, client, now_ns)),
    };
    Ok(())
}

/// Why no guest may send this: it would be taken for the gateway's.
#[inline(always)]
pub(super) fn plays_gateway<F: Frame + ?Sized>(frame: &F, network: &Network) -> Option<Reason> {
    let (udp, server) = match network.kind {
        Kind::V4 => (p::UDP, p::PORT_DHCP_SERVER),
        Kind::V6 if network.protocol == p::ICMPV6 => {
            let kind = frame.byte(network.payload_at());
            let router = kind == u16::from(icmpv6::ROUTER_ADVERTISEMENT) || kind == u16::from(icmpv6::REDIRECT);
            return router.then_some(Reason::RouterAdvertisement);
        }
        Kind::V6 => (p::UDP, p::PORT_DHCPV6_SERVER),
        Kind::Arp | Kind::Eapol | Kind::Length | Kind::Other => return None,
    };
    if network.protocol != udp || !network.is_first() {
        return None;
    }
    let at = network.at() + network.header_len();
    let [high, low] = server.to_be_bytes().map(u16::from);
    (frame.byte(at) == high && frame.byte(at + 1) == low).then_some(Reason::DhcpServer)
}
