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
/// Frames of a turn: 0.1 to 0.3 s. The last cache is shared with other machines, whose load changes within seconds.
const TURN: u32 = 700_000;
/// Over how many clients the bar is.
const MANY: u32 = 1_000_000;

/// Sources at random, as the injector makes them. What the injector costs, it costs an empty program too.
pub fn run(effort: &Effort) -> Result<Findings> {
    kernel::apart(|| measure(effort))
}

/// Costs over an empty program behind the same injector, ns.
struct Costs {
    clients: u32,
    series: Series,
    gate: f64,
    hash: f64,
}

fn measure(effort: &Effort) -> Result<Findings> {
    let mut all = Vec::new();
    let sizes = effort.sizes(&CLIENTS);
    for clients in &sizes {
        all.extend(at(*clients, effort)?);
    }
    let find = |clients, series| all.iter().find(move |c| (c.clients, c.series) == (clients, series));
    let mut rows = Vec::new();
    for series in SERIES {
        let Some(one) = find(CLIENTS[0], series) else { continue };
        for clients in &sizes[1..] {
            let Some(many) = find(*clients, series) else { continue };
            let metric = format!(
                "growth of an authorised packet's cost, 1 to {} clients, {}",
                figure(f64::from(*clients)),
                series.name()
            );
            let bar = if *clients == MANY && series.pattern == Pattern::Uniform && !series.metered {
                Bar::Both(Box::new(Bar::AtMost(90.0)), Box::new(Bar::Times(3.0)))
            } else {
                Bar::None
            };
            let row = Row::new(metric, "ns", many.gate - one.gate);
            rows.push(row.against("a BPF hash by MAC", many.hash - one.hash, Better::Lower).bar(&bar));
        }
    }
    let line = |series, of: fn(&Costs) -> f64| -> Vec<(f64, f64)> {
        CLIENTS.iter().filter_map(|n| find(*n, series)).map(|c| (f64::from(c.clients), of(c))).collect()
    };
    let mut plot = Plot::new(
        "clients",
        "An authorised packet's cost against the number of clients",
        "clients, sending at random",
        "ns over an empty program",
    )
    .log_x();
    for series in SERIES {
        plot = plot.line(format!("the gate, {}", series.name()), line(series, |c| c.gate));
    }
    plot = plot.line("a plain BPF hash by MAC, uniform", line(SERIES[0], |c| c.hash));
    Ok(Findings { rows, plots: vec![plot] })
}

/// What is sent, and whether it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Series {
    version: Version,
    pattern: Pattern,
    metered: bool,
}

const SERIES: [Series; 4] = [
    Series { version: Version::V4, pattern: Pattern::Uniform, metered: false },
    Series { version: Version::V6, pattern: Pattern::Uniform, metered: false },
    Series { version: Version::V4, pattern: Pattern::Uniform, metered: true },
    Series { version: Version::V4, pattern: Pattern::Zipf, metered: false },
];

impl Series {
    fn name(self) -> String {
        let metered = if self.metered { ", metered" } else { "" };
        format!("{}, {}{metered}", self.version.name(), order(self.pattern))
    }
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
    let (rounds, repeat) = (effort.rounds(45, 9), effort.frames().min(TURN));
    let from = Population { clients, first: FIRST_CLIENT };
    let mut injector = Injector::load(clients)?;
    injector.fill_hash(FIRST_CLIENT, clients)?;
    let mut gate = LoadedGate::new(LOOPBACK, clients, Limits::None)?;
    let fd = gate.gate.program()?.fd()?.try_clone()?;
    let mut all = Vec::new();
    for series in SERIES {
        let Series { version, pattern, metered } = series;
        // The other lines need no more than their ends where there is little time.
        let is_end = clients == CLIENTS[0] || clients == MANY;
        if effort.quick && !effort.check && !is_end && series != SERIES[0] {
            continue;
        }
        gate.set_accounting(metered)?;
        let frame = frames::segment(version, FIRST_CLIENT);
        // Each client twice before: its first packet binds its address, and its second notes that it rests. Neither is what its packets cost for the minute after.
        injector.send(&frame, version, from, Pattern::Sequential, plan::CALL)?;
        injector.aim_at(&fd)?;
        for _ in 0..2 {
            gate.demand(Reason::Authorized, clients, |_| injector.repeat(clients))?;
        }
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
        all.push(Costs { clients, series, gate: costs.over(1, 0), hash: costs.over(2, 0) });
    }
    Ok(all)
}
