//! What portald costs when nobody asks.

use std::{fs, thread, time::Duration};

use anyhow::{Context as _, Result};
use portal_lab::{Portald, Settings};

use crate::expect::a_stranger;
use crate::turn::lab_alone;

/// The most that may be resident with one queue and default sizes, in KiB.
const RESIDENT_KIB: u64 = 64 * 1024;

#[test]
fn idle_portald_takes_no_cpu_and_little_memory() -> Result<()> {
    let lab = lab_alone()?;
    let portald = Portald::start(&lab, &Settings::default())?;
    // So that everything that is made at first use has been made.
    a_stranger(&lab.guest)?;
    thread::sleep(Duration::from_secs(1));
    let before = ticks(portald.pid())?;
    thread::sleep(Duration::from_secs(5));
    let spent = ticks(portald.pid())? - before;
    let status = fs::read_to_string(format!("/proc/{}/status", portald.pid()))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let resident: u64 = resident.trim().trim_end_matches(" kB").parse()?;
    println!("idle portald: {spent} clock ticks of CPU in 5 s, {resident} KiB resident");
    assert!(spent <= 1, "{spent} clock ticks of CPU in 5 s");
    assert!(resident <= RESIDENT_KIB, "{resident} KiB resident");
    Ok(())
}

/// User and system time so far, in clock ticks: fields 14 and 15 of `proc_pid_stat(5)`.
fn ticks(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("no name")?.1.split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}
