//! Sessions end in the kernel, with or without portald.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::{maps::MapInfo, programs::loaded_programs};
use portal_lab::{
    Lab, Portald, Settings,
    addresses::{GUEST_MAC, OTHER_MAC, PORTAL_URL},
    clients::http,
    portald::{config_text, portalctl_json},
};

use crate::expect::{a_guest, a_stranger, done, nothing_gets_through, program, the_site_is_out_of_reach};
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

/// Its packets rest: the gate lets them through for a minute without looking at the session. That is to be seen by nobody.
#[test]
fn a_client_that_is_not_counted_ends_at_once_like_any_other() -> Result<()> {
    for xdp_mode in ["native", "generic"] {
        let lab = lab()?;
        let config = config_text(&lab, &Settings { xdp_mode, clients: Some(1 << 11), ..Settings::default() });
        let mut portald = Portald::start_with(&lab, &format!("{config}\n[session]\naccounting = false\n"), &[])?;
        ensure!(rows_of_resting_clients(&lab)? == 1 << 11, "{xdp_mode}: no room for who rests");
        done(&lab, &["allow", OTHER_MAC])?;
        for _ in 0..3 {
            done(&lab, &["allow", GUEST_MAC])?;
            a_guest(&lab.guest).context(xdp_mode)?;
            a_guest(&lab.guest).context(xdp_mode)?;
            let shown = portalctl_json(&lab, &["clients", "show", GUEST_MAC])?;
            ensure!(shown["up"]["packets"] == 0, "{xdp_mode}: counted: {shown}");
            done(&lab, &["revoke", GUEST_MAC])?;
            a_stranger(&lab.guest).context(xdp_mode)?;
            a_guest(&lab.other).context(xdp_mode)?;
        }
        done(&lab, &["allow", GUEST_MAC, "--for", "7s"])?;
        let allowed = Instant::now();
        portald.kill9()?;
        a_guest(&lab.guest).context(xdp_mode)?;
        sleep_until(allowed + SESSION + TICK);
        the_site_is_out_of_reach(&lab.guest).context(xdp_mode)?;
        a_guest(&lab.other).context(xdp_mode)?;
        portald.restart(&lab)?;
        a_stranger(&lab.guest).context(xdp_mode)?;
        a_guest(&lab.other).context(xdp_mode)?;
    }
    Ok(())
}

#[test]
fn where_everybody_is_counted_there_is_no_room_for_who_rests() -> Result<()> {
    let lab = lab()?;
    let _portald = Portald::start(&lab, &Settings::default())?;
    ensure!(rows_of_resting_clients(&lab)? == 1);
    Ok(())
}

/// How many rows the table has that the gate on the guest interface notes resting clients in; 1 is none.
fn rows_of_resting_clients(lab: &Lab) -> Result<u32> {
    let id = program(lab)?;
    for loaded in loaded_programs() {
        let loaded = loaded?;
        if u64::from(loaded.id()) != id {
            continue;
        }
        for map in loaded.map_ids()?.context("the kernel names no maps")? {
            let map = MapInfo::from_id(map)?;
            if map.name_as_str() == Some("RECENT") {
                return Ok(map.max_entries());
            }
        }
    }
    anyhow::bail!("the gate has no table RECENT")
}

fn sleep_until(instant: Instant) {
    thread::sleep(instant.saturating_duration_since(Instant::now()));
}
