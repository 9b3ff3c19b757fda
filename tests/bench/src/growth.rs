//! How the cost of a packet from a client that is logged in grows with the number of clients.

use anyhow::Result;
use portal_common::Reason;

use crate::{
    Effort, Findings,
    frames::{self, FIRST_CLIENT, Version},
    gate::{Limits, LoadedGate},
    inject::{Injector, Pattern, Reference},
    kernel::{self, LOOPBACK, Rounds},
    plan::{self, Population},
    plot::Plot,
    report::{Bar, Better, Row, figure},
};

/// Numbers of clients; the first is what the others are held against.
const CLIENTS: [u32; 4] = [1, 1 << 10, 1 << 16, 1_000_000];
/// Over how many clients the bar is.
const MANY: u32 = 1_000_000;

/// Sources at random, as the injector makes them. What the injector costs, it costs an empty program too.
pub fn run(effort: &Effort) -> Result<Findings> {
    kernel::apart(|| measure(effort))
}

/// Costs over an empty program behind the same injector, ns.
struct Costs {
    clients: u32,
    version: Version,
    pattern: Pattern,
    gate: f64,
    hash: f64,
}

fn measure(effort: &Effort) -> Result<Findings> {
    let mut all = Vec::new();
    let sizes = effort.sizes(&CLIENTS);
    for clients in &sizes {
        all.extend(at(*clients, effort)?);
    }
    let find = |clients, version, pattern| {
        all.iter().find(move |c| (c.clients, c.version, c.pattern) == (clients, version, pattern))
    };
    let mut rows = Vec::new();
    for (version, pattern) in series() {
        let Some(one) = find(CLIENTS[0], version, pattern) else { continue };
        for clients in &sizes[1..] {
            let Some(many) = find(*clients, version, pattern) else { continue };
            let metric = format!(
                "growth of an authorised packet's cost, 1 to {} clients, {}, {}",
                figure(f64::from(*clients)),
                version.name(),
                order(pattern)
            );
            let bar = if *clients == MANY && pattern == Pattern::Uniform {
                Bar::Both(Box::new(Bar::AtMost(90.0)), Box::new(Bar::Times(3.0)))
            } else {
                Bar::None
            };
            let row = Row::new(metric, "ns", many.gate - one.gate);
            rows.push(row.against("a BPF hash by MAC", many.hash - one.hash, Better::Lower).bar(&bar));
        }
    }
    let line = |version, pattern, of: fn(&Costs) -> f64| -> Vec<(f64, f64)> {
        CLIENTS.iter().filter_map(|n| find(*n, version, pattern)).map(|c| (f64::from(c.clients), of(c))).collect()
    };
    let mut plot = Plot::new(
        "clients",
        "An authorised packet's cost against the number of clients",
        "clients, sending at random",
        "ns over an empty program",
    )
    .log_x();
    for (version, pattern) in series() {
        plot =
            plot.line(format!("the gate, {}, {}", version.name(), order(pattern)), line(version, pattern, |c| c.gate));
    }
    plot = plot.line("a plain BPF hash by MAC, uniform", line(Version::V4, Pattern::Uniform, |c| c.hash));
    Ok(Findings { rows, plots: vec![plot] })
}

fn series() -> [(Version, Pattern); 3] {
    [(Version::V4, Pattern::Uniform), (Version::V6, Pattern::Uniform), (Version::V4, Pattern::Zipf)]
}

fn order(pattern: Pattern) -> &'static str {
    match pattern {
        Pattern::Sequential => "in sequence",
        Pattern::Uniform => "uniform",
        Pattern::Zipf => "Zipf",
    }
}

/// Everything with so many clients.
fn at(clients: u32, effort: &Effort) -> Result<Vec<Costs>> {
    let (rounds, repeat) = (effort.rounds(15, 3), effort.frames());
    let from = Population { clients, first: FIRST_CLIENT };
    let mut injector = Injector::load(clients)?;
    injector.fill_hash(FIRST_CLIENT, clients)?;
    let mut gate = LoadedGate::new(LOOPBACK, clients, Limits::None)?;
    let fd = gate.gate.program()?.fd()?.try_clone()?;
    let mut all = Vec::new();
    for (version, pattern) in series() {
        // The other lines need no more than their ends where there is little time.
        let is_end = clients == CLIENTS[0] || clients == MANY;
        if effort.quick && !effort.check && !is_end && (version, pattern) != (Version::V4, Pattern::Uniform) {
            continue;
        }
        let frame = frames::segment(version, FIRST_CLIENT);
        // Each client once before: its first packet binds its address.
        injector.send(&frame, version, from, Pattern::Sequential, plan::CALL)?;
        injector.aim_at(&fd)?;
        gate.demand(Reason::Authorized, clients, |_| injector.repeat(clients))?;
        injector.send(&frame, version, from, pattern, plan::CALL)?;
        let injector = std::cell::RefCell::new(&mut injector);
        let reference = |reference: Reference| {
            let mut injector = injector.borrow_mut();
            injector.aim(reference)?;
            injector.repeat(repeat)
        };
        let mut ours = || {
            gate.demand(Reason::Authorized, repeat, |_| {
                let mut injector = injector.borrow_mut();
                injector.aim_at(&fd)?;
                injector.repeat(repeat)
            })
        };
        let costs = Rounds::of(
            rounds,
            &mut [&mut || reference(Reference::Empty), &mut ours, &mut || reference(Reference::Hash)],
        )?;
        all.push(Costs { clients, version, pattern, gate: costs.over(1, 0), hash: costs.over(2, 0) });
    }
    Ok(all)
}
