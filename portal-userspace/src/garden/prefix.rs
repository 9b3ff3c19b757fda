//! The addresses that a rule opens by prefix.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The shortest prefixes: the largest blocks that one organisation has. A shorter one opens the network, not a site.
const SHORTEST_V4: u8 = 8;
const SHORTEST_V6: u8 = 16;

/// Destinations that no guest reaches over the gateway, by prefix, with what they are.
const UNREACHABLE: [(&str, &str); 9] = [
    ("0.0.0.0/8", "unspecified (RFC 1122)"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved or broadcast"),
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("fe80::/10", "link-local"),
    ("ff00::/8", "multicast"),
];

/// A block of addresses, or one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix(IpNet);

impl Prefix {
    /// The block.
    pub const fn get(self) -> IpNet {
        self.0
    }

    /// Its first address in the kernel's 16 bytes (IPv4 mapped into `::ffff:0:0/96`), and how many bits of them count.
    pub fn mapped(self) -> ([u8; 16], u8) {
        match self.0 {
            IpNet::V4(net) => (net.addr().to_ipv6_mapped().octets(), 96 + net.prefix_len()),
            IpNet::V6(net) => (net.addr().octets(), net.prefix_len()),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() { self.0.addr().fmt(f) } else { self.0.fmt(f) }
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
            format!("`{text}` is not a prefix: write it as 203.0.113.0/24, 2001:db8::/32 or a single address")
        })?;
        if net != net.trunc() {
            let single = IpNet::from(net.addr());
            return Err(format!(
                "`{text}` has bits behind its length: write {} for the block, or {} for the one address",
                net.trunc(),
                Self(single)
            ));
        }
        let shortest = match net {
            IpNet::V4(_) => SHORTEST_V4,
            IpNet::V6(_) => SHORTEST_V6,
        };
        if net.prefix_len() < shortest {
            return Err(format!(
                "`{text}` would open the network to strangers: a prefix has at least {shortest} bits; list what guests need"
            ));
        }
        if let IpNet::V6(v6) = net
            && let mapped = Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96)
            && (mapped.contains(&v6) || v6.contains(&mapped))
        {
            // The kernel's tables hold IPv4 addresses there.
            let v4 = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
            let instead = v4.and_then(|(address, length)| Ipv4Net::new(address, length).ok());
            let instead = instead.map_or_else(|| "203.0.113.0/24".to_owned(), |net| net.to_string());
            return Err(format!("`{text}` contains IPv4 addresses written as IPv6: write them as {instead}"));
        }
        for (unreachable, what) in UNREACHABLE {
            let unreachable: IpNet =
                unreachable.parse().expect("the table's prefixes are well-formed: a test reads them");
            if unreachable.contains(&net) {
                return Err(format!("`{text}` is {what}: no guest reaches it through the gateway; leave it out"));
            }
        }
        Ok(Self(net))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_well_formed() {
        for (prefix, _) in UNREACHABLE {
            let net: IpNet = prefix.parse().unwrap();
            assert_eq!(net, net.trunc());
        }
    }
}
