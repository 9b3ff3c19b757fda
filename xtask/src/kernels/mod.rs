//! `cargo xtask test --kernels`: the gate's tests on kernels other than this machine's.

mod boot;
mod initramfs;
mod newc;
mod programs;
mod report;

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use self::report::Report;
use crate::child::Interrupts;
use crate::requirements::KERNELS;
use crate::{tasks, unpack};

/// How long one kernel may take. On two idle cores it takes a fifth of that, on two busy ones half.
const LIMIT: Duration = Duration::from_mins(15);

/// Where the results are recorded, from this package's directory.
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/kernels.md");
/// What they stand behind there.
const MARK: &str = "<!-- What follows is written by `cargo xtask test --kernels --record`. -->\n";

/// Boots each kernel and runs the tests in it; writes the results down if they are to be recorded.
pub(crate) fn test(record: bool, interrupts: &Interrupts) -> Result<ExitCode> {
    if !cfg!(target_arch = "x86_64") {
        bail!(
            "`cargo xtask test --kernels` needs an x86-64 machine: the tests are built for this machine's architecture, \
             and only kernels for x86-64 are prepared"
        );
    }
    // A quarter of an hour is not to be lost.
    let head = record.then(head).transpose()?;
    // The binaries that the lab runs, which no test makes cargo build.
    let built = tasks::build(&[], interrupts)?;
    if built != ExitCode::SUCCESS {
        return Ok(built);
    }
    let programs = programs::build(interrupts)?;
    let names: Vec<_> = programs.iter().map(|program| program.name).collect();
    let mut reports = Vec::new();
    for kernel in &KERNELS {
        let files = unpack::directory(kernel);
        println!("\nboots {} in an emulator, for at most {} min", kernel.directory, LIMIT.as_secs() / 60);
        let work = unpack::beside(&files, "run");
        fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
        let archive = initramfs::make(&files, &programs)?;
        let spoken = boot::boot(&files, &archive, &work, LIMIT, interrupts, |line| {
            // A sign of life: what becomes of the tests is told when it is all there.
            if let Some(program) = line.strip_prefix("portal: begins ") {
                println!("  runs {program}");
            }
        })?;
        if let Some(code) = interrupts.exit_code() {
            return Ok(ExitCode::from(code));
        }
        let report = Report::read(&spoken, &names);
        print!("{report}");
        reports.push(report);
    }
    let passed = reports.iter().all(Report::passed);
    println!("\nkernels: {}", if passed { "all tests passed" } else { "FAILED" });
    if let Some(head) = head {
        if !passed {
            bail!("only results that passed are recorded");
        }
        write_down(&head, &reports)?;
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the document says before the results.
fn head() -> Result<String> {
    let text = fs::read_to_string(DOCUMENT).with_context(|| format!("cannot read {DOCUMENT}"))?;
    let (head, _) = text.split_once(MARK).with_context(|| format!("{DOCUMENT} lacks the line {MARK}"))?;
    Ok(head.to_owned())
}

fn write_down(head: &str, reports: &[Report]) -> Result<()> {
    let records: Vec<_> = reports.iter().map(Report::record).collect();
    fs::write(DOCUMENT, format!("{head}{MARK}\n{}", records.join("\n")))
        .with_context(|| format!("cannot write {DOCUMENT}"))?;
    println!("kernels: recorded in {DOCUMENT}");
    Ok(())
}
