//! A frame in words, layer by layer, for people.

use std::fmt::Write as _;

use std::net::IpAddr;

use etherparse::{
    ArpOperation, ArpPacket, IpNumber, LaxLinkExtSlice, LaxNetSlice, LaxSlicedPacket, LinkSlice, TcpOptionElement,
    TcpSlice, TransportSlice,
};

use super::build::AnyMac;

/// The most lines of an HTTP head that are shown.
const HEAD_LINES: usize = 24;
/// The most bytes of data that are shown as text where it is no HTTP.
const SHOWN: usize = 64;

/// The frame, a line for each layer. Never fails: what can't be read is said to be so.
pub fn lines(frame: &[u8]) -> Vec<String> {
    let Ok(packet) = LaxSlicedPacket::from_ethernet(frame) else {
        return vec![format!("{} bytes, less than an Ethernet header", frame.len())];
    };
    let mut lines = Vec::new();
    if let Some(LinkSlice::Ethernet2(link)) = &packet.link {
        let mut line = format!("{} > {}, {} bytes", AnyMac(link.source()), AnyMac(link.destination()), frame.len());
        for tag in &packet.link_exts {
            if let LaxLinkExtSlice::Vlan(vlan) = tag {
                write!(line, ", VLAN {}", vlan.vlan_identifier()).expect("writing to a String does not fail");
            }
        }
        if packet.net.is_none() {
            let kind = packet.link_exts.last().map_or(link.ether_type(), |tag| match tag {
                LaxLinkExtSlice::Vlan(vlan) => vlan.ether_type(),
                LaxLinkExtSlice::Macsec(_) => link.ether_type(),
            });
            write!(line, ", EtherType 0x{:04x}", kind.0).expect("writing to a String does not fail");
        }
        lines.push(line);
    }
    match &packet.net {
        Some(LaxNetSlice::Arp(slice)) => lines.push(arp(&slice.to_packet())),
        Some(LaxNetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let (from, to) = (header.source_addr(), header.destination_addr());
            let fragment = if header.is_fragmenting_payload() { ", a fragment" } else { "" };
            let options = if header.options().is_empty() { "" } else { ", with options" };
            lines.push(format!("IPv4 {from} > {to}, TTL {}{options}{fragment}", header.ttl()));
            transport(&packet, header.protocol(), &mut lines);
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let (from, to) = (header.source_addr(), header.destination_addr());
            let fragment = if ip.is_payload_fragmented() { ", a fragment" } else { "" };
            lines.push(format!("IPv6 {from} > {to}, hop limit {}{fragment}", header.hop_limit()));
            transport(&packet, ip.payload().ip_number, &mut lines);
        }
        None => {}
    }
    if let Some((error, _)) = &packet.stop_err {
        lines.push(format!("malformed from here on: {error}"));
    }
    lines
}

fn arp(packet: &ArpPacket) -> String {
    let address = |bytes: &[u8]| match <[u8; 4]>::try_from(bytes) {
        Ok(v4) => IpAddr::from(v4).to_string(),
        Err(_) => super::input::to_hex(bytes),
    };
    let (sender, target) = (address(packet.sender_protocol_addr()), address(packet.target_protocol_addr()));
    match packet.operation {
        ArpOperation::REQUEST => format!("ARP: who has {target}? tell {sender}"),
        ArpOperation::REPLY => {
            let mac = <[u8; 6]>::try_from(packet.sender_hw_addr())
                .map_or_else(|_| super::input::to_hex(packet.sender_hw_addr()), |mac| AnyMac(mac).to_string());
            format!("ARP: {sender} is at {mac}")
        }
        other => format!("ARP, operation {}: {sender}, {target}", other.0),
    }
}

fn transport(packet: &LaxSlicedPacket<'_>, protocol: IpNumber, lines: &mut Vec<String>) {
    match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            lines.push(tcp_line(tcp));
            data(tcp.payload(), tcp.source_port() == 443 || tcp.destination_port() == 443, lines);
        }
        Some(TransportSlice::Udp(udp)) => lines.push(format!(
            "UDP {} > {}, {} bytes of data",
            udp.source_port(),
            udp.destination_port(),
            udp.payload().len()
        )),
        Some(TransportSlice::Icmpv4(icmp)) => lines.push(format!(
            "ICMP type {} code {}{}, {} bytes behind the header",
            icmp.type_u8(),
            icmp.code_u8(),
            named(&ICMP, icmp.type_u8(), icmp.code_u8()),
            icmp.payload().len()
        )),
        Some(TransportSlice::Icmpv6(icmp)) => lines.push(format!(
            "ICMPv6 type {} code {}{}, {} bytes behind the header",
            icmp.type_u8(),
            icmp.code_u8(),
            named(&ICMPV6, icmp.type_u8(), icmp.code_u8()),
            icmp.payload().len()
        )),
        Some(TransportSlice::Igmp(_)) | None => match protocol.keyword_str() {
            Some(name) => lines.push(format!("{name} (IP protocol {})", protocol.0)),
            None => lines.push(format!("IP protocol {}", protocol.0)),
        },
    }
}

fn tcp_line(tcp: &TcpSlice<'_>) -> String {
    let flags = [
        (tcp.syn(), "SYN"),
        (tcp.fin(), "FIN"),
        (tcp.rst(), "RST"),
        (tcp.psh(), "PSH"),
        (tcp.ack(), "ACK"),
        (tcp.urg(), "URG"),
        (tcp.ece(), "ECE"),
        (tcp.cwr(), "CWR"),
    ];
    let set: Vec<&str> = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
    let set = if set.is_empty() { "no flags".to_owned() } else { set.join(" ") };
    let mut line =
        format!("TCP {} > {}, {set}, seq {}", tcp.source_port(), tcp.destination_port(), tcp.sequence_number());
    if tcp.ack() {
        write!(line, ", ack {}", tcp.acknowledgment_number()).expect("writing to a String does not fail");
    }
    write!(line, ", window {}", tcp.window_size()).expect("writing to a String does not fail");
    let mss = tcp.options_iterator().flatten().find_map(|option| match option {
        TcpOptionElement::MaximumSegmentSize(mss) => Some(mss),
        _ => None,
    });
    if let Some(mss) = mss {
        write!(line, ", MSS {mss}").expect("writing to a String does not fail");
    }
    if !tcp.payload().is_empty() {
        write!(line, ", {} bytes of data", tcp.payload().len()).expect("writing to a String does not fail");
    }
    line
}

/// A TLS alert's, an HTTP message's head, or the first bytes.
fn data(data: &[u8], tls: bool, lines: &mut Vec<String>) {
    if data.is_empty() {
        return;
    }
    if tls {
        match data {
            // RFC 8446 sections 5.1 and 6.
            [0x15, _, _, _, _, level, description, ..] => {
                let level = if *level == 2 { "fatal" } else { "warning" };
                let name = if *description == 49 { " (access_denied)" } else { "" };
                lines.push(format!("TLS alert: {level}, {description}{name}"));
                return;
            }
            [0x16, _, _, _, _, 1, ..] => {
                lines.push("TLS ClientHello".to_owned());
                return;
            }
            _ => {}
        }
    }
    let text = String::from_utf8_lossy(data);
    let first = text.lines().next().unwrap_or_default();
    if first.contains(" HTTP/") || first.starts_with("HTTP/") {
        let head = text.split("\r\n\r\n").next().unwrap_or_default();
        lines.extend(head.lines().take(HEAD_LINES).map(printable));
        if let Some((_, body)) = text.split_once("\r\n\r\n").filter(|(_, body)| !body.is_empty()) {
            lines.push(format!("({} bytes of body)", body.len()));
        }
    } else {
        lines.push(printable(&String::from_utf8_lossy(&data[..data.len().min(SHOWN)])));
    }
}

/// As a terminal may be given it: what comes from the wire must not move the cursor.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '.' } else { c }).collect()
}

/// What is known by name: type, code, name.
type Names = [(u8, u8, &'static str)];

const ICMP: [(u8, u8, &str); 8] = [
    (0, 0, "echo reply"),
    (3, 0, "network unreachable"),
    (3, 1, "host unreachable"),
    (3, 3, "port unreachable"),
    (3, 4, "fragmentation needed"),
    (3, 13, "communication administratively prohibited"),
    (8, 0, "echo request"),
    (11, 0, "time exceeded"),
];
const ICMPV6: [(u8, u8, &str); 12] = [
    (1, 0, "no route"),
    (1, 1, "communication administratively prohibited"),
    (1, 4, "port unreachable"),
    (2, 0, "packet too big"),
    (128, 0, "echo request"),
    (129, 0, "echo reply"),
    (133, 0, "router solicitation"),
    (134, 0, "router advertisement"),
    (135, 0, "neighbour solicitation"),
    (136, 0, "neighbour advertisement"),
    (137, 0, "redirect"),
    (143, 0, "multicast listener report"),
];

fn named(names: &Names, kind: u8, code: u8) -> String {
    let found = names.iter().find(|(k, c, _)| (*k, *c) == (kind, code));
    found.map(|(_, _, name)| format!(" ({name})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::observe::build::{FrameSpec, Protocol, Surroundings};

    fn frame(spec: &FrameSpec) -> Vec<u8> {
        let around = Surroundings {
            gateway_mac: [2, 0, 0, 0, 0, 1],
            mac: [2, 0, 0, 0, 1, 1],
            host_v4: Some([192, 0, 2, 50].into()),
            host_v6: None,
            gateway_v4: Some([192, 0, 2, 1].into()),
        };
        spec.build(&around).unwrap()
    }

    #[test]
    fn each_layer_has_a_line() {
        let http = b"HTTP/1.1 511 Network Authentication Required\r\nConnection: close\r\n\r\n<p>\x1b[2J".to_vec();
        let with = |protocol| FrameSpec { protocol, ..FrameSpec::default() };
        let table: &[(&str, FrameSpec, &[&str])] = &[
            (
                "a SYN under two tags",
                FrameSpec { vlan: "100.10".parse().unwrap(), seq: 5, ..with(Protocol::Tcp) },
                &[
                    "02:00:00:00:01:01 > 02:00:00:00:00:01, 66 bytes, VLAN 100, VLAN 10",
                    "IPv4 192.0.2.50 > 198.51.100.80, TTL 64",
                    "TCP 40000 > 80, SYN, seq 5, window 65535, MSS 1460",
                ],
            ),
            (
                "an HTTP response",
                FrameSpec { data: Some(http), ack: 9, ..with(Protocol::Tcp) },
                &[
                    "02:00:00:00:01:01 > 02:00:00:00:00:01, 128 bytes",
                    "IPv4 192.0.2.50 > 198.51.100.80, TTL 64",
                    "TCP 40000 > 80, PSH ACK, seq 0, ack 9, window 65535, 74 bytes of data",
                    "HTTP/1.1 511 Network Authentication Required",
                    "Connection: close",
                    "(7 bytes of body)",
                ],
            ),
            (
                "an alert",
                FrameSpec {
                    data: Some(vec![0x15, 3, 1, 0, 2, 2, 0x31]),
                    sport: Some(443),
                    dport: Some(5),
                    ..with(Protocol::Tcp)
                },
                &[
                    "02:00:00:00:01:01 > 02:00:00:00:00:01, 61 bytes",
                    "IPv4 192.0.2.50 > 198.51.100.80, TTL 64",
                    "TCP 443 > 5, PSH ACK, seq 0, ack 0, window 65535, 7 bytes of data",
                    "TLS alert: fatal, 49 (access_denied)",
                ],
            ),
            (
                "an ICMPv6 error",
                FrameSpec { icmp_type: Some(1), icmp_code: 1, ..with(Protocol::Icmpv6) },
                &[
                    "02:00:00:00:01:01 > 02:00:00:00:00:01, 62 bytes",
                    "IPv6 fe80::250 > 2001:db8:2::80, hop limit 64",
                    "ICMPv6 type 1 code 1 (communication administratively prohibited), 0 bytes behind the header",
                ],
            ),
            (
                "an ARP request",
                with(Protocol::Arp),
                &["02:00:00:00:01:01 > ff:ff:ff:ff:ff:ff, 60 bytes", "ARP: who has 192.0.2.1? tell 192.0.2.50"],
            ),
            (
                "text that would move a terminal's cursor",
                FrameSpec { data: Some(b"\x1b[2Jgone".to_vec()), ..with(Protocol::Tcp) },
                &[
                    "02:00:00:00:01:01 > 02:00:00:00:00:01, 62 bytes",
                    "IPv4 192.0.2.50 > 198.51.100.80, TTL 64",
                    "TCP 40000 > 80, PSH ACK, seq 0, ack 0, window 65535, 8 bytes of data",
                    ".[2Jgone",
                ],
            ),
        ];
        for (sentence, spec, expected) in table {
            assert_eq!(lines(&frame(spec)), *expected, "{sentence}");
        }
        let mut unknown = vec![0; 60];
        unknown[12..14].copy_from_slice(&[0x88, 0x8e]);
        assert!(lines(&unknown)[0].ends_with("EtherType 0x888e"));
        assert_eq!(lines(&[1, 2]), ["2 bytes, less than an Ethernet header"]);
    }

    proptest! {
        #[test]
        fn any_bytes_have_lines_that_a_terminal_may_be_given(spec in 0_usize..4, at in 0_usize..60, with: Vec<u8>) {
            let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Icmpv6, Protocol::Arp][spec];
            let mut bytes = frame(&FrameSpec { protocol, ..FrameSpec::default() });
            bytes.splice(at.., with);
            for line in lines(&bytes) {
                prop_assert!(!line.chars().any(char::is_control), "{line:?}");
            }
        }
    }
}
