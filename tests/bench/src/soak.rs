//! A day of use, compressed into minutes: clients arrive, probe, log in, use the network, change their address, are forgotten when their session ends, and
//! probe again. At the end portald has as much memory as when the house was first full, nothing in its log, and its counters say what was done.

use std::{
    collections::VecDeque,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use etherparse::PacketBuilder;
use portal_bench_ebpf::crowd::Crowd;
use portal_lab::{
    Lab,
    portald::{portalctl_json, socket},
    wire::Wire as Frames,
};

use crate::{
    Effort, Findings,
    exchange::{
        By, demand_counters,
        gateway::{self, Gateway},
        generator::{Generator, Tally},
        wire::{Wire, addresses},
    },
    login,
    plot::Plot,
    report::{Bar, Row, figure},
};

/// How many clients are logged in at once.
const ONLINE: u32 = 10_000;
/// The day is so many sessions long: 24 hours of 8 each.
const SESSIONS_PER_DAY: u32 = 3;
/// How often each arriving client probes, over both families, before it logs in.
const PROBES: u32 = 3;
/// One frame of so many clients is sent in each step, from the ones that have been logged in longest to the newest, and round again.
const FRAMES_PER_STEP: u32 = 700;
/// Every so many of these clients have changed their address.
const ROAMS_EVERY: u32 = 7;
/// How long a step is.
const STEP: Duration = Duration::from_secs(1);
/// Nobody is held to a session's last moments: by the clock's tick, and by how long a step's logins take.
const MARGIN: Duration = Duration::from_secs(2);
/// portald removes what has ended once a minute, and needs memory for a list of all there is: the most after a minute in which as many sessions ended as in
/// any other.
const SWEEP: Duration = Duration::from_secs(122);
/// How much more memory than when the house was full: what an allocator's arenas differ by.
const MOST_GROWTH_PERCENT: f64 = 5.0;
/// Where clients' frames go, whatever becomes of them: the gateway has no way there (RFC 5737, RFC 3849).
const NOWHERE: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(203, 0, 113, 9), Ipv6Addr::new(0x2001, 0xdb8, 0xdead, 0, 0, 0, 0, 9));

/// Clients that arrived together.
#[derive(Debug)]
struct Arrivals {
    first: u32,
    count: u32,
    /// When the first was logged in, and the last.
    logged_in: (Instant, Instant),
}

/// Lives through a day.
pub fn run(effort: &Effort) -> Result<Findings> {
    let minutes = effort.minutes.unwrap_or(if effort.quick { 0.5 } else { 10.0 });
    let day = Duration::from_secs_f64(minutes * 60.0);
    let session = Duration::from_secs((day / SESSIONS_PER_DAY).as_secs());
    ensure!(session > 4 * MARGIN, "a day of {day:?} is too short: give it half a minute");
    let lab = Lab::new()?;
    let wire = Wire::lay(&lab.guest, &lab.gateway, 0)?;
    let mut gateway = Gateway::start(&lab, &wire, true)?;
    lab.gateway.ip(&format!("route add blackhole {}/32", NOWHERE.0))?;
    lab.gateway.ip(&format!("-6 route add blackhole {}/128", NOWHERE.1))?;
    let mut soak = Soak {
        generator: Generator::attach(&lab.guest, &wire, &gateway::plan(gateway::questions(&wire)?, ONLINE, 64))?,
        frames: lab.guest.enter(|| Ok(Frames::open_for_sending(&wire.clients, 8 << 20)?))?,
        lab: &lab,
        wire: &wire,
        session,
        online: VecDeque::new(),
        arrived: 0,
        logins: 0,
        sent: Vec::new(),
        next_frame: 0,
    };
    let before = Gateway::counters(&lab)?;
    let begun = soak.generator.tally()?;
    let pid = gateway.portald().pid();
    let start = Instant::now();
    let mut full: Option<u64> = None;
    let (mut first, mut steps) = (resident(pid)?, 0u32);
    let mut memory = Vec::new();
    while start.elapsed() < day {
        soak.step(start.elapsed())?;
        steps += 1;
        if full.is_none() && start.elapsed() > session + SWEEP {
            full = Some(resident(pid)?);
        }
        if steps == 1 {
            first = resident(pid)?;
        }
        memory.push((start.elapsed().as_secs_f64() / 60.0, resident(pid)? as f64));
        let next = STEP * steps;
        thread::sleep(next.saturating_sub(start.elapsed()));
    }
    let end = resident(pid)?;
    soak.demand_consistency(&before, &begun)?;
    let log = gateway.portald().log();
    let complaints: Vec<&str> =
        log.lines().filter(|line| line.contains(" ERROR ") || line.contains(" WARN ")).collect();
    for line in complaints.iter().take(10) {
        eprintln!("portald's log: {line}");
    }
    let tally = soak.generator.tally()?.since(&begun);
    eprintln!(
        "{:.1} minutes for a day of {SESSIONS_PER_DAY} sessions of {session:?}: {} clients arrived, {} exchanges (each whole, every byte checked), {} logins, {} frames of \
         clients that are logged in; {steps} steps",
        start.elapsed().as_secs_f64() / 60.0,
        figure(f64::from(soak.arrived)),
        figure(tally.seen.completed as f64),
        figure(f64::from(soak.logins)),
        figure(soak.sent.iter().map(|n| f64::from(*n)).sum()),
    );
    for (minutes, kib) in memory.iter().step_by(15) {
        eprintln!("after {minutes:.2} min: {} KiB", figure(*kib));
    }
    let mut findings = Findings::default();
    let plot = Plot::new("soak-memory", "portald's memory over a day of use", "minutes", "KiB");
    findings.plots.push(plot.line("resident", memory));
    let day = format!("a day in {} min", figure(day.as_secs_f64() / 60.0));
    findings.rows.push(Row::new(format!("{day}: portald's memory at the first login"), "KiB", first as f64));
    findings.rows.push(Row::new(format!("{day}: at the end"), "KiB", end as f64));
    // A shorter day has no such time.
    if let Some(full) = full {
        let online = figure(f64::from(ONLINE));
        let growth = (end as f64 / full as f64 - 1.0) * 100.0;
        findings.rows.push(Row::new(
            format!("{day}: with {online} clients online for two minutes"),
            "KiB",
            full as f64,
        ));
        findings.rows.push(
            Row::new(format!("{day}: growth from then to the end"), "%", growth).bar(&Bar::AtMost(MOST_GROWTH_PERCENT)),
        );
    }
    findings.rows.push(
        Row::new(format!("{day}: warnings and errors in the log"), "lines", complaints.len() as f64)
            .bar(&Bar::AtMost(0.0)),
    );
    Ok(findings)
}

struct Soak<'a> {
    generator: Generator,
    frames: Frames,
    lab: &'a Lab,
    wire: &'a Wire,
    session: Duration,
    /// Who is logged in, the oldest first.
    online: VecDeque<Arrivals>,
    arrived: u32,
    logins: u32,
    /// How many frames each client has sent since it logged in.
    sent: Vec<u32>,
    next_frame: u32,
}

impl Soak<'_> {
    /// What happens in a second.
    fn step(&mut self, elapsed: Duration) -> Result<()> {
        self.forget()?;
        // As many have come by now as keep the house full.
        let due = f64::from(ONLINE) * (elapsed + STEP).as_secs_f64() / self.session.as_secs_f64();
        let count = (due as u32).saturating_sub(self.arrived);
        if count > 0 {
            self.arrive(count)?;
        }
        self.use_network()
    }

    /// New clients probe, get the 511 or the redirect, and log in.
    fn arrive(&mut self, count: u32) -> Result<()> {
        let first = self.arrived;
        self.generator.ask(first, count, PROBES, Duration::from_secs(10))?;
        let body = format!("{{\"for_seconds\":{}}}", self.session.as_secs());
        let path = socket(self.lab);
        let begin = Instant::now();
        for client in first..first + count {
            login::put(&path, Crowd::mac(client), &body)?;
        }
        self.logins += count;
        self.arrived += count;
        self.sent.resize(self.arrived as usize, 0);
        self.online.push_back(Arrivals { first, count, logged_in: (begin, Instant::now()) });
        Ok(())
    }

    /// Clients whose sessions have ended are strangers, and get the 511 again.
    fn forget(&mut self) -> Result<()> {
        while let Some(oldest) = self.online.front() {
            // The gate's clock ticks, and the daemon counts whole seconds.
            if oldest.logged_in.1.elapsed() < self.session + Duration::from_millis(100) {
                break;
            }
            let (first, count) = (oldest.first, oldest.count);
            self.online.pop_front();
            self.generator.ask(first, count, 1, Duration::from_secs(10))?;
        }
        Ok(())
    }

    /// Clients that are logged in send frames, over both families, and some from another address than before.
    fn use_network(&mut self) -> Result<()> {
        let staying = self.online.iter().filter(|batch| batch.logged_in.0.elapsed() + MARGIN < self.session);
        let ranges: Vec<_> = staying.map(|batch| (batch.first, batch.count)).collect();
        let total: u32 = ranges.iter().map(|(_, count)| count).sum();
        let mut batch = Vec::new();
        for _ in 0..FRAMES_PER_STEP.min(total) {
            let mut place = self.next_frame % total;
            self.next_frame = self.next_frame.wrapping_add(1);
            for (first, count) in &ranges {
                if place < *count {
                    let client = first + place;
                    batch.push(self.frame(client)?);
                    self.sent[client as usize] += 1;
                    break;
                }
                place -= count;
            }
        }
        // The veth holds 256.
        for frames in batch.chunks(64) {
            let mut rest = frames;
            while !rest.is_empty() {
                rest = &rest[self.frames.send_many(rest)?..];
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn frame(&self, client: u32) -> Result<Vec<u8>> {
        let mut frame = Vec::new();
        let turn = self.sent[client as usize];
        // Another address of the same client: in the upper half of the wire's.
        let moved = if client.is_multiple_of(ROAMS_EVERY) && turn >= 2 { 1 << 19 } else { 0 };
        let (v4, v6) = (addresses::client_v4(self.wire.number), addresses::client_v6(self.wire.number));
        let v4 = Ipv4Addr::from(u32::from(v4) + client + moved);
        let v6 = Ipv6Addr::from(u128::from(v6) + u128::from(client + moved));
        let step = PacketBuilder::ethernet2(Crowd::mac(client), self.wire.gateway_mac());
        let step = match if turn.is_multiple_of(2) { IpAddr::V4(v4) } else { IpAddr::V6(v6) } {
            IpAddr::V4(from) => step.ipv4(from.octets(), NOWHERE.0.octets(), 64),
            IpAddr::V6(from) => step.ipv6(from.octets(), NOWHERE.1.octets(), 64),
        };
        step.udp(5000, 9).write(&mut frame, &[0; 32])?;
        Ok(frame)
    }

    /// What the gate and the daemon have counted is what was done.
    fn demand_consistency(&self, before: &std::collections::BTreeMap<String, u64>, begun: &Tally) -> Result<()> {
        let after = Gateway::counters(self.lab)?;
        let tally = self.generator.tally()?.since(begun);
        ensure!(tally.faults().is_none(), "{}, of {} exchanges", tally.faults().unwrap_or_default(), tally.syns());
        demand_counters(before, &after, &tally, By::Anybody)?;
        let frames: u64 = self.sent.iter().map(|n| u64::from(*n)).sum();
        let passed = after["authorized"] - before["authorized"];
        ensure!(passed == frames, "the gate let {passed} frames of clients pass, of {frames}");
        let status = portalctl_json(self.lab, &["status"])?;
        let answered = |name: &str| status["responder"][name].as_u64().with_context(|| format!("no {name}: {status}"));
        let [pages, probes] = tally.seen.responses;
        ensure!(
            answered("answered_511")? == pages,
            "the responder gave {} times 511, not {pages}",
            answered("answered_511")?
        );
        ensure!(
            answered("answered_302")? == probes,
            "the responder gave {} times 302, not {probes}",
            answered("answered_302")?
        );
        let online = portalctl_json(self.lab, &["clients", "list"])?;
        let online = online["clients"].as_array().context("no list of clients")?;
        // Those of the margin may have gone since.
        let most: u32 = self.online.iter().map(|batch| batch.count).sum();
        let staying = self.online.iter().filter(|batch| batch.logged_in.0.elapsed() + MARGIN < self.session);
        let least: u32 = staying.map(|batch| batch.count).sum();
        let count = online.len() as u32;
        ensure!((least..=most).contains(&count), "{count} clients are online, of {least} to {most}");
        for client in online {
            let mac: portal_userspace::net::Mac = serde_json::from_value(client["mac"].clone())?;
            let [.., a, b, c, d] = mac.bytes();
            let sent = self.sent.get(u32::from_be_bytes([a, b, c, d]) as usize).copied().context("nobody's session")?;
            let counted = client["up"]["packets"].as_u64().context("no packets")?;
            ensure!(counted == u64::from(sent), "{mac} has sent {sent} frames, and the gate counted {counted}");
        }
        Ok(())
    }
}

/// A process's memory, KiB.
fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
