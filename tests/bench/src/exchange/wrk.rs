//! wrk in place of the crowd: the kernel's own TCP asks.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf,
    programs::{Xdp, XdpMode},
};
use portal_lab::{Lab, process};
use portal_userspace::datapath::object;

use super::{
    cpu::{Cpus, Threads},
    wire::{Wire, addresses},
};

/// Connections that are open at once.
const CONNECTIONS: &str = "64";

/// Lets wrk ask over this wire for so long, from the generator's CPU; responses per second of CPU time of these threads. Every response must be a 511, by
/// its status; the crowd has compared the bytes.
pub(super) fn run(lab: &Lab, wire: &Wire, gateway: &Threads, cpus: Cpus, time: Duration) -> Result<f64> {
    let client = Ipv4Addr::from(u32::from(addresses::gateway_v4(wire.number)) + 1);
    // A site of its own for each wire: the lab's internet is behind the guest's other interface.
    let site = Ipv4Addr::new(203, 0, 113, 80 + wire.number);
    lab.guest.ip(&format!("addr replace {client}/12 dev {}", wire.clients))?;
    lab.guest.ip(&format!("route replace {site}/32 via {}", addresses::gateway_v4(wire.number)))?;
    let _pass = lab.guest.enter(|| {
        let mut objects = Ebpf::load(object::LAB)?;
        let program: &mut Xdp = objects.program_mut("pass").context("no program `pass`")?.try_into()?;
        program.load()?;
        program.attach(wire.clients.as_str(), XdpMode::Driver).context("cannot attach to the clients' end")?;
        Ok(objects)
    })?;
    let seconds = time.as_secs().max(1);
    let mut command = lab.guest.service_on(cpus.generator, "wrk");
    command.args(["--threads", "1", "--connections", CONNECTIONS, "--timeout", "2s"]);
    command.args(["--duration", &format!("{seconds}s"), "-H", "Connection: close"]);
    command.arg(format!("http://{site}/"));
    let before = gateway.used();
    let text = process::run(&mut command, Duration::from_secs(seconds + 10))?.success()?;
    let used = gateway.used().saturating_sub(before);
    let number = |after: &str, before: &str| -> Option<u64> {
        let (_, rest) = text.split_once(after)?;
        rest.split_once(before)?.0.trim().parse().ok()
    };
    let requests = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in "))
        .and_then(|(count, _)| count.parse::<u64>().ok())
        .with_context(|| format!("wrk says {text}"))?;
    let refused = number("Non-2xx or 3xx responses:", "\n").unwrap_or_default();
    ensure!(requests > 0 && refused == requests, "not every response to wrk was a 511: {text}");
    ensure!(!text.contains("Socket errors"), "wrk had errors: {text}");
    Ok(requests as f64 / used.as_secs_f64())
}
