//! The demonstration itself: its table, its exit code, and that nothing is left of it.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use portal_lab::{
    Lab,
    portald::{BINARIES, binary},
    process::{Service, wait_for},
};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::turn::lab;

/// How long the steps may take.
const LIMIT: Duration = Duration::from_mins(1);

/// Starts it in a process group of its own, as a shell does.
fn start(lab: &Lab, arguments: &[&str], binaries: Option<&Path>) -> Result<Service> {
    // The tests build what the demonstration runs.
    binary("portald")?;
    let mut command = portal_tools::command(env!("CARGO_BIN_EXE_lab"));
    command.arg("demo").args(arguments).process_group(0);
    if let Some(directory) = binaries {
        command.env(BINARIES, directory);
    }
    Service::start("lab demo", &mut command, &lab.directory().join("demo.log"))
}

/// A directory with the demonstration's binaries, in which portalctl runs this line of sh when it is to revoke a session.
fn binaries_with_revoke(lab: &Lab, line: &str) -> Result<PathBuf> {
    let binaries = lab.directory().join("binaries");
    fs::create_dir(&binaries)?;
    symlink(binary("portald")?, binaries.join("portald"))?;
    let script = format!(
        "#!/bin/sh\nfor word; do if [ \"$word\" = revoke ]; then {line}; fi; done\nexec {} \"$@\"\n",
        binary("portalctl")?.display()
    );
    let portalctl = binaries.join("portalctl");
    fs::write(&portalctl, script)?;
    fs::set_permissions(&portalctl, fs::Permissions::from_mode(0o755))?;
    Ok(binaries)
}

/// What there is of the labs of this process: namespaces, directories, mounts, processes.
pub(crate) fn traces(pid: u32) -> Result<Vec<String>> {
    let prefix = format!("pl{pid}-");
    let mut found = Vec::new();
    for directory in ["/run/netns", "/run/portal-lab", "/etc/netns"] {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with(&prefix) {
                found.push(format!("{directory}/{name}"));
            }
        }
    }
    let path = format!("/{prefix}");
    found.extend(fs::read_to_string("/proc/mounts")?.lines().filter(|line| line.contains(&path)).map(str::to_owned));
    for process in fs::read_dir("/proc")? {
        // It may end meanwhile.
        let Ok(line) = fs::read(process?.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&path) {
            found.push(format!("process {line}"));
        }
    }
    Ok(found)
}

/// The rows of the table, and how many of them came as expected.
fn rows(log: &str) -> (usize, usize) {
    let with = |word: &str| log.lines().filter(|line| line.trim_end_matches([' ', '│']).ends_with(word)).count();
    (with(" yes") + with(" NO"), with(" yes"))
}

#[test]
fn the_demonstration_prints_its_table_and_leaves_nothing() -> Result<()> {
    let lab = lab()?;
    let mut demo = start(&lab, &[], None)?;
    wait_for("the demonstration's lab", LIMIT, || traces(demo.pid()).is_ok_and(|t| t.len() > 5).then_some(()))?;
    let status = demo.wait(LIMIT)?;
    let log = demo.log();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(rows(&log), (16, 16), "{log}");
    for word in ["511", "302", "200", "IPv4", "IPv6", "revoke"] {
        assert!(log.contains(word), "no {word} in {log}");
    }
    assert_eq!(traces(demo.pid())?, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_kept_demonstration_runs_until_ctrl_c_and_leaves_nothing() -> Result<()> {
    let lab = lab()?;
    let mut demo = start(&lab, &["--keep"], None)?;
    wait_for("the end of the steps", LIMIT, || demo.log().contains("Ctrl-C removes the lab").then_some(()))
        .with_context(|| demo.log())?;
    assert!(demo.ended()?.is_none(), "{}", demo.log());
    let traces_now = traces(demo.pid())?;
    assert!(traces_now.iter().any(|t| t.starts_with("process") && t.contains("portald")), "{traces_now:?}");
    demo.signal(Signal::INT)?;
    assert_eq!(demo.wait(Duration::from_secs(15))?.code(), Some(0), "{}", demo.log());
    assert_eq!(traces(demo.pid())?, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_signal_amid_the_steps_leaves_nothing() -> Result<()> {
    let lab = lab()?;
    // At once, while the lab is made, and while the steps run.
    for milliseconds in [0, 20, 50, 100, 200, 400, 800, 1600] {
        let mut demo = start(&lab, &["--keep"], None)?;
        let prefix = format!("pl{}-", demo.pid());
        let begun = || Path::new("/run/portal-lab").join(format!("{prefix}0")).exists().then_some(());
        wait_for("the lab's directory", LIMIT, begun)?;
        std::thread::sleep(Duration::from_millis(milliseconds));
        demo.signal(Signal::TERM)?;
        let code = demo.wait(LIMIT)?.code();
        let log = demo.log();
        // Had it come to its last line, the signal is the ordinary end.
        let (expected, interrupted) =
            if log.contains("Ctrl-C removes the lab") { (0, false) } else { (128 + 15, true) };
        assert_eq!(code, Some(expected), "after {milliseconds} ms: {log}");
        assert_eq!(log.contains("interrupted by SIGTERM"), interrupted, "after {milliseconds} ms: {log}");
        nothing_is_left(&demo).with_context(|| format!("after {milliseconds} ms"))?;
        // Each run appends to it.
        fs::remove_file(lab.directory().join("demo.log"))?;
    }
    Ok(())
}

/// What the killed processes held goes a moment later.
fn nothing_is_left(demo: &Service) -> Result<()> {
    let gone = || traces(demo.pid()).is_ok_and(|traces| traces.is_empty()).then_some(());
    wait_for("the end of the traces", LIMIT, gone).with_context(|| format!("{:?}", traces(demo.pid())))
}

#[test]
fn a_step_that_the_signal_itself_breaks_is_no_failure_of_the_demonstration() -> Result<()> {
    let lab = lab()?;
    let waiting = lab.directory().join("waiting");
    // The signal meets this step for certain, and breaks it and all that follow.
    let binaries = binaries_with_revoke(&lab, &format!("echo > {}; exec sleep 120", waiting.display()))?;
    for (sentence, arguments, signal, name, to_all) in [
        (
            "to the demonstration alone, whose removal then kills the step",
            &["--keep"][..],
            Signal::TERM,
            "SIGTERM",
            false,
        ),
        ("Ctrl-C, which the terminal sends to the step as well", &["--keep"], Signal::INT, "SIGINT", true),
        ("without --keep", &[], Signal::INT, "SIGINT", true),
        ("the terminal is gone", &[], Signal::HUP, "SIGHUP", true),
    ] {
        let mut demo = start(&lab, arguments, Some(&binaries))?;
        wait_for("the step", LIMIT, || waiting.exists().then_some(())).with_context(|| demo.log())?;
        if to_all {
            let group = i32::try_from(demo.pid()).ok().and_then(Pid::from_raw).context("a process id")?;
            kill_process_group(group, signal)?;
        } else {
            demo.signal(signal)?;
        }
        let code = demo.wait(LIMIT)?.code();
        let log = demo.log();
        assert_eq!(code, Some(128 + signal.as_raw()), "{sentence}: {log}");
        assert!(log.contains(&format!("interrupted by {name}")), "{sentence}: {log}");
        assert!(!log.contains("Ctrl-C removes the lab") && rows(&log) == (0, 0), "{sentence}: {log}");
        nothing_is_left(&demo).context(sentence)?;
        fs::remove_file(&waiting)?;
        fs::remove_file(lab.directory().join("demo.log"))?;
    }
    Ok(())
}

#[test]
fn a_step_that_does_not_come_as_expected_fails_the_demonstration() -> Result<()> {
    let lab = lab()?;
    // A portalctl that says "revoked" and has not revoked: then the 511 does not come again.
    let binaries = binaries_with_revoke(&lab, "echo revoked; exit 0")?;
    let mut demo = start(&lab, &[], Some(&binaries))?;
    let status = demo.wait(LIMIT)?;
    let log = demo.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert_eq!(rows(&log), (16, 14), "{log}");
    assert_eq!(traces(demo.pid())?, Vec::<String>::new());
    Ok(())
}
