//! One login: from the request on the control socket to a gate that lets the client through.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    maps::{MapData, MapInfo},
    programs::{Xdp, loaded_programs},
};
use aya_obj::programs::XdpAttachType;
use etherparse::PacketBuilder;
use portal_common::{Reason, reason::Outcome};
use portal_lab::{
    Lab, Portald, Settings,
    addresses::{GATEWAY_MAC, GUEST_INTERFACE, SITE_V4, mac},
    portald::{binary, socket},
};
use portal_userspace::observe::explain;

use crate::{
    Effort, Findings,
    report::{Bar, Better, Row},
    rivals::opennds::{OpenNds, timed},
};

const RIVAL: &str = "openNDS 9.10";
/// How many clients are logged in at openNDS, as at a small café; it makes rules for each, and takes 250 by default.
const OTHERS: u8 = 100;

/// Measures logins by the API, by `portalctl`, and by openNDS's `ndsctl`.
pub fn run(effort: &Effort) -> Result<Findings> {
    let (by_api, by_process, rivals) = if effort.quick { (2_000, 100, 9) } else { (20_000, 300, 25) };
    let mut findings = Findings::default();
    let lab = Lab::new()?;
    let mut portald = Portald::start(&lab, &Settings::default())?;
    portald.prints_log = false;
    let seen = logins_by_api(&lab, by_api)?;
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let row = Row::new(
            format!("one allow through the API, seen by the data path, {name}"),
            "µs",
            micros(at(&seen, share)),
        );
        findings.rows.push(if name == "p99" { row.bar(&Bar::AtMost(1_000.0)) } else { row });
    }
    let processes = logins_by_process(&lab, by_process)?;
    drop(portald);
    // Its own lab: none of Portal's programs on the interface.
    drop(lab);
    let lab = Lab::new()?;
    let theirs = OpenNds::start(&lab).and_then(|opennds| {
        let alone = opennds.log_in(&lab, rivals)?;
        opennds.fill(&lab, OTHERS)?;
        Ok([alone, opennds.log_in(&lab, rivals)?])
    });
    let theirs = theirs.map(|both| {
        both.map(|mut took| {
            took.sort_unstable();
            millis(at(&took, 0.5))
        })
    });
    // Ours has all those that came by the API, in either row.
    for (i, sentence) in ["and nobody else".to_owned(), format!("and {OTHERS} others")].into_iter().enumerate() {
        let metric = format!("login: portalctl allow against ndsctl auth with one client {sentence}, p50");
        let row = Row::new(metric, "ms", millis(at(&processes, 0.5)));
        let row = match &theirs {
            Ok(theirs) => row.against(RIVAL, theirs[i], Better::Lower),
            Err(e) => row.without(RIVAL, format!("{e:#}")),
        };
        findings.rows.push(if i == 1 { row.bar(&Bar::Times(100.0)) } else { row });
    }
    let start = Row::new("of that, starting any process (true), p50", "ms", millis(at(&starts()?, 0.5)));
    findings.rows.push(start);
    Ok(findings)
}

/// Lets as many clients through, one after the other; how long each took, sorted: from before the connection to the daemon until the gate has said that it
/// passes the client's frame. The daemon serves one request for each connection.
fn logins_by_api(lab: &Lab, count: u32) -> Result<Vec<Duration>> {
    let path = socket(lab);
    let sessions = lab.directory().join("bpf/portal");
    let table = MapData::from_pin(one_pin(&sessions, "CLIENTS")?)?;
    let explain = program_over("explain", &table.info()?)?;
    let link = lab.gateway.ip(&format!("-j link show dev {GUEST_INTERFACE}"))?;
    let link: serde_json::Value = serde_json::from_str(&link)?;
    let index = u32::try_from(link[0]["ifindex"].as_u64().context("no index")?)?;
    lab.gateway.enter(|| {
        let passes = |client: [u8; 6]| -> Result<bool> {
            let verdict = explain::run(&explain, &frame(client)?, index)?.value;
            let reason = Reason::try_from(verdict >> 8).map_err(|_| anyhow::anyhow!("no reason: {verdict:#x}"))?;
            Ok(reason.outcome() == Outcome::Passed)
        };
        let mut took = Vec::with_capacity(count as usize);
        for i in 0..count {
            let [a, b, c, d] = i.to_be_bytes();
            let client = [0x02, 0x10, a, b, c, d];
            ensure!(!passes(client)?, "a client passes that has not logged in");
            let start = Instant::now();
            allow(&path, client)?;
            ensure!(passes(client)?, "a client does not pass that the daemon has allowed");
            took.push(start.elapsed());
        }
        took.sort_unstable();
        Ok(took)
    })
}

/// `PUT /v1/clients/{mac}`, on a connection of its own.
pub(crate) fn allow(socket: &Path, client: [u8; 6]) -> Result<()> {
    put(socket, client, "{}")
}

/// The same, with this as the request's body.
pub(crate) fn put(socket: &Path, client: [u8; 6], body: &str) -> Result<()> {
    let mac = text(client);
    let length = body.len();
    let request = format!(
        "PUT /v1/clients/{mac} HTTP/1.1\r\nHost: portald\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(request.as_bytes())?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response)?;
    ensure!(response.starts_with(b"HTTP/1.1 200 "), "portald answers {:?}", String::from_utf8_lossy(&response));
    Ok(())
}

/// A MAC address as people write it.
pub(crate) fn text(client: [u8; 6]) -> String {
    client.map(|byte| format!("{byte:02x}")).join(":")
}

/// Lets as many clients through by `portalctl`; how long each process took, sorted.
fn logins_by_process(lab: &Lab, count: u32) -> Result<Vec<Duration>> {
    let (portalctl, socket) = (binary("portalctl")?, socket(lab));
    let mut took = Vec::with_capacity(count as usize);
    for i in 0..count {
        let [a, b, c, d] = i.to_be_bytes();
        let mut command = Command::new(&portalctl);
        command.arg("--socket").arg(&socket).arg("allow").arg(text([0x02, 0x20, a, b, c, d]));
        took.push(timed(command)?);
    }
    took.sort_unstable();
    Ok(took)
}

/// How long the shortest process takes, sorted.
fn starts() -> Result<Vec<Duration>> {
    let mut took = (0..50).map(|_| timed(Command::new("true"))).collect::<Result<Vec<_>>>()?;
    took.sort_unstable();
    Ok(took)
}

/// What a client sends to the internet.
fn frame(client: [u8; 6]) -> Result<Vec<u8>> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(client, mac(GATEWAY_MAC))
        .ipv4([192, 0, 2, 200], SITE_V4.octets(), 64)
        .udp(5000, 9)
        .write(&mut frame, &[0; 18])?;
    Ok(frame)
}

/// The loaded program of this name that uses the map: the daemon's own.
fn program_over(name: &str, map: &MapInfo) -> Result<Xdp> {
    for program in loaded_programs() {
        // One may have gone while they are looked through.
        let Ok(program) = program else { continue };
        let uses = || program.map_ids().ok().flatten().is_some_and(|ids| ids.contains(&map.id()));
        if program.name_as_str() == Some(name) && uses() {
            return Ok(Xdp::from_program_info(program, name.to_owned().into(), XdpAttachType::Interface)?);
        }
    }
    bail!("no program {name} uses the map");
}

/// The pin of this name below the daemon's directory of pins, whatever its layout's version is.
fn one_pin(root: &Path, name: &str) -> Result<std::path::PathBuf> {
    for version in std::fs::read_dir(root).with_context(|| format!("no pins in {}", root.display()))? {
        let pin = version?.path().join(name);
        if pin.exists() {
            return Ok(pin);
        }
    }
    bail!("{name} is not pinned below {}", root.display());
}

/// What this share of the sorted durations is below.
fn at(sorted: &[Duration], share: f64) -> Duration {
    let place = (sorted.len() as f64 * share) as usize;
    sorted[place.min(sorted.len() - 1)]
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
