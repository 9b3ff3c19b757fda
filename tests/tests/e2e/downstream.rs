//! What a helper on the internet sends to a guest's station: all of it with a session, nothing without.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use etherparse::PacketBuilder;
use portal_lab::{
    Lab, Portald, Settings,
    addresses::{GATEWAY_V4, GATEWAY_V6, GUEST_MAC, GUEST_V4, GUEST_V6, SITE_V4, SITE_V6, mac},
    clients::{
        dns::{self, Record},
        stream::{STREAM, arriving},
    },
    portald::{config_text, without_budgets},
    wire::Wire,
};

use crate::{
    expect::{a_guest, a_stranger, counted, done},
    turn::lab,
};

const GUEST: [IpAddr; 2] = [IpAddr::V4(GUEST_V4), IpAddr::V6(GUEST_V6)];

#[test]
fn a_helper_on_the_internet_reaches_a_guest_and_no_stranger() -> Result<()> {
    for xdp_mode in ["native", "generic"] {
        let lab = lab()?;
        let _portald = Portald::start(&lab, &Settings { xdp_mode, ..Settings::default() })?;
        a_stranger(&lab.guest)?;
        for (to, port) in GUEST.into_iter().zip(5_000..) {
            let before = counted(&lab, Some("guest"), false, "to_stranger")?;
            ensure!(arriving(&lab, to, port)? == 0, "{xdp_mode}: a stream to a stranger arrives at {to}");
            let after = counted(&lab, Some("guest"), false, "to_stranger")?;
            ensure!(after >= before + STREAM as u64, "{xdp_mode}: {to}: only {} drops are counted", after - before);
        }
        done(&lab, &["allow", GUEST_MAC])?;
        a_guest(&lab.guest)?;
        for (to, port) in GUEST.into_iter().zip(5_100..) {
            let arrived = arriving(&lab, to, port)?;
            ensure!(arrived == STREAM, "{xdp_mode}: {arrived} of {STREAM} datagrams to a guest arrive at {to}");
        }
        done(&lab, &["revoke", GUEST_MAC])?;
        for (to, port) in GUEST.into_iter().zip(5_200..) {
            ensure!(arriving(&lab, to, port)? == 0, "{xdp_mode}: a session's end leaves the way down to {to} open");
        }
    }
    Ok(())
}

#[test]
fn in_shadow_mode_it_is_only_counted() -> Result<()> {
    let lab = lab()?;
    let config = config_text(&lab, &Settings::default());
    let config = config.replace("[portal]\n", "shadow = true\n\n[portal]\n");
    let _portald = Portald::start_with(&lab, &config, &[])?;
    for (to, port) in GUEST.into_iter().zip(5_300..) {
        ensure!(arriving(&lab, to, port)? == STREAM, "{to}");
        ensure!(counted(&lab, Some("guest"), true, "to_stranger")? >= STREAM as u64, "{to}");
    }
    Ok(())
}

/// Whether TCP/443 of the site is open to the guest.
fn opens(lab: &Lab, to: IpAddr) -> Result<bool> {
    lab.guest.enter(|| match TcpStream::connect_timeout(&SocketAddr::new(to, 443), Duration::from_secs(5)) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => Ok(false),
        Err(e) => Err(e).with_context(|| format!("neither open nor refused: {to}")),
    })
}

/// A DNS answer for a name, with this many addresses, of which the site's is the first.
fn forged(name: &str, addresses: u16) -> Vec<u8> {
    let mut message = [0x0781, 0x8180, 1, addresses, 0, 0].map(u16::to_be_bytes).concat();
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 28, 0, 1]);
    for n in 0..addresses {
        message.extend([0xc0, 12, 0, 28, 0, 1, 0, 0, 0x0e, 0x10, 0, 16]);
        message.extend((u128::from(SITE_V6) + (u128::from(n) << 16)).to_be_bytes());
    }
    message
}

#[test]
fn an_answer_that_nobody_asked_for_opens_nothing() -> Result<()> {
    let lab = lab()?;
    let config = without_budgets(&config_text(&lab, &Settings::default()));
    let config = format!("{config}\n[[garden]]\nto = \"*.named.example\"\nports = [\"443/tcp\"]\n");
    let _portald = Portald::start_with(&lab, &config, &[])?;
    a_stranger(&lab.guest)?;
    let wan = lab.gateway.ip("-br link show wan0")?;
    let wan = wan.split_whitespace().nth(2).context("an address")?.to_owned();
    let wire = lab.internet.enter(|| Ok(Wire::open_for_sending("eth0", 1 << 20)?))?;
    for (sentence, from, reason) in [
        ("the gateway", IpAddr::V6(GATEWAY_V6), Some("gateway_forged")),
        // These the kernel does not forward itself.
        ("the gateway", IpAddr::V4(GATEWAY_V4), None),
        ("a site", IpAddr::V6(SITE_V6), Some("to_stranger")),
        ("a site", IpAddr::V4(SITE_V4), Some("to_stranger")),
    ] {
        let count = || reason.map_or(Ok(0), |reason| counted(&lab, Some("guest"), false, reason));
        let before = count()?;
        let at_guest = lab.guest.enter(|| Ok(Wire::open("eth0")?))?;
        for n in 0..20 {
            let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], mac(&wan));
            let builder = match from {
                IpAddr::V4(v4) => builder.ipv4(v4.octets(), GUEST_V4.octets(), 64),
                IpAddr::V6(v6) => builder.ipv6(v6.octets(), GUEST_V6.octets(), 64),
            };
            let mut frame = Vec::new();
            builder.udp(53, 40_000 + n).write(&mut frame, &forged("x.named.example", 30)).expect("a Vec takes all");
            wire.send(&frame)?;
        }
        let until = Instant::now() + Duration::from_millis(500);
        while let Some(seen) = at_guest.next(until)? {
            let at = if from.is_ipv4() { 34 } else { 54 };
            if !seen.sent && seen.frame.get(at..at + 2) == Some(&[0, 53]) {
                bail!("a forged answer from {sentence}, {from}, arrives");
            }
        }
        ensure!(reason.is_none() || count()? >= before + 20, "{sentence}, {from}: not counted as {reason:?}");
    }
    for site in [IpAddr::V6(SITE_V6), IpAddr::V4(SITE_V4)] {
        ensure!(!opens(&lab, site)?, "{site} is open");
    }
    // And nothing was filled: an honest name is learned.
    for (resolver, record) in [(IpAddr::V4(GATEWAY_V4), Record::A), (IpAddr::V6(GATEWAY_V6), Record::Aaaa)] {
        let addresses = lab.guest.enter(|| dns::ask(resolver, "site7.named.example", record))?;
        let address = *addresses.first().context("no address")?;
        ensure!(opens(&lab, address)?, "{address} is not open, of which the resolver has told");
    }
    Ok(())
}

#[test]
fn a_stranger_is_pinged_by_the_gateway_and_its_neighbours_are_found() -> Result<()> {
    let lab = lab()?;
    let _portald = Portald::start(&lab, &Settings::default())?;
    // Afresh: the gateway's solicitation and the guest's.
    for namespace in [&lab.gateway, &lab.guest] {
        namespace.ip("neigh flush all")?;
    }
    a_stranger(&lab.guest)?;
    let table = lab.gateway.ip("neigh show dev guest0")?;
    for address in [Ipv4Addr::to_string(&GUEST_V4), GUEST_V6.to_string()] {
        ensure!(table.contains(&address), "{address} is not in {table}");
    }
    Ok(())
}
