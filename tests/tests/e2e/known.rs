//! What the responder has answered again and again the gate answers by itself, in the same bytes.

use std::{
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use portal_lab::{
    Portald, Settings,
    addresses::{GATEWAY_MAC, GUEST_MAC, GUEST_V4, SITE_V4, mac},
    portald::{config_text, portalctl_json, without_budgets},
    wire::Wire,
};

use crate::{
    ask::{bytes, explain_one},
    expect::{REQUEST, counted},
    turn::lab,
    zones::answer,
};

/// Bytes behind the packet, so that the frame is longer than its answer: a veth has no room behind a small frame that came from the stack, and what the
/// gate cannot make grow goes to the responder as ever.
const PADDING: usize = 1300;

#[test]
fn the_gate_gives_the_responders_answer_until_a_daemon_has_another() -> Result<()> {
    let lab = lab()?;
    let config = without_budgets(&config_text(&lab, &Settings::default()));
    let mut portald = Portald::start_with(&lab, &config, &[])?;
    let wire = lab.guest.enter(|| Ok(Wire::open("eth0")?))?;
    let mut ports = 41_000..;
    let mut ask = |padding| exchange(&wire, ports.next().context("no port left")?, padding);

    let first = ask(0)?;
    ensure!(first.starts_with(b"HTTP/1.1 511 "), "{}", String::from_utf8_lossy(&first));
    let ways = || {
        Ok::<_, anyhow::Error>((
            counted(&lab, Some("guest"), false, "http_request")?,
            counted(&lab, Some("guest"), false, "http_answered")?,
        ))
    };
    for _ in 0..3 {
        ensure!(ask(0)? == first);
    }
    let (by_responder, by_gate) = ways()?;
    println!("small frames from a packet socket: {by_responder} to the responder, {by_gate} answered by the gate");
    for n in 1..=3 {
        ensure!(ask(PADDING)? == first);
        ensure!(ways()? == (by_responder, by_gate + n), "the gate has not answered by itself: {:?}", ways()?);
    }
    // By a kernel's own TCP, whose frames have no room on a veth.
    let before = ways()?;
    for _ in 0..3 {
        let mut stream = lab.guest.enter(|| Ok(TcpStream::connect((SITE_V4, 80))?))?;
        std::io::Write::write_all(&mut stream, REQUEST)?;
        ensure!(crate::expect::read_to_end(&mut stream)? == first);
    }
    let after = ways()?;
    println!("a kernel's TCP: {} to the responder, {} answered by the gate", after.0 - before.0, after.1 - before.1);
    let answered = portalctl_json(&lab, &["status"])?["responder"]["answered_511"].as_u64();
    ensure!(answered == Some(after.0 + after.1), "{answered:?} counted as answered, of {after:?}");

    // Explained, it is what happens.
    let from = ["--mac", GUEST_MAC, "--src", "192.0.2.10"];
    let syn_ack = bytes(&explain_one(&lab, &from)?["reply_hex"])?;
    let ack = u32::from_be_bytes(syn_ack[38..42].try_into()?).wrapping_add(1).to_string();
    let text = String::from_utf8_lossy(REQUEST).replace('\r', "\\r").replace('\n', "\\n");
    let request = ["--seq", "1001", "--ack", &ack, "--data", &text];
    let explained = explain_one(&lab, &[&from[..], &request].concat())?;
    ensure!(explained["reason"] == "http_answered", "{explained}");
    ensure!(bytes(&explained["reply_hex"])?.ends_with(&first), "{explained}");

    // Its death changes nothing for a request that is known; the next one has another portal, and no old answer.
    portald.kill9()?;
    ensure!(ask(PADDING)? == first, "while no daemon runs");
    let other = "http://192.0.2.1:8080/elsewhere";
    let config = config.replace("[portal]\n", &format!("[portal]\nurl_v4 = \"{other}\"\n"));
    drop(portald);
    let _portald = Portald::start_with(&lab, &config, &[])?;
    for _ in 0..4 {
        let text = String::from_utf8_lossy(&ask(PADDING)?).into_owned();
        ensure!(text.contains(other), "{text}");
    }
    Ok(())
}

/// A whole exchange in crafted frames: what the response carries. `padding`: bytes behind the packet with the request.
fn exchange(wire: &Wire, port: u16, padding: usize) -> Result<Vec<u8>> {
    let tcp = |seq| {
        let packet = PacketBuilder::ethernet2(mac(GUEST_MAC), mac(GATEWAY_MAC));
        packet.ipv4(GUEST_V4.octets(), Ipv4Addr::octets(&SITE_V4), 64).tcp(port, 80, seq, 65_535)
    };
    let ports = [80_u16, port].map(u16::to_be_bytes).concat();
    let (mut syn, mut request) = (Vec::new(), Vec::new());
    tcp(1_000).syn().write(&mut syn, &[]).context("a Vec takes all")?;
    wire.send(&syn)?;
    let (cookie, _) = segment(&answer(wire, &ports)?)?;
    tcp(1_001).psh().ack(cookie.wrapping_add(1)).write(&mut request, REQUEST).context("a Vec takes all")?;
    request.resize(request.len() + padding, 0);
    wire.send(&request)?;
    let frame = answer(wire, &[&ports[..], &cookie.wrapping_add(1).to_be_bytes()].concat())
        .with_context(|| format!("after {:?}", Duration::from_secs(5)))?;
    Ok(segment(&frame)?.1)
}

/// The sequence number and the payload of a segment whose checksum is right.
fn segment(frame: &[u8]) -> Result<(u32, Vec<u8>)> {
    let sliced = SlicedPacket::from_ethernet(frame)?;
    let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else { anyhow::bail!("no TCP: {frame:02x?}") };
    let Some(etherparse::NetSlice::Ipv4(ip)) = &sliced.net else { anyhow::bail!("no IPv4: {frame:02x?}") };
    let (from, to) = (ip.header().source(), ip.header().destination());
    ensure!(tcp.checksum() == tcp.calc_checksum_ipv4(from, to)?, "wrong checksum: {frame:02x?}");
    Ok((tcp.sequence_number(), tcp.payload().to_vec()))
}
