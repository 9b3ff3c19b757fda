//! What a packet of somebody who is logged in costs more where the kernel forwards it, than without any rule.

use std::cell::RefCell;

use anyhow::{Context as _, Result};
use portal_common::Reason;

use crate::{
    Effort, Findings,
    frames::{FIRST_CLIENT, FIRST_STRANGER, Version, segment},
    gate::{Limits, LoadedGate},
    inject::{Injector, Pattern, Reference},
    kernel::Rounds,
    plan::{self, Population},
    report::{Bar, Better, Row, figure},
    rivals::{Rival, nft},
    yard::Yard,
};

/// Who is measured beside ours, whether clients' packets are counted for each of them, and how many times less ours must add.
const RIVALS: [(Rival, bool, Bar); 3] = [
    (nft::MAC_IP, true, Bar::Times(10.0)),
    (nft::MAC_IP_UNCOUNTED, false, Bar::Times(10.0)),
    (nft::FORWARD, false, Bar::None),
];

/// Frames of a turn, 0.1 s at least: what is wanted is a difference of a fiftieth of the whole, and the machine gets slower and faster within seconds.
const LEAST: u32 = 100_000;
/// Beyond these no turn is long enough.
const MOST: u32 = 1_000_000;

/// The whole way: injected at one interface, through the gate or the rules, routed, and counted where it leaves by the other.
pub fn run(effort: &Effort) -> Result<Findings> {
    let sizes: &[u32] = if effort.quick { &[1 << 10] } else { &[1 << 10, 1 << 16, 1_000_000] };
    let mut findings = Findings::default();
    for clients in effort.sizes(sizes) {
        at(clients, effort, &mut findings)?;
    }
    Ok(findings)
}

fn at(clients: u32, effort: &Effort, findings: &mut Findings) -> Result<()> {
    // So many that most of them find their client in the caches, which the turns of others have emptied.
    let frames = effort.frames().min(LEAST.max(16 * clients)).min(MOST);
    let rounds = effort.rounds(200, 45) / (frames / LEAST).max(1) as usize;
    let members = Population { clients, first: FIRST_CLIENT };
    let frame = segment(Version::V4, FIRST_CLIENT);
    let mut injector = Injector::load(1)?;
    let own = Yard::new(&mut injector)?;
    let mut gate = LoadedGate::new(own.ifindex, clients, Limits::None)?;
    let fd = gate.gate.program()?.fd()?.try_clone()?;
    injector.aim_at(&fd)?;
    injector.send(&frame, Version::V4, members, Pattern::Sequential, plan::CALL)?;
    gate.set_accounting(false)?;
    // Each client's first packet binds its address, its second notes that it rests.
    for _ in 0..2 {
        gate.demand(Reason::Authorized, clients, |_| own.live_to_sink(&mut injector, clients, clients))?;
    }

    let mut yards = Vec::new();
    for (rival, ..) in &RIVALS {
        let made = Yard::new(&mut injector).and_then(|yard| {
            (rival.set_up)(&yard, &mut injector, clients)?;
            // That it stops others proves that its set is asked.
            let strangers = Population { clients: 1000, first: FIRST_STRANGER };
            injector.send(&frame, Version::V4, strangers, Pattern::Uniform, plan::PASS)?;
            yard.live_to_sink(&mut injector, 1000, 0).context("strangers get through")?;
            Ok(yard)
        });
        yards.push(made);
    }
    // All the same way: through the injector, one more program, and XDP_PASS.
    injector.send(&frame, Version::V4, members, Pattern::Uniform, plan::CALL)?;

    let (injector, gate) = (RefCell::new(&mut injector), RefCell::new(gate));
    let by_kernel = |yard: &Yard| {
        let mut injector = injector.borrow_mut();
        injector.aim(Reference::Empty)?;
        yard.live_to_sink(&mut injector, frames, frames)
    };
    let mut no_rules = || by_kernel(&own);
    let by_gate = |accounting| {
        let (mut injector, mut gate) = (injector.borrow_mut(), gate.borrow_mut());
        injector.aim_at(&fd)?;
        gate.set_accounting(accounting)?;
        gate.demand(Reason::Authorized, frames, |_| own.live_to_sink(&mut injector, frames, frames))
    };
    let (mut counted, mut uncounted) = (|| by_gate(true), || by_gate(false));
    let mut theirs: Vec<_> = yards
        .iter()
        .filter_map(|yard| yard.as_ref().ok())
        .map(|yard| {
            let by_kernel = &by_kernel;
            move || by_kernel(yard)
        })
        .collect();
    let mut all: Vec<&mut dyn FnMut() -> Result<f64>> = vec![&mut no_rules, &mut uncounted, &mut counted];
    all.extend(theirs.iter_mut().map(|one| one as &mut dyn FnMut() -> Result<f64>));
    let costs = Rounds::of(rounds, &mut all)?;
    let mut next = 3;
    for ((rival, counts, bar), yard) in RIVALS.iter().zip(&yards) {
        let (how, ours) = if *counts { ("counted", 2) } else { ("not counted", 1) };
        let metric =
            format!("authorised packet, kernel forwards: cost added, {how}, {} clients", figure(f64::from(clients)));
        let row = Row::new(metric, "ns over no rules", costs.over(ours, 0));
        findings.rows.push(match yard {
            Ok(_) => {
                next += 1;
                row.against(rival.name, costs.over(next - 1, 0), Better::Lower).bar(bar)
            }
            Err(why) => row.without(rival.name, format!("{why:#}")).bar(bar),
        });
    }
    Ok(())
}
