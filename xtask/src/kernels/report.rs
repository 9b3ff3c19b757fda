//! What the machine in software has printed, judged.

use std::fmt::{self, Write as _};

use super::boot::Spoken;

/// How one kernel did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// `uname -r` and `uname -v`.
    pub(super) kernel: Option<String>,
    pub(super) programs: Vec<ProgramRun>,
    /// What is wrong beside failed tests.
    pub(super) complaints: Vec<String>,
}

/// How one test program did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ProgramRun {
    name: String,
    tests: Vec<Test>,
    /// Its exit code, when it has ended.
    status: Option<i32>,
    /// How long it ran, in seconds, in its own words.
    seconds: String,
}

#[derive(Debug, PartialEq, Eq)]
struct Test {
    name: String,
    outcome: Outcome,
    /// What it has printed.
    output: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Outcome {
    Passed,
    /// It says why: in a line that begins with [`SKIPPED`].
    Skipped,
    Failed,
    /// It was begun, and nothing more was heard of it.
    Unfinished,
}

/// How a test says that the kernel or the machine lacks what it needs, and that it did nothing.
const SKIPPED: &str = "skipped: ";

/// What the kernel prints when something is wrong with it.
const ALARMS: [&str; 6] = ["BUG: ", "WARNING: ", "Oops", "Kernel panic", "Call Trace:", "rcu: INFO"];

/// What is in the lines that are shown of a test that passed.
const TELLING: [&str; 4] = ["instructions", "generated", TIME, SKIPPED];
/// What is in those of them that are not recorded: they depend on the machine.
const TIME: &str = " ns";

/// At most so many of the kernel's lines are shown.
const SHOWN: usize = 40;

impl Report {
    /// Reads what was printed. `programs` are those that should have run.
    pub(super) fn read(spoken: &Spoken, programs: &[&str]) -> Self {
        let mut report = Self::default();
        let mut done = false;
        // Which test's output follows.
        let mut section: Option<String> = None;
        for line in &spoken.lines {
            if let Some(message) = line.strip_prefix("portal: ") {
                section = None;
                let (verb, rest) = message.split_once(' ').unwrap_or((message, ""));
                match verb {
                    "kernel" => report.kernel = Some(rest.to_owned()),
                    "begins" => report.programs.push(ProgramRun {
                        // Its directory's name is a number, which gives the order, and its own.
                        name: rest.split_once('-').map_or(rest, |(_, name)| name).to_owned(),
                        ..ProgramRun::default()
                    }),
                    "ended" => {
                        if let Some(program) = report.programs.last_mut() {
                            let (status, seconds) = rest.split_once(' ').unwrap_or((rest, ""));
                            program.status = status.parse().ok();
                            seconds.clone_into(&mut program.seconds);
                        }
                    }
                    "done" => done = true,
                    _ => report.complaints.push(message.to_owned()),
                }
            } else if let Some(program) = report.programs.last_mut() {
                program.read(line, &mut section);
            } else if !line.is_empty() {
                report.complaints.push(line.clone());
            }
        }
        if !done {
            let why = spoken.cut_short.as_deref().unwrap_or("the machine ended by itself");
            report.complaints.push(format!("the tests did not come to their end: {why}"));
        }
        for name in programs {
            match report.programs.iter().find(|program| program.name == *name) {
                Some(program) if program.tests.iter().all(|test| test.outcome == Outcome::Skipped) => {
                    report.complaints.push(format!("{name} has run no test"));
                }
                Some(ProgramRun { status: Some(0), .. }) => {}
                Some(ProgramRun { status: Some(status), .. }) => {
                    report.complaints.push(format!("{name} ended with exit code {status}"));
                }
                Some(ProgramRun { status: None, .. }) => report.complaints.push(format!("{name} did not end")),
                None => report.complaints.push(format!("{name} was not started")),
            }
        }
        let lines: Vec<_> = spoken.log.lines().collect();
        if let Some(first) = lines.iter().position(|line| ALARMS.iter().any(|alarm| line.contains(alarm))) {
            report.complaints.push("the kernel complains:".into());
            report.complaints.extend(lines[first..].iter().take(SHOWN).map(|line| (*line).to_owned()));
        } else if !done {
            let tail = &lines[lines.len().saturating_sub(SHOWN)..];
            report.complaints.push("the kernel's last messages:".into());
            report.complaints.extend(tail.iter().map(|line| (*line).to_owned()));
        }
        report
    }

    /// Whether everything ran and nothing failed.
    pub(super) fn passed(&self) -> bool {
        self.complaints.is_empty()
            && self.tests().all(|(_, test)| matches!(test.outcome, Outcome::Passed | Outcome::Skipped))
    }

    fn tests(&self) -> impl Iterator<Item = (&str, &Test)> {
        self.programs.iter().flat_map(|program| program.tests.iter().map(|test| (program.name.as_str(), test)))
    }

    /// What is the same on whichever machine it is run, for docs/kernels.md.
    pub(super) fn record(&self) -> String {
        let kernel = self.kernel.as_deref().unwrap_or("unknown");
        let mut text = format!("### Linux {}\n\n```\n", kernel.split(' ').next().unwrap_or(kernel));
        for (program, test) in self.tests() {
            writeln!(text, "{} {program} {}", test.outcome, test.name).expect("a String takes all");
            for line in test.telling().filter(|line| !line.contains(TIME)) {
                writeln!(text, "     {line}").expect("a String takes all");
            }
        }
        text + "```\n"
    }
}

impl ProgramRun {
    /// Takes a line of a test program's own output.
    fn read(&mut self, line: &str, section: &mut Option<String>) {
        if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            *section = Some(name.to_owned());
            return;
        }
        if ["successes:", "failures:"].contains(&line) || line.starts_with("test result: ") {
            *section = None;
            return;
        }
        let test = |tests: &mut Vec<Test>, name: &str| tests.iter_mut().position(|test| test.name == name);
        if let Some(name) = section {
            if let Some(at) = test(&mut self.tests, name) {
                let test = &mut self.tests[at];
                if line.starts_with(SKIPPED) && test.outcome == Outcome::Passed {
                    test.outcome = Outcome::Skipped;
                }
                if !line.is_empty() {
                    test.output.push(line.to_owned());
                }
            }
            return;
        }
        if let Some((name, outcome)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            let (outcome, output) = match outcome {
                "ok" => (Outcome::Passed, Vec::new()),
                "FAILED" => (Outcome::Failed, Vec::new()),
                "" => (Outcome::Unfinished, Vec::new()),
                other if other.starts_with("ignored") => (Outcome::Skipped, vec![other.to_owned()]),
                // Whatever came between the name and the outcome, which is then alone in a line to come.
                other => (Outcome::Unfinished, vec![other.to_owned()]),
            };
            self.tests.push(Test { name: name.to_owned(), outcome, output });
        } else if let Some(last) = self.tests.last_mut().filter(|test| test.outcome == Outcome::Unfinished) {
            match line {
                "ok" => last.outcome = Outcome::Passed,
                "FAILED" => last.outcome = Outcome::Failed,
                other => last.output.push(other.to_owned()),
            }
        }
    }
}

impl Test {
    /// The lines worth showing when nothing is wrong.
    fn telling(&self) -> impl Iterator<Item = &String> {
        self.output.iter().filter(|line| TELLING.iter().any(|part| line.contains(part)))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Passed => "PASS",
            Self::Skipped => "SKIP",
            Self::Failed => "FAIL",
            Self::Unfinished => "LOST",
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "Linux {}", self.kernel.as_deref().unwrap_or("that did not reach its first process"))?;
        for (program, test) in self.tests() {
            writeln!(formatter, "{} {program} {}", test.outcome, test.name)?;
            match test.outcome {
                Outcome::Passed | Outcome::Skipped => {
                    test.telling().try_for_each(|line| writeln!(formatter, "     {line}"))?;
                }
                Outcome::Failed | Outcome::Unfinished => {
                    test.output.iter().try_for_each(|line| writeln!(formatter, "     {line}"))?;
                }
            }
        }
        for program in &self.programs {
            writeln!(formatter, "{} took {} s", program.name, program.seconds)?;
        }
        for complaint in &self.complaints {
            writeln!(formatter, "FAIL {complaint}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "portal: kernel 6.1.0-9-cloud-amd64 #1 SMP Debian 6.1.2-2
portal: begins 1-gate

running 3 tests
test a::first ... ok
test a::second ... ok
test a::third ... ok

successes:

---- a::first stdout ----
verified instructions: 15000
authorised packet: 90 ns

---- a::third stdout ----
skipped: this kernel has no tcx


successes:
    a::first
    a::second
    a::third

test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s

portal: ended 0 17
portal: done";

    fn report(lines: &str, log: &str) -> Report {
        let lines = lines.lines().map(str::to_owned).collect();
        let spoken = Spoken { lines, log: log.to_owned(), cut_short: None };
        Report::read(&spoken, &["gate"])
    }

    #[test]
    fn a_whole_run_passes_with_what_its_tests_say() {
        let report = report(WHOLE, "[    0.0] Linux version 6.1\n");
        assert!(report.passed(), "{report}");
        assert_eq!(
            report.to_string(),
            "Linux 6.1.0-9-cloud-amd64 #1 SMP Debian 6.1.2-2\nPASS gate a::first\n     verified instructions: 15000\n     \
             authorised packet: 90 ns\nPASS gate a::second\nSKIP gate a::third\n     skipped: this kernel has no tcx\n\
             gate took 17 s\n"
        );
        assert_eq!(
            report.record(),
            "### Linux 6.1.0-9-cloud-amd64\n\n```\nPASS gate a::first\n     verified instructions: 15000\n\
             PASS gate a::second\nSKIP gate a::third\n     skipped: this kernel has no tcx\n```\n"
        );
    }

    #[test]
    fn whatever_is_wrong_fails_and_is_named() {
        let without = |line: &str| WHOLE.replace(&format!("{line}\n"), "");
        for (sentence, lines, log, expected) in [
            ("nothing came", String::new(), "Kernel panic - not syncing", "Kernel panic - not syncing"),
            ("nothing came, and no alarm", String::new(), "Run /init", "Run /init"),
            ("one test failed", WHOLE.replace("second ... ok", "second ... FAILED"), "", "FAIL gate a::second"),
            ("the program failed", WHOLE.replace("ended 0", "ended 101"), "", "exit code 101"),
            ("a signal ended it", without("portal: ended 0 17"), "", "gate did not end"),
            (
                "the machine ended within a test",
                WHOLE.split_inclusive("a::second ... ").next().expect("it is there").to_owned(),
                "",
                "LOST gate a::second",
            ),
            ("no test ran", "portal: begins 1-gate\nportal: ended 0 1\nportal: done".into(), "", "has run no test"),
            ("another program ran", WHOLE.replace("1-gate", "1-other"), "", "gate was not started"),
            ("a module is refused", format!("portal: refused /modules/10-veth.ko\n{WHOLE}"), "", "10-veth.ko"),
            ("the kernel warns", WHOLE.to_owned(), "x\n[ 3.1] WARNING: CPU: 0 at net/core\ny", "FAIL y"),
        ] {
            let report = report(&lines, log);
            assert!(!report.passed(), "{sentence}");
            assert!(report.to_string().contains(expected), "{sentence}: {report}");
        }
    }

    #[test]
    fn what_is_printed_within_a_test_does_not_hide_its_outcome() {
        let report = report(&WHOLE.replace("second ... ok", "second ... RTNETLINK answers: no\nok"), "");
        assert!(report.passed(), "{report}");
    }
}
