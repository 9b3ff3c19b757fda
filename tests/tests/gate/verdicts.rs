//! The verdict table, row by row: in the kernel, as it is explained, and on the host.

use etherparse::{NetHeaders, PacketHeaders, TransportHeader};
use portal_common::{
    Reason,
    decide::{Action, Outbound},
};
use portal_lab::verdicts::{Reply, outbound_rows, rows, rows_without_responder, setting::Setting};

use crate::bench::{Bench, LOOPBACK};

#[test]
fn the_verdict_table_holds_in_the_kernel_and_on_the_host() {
    let mut bench = Bench::new(&Setting::standard(LOOPBACK));
    let mut wrong = Vec::new();
    for row in rows() {
        let run = bench.run(|cookies| row.frame.to_bytes(cookies));
        let sentence = row.sentence;
        let (action, reason, frame) = &run.explained;
        if (*action, *reason) != (row.action, row.reason) {
            wrong.push(format!(
                "{sentence}: expected {:?} {:?}, explained {action:?} {reason:?}",
                row.action, row.reason
            ));
        }
        if let Err(complaint) = run.agreement() {
            wrong.push(format!("{sentence}: {complaint}"));
        }
        if run.done.is_shadow() && (run.done.action != Action::Pass || run.done.frame != run.cause) {
            wrong.push(format!("{sentence}: shadow mode changed something"));
        }
        if let Err(complaint) = check_reply(row.reply, &run.cause, *action, frame) {
            wrong.push(format!("{sentence}: {complaint}; {frame:02x?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    bench.demand_equal_states();
}

#[test]
fn the_rows_without_a_responder_hold() {
    let mut bench = Bench::without_responder(&Setting::standard(LOOPBACK));
    for row in rows_without_responder() {
        let run = bench.run(|cookies| row.frame.to_bytes(cookies));
        assert_eq!((run.done.action, run.done.reason), (row.action, row.reason), "{}", row.sentence);
        assert_eq!(run.agreement(), Ok(()), "{}", row.sentence);
    }
}

#[test]
fn the_rows_of_departing_frames_hold_in_the_kernel_and_on_the_host() {
    let mut bench = Bench::without_responder(&Setting::standard(LOOPBACK));
    for row in outbound_rows() {
        let frame = row.frame.to_bytes(&bench.cookies());
        let (kernel, host, decision) = bench.depart(&frame, row.relayed);
        assert_eq!(decision, row.decision, "{}", row.sentence);
        assert_eq!(kernel, host, "{}", row.sentence);
        let held = bench.maps.answers.next().map(|record| record.len());
        assert_eq!(held.is_some(), decision == Outbound::Hold, "{}: what is held goes to the daemon", row.sentence);
    }
    bench.demand_equal_states();
}

#[test]
fn every_reason_has_a_row() {
    // The kernel's refusal, which no frame brings about.
    let elsewhere = [Reason::AnswerFailed];
    let inbound = rows().into_iter().chain(rows_without_responder()).map(|row| row.reason);
    let outbound = outbound_rows().into_iter().filter_map(|row| match row.decision {
        Outbound::Drop(reason) => Some(reason),
        Outbound::Hold => Some(Reason::AnswerHeld),
        Outbound::Pass | Outbound::Metered => None,
    });
    let all: Vec<Reason> = inbound.chain(outbound).chain(elsewhere).collect();
    for reason in Reason::ALL {
        assert!(all.contains(reason), "{reason:?} has no row");
    }
}

#[test]
fn explaining_changes_nothing() {
    let mut bench = Bench::new(&Setting::standard(LOOPBACK));
    // Strangers and addresses that are known already, and others that are not.
    for row in rows().iter().step_by(7) {
        bench.run(|cookies| row.frame.to_bytes(cookies));
    }
    let before = bench.state();
    for row in rows() {
        let frame = row.frame.to_bytes(&bench.cookies());
        bench.explain(&frame);
        // From a station that nobody has seen yet.
        bench.explain(&[&frame[..6], &[2, 0, 0, 7, 7, 7], &frame[12..]].concat());
    }
    assert!(before == bench.state(), "something has changed");
    let row = &rows()[0];
    bench.run(|cookies| row.frame.to_bytes(cookies));
    assert!(before != bench.state(), "the gate changes something, or this test sees nothing");
}

/// Judges an answer with a parser and checksums that are not ours.
pub(crate) fn check_reply(expected: Reply, cause: &[u8], action: Action, answer: &[u8]) -> Result<(), String> {
    if action != Action::Answer {
        return if matches!(expected, Reply::None) { Ok(()) } else { Err("no answer".into()) };
    }
    let demand = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
    demand(answer.len() <= cause.len(), "the answer is larger than its cause")?;
    let asked = PacketHeaders::from_ethernet_slice(cause).map_err(|e| e.to_string())?;
    let parsed = PacketHeaders::from_ethernet_slice(answer).map_err(|e| e.to_string())?;
    let (asked_link, link) = (asked.link.ok_or("no link")?, parsed.link.ok_or("no link")?);
    let (asked_link, link) = (asked_link.ethernet2().ok_or("no Ethernet")?, link.ethernet2().ok_or("no Ethernet")?);
    demand(
        (link.source, link.destination) == (asked_link.destination, asked_link.source),
        "the MAC addresses are not swapped",
    )?;
    demand(parsed.link_exts == asked.link_exts, "the VLAN tags differ")?;
    let payload = parsed.payload.slice();
    let transport = parsed.transport.as_ref().ok_or("no transport header")?;
    match (asked.net.as_ref().ok_or("no network")?, parsed.net.as_ref().ok_or("no network")?) {
        (NetHeaders::Ipv4(asked, _), NetHeaders::Ipv4(ip, _)) => {
            demand((ip.source, ip.destination) == (asked.destination, asked.source), "the addresses are not swapped")?;
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
        }
        (NetHeaders::Ipv6(asked, _), NetHeaders::Ipv6(ip, _)) => {
            demand((ip.source, ip.destination) == (asked.destination, asked.source), "the addresses are not swapped")?;
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
        }
        _ => return Err("the family changed".into()),
    }
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
            let network_at = 14 + 4 * usize::from(!asked.link_exts.is_empty()) * asked.link_exts.len();
            demand(cause[network_at..].starts_with(payload), "the quote is not the start of the packet")?;
            let header = if matches!(transport, TransportHeader::Icmpv4(_)) { 20 } else { 40 };
            demand(payload.len() == header + 8, "the quote is not the header and eight bytes")
        }
        _ => Err("another kind of answer".into()),
    }
}
