//! Whole HTTP exchanges with strangers: how many a gateway completes, and what each costs it.
//!
//! The crowd ([`generator`]) answers in the kernel, on one CPU; everything of the gateway is on another: what polls its end of the wire, and
//! portald's threads, or nginx. So the gateway's cost is the time of its own threads, and the generator's is not in it. Each response is
//! compared byte for byte, and each exchange goes from the SYN to the last ACK.

pub mod cpu;
pub mod gateway;
pub mod generator;
pub mod wire;

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use portal_lab::Lab;

use self::{
    cpu::{Cpus, Reading, Spent, Threads},
    gateway::Gateway,
    generator::{Generator, Tally},
    wire::Wire,
};
use crate::{
    Effort, Findings,
    plot::Plot,
    report::{Bar, Better, Row, figure},
    rivals::nginx::Nginx,
};

/// Before anything is counted: until the caches are warm and the batches have their size.
const WARM_UP: Duration = Duration::from_millis(400);
/// How many exchanges are in flight with ours, which has one frame of each on the wire, and with the rival, whose kernel has up to three: as many as a
/// veth's queue of 256 frames (`VETH_RING_SIZE`) holds.
const IN_FLIGHT: u32 = 200;
const IN_FLIGHT_RIVAL: u32 = 64;
/// Of the whole run no slot can make more; it ends by time long before.
const ROUNDS: u32 = 1 << 24;

/// A gateway that a crowd asks, and whose threads are known.
pub struct Target<'a> {
    /// What it is called.
    pub name: &'a str,
    /// Who asks.
    pub generator: &'a mut Generator,
    /// The gateway's threads.
    pub gateway: Threads,
    /// The generator's.
    pub clients: Threads,
    /// Which share of exchanges may fail: none of ours. A kernel's TCP repeats what its queue has lost, which this crowd does not wait for.
    pub may_fail: f64,
}

/// What a gateway did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// What the crowd saw.
    pub tally: Tally,
    /// What it took.
    pub spent: Spent,
}

impl Measured {
    /// Whole exchanges per second.
    pub fn per_second(&self) -> f64 {
        self.tally.seen.completed as f64 / self.spent.wall.as_secs_f64()
    }

    /// Whole exchanges per second of CPU time of the gateway's threads.
    pub fn per_cpu_second(&self) -> f64 {
        self.tally.seen.completed as f64 / self.spent.gateway.as_secs_f64()
    }

    /// The same by `/proc/stat`: whatever the gateway's CPU did, but for what it does when idle.
    fn per_busy_second(&self, idle: f64) -> f64 {
        self.tally.seen.completed as f64 / (self.spent.busy.as_secs_f64() - idle * self.spent.wall.as_secs_f64())
    }

    fn add(&mut self, other: &Self) {
        let (mine, its) = (&mut self.tally.seen, other.tally.seen);
        mine.completed += its.completed;
        mine.responses.iter_mut().zip(its.responses).for_each(|(sum, n)| *sum += n);
        self.spent.wall += other.spent.wall;
        self.spent.gateway += other.spent.gateway;
        self.spent.generator += other.spent.generator;
        self.spent.busy += other.spent.busy;
    }
}

impl Target<'_> {
    /// Lets the crowd ask for so long. An exchange that fails, anywhere from the first SYN to the last ACK, is an error.
    pub fn measure(&mut self, window: Duration, cpus: Cpus) -> Result<Measured> {
        let begin = self.generator.tally()?;
        self.generator.begin(self.generator.rounds()? + ROUNDS)?;
        self.generator.go_on(WARM_UP)?;
        let (before, from) = (self.generator.tally()?, Reading::take(&self.gateway, &self.clients, cpus)?);
        self.generator.go_on(window)?;
        let (after, to) = (self.generator.tally()?, Reading::take(&self.gateway, &self.clients, cpus)?);
        self.generator.finish()?;
        let whole = self.generator.tally()?.since(&begin);
        if let Some(faults) = whole.faults() {
            let sample = self.generator.wrong_sample()?;
            let faults =
                format!("{}: {faults}, of {} exchanges; the last wrong response: {sample:?}", self.name, whole.syns());
            ensure!(whole.syns() - whole.seen.completed <= (whole.syns() as f64 * self.may_fail) as u64, "{faults}");
            eprintln!("{faults}");
        }
        ensure!(after.seen.completed > before.seen.completed, "{}: no exchange was completed", self.name);
        Ok(Measured { tally: after.since(&before), spent: to.since(&from) })
    }
}

/// How busy a CPU is with nothing of ours, from 0 to 1.
fn idle_share(cpu: usize, time: Duration) -> Result<f64> {
    let before = cpu::busy(cpu)?;
    std::thread::sleep(time);
    Ok((cpu::busy(cpu)? - before).as_secs_f64() / time.as_secs_f64())
}

/// Measures whole exchanges with strangers, ours and nginx's by turns.
pub fn run(effort: &Effort) -> Result<Findings> {
    let (repeats, window) = match *effort {
        Effort { check: true, .. } => (1, Duration::from_millis(200)),
        Effort { quick: true, .. } => (3, Duration::from_secs(2)),
        Effort { .. } => (5, Duration::from_secs(4)),
    };
    // For the rival's neighbour table, which is filled beforehand; more clients than it are only measured with ours.
    const CLIENTS: u32 = 1000;
    let cpus = Cpus::choose()?;
    let lab = Lab::new()?;
    let (ours, theirs) = (Wire::lay(&lab.guest, &lab.gateway, 0)?, Wire::lay(&lab.guest, &lab.gateway, 1)?);
    let gateway = Gateway::start(&lab, &ours, false)?;
    let nginx = Nginx::start(&lab, &theirs, CLIENTS, cpus)?;
    let questions = gateway::questions(&ours)?;
    let mut portal = Generator::attach(&lab.guest, &ours, &gateway::plan(questions, CLIENTS, IN_FLIGHT))?;
    let mut rival = Generator::attach(&lab.guest, &theirs, &nginx.plan(CLIENTS, IN_FLIGHT_RIVAL))?;
    let (polls, clients) = ours.pin(&lab.guest, &lab.gateway, cpus)?;
    let gateway_threads = gateway.pin(cpus)?.and(&polls);
    let mut portal =
        Target { name: "Portal", generator: &mut portal, gateway: gateway_threads, clients, may_fail: 0.0 };
    let (polls, clients) = theirs.pin(&lab.guest, &lab.gateway, cpus)?;
    let mut rival =
        Target { name: "nginx", generator: &mut rival, gateway: nginx.threads()?.and(&polls), clients, may_fail: 1e-3 };

    let idle = idle_share(cpus.gateway, Duration::from_secs(1))?;
    let before = Gateway::counters(&lab)?;
    let begun = portal.generator.tally()?;
    let (mut us, mut them) = (Measured::default(), Measured::default());
    let (mut all_ours, mut all_theirs) = (Vec::new(), Vec::new());
    for _ in 0..repeats {
        let measured = portal.measure(window, cpus)?;
        all_ours.push(measured.per_second());
        us.add(&measured);
        let measured = rival.measure(window, cpus)?;
        all_theirs.push(measured.per_second());
        them.add(&measured);
    }
    demand_counters(&before, &Gateway::counters(&lab)?, &portal.generator.tally()?.since(&begun))?;
    nginx.demand_redirects(&rival.generator.tally()?)?;
    let latency = portal.generator.latency(&[0.5, 0.99])?;
    let rival_latency = rival.generator.latency(&[0.5, 0.99])?;
    say("Portal", &us, idle, &all_ours);
    say("nginx", &them, idle, &all_theirs);

    let mut findings = Findings::default();
    let rival_name = "nftables REDIRECT + nginx";
    findings.rows.push(
        Row::new("complete 511 exchanges, one core, generator apart", "1/s", us.per_second())
            .against(rival_name, them.per_second(), Better::Higher)
            .bar(&Bar::AtLeast(250_000.0)),
    );
    findings.rows.push(
        Row::new("511 responses per CPU-second of the whole gateway", "1/s", us.per_cpu_second())
            .against(rival_name, them.per_cpu_second(), Better::Higher)
            .bar(&Bar::Times(20.0)),
    );
    findings.rows.push(
        Row::new("511 responses per CPU-second, by /proc/stat", "1/s", us.per_busy_second(idle)).against(
            rival_name,
            them.per_busy_second(idle),
            Better::Higher,
        ),
    );
    for (name, i) in [("p50", 0), ("p99", 1)] {
        findings.rows.push(
            Row::new(format!("SYN to checked 511 under full load, {name}"), "µs", micros(latency[i])).against(
                format!("{rival_name}, with a third in flight"),
                micros(rival_latency[i]),
                Better::Lower,
            ),
        );
    }
    findings.plots.push(Plot::bars(
        "511-per-cpu-second",
        "511 responses per CPU-second of the gateway",
        "responses/s",
        &[("Portal".into(), us.per_cpu_second()), (rival_name.into(), them.per_cpu_second())],
    ));
    findings.plots.push(
        Plot::new(
            "latency",
            "From the SYN to the checked 511, under full load",
            "percent of the exchanges",
            "µs, at most",
        )
        .log_y()
        .line("Portal", percentiles(&portal.generator)?)
        .line(format!("{rival_name}, with a third in flight"), percentiles(&rival.generator)?),
    );
    Ok(findings)
}

/// How long so many percent of the exchanges took at most, microseconds.
fn percentiles(generator: &Generator) -> Result<Vec<(f64, f64)>> {
    const SHARES: [f64; 10] = [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.999];
    let times = generator.latency(&SHARES)?;
    Ok(SHARES.iter().zip(times).map(|(share, time)| (share * 100.0, micros(time))).collect())
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn say(name: &str, measured: &Measured, idle: f64, repeats: &[f64]) {
    let Measured { tally, spent } = measured;
    let each = |time: Duration| time.as_secs_f64() * 1e6 / tally.seen.completed as f64;
    let repeats: Vec<_> = repeats.iter().map(|rate| figure(*rate)).collect();
    eprintln!(
        "{name}: {} exchanges ({} of them probes) in {:.2} s, {:.2} µs each; per exchange: gateway {:.2} µs of CPU, its CPU busy {:.2} µs (idle {:.1} %), \
         generator {:.2} µs; each run, 1/s: {}",
        figure(tally.seen.completed as f64),
        figure(tally.seen.responses[1] as f64),
        spent.wall.as_secs_f64(),
        each(spent.wall),
        each(spent.gateway),
        each(spent.busy),
        idle * 100.0,
        each(spent.generator),
        repeats.join(", "),
    );
}

/// Demands that the gate counted what the crowd did: each frame of each exchange under its reason, and no other reason.
pub(crate) fn demand_counters(
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
    tally: &Tally,
) -> Result<()> {
    let grown = |name: &str| -> Result<u64> {
        let now = after.get(name).with_context(|| format!("no counter {name}"))?;
        Ok(now - before.get(name).copied().unwrap_or_default())
    };
    let exchanges = tally.seen.completed;
    for name in ["http_handshake", "http_request", "http_acknowledged"] {
        let counted = grown(name)?;
        ensure!(counted == exchanges, "the gate counted {counted} times {name}, for {exchanges} exchanges");
    }
    for name in ["http_foreign", "http_ack_only", "responder_absent", "budget_requests", "budget_replies"] {
        ensure!(grown(name)? == 0, "the gate counted {name}");
    }
    Ok(())
}
