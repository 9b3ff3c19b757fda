//! The lab's addresses: documentation ranges (RFC 5737, RFC 3849, RFC 7042 section 2.1.2), which no client takes for private ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The gateway on the guest network, IPv4.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The gateway on the guest network, IPv6.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
/// The gateway on the internet's side, IPv4.
pub const UPLINK_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The gateway on the internet's side, IPv6.
pub const UPLINK_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);
/// The web server that every name leads to, IPv4.
pub const SITE_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 80);
/// The web server that every name leads to, IPv6.
pub const SITE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x80);
/// The web server's addresses, one of each family.
pub const SITES: [IpAddr; 2] = [IpAddr::V4(SITE_V4), IpAddr::V6(SITE_V6)];
/// Where the names with addresses of their own begin, IPv4: a /25. The web server answers there too.
pub const NAMED_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 128);
/// Where the names with addresses of their own begin, IPv6: a /64.
pub const NAMED_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 1, 0, 0, 0, 0);
/// How many names have addresses of their own: `site<n>.named.example`, n from 1 to this, with the n-th addresses from
/// [`NAMED_V4`] and [`NAMED_V6`].
pub const NAMED: u32 = 120;
/// The time to live of the names that have addresses of their own, in seconds.
pub const NAMED_TTL: u32 = 2;
/// The domain whose name server is in the internet, at the web server's address: a DNS tunnel's.
pub const DELEGATED: &str = "t.example";
/// The first guest, IPv4.
pub const GUEST_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The first guest, IPv6.
pub const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10);
/// The first guest's MAC address.
pub const GUEST_MAC: &str = "00:00:5e:00:53:10";
/// The second guest, IPv4.
pub const OTHER_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
/// The second guest, IPv6.
pub const OTHER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x11);
/// The second guest's MAC address.
pub const OTHER_MAC: &str = "00:00:5e:00:53:11";
/// The third guest, who comes on demand, IPv4.
pub const THIRD_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 12);
/// The third guest, IPv6.
pub const THIRD_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x12);
/// The third guest's MAC address.
pub const THIRD_MAC: &str = "00:00:5e:00:53:12";
/// The gateway on the second guest network, which comes on demand, IPv4.
pub const SECOND_GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The gateway on the second guest network, IPv6.
pub const SECOND_GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, 1);
/// The gateway's MAC address on the second guest network.
pub const SECOND_GATEWAY_MAC: &str = "00:00:5e:00:53:02";
/// The gateway's interface of the second guest network.
pub const SECOND_INTERFACE: &str = "guest1";
/// The guest of the second guest network, IPv4.
pub const VISITOR_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The guest of the second guest network, IPv6.
pub const VISITOR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, 0x10);
/// The MAC address of the second guest network's guest.
pub const VISITOR_MAC: &str = "00:00:5e:00:53:20";
/// The gateway's MAC address on the guest network.
pub const GATEWAY_MAC: &str = "00:00:5e:00:53:01";
/// The port of the login page.
pub const PORTAL_PORT: u16 = 8080;
/// The login page.
pub const PORTAL_URL: &str = "http://192.0.2.1:8080/";
/// The gateway's interface that portald guards.
pub const GUEST_INTERFACE: &str = "guest0";

/// The bytes of one of these MAC addresses.
pub fn mac(text: &str) -> [u8; 6] {
    let mut bytes = [0; 6];
    for (byte, digits) in bytes.iter_mut().zip(text.split(':')) {
        *byte = u8::from_str_radix(digits, 16).expect("it is one of the addresses here");
    }
    bytes
}
