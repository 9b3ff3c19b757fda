//! The ports that a rule opens: `443/tcp`, `53/udp`, `8443/any`, `any/tcp`, `any`.

use std::{collections::BTreeSet, fmt, num::NonZeroU16, str::FromStr};

use serde::{Deserialize, Serialize};

/// The most ports of one rule: each is a row of its own in the kernel, for each address that a name has.
const MOST_PORTS: usize = 16;

/// IP protocol numbers (RFC 9293, RFC 768).
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// TCP and UDP. No other protocol can be opened.
    Any,
}

impl Protocol {
    /// Its IP protocol numbers.
    fn numbers(self) -> &'static [u8] {
        match self {
            Self::Tcp => &[TCP],
            Self::Udp => &[UDP],
            Self::Any => &[TCP, UDP],
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Any => "any",
        })
    }
}

/// A port of a protocol, or all of its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRule {
    protocol: Protocol,
    port: Option<NonZeroU16>,
}

impl PortRule {
    /// One port.
    pub const fn new(protocol: Protocol, port: NonZeroU16) -> Self {
        Self { protocol, port: Some(port) }
    }

    /// Every port of a protocol.
    pub const fn all(protocol: Protocol) -> Self {
        Self { protocol, port: None }
    }
}

impl fmt::Display for PortRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.port, self.protocol) {
            (Some(port), protocol) => write!(f, "{port}/{protocol}"),
            (None, Protocol::Any) => f.write_str("any"),
            (None, protocol) => write!(f, "any/{protocol}"),
        }
    }
}

impl FromStr for PortRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = "write a port as 443/tcp, 53/udp or 8443/any, and all ports as any/tcp, any/udp or any";
        let lower = text.trim().to_ascii_lowercase();
        if lower == "any" {
            return Ok(Self::all(Protocol::Any));
        }
        let Some((port, protocol)) = lower.split_once('/') else {
            return Err(format!("`{text}` names no protocol: {wanted}"));
        };
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "any" => Protocol::Any,
            _ => return Err(format!("`{protocol}` is not a protocol that can be opened: {wanted}")),
        };
        if port == "any" {
            return Ok(Self::all(protocol));
        }
        match port.parse() {
            Ok(port) => Ok(Self::new(protocol, port)),
            Err(_) => Err(format!("`{port}` is not a port from 1 to 65535: {wanted}")),
        }
    }
}

impl TryFrom<String> for PortRule {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<PortRule> for String {
    fn from(port: PortRule) -> Self {
        port.to_string()
    }
}

/// What a packet must be to match: an IP protocol number, and a port or 0 for any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Service {
    /// IP protocol number: 6 or 17.
    pub protocol: u8,
    /// Destination port; 0: every port.
    pub port: u16,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = NonZeroU16::new(self.port);
        match self.protocol {
            TCP => PortRule { protocol: Protocol::Tcp, port }.fmt(f),
            UDP => PortRule { protocol: Protocol::Udp, port }.fmt(f),
            // Nothing else is ever opened; an earlier daemon's table may hold anything.
            other => write!(f, "{}/protocol {other}", self.port),
        }
    }
}

/// The ports of a rule: from one to sixteen.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "Vec<PortRule>", into = "Vec<PortRule>")]
pub struct Ports(BTreeSet<PortRule>);

impl Ports {
    /// These ports and those.
    pub fn and(&self, others: &Self) -> Result<Self, String> {
        Self::try_from(self.0.union(&others.0).copied().collect::<Vec<_>>())
    }

    /// The ports as they were written, each once.
    pub fn iter(&self) -> impl Iterator<Item = PortRule> {
        self.0.iter().copied()
    }

    /// What the kernel compares: a port that is contained in an `any` is left out.
    pub fn services(&self) -> BTreeSet<Service> {
        let services = |port: PortRule| {
            let number = port.port.map_or(0, NonZeroU16::get);
            port.protocol.numbers().iter().map(move |protocol| Service { protocol: *protocol, port: number })
        };
        let all: BTreeSet<_> = self.0.iter().copied().flat_map(services).collect();
        all.iter().filter(|s| s.port == 0 || !all.contains(&Service { port: 0, ..**s })).copied().collect()
    }
}

impl Default for Ports {
    /// The web: 80/tcp and 443/tcp.
    fn default() -> Self {
        Self([80, 443].into_iter().filter_map(NonZeroU16::new).map(|p| PortRule::new(Protocol::Tcp, p)).collect())
    }
}

impl TryFrom<Vec<PortRule>> for Ports {
    type Error = String;

    fn try_from(ports: Vec<PortRule>) -> Result<Self, String> {
        let ports: BTreeSet<_> = ports.into_iter().collect();
        match ports.len() {
            0 => Err("no port: leave `ports` out for 80/tcp and 443/tcp, or write \"any\" for all".into()),
            1..=MOST_PORTS => Ok(Self(ports)),
            n => Err(format!("{n} ports: a rule has at most {MOST_PORTS}; write another rule, or any/tcp or any/udp")),
        }
    }
}

impl From<Ports> for Vec<PortRule> {
    fn from(ports: Ports) -> Self {
        ports.0.into_iter().collect()
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, port) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { " " };
            write!(f, "{comma}{port}")?;
        }
        Ok(())
    }
}
