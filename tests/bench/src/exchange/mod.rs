//! Whole HTTP exchanges with strangers: how many a gateway completes, and what each costs it.
//!
//! The crowd ([`generator`]) answers in the kernel, on one CPU; everything of the gateway is on another: what polls its end of the wire, and
//! portald's threads, or nginx. So the gateway's cost is the time of its own threads, and the generator's is not in it. Each response is
//! compared byte for byte, and each exchange goes from the SYN to the last ACK.

pub mod cpu;
pub mod gateway;
pub mod generator;
mod parts;
pub mod wire;
mod wrk;

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
    /// What polls the gateway's end of the wire, and with it the gate, or the network stack.
    pub polls: Threads,
    /// The gateway's processes: portald, or nginx.
    pub processes: Threads,
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
        self.tally.seen.completed as f64 / self.spent.gateway().as_secs_f64()
    }

    /// The same by `/proc/stat`: whatever the gateway's CPU did, but for what it does when idle.
    fn per_busy_second(&self, idle: f64) -> f64 {
        self.tally.seen.completed as f64 / (self.spent.busy.as_secs_f64() - idle * self.spent.wall.as_secs_f64())
    }

    /// This time, for each exchange: microseconds.
    fn each(&self, time: Duration) -> f64 {
        micros(time) / self.tally.seen.completed as f64
    }

    fn add(&mut self, other: &Self) {
        let (mine, its) = (&mut self.tally.seen, other.tally.seen);
        mine.completed += its.completed;
        mine.responses.iter_mut().zip(its.responses).for_each(|(sum, n)| *sum += n);
        self.spent.add(&other.spent);
    }
}

impl Target<'_> {
    fn reading(&self, cpus: Cpus) -> Result<Reading> {
        Reading::take(&self.polls, &self.processes, &self.clients, cpus)
    }

    /// Lets the crowd ask for so long. An exchange that fails, anywhere from the first SYN to the last ACK, is an error.
    pub fn measure(&mut self, window: Duration, cpus: Cpus) -> Result<Measured> {
        let begin = self.generator.tally()?;
        self.generator.begin(self.generator.rounds()? + ROUNDS)?;
        self.generator.go_on(WARM_UP)?;
        let (before, from) = (self.generator.tally()?, self.reading(cpus)?);
        self.generator.go_on(window)?;
        let (after, to) = (self.generator.tally()?, self.reading(cpus)?);
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
    Ok(cpu::busy(cpu)?.saturating_sub(before).as_secs_f64() / time.as_secs_f64())
}

/// For the rival's neighbour table, which is filled beforehand.
const CLIENTS: u32 = 1000;
/// So many clients that none reaches the budget of a stranger, however fast all of them are answered.
const CROWDED: u32 = 50_000;
const RIVAL: &str = "nftables REDIRECT + nginx";

/// Measures whole exchanges with strangers, ours and nginx's by turns.
pub fn run(effort: &Effort) -> Result<Findings> {
    let (repeats, window) = match *effort {
        Effort { check: true, .. } => (1, Duration::from_millis(200)),
        Effort { quick: true, .. } => (3, Duration::from_secs(2)),
        Effort { .. } => (5, Duration::from_secs(4)),
    };
    let cpus = Cpus::choose()?;
    let lab = Lab::new()?;
    let (ours, theirs) = (Wire::lay(&lab.guest, &lab.gateway, 0)?, Wire::lay(&lab.guest, &lab.gateway, 1)?);
    let gateway = Gateway::start(&lab, &ours, false)?;
    let mut generator =
        Generator::attach(&lab.guest, &ours, &gateway::plan(gateway::questions(&ours)?, CLIENTS, IN_FLIGHT))?;
    let (polls, clients) = ours.pin(&lab.guest, &lab.gateway, cpus)?;
    let processes = gateway.pin(cpus)?;
    let mut portal = Target { name: "Portal", generator: &mut generator, polls, processes, clients, may_fail: 0.0 };
    // What is wrong with the rival must not hide what is measured of ours.
    let nginx = Nginx::start(&lab, &theirs, CLIENTS, cpus);
    let mut rival_generator = match &nginx {
        Ok(nginx) => Some(Generator::attach(&lab.guest, &theirs, &nginx.plan(CLIENTS, IN_FLIGHT_RIVAL))?),
        Err(_) => None,
    };
    let mut rival = match (&nginx, &mut rival_generator) {
        (Ok(nginx), Some(generator)) => {
            let (polls, clients) = theirs.pin(&lab.guest, &lab.gateway, cpus)?;
            Some(Target { name: "nginx", generator, polls, processes: nginx.threads()?, clients, may_fail: 1e-3 })
        }
        _ => None,
    };

    let idle = idle_share(cpus.gateway, Duration::from_secs(1))?;
    let before = Gateway::counters(&lab)?;
    let begun = portal.generator.tally()?;
    let (mut us, mut them) = (Measured::default(), Measured::default());
    let (mut all_ours, mut all_theirs) = (Vec::new(), Vec::new());
    for _ in 0..repeats {
        let measured = portal.measure(window, cpus)?;
        all_ours.push(measured.per_second());
        us.add(&measured);
        if let Some(rival) = &mut rival {
            let measured = rival.measure(window, cpus)?;
            all_theirs.push(measured.per_second());
            them.add(&measured);
        }
    }
    demand_counters(&before, &Gateway::counters(&lab)?, &portal.generator.tally()?.since(&begun), By::Gate(TAUGHT))?;
    say("Portal", &us, idle, &all_ours);
    if let (Ok(nginx), Some(rival)) = (&nginx, &rival) {
        nginx.demand_redirects(&rival.generator.tally()?)?;
        say("nginx", &them, idle, &all_theirs);
    }
    let theirs_measured = rival.as_ref().map(|_| &them);
    let refusal = nginx.as_ref().err().map(|e| format!("{e:#}"));
    let mut findings =
        Findings { rows: rows(&us, theirs_measured, refusal.as_deref(), idle, effort)?, plots: Vec::new() };
    let rival_generator_now = rival.as_ref().map(|rival| &*rival.generator);
    latencies(portal.generator, rival_generator_now, refusal.as_deref(), &mut findings)?;
    findings.rows.push(by_responder(&lab, &mut portal, idle, (repeats, window), cpus)?);

    // The same two gateways, asked by wrk: the clients' ends pass everything to the kernel now.
    let (portal_threads, rival_threads) =
        (portal.polls.clone().and(&portal.processes), rival.as_ref().map(|r| r.polls.clone().and(&r.processes)));
    drop(generator);
    drop(rival_generator);
    let ours_by_wrk = wrk::run(&lab, &ours, &portal_threads, cpus, window)?;
    let theirs_by_wrk = rival_threads.map(|threads| wrk::run(&lab, &theirs, &threads, cpus, window)).transpose()?;
    let row = Row::new("511 responses per CPU-second, asked by wrk", "1/s", ours_by_wrk);
    findings.rows.push(beside(row, theirs_by_wrk, refusal.as_deref(), Better::Higher));
    drop((gateway, nginx));
    if !effort.check {
        findings.rows.push(crowded(window, cpus)?);
    }
    Ok(findings)
}

/// A row with the rival's figure, or with why there is none.
fn beside(row: Row, theirs: Option<f64>, refusal: Option<&str>, better: Better) -> Row {
    match (theirs, refusal) {
        (Some(theirs), _) => row.against(RIVAL, theirs, better),
        (None, Some(why)) => row.without(RIVAL, why),
        (None, None) => row,
    }
}

fn rows(us: &Measured, them: Option<&Measured>, refusal: Option<&str>, idle: f64, effort: &Effort) -> Result<Vec<Row>> {
    let row = |metric: &str, unit, better, figure: &dyn Fn(&Measured) -> f64| {
        beside(Row::new(metric, unit, figure(us)), them.map(figure), refusal, better)
    };
    Ok(vec![
        row("complete 511 exchanges, one core, generator apart", "1/s", Better::Higher, &Measured::per_second)
            .bar(&Bar::AtLeast(250_000.0)),
        row("511 responses per CPU-second of the whole gateway", "1/s", Better::Higher, &Measured::per_cpu_second)
            .bar(&Bar::Times(20.0)),
        row("the same by /proc/stat, less what the CPU does when idle", "1/s", Better::Higher, &|m| {
            m.per_busy_second(idle)
        }),
        row("of an exchange: polling the wire, with the gate or the stack", "µs", Better::Lower, &|m| {
            m.each(m.spent.polls)
        }),
        row("of an exchange: portald's or nginx's time, and system calls", "µs", Better::Lower, &|m| {
            m.each(m.spent.processes)
        }),
        Row::new("a request at the responder alone, fed from memory", "ns", parts::responder(effort)?),
    ])
}

/// How long exchanges took, as rows and as a plot; and the plot of what they cost.
fn latencies(
    ours: &Generator,
    theirs: Option<&Generator>,
    refusal: Option<&str>,
    findings: &mut Findings,
) -> Result<()> {
    let rival = format!("{RIVAL}, with a third in flight");
    let (of_ours, of_theirs) = (percentiles(ours)?, theirs.map(percentiles).transpose()?);
    for percent in [50.0, 99.0] {
        let at = |points: &[(f64, f64)]| points.iter().find(|(x, _)| *x >= percent).map_or(0.0, |(_, time)| *time);
        let row = Row::new(format!("SYN to checked 511 under full load, p{percent}"), "µs", at(&of_ours));
        let row = beside(row, of_theirs.as_deref().map(at), refusal, Better::Lower);
        findings.rows.push(if of_theirs.is_some() { Row { rival: rival.clone(), ..row } } else { row });
    }
    let plot = Plot::new(
        "latency",
        "From the SYN to the checked 511, under full load",
        "percent of the exchanges",
        "µs, at most",
    );
    let plot = plot.log_y().line("Portal", of_ours);
    findings.plots.push(match of_theirs {
        Some(points) => plot.line(rival, points),
        None => plot,
    });
    let figures = |i: usize| findings.rows.get(i).map(|row| (row.ours, row.theirs));
    if let Some((Some(us), Some(them))) = figures(1) {
        findings.plots.push(Plot::bars(
            "511-per-cpu-second",
            "511 responses per CPU-second of the gateway",
            "responses/s",
            &[("Portal".into(), us), (RIVAL.into(), them)],
        ));
    }
    Ok(())
}

/// How long so many percent of the exchanges took at most, microseconds.
fn percentiles(generator: &Generator) -> Result<Vec<(f64, f64)>> {
    const SHARES: [f64; 10] = [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.999];
    let times = generator.latency(&SHARES)?;
    Ok(SHARES.iter().zip(times).map(|(share, time)| (share * 100.0, micros(time))).collect())
}

/// The same of ours, where the responder answers every request: as where each is another than all before.
fn by_responder(
    lab: &Lab,
    portal: &mut Target<'_>,
    idle: f64,
    (repeats, window): (u32, Duration),
    cpus: Cpus,
) -> Result<Row> {
    portal.generator.can_be_known(false);
    let (before, begun) = (Gateway::counters(lab)?, portal.generator.tally()?);
    let (mut sum, mut all) = (Measured::default(), Vec::new());
    for _ in 0..repeats {
        let measured = portal.measure(window, cpus)?;
        all.push(measured.per_second());
        sum.add(&measured);
    }
    let tally = portal.generator.tally()?.since(&begun);
    demand_counters(&before, &Gateway::counters(lab)?, &tally, By::Responder)?;
    portal.generator.can_be_known(true);
    say("Portal, by its responder", &sum, idle, &all);
    Ok(Row::new("511 responses per CPU-second, where the responder gives each", "1/s", sum.per_cpu_second()))
}

/// The same of ours, as it comes: with the budgets for strangers, and many of them.
fn crowded(window: Duration, cpus: Cpus) -> Result<Row> {
    let lab = Lab::new()?;
    let wire = Wire::lay(&lab.guest, &lab.gateway, 0)?;
    let gateway = Gateway::start(&lab, &wire, true)?;
    let plan = gateway::plan(gateway::questions(&wire)?, CROWDED, IN_FLIGHT);
    let mut generator = Generator::attach(&lab.guest, &wire, &plan)?;
    let (polls, clients) = wire.pin(&lab.guest, &lab.gateway, cpus)?;
    let processes = gateway.pin(cpus)?;
    let mut target = Target { name: "Portal", generator: &mut generator, polls, processes, clients, may_fail: 0.0 };
    let before = Gateway::counters(&lab)?;
    let measured = target.measure(window, cpus)?;
    let tally = target.generator.tally()?;
    demand_counters(&before, &Gateway::counters(&lab)?, &tally, By::Gate(TAUGHT))?;
    let clients = figure(f64::from(CROWDED));
    Ok(Row::new(
        format!("511 per CPU-second with the default budgets, {clients} clients"),
        "1/s",
        measured.per_cpu_second(),
    ))
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn say(name: &str, measured: &Measured, idle: f64, repeats: &[f64]) {
    let Measured { tally, spent } = measured;
    let repeats: Vec<_> = repeats.iter().map(|rate| figure(*rate)).collect();
    eprintln!(
        "{name}: {} exchanges, {} of them probes, in {:.2} s; each {:.2} µs: {:.2} of the gateway's threads, its CPU busy for {:.2} (idle {:.1} %), {:.2} of the \
         generator's; 1/s in each run: {}",
        figure(tally.seen.completed as f64),
        figure(tally.seen.responses[1] as f64),
        spent.wall.as_secs_f64(),
        measured.each(spent.wall),
        measured.each(spent.gateway()),
        measured.each(spent.busy),
        idle * 100.0,
        measured.each(spent.generator),
        repeats.join(", "),
    );
}

/// Who has answered the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The gate, all but what the responder has taught it by: as many as this at most.
    Gate(u64),
    /// The responder, all of them.
    Responder,
    /// Either.
    Anybody,
}

/// Until the gate has learned the crowd's four requests: as many as there are frames in flight and in the responder's queue, and many times that.
const TAUGHT: u64 = 20_000;

/// Demands that the gate counted what the crowd did: each frame of each exchange under its reason, and no other reason.
pub(crate) fn demand_counters(
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
    tally: &Tally,
    by: By,
) -> Result<()> {
    let grown = |name: &str| -> Result<u64> {
        let now = after.get(name).with_context(|| format!("no counter {name}"))?;
        Ok(now - before.get(name).copied().unwrap_or_default())
    };
    let exchanges = tally.seen.completed;
    let (responder, gate) = (grown("http_request")?, grown("http_answered")?);
    for (name, counted) in [
        ("http_handshake", grown("http_handshake")?),
        ("http_request or http_answered", responder + gate),
        ("http_acknowledged", grown("http_acknowledged")?),
    ] {
        ensure!(counted == exchanges, "the gate counted {counted} times {name}, for {exchanges} exchanges");
    }
    eprintln!("of {exchanges} responses the gate has given {gate}, and the responder {responder}");
    let as_said = match by {
        By::Gate(most) => responder <= most,
        By::Responder => gate == 0,
        By::Anybody => true,
    };
    ensure!(as_said, "{by:?} was to answer, but the gate has given {gate} responses, and the responder {responder}");
    for name in
        ["http_foreign", "http_ack_only", "responder_absent", "answer_failed", "budget_requests", "budget_replies"]
    {
        ensure!(grown(name)? == 0, "the gate counted {name}");
    }
    Ok(())
}
