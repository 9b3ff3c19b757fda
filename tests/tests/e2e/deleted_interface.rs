//! The guarded interface goes away under a running portald.

use std::time::Duration;

use anyhow::{Context as _, Result};
use portal_lab::{
    Portald, Settings,
    addresses::{GUEST_INTERFACE, OTHER_MAC, SITES},
};

use crate::{
    expect::{done, the_511},
    turn::lab,
    watch::{GUEST, OTHER, Watch, knock},
};

#[test]
fn portald_ends_when_its_interface_is_deleted_and_guards_the_new_one() -> Result<()> {
    let mut lab = lab()?;
    let mut portald = Portald::start(&lab, &Settings::default())?;
    lab.gateway.ip(&format!("link del {GUEST_INTERFACE}"))?;
    lab.rewire_guests()?;
    let status = portald.wait(Duration::from_secs(15)).context("portald guards an interface that is gone")?;
    assert_eq!(status.code(), Some(1), "{}", portald.log());
    let log = portald.log();
    let last = log.lines().last().unwrap_or_default();
    let cause = last.contains("is gone") || last.contains("created again");
    assert!(last.contains(GUEST_INTERFACE) && cause, "no cause in the last line of:\n{log}");
    portald.restart(&lab)?;
    for site in SITES {
        the_511(&lab, site)?;
    }
    let watch = Watch::start(&lab)?;
    knock(&lab.guest)?;
    done(&lab, &["allow", OTHER_MAC])?;
    watch.sees_only_the_guest(GUEST, &lab.other, OTHER)
}
