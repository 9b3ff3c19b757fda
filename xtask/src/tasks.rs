//! build, demo, lab, bench and test: cargo, called the right way.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Context as _, Error, Result, bail};

use crate::child::Interrupts;
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

/// Everything but the BPF programs, which portal-userspace's build script builds.
const WORKSPACE: &str = "--workspace --exclude portal-ebpf --exclude portal-bench-ebpf";

/// Builds everything.
pub(crate) fn build(rest: &[OsString], interrupts: &Interrupts) -> Result<ExitCode> {
    let mut command = environment::cargo();
    command.args(["build"].into_iter().chain(WORKSPACE.split(' '))).args(rest);
    let status = interrupts.run(&mut command)?;
    let code = interrupts.exit_code().or_else(|| status.code().and_then(|code| u8::try_from(code).ok()));
    Ok(ExitCode::from(code.unwrap_or(1)))
}

/// Builds everything and becomes the lab's command line, which shows the demonstration too. Returns only on failure.
///
/// The lab starts `portald` and `portalctl`, which no dependency makes cargo build: so all is built first. And this
/// process is replaced, so that nothing stands between a signal and the lab's cleaning up.
pub(crate) fn lab(arguments: &[OsString], interrupts: &Interrupts) -> Result<ExitCode> {
    let built = build(&[], interrupts)?;
    if built != ExitCode::SUCCESS {
        return Ok(built);
    }
    let program = std::env::current_exe().context("cannot tell where this program is")?.with_file_name("lab");
    let error = environment::command(&program).args(arguments).exec();
    Err(Error::new(error).context(format!("cannot start {}", program.display())))
}

/// Builds the load lab as it is to be measured, and becomes its command line. Returns only on failure.
///
/// `portald` and `portalctl` are built with it: it starts them.
pub(crate) fn bench(arguments: &[OsString], interrupts: &Interrupts) -> Result<ExitCode> {
    let packages = ["--release", "--package", "portal-bench", "--package", "portal-userspace"];
    let status = interrupts.run(environment::cargo().arg("build").args(packages))?;
    if let Some(code) = interrupts.exit_code() {
        return Ok(ExitCode::from(code));
    }
    if !status.success() {
        return Ok(ExitCode::FAILURE);
    }
    let program = environment::target().join("release").join("bench");
    let error = environment::command(&program).args(arguments).exec();
    Err(Error::new(error).context(format!("cannot start {}", program.display())))
}

/// Runs every test, the integration tests last, so that the last lines are a test runner's summary.
///
/// All steps run, whatever the earlier ones said; the exit code tells whether one failed.
pub(crate) fn test(rest: &[OsString], interrupts: &Interrupts) -> Result<ExitCode> {
    let built = build(&[], interrupts)?;
    if built != ExitCode::SUCCESS {
        return Ok(built);
    }
    let mut passed = true;
    for step in test_steps(rest) {
        let mut command = environment::cargo();
        command.args(step);
        passed &= interrupts.run(&mut command)?.success();
        if let Some(code) = interrupts.exit_code() {
            return Ok(ExitCode::from(code));
        }
    }
    // Nothing is printed after the runner's own lines, which name the failed tests and their step.
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The calls of cargo that together run every test once; or the one call, if `rest` itself says what to test.
fn test_steps(rest: &[OsString]) -> Vec<Vec<OsString>> {
    let step = |words: &str| {
        let words = ["test", "--no-fail-fast"].into_iter().chain(words.split_whitespace()).map(OsString::from);
        words.chain(rest.iter().cloned()).collect()
    };
    if rest.iter().take_while(|word| *word != "--").any(selects) {
        return vec![step("")];
    }
    vec![
        step(&format!("{WORKSPACE} --exclude portal-tests --tests")),
        step(&format!("{WORKSPACE} --doc")),
        step("--package portal-tests --tests"),
    ]
}

/// Whether this option of `cargo test` selects packages or targets, which cannot be selected twice.
fn selects(word: &OsString) -> bool {
    const OPTIONS: [&str; 16] = [
        "-p",
        "--package",
        "--workspace",
        "--all",
        "--lib",
        "--bin",
        "--bins",
        "--doc",
        "--test",
        "--tests",
        "--example",
        "--examples",
        "--bench",
        "--benches",
        "--all-targets",
        "--manifest-path",
    ];
    word.to_str().is_some_and(|word| OPTIONS.contains(&word.split('=').next().unwrap_or(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(rest: &str) -> Vec<String> {
        let rest: Vec<_> = rest.split_whitespace().map(OsString::from).collect();
        test_steps(&rest).iter().map(|step| step.join(" ".as_ref()).into_string().expect("UTF-8")).collect()
    }

    #[test]
    fn the_integration_tests_come_last_and_every_step_gets_the_filter() {
        let steps = steps("gate -- --nocapture --test-threads=1");
        assert_eq!(steps.len(), 3);
        assert!(steps.iter().all(|step| step.ends_with(" gate -- --nocapture --test-threads=1")), "{steps:?}");
        // `--tests` and not `--lib --bins`: other packages have integration tests too.
        assert!(
            steps[0].contains(
                "--workspace --exclude portal-ebpf --exclude portal-bench-ebpf --exclude portal-tests --tests"
            ),
            "{steps:?}"
        );
        assert!(steps[2].contains("--package portal-tests --tests"), "{steps:?}");
    }

    #[test]
    fn a_selection_of_the_callers_own_is_run_as_it_is() {
        for rest in ["--test gate", "--test=gate", "-p xtask plan", "name --doc"] {
            assert_eq!(steps(rest), [format!("test --no-fail-fast {rest}")]);
        }
    }
}
