//! What the gate costs for a packet of one client that is logged in, everything in the caches.

use anyhow::{Result, ensure};
use aya::programs::Xdp;
use portal_common::Reason;

use crate::{
    Effort, Findings,
    frames::{FIRST_CLIENT, Version, segment},
    gate::{Limits, LoadedGate},
    inject::Injector,
    kernel::{self, LOOPBACK, PASS, Rounds},
    report::{Bar, Row},
};

/// By plain repetition, over an empty program that is run in the same way.
pub fn run(effort: &Effort) -> Result<Findings> {
    kernel::apart(|| measure(effort))
}

fn measure(effort: &Effort) -> Result<Findings> {
    let (rounds, frames) = (effort.rounds(45, 15), effort.frames());
    let mut injector = Injector::load(1)?;
    let empty: &Xdp = injector.program::<Xdp>("empty")?;
    let mut rows = Vec::new();
    for (limits, title, bar) in [
        (Limits::None, "authorised packet, hot, not metered", 12.0),
        (Limits::Far, "authorised packet, hot, metered, with a rate limit and a quota", 25.0),
    ] {
        let mut gate = LoadedGate::new(LOOPBACK, 1, limits)?;
        gate.set_accounting(limits != Limits::None)?;
        for version in [Version::V4, Version::V6] {
            let frame = segment(version, FIRST_CLIENT);
            // Once before: the client's first packet binds its address.
            gate.demand(Reason::Authorized, 1, |gate| kernel::repeat(gate.gate.program()?, &frame, 1))?;
            let mut ours = || {
                let (cost, verdict) = gate
                    .demand(Reason::Authorized, frames, |gate| kernel::repeat(gate.gate.program()?, &frame, frames))?;
                ensure!(verdict == PASS, "the gate's verdict is {verdict}");
                Ok(kernel::ns(cost))
            };
            let mut nothing = || {
                let (cost, verdict) = kernel::repeat(empty, &frame, frames)?;
                ensure!(verdict == PASS, "the empty program's verdict is {verdict}");
                Ok(kernel::ns(cost))
            };
            let costs = Rounds::of(rounds, &mut [&mut nothing, &mut ours])?;
            let metric = format!("{title}, {}", version.name());
            rows.push(Row::new(metric, "ns over an empty program", costs.over(1, 0)).bar(&Bar::AtMost(bar)));
        }
    }
    Ok(Findings { rows, plots: Vec::new() })
}
