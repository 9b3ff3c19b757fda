//! The frames that are sent, and who their senders are. The injector counts its senders up in the same way.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The gateway's MAC address.
pub const GATEWAY_MAC: [u8; 6] = [2, 0, 0x5e, 0, 0x53, 1];
/// Where frames go: somewhere behind the gateway.
pub const SITE_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 80);
/// Likewise.
pub const SITE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x80);
/// The number of the first client that is logged in.
pub const FIRST_CLIENT: u32 = 0x100;
pub use crate::plan::FIRST_STRANGER;

/// A client's MAC address.
pub fn mac(number: u32) -> [u8; 6] {
    let [a, b, c, d] = number.to_be_bytes();
    [2, 0, a, b, c, d]
}

/// A client's IPv4 address.
pub fn v4(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0000 | number)
}

/// A client's IPv6 address.
pub fn v6(number: u32) -> Ipv6Addr {
    let [high, low] = [(number >> 16) as u16, number as u16];
    Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, high, low)
}

/// IP's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Version {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// Ethernet's shortest frame, without its check sequence.
const SHORTEST: usize = 60;

/// A frame of this client's: an acknowledgement on a TCP connection to the site's port 443, without data.
///
/// Its checksum is left open: nothing on the way that is measured looks at it.
pub fn segment(version: Version, number: u32) -> Vec<u8> {
    let mut frame = tcp(version, number, [50_000, 443], [1, 1], &[]);
    frame.resize(frame.len().max(SHORTEST), 0);
    frame
}

/// A frame of this client's: a segment to the site, between these ports, with these sequence and acknowledgement numbers and this data.
pub fn tcp(version: Version, number: u32, ports: [u16; 2], [seq, ack]: [u32; 2], data: &[u8]) -> Vec<u8> {
    const TCP: u8 = 6;
    const TCP_LEN: usize = 20;
    const TTL: u8 = 64;
    const PSH: u8 = 8;
    const ACK: u8 = 16;
    let mut frame = Vec::with_capacity(14 + 40 + TCP_LEN + data.len());
    frame.extend(GATEWAY_MAC);
    frame.extend(mac(number));
    let payload = (TCP_LEN + data.len()) as u16;
    match version {
        Version::V4 => {
            let mut header = [0; 20];
            header[0] = 0x45;
            header[2..4].copy_from_slice(&(20 + payload).to_be_bytes());
            header[6] = 0x40; // may not be fragmented
            header[8] = TTL;
            header[9] = TCP;
            header[12..16].copy_from_slice(&v4(number).octets());
            header[16..20].copy_from_slice(&SITE_V4.octets());
            let sum = !fold(sum(&header));
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.extend([8, 0]);
            frame.extend(header);
        }
        Version::V6 => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(payload.to_be_bytes());
            frame.extend([TCP, TTL]);
            frame.extend(v6(number).octets());
            frame.extend(SITE_V6.octets());
        }
    }
    for port in ports {
        frame.extend(port.to_be_bytes());
    }
    frame.extend(seq.to_be_bytes());
    frame.extend(ack.to_be_bytes());
    frame.extend([0x50, ACK | PSH, 0x20, 0, 0, 0, 0, 0]);
    frame.extend(data);
    frame
}

/// The sum over an IPv4 frame's header without its checksum and source address, which the injector completes.
pub fn open_sum(frame: &[u8]) -> u32 {
    let mut header: Vec<u8> = frame[14..34].to_vec();
    header[10..16].fill(0);
    u32::from(fold(sum(&header)))
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
