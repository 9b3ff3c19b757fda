//! Where CPU time goes: threads are put on a CPU each, and asked what they have used.
//!
//! The gateway's half of a wire is polled by a kernel thread (threaded NAPI, `/sys/class/net/DEV/threaded`), and so is the generator's. So
//! what the kernel does with frames is the time of a thread, which the scheduler counts to the nanosecond, and the generator's work on the same
//! frames is another thread's, on another CPU.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::{
    process::Pid,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// The CPU for what is measured, and the one for what measures it.
#[derive(Clone, Copy, Debug)]
pub struct Cpus {
    /// The gateway's.
    pub gateway: usize,
    /// The generator's.
    pub generator: usize,
}

impl Cpus {
    /// The first and the last that this process may use.
    pub fn choose() -> Result<Self> {
        let set = sched_getaffinity(None)?;
        let mine = || (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu));
        let (first, last) = (mine().next(), mine().next_back());
        let (Some(gateway), Some(generator)) = (first, last) else { bail!("this process may use no CPU") };
        ensure!(gateway != generator, "needs two CPUs: one for the gateway, one for the generator");
        Ok(Self { gateway, generator })
    }
}

/// Threads whose CPU time is counted together.
#[derive(Clone, Debug, Default)]
pub struct Threads(Vec<Pid>);

impl Threads {
    /// All threads of a process and of its children, as they are now.
    pub fn of_process(pid: u32) -> Result<Self> {
        let mut found = Vec::new();
        let mut left = vec![pid];
        while let Some(pid) = left.pop() {
            for task in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("no process {pid}"))? {
                let tid = task?.file_name();
                let tid: i32 = tid.to_string_lossy().parse()?;
                found.extend(Pid::from_raw(tid));
                let children = fs::read_to_string(format!("/proc/{pid}/task/{tid}/children")).unwrap_or_default();
                left.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
            }
        }
        Ok(Self(found))
    }

    /// The kernel threads that poll an interface. Its name must be the only one on the machine.
    pub fn of_interface(name: &str) -> Result<Self> {
        let prefix = format!("napi/{name}-");
        let mut found = Vec::new();
        for process in fs::read_dir("/proc")? {
            let process = process?;
            let Ok(pid) = process.file_name().to_string_lossy().parse::<i32>() else { continue };
            let comm = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            if comm.starts_with(&prefix) {
                found.extend(Pid::from_raw(pid));
            }
        }
        ensure!(!found.is_empty(), "no kernel thread polls {name}: threaded NAPI needs Linux 5.12");
        Ok(Self(found))
    }

    /// These and others.
    #[must_use]
    pub fn and(mut self, others: &Self) -> Self {
        self.0.extend(&others.0);
        self
    }

    /// Puts them on one CPU.
    pub fn pin(&self, cpu: usize) -> Result<()> {
        let mut set = CpuSet::new();
        set.set(cpu);
        for thread in &self.0 {
            match sched_setaffinity(Some(*thread), &set) {
                // It has ended.
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(e) => return Err(e).with_context(|| format!("cannot put thread {thread:?} on CPU {cpu}")),
            }
        }
        Ok(())
    }

    /// What they have used so far.
    pub fn used(&self) -> Duration {
        let of = |thread: &Pid| {
            let text = fs::read_to_string(format!("/proc/{}/schedstat", thread.as_raw_nonzero())).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        };
        Duration::from_nanos(self.0.iter().filter_map(of).sum())
    }
}

/// What a CPU has been busy with since the machine started, by `/proc/stat`: in steps of a clock tick, but with whatever no thread accounts for.
pub fn busy(cpu: usize) -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let name = format!("cpu{cpu}");
    let line = stat.lines().find(|line| line.split_whitespace().next() == Some(&name));
    let fields: Vec<u64> = line
        .with_context(|| format!("/proc/stat has no {name}"))?
        .split_whitespace()
        .skip(1)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    // user nice system idle iowait irq softirq steal: all but idle, iowait and what another machine has taken.
    let ticks: u64 = [0, 1, 2, 5, 6].iter().filter_map(|i| fields.get(*i)).sum();
    Ok(Duration::from_micros(ticks * 1_000_000 / rustix::param::clock_ticks_per_second()))
}

/// A reading of everything that is counted during a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    at: Instant,
    polls: Duration,
    processes: Duration,
    generator: Duration,
    busy: Duration,
}

impl Reading {
    /// Reads.
    pub fn take(polls: &Threads, processes: &Threads, generator: &Threads, cpus: Cpus) -> Result<Self> {
        Ok(Self {
            at: Instant::now(),
            polls: polls.used(),
            processes: processes.used(),
            generator: generator.used(),
            busy: busy(cpus.gateway)?,
        })
    }

    /// What has passed and was used since an earlier reading.
    pub fn since(&self, earlier: &Self) -> Spent {
        Spent {
            wall: self.at - earlier.at,
            polls: self.polls.saturating_sub(earlier.polls),
            processes: self.processes.saturating_sub(earlier.processes),
            generator: self.generator.saturating_sub(earlier.generator),
            busy: self.busy.saturating_sub(earlier.busy),
        }
    }
}

/// What a measurement took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// Time.
    pub wall: Duration,
    /// CPU time of what polls the gateway's end of the wire.
    pub polls: Duration,
    /// CPU time of the gateway's processes.
    pub processes: Duration,
    /// CPU time of the generator's threads.
    pub generator: Duration,
    /// What the gateway's CPU was busy with, whoever it was.
    pub busy: Duration,
}

impl Spent {
    /// CPU time of all the gateway's threads.
    pub fn gateway(&self) -> Duration {
        self.polls + self.processes
    }

    /// Adds what another measurement took.
    pub fn add(&mut self, other: &Self) {
        let Self { wall, polls, processes, generator, busy } = *other;
        self.wall += wall;
        self.polls += polls;
        self.processes += processes;
        self.generator += generator;
        self.busy += busy;
    }
}
