//! Running programs in the kernel by BPF_PROG_TEST_RUN, and the figures that come of it.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, TestRunResult};
use rustix::thread::{CpuSet, UnshareFlags, sched_setaffinity, unshare_unsafe};

/// XDP_PASS.
pub const PASS: u32 = 2;
/// XDP_DROP.
pub const DROP: u32 = 1;

/// Frames per measurement: by its own resolution of a nanosecond the kernel's average needs many.
pub const REPEAT: u32 = 2_000_000;

/// How many of the kernel's live frames are in flight at once: the NAPI budget.
const BATCH: u32 = 64;

/// The interface at which frames arrive where none is named: loopback.
pub const LOOPBACK: u32 = 1;

/// Runs an XDP program so many times over the same memory; the cost of one run.
pub fn repeat<P>(program: &P, frame: &[u8], repeat: u32) -> Result<(Duration, u32)>
where
    P: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = TestRunResult>,
{
    let mut out = vec![0; frame.len() + 256];
    let mut options = TestRunOptions::new();
    options.data_in = Some(frame);
    options.data_out = Some(&mut out);
    options.repeat = repeat;
    let result = program.test_run(options).context("the kernel does not run the program")?;
    Ok((result.duration, result.return_value))
}

/// Runs an XDP program over so many frames, each in memory of its own and with its verdict carried out, as if they arrived at this
/// interface; the cost of one.
pub fn live<P>(program: &P, frame: &[u8], ifindex: u32, frames: u32) -> Result<Duration>
where
    P: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = TestRunResult>,
{
    // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let mut context = [0u8; 24];
    context[4..8].copy_from_slice(&(frame.len() as u32).to_ne_bytes());
    context[12..16].copy_from_slice(&ifindex.to_ne_bytes());
    let mut options = TestRunOptions::new();
    options.data_in = Some(frame);
    options.ctx_in = Some(&context);
    options.repeat = frames;
    options.attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
    let result = program.test_run(options).context("the kernel does not run the program over live frames")?;
    Ok(result.duration)
}

/// Calls the function in a thread that has a network namespace of its own, with nothing but a loopback, and one CPU.
pub fn apart<T: Send>(function: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let inside = scope.spawn(move || {
            // SAFETY: only the network namespace is another, which no other thread's work depends on.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("cannot make a network namespace")?;
            on_one_cpu()?;
            function()
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Keeps this thread on the machine's last CPU: the first serves most interrupts.
pub fn on_one_cpu() -> Result<()> {
    let last = thread::available_parallelism()?.get() - 1;
    on_cpu(last)
}

/// Keeps this thread on a CPU.
pub fn on_cpu(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("cannot keep to CPU {cpu}"))
}

/// Figures of several rounds, in each of which everything was measured once, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Rounds(Vec<Vec<f64>>);

impl Rounds {
    /// Measures everything so often. What runs is interleaved: A, B, A, B.
    pub fn of(rounds: usize, measure: &mut [&mut dyn FnMut() -> Result<f64>]) -> Result<Self> {
        ensure!(rounds > 0, "no rounds");
        let mut all = vec![Vec::with_capacity(rounds); measure.len()];
        for _ in 0..rounds {
            for (figures, one) in all.iter_mut().zip(measure.iter_mut()) {
                figures.push(one()?);
            }
        }
        Ok(Self(all))
    }

    /// What the n-th costs.
    pub fn cost(&self, n: usize) -> f64 {
        middle(self.0[n].clone())
    }

    /// What the n-th costs more than another, from the differences within each round.
    pub fn over(&self, n: usize, base: usize) -> f64 {
        middle(self.0[n].iter().zip(&self.0[base]).map(|(a, b)| a - b).collect())
    }
}

/// The mean of the middle half: outliers, which only interruptions make, do not count, and the kernel's whole nanoseconds even out.
pub fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let cut = figures.len() / 4;
    let kept = &figures[cut..figures.len() - cut];
    kept.iter().sum::<f64>() / kept.len() as f64
}

/// In nanoseconds.
pub fn ns(duration: Duration) -> f64 {
    duration.as_nanos() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_leaves_out_what_an_interruption_made() {
        for (figures, expected) in [
            (vec![7.0], 7.0),
            (vec![7.0, 9.0], 8.0),
            (vec![900.0, 7.0, 8.0, 7.0], 7.5),
            (vec![10.0, 11.0, 10.0, 11.0, 10.0, 11.0, 500.0, 0.0], 10.5),
        ] {
            assert!((middle(figures.clone()) - expected).abs() < 1e-9, "{figures:?}");
        }
    }
}
