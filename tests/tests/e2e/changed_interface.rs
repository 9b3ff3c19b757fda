//! The interface changes under a running portald, or the configuration names another.

use std::time::Duration;

use anyhow::Result;
use portal_lab::{
    Portald, Settings,
    addresses::{GATEWAY_V4, GATEWAY_V6, GUEST_MAC},
    portald::{config_text, refused},
    process::wait_for,
};

use crate::{
    expect::{a_guest, a_stranger, done},
    turn::lab,
};

/// Waits until portald has ended by itself, and returns its log.
fn ended(portald: &mut Portald, limit: Duration) -> Result<String> {
    wait_for("portald's end", limit, || (!portald.is_running().ok()?).then_some(()))?;
    Ok(portald.log())
}

#[test]
fn down_and_up_again_is_survived() -> Result<()> {
    let lab = lab()?;
    let mut portald = Portald::start(&lab, &Settings::default())?;
    for _ in 0..2 {
        lab.gateway.ip("link set guest0 down")?;
        lab.gateway.ip("link set guest0 up")?;
        // The kernel forgets IPv6 addresses and routes of an interface that is down.
        lab.gateway.ip(&format!("addr add {GATEWAY_V6}/64 dev guest0 nodad"))?;
        wait_for("a stranger's 511", Duration::from_secs(30), || a_stranger(&lab.guest).ok())?;
    }
    done(&lab, &["allow", GUEST_MAC])?;
    a_guest(&lab.guest)?;
    std::thread::sleep(Duration::from_secs(3));
    assert!(portald.is_running()?, "{}", portald.log());
    Ok(())
}

#[test]
fn an_address_that_changes_for_good_ends_portald_and_one_that_comes_back_does_not() -> Result<()> {
    let lab = lab()?;
    let mut portald = Portald::start(&lab, &Settings::default())?;
    lab.gateway.ip(&format!("addr del {GATEWAY_V4}/24 dev guest0"))?;
    std::thread::sleep(Duration::from_millis(500));
    lab.gateway.ip(&format!("addr add {GATEWAY_V4}/24 dev guest0"))?;
    std::thread::sleep(Duration::from_secs(3));
    assert!(portald.is_running()?, "{}", portald.log());
    lab.gateway.ip("addr add 192.0.2.77/24 dev guest0")?;
    let log = ended(&mut portald, Duration::from_secs(30))?;
    assert!(log.contains("addresses of guest0"), "{log}");
    portald.restart(&lab)?;
    a_stranger(&lab.guest)
}

#[test]
fn what_a_running_gate_cannot_change_is_refused_and_names_the_way_out() -> Result<()> {
    let lab = lab()?;
    lab.gateway.ip("link add bridge0 type bridge")?;
    lab.gateway.ip("link set bridge0 up")?;
    lab.gateway.ip("addr add 203.0.113.1/24 dev bridge0")?;
    let clients = Some(9);
    let mut portald = Portald::start(&lab, &Settings { clients, ..Settings::default() })?;
    portald.kill9()?;
    let table = [
        ("another interface", Settings { clients, interface: "bridge0".to_owned(), ..Settings::default() }),
        ("another mode", Settings { clients, xdp_mode: "generic", ..Settings::default() }),
        ("another size", Settings { clients: Some(10), ..Settings::default() }),
    ];
    for (sentence, settings) in table {
        let output = refused(&lab, &config_text(&lab, &settings))?;
        assert_eq!(output.code, Some(1), "{sentence}: {output:?}");
        assert!(output.stderr.contains("portald --detach"), "{sentence}: {}", output.stderr);
    }
    portald.restart(&lab)?;
    a_stranger(&lab.guest)
}
