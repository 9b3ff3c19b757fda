//! Addresses that an answer may name and that are never opened.
//!
//! Whoever runs a name decides what it resolves to. A name that turns into an address of the site's own would let strangers
//! through to it (DNS rebinding).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::counters::Count;

/// Which addresses are opened.
#[derive(Clone, Debug, Default)]
pub struct Permitted {
    /// The gateway's own addresses, which are never opened.
    pub own: Vec<IpAddr>,
    /// Whether private addresses are opened (RFC 1918, RFC 4193, RFC 6598): only where the garden's servers have such.
    pub private: bool,
}

impl Permitted {
    /// Why an address is not opened, if it isn't.
    pub fn refusal(&self, address: IpAddr) -> Option<Count> {
        if self.own.contains(&address) {
            return Some(Count::RefusedOwn);
        }
        let count = match address {
            IpAddr::V4(v4) => class_v4(v4)?,
            IpAddr::V6(v6) => match embedded(v6) {
                // The translator sends to the IPv4 address.
                Some(v4) => return self.refusal(v4.into()),
                None => class_v6(v6)?,
            },
        };
        (count != Count::RefusedPrivate || !self.private).then_some(count)
    }
}

fn class_v4(address: Ipv4Addr) -> Option<Count> {
    Some(match address.octets() {
        // RFC 1122 section 3.2.1.3: the whole block is "this network".
        [0, ..] => Count::RefusedUnspecified,
        [127, ..] => Count::RefusedLoopback,
        [169, 254, ..] => Count::RefusedLinkLocal,
        [224..=239, ..] => Count::RefusedMulticast,
        [240..=255, ..] => Count::RefusedBroadcast,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Count::RefusedPrivate,
        _ => return None,
    })
}

fn class_v6(address: Ipv6Addr) -> Option<Count> {
    Some(match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Count::RefusedUnspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Count::RefusedLoopback,
        // The kernel's tables hold IPv4 addresses in the first; the second is its deprecated sibling (RFC 4291 section 2.5.5).
        [0, 0, 0, 0, 0, 0xffff | 0, ..] => Count::RefusedMapped,
        [0xff00..=0xffff, ..] => Count::RefusedMulticast,
        [0xfe80..=0xfebf, ..] => Count::RefusedLinkLocal,
        // Unique local; the deprecated site-local (RFC 3879); NAT64 within the site (RFC 8215).
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] | [0x64, 0xff9b, 1, ..] => Count::RefusedPrivate,
        _ => return None,
    })
}

/// The IPv4 address within a NAT64 (RFC 6052 section 2.1) or 6to4 address (RFC 3056 section 2).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d] = match address.octets() {
        [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, v4 @ ..] => v4,
        [0x20, 0x02, a, b, c, d, ..] => [a, b, c, d],
        _ => return None,
    };
    Some(Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_opened_and_what_is_not() {
        let table = [
            ("203.0.113.7", None),
            ("198.51.100.80", None),
            ("172.15.0.1", None),
            ("172.32.0.1", None),
            ("100.63.0.1", None),
            ("100.128.0.1", None),
            ("192.169.0.1", None),
            ("2001:db8::7", None),
            ("64:ff9b::203.0.113.7", None),
            ("2002:cb00:7107::1", None),
            ("192.0.2.1", Some(Count::RefusedOwn)),
            ("2001:db8::1", Some(Count::RefusedOwn)),
            ("64:ff9b::192.0.2.1", Some(Count::RefusedOwn)),
            ("0.0.0.0", Some(Count::RefusedUnspecified)),
            ("0.1.2.3", Some(Count::RefusedUnspecified)),
            ("::", Some(Count::RefusedUnspecified)),
            ("127.0.0.53", Some(Count::RefusedLoopback)),
            ("::1", Some(Count::RefusedLoopback)),
            ("2002:7f00:1::", Some(Count::RefusedLoopback)),
            ("224.0.0.251", Some(Count::RefusedMulticast)),
            ("ff02::1", Some(Count::RefusedMulticast)),
            ("255.255.255.255", Some(Count::RefusedBroadcast)),
            ("240.0.0.1", Some(Count::RefusedBroadcast)),
            ("169.254.169.254", Some(Count::RefusedLinkLocal)),
            ("fe80::1", Some(Count::RefusedLinkLocal)),
            ("febf::1", Some(Count::RefusedLinkLocal)),
            ("::ffff:203.0.113.7", Some(Count::RefusedMapped)),
            ("::203.0.113.7", Some(Count::RefusedMapped)),
            ("10.1.2.3", Some(Count::RefusedPrivate)),
            ("172.16.0.1", Some(Count::RefusedPrivate)),
            ("172.31.255.255", Some(Count::RefusedPrivate)),
            ("192.168.1.1", Some(Count::RefusedPrivate)),
            ("100.64.0.1", Some(Count::RefusedPrivate)),
            ("fd00::1", Some(Count::RefusedPrivate)),
            ("fec0::1", Some(Count::RefusedPrivate)),
            ("64:ff9b::10.0.0.1", Some(Count::RefusedPrivate)),
            ("64:ff9b:1::10.0.0.1", Some(Count::RefusedPrivate)),
        ];
        let own = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let strict = Permitted { own, private: false };
        let lenient = Permitted { private: true, ..strict.clone() };
        for (text, expected) in table {
            let address = text.parse().unwrap();
            assert_eq!(strict.refusal(address), expected, "{text}");
            let expected = expected.filter(|count| *count != Count::RefusedPrivate);
            assert_eq!(lenient.refusal(address), expected, "{text} where private addresses are opened");
        }
    }
}
