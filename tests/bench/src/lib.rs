//! The load lab: traffic generators, rivals, and measurements of both in the same run.
//!
//! A measurement is a module with one function, and one line in [`measurements::ALL`]. It gives back [`report::Row`]s and
//! [`plot::Plot`]s. `cargo xtask bench` runs them all; docs/benchmarks/README.md explains the method.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "counts and times of one run are far below 2^52, and none is negative"
)]

pub mod bulk;
pub mod exchange;
pub mod flood;
pub mod forward;
pub mod frames;
pub mod gate;
pub mod growth;
pub mod host;
pub mod hot;
pub mod inject;
pub mod kernel;
pub mod login;
pub mod machine;
pub mod measurements;
pub mod memory;
pub mod object;
/// What the injector is told, and what it tells: the source that the kernel's side has too.
#[path = "../ebpf/src/plan.rs"]
pub mod plan;
pub mod plot;
pub mod report;
pub mod rivals;
pub mod soak;
pub mod strangers;
pub mod throughput;
pub mod yard;

use anyhow::Result;

/// How to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Shorter runs, and fewer of them: all together in under five minutes.
    pub quick: bool,
    /// As short as can be: only whether every packet takes its path, which the counters tell. The figures mean nothing.
    pub check: bool,
    /// How long the soak takes, minutes; None: as the others say.
    pub minutes: Option<f64>,
}

impl Effort {
    /// What a test has time for.
    pub const CHECK: Self = Self { quick: true, check: true, minutes: None };

    /// How many frames a figure is made of.
    pub fn frames(&self) -> u32 {
        if self.check { 2_000 } else { kernel::REPEAT }
    }

    /// How often everything is measured, in full or quick.
    pub fn rounds(&self, full: usize, quick: usize) -> usize {
        match (self.check, self.quick) {
            (true, _) => 1,
            (false, true) => quick,
            (false, false) => full,
        }
    }

    /// The numbers of clients to measure with: where it is but a check, those that are filled in no time.
    pub fn sizes(&self, all: &[u32]) -> Vec<u32> {
        all.iter().copied().filter(|clients| !self.check || *clients <= 1 << 10).collect()
    }
}

/// What a measurement found.
#[derive(Debug, Default)]
pub struct Findings {
    /// For the table and the JSON.
    pub rows: Vec<report::Row>,
    /// For docs/benchmarks.
    pub plots: Vec<plot::Plot>,
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub struct Measurement {
    /// What `--only` finds it by.
    pub name: &'static str,
    /// What it is about, in one sentence.
    pub about: &'static str,
    /// Measures.
    pub run: fn(&Effort) -> Result<Findings>,
}
