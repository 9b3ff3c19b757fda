//! `portalctl`: what an operator types.

mod args;
mod blocks;
mod explain;
mod output;
mod watch;

use std::{
    ffi::OsString,
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser as _};
use serde::Serialize;

use self::args::{AllowFor, Cli, ClientsCommand, Command, GardenCommand, LimitArgs, ZonesCommand};
use crate::{
    control::{
        Client, ClientError,
        api::{AddRequest, AllowRequest, BlockRequest, ErrorBody, ErrorInfo, RemoveRequest},
    },
    garden::{ports::Ports, view},
};

/// Refused or failed.
const FAILED: u8 = 1;
/// Wrong usage.
const USAGE: u8 = 2;

/// Runs `portalctl` with these arguments, the first of which is the program's name.
///
/// Exit code 0: done; 1: refused or failed; 2: wrong usage.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(e) => return usage(&e),
    };
    let done = match &cli.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "portalctl", &mut script);
            print(&script)
        }
        Command::Man { page } => match man(page) {
            Ok(page) => print(&page),
            Err(e) => return usage(&e),
        },
        _ => ask(&cli),
    };
    let error = match done {
        Ok(()) => return ExitCode::SUCCESS,
        // The reader has enough, as in `portalctl clients list | head`.
        Err(Failure::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
        Err(Failure::Usage(e)) => return usage(&e),
        Err(error) => error.info(),
    };
    let text = if cli.json {
        json(&ErrorBody { error })
    } else {
        format!("error: {}\n  help: {}\n", error.message, error.remedy)
    };
    // Standard output keeps to one schema. Where standard error is gone, the exit code still tells.
    let _: io::Result<()> = io::stderr().lock().write_all(text.as_bytes());
    ExitCode::from(FAILED)
}

/// Why it was not done.
enum Failure {
    /// The daemon refused, or there is none.
    Client(ClientError),
    /// What was given serves for nothing.
    Input { message: String, remedy: &'static str },
    /// The answer can't be written.
    Output(io::Error),
    /// The words make no sense together.
    Usage(clap::Error),
}

impl Failure {
    fn info(&self) -> ErrorInfo {
        let (code, message, remedy) = match self {
            Self::Client(error) => return error.info(),
            Self::Input { message, remedy } => ("bad_input", message.clone(), *remedy),
            Self::Output(e) => (
                "output",
                format!("cannot write the answer: {e}"),
                "see that there is room and permission where it goes",
            ),
            Self::Usage(e) => ("usage", e.to_string(), "see `portalctl --help`"),
        };
        ErrorInfo { code: code.into(), message, remedy: remedy.into() }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Writes to standard output, at once.
fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// Help and version are asked for; the rest is wrong usage.
fn usage(error: &clap::Error) -> ExitCode {
    // Nothing can be done where the terminal is gone.
    let _: io::Result<()> = error.print();
    if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}

fn ask(cli: &Cli) -> Result<(), Failure> {
    let client = Client::new(&cli.socket);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime for one thread needs a few file descriptors");
    runtime.block_on(async {
        match &cli.command {
            Command::Explain(args) => explain::run(&client, args, cli.json).await,
            Command::Drops { all, zone, watch: true, count } => {
                watch::drops(&client, *all, zone.as_deref(), *count, cli.json).await
            }
            Command::Monitor { count } => watch::monitor(&client, *count, cli.json).await,
            Command::Capture(args) => watch::capture(&client, args).await,
            _ => {
                let text = ask_once(&client, cli).await?;
                print(text.as_bytes())
            }
        }
    })
}

/// What is asked and answered once.
async fn ask_once(client: &Client, cli: &Cli) -> Result<String, Failure> {
    Ok(match &cli.command {
        Command::Status => {
            let status = client.status().await?;
            if cli.json { json(&status) } else { output::status(&status) }
        }
        Command::Zones { command } => zones(client, command, cli.json).await?,
        Command::Garden { command } => garden(client, command, cli.json).await?,
        Command::Clients { command: ClientsCommand::List { zone } } => {
            let list = client.clients(zone.as_deref()).await?;
            if cli.json { json(&list) } else { output::clients(&list) }
        }
        Command::Clients { command: ClientsCommand::Show { mac, zone } } => {
            let view = client.client(*mac, zone.as_deref()).await?;
            if cli.json { json(&view) } else { output::client(&view) }
        }
        Command::Allow { mac, length, zone, limits } => {
            let LimitArgs { up, down, quota, quota_per, idle } = *limits;
            let request = AllowRequest {
                for_seconds: if let Some(AllowFor::Time(time)) = length { Some(time.get().as_secs()) } else { None },
                forever: matches!(length, Some(AllowFor::Forever)),
                rate_up: up,
                rate_down: down,
                quota,
                quota_per,
                idle,
            };
            let view = client.allow(*mac, zone.as_deref(), request).await?;
            if cli.json { json(&view) } else { output::allowed(&view) }
        }
        Command::Revoke { mac, bar, zone } => {
            let revoked = client.revoke_and_bar(*mac, zone.as_deref(), *bar).await?;
            if cli.json { json(&revoked) } else { blocks::revoked(&revoked) }
        }
        Command::Block { mac, time, reason, zone } => {
            let request = BlockRequest { for_seconds: time.get().map(|time| time.as_secs()), reason: reason.clone() };
            let blocked = client.block(*mac, zone.as_deref(), &request).await?;
            if cli.json { json(&blocked) } else { blocks::blocked(&blocked) }
        }
        Command::Unblock { mac, zone } => {
            let unblocked = client.unblock(*mac, zone.as_deref()).await?;
            if cli.json { json(&unblocked) } else { format!("{} may log in again.\n", unblocked.mac) }
        }
        Command::Blocks { zone } => {
            let list = client.blocks(zone.as_deref()).await?;
            if cli.json { json(&list) } else { blocks::list(&list) }
        }
        Command::Drops { all, zone, .. } => {
            let drops = client.drops(*all, zone.as_deref()).await?;
            if cli.json { json(&drops) } else { output::drops(&drops) }
        }
        Command::Explain(_)
        | Command::Monitor { .. }
        | Command::Capture(_)
        | Command::Completions { .. }
        | Command::Man { .. } => String::new(),
    })
}

async fn zones(client: &Client, command: &ZonesCommand, as_json: bool) -> Result<String, Failure> {
    Ok(match command {
        ZonesCommand::List => {
            let list = client.zones().await?;
            if as_json { json(&list) } else { output::zones(&list) }
        }
        ZonesCommand::Attach { name } => {
            let view = client.attach_zone(name).await?;
            if as_json { json(&view) } else { format!("{} on {} is guarded.\n", view.name, view.interface) }
        }
        ZonesCommand::Detach { name, open } => {
            let detached = client.detach_zone(name, *open).await?;
            if as_json { json(&detached) } else { format!("{} is no longer guarded.\n", detached.name) }
        }
    })
}

async fn garden(client: &Client, command: &GardenCommand, as_json: bool) -> Result<String, Failure> {
    Ok(match command {
        GardenCommand::List => {
            let list = client.garden().await?;
            if as_json { json(&list) } else { output::garden(&list) }
        }
        GardenCommand::Add { to, ports, zone } => {
            let ports = if ports.is_empty() {
                Ports::default()
            } else {
                ports.clone().try_into().map_err(|e: String| {
                    Failure::Usage(Cli::command().error(clap::error::ErrorKind::ValueValidation, e))
                })?
            };
            let rule = client.add_to_garden(&AddRequest { zone: zone.clone(), to: to.clone(), ports }).await?;
            if as_json { json(&rule) } else { view::added(&rule) }
        }
        GardenCommand::Remove { to, zone } => {
            let removed = client.remove_from_garden(&RemoveRequest { zone: zone.clone(), to: to.clone() }).await?;
            if as_json { json(&removed) } else { view::removed(&removed) }
        }
    })
}

fn json(answer: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(answer).expect("the API's types have a JSON form");
    text.push('\n');
    text
}

/// The manual page of `portalctl`, or of one of its commands.
fn man(page: &[String]) -> Result<Vec<u8>, clap::Error> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut command = &root;
    for name in page {
        let Some(found) = command.find_subcommand(name) else {
            let known: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
            let message = match known.as_slice() {
                [] => format!("`{}` has no commands of its own", command.get_name()),
                known => format!("there is no command `{name}`; known here: {}", known.join(", ")),
            };
            return Err(root.error(clap::error::ErrorKind::InvalidSubcommand, message));
        };
        command = found;
    }
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut text).expect("writing to a Vec does not fail");
    Ok(text)
}

#[cfg(test)]
mod tests;
