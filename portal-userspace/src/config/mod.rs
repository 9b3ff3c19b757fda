//! The configuration: what an operator may write, checked before anything is touched.
//!
//! [`Config`] is the file as written; [`ZoneConfig`] is what applies to one guest network; [`Effective`] is that with every default filled in
//! from its interface.
//! Every key, its unit and its default is described once, in `reference.toml` beside this file ([`REFERENCE`]).

mod bar;
mod budgets;
mod consistency;
mod effective;
mod error;
mod limits;
mod quantity;
mod section;
mod values;
mod vlan;
mod zone;

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{garden::rules::GardenRule, responder::probes};

pub use crate::net::XdpMode;
pub use bar::{BarTime, QuotaPer};
pub use budgets::{Bucket, Budget, Budgets, BudgetsOverride, LoginRate};
pub use effective::{Effective, ResolveError, Url};
pub use error::ConfigError;
pub use limits::{SessionLimits, SessionLimitsOverride};
pub use quantity::{BitRate, ByteCount, IdleTime, OrNone, RateBurst};
pub use values::{
    AbsolutePath, Clients, Count, GroupName, InterfaceName, PortalUrl, SessionLength, Terms, Title, ZoneName,
};
pub use vlan::Vlan;
pub use zone::{AntiSpoofing, Guest, Https, Ntp, NtpOverride, PortalOverride, SourceCheck, ZoneConfig, ZoneSection};

/// Every key with its meaning, its unit and its default: a configuration that says what an empty one means.
pub const REFERENCE: &str = include_str!("reference.toml");

/// The port of the login page where `portal.listen` is not set.
pub const DEFAULT_PORT: u16 = 8080;

/// The configuration as written, with defaults that do not depend on the interface.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The first guest network.
    pub guest: Guest,
    /// The login page.
    #[serde(default)]
    pub portal: Portal,
    /// What a client that has logged in may use.
    #[serde(default)]
    pub session: SessionLimits,
    /// What a stranger may use up.
    #[serde(default)]
    pub budgets: Budgets,
    /// Which resolvers a stranger may ask.
    #[serde(default)]
    pub dns: Dns,
    /// Which time servers a stranger may ask.
    #[serde(default)]
    pub ntp: Ntp,
    /// What else a stranger may reach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub garden: Vec<GardenRule>,
    /// How much of anything.
    #[serde(default)]
    pub limits: Limits,
    /// Where things are kept.
    #[serde(default)]
    pub paths: Paths,
    /// Who may control the daemon.
    #[serde(default)]
    pub control: Control,
    /// The operator's own connectivity probes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<probes::Rule>,
    /// Further guest networks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub zone: Vec<ZoneSection>,
}

/// The login page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Portal {
    /// Where the login page listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<Vec<SocketAddr>>,
    /// The login page's URL for both families.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<PortalUrl>,
    /// The login page's URL for clients that asked over IPv4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_v4: Option<PortalUrl>,
    /// The login page's URL for clients that asked over IPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_v6: Option<PortalUrl>,
    /// The network's name, as the page shows it.
    pub title: Title,
    /// The terms that the guest accepts.
    pub terms: Terms,
    /// How long a session lasts.
    pub session: SessionLength,
}

/// Which resolvers a stranger may ask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    /// The resolvers' addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolvers: Option<Vec<IpAddr>>,
}

/// How much of anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// How many sessions the table holds.
    pub clients: Clients,
    /// Memory for requests split over segments, in KiB, for all receive queues together.
    pub responder_memory_kib: Count<1024, 64, 1_048_576>,
    /// Open connections to the login page, all clients together.
    pub login_connections: Count<512, 8, 65_536>,
    /// Open connections to the login page of one client.
    pub login_connections_per_client: Count<16, 1, 1_024>,
    /// How many clients may log in on a network in a time.
    pub logins: LoginRate,
}

/// Where things are kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Paths {
    /// The directory on the BPF file system for the pinned maps and link.
    pub pins: AbsolutePath,
    /// The control API's Unix socket.
    pub socket: AbsolutePath,
    /// The directory with what is to outlive a restart of the machine.
    pub state: AbsolutePath,
}

/// The control API's socket where nothing else is configured.
pub const DEFAULT_SOCKET: &str = "/run/portal/portald.sock";

impl Default for Paths {
    fn default() -> Self {
        Self {
            pins: AbsolutePath::fixed("/sys/fs/bpf/portal"),
            socket: AbsolutePath::fixed(DEFAULT_SOCKET),
            state: AbsolutePath::fixed("/var/lib/portal"),
        }
    }
}

/// Who may control the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// The Unix group whose members may use the socket beside root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupName>,
}

impl Config {
    /// Reads and checks a configuration file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: PathBuf::from(path), source })?;
        Self::parse(&text, path)
    }

    /// Checks a configuration; `path` is only named in errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|e| error::explain(&e, text, path))?;
        match consistency::check(&config) {
            Ok(()) => Ok(config),
            Err(contradiction) => Err(error::contradiction(contradiction, text, path)),
        }
    }
}

#[cfg(test)]
mod tests;
