//! Two guest networks on one daemon, each with its own policy; and shadow mode.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use portal_lab::{
    Lab, Namespace, Portald, Settings,
    addresses::{
        GATEWAY_MAC, GUEST_INTERFACE, GUEST_MAC, PORTAL_PORT, PORTAL_URL, SECOND_GATEWAY_V4, SECOND_GATEWAY_V6,
        SECOND_INTERFACE, VISITOR_MAC, mac,
    },
    clients::http::{self, Family},
    portald::{config_text, portalctl_json},
    wire::Wire,
};

use crate::{
    expect::{a_guest, a_stranger, counted, done},
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
    assert!(portald.stop(Duration::from_secs(5))?.success());
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
    assert!(portald.stop(Duration::from_secs(5))?.success());
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
