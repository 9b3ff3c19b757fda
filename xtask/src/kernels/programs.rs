//! The test programs that are run on other kernels.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::child::{Interrupts, named};
use crate::environment;

/// A test program.
pub(super) struct Program {
    /// cargo's name of the target.
    pub(super) name: &'static str,
    /// What it is called with: filters, which take the tests whose names contain one of them, none takes all; or what is to be skipped.
    pub(super) arguments: &'static [&'static str],
    /// Where cargo has put it.
    pub(super) executable: PathBuf,
}

/// All of the gate's own tests, and those of the library and of the whole that are about what another kernel may do otherwise.
/// None that demands a speed: a processor that is software has none.
const WANTED: [(&str, &[&str]); 3] = [
    // The page of verdicts is written and compared where the repository is.
    ("gate", &["--skip", "docs::"]),
    ("portal_userspace", &["responder::veth_tests", "datapath::gate", "net::tests"]),
    ("e2e", &["modes::", "sessions::", "shutdown::", "takeover::"]),
];

/// Builds them, all at once: what is built of a dependency depends on who else wants it.
pub(super) fn build(interrupts: &Interrupts) -> Result<Vec<Program>> {
    let mut command = environment::cargo();
    command
        .args(["test", "--workspace", "--exclude", "portal-ebpf", "--exclude", "portal-bench-ebpf"])
        .args(["--lib", "--test", "gate", "--test", "e2e"])
        .args(["--no-run", "--message-format=json-render-diagnostics"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    // The terminal sends Ctrl-C to cargo, too.
    let output = command.output().with_context(|| format!("cannot start {}", named(&command)))?;
    interrupts.check()?;
    if !output.status.success() {
        bail!("{} failed: {}; what it said is above", named(&command), output.status);
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    WANTED
        .iter()
        .map(|&(name, arguments)| {
            let executable = executable(&messages, name)
                .with_context(|| format!("{} names no test program {name}", named(&command)))?;
            Ok(Program { name, arguments, executable })
        })
        .collect()
}

/// The test program of this name among cargo's messages, of which each line is one.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|message| {
        let is_it = message["reason"] == "compiler-artifact"
            && message["profile"]["test"] == true
            && message["target"]["name"] == name;
        is_it.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_program_is_found_among_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"gate"},"profile":{"test":false},"executable":null}
not JSON
{"reason":"compiler-artifact","target":{"name":"other"},"profile":{"test":true},"executable":"/t/other-1"}
{"reason":"compiler-artifact","target":{"name":"gate"},"profile":{"test":true},"executable":"/t/gate-2"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "gate"), Some("/t/gate-2".into()));
        assert_eq!(executable(messages, "missing"), None);
    }
}
