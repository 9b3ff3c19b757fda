//! A start that is refused changes nothing.

use std::{net::TcpListener, time::Duration};

use anyhow::{Context as _, Result};
use portal_lab::{
    Lab, Portald, Settings,
    addresses::{GATEWAY_V4, GATEWAY_V6, OTHER_MAC, PORTAL_PORT, PORTAL_URL},
    clients::http,
    portald::{config_text, refused},
};

use crate::{
    expect::{a_guest, a_stranger, done, pins, program},
    turn::lab,
};

/// Whether a stranger reaches what listens on the login page's port, without portald.
fn login_port_is_open(lab: &Lab) -> Result<()> {
    for gateway in [GATEWAY_V4.into(), GATEWAY_V6.into()] {
        let _listener = lab.gateway.enter(|| Ok(TcpListener::bind((gateway, PORTAL_PORT))?))?;
        lab.guest.connect(gateway, PORTAL_PORT, Duration::from_secs(2)).with_context(|| format!("{gateway}"))?;
    }
    Ok(())
}

#[test]
fn a_refused_takeover_leaves_the_old_gate_as_it_was() -> Result<()> {
    let lab = lab()?;
    let mut portald = Portald::start(&lab, &Settings::default())?;
    done(&lab, &["allow", OTHER_MAC])?;
    let gate = program(&lab)?;
    assert!(portald.stop(Duration::from_secs(30))?.success());
    login_port_is_open(&lab).context("after the stop")?;

    let listen = format!("[portal]\nlisten = [\"{GATEWAY_V4}:8081\", \"[{GATEWAY_V6}]:8081\"]\n");
    let config = config_text(&lab, &Settings { xdp_mode: "generic", ..Settings::default() });
    let output = refused(&lab, &config.replace("[portal]\n", &listen))?;
    assert_eq!(output.code, Some(1), "{output:?}");
    let stderr = output.stderr.to_lowercase();
    assert!(stderr.contains("native") && stderr.contains("xdp_mode"), "no cause or no remedy in: {stderr}");
    assert_eq!(program(&lab)?, gate, "the old program must stay");
    login_port_is_open(&lab).context("after the refused start")?;
    a_guest(&lab.other)?;

    portald.restart(&lab)?;
    a_stranger(&lab.guest)?;
    assert_eq!(http::request(&lab.guest, &[PORTAL_URL])?.status, 200);
    a_guest(&lab.other)
}

#[test]
fn a_refused_first_start_leaves_nothing() -> Result<()> {
    let lab = lab()?;
    lab.gateway.ip("link add bridge0 type bridge")?;
    lab.gateway.ip("link set bridge0 up")?;
    lab.gateway.ip("addr add 203.0.113.1/24 dev bridge0")?;
    let settings = Settings { interface: "bridge0".to_owned(), ..Settings::default() };
    let output = refused(&lab, &config_text(&lab, &settings))?;
    assert_eq!(output.code, Some(1), "{output:?}");
    let pins = pins(&lab.bpffs().join("portal"))?;
    assert!(pins.is_empty(), "{pins:?}");
    // The same places, and an interface that can be guarded.
    let _portald = Portald::start(&lab, &Settings::default())?;
    a_stranger(&lab.guest)
}
