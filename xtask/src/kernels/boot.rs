//! The machine in software: started, listened to, bounded in time, and ended whatever happens.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::child::{Interrupts, named};
use crate::requirements::{EMULATOR, What};
use crate::unpack;

/// What the guest has printed.
pub(super) struct Spoken {
    /// The lines of its first process.
    pub(super) lines: Vec<String>,
    /// The kernel's messages.
    pub(super) log: String,
    /// Why it was ended before it ended itself.
    pub(super) cut_short: Option<String>,
}

/// Boots the kernel and waits until the machine has switched itself off, at most for `limit`.
///
/// `heard` is called with each line of the first process's when it comes. `work` is a directory for the archive and the kernel's
/// messages, which stay there for whoever looks for a cause.
pub(super) fn boot(
    kernel: &Path,
    archive: &[u8],
    work: &Path,
    limit: Duration,
    interrupts: &Interrupts,
    heard: impl Fn(&str),
) -> Result<Spoken> {
    let initramfs = work.join("initramfs.cpio");
    let log = work.join("kernel.log");
    fs::write(&initramfs, archive).with_context(|| format!("cannot write {}", initramfs.display()))?;
    File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = emulator()?;
    command
        // In software even where the processor could help: so it is the same everywhere.
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048"])
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
        .arg("-serial")
        .arg(format!("file:{}", log.display()))
        .args(["-serial", "stdio"])
        .arg("-kernel")
        .arg(vmlinuz(kernel)?)
        .arg("-initrd")
        .arg(&initramfs)
        // A panic ends the machine at once: it reboots, and the emulator has been told not to.
        .args(["-append", "console=ttyS0 loglevel=5 panic=-1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {}", named(&command)))?;
    let output = child.stdout.take().expect("it was asked for");
    let machine = Machine(child);
    let (sender, receiver) = mpsc::channel();
    // It ends with the emulator, whose end closes the pipe.
    let reader = thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n') {
            let Ok(line) = line else { break };
            let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            sender.send(line).expect("the receiver is there until this thread has ended");
        }
    });
    let start = Instant::now();
    let mut lines = Vec::new();
    let cut_short = loop {
        match receiver.recv_timeout(Duration::from_millis(100)) {
            Ok(line) => {
                heard(&line);
                lines.push(line);
            }
            Err(RecvTimeoutError::Disconnected) => break None,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if interrupts.came() {
            break Some("it was interrupted".to_owned());
        }
        if start.elapsed() > limit {
            break Some(format!("it was not done after {} s", limit.as_secs()));
        }
    };
    drop(machine);
    reader.join().expect("the reader does not panic");
    lines.extend(receiver.try_iter());
    let log = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
    Ok(Spoken { lines, log: String::from_utf8_lossy(&log).into_owned(), cut_short })
}

/// The emulator's process, which does not outlive this.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // That it has ended already is no failure, and it can't be helped if a process can't be killed.
        let _already_ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// The emulator: the installed one, or the unpacked one with its libraries. It finds its own files beside itself.
///
/// It dies with this process, however that ends, so that none is ever left behind.
fn emulator() -> Result<Command> {
    let What::Program(program) = EMULATOR.what else { bail!("{} is no program", EMULATOR.package) };
    let mut command = portal_tools::command("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]);
    if let Some(installed) = unpack::program(program) {
        command.arg(installed);
        return Ok(command);
    }
    let files = unpack::directory(&EMULATOR);
    command.arg(files.join("usr/bin").join(program));
    let mut libraries = Vec::new();
    for directory in ["lib", "usr/lib"].map(|directory| files.join(directory)) {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        libraries.extend(
            entries.flatten().map(|entry| entry.path()).filter(|path| path.to_string_lossy().ends_with("-linux-gnu")),
        );
    }
    let libraries = std::env::join_paths(&libraries).context("the target directory's path has a colon in it")?;
    command.env("LD_LIBRARY_PATH", libraries);
    Ok(command)
}

fn vmlinuz(kernel: &Path) -> Result<PathBuf> {
    let boot = kernel.join("boot");
    fs::read_dir(&boot)
        .with_context(|| format!("cannot read {}", boot.display()))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")))
        .with_context(|| format!("{} has no kernel: remove {}, and it is made again", boot.display(), kernel.display()))
}
