//! A spent quota, a revocation and a block are not undone by the login page's button.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Result, ensure};
use portal_lab::{
    Lab, Namespace, Portald, Settings,
    addresses::{GATEWAY_V4, GATEWAY_V6, GUEST_MAC, OTHER_MAC, PORTAL_PORT},
    clients::http::{self, Family, Response},
    portald::{config_text, portalctl, portalctl_json},
    process::wait_for,
};

use crate::{
    expect::{SITE, a_guest, a_stranger, done},
    turn::lab,
};

/// What a client loads until its quota ends.
const BIG: &str = "http://www.example.com/big";

/// A portald whose sessions have these limits, as they are written in `[session]`.
fn start(lab: &Lab, limits: &str) -> Result<Portald> {
    Portald::start_with(lab, &format!("{}\n[session]\n{limits}\n", config_text(lab, &Settings::default())), &[])
}

/// Presses the login page's button, without looking at the page before.
fn press(client: &Namespace, family: Family) -> Result<Response> {
    let gateway = match family {
        Family::V4 => IpAddr::from(GATEWAY_V4),
        Family::V6 => IpAddr::from(GATEWAY_V6),
    };
    let page = SocketAddr::new(gateway, PORTAL_PORT);
    http::request(client, &["--data", "accept=yes", &format!("http://{page}/login")])
}

/// The button gives a page that says why not, and the client stays a stranger.
fn is_kept_out(client: &Namespace, family: Family, why: &str) -> Result<()> {
    for _ in 0..3 {
        let answer = press(client, family)?;
        ensure!(answer.status == 403 && answer.body.contains(why), "{family:?}: {}: {}", answer.summary(), answer.body);
        let site = http::get(client, family, SITE)?;
        ensure!(site.status == 511, "{family:?}: {} after the button", site.summary());
    }
    a_stranger(client)
}

/// Logs in, and loads until there is no more.
fn spend(client: &Namespace, family: Family) -> Result<()> {
    let answer = press(client, family)?;
    ensure!(answer.status == 303, "{family:?}: {}", answer.summary());
    let output = http::curl(client, &[family.option(), "--max-time", "5", "--output", "/dev/null", BIG])?;
    ensure!(output.code != Some(0), "{family:?}: all of it was loaded");
    wait_for("the end of the session", Duration::from_secs(5), || a_stranger(client).ok())
}

#[test]
fn a_spent_quota_is_not_undone_by_the_button() -> Result<()> {
    const OF_THE_DAY: &str = "used up what it may send and receive in a day";
    let lab = lab()?;
    let mut portald = start(&lab, "quota = \"1MB\"")?;
    let clients = [(&lab.guest, Family::V4, GUEST_MAC), (&lab.other, Family::V6, OTHER_MAC)];
    for (client, family, _) in clients {
        spend(client, family)?;
        is_kept_out(client, family, OF_THE_DAY)?;
    }
    // Whoever comes after knows it too.
    portald.kill9()?;
    portald.restart(&lab)?;
    for (client, family, mac) in clients {
        is_kept_out(client, family, OF_THE_DAY)?;
        let shown = portalctl(&lab, &["clients", "show", mac])?;
        ensure!(shown.code == Some(1) && shown.stderr.contains("quota of the day"), "{}", shown.stderr);
    }
    let blocks = portalctl_json(&lab, &["blocks"])?;
    ensure!(blocks["blocks"].as_array().is_some_and(|all| all.len() == 2), "{blocks}");
    // An operator has the last word.
    done(&lab, &["allow", GUEST_MAC])?;
    a_guest(&lab.guest)?;
    done(&lab, &["unblock", OTHER_MAC])?;
    a_stranger(&lab.other)?;
    ensure!(press(&lab.other, Family::V6)?.status == 303, "an unblocked client may log in");
    a_guest(&lab.other)
}

#[test]
fn a_quota_of_each_session_bars_for_as_long_as_it_says() -> Result<()> {
    let lab = lab()?;
    let _portald = start(&lab, "quota = \"1MB\"\nquota_per = \"session\"\nbar_after_quota = \"20s\"")?;
    let clients = [(&lab.guest, Family::V4), (&lab.other, Family::V6)];
    for (client, family) in clients {
        spend(client, family)?;
        let answer = press(client, family)?;
        ensure!(answer.status == 403 && answer.body.contains("can connect again in"), "{family:?}: {}", answer.body);
        ensure!(answer.header("retry-after").is_some(), "{family:?}: {}", answer.head);
        a_stranger(client)?;
    }
    for (client, family) in clients {
        wait_for("the bar's end", Duration::from_secs(30), || {
            press(client, family).ok().filter(|answer| answer.status == 303)
        })?;
        a_guest(client)?;
    }
    Ok(())
}

#[test]
fn who_is_blocked_or_revoked_for_a_time_stays_out_over_a_death_of_the_daemon() -> Result<()> {
    let lab = lab()?;
    let mut portald = Portald::start(&lab, &Settings::default())?;
    let clients = [
        (&lab.guest, Family::V4, "operator has blocked this device."),
        (&lab.other, Family::V6, "operator has ended this device"),
    ];
    for (client, family, _) in clients {
        ensure!(press(client, family)?.status == 303, "{family:?}: the login fails");
        a_guest(client)?;
    }
    done(&lab, &["block", GUEST_MAC, "--reason", "a test"])?;
    done(&lab, &["revoke", OTHER_MAC, "--bar", "2h"])?;
    for (client, family, why) in clients {
        is_kept_out(client, family, why)?;
    }
    portald.kill9()?;
    portald.restart(&lab)?;
    for (client, family, why) in clients {
        is_kept_out(client, family, why)?;
    }
    for mac in [GUEST_MAC, OTHER_MAC] {
        done(&lab, &["unblock", mac])?;
    }
    for (client, family, _) in clients {
        ensure!(press(client, family)?.status == 303, "{family:?}: the login fails");
        a_guest(client)?;
    }
    Ok(())
}
