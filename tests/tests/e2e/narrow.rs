//! Who may use a service may report on it: the login page behind a router with a smaller MTU.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use portal_lab::{
    Lab, Portald, Settings,
    addresses::{GATEWAY_V4, GUEST_V4},
    clients::http,
    process::{sh, succeed},
};

use crate::{spoofing::drops, turn::lab};

/// Less than the page's own segments, so that it loads only once the gateway has heard of it.
const MTU: u16 = 900;
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 8, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 168, 8, 2);

#[test]
fn the_login_page_loads_behind_a_router_with_a_smaller_mtu() -> Result<()> {
    let lab = lab()?;
    let _portald = Portald::start(&lab, &Settings::default())?;
    a_router_of_the_guests(&lab)?;
    let page = format!("http://{GATEWAY_V4}:8080/");
    let response = http::curl(&lab.other, &["--max-time", "20", "--silent", "--show-error", &page])?;
    ensure!(response.code == Some(0), "curl's error {:?} at {page}; dropped: {:?}", response.code, drops(&lab, "icmp"));
    let sites = http::curl(&lab.other, &["--max-time", "20", "--silent", "http://198.51.100.80/"])?;
    ensure!(sites.code == Some(0), "curl's error {:?} at a site", sites.code);
    Ok(())
}

/// Makes the first guest a router, as travellers carry them, and the second one its client: behind network address translation, on a link that bears less.
fn a_router_of_the_guests(lab: &Lab) -> Result<()> {
    let (router, client) = (&lab.guest, &lab.other);
    client.ip("link del eth0")?;
    sh(&format!(
        "ip link add lan0 netns {} mtu {MTU} type veth peer name eth0 netns {}",
        router.name(),
        client.name()
    ))?;
    router.ip(&format!("addr add {ROUTER}/24 dev lan0"))?;
    router.ip("link set lan0 up")?;
    client.ip("link set eth0 up")?;
    client.ip(&format!("addr add {CLIENT}/24 dev eth0"))?;
    client.ip(&format!("route add default via {ROUTER}"))?;
    succeed(router.client("sysctl").args(["-qw", "net.ipv4.ip_forward=1"]))?;
    let rules = "table ip narrow { chain after { type nat hook postrouting priority 100; oifname eth0 masquerade; }; }";
    succeed(router.client("nft").arg(rules))?;
    // The router itself has the address that the gateway sees.
    ensure!(router.ip("-br addr show dev eth0")?.contains(&GUEST_V4.to_string()), "the router has its address");
    Ok(())
}
