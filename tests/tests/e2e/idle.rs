//! What portald costs when nobody asks.

use std::{fs, thread, time::Duration};

use anyhow::{Context as _, Result};
use portal_lab::{Portald, Settings};

use crate::expect::a_stranger;
use crate::turn::lab_alone;

/// 0.2 % of one CPU, of a build without optimisation.
const CPU_IN_5_S: Duration = Duration::from_millis(10);
/// How often it is looked at, at most.
const ATTEMPTS: usize = 4;
/// The most that may be resident with one queue and default sizes, in KiB.
const RESIDENT_KIB: u64 = 64 * 1024;

#[test]
fn idle_portald_takes_no_cpu_and_little_memory() -> Result<()> {
    let lab = lab_alone()?;
    let portald = Portald::start(&lab, &Settings::default())?;
    // So that everything that is made at first use has been made.
    a_stranger(&lab.guest)?;
    thread::sleep(Duration::from_secs(1));
    // The least of a few: whatever else the machine does, a cold cache for one, can only add to it.
    let mut spent = Duration::MAX;
    for _ in 0..ATTEMPTS {
        let before = time_on_cpu(portald.pid())?;
        thread::sleep(Duration::from_secs(5));
        spent = spent.min(time_on_cpu(portald.pid())?.saturating_sub(before));
        if spent <= CPU_IN_5_S {
            break;
        }
    }
    let status = fs::read_to_string(format!("/proc/{}/status", portald.pid()))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let resident: u64 = resident.trim().trim_end_matches(" kB").parse()?;
    println!("idle portald: {spent:?} of CPU in 5 s, {resident} KiB resident");
    assert!(spent <= CPU_IN_5_S, "{spent:?} of CPU in 5 s");
    assert!(resident <= RESIDENT_KIB, "{resident} KiB resident");
    Ok(())
}

/// How long its threads have run so far: the first field of `schedstat`, nanoseconds. Clock ticks charge whoever a tick meets.
fn time_on_cpu(pid: u32) -> Result<Duration> {
    let mut ns = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        ns += text.split_whitespace().next().context("an empty schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(ns))
}
