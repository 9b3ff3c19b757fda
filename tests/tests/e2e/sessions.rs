//! Sessions end in the kernel, with or without portald.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use portal_lab::{
    Lab, Portald, Settings,
    addresses::{GUEST_MAC, OTHER_MAC, PORTAL_URL},
    clients::http,
};

use crate::expect::{a_guest, a_stranger, done, nothing_gets_through};

#[test]
fn a_session_ends_when_its_time_is_over() -> Result<()> {
    let lab = Lab::new()?;
    let _portald = Portald::start(&lab, &Settings { session: "3s", ..Settings::default() })?;
    let start = Instant::now();
    done(&lab, &["allow", GUEST_MAC, "--for", "2s"])?;
    assert_eq!(http::log_in(&lab.other, PORTAL_URL)?.status, 200);
    a_guest(&lab.guest)?;
    a_guest(&lab.other)?;
    thread::sleep(Duration::from_millis(2100).saturating_sub(start.elapsed()));
    a_stranger(&lab.guest)?;
    thread::sleep(Duration::from_millis(3500).saturating_sub(start.elapsed()));
    a_stranger(&lab.other)
}

#[test]
fn a_session_ends_in_the_kernel_when_portald_is_dead() -> Result<()> {
    let lab = Lab::new()?;
    let mut portald = Portald::start(&lab, &Settings::default())?;
    done(&lab, &["allow", OTHER_MAC])?;
    let start = Instant::now();
    done(&lab, &["allow", GUEST_MAC, "--for", "2s"])?;
    portald.kill9()?;
    a_guest(&lab.guest)?;
    thread::sleep(Duration::from_millis(2100).saturating_sub(start.elapsed()));
    nothing_gets_through(&lab.guest)?;
    a_guest(&lab.other)?;
    portald.restart(&lab)?;
    a_stranger(&lab.guest)?;
    a_guest(&lab.other)
}
