//! What remains of clients' packets while strangers flood.
//!
//! ```text
//! CPU 0: injector, clients' and strangers' frames mixed ──► veth's ring, 256 frames ──► CPU 1: gate or rules, routing ──► sink
//! ```
//!
//! What finds the ring full is lost, whoever sent it, as in a NIC's ring. The generator has a CPU of its own and makes the same frames
//! whatever the flood: those that a weaker flood lacks are made, and withheld.

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{Xdp, XdpMode};
use portal_lab::process::{sh, succeed, wait_for};
use rustix::{
    process::Pid,
    thread::{CpuSet, sched_setaffinity},
};

use crate::{
    Effort, Findings,
    frames::{self, FIRST_CLIENT, FIRST_STRANGER, Version},
    gate::{Limits, LoadedGate},
    inject::{Injector, Mix, Pattern},
    kernel,
    plan::{self, Population},
    plot::Plot,
    report::{Bar, Better, Row, figure},
    rivals::{Proof, Rival, nft},
    yard::Yard,
};

/// Who is measured beside ours, with which program at the interface, and what is demanded of ours there.
const RIVALS: [(Rival, &str, Bar); 4] = [
    (nft::INGRESS, PASSES, BAR),
    (nft::FORWARD, PASSES, BAR),
    (nft::MAC_IP, PASSES, BAR),
    // What the machine can do at all.
    (ORACLE, "oracle", Bar::None),
];
const BAR: Bar = Bar::AtLeast(90.0);
/// A veth takes what XDP sends only if it has a program itself.
const PASSES: &str = "empty";
/// No table, no rules: a bit of the frame says whose it is.
const ORACLE: Rival =
    Rival { name: "an XDP program that need not ask", set_up: |_, _, _| Ok(()), proof: Proof::BeforeIp };
/// Clients that are logged in, and send.
const CLIENTS: Population = Population { clients: 1 << 10, first: FIRST_CLIENT };
/// Strangers that send.
const STRANGERS: Population = Population { clients: 1 << 16, first: FIRST_STRANGER };
/// Clients' frames among all: without a flood the gateway forwards every one of them.
const CLIENTS_SHARE: u32 = 65_536 / 32;
/// Strangers' frames that are withheld, of 65,536: from no flood to the heaviest.
const WITHHELD: [u32; 5] = [65_536, 49_152, 32_768, 16_384, 0];

/// The generator's CPU, and the gateway's.
const GENERATOR: usize = 0;
const GATEWAY: usize = 1;

/// One flood and what remained.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    /// Strangers' packets that were sent, millions per second.
    flood: f64,
    /// Clients' packets that were sent, per second.
    offered: f64,
    /// The part of them that left the gateway, of the part that does without a flood.
    share: f64,
}

/// From no flood to the heaviest, for ours and the rivals by turns.
pub fn run(effort: &Effort) -> Result<Findings> {
    let cpus = std::thread::available_parallelism()?.get();
    ensure!(cpus > GATEWAY, "needs two CPUs: one for the generator, one for the gateway");
    let frames = match effort {
        Effort { check: true, .. } => 100_000,
        Effort { quick: true, .. } => 6_000_000,
        Effort { .. } => 20_000_000,
    };
    let mut injector = Injector::load(1)?;
    let own = Yard::new(&mut injector)?;
    let mut gate = LoadedGate::new(own.ifindex, CLIENTS.clients, Limits::None)?;
    let program = gate.gate.program()?;
    own.gateway().enter(|| Ok(program.attach("guest0", XdpMode::Driver)?))?;
    prepare(&own, &mut injector)?;
    let rivals = RIVALS.map(|(rival, program, _)| {
        let yard = Yard::new(&mut injector)?;
        (rival.set_up)(&yard, &mut injector, CLIENTS.clients)?;
        let program: &mut Xdp = injector.program(program)?;
        yard.gateway().enter(|| Ok(program.attach("guest0", XdpMode::Driver)?))?;
        prepare(&yard, &mut injector)?;
        Ok(yard)
    });
    let yards: Vec<&Yard> = std::iter::once(&own).chain(rivals.iter().filter_map(|yard| yard.as_ref().ok())).collect();
    let mut kept = vec![Vec::new(); yards.len()];
    for withheld in WITHHELD {
        for (yard, kept) in yards.iter().zip(&mut kept) {
            kept.push(flood(yard, &mut injector, withheld, frames)?);
        }
    }
    // On a machine that does something else meanwhile, no figure means anything.
    let least = if effort.check { 0.0 } else { 0.95 };
    kept.iter_mut().try_for_each(|kept| against_calm(kept, least))?;
    Ok(findings(&kept, rivals))
}

fn findings(kept: &[Vec<Kept>], rivals: [Result<Yard>; RIVALS.len()]) -> Findings {
    const HEAVIEST: usize = WITHHELD.len() - 1;
    let mut kept = kept.iter();
    let ours = kept.next().map_or(&[][..], Vec::as_slice);
    let mut plot = Plot::new(
        "flood",
        "Clients' packets that are forwarded while strangers flood",
        "strangers' packets, millions per second",
        "percent of the clients' packets",
    )
    .line("Portal", line(ours));
    let heaviest = ours.get(HEAVIEST).copied().unwrap_or_default();
    let mut rows = Vec::new();
    for ((rival, _, bar), yard) in RIVALS.iter().zip(rivals) {
        let metric = format!("clients' packets kept in a flood of {} million a second", figure(heaviest.flood));
        let row = Row::new(metric, "%", heaviest.share * 100.0);
        let row = match (yard, kept.next()) {
            (Ok(_), Some(theirs)) => {
                plot = plot.line(rival.name, line(theirs));
                row.against(rival.name, theirs[HEAVIEST].share * 100.0, Better::Higher)
            }
            (Err(why), _) => row.without(rival.name, format!("{why:#}")),
            (Ok(_), None) => row,
        };
        rows.push(row.bar(bar));
    }
    Findings { rows, plots: vec![plot] }
}

fn line(kept: &[Kept]) -> Vec<(f64, f64)> {
    kept.iter().map(|kept| (kept.flood, kept.share * 100.0)).collect()
}

/// Has the gateway polled on its own CPU, and each client known to it; demands that it keeps strangers out.
fn prepare(yard: &Yard, injector: &mut Injector) -> Result<()> {
    const STRANGERS_ALONE: u32 = 65_536;
    /// The ring holds them all, so that none is lost.
    const AT_ONCE: u32 = 64;
    poll_on(yard, GATEWAY)?;
    for _ in 0..CLIENTS.clients.div_ceil(AT_ONCE) {
        let mix = Mix::default();
        let (clients, sunk, _) = send(yard, injector, mix, Pattern::Sequential, AT_ONCE)?;
        ensure!(sunk == clients, "of {clients} clients' packets {sunk} left the gateway");
    }
    let mix = Mix { share: STRANGERS_ALONE, withheld: 0 };
    let (_, sunk, _) = send(yard, injector, mix, Pattern::Uniform, AT_ONCE)?;
    ensure!(sunk == 0, "{sunk} of {AT_ONCE} strangers' packets left the gateway");
    Ok(())
}

/// One flood, on one gateway. The share is that of all that was sent.
fn flood(yard: &Yard, injector: &mut Injector, withheld: u32, frames: u32) -> Result<Kept> {
    let before = injector.done()?;
    let mix = Mix { share: 65_536 - CLIENTS_SHARE, withheld };
    let (clients, sunk, seconds) = send(yard, injector, mix, Pattern::Uniform, frames)?;
    let done = injector.done()?;
    let strangers = (done.others - before.others) - (done.withheld - before.withheld);
    ensure!(sunk <= clients, "{sunk} packets left the gateway, where clients sent {clients}: strangers got through");
    Ok(Kept {
        flood: strangers as f64 / seconds / 1e6,
        offered: clients as f64 / seconds,
        share: sunk as f64 / clients as f64,
    })
}

/// Sends so many frames; those that clients sent, those that left the gateway, and the seconds that sending took.
fn send(yard: &Yard, injector: &mut Injector, mix: Mix, pattern: Pattern, frames: u32) -> Result<(u64, u64, f64)> {
    /// What is in the ring still comes.
    const SETTLE: Duration = Duration::from_millis(20);
    let frame = frames::segment(Version::V4, FIRST_CLIENT);
    let eth0 = yard.index_of_guest()?;
    yard.guest().enter(|| injector.aim_out(eth0))?;
    injector.send_mixed(&frame, Version::V4, [CLIENTS, STRANGERS], mix, pattern, plan::REDIRECT)?;
    let (before, sunk) = (injector.done()?, injector.counts()?.sunk);
    let cost = yard.guest().enter(|| {
        kernel::on_cpu(GENERATOR)?;
        injector.live(eth0, frames)
    })?;
    std::thread::sleep(SETTLE);
    let (done, sunk) = (injector.done()?, injector.counts()?.sunk - sunk);
    let clients = (done.made - before.made) - (done.others - before.others);
    Ok((clients, sunk, cost * f64::from(frames) / 1e9))
}

/// Makes of each share the part of what leaves the gateway without a flood: what is lost then is not the flood's doing.
fn against_calm(kept: &mut [Kept], least: f64) -> Result<()> {
    let Some(calm) = kept.first().copied() else { return Ok(()) };
    ensure!(
        calm.share > least,
        "without a flood only {:.1} % of {:.0} packets a second are forwarded: the gateway's CPU is not free",
        calm.share * 100.0,
        calm.offered
    );
    for one in kept {
        one.share /= calm.share;
    }
    Ok(())
}

/// Has a CPU poll the gateway's guest interface, where the sender's would.
fn poll_on(yard: &Yard, cpu: usize) -> Result<()> {
    let before = pollers()?;
    // `ip netns exec` shows the namespace's own interfaces in /sys.
    succeed(yard.gateway().client("sh").args(["-c", "echo 1 > /sys/class/net/guest0/threaded"]))
        .context("the interface cannot be polled by a thread")?;
    let new = wait_for("a polling thread", Duration::from_secs(2), || {
        let new: Vec<Pid> = pollers().ok()?.difference(&before).filter_map(|pid| Pid::from_raw(*pid)).collect();
        (!new.is_empty()).then_some(new)
    })?;
    let mut set = CpuSet::new();
    set.set(cpu);
    for pid in new {
        sched_setaffinity(Some(pid), &set).context("cannot move the polling thread")?;
        // Before any process, as the interrupt that it stands for: what else runs on the machine is not measured.
        sh(&format!("chrt --fifo --pid 1 {}", pid.as_raw_pid()))?;
    }
    Ok(())
}

/// The kernel's threads that poll an interface of this name.
fn pollers() -> Result<BTreeSet<i32>> {
    let processes = fs::read_dir("/proc")?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let polls =
        |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.starts_with("napi/guest0-"));
    Ok(pids.filter(polls).collect())
}
