//! build, demo, lab and test: cargo, called the right way.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Error, Result, bail};

use crate::child::{Interrupts, named};
use crate::environment;

/// Stops unless this process may create namespaces and load BPF programs.
pub(crate) fn demand_root(task: &str) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    bail!(
        "`cargo xtask {task}` needs root: it creates network namespaces and loads BPF programs.\n\
         Run it as root: sudo -E env \"PATH=$PATH\" cargo xtask {task}"
    )
}

/// Becomes `cargo build`. Returns only if that failed.
pub(crate) fn build(rest: &[OsString]) -> Error {
    become_cargo(environment::cargo().args(["build", "--workspace", "--exclude", "portal-ebpf"]).args(rest))
}

/// Becomes the demonstration. Returns only if that failed.
pub(crate) fn demo(rest: &[OsString]) -> Error {
    become_cargo(lab_binary().arg("demo").args(rest))
}

/// Becomes the lab's command line. Returns only if that failed.
pub(crate) fn lab(rest: &[OsString]) -> Error {
    become_cargo(lab_binary().args(rest))
}

/// Runs every test, the integration tests last, so that the last lines are a test runner's summary.
///
/// All steps run, whatever the earlier ones said; the exit code tells whether one failed.
pub(crate) fn test(rest: &[OsString], interrupts: &Interrupts) -> Result<ExitCode> {
    let mut failed = Vec::new();
    for step in test_steps(rest) {
        let mut command = environment::cargo();
        command.args(step);
        if !interrupts.run(&mut command)?.success() {
            failed.push(named(&command));
        }
        if let Some(code) = interrupts.exit_code() {
            return Ok(ExitCode::from(code));
        }
    }
    // Nothing is printed after the runner's own lines, which name the failed tests and their step.
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The calls of cargo that together run every test once.
fn test_steps(rest: &[OsString]) -> Vec<Vec<OsString>> {
    let everything = &["--workspace", "--exclude", "portal-ebpf"][..];
    let step = |words: &[&[&str]]| {
        ["test", "--no-fail-fast"]
            .into_iter()
            .chain(words.iter().copied().flatten().copied())
            .map(OsString::from)
            .chain(rest.iter().cloned())
            .collect()
    };
    vec![
        step(&[everything, &["--lib", "--bins"]]),
        step(&[everything, &["--doc"]]),
        step(&[&["--package", "portal-tests", "--test", "*"]]),
    ]
}

fn lab_binary() -> Command {
    let mut command = environment::cargo();
    command.args(["run", "--quiet", "--package", "portal-tests", "--bin", "lab", "--"]);
    command
}

/// Replaces this process by cargo, which replaces itself by what it runs: a signal then reaches that and nothing
/// stands between it and its cleaning up.
fn become_cargo(command: &mut Command) -> Error {
    let error = command.exec();
    Error::new(error).context(format!("cannot start {}", named(command)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_integration_tests_come_last_and_every_step_gets_the_filter() {
        let steps = test_steps(&["gate".into(), "--".into(), "--nocapture".into()]);
        for step in &steps {
            assert_eq!(step[..2], ["test", "--no-fail-fast"]);
            assert_eq!(step[step.len() - 3..], ["gate", "--", "--nocapture"]);
        }
        let last = steps.last().expect("there are steps");
        assert!(last.contains(&"--test".into()) && last.contains(&"portal-tests".into()), "{last:?}");
    }
}
