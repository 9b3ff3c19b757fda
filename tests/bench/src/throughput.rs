//! A guest's TCP throughput through the whole gateway, portald included, while trafgen floods: iperf3's figures, as an operator would measure.
//!
//! On two CPUs the flood's sender has one, and both ends of the guest's flows share the other with the gateway. `flood` is what separates these;
//! this shows the same with real programs.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use portal_lab::{
    Lab, Namespace, Options, Portald, Settings,
    addresses::{SITE_V4, THIRD_MAC, THIRD_V4},
    clients::iperf::{Direction, Iperf},
    portald::portalctl,
    process::{self, Service, succeed, wait_for},
};

use crate::{
    Effort, Findings,
    kernel::middle,
    report::{Better, Row},
};

/// The flood's CPU, and the guest's.
const FLOOD_CPU: usize = 0;
const GUEST_CPU: usize = 1;
/// What trafgen sends at most, whatever happens.
const MOST_FRAMES: &str = "20000000";

/// Without the flood and with it, one after the other; first nftables, then portald.
pub fn run(effort: &Effort) -> Result<Findings> {
    let cpus = std::thread::available_parallelism()?.get();
    ensure!(cpus > GUEST_CPU, "needs two CPUs: one for the flood, one for the guest");
    let (rounds, seconds) = (effort.rounds(5, 2), if effort.quick { 2 } else { 4 });
    let lab = Lab::with(Options { queues: 2 })?;
    let third = lab.add_third()?;
    // Portal's veth in native XDP has no segments of 64 KiB, which a NIC does not forward as such either: so nobody has.
    for (namespace, interface) in [
        (&third, "eth0"),
        (&lab.guest, "eth0"),
        (&lab.gateway, "guest0"),
        (&lab.gateway, "wan0"),
        (&lab.internet, "eth0"),
    ] {
        let off = ["-K", interface, "tso", "off", "gso", "off", "gro", "off"];
        succeed(namespace.service("ethtool").args(off)).context("the offloads cannot be switched off")?;
    }
    let theirs = nft(&lab).and_then(|()| kept(&lab, &third, rounds, seconds));
    if theirs.is_ok() {
        succeed(lab.gateway.service("nft").args(["flush", "ruleset"]))?;
    }
    let mut portald = Portald::start(&lab, &Settings::default())?;
    portald.prints_log = false;
    portalctl(&lab, &["allow", THIRD_MAC])?.success().context("the guest is not let in")?;
    let ours = kept(&lab, &third, rounds, seconds)?;
    let row = |metric: &str, unit: &str, ours: f64, of: fn(&Kept) -> f64| {
        let row = Row::new(metric, unit, ours);
        match &theirs {
            Ok(theirs) => row.against("nftables, ingress set", of(theirs), Better::Higher),
            Err(why) => row.without("nftables, ingress set", format!("{why:#}")),
        }
    };
    let rows = vec![
        row("a guest's TCP upload (iperf3, without offloads), no flood", "Mbit/s", ours.calm, |kept| kept.calm),
        row("a guest's TCP upload (iperf3), kept while trafgen floods", "%", ours.percent, |kept| kept.percent),
        row("frames that trafgen flooded with", "per second", ours.flood, |kept| kept.flood),
    ];
    Ok(Findings { rows, plots: Vec::new() })
}

struct Kept {
    /// Mbit/s without the flood.
    calm: f64,
    /// Of that with it, percent.
    percent: f64,
    /// The flood's frames per second, as they arrived at the gateway or were lost on the wire to it.
    flood: f64,
}

fn kept(lab: &Lab, guest: &Namespace, rounds: usize, seconds: u32) -> Result<Kept> {
    let iperf = Iperf { to: SITE_V4.into(), direction: Direction::Up, seconds, streams: 2, cpu: Some(GUEST_CPU) };
    let (mut calm, mut flooded, mut pace) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        calm.push(iperf.run(lab, guest)? / 1e6);
        let mut trafgen = trafgen(lab)?;
        let (before, start) = (sent(lab)?, std::time::Instant::now());
        flooded.push(iperf.run(lab, guest)? / 1e6);
        pace.push((sent(lab)? - before) as f64 / start.elapsed().as_secs_f64());
        if let Some(status) = trafgen.ended()? {
            let log = trafgen.log();
            bail!(
                "trafgen ended before the measurement did, with {status}: {}",
                log.lines().last().unwrap_or_default()
            );
        }
        trafgen.kill()?;
    }
    let (calm, flooded) = (middle(calm), middle(flooded));
    Ok(Kept { calm, percent: 100.0 * flooded / calm, flood: middle(pace) })
}

fn trafgen(lab: &Lab) -> Result<Service> {
    let config = lab.directory().join("strangers.trafgen");
    fs::write(&config, include_str!("../floods/strangers.trafgen"))?;
    let before = sent(lab)?;
    let mut command = lab.guest.service_on(FLOOD_CPU, "trafgen");
    command.args(["--dev", "eth0", "--cpus", "1", "--num", MOST_FRAMES, "--conf"]).arg(config);
    // Nothing of the machine's is changed. A rate that it cannot reach makes it wait for a full wire, where it would otherwise give up.
    command.args(["--notouch-irq", "--no-sock-mem", "--qdisc-path", "--rate", "10000000pps"]);
    // What an earlier run has printed says nothing about this one.
    let _ = fs::remove_file(lab.directory().join("trafgen.log"));
    let mut service = Service::start("trafgen", &mut command, &lab.directory().join("trafgen.log"))?;
    wait_for("trafgen's flood", Duration::from_secs(5), || {
        let begun = sent(lab).is_ok_and(|now| now > before + 1_000);
        (begun || !matches!(service.ended(), Ok(None))).then_some(())
    })?;
    ensure!(service.ended()?.is_none(), "trafgen does not run: {}", service.log());
    Ok(service)
}

/// Frames that the guests' end of the wire has sent, and those that found the gateway's ring full.
fn sent(lab: &Lab) -> Result<u64> {
    let shown = lab.guest.ip("-json -stats link show eth0")?;
    let json: serde_json::Value = serde_json::from_str(&shown)?;
    let of = |name: &str| json[0]["stats64"]["tx"][name].as_u64().with_context(|| format!("no {name}: {shown}"));
    Ok(of("packets")? + of("dropped")?)
}

fn nft(lab: &Lab) -> Result<()> {
    const SIZE: &str = "65536";
    let rules = include_str!("../rivals/nft-ingress.nft").replace("CLIENTS", SIZE);
    let path = lab.directory().join("rules.nft");
    fs::write(&path, format!("{rules}add element netdev rival clients {{ {THIRD_V4} }}\n"))?;
    let mut command = lab.gateway.service("nft");
    process::run(command.arg("-f").arg(&path), Duration::from_secs(10))?.success().context("nft refuses the rules")?;
    Ok(())
}
