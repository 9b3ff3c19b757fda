//! Judging answers with a parser and checksums that are not ours.

use etherparse::{NetHeaders, PacketHeaders, TransportHeader};
use portal_common::decide::Action;
use portal_lab::verdicts::Reply;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const RST: u8 = 0x04;
const GROUP: u8 = 1;

/// What must hold of every answer, to whatever frame.
pub(crate) fn check_answer(cause: &[u8], answer: &[u8]) -> Result<(), String> {
    demand(answer.len() <= cause.len(), "the answer is larger than its cause")?;
    let parsed = PacketHeaders::from_ethernet_slice(answer).map_err(|e| e.to_string())?;
    demand(answer[..6] == cause[6..12] && answer[6..12] == cause[..6], "the MAC addresses are not swapped")?;
    demand(cause[0] & GROUP == 0 && cause[6] & GROUP == 0, "an answer to a group or from one")?;
    let at = network_at(&parsed);
    demand(answer[12..at] == cause[12..at], "the VLAN tags or the EtherType differ")?;
    let payload = parsed.payload.slice();
    let transport = parsed.transport.as_ref().ok_or("no transport header")?;
    let (protocol, payload_at) = match parsed.net.as_ref().ok_or("no network header")? {
        NetHeaders::Ipv4(ip, _) => {
            let swapped = ip.source == cause[at + 16..at + 20] && ip.destination == cause[at + 12..at + 16];
            demand(swapped, "the addresses are not swapped")?;
            demand(ip.header_checksum == ip.calc_header_checksum(), "wrong IPv4 checksum")?;
            match transport {
                TransportHeader::Tcp(tcp) => {
                    demand(Ok(tcp.checksum) == tcp.calc_checksum_ipv4(ip, payload), "wrong TCP checksum")?;
                }
                TransportHeader::Icmpv4(icmp) => {
                    demand(icmp.checksum == icmp.icmp_type.calc_checksum(payload), "wrong ICMP checksum")?;
                }
                _ => return Err("neither TCP nor ICMP".into()),
            }
            demand(ip.destination[0] < 224 && ip.source[0] < 224, "a group's or the broadcast address")?;
            (cause[at + 9], at + 20)
        }
        NetHeaders::Ipv6(ip, _) => {
            let swapped = ip.source == cause[at + 24..at + 40] && ip.destination == cause[at + 8..at + 24];
            demand(swapped, "the addresses are not swapped")?;
            match transport {
                TransportHeader::Tcp(tcp) => {
                    demand(Ok(tcp.checksum) == tcp.calc_checksum_ipv6(ip, payload), "wrong TCP checksum")?;
                }
                TransportHeader::Icmpv6(icmp) => demand(
                    Ok(icmp.checksum) == icmp.icmp_type.calc_checksum(ip.source, ip.destination, payload),
                    "wrong ICMPv6 checksum",
                )?,
                _ => return Err("neither TCP nor ICMPv6".into()),
            }
            demand(ip.destination[0] != 0xff && ip.source[0] != 0xff, "a group's address")?;
            (cause[at + 6], at + 40)
        }
        NetHeaders::Arp(_) => return Err("an answer by ARP".into()),
    };
    if let TransportHeader::Tcp(_) = transport {
        demand(protocol == TCP, "TCP in answer to something else")?;
        return demand(cause[payload_at + 13] & RST == 0, "an answer to a reset");
    }
    // Never to an ICMP error (RFC 1122 section 3.2.2, RFC 4443 section 2.4): of ICMP, to echo requests alone.
    let is_ping = matches!((protocol, cause[payload_at]), (ICMP, 8) | (ICMPV6, 128));
    demand(protocol == UDP || is_ping, "ICMP in answer to something else than UDP and pings")
}

/// Judges the answer of a row, or that there is none.
pub(crate) fn check_reply(expected: Reply, cause: &[u8], action: Action, answer: &[u8]) -> Result<(), String> {
    if action != Action::Answer {
        return if matches!(expected, Reply::None) { Ok(()) } else { Err("no answer".into()) };
    }
    check_answer(cause, answer)?;
    let asked = PacketHeaders::from_ethernet_slice(cause).map_err(|e| e.to_string())?;
    let parsed = PacketHeaders::from_ethernet_slice(answer).map_err(|e| e.to_string())?;
    let payload = parsed.payload.slice();
    let transport = parsed.transport.as_ref().ok_or("no transport header")?;
    match (expected, transport) {
        (Reply::Tcp { flags, words, acknowledges }, TransportHeader::Tcp(tcp)) => {
            let Some(TransportHeader::Tcp(asked)) = asked.transport else { return Err("the cause is not TCP".into()) };
            let bytes = tcp.to_bytes();
            demand(bytes[13] == flags, &format!("flags {:#04x}", bytes[13]))?;
            demand(tcp.data_offset() == words, "wrong header length")?;
            demand(
                (tcp.source_port, tcp.destination_port) == (asked.destination_port, asked.source_port),
                "the ports are not swapped",
            )?;
            match acknowledges {
                Some(bytes) => demand(
                    tcp.acknowledgment_number == asked.sequence_number.wrapping_add(bytes),
                    "wrong acknowledgement number",
                )?,
                None => demand(tcp.acknowledgment_number == 0, "an acknowledgement number without ACK")?,
            }
            if asked.ack {
                demand(tcp.sequence_number == asked.acknowledgment_number, "wrong sequence number")?;
            }
            if words == 6 {
                demand(tcp.options.as_slice() == [2, 4, 0x04, 0xc4], "not the one option, an MSS of 1220")?;
            }
            demand(payload.is_empty(), "data in an answer")
        }
        (Reply::Icmp(kind, code), TransportHeader::Icmpv4(_) | TransportHeader::Icmpv6(_)) => {
            let icmp = match transport {
                TransportHeader::Icmpv4(icmp) => icmp.to_bytes().to_vec(),
                TransportHeader::Icmpv6(icmp) => icmp.to_bytes().to_vec(),
                _ => unreachable!("matched above"),
            };
            demand((icmp[0], icmp[1]) == (kind, code), &format!("type {} code {}", icmp[0], icmp[1]))?;
            let network_at = network_at(&asked);
            demand(cause[network_at..].starts_with(payload), "the quote is not the start of the packet")?;
            let header = if matches!(transport, TransportHeader::Icmpv4(_)) { 20 } else { 40 };
            demand(payload.len() == header + 8, "the quote is not the header and eight bytes")
        }
        _ => Err("another kind of answer".into()),
    }
}

/// Where the network header starts.
fn network_at(frame: &PacketHeaders<'_>) -> usize {
    14 + 4 * frame.link_exts.len()
}

fn demand(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}
