//! `portald`: what it is told on the command line, and how it ends.

mod confine;
pub mod garden;
mod preflight;
mod privilege;
mod run;
mod signals;
mod tasks;
mod watch;
pub mod zones;

use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::{
    config::Config,
    datapath::{gate::detach_meter, pins::Pins},
};

/// Portal's daemon: guards a guest interface and lets clients log in
///
/// Caution: everything that arrives on the guest interface passes the gate. Never name the interface you administer the
/// machine over.
#[derive(Debug, Parser)]
#[command(name = "portald", version, max_term_width = 100)]
struct Arguments {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "/etc/portal/portal.toml")]
    config: PathBuf,

    /// Check the configuration against this machine, print it with every default filled in, and end
    #[arg(long, conflicts_with = "detach")]
    check: bool,

    /// Take the gate off its interfaces, forget all sessions, and end: the guest networks are open from then on
    #[arg(long)]
    detach: bool,

    /// How to write the log; RUST_LOG sets how much of it, such as `info` or `portal_userspace=debug`
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// Runs the daemon. Exit code 0: ended as asked; 1: refused to start, or failed; 2: wrong usage.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let unusable_filter = start_log(arguments.log_format);
    if let Some(error) = unusable_filter {
        tracing::warn!(
            "RUST_LOG is not a filter ({error}) and is ignored; write it like `info` or `portal_userspace=debug`"
        );
    }
    match tokio_main(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain of causes on one line: a log has lines.
            match arguments.log_format {
                LogFormat::Text => eprintln!("portald: {error:#}"),
                LogFormat::Json => tracing::error!(error = format!("{error:#}"), "portald ends"),
            }
            ExitCode::FAILURE
        }
    }
}

/// Starts the log; returns what is wrong with RUST_LOG, if it is set and can't be used.
fn start_log(format: LogFormat) -> Option<String> {
    let (filter, error) = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(text) if !text.is_empty() => match EnvFilter::try_new(text) {
            Ok(filter) => (Some(filter), None),
            Err(e) => (None, Some(e.to_string())),
        },
        Err(e @ std::env::VarError::NotUnicode(_)) => (None, Some(e.to_string())),
        Ok(_) | Err(std::env::VarError::NotPresent) => (None, None),
    };
    let filter = filter.unwrap_or_else(|| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(false);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    error
}

fn tokio_main(arguments: &Arguments) -> Result<()> {
    // Two threads: the login page and the control API; the packets have threads of their own.
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(8)
        // What needs more than the running daemon may is done by the main thread, before it gives that up too.
        .on_thread_start(|| {
            if let Err(e) = confine::thread() {
                tracing::warn!(error = format!("{e:#}"), "a thread keeps more privileges than it needs");
            }
        })
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(dispatch(arguments))
}

async fn dispatch(arguments: &Arguments) -> Result<()> {
    let config = Config::load(&arguments.config)?;
    if arguments.detach {
        return detach(&config);
    }
    let setup = run::Setup::new(config, arguments.config.clone()).await?;
    if arguments.check {
        setup.check()?;
        return std::io::stdout().lock().write_all(setup.filled().to_toml().as_bytes()).context("cannot write");
    }
    privilege::check()?;
    setup.run().await
}

fn detach(config: &Config) -> Result<()> {
    privilege::check()?;
    let pins = Pins::lock(config.paths.pins.as_path())?;
    let zones = config.zones();
    for zone in &zones {
        // An interface that is gone has no meter either.
        let interface = zone.guest.interface.as_str();
        if let Err(e) = detach_meter(interface) {
            tracing::warn!(
                interface,
                error = format!("{e:#}"),
                "the meter stays: what strangers are sent is still dropped; `tc filter del dev INTERFACE egress` takes it off"
            );
        }
    }
    pins.remove().with_context(|| format!("cannot remove the pins in {}", config.paths.pins.as_path().display()))?;
    let mut interfaces: Vec<_> = zones.iter().map(|zone| zone.guest.interface.as_str()).collect();
    interfaces.sort_unstable();
    interfaces.dedup();
    tracing::warn!(
        interfaces = interfaces.join(", "),
        "the gate is detached and all sessions are forgotten: the guest networks are open"
    );
    Ok(())
}
