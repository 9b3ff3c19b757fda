//! A guest that takes another's address, or the gateway's.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use etherparse::PacketBuilder;
use portal_lab::{
    Lab, Portald, Settings,
    addresses::{
        GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, GUEST_MAC, GUEST_V4, GUEST_V6, OTHER_MAC, OTHER_V4, OTHER_V6, SITE_V4,
        SITE_V6, UPLINK_V4, UPLINK_V6, mac,
    },
    portald::{config_text, portalctl_json},
    wire::Wire,
};

use crate::{
    expect::{a_guest, done},
    turn::lab,
};

/// A datagram to the site, from this MAC and this address, that can be told from others by its port.
fn datagram(from: &str, source: IpAddr, port: u16) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(mac(from), mac(GATEWAY_MAC));
    let mut bytes = Vec::new();
    let builder = match source {
        IpAddr::V4(v4) => builder.ipv4(v4.octets(), SITE_V4.octets(), 64),
        IpAddr::V6(v6) => builder.ipv6(v6.octets(), SITE_V6.octets(), 64),
    };
    builder.udp(port, 9999).write(&mut bytes, &[b'x'; 100]).expect("a Vec takes all");
    bytes
}

/// Whether the frame comes out of the gateway on the internet's side.
fn gets_through(lab: &Lab, frame: &[u8], port: u16) -> Result<bool> {
    let guests = lab.guest.enter(|| Ok(Wire::open_for_sending("eth0", 64 << 10)?))?;
    let internet = lab.internet.enter(|| Ok(Wire::open("eth0")?))?;
    guests.send(frame)?;
    let marks = [port.to_be_bytes(), 9999_u16.to_be_bytes()].concat();
    let until = Instant::now() + Duration::from_millis(500);
    while let Some(seen) = internet.next(until)? {
        // Behind Ethernet and IP the ports follow; nobody answers, but with an ICMP error that quotes them further behind.
        let at = if seen.frame.get(12..14) == Some(&[0x86, 0xdd]) { 54 } else { 34 };
        if !seen.sent && seen.frame.get(at..at + 4) == Some(&marks[..]) {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(crate) fn drops(lab: &Lab, reason: &str) -> Result<u64> {
    let json = portalctl_json(lab, &["drops", "--all"])?;
    let rows = json["reasons"].as_array().with_context(|| format!("no reasons: {json}"))?;
    Ok(rows.iter().filter(|row| row["name"] == reason).filter_map(|row| row["packets"].as_u64()).sum())
}

#[test]
fn a_guest_with_anothers_address_is_kept_out() -> Result<()> {
    let lab = lab()?;
    let _portald = Portald::start(&lab, &Settings::default())?;
    for client in [GUEST_MAC, OTHER_MAC] {
        done(&lab, &["allow", client])?;
    }
    // Each uses its own.
    a_guest(&lab.guest)?;
    a_guest(&lab.other)?;
    let mut port = 20_000;
    let mut through = |from: &str, source: IpAddr| {
        port += 1;
        gets_through(&lab, &datagram(from, source, port), port)
    };
    for (sentence, from, source, reason) in [
        ("its own", OTHER_MAC, IpAddr::V4(OTHER_V4), None),
        ("its own", OTHER_MAC, IpAddr::V6(OTHER_V6), None),
        ("another guest's", OTHER_MAC, IpAddr::V4(GUEST_V4), Some("spoofed_address")),
        ("another guest's", OTHER_MAC, IpAddr::V6(GUEST_V6), Some("spoofed_address")),
        ("the gateway's", OTHER_MAC, IpAddr::V4(GATEWAY_V4), Some("gateway_address")),
        ("the gateway's", OTHER_MAC, IpAddr::V6(GATEWAY_V6), Some("gateway_address")),
        ("its own again", OTHER_MAC, IpAddr::V4(OTHER_V4), None),
        ("the other's own", GUEST_MAC, IpAddr::V4(GUEST_V4), None),
        // Nobody's so far: learned.
        ("a new one", OTHER_MAC, IpAddr::V4([192, 0, 2, 77].into()), None),
        ("that one, by the other", GUEST_MAC, IpAddr::V4([192, 0, 2, 77].into()), Some("spoofed_address")),
    ] {
        let before = reason.map_or(Ok(0), |reason| drops(&lab, reason))?;
        let got = through(from, source)?;
        ensure!(
            got == reason.is_none(),
            "{sentence}, {source}: it {} through",
            if got { "got" } else { "did not get" }
        );
        if let Some(reason) = reason {
            ensure!(drops(&lab, reason)? == before + 1, "{sentence}, {source}: {reason} was not counted");
        }
    }
    // And it did nobody any harm.
    a_guest(&lab.guest)?;
    a_guest(&lab.other)?;

    // An address is free again when its session is over.
    done(&lab, &["revoke", OTHER_MAC])?;
    ensure!(through(GUEST_MAC, IpAddr::V4([192, 0, 2, 77].into()))?, "the address of a revoked client stays bound");
    Ok(())
}

#[test]
fn a_guest_sends_from_its_own_network_and_what_is_behind_it_alone() -> Result<()> {
    let lab = lab()?;
    let config = config_text(&lab, &Settings::default());
    let behind = "downstream = [\"10.9.0.0/16\", \"2001:db8:9::/48\"]\n\n[portal]\n";
    let _portald = Portald::start_with(&lab, &config.replace("[portal]\n", behind), &[])?;
    lab.gateway.ip(&format!("route add 10.9.0.0/16 via {GUEST_V4}"))?;
    lab.gateway.ip(&format!("route add 2001:db8:9::/48 via {GUEST_V6}"))?;
    done(&lab, &["allow", GUEST_MAC])?;
    a_guest(&lab.guest)?;
    let mut port = 22_000;
    for (sentence, sources, passes) in [
        ("its own", [IpAddr::V4(GUEST_V4), IpAddr::V6(GUEST_V6)], true),
        ("of a prefix behind it", ["10.9.1.1".parse()?, "2001:db8:9:1::1".parse()?], true),
        ("of somewhere on the internet", ["9.9.9.9".parse()?, "2620:fe::fe".parse()?], false),
        ("the gateway's on its uplink", [IpAddr::V4(UPLINK_V4), IpAddr::V6(UPLINK_V6)], false),
        ("beside the prefix behind it", ["10.10.0.1".parse()?, "2001:db8:a::1".parse()?], false),
    ] {
        for source in sources {
            port += 1;
            let before = drops(&lab, "foreign_source")?;
            let got = gets_through(&lab, &datagram(GUEST_MAC, source, port), port)?;
            ensure!(got == passes, "{sentence}, {source}: it {} through", if got { "got" } else { "did not get" });
            let dropped = drops(&lab, "foreign_source")? - before;
            ensure!(dropped == u64::from(!passes), "{sentence}, {source}: {dropped} dropped as foreign_source");
        }
    }
    a_guest(&lab.guest)
}

#[test]
fn where_anti_spoofing_is_off_an_address_is_no_matter() -> Result<()> {
    let lab = lab()?;
    let config = config_text(&lab, &Settings::default());
    let config = config.replace("[portal]\n", "anti_spoofing = \"off\"\n\n[portal]\n");
    let _portald = Portald::start_with(&lab, &config, &[])?;
    for client in [GUEST_MAC, OTHER_MAC] {
        done(&lab, &["allow", client])?;
    }
    a_guest(&lab.guest)?;
    for source in [IpAddr::V4(GUEST_V4), IpAddr::V6(GUEST_V6)] {
        ensure!(gets_through(&lab, &datagram(OTHER_MAC, source, 21_000), 21_000)?, "{source}");
    }
    Ok(())
}
