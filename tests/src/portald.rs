//! The daemon under test, and its control CLI: the built binaries.

use std::{
    fmt::Write as _,
    fs,
    path::PathBuf,
    process::{Command, ExitStatus},
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    addresses::GUEST_INTERFACE,
    lab::Lab,
    process::{Output, Service, run, wait_for},
    removal,
};

/// How long portald may take to answer after it was started.
const START_LIMIT: Duration = Duration::from_mins(1);

/// The configuration that portald is given; the rest has its defaults.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The interface it guards.
    pub interface: String,
    /// `native` or `generic`.
    pub xdp_mode: &'static str,
    /// How long a login lasts.
    pub session: &'static str,
    /// How many sessions fit; `None` is the default.
    pub clients: Option<u32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { interface: GUEST_INTERFACE.to_owned(), xdp_mode: "native", session: "8h", clients: None }
    }
}

/// A portald that runs on the lab's gateway. Dropping it stops it; its log goes to standard error then, which the test runner
/// shows for a test that fails.
#[derive(Debug)]
pub struct Portald {
    service: Service,
    arguments: Vec<String>,
    /// Whether the log is printed at the end.
    pub prints_log: bool,
}

impl Portald {
    /// Starts it and waits until it answers.
    pub fn start(lab: &Lab, settings: &Settings) -> Result<Self> {
        Self::start_with(lab, &config_text(lab, settings), &[])
    }

    /// Starts it without budgets for strangers: for tests in which one stranger is many, or a load.
    pub fn start_without_budgets(lab: &Lab) -> Result<Self> {
        Self::start_with(lab, &without_budgets(&config_text(lab, &Settings::default())), &[])
    }

    /// Starts it with this text as its configuration and these arguments beside it, and waits until it answers. Its paths must
    /// be those of [`config_text`].
    pub fn start_with(lab: &Lab, config: &str, arguments: &[&str]) -> Result<Self> {
        fs::write(config_path(lab), config)?;
        let arguments: Vec<_> = arguments.iter().map(|a| (*a).to_owned()).collect();
        let mut portald = Self { service: Self::spawn(lab, &arguments)?, arguments, prints_log: true };
        portald.wait_until_it_answers(lab)?;
        Ok(portald)
    }

    /// Starts it again with the same configuration, after it was killed or stopped.
    pub fn restart(&mut self, lab: &Lab) -> Result<()> {
        ensure!(self.service.ended()?.is_some(), "portald still runs");
        self.service = Self::spawn(lab, &self.arguments)?;
        self.wait_until_it_answers(lab)
    }

    fn spawn(lab: &Lab, arguments: &[String]) -> Result<Service> {
        let mut command = lab.gateway.service(binary("portald")?);
        command.arg("--config").arg(config_path(lab)).args(arguments).env("NO_COLOR", "1");
        Service::start("portald", &mut command, &lab.directory().join("portald.log"))
    }

    fn wait_until_it_answers(&mut self, lab: &Lab) -> Result<()> {
        let answer = wait_for("portald's answer", START_LIMIT, || match self.service.ended() {
            Ok(None) => portalctl(lab, &["status", "--json"]).ok().filter(|o| o.code == Some(0)).map(|_| Ok(())),
            Ok(Some(status)) => Some(Err(anyhow!("portald ended: {status}"))),
            Err(e) => Some(Err(e)),
        });
        answer.and_then(|result| result).with_context(|| format!("portald's log:\n{}", self.service.log()))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.service.pid()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.service.ended()?.is_none())
    }

    /// Kills it without a chance to clean up.
    pub fn kill9(&mut self) -> Result<()> {
        self.service.kill()
    }

    /// Asks it to end (SIGTERM) and waits for as long as this.
    pub fn stop(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.service.signal(Signal::TERM)?;
        self.service.wait(limit)
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.service.wait(limit)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.service.log()
    }
}

impl Drop for Portald {
    fn drop(&mut self) {
        // At a signal the removal ends it.
        drop(removal::give_way());
        if let Err(e) = self.service.stop() {
            eprintln!("lab: {e:#}");
        }
        if self.prints_log {
            eprintln!("--- portald's log\n{}---", self.service.log());
        }
    }
}

/// The configuration of the lab's portald.
pub fn config_path(lab: &Lab) -> PathBuf {
    lab.directory().join("portal.toml")
}

/// The control socket.
pub fn socket(lab: &Lab) -> PathBuf {
    lab.directory().join("portald.sock")
}

/// The text of a configuration whose paths are in the lab's directory.
pub fn config_text(lab: &Lab, settings: &Settings) -> String {
    let Settings { interface, xdp_mode, session, clients } = settings;
    let directory = lab.directory().display();
    let mut text = format!(
        "[guest]\ninterface = \"{interface}\"\nxdp_mode = \"{xdp_mode}\"\n\n\
         [portal]\nsession = \"{session}\"\n\n\
         [paths]\npins = \"{directory}/bpf/portal\"\nsocket = \"{directory}/portald.sock\"\nstate = \"{directory}/state\"\n"
    );
    if let Some(clients) = clients {
        write!(text, "\n[limits]\nclients = {clients}\n").expect("a String takes all");
    }
    text
}

/// The same configuration without budgets for strangers: for tests in which one stranger is many, or a load.
pub fn without_budgets(config: &str) -> String {
    let names = ["requests", "dns_queries", "dns_bytes", "link", "replies", "services"];
    let off = names.map(|name| format!("{name} = \"off\"\n")).concat();
    format!("{config}\n[budgets]\n{off}")
}

/// Runs portald in the lab's gateway with this text as its configuration, for as long as a minute: for one that must refuse.
pub fn refused(lab: &Lab, config: &str) -> Result<Output> {
    let path = lab.directory().join("refused.toml");
    fs::write(&path, config)?;
    run(lab.gateway.service(binary("portald")?).arg("--config").arg(path), START_LIMIT)
}

/// Runs portald in the lab's gateway with these arguments, for as long as a minute.
pub fn portald(lab: &Lab, arguments: &[&str]) -> Result<Output> {
    run(lab.gateway.service(binary("portald")?).args(arguments), START_LIMIT)
}

/// Runs portalctl on the lab's portald.
pub fn portalctl(lab: &Lab, arguments: &[&str]) -> Result<Output> {
    let mut command = lab.gateway.service(binary("portalctl")?);
    run(command.arg("--socket").arg(socket(lab)).args(arguments), START_LIMIT)
}

/// Starts portalctl on the lab's portald, for what goes on until it is stopped. What it prints is in a log of this name.
pub fn portalctl_start(lab: &Lab, name: &str, arguments: &[&str]) -> Result<Service> {
    let mut command = lab.gateway.service(binary("portalctl")?);
    command.arg("--socket").arg(socket(lab)).args(arguments);
    Service::start(&format!("portalctl {name}"), &mut command, &lab.directory().join(format!("{name}.log")))
}

/// What portalctl prints as JSON, which must succeed.
pub fn portalctl_json(lab: &Lab, arguments: &[&str]) -> Result<Value> {
    let mut all = arguments.to_vec();
    all.push("--json");
    let text = portalctl(lab, &all)?.success().with_context(|| format!("portalctl {}", all.join(" ")))?;
    serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
}

/// The command line that a person drives the lab's portald with.
pub fn portalctl_line(lab: &Lab) -> Result<String> {
    Ok(format!("{} --socket {}", binary("portalctl")?.display(), socket(lab).display()))
}

/// Names a directory whose `portald` and `portalctl` the lab takes instead of its own build's.
pub const BINARIES: &str = "PORTAL_LAB_BINARIES";

/// A built binary: it is beside the one that runs, or beside the directory of a test. Under `cargo test` it is brought up to date
/// first, as cargo builds no other package's binaries for a test. [`BINARIES`] overrides all that.
pub fn binary(name: &str) -> Result<PathBuf> {
    static DIRECTORY: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| directory_of_binaries().map_err(|e| format!("{e:#}")));
    let path = directory.as_ref().map_err(|e| anyhow!("{e}"))?.join(name);
    ensure!(path.exists(), "{} is not built: run `cargo xtask build`", path.display());
    Ok(path)
}

fn directory_of_binaries() -> Result<PathBuf> {
    if let Some(chosen) = std::env::var_os(BINARIES) {
        return Ok(chosen.into());
    }
    let own = std::env::current_exe()?;
    let mut directory = own.parent().context("a binary is in a directory")?;
    let is_test = directory.ends_with("deps");
    if is_test {
        directory = directory.parent().context("`deps` is in a directory")?;
    }
    if let (true, Some(cargo)) = (is_test, std::env::var_os("CARGO")) {
        let profile = match directory.file_name().and_then(|n| n.to_str()) {
            Some("debug") | None => "dev",
            Some(name) => name,
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "cargo looks for the compiler on the caller's PATH, in the caller's order"
        )]
        let mut build = Command::new(cargo);
        build
            .args(["build", "--quiet", "--bins", "--profile", profile])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .arg("--workspace");
        build.args(["--exclude", "portal-ebpf", "--exclude", "portal-bench-ebpf"]);
        let output = run(&mut build, Duration::from_mins(10))?;
        if output.code != Some(0) {
            bail!("the binaries do not build: {}", output.stderr);
        }
    }
    Ok(directory.to_owned())
}
