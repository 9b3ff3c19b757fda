//! The configuration: what an operator may write, checked before anything is touched.
//!
//! [`Config`] is the file as written; [`Effective`] is the file with every default filled in from the guest interface.
//! Every key, its unit and its default is described once, in `reference.toml` beside this file ([`REFERENCE`]).

mod effective;
mod error;
mod values;

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::responder::probes;

pub use crate::net::XdpMode;
pub use effective::{Effective, ResolveError, Url};
pub use error::ConfigError;
pub use values::{AbsolutePath, Clients, Count, GroupName, InterfaceName, PortalUrl, SessionLength, Terms, Title};

/// Every key with its meaning, its unit and its default: a configuration that says what an empty one means.
pub const REFERENCE: &str = include_str!("reference.toml");

/// The port of the login page where `portal.listen` is not set.
pub const DEFAULT_PORT: u16 = 8080;

/// The configuration as written, with defaults that do not depend on the interface.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The guest network.
    pub guest: Guest,
    /// The login page.
    #[serde(default)]
    pub portal: Portal,
    /// Which resolvers a stranger may ask.
    #[serde(default)]
    pub dns: Dns,
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
}

/// The guest network.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Guest {
    /// The interface that guests are on.
    pub interface: InterfaceName,
    /// Where in the kernel the gate runs.
    #[serde(default)]
    pub xdp_mode: XdpMode,
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
}

/// Where things are kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Paths {
    /// The directory on the BPF file system for the pinned maps and link.
    pub pins: AbsolutePath,
    /// The control API's Unix socket.
    pub socket: AbsolutePath,
}

/// The control API's socket where nothing else is configured.
pub const DEFAULT_SOCKET: &str = "/run/portal/portald.sock";

impl Default for Paths {
    fn default() -> Self {
        Self { pins: AbsolutePath::fixed("/sys/fs/bpf/portal"), socket: AbsolutePath::fixed(DEFAULT_SOCKET) }
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
        toml::from_str(text).map_err(|e| error::explain(&e, text, path))
    }

    /// How long a session lasts.
    pub fn session(&self) -> Duration {
        self.portal.session.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("portal.toml"))
    }

    #[test]
    fn the_interface_is_all_that_must_be_written() {
        let config = parse("[guest]\ninterface = \"eth1\"\n").unwrap();
        assert_eq!(config.guest.interface.as_str(), "eth1");
        assert_eq!(config.session(), Duration::from_hours(8));
        assert_eq!(config.limits.clients.get(), 65_536);
        assert_eq!(config.paths.socket.as_path(), Path::new("/run/portal/portald.sock"));
    }

    #[test]
    fn the_reference_means_the_same_as_an_empty_configuration() {
        let reference = parse(REFERENCE).unwrap();
        assert_eq!(reference, parse("[guest]\ninterface = \"eth1\"\n").unwrap());
        // With its commented keys switched on it is valid too, and then every key there is has been described.
        let full: String = REFERENCE
            .lines()
            .map(|line| line.strip_prefix("#: ").map_or_else(|| format!("{line}\n"), |key| format!("{key}\n")))
            .collect();
        let full = parse(&full).unwrap();
        let written = toml::Table::try_from(&full).unwrap();
        let Config { guest, portal, dns, limits: _, paths: _, control, probes } = full;
        assert!(portal.listen.is_some() && portal.url.is_some() && portal.url_v4.is_some() && portal.url_v6.is_some());
        assert!(dns.resolvers.is_some() && control.group.is_some() && !probes.is_empty());
        assert_eq!(guest.xdp_mode, XdpMode::Native);
        for (section, keys) in &written {
            assert!(REFERENCE.contains(&format!("[{section}]")), "no section [{section}]");
            for key in keys.as_table().into_iter().flat_map(toml::Table::keys) {
                assert!(
                    REFERENCE.lines().any(|l| l.trim_start_matches("#: ").starts_with(&format!("{key} = "))),
                    "{key}"
                );
            }
        }
    }

    /// (sentence, configuration, line, what the message must contain)
    const BAD: &[(&str, &str, usize, &[&str])] = &[
        ("no interface", "[portal]\ntitle = \"x\"\n", 0, &["guest", "missing", "interface = \""]),
        ("an empty guest section", "\n[guest]\n", 2, &["guest.interface", "missing"]),
        ("a misspelt key", "[guest]\ninterfce = \"eth1\"\n", 2, &["guest.interfce", "did you mean `interface`"]),
        ("a misspelt section", "[guest]\ninterface = \"eth1\"\n[limit]\n", 3, &["limit", "did you mean `limits`"]),
        (
            "a key of nothing",
            "[guest]\ninterface = \"eth1\"\nqqqqqqqqqq = 1\n",
            3,
            &["unknown", "interface", "xdp_mode"],
        ),
        ("not TOML", "[guest\n", 1, &["line 1"]),
        (
            "an interface name that is too long",
            "[guest]\ninterface = \"abcdefghijklmnop\"\n",
            2,
            &["guest.interface", "15"],
        ),
        ("an interface name with a slash", "[guest]\ninterface = \"a/b\"\n", 2, &["guest.interface", "/"]),
        ("another type", "[guest]\ninterface = 5\n", 2, &["guest.interface", "expected a string"]),
        (
            "no such mode",
            "[guest]\ninterface = \"eth1\"\nxdp_mode = \"nativ\"\n",
            3,
            &["guest.xdp_mode", "nativ", "did you mean `native`"],
        ),
        (
            "an address without a port",
            "[guest]\ninterface = \"eth1\"\n[portal]\nlisten = [\"192.0.2.1\"]\n",
            4,
            &["portal.listen", "socket address"],
        ),
        (
            "a relative URL",
            "[guest]\ninterface = \"eth1\"\n[portal]\nurl = \"/login\"\n",
            4,
            &["portal.url", "http://"],
        ),
        (
            "a URL that would break out of the page",
            "[guest]\ninterface = \"eth1\"\n[portal]\nurl_v4 = 'http://a/\"><script>'\n",
            4,
            &["portal.url_v4"],
        ),
        (
            "a session of no length",
            "[guest]\ninterface = \"eth1\"\n[portal]\nsession = \"0s\"\n",
            4,
            &["portal.session", "1s"],
        ),
        (
            "a session that is not a duration",
            "[guest]\ninterface = \"eth1\"\n[portal]\nsession = \"eight hours\"\n",
            4,
            &["portal.session", "8h"],
        ),
        ("no clients", "[guest]\ninterface = \"eth1\"\n[limits]\nclients = 0\n", 4, &["limits.clients", "16777216"]),
        ("negative clients", "[guest]\ninterface = \"eth1\"\n[limits]\nclients = -1\n", 4, &["limits.clients"]),
        (
            "a relative path",
            "[guest]\ninterface = \"eth1\"\n[paths]\nsocket = \"portald.sock\"\n",
            4,
            &["paths.socket", "absolute"],
        ),
        (
            "a resolver by name",
            "[guest]\ninterface = \"eth1\"\n[dns]\nresolvers = [\"dns.example\"]\n",
            4,
            &["dns.resolvers", "IP address"],
        ),
        (
            "a probe with an answer that is none",
            "[guest]\ninterface = \"eth1\"\n[[probes]]\nhost = \"a.example\"\nanswer = 404\n",
            5,
            &["probes", "404", "200, 302 or 511"],
        ),
        (
            "a probe that would match everything",
            "[guest]\ninterface = \"eth1\"\n[[probes]]\nanswer = 302\n",
            3,
            &["probes", "host", "path"],
        ),
        (
            "a probe whose path has no slash",
            "[guest]\ninterface = \"eth1\"\n[[probes]]\npath = \"x\"\nanswer = 302\n",
            4,
            &["probes.path", "`x`", "`/exact/path`"],
        ),
        (
            "a probe with a misspelt key",
            "[guest]\ninterface = \"eth1\"\n[[probes]]\nhots = \"a.example\"\nanswer = 302\n",
            4,
            &["hots", "did you mean `host`"],
        ),
        ("a group that cannot be", "[guest]\ninterface = \"eth1\"\n[control]\ngroup = \"\"\n", 4, &["control.group"]),
    ];

    #[test]
    fn a_bad_configuration_is_refused_with_key_line_and_cause() {
        for (sentence, text, line, parts) in BAD {
            let message = parse(text).expect_err(sentence).to_string();
            assert!(message.starts_with("portal.toml"), "{sentence}: {message}");
            if *line > 0 {
                assert!(message.contains(&format!("line {line}:")), "{sentence}: {message}");
            }
            for part in *parts {
                assert!(message.contains(part), "{sentence}: no «{part}» in: {message}");
            }
        }
    }

    #[test]
    fn an_unreadable_file_is_named_with_a_remedy() {
        let message = Config::load(Path::new("/nonexistent/portal.toml")).unwrap_err().to_string();
        assert!(message.contains("/nonexistent/portal.toml") && message.contains("--config"), "{message}");
    }
}
