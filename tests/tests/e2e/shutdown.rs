//! A clean stop leaves the gate in place; the next start takes it over.

use std::{fs, time::Duration};

use anyhow::Result;
use portal_lab::{
    Portald, Settings,
    addresses::OTHER_MAC,
    process::{Service, wait_for},
};

use crate::expect::{a_guest, a_stranger, done, nothing_gets_through, program};
use crate::turn::lab;

#[test]
fn sigterm_keeps_the_gate_and_the_next_start_takes_over() -> Result<()> {
    let lab = lab()?;
    let mut portald = Portald::start(&lab, &Settings::default())?;
    done(&lab, &["allow", OTHER_MAC])?;
    let file = lab.directory().join("transfer");
    let mut transfer = Service::start(
        "curl",
        lab.other.client("curl").args(["-sS", "--max-time", "120", "http://www.example.com/drip", "-o"]).arg(&file),
        &lab.directory().join("transfer.log"),
    )?;
    let first = program(&lab)?;
    let status = portald.stop(Duration::from_secs(30))?;
    assert!(status.success(), "{status}");
    assert_eq!(program(&lab)?, first, "the gate must stay attached");
    nothing_gets_through(&lab.guest)?;
    a_guest(&lab.other)?;

    portald.restart(&lab)?;
    assert_ne!(program(&lab)?, first, "the gate must be replaced");
    a_stranger(&lab.guest)?;
    a_guest(&lab.other)?;
    let arrived = || fs::metadata(&file).map_or(0, |meta| meta.len());
    let before = arrived();
    wait_for("the transfer's going on", Duration::from_secs(10), || (arrived() > before + (1 << 20)).then_some(()))?;
    assert!(transfer.ended()?.is_none(), "the transfer ended: {}", transfer.log());
    Ok(())
}
