//! Sessions end in the kernel, with or without portald.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use portal_lab::{
    Portald, Settings,
    addresses::{GUEST_MAC, OTHER_MAC, PORTAL_URL},
    clients::http,
};

use crate::expect::{a_guest, a_stranger, done, nothing_gets_through};
use crate::turn::lab;

/// Long enough for what is done before it ends, on a busy machine too.
const SESSION: Duration = Duration::from_secs(7);

/// How much later than promised a session may end.
const TICK: Duration = Duration::from_millis(100);

#[test]
fn a_session_ends_when_its_time_is_over() -> Result<()> {
    let lab = lab()?;
    let _portald = Portald::start(&lab, &Settings { session: "9s", ..Settings::default() })?;
    done(&lab, &["allow", GUEST_MAC, "--for", "7s"])?;
    let allowed = Instant::now();
    assert_eq!(http::log_in(&lab.other, PORTAL_URL)?.status, 200);
    let logged_in = Instant::now();
    a_guest(&lab.guest)?;
    a_guest(&lab.other)?;
    sleep_until(allowed + SESSION + TICK);
    a_stranger(&lab.guest)?;
    sleep_until(logged_in + Duration::from_secs(9) + TICK);
    a_stranger(&lab.other)
}

#[test]
fn a_session_ends_in_the_kernel_when_portald_is_dead() -> Result<()> {
    let lab = lab()?;
    let mut portald = Portald::start(&lab, &Settings::default())?;
    done(&lab, &["allow", OTHER_MAC])?;
    done(&lab, &["allow", GUEST_MAC, "--for", "7s"])?;
    let allowed = Instant::now();
    portald.kill9()?;
    a_guest(&lab.guest)?;
    sleep_until(allowed + SESSION + TICK);
    nothing_gets_through(&lab.guest)?;
    a_guest(&lab.other)?;
    portald.restart(&lab)?;
    a_stranger(&lab.guest)?;
    a_guest(&lab.other)
}

fn sleep_until(instant: Instant) {
    thread::sleep(instant.saturating_duration_since(Instant::now()));
}
