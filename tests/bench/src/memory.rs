//! What a session costs in kernel memory.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapInfo;
use portal_userspace::datapath::gate::Gate;

use crate::{
    Effort, Findings,
    report::{Bar, Row},
};

/// Two table sizes. What is more in the larger one is the sessions'; what is in both is not.
const SIZES: [u32; 2] = [1 << 16, 1 << 20];

/// By what the kernel itself says about each of the gate's maps, which are all there from the beginning: nothing is allocated later.
pub fn run(_: &Effort) -> Result<Findings> {
    let mut small = maps(SIZES[0])?;
    let mut findings = Findings::default();
    let clients = f64::from(SIZES[1] - SIZES[0]);
    let mut sum = 0.0;
    for (name, large) in maps(SIZES[1])? {
        let at = small.iter().position(|(known, _)| *known == name).with_context(|| format!("{name} has come"))?;
        let per_session = (large as f64 - small.swap_remove(at).1 as f64) / clients;
        sum += per_session;
        if per_session > 0.5 {
            findings.rows.push(Row::new(format!("kernel memory per session: {name}"), "bytes", per_session));
        }
    }
    ensure!(sum > 0.0, "no map grows with the number of clients");
    findings.rows.insert(0, Row::new("kernel memory per session", "bytes", sum).bar(&Bar::AtMost(200.0)));
    Ok(findings)
}

/// The maps of a gate for so many clients, and the bytes that each takes.
fn maps(clients: u32) -> Result<Vec<(String, u64)>> {
    let (mut gate, maps) = Gate::load_unpinned(clients)?;
    let info = gate.program()?.info()?;
    let ids = info.map_ids()?.context("the kernel does not tell a program's maps")?;
    let all = ids.into_iter().map(|id| {
        let map = MapInfo::from_id(id)?;
        let fd = map.fd()?;
        let path = format!("/proc/self/fdinfo/{}", std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&fd)));
        let text = fs::read_to_string(path)?;
        let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:")).context("no memlock in fdinfo")?;
        Ok((map.name_as_str().unwrap_or("?").to_owned(), bytes.trim().parse()?))
    });
    let all: Result<Vec<(String, u64)>> = all.collect();
    drop(maps);
    all
}
