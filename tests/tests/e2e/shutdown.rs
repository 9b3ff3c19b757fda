//! A clean stop leaves the gate in place; the next start takes it over.

use std::{fs, thread, time::Duration};

use anyhow::{Context as _, Result};
use portal_lab::{
    Lab, Portald, Settings,
    addresses::OTHER_MAC,
    process::{Service, sh},
};
use serde_json::Value;

use crate::expect::{a_guest, a_stranger, done, nothing_gets_through};

#[test]
fn sigterm_keeps_the_gate_and_the_next_start_takes_over() -> Result<()> {
    let lab = Lab::new()?;
    let mut portald = Portald::start(&lab, &Settings::default())?;
    done(&lab, &["allow", OTHER_MAC])?;
    let file = lab.directory().join("transfer");
    let mut transfer = Service::start(
        "curl",
        lab.other.client("curl").args(["-sS", "--max-time", "30", "http://www.example.com/drip", "-o"]).arg(&file),
        &lab.directory().join("transfer.log"),
    )?;
    let first = program(&lab)?;
    let status = portald.stop(Duration::from_secs(2))?;
    assert!(status.success(), "{status}");
    assert_eq!(program(&lab)?, first, "the gate must stay attached");
    nothing_gets_through(&lab.guest)?;
    a_guest(&lab.other)?;

    portald.restart(&lab)?;
    assert_ne!(program(&lab)?, first, "the gate must be replaced");
    a_stranger(&lab.guest)?;
    a_guest(&lab.other)?;
    thread::sleep(Duration::from_millis(500));
    assert!(transfer.ended()?.is_none(), "the transfer ended: {}", transfer.log());
    assert!(fs::metadata(&file)?.len() > 1 << 20, "the transfer stood still");
    Ok(())
}

/// The id of the XDP program on the guest interface.
fn program(lab: &Lab) -> Result<u64> {
    let json: Value = serde_json::from_str(&sh(&format!("ip -n {} -j link show dev guest0", lab.gateway.name()))?)?;
    json[0]["xdp"]["prog"]["id"].as_u64().with_context(|| format!("no program: {json}"))
}
