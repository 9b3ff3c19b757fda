//! What the lab has on demand: a third guest, a second guest network, more queues, frames as they are on the wire.

use std::time::Duration;

use anyhow::{Result, ensure};
use portal_lab::{
    Options, Portald, Settings,
    addresses::{GATEWAY_MAC, NAMED_V4, SECOND_GATEWAY_V4, mac},
    clients::http::{self, Family},
    process::succeed,
    wire::Wire,
};

use crate::{
    expect::{a_guest, a_stranger},
    turn::{lab, lab_with},
};

#[test]
fn a_third_guest_and_a_second_network_reach_the_site() -> Result<()> {
    let mut lab = lab()?;
    let third = lab.add_third()?;
    let visitor = lab.add_second_network()?;
    for client in [&third, &visitor] {
        a_guest(client)?;
    }
    let page = format!("http://{SECOND_GATEWAY_V4}/");
    ensure!(http::curl(&visitor, &["--max-time", "1", &page])?.code == Some(7), "nobody listens at the gateway");
    for family in Family::ALL {
        for name in ["site7.named.example", "alias.garden.example"] {
            let response = http::get(&lab.guest, family, &format!("http://{name}/"))?;
            ensure!(response.status == 200, "{family:?} {name}: {}", response.summary());
        }
    }
    let resolved = succeed(lab.guest.client("getent").args(["ahostsv4", "site7.named.example"]))?;
    ensure!(resolved.starts_with(&std::net::Ipv4Addr::from(u32::from(NAMED_V4) + 7).to_string()), "{resolved}");
    Ok(())
}

#[test]
fn tagged_frames_are_sent_and_seen_whole() -> Result<()> {
    let lab = lab()?;
    let guest = lab.guest.enter(|| Ok(Wire::open("eth0")?))?;
    let gateway = lab.gateway.enter(|| Ok(Wire::open("guest0")?))?;
    for tags in [
        &[][..],
        &[0x81, 0, 0x20, 5],
        &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 9],
        &[0x81, 0, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3],
    ] {
        // Of the experimental EtherType, which nobody answers (IEEE 802, local experimental EtherType 1).
        let frame = [&mac(GATEWAY_MAC)[..], &[2, 0, 0, 0, 1, 9][..], tags, &[0x88, 0xb5], &[0x5a; 50]].concat();
        gateway.clear()?;
        guest.send(&frame)?;
        let seen = gateway.within(Duration::from_millis(200))?;
        ensure!(seen.iter().any(|s| !s.sent && s.frame == frame), "{frame:02x?} came as {seen:02x?}");
    }
    Ok(())
}

#[test]
fn flows_are_spread_over_the_queues() -> Result<()> {
    let lab = lab_with(Options { queues: 2 })?;
    let _portald = Portald::start(&lab, &Settings::default())?;
    for _ in 0..16 {
        // From a port of its own each time.
        a_stranger(&lab.guest)?;
    }
    let statistics = succeed(lab.gateway.service("ethtool").args(["-S", "guest0"]))?;
    for queue in 0..2 {
        let name = format!("rx_queue_{queue}_xdp_packets: ");
        let packets = statistics.lines().find_map(|line| line.trim().strip_prefix(&name));
        ensure!(packets.is_some_and(|packets| packets != "0"), "nothing came on queue {queue}: {statistics}");
    }
    Ok(())
}
