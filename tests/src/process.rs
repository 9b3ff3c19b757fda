//! Processes that end: bounded runs, and services that are stopped when their handle is dropped.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How often a condition is looked at while it is waited for.
const POLL: Duration = Duration::from_millis(10);

/// What a finished command left.
#[derive(Debug)]
pub struct Output {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

impl Output {
    /// The standard output of a command that succeeded.
    pub fn success(self) -> Result<String> {
        if self.code == Some(0) {
            return Ok(self.stdout);
        }
        bail!("exit code {:?}; stdout: {}; stderr: {}", self.code, self.stdout.trim(), self.stderr.trim())
    }
}

/// Runs the command for at most this long, then kills it, which is an error.
pub fn run(command: &mut Command, limit: Duration) -> Result<Output> {
    let shown = format!("{command:?}");
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {shown}"))?;
    let read = |pipe: Option<Box<dyn Read + Send>>| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut pipe) = pipe {
                // What came before an error is what there is to show.
                let _ = pipe.read_to_end(&mut bytes);
            }
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let stdout = read(child.stdout.take().map(|p| Box::new(p) as Box<dyn Read + Send>));
    let stderr = read(child.stderr.take().map(|p| Box::new(p) as Box<dyn Read + Send>));
    let status = wait(&mut child, limit)?;
    let took = start.elapsed();
    if status.is_none() {
        child.kill()?;
        child.wait()?;
        // Not joined: a grandchild may hold the pipes open.
        bail!("still running after {limit:?}: {shown}");
    }
    let text =
        |handle: thread::JoinHandle<String>| handle.join().unwrap_or_else(|_| "(the reader panicked)".to_owned());
    Ok(Output { code: status.and_then(|s| s.code()), stdout: text(stdout), stderr: text(stderr), took })
}

/// How long a command may take that is no measurement: nothing waits for as long where all is well, and a loaded machine is slow.
const PATIENCE: Duration = Duration::from_mins(1);

/// Runs the command for at most a minute and demands success.
pub fn succeed(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    run(command, PATIENCE)?.success().context(shown)
}

/// Runs a command line, split at its spaces, for at most a minute and demands success.
pub fn sh(line: &str) -> Result<String> {
    let mut words = line.split_whitespace();
    let program = words.next().context("an empty command line")?;
    succeed(portal_tools::command(program).args(words))
}

/// Waits until the condition gives a value.
pub fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("{what} did not happen within {limit:?}");
        }
        thread::sleep(POLL);
    }
}

fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(POLL.min(deadline.saturating_duration_since(Instant::now())));
    }
}

/// A service that runs until it is stopped or dropped. Its output is in a file.
#[derive(Debug)]
pub struct Service {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Service {
    /// Starts the command; what it prints is appended to the log.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name}: {command:?}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned(), ended: None })
    }

    /// The process id. The command is one that executes the service in its own place.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// What it has printed.
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    /// Sends a signal, if it has not ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended()?.is_none() {
            // Not reaped yet, so the id is still this child's.
            kill_process(Pid::from_child(&self.child), signal)
                .with_context(|| format!("cannot signal {}", self.name))?;
        }
        Ok(())
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        self.ended = wait(&mut self.child, limit)?;
        self.ended.with_context(|| format!("{} still runs after {limit:?}", self.name))
    }

    /// Asks it to end, and kills it if it has not within a second.
    pub fn stop(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        if self.wait(Duration::from_secs(1)).is_err() {
            self.kill()?;
        }
        Ok(())
    }

    /// Kills it and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.wait(Duration::from_secs(5))?;
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Err(e) = self.stop() {
            eprintln!("lab: {e:#}");
        }
    }
}
