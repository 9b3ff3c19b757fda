//! The load lab: traffic generators, rivals, and measurements of both in the same run.
//!
//! A measurement is a module with one function, and one line in [`measurements::ALL`]. It gives back [`report::Row`]s and
//! [`plot::Plot`]s. `cargo xtask bench` runs them all; docs/benchmarks/README.md explains the method.

pub mod bulk;
pub mod exchange;
pub mod frames;
pub mod gate;
pub mod growth;
pub mod hot;
pub mod inject;
pub mod kernel;
pub mod login;
pub mod machine;
pub mod measurements;
pub mod object;
/// What the injector is told, and what it tells: the source that the kernel's side has too.
#[path = "../ebpf/src/plan.rs"]
pub mod plan;
pub mod plot;
pub mod report;
pub mod rivals;
pub mod strangers;
pub mod yard;

use anyhow::Result;

/// How to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Shorter runs, and fewer of them: all together in under five minutes.
    pub quick: bool,
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
