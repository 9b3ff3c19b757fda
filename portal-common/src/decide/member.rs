//! What happens to the frames of a client that has logged in.

use super::{Binding, Case, Decision, Member, Tables, addresses, refusal};
use crate::{
    meter::{self, Direction, Load},
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
    /// It uses an address that is not of this network: what is dropped of members and strangers alike.
    Foreign,
}

/// Decides, unless the client must be treated as a stranger.
// A function of its own in the kernel too: what is read back of the case there is unknown to the verifier, which checks it once.
#[inline(never)]
pub(super) fn decide<T: Tables>(
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
    if let Some(fault) = network.fault {
        *decision = Decision::drop(fault);
        return Ok(());
    }
    let strictness = config.strictness();
    let claimed = network.claimed();
    if !matches!(strictness, Strictness::Off)
        && claimed != Address::UNSPECIFIED
        && !addresses::is_bound(&state.bindings, tables.address_hash().word(claimed))
    {
        if addresses::is_foreign(tables, config, &client, claimed) {
            return Err(Estranged::Foreign);
        }
        if !tables.bind(&Binding { client, claimed, slot: session.slot(), strictness, now_ns }) {
            return Err(Estranged::Address);
        }
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
