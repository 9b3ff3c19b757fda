//! The signals that ask the daemon to end.

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM, SIGINT and SIGHUP. From the moment this is made none of them kills the process.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    // A terminal that is closed: the daemon ends as cleanly as by SIGTERM. There is no reload that it could mean.
    hangup: Signal,
}

impl Signals {
    /// Catches them.
    pub(super) fn catch() -> Result<Self> {
        let catch = |kind, name| signal(kind).with_context(|| format!("cannot wait for {name}"));
        Ok(Self {
            terminate: catch(SignalKind::terminate(), "SIGTERM")?,
            interrupt: catch(SignalKind::interrupt(), "SIGINT")?,
            hangup: catch(SignalKind::hangup(), "SIGHUP")?,
        })
    }

    /// Waits for one; the name of that which came.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}
