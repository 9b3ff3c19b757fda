//! Two guest networks on one daemon, each with its own policy; and shadow mode.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use etherparse::PacketBuilder;
use portal_lab::{
    Lab, Namespace, Portald, Settings,
    addresses::{
        GATEWAY_MAC, GUEST_INTERFACE, GUEST_MAC, GUEST_V4, PORTAL_PORT, PORTAL_URL, SECOND_GATEWAY_V4,
        SECOND_GATEWAY_V6, SECOND_INTERFACE, SITE_V4, UPLINK_V4, VISITOR_MAC, VISITOR_V4, mac,
    },
    clients::http::{self, Family},
    portald::{config_text, portalctl_json},
    wire::Wire,
};

use crate::{
    expect::{REQUEST, a_guest, a_stranger, counted, done},
    turn::lab,
};

const PROBE: &str = "http://connectivitycheck.gstatic.com/generate_204";
const SECURE_SITE: &str = "https://www.example.com/";
const SECOND_TITLE: &str = "The second network";

/// Two networks, of which the second differs.
fn two_networks(lab: &Lab) -> String {
    format!(
        "{}\n[[zone]]\nname = \"second\"\ninterface = \"{SECOND_INTERFACE}\"\nhttps = \"drop\"\n\
         [zone.portal]\ntitle = \"{SECOND_TITLE}\"\n",
        config_text(lab, &Settings::default())
    )
}

/// Where a phone's probe is sent.
fn portal_of(client: &Namespace, family: Family) -> Result<String> {
    let response = http::get(client, family, PROBE)?;
    ensure!(response.status == 302, "{}", response.summary());
    Ok(response.header("location").context("no Location")?.to_owned())
}

#[test]
fn two_networks_have_their_own_policy_portal_and_sessions() -> Result<()> {
    let mut lab = lab()?;
    let visitor = lab.add_second_network()?;
    let mut portald = Portald::start_with(&lab, &two_networks(&lab), &[])?;
    for client in [&lab.guest, &visitor] {
        a_stranger(client)?;
    }
    assert_eq!(portal_of(&lab.guest, Family::V4)?, PORTAL_URL);
    assert_eq!(portal_of(&visitor, Family::V4)?, format!("http://{SECOND_GATEWAY_V4}:{PORTAL_PORT}/"));
    assert_eq!(portal_of(&visitor, Family::V6)?, format!("http://[{SECOND_GATEWAY_V6}]:{PORTAL_PORT}/"));
    for family in Family::ALL {
        // curl(1): 7 is a connection that was refused, 28 a timeout.
        for (client, code) in [(&lab.guest, 7), (&visitor, 28)] {
            let output = http::curl(client, &["-k", family.option(), "--max-time", "2", SECURE_SITE])?;
            ensure!(output.code == Some(code), "{family:?}, {}: {output:?}", client.name());
        }
    }

    // A login is for one network.
    assert_eq!(http::log_in(&lab.guest, PORTAL_URL)?.status, 200);
    a_guest(&lab.guest)?;
    a_stranger(&visitor)?;
    // Not even where the other network's guest is in this one.
    visitor.ip(&format!("link set eth0 address {GUEST_MAC}"))?;
    a_stranger(&visitor)?;
    visitor.ip(&format!("link set eth0 address {VISITOR_MAC}"))?;
    a_stranger(&visitor)?;
    let page = portal_of(&visitor, Family::V4)?;
    let response = http::request(&visitor, &[&page])?;
    ensure!(response.body.contains(SECOND_TITLE), "{}", response.body);
    assert_eq!(http::log_in(&visitor, &page)?.status, 200);
    a_guest(&visitor)?;
    let clients = portalctl_json(&lab, &["clients", "list"])?;
    let zones: Vec<_> = clients["clients"].as_array().context("no clients")?.iter().map(|c| &c["zone"]).collect();
    assert_eq!(zones, ["guest", "second"], "{clients}");

    // All of this outlives the daemon.
    assert!(portald.stop(Duration::from_secs(30))?.success());
    a_guest(&visitor)?;
    portald.restart(&lab)?;
    a_guest(&lab.guest)?;
    a_guest(&visitor)
}

/// Whether a guest's frame under these tags comes out behind the gate. Its EtherType is one that nobody answers (IEEE 802, local experimental
/// EtherType 1).
fn passes_under(lab: &Lab, tags: &[u8]) -> Result<bool> {
    let guest = lab.guest.enter(|| Ok(Wire::open_for_sending("eth0", 64 << 10)?))?;
    let gateway = lab.gateway.enter(|| Ok(Wire::open(GUEST_INTERFACE)?))?;
    let frame = |tags: &[u8], end: u8| {
        [&mac(GATEWAY_MAC)[..], &mac(GUEST_MAC), tags, &[0x88, 0xb5], &[0x5a; 49], &[end]].concat()
    };
    // Behind it goes one that always gets there: then it is seen or it never will be.
    let (asked, last) = (frame(tags, 1), [&mac(GATEWAY_MAC)[..], &mac(GUEST_MAC), &[0x88, 0x8e], &[0; 50]].concat());
    guest.send(&asked)?;
    guest.send(&last)?;
    let (until, mut passed) = (Instant::now() + Duration::from_secs(5), false);
    while let Some(seen) = gateway.next(until)? {
        passed |= seen.frame == asked;
        if seen.frame == last {
            return Ok(passed);
        }
    }
    bail!("not even EAPOL came through")
}

#[test]
fn in_shadow_mode_everything_passes_and_is_counted() -> Result<()> {
    // VLANs that no zone has: one tag, two, and one too many.
    const UNKNOWN: [&[u8]; 3] =
        [&[0x81, 0, 0x20, 5], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 9], &[0x81, 0, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3]];
    let lab = lab()?;
    let config = config_text(&lab, &Settings::default());
    let mut portald = Portald::start_with(&lab, &config.replace("[portal]\n", "shadow = true\n\n[portal]\n"), &[])?;
    a_guest(&lab.guest)?;
    // A SYN of each IP version would have been answered.
    ensure!(counted(&lab, Some("guest"), true, "http_handshake")? >= 2);
    for tags in UNKNOWN {
        ensure!(passes_under(&lab, tags)?, "{tags:02x?}: dropped");
    }
    assert_eq!(counted(&lab, Some("guest"), true, "no_zone")?, 2);
    assert_eq!(counted(&lab, Some("guest"), true, "vlan_tags")?, 1);
    assert_eq!(counted(&lab, None, false, "no_zone")?, 0);
    assert!(portald.stop(Duration::from_secs(30))?.success());
    // As it was, without portald.
    ensure!(passes_under(&lab, UNKNOWN[0])?);

    // Switched on, and off again.
    let _portald = Portald::start_with(&lab, &config, &[])?;
    a_stranger(&lab.guest)?;
    for tags in UNKNOWN {
        ensure!(!passes_under(&lab, tags)?, "{tags:02x?}: passed");
    }
    assert_eq!(counted(&lab, None, false, "no_zone")?, 2);
    done(&lab, &["allow", GUEST_MAC])?;
    a_guest(&lab.guest)
}

/// The first frame from the gate that holds these bytes, with its tags and all.
pub(crate) fn answer(wire: &Wire, what: &[u8]) -> Result<Vec<u8>> {
    let until = Instant::now() + Duration::from_secs(5);
    while let Some(seen) = wire.next(until)? {
        if !seen.sent && seen.frame.windows(what.len()).any(|bytes| bytes == what) {
            return Ok(seen.frame);
        }
    }
    bail!("no answer with {what:02x?}")
}

#[test]
fn networks_in_vlans_are_answered_under_their_tags_with_their_own_portal() -> Result<()> {
    let mut lab = lab()?;
    lab.add_second_network()?;
    // Of the gateways' interfaces only the addresses matter here.
    let zone = |name: &str, vlan: &str, gateway: &str| {
        format!(
            "[[zone]]\nname = \"{name}\"\ninterface = \"{GUEST_INTERFACE}\"\nvlan = {vlan}\ngateway = \"{gateway}\"\n"
        )
    };
    let zones = zone("one", "10", "wan0") + &zone("two", "\"100.10\"", SECOND_INTERFACE);
    let _portald = Portald::start_with(&lab, &format!("{}\n{zones}", config_text(&lab, &Settings::default())), &[])?;
    let list = portalctl_json(&lab, &["zones", "list"])?;
    let wire = lab.guest.enter(|| Ok(Wire::open("eth0")?))?;
    // Each network's clients send from its own addresses: those of its gateway's interface.
    let on_the_uplink = Ipv4Addr::from(u32::from(UPLINK_V4) + 9);
    for (port, (name, tags, source)) in (40_001..).zip([
        ("guest", &[][..], GUEST_V4),
        ("one", &[0x81, 0, 0, 10], on_the_uplink),
        ("two", &[0x88, 0xa8, 0, 100, 0x81, 0, 0, 10], VISITOR_V4),
    ]) {
        let zones = list["zones"].as_array().context("no zones")?;
        let zone = zones.iter().find(|zone| zone["name"] == name).with_context(|| format!("no {name}: {list}"))?;
        let [gateway_mac, url] = ["gateway_mac", "url_v4"].map(|field| zone[field].as_str().unwrap_or_default());
        let tcp = |sequence| {
            let packet = PacketBuilder::ethernet2(mac(GUEST_MAC), mac(gateway_mac));
            packet.ipv4(source.octets(), SITE_V4.octets(), 64).tcp(port, 80, sequence, 65_535)
        };
        let tagged = |mut frame: Vec<u8>| {
            frame.splice(12..12, tags.iter().copied());
            frame
        };
        // To the guest, under the same tags, from the site's port 80 to the port that it sent from.
        let [to, from] = [GUEST_MAC, gateway_mac].map(mac);
        let ports = [80_u16, port].map(u16::to_be_bytes).concat();
        let expected = [&to[..], &from, tags, &[8, 0]].concat();

        let (mut syn, mut request) = (Vec::new(), Vec::new());
        tcp(1_000).syn().write(&mut syn, &[]).context("a Vec takes all")?;
        wire.send(&tagged(syn))?;
        let seen = answer(&wire, &ports)?;
        ensure!(seen.starts_with(&expected), "{name}: {seen:02x?}");
        let at = expected.len() + 20 + 4;
        let cookie = u32::from_be_bytes(seen[at..at + 4].try_into()?);
        tcp(1_001).psh().ack(cookie.wrapping_add(1)).write(&mut request, REQUEST).context("a Vec takes all")?;
        wire.send(&tagged(request))?;
        let seen = answer(&wire, b"HTTP/1.1 511 ")?;
        ensure!(seen.starts_with(&expected), "{name}: {seen:02x?}");
        let text = String::from_utf8_lossy(&seen);
        ensure!(!url.is_empty() && text.contains(url), "{name}: no {url} in {text}");
        assert_eq!(counted(&lab, Some(name), false, "http_request")?, 1);
    }
    Ok(())
}
