//! Child processes and the signals that end them.

use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Remembers the last of the signals that ask a process to end.
///
/// A handler and not `SIG_IGN`, because an ignored signal stays ignored across `exec`: the child could not be
/// interrupted either. A handler is reset to the default there.
pub(crate) struct Interrupts {
    last: Arc<AtomicUsize>,
}

impl Interrupts {
    /// Catches SIGINT, SIGTERM and SIGHUP for the rest of this process's life.
    pub(crate) fn catch() -> Result<Self> {
        let last = Arc::new(AtomicUsize::new(0));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let number = usize::try_from(signal).expect("signal numbers are positive");
            signal_hook::flag::register_usize(signal, Arc::clone(&last), number)
                .with_context(|| format!("cannot install a handler for signal {signal}"))?;
        }
        Ok(Self { last })
    }

    /// The number of the last signal, if there was one.
    fn signal(&self) -> Option<usize> {
        match self.last.load(Ordering::Relaxed) {
            0 => None,
            number => Some(number),
        }
    }

    /// Whether this process has been asked to end.
    pub(crate) fn came(&self) -> bool {
        self.signal().is_some()
    }

    /// The exit code that shells use for a process that this signal ended: 128 and its number.
    pub(crate) fn exit_code(&self) -> Option<u8> {
        self.signal().and_then(|number| u8::try_from(128 + number).ok())
    }

    /// Stops between two steps if a signal came during the first.
    pub(crate) fn check(&self) -> Result<()> {
        match self.signal() {
            None => Ok(()),
            Some(number) => bail!("interrupted by signal {number}; run the command again to go on"),
        }
    }

    /// Runs `command` to its end, whatever signals come, and returns its status.
    ///
    /// The terminal sends Ctrl-C to the child as well. SIGTERM and SIGHUP are handed on, as they come to one process only.
    pub(crate) fn run(&self, command: &mut Command) -> Result<ExitStatus> {
        let mut child = command.spawn().with_context(|| format!("cannot start {}", named(command)))?;
        let pid = Pid::from_child(&child);
        let mut handed_on = self.last.load(Ordering::Relaxed);
        loop {
            if let Some(status) = child.try_wait().with_context(|| format!("cannot wait for {}", named(command)))? {
                return Ok(status);
            }
            let now = self.last.load(Ordering::Relaxed);
            if now != handed_on {
                handed_on = now;
                let signal = [(SIGTERM, Signal::TERM), (SIGHUP, Signal::HUP)]
                    .into_iter()
                    .find_map(|(number, signal)| (usize::try_from(number) == Ok(now)).then_some(signal));
                if let Some(signal) = signal {
                    // The child is not reaped yet, so the number is still its own; that it has ended is no failure.
                    let _already_ended = kill_process(pid, signal);
                }
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// The command as a person would type it.
pub(crate) fn named(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_request_to_end_reaches_the_child_and_this_process_lives_to_see_it_end() {
        let interrupts = Interrupts::catch().expect("handlers");
        let sender = std::thread::spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            kill_process(rustix::process::getpid(), Signal::TERM).expect("a signal to itself");
        });
        let before = Instant::now();
        let status = interrupts.run(portal_tools::command("sleep").arg("20")).expect("sleep starts");
        assert_eq!(status.signal(), Some(SIGTERM));
        assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
        assert_eq!(interrupts.exit_code(), Some(143));
        assert!(interrupts.check().is_err());
        sender.join().expect("sent");
    }
}
