//! The words that `portalctl` understands.

use std::{path::PathBuf, str::FromStr};

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    config::{DEFAULT_SOCKET, SessionLength},
    net::Mac,
};

/// Control Portal, the captive-portal gate.
#[derive(Debug, Parser)]
#[command(
    name = "portalctl",
    version,
    max_term_width = 100,
    after_help = "Exit code: 0 done, 1 refused or failed, 2 wrong usage."
)]
pub(super) struct Cli {
    /// portald's control socket
    #[arg(long, global = true, value_name = "PATH", env = "PORTAL_SOCKET", default_value = DEFAULT_SOCKET)]
    pub(super) socket: PathBuf,
    /// Print JSON, with a stable schema; on standard error too, but for wrong usage
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show how the gate, the daemon and the session table are
    Status,
    /// List the clients that are logged in, or show one
    Clients {
        #[command(subcommand)]
        command: ClientsCommand,
    },
    /// Let a client through, as if it had logged in; returns when the kernel has it
    Allow {
        /// The client's MAC address, as 02:00:5e:10:00:01, 02-00-5e-10-00-01 or 0200.5e10.0001
        mac: Mac,
        /// How long from now, as 45m, 2h or "1d 12h"; or `forever`: until it is revoked or the gateway restarts [default:
        /// as long as a login]
        #[arg(long = "for", value_name = "TIME")]
        length: Option<AllowFor>,
    },
    /// Log a client out; when this returns, it is a stranger
    Revoke {
        /// The client's MAC address
        mac: Mac,
    },
    /// Show how many packets were dropped, and why
    Drops {
        /// Show the reasons that pass and answer packets too
        #[arg(long)]
        all: bool,
    },
    /// Print a completion script, as `source <(portalctl completions bash)`
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, as `portalctl man | man -l -`
    Man {
        /// The command, as `allow` or `clients list`; none for portalctl itself
        page: Vec<String>,
    },
}

/// How long a client is let through.
#[derive(Clone, Copy, Debug)]
pub(super) enum AllowFor {
    Time(SessionLength),
    Forever,
}

impl FromStr for AllowFor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "forever" { Ok(Self::Forever) } else { text.parse().map(Self::Time) }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum ClientsCommand {
    /// List the clients that are logged in
    List,
    /// Show one client's session
    Show {
        /// The client's MAC address
        mac: Mac,
    },
}
