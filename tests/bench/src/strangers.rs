//! What it costs to drop a packet of somebody who is not logged in, among so many who are.

use std::cell::RefCell;

use anyhow::{Context as _, Result, ensure};
use portal_common::Reason;

use crate::{
    Effort, Findings,
    frames::{FIRST_CLIENT, FIRST_STRANGER, Version, segment},
    gate::{Limits, LoadedGate},
    inject::{Injector, Pattern, Reference},
    kernel::Rounds,
    plan::{self, Population},
    plot::Plot,
    report::{Bar, Better, Row, figure},
    rivals::{Proof, Rival, iptables, nft, tc},
    yard::Yard,
};

/// Numbers of clients that are logged in, and of strangers that send, with the bars against nftables' ingress, raw and forward sets.
const SIZES: [u32; 3] = [1 << 10, 1 << 16, 1_000_000];
/// Who is measured beside ours, and how many times faster ours must be.
const RIVALS: [(Rival, Bar); 5] = [
    // Those with a bar come first.
    (nft::INGRESS, Bar::Times(4.0)),
    (nft::RAW, Bar::Times(5.0)),
    (nft::FORWARD, Bar::Times(7.0)),
    (iptables::RAW, Bar::None),
    (tc::HASH, Bar::None),
];

/// Where there is little time, those without a bar are measured once.
fn rivals(effort: &Effort, clients: u32) -> &'static [(Rival, Bar)] {
    let once = effort.quick && clients != SIZES[0];
    if once { &RIVALS[..3] } else { &RIVALS }
}

/// Live frames: each has memory of its own, and the kernel makes a socket buffer of what XDP passes on.
pub fn run(effort: &Effort) -> Result<Findings> {
    let mut findings = Findings::default();
    let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for clients in effort.sizes(&SIZES) {
        let costs = at(clients, effort)?;
        let mut point = |name: &str, cost: f64| {
            let point = (f64::from(clients), 1000.0 / cost);
            match lines.iter_mut().find(|(known, _)| known == name) {
                Some((_, points)) => points.push(point),
                None => lines.push((name.to_owned(), vec![point])),
            }
        };
        point("Portal", costs.ours);
        for ((rival, bar), theirs) in rivals(effort, clients).iter().zip(&costs.theirs) {
            let metric = format!("stranger's packet dropped, {} clients", figure(f64::from(clients)));
            let row = Row::new(metric, "ns over the injector", costs.ours - costs.base);
            findings.rows.push(match theirs {
                Ok(theirs) => {
                    point(rival.name, *theirs);
                    row.against(rival.name, theirs - costs.base, Better::Lower).bar(bar)
                }
                Err(why) => row.without(rival.name, format!("{why:#}")).bar(bar),
            });
        }
    }
    let mut plot = Plot::new(
        "drops",
        "Strangers' packets that one CPU drops, the making of the packets included",
        "clients that are logged in",
        "million packets per second",
    )
    .log_x();
    for (name, points) in lines {
        plot = plot.line(name, points);
    }
    findings.plots.push(plot);
    Ok(findings)
}

struct Costs {
    /// Of making a frame and dropping it at once.
    base: f64,
    ours: f64,
    theirs: Vec<Result<f64>>,
}

fn at(clients: u32, effort: &Effort) -> Result<Costs> {
    let (rounds, frames) = (effort.rounds(9, 2), effort.frames());
    let strangers = Population { clients, first: FIRST_STRANGER };
    let members = Population { clients, first: FIRST_CLIENT };
    let frame = segment(Version::V4, FIRST_STRANGER);
    let mut injector = Injector::load(clients)?;
    let own = Yard::new(&mut injector)?;
    let mut gate = LoadedGate::new(own.ifindex, clients, Limits::None)?;
    let fd = gate.gate.program()?.fd()?.try_clone()?;

    let rivals = rivals(effort, clients);
    let mut yards = Vec::new();
    for (rival, _) in rivals {
        let made = Yard::new(&mut injector).and_then(|yard| {
            (rival.set_up)(&yard, &mut injector, clients)?;
            // That it lets clients through proves that what it drops, it drops for who sent it.
            injector.send(&frame, Version::V4, members, Pattern::Uniform, plan::PASS)?;
            yard.live_to_sink(&mut injector, clients, clients).context("clients do not get through")?;
            Ok(yard)
        });
        yards.push(made);
    }

    let injector = RefCell::new(&mut injector);
    let mut base = || {
        let mut injector = injector.borrow_mut();
        injector.send(&frame, Version::V4, strangers, Pattern::Uniform, plan::CALL)?;
        injector.aim(Reference::Discard)?;
        own.live_to_sink(&mut injector, frames, 0)
    };
    let mut ours = || {
        let mut injector = injector.borrow_mut();
        injector.send(&frame, Version::V4, strangers, Pattern::Uniform, plan::CALL)?;
        injector.aim_at(&fd)?;
        gate.demand(Reason::HttpsDropped, frames, |_| own.live_to_sink(&mut injector, frames, 0))
    };
    let mut theirs: Vec<_> = rivals
        .iter()
        .zip(&yards)
        .filter_map(|((rival, _), yard)| yard.as_ref().ok().map(|yard| (rival, yard)))
        .map(|(rival, yard)| {
            let (injector, frame) = (&injector, &frame);
            move || {
                let mut injector = injector.borrow_mut();
                injector.send(frame, Version::V4, strangers, Pattern::Uniform, plan::PASS)?;
                dropped(rival, yard, &mut injector, frames)
            }
        })
        .collect();
    let mut all: Vec<&mut dyn FnMut() -> Result<f64>> = vec![&mut base, &mut ours];
    all.extend(theirs.iter_mut().map(|one| one as &mut dyn FnMut() -> Result<f64>));
    let costs = Rounds::of(rounds, &mut all)?;
    let mut next = 2;
    let theirs = yards
        .into_iter()
        .map(|yard| {
            yard.map(|_| {
                next += 1;
                costs.cost(next - 1)
            })
        })
        .collect();
    Ok(Costs { base: costs.cost(0), ours: costs.cost(1), theirs })
}

/// Lets a rival drop, and demands that it dropped every packet where it says it does.
fn dropped(rival: &Rival, yard: &Yard, injector: &mut Injector, frames: u32) -> Result<f64> {
    let (counted, received) = (injector.counts()?.dropped, yard.received()?);
    let cost = yard.live_to_sink(injector, frames, 0)?;
    let (counted, received) = (injector.counts()?.dropped - counted, yard.received()? - received);
    let expected = match rival.proof {
        Proof::BeforeIp => (0, 0),
        Proof::InIp => (0, u64::from(frames)),
        Proof::Counted => (u64::from(frames), 0),
    };
    ensure!((counted, received) == expected, "{}: {counted} were counted and {received} reached IP", rival.name);
    Ok(cost)
}
