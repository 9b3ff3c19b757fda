//! What an operator writes, and the rows that it becomes in the kernel.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    name::NamePattern,
    ports::{Ports, Service},
    prefix::Prefix,
};

/// Where a rule leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// A block of addresses, or one.
    Prefix(Prefix),
    /// The addresses that a name has, as the answers say that guests get.
    Name(NamePattern),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(prefix) => prefix.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        // A slash or a colon is in no name; an address without a length is told by its form.
        if text.contains(['/', ':']) || text.parse::<IpAddr>().is_ok() || text.parse::<IpNet>().is_ok() {
            if text.contains("://") || text.contains(|c: char| c.is_ascii_alphabetic() && !c.is_ascii_hexdigit()) {
                return Err(format!(
                    "`{text}` is neither a prefix nor a name: leave out the scheme, the port and the path; ports are named apart"
                ));
            }
            text.parse().map(Self::Prefix)
        } else {
            text.parse().map(Self::Name)
        }
    }
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

/// A destination that strangers may reach. In TOML: `to = "*.pay.example"` and, if it isn't the web, `ports = ["443/tcp"]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GardenRule {
    /// Where to.
    pub to: Target,
    /// On which ports: 80/tcp and 443/tcp if none are written.
    #[serde(default)]
    pub ports: Ports,
}

impl GardenRule {
    /// The rows of the kernel's prefix table; none for a name, whose addresses are learned.
    pub fn rows(&self) -> impl Iterator<Item = GardenRow> {
        let prefix = match &self.to {
            Target::Prefix(prefix) => Some(*prefix),
            Target::Name(_) => None,
        };
        let services = prefix.map(|_| self.ports.services());
        services.into_iter().flatten().zip(std::iter::repeat(prefix)).filter_map(|(service, prefix)| {
            let (address, prefix_len) = prefix?.mapped();
            Some(GardenRow { service, address, prefix_len })
        })
    }
}

impl fmt::Display for GardenRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.to, self.ports)
    }
}

/// A row of the kernel's prefix table, within its zone: a longest-prefix match over the protocol, the port, and the bits of
/// the address that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GardenRow {
    /// IP protocol number, and a port or 0 for any.
    pub service: Service,
    /// The block's first address; IPv4 mapped into `::ffff:0:0/96`.
    pub address: [u8; 16],
    /// How many bits of `address` count: 0 to 128.
    pub prefix_len: u8,
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    fn what_an_operator_may_write() {
        let table = [
            ("a block", "203.0.113.0/24", "203.0.113.0/24"),
            ("one address", "203.0.113.7", "203.0.113.7"),
            ("one address with its length", "203.0.113.7/32", "203.0.113.7"),
            ("the shortest block", "17.0.0.0/8", "17.0.0.0/8"),
            ("a private block, which the operator means", "10.1.0.0/16", "10.1.0.0/16"),
            ("IPv6", "2001:db8::/32", "2001:db8::/32"),
            ("one IPv6 address in another form", "2001:DB8:0::1", "2001:db8::1"),
            ("IPv6 unique local", "fd00:1::/64", "fd00:1::/64"),
            ("a name", "pay.example", "pay.example"),
            ("a name with its final dot, in capitals", " Pay.EXAMPLE. ", "pay.example"),
            ("all names below", "*.pay.example", "*.pay.example"),
            ("an international name", "bücher.example", "xn--bcher-kva.example"),
            ("one already converted", "*.xn--bcher-kva.example", "*.xn--bcher-kva.example"),
            ("an underscore", "a_b.pay.example", "a_b.pay.example"),
            ("a name of hexadecimal digits", "beef.cafe", "beef.cafe"),
        ];
        for (sentence, text, expected) in table {
            let target: Target = text.parse().unwrap_or_else(|e| panic!("{sentence}: {e}"));
            assert_eq!(target.to_string(), expected, "{sentence}");
            assert_eq!(expected.parse(), Ok(target), "{sentence}: what is printed is read back");
        }
    }

    #[test]
    fn what_is_refused_and_why() {
        let long = format!("{}.example", "a.".repeat(125));
        let table = [
            ("*", "would open every name"),
            ("*.", "would open every name"),
            ("", "would open every name"),
            (".", "would open every name"),
            ("*.com", "one label"),
            ("localhost", "one label"),
            ("a.*.example", "stands only for whole labels"),
            ("a*.example", "stands only for whole labels"),
            ("pay..example", "between two dots"),
            ("pay example.com", "not a name"),
            ("xn--a-.example", "not a name"),
            ("pay.example:443", "leave out the scheme, the port and the path"),
            ("https://pay.example/", "leave out the scheme, the port and the path"),
            ("203.0.113.0.24", "no name ends in a number"),
            ("203.0.113", "no name ends in a number"),
            (&long, "at most 253 bytes"),
            ("0.0.0.0/0", "would open the network"),
            ("128.0.0.0/1", "would open the network"),
            ("::/0", "would open the network"),
            ("2000::/3", "would open the network"),
            ("203.0.113.7/24", "write 203.0.113.0/24 for the block, or 203.0.113.7 for the one address"),
            ("203.0.113.0/33", "is not a prefix"),
            ("::ffff:203.0.113.0/120", "write them as 203.0.113.0/24"),
            ("::ffff:0:0/96", "IPv4 addresses written as IPv6"),
            ("::/64", "IPv4 addresses written as IPv6"),
            ("127.0.0.1", "loopback"),
            ("0.0.0.0", "unspecified"),
            ("224.0.0.251", "multicast"),
            ("255.255.255.255", "broadcast"),
            ("169.254.1.1", "link-local"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("fe80::1", "link-local"),
            ("ff02::fb", "multicast"),
        ];
        for (text, expected) in table {
            let error = text.parse::<Target>().expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn ports_as_written() {
        let table = [
            ("443/tcp", Ok("443/tcp")),
            (" 53/UDP ", Ok("53/udp")),
            ("8443/any", Ok("8443/any")),
            ("any/tcp", Ok("any/tcp")),
            ("any", Ok("any")),
            ("any/any", Ok("any")),
            ("443", Err("names no protocol")),
            ("0/tcp", Err("not a port from 1 to 65535")),
            ("65536/tcp", Err("not a port from 1 to 65535")),
            ("/tcp", Err("not a port from 1 to 65535")),
            ("80-90/tcp", Err("not a port from 1 to 65535")),
            ("1/icmp", Err("`icmp` is not a protocol")),
        ];
        for (text, expected) in table {
            let port = text.parse::<super::super::ports::PortRule>().map(|p| p.to_string());
            match (port, expected) {
                (Ok(port), Ok(expected)) => assert_eq!(port, expected, "{text}"),
                (Err(error), Err(expected)) => assert!(error.contains(expected), "{text}: {error}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
    }

    fn rule(toml: &str) -> Result<GardenRule, String> {
        toml::from_str(toml).map_err(|e| e.message().to_owned())
    }

    #[test]
    fn as_a_table_in_toml() {
        let web = rule("to = '*.pay.example'").unwrap();
        assert_eq!(web.to_string(), "*.pay.example 80/tcp 443/tcp");
        let other = rule("to = '203.0.113.0/24'\nports = ['443/tcp', '53/udp', '443/tcp']").unwrap();
        assert_eq!(other.to_string(), "203.0.113.0/24 443/tcp 53/udp");
        let back: GardenRule = toml::from_str(&toml::to_string(&other).unwrap()).unwrap();
        assert_eq!(back, other);
        let many = (1..=17).map(|p| format!("'{p}/tcp'")).collect::<Vec<_>>().join(", ");
        let table = [
            ("to = '*'".to_owned(), "would open every name"),
            ("to = 'pay.example'\nports = []".to_owned(), "leave `ports` out"),
            ("to = 'pay.example'\nports = ['443']".to_owned(), "names no protocol"),
            (format!("to = 'pay.example'\nports = [{many}]"), "at most 16"),
            ("to = 'pay.example'\nport = '443/tcp'".to_owned(), "unknown field `port`"),
            ("ports = ['443/tcp']".to_owned(), "missing field `to`"),
        ];
        for (toml, expected) in table {
            let error = rule(&toml).expect_err(&toml);
            assert!(error.contains(expected), "{toml}: {error}");
        }
    }

    #[test]
    fn rows_for_the_kernel() {
        let rows = |toml: &str| {
            let rows = rule(toml).unwrap().rows().collect::<Vec<_>>();
            rows.iter()
                .map(|row| {
                    let GardenRow { service, address, prefix_len } = row;
                    format!("{}:{} {}/{prefix_len}", service.protocol, service.port, Ipv6Addr::from(*address))
                })
                .collect::<Vec<_>>()
        };
        let table: [(&str, &str, &[&str]); 6] = [
            ("the web", "to = '203.0.113.0/24'", &["6:80 ::ffff:203.0.113.0/120", "6:443 ::ffff:203.0.113.0/120"]),
            ("one address", "to = '2001:db8::7'\nports = ['53/udp']", &["17:53 2001:db8::7/128"]),
            (
                "both protocols",
                "to = '2001:db8::/32'\nports = ['53/any']",
                &["6:53 2001:db8::/32", "17:53 2001:db8::/32"],
            ),
            (
                "everything",
                "to = '10.0.0.0/8'\nports = ['any']",
                &["6:0 ::ffff:10.0.0.0/104", "17:0 ::ffff:10.0.0.0/104"],
            ),
            (
                "ports that an any contains are no rows of their own",
                "to = '10.0.0.1'\nports = ['any/tcp', '443/any']",
                &["6:0 ::ffff:10.0.0.1/128", "17:443 ::ffff:10.0.0.1/128"],
            ),
            ("a name has none", "to = 'pay.example'", &[]),
        ];
        for (sentence, toml, expected) in table {
            assert_eq!(rows(toml), expected, "{sentence}");
        }
    }
}
