//! The load lab from the command line. `cargo xtask bench` starts it.

use std::{fs, path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use portal_bench::{
    Effort, Measurement,
    machine::Machine,
    measurements,
    report::{self, Row},
};

/// Measures Portal beside what an operator would otherwise use. Needs root; removes everything it made, also after Ctrl-C.
///
/// Exits with 0 if each bar was reached.
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Arguments {
    /// Everything in under five minutes, with fewer repeats
    #[arg(long)]
    quick: bool,
    /// How many minutes the soak makes of a day: 10, with --quick 1
    #[arg(long, value_name = "MINUTES")]
    minutes: Option<f64>,
    /// Also write the rows into this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only measurements whose name contains this; may be given several times
    #[arg(long, value_name = "METRIC")]
    only: Vec<String>,
    /// Draw the plots into docs/benchmarks
    #[arg(long)]
    plots: bool,
    /// Name the measurements, and measure nothing
    #[arg(long)]
    list: bool,
}

/// Where the plots go: beside this package's own repository.
const PLOTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/benchmarks");

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.list {
        for one in measurements::ALL {
            println!("{:<16} {}", one.name, one.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let chosen: Vec<&Measurement> = measurements::ALL
        .iter()
        .filter(|one| arguments.only.is_empty() || arguments.only.iter().any(|part| one.name.contains(part.as_str())))
        .collect();
    ensure!(!chosen.is_empty(), "no measurement is called so; `--list` names them");
    ensure!(rustix::process::geteuid().is_root(), "needs root: it makes network namespaces and loads BPF programs");
    let machine = Machine::look();
    println!("{}", machine.words());
    let effort = Effort { quick: arguments.quick, check: false, minutes: arguments.minutes };
    let (mut rows, mut plots) = (Vec::new(), Vec::new());
    for one in chosen {
        eprintln!("bench: {}: {}", one.name, one.about);
        let start = Instant::now();
        match (one.run)(&effort) {
            Ok(findings) => {
                rows.extend(findings.rows);
                plots.extend(findings.plots);
            }
            // The others are still worth measuring.
            Err(e) => rows.push(Row::failed(one.name, &format!("{e:#}"))),
        }
        eprintln!("bench: {}: {:.1} s", one.name, start.elapsed().as_secs_f64());
    }
    println!("{}", report::table(&rows));
    if let Some(path) = &arguments.json {
        fs::write(path, serde_json::to_string_pretty(&rows)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if arguments.plots {
        plots.iter().try_for_each(|plot| plot.draw(PLOTS.as_ref(), &machine))?;
    }
    let failed = rows.iter().filter(|row| row.pass == Some(false)).count();
    println!("{} rows, {failed} below their bar", rows.len());
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
