//! A full table of sessions gives way to whoever comes, and no guest that is there loses its place.

use std::{
    net::{IpAddr, SocketAddr},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use portal_lab::{
    Lab, Namespace, Portald, Settings,
    addresses::{GATEWAY_V4, GATEWAY_V6, PORTAL_PORT},
    clients::http::{self, Response},
    portald::{config_text, portalctl, portalctl_start},
    process::wait_for,
};

use crate::{
    expect::{a_guest, a_stranger, done},
    turn::lab,
};

/// After which a session is given up whose client was never seen, and a second.
const PROVISIONAL: Duration = Duration::from_secs(11);
/// Stations that there are not.
const INVENTED: [&str; 3] = ["02:00:5e:10:ff:01", "02:00:5e:10:ff:02", "02:00:5e:10:ff:03"];

/// Presses the login page's button, without looking at the page before.
fn press(client: &Namespace, gateway: IpAddr) -> Result<Response> {
    let page = SocketAddr::new(gateway, PORTAL_PORT);
    http::request(client, &["--data", "accept=yes", &format!("http://{page}/login")])
}

fn clients(lab: &Lab) -> [(&Namespace, IpAddr); 2] {
    [(&lab.guest, GATEWAY_V4.into()), (&lab.other, GATEWAY_V6.into())]
}

#[test]
fn invented_stations_keep_nobody_out_and_guests_stay_in() -> Result<()> {
    let lab = lab()?;
    let _portald = Portald::start(&lab, &Settings { clients: Some(2), ..Settings::default() })?;
    let told = portalctl_start(&lab, "monitor", &["monitor", "--json"])?;
    wait_for("the monitor", Duration::from_secs(20), || {
        done(&lab, &["allow", INVENTED[2]]).and_then(|()| done(&lab, &["revoke", INVENTED[2]])).ok()?;
        told.log().contains("revoked").then_some(())
    })?;
    for mac in &INVENTED[..2] {
        done(&lab, &["allow", mac, "--for", "1h"])?;
    }
    for (client, gateway) in clients(&lab) {
        let answer = press(client, gateway)?;
        ensure!(answer.status == 503 && answer.body.contains("network is full"), "at once: {}", answer.summary());
        a_stranger(client)?;
    }
    thread::sleep(PROVISIONAL);
    for ((client, gateway), gone) in clients(&lab).into_iter().zip(INVENTED) {
        let answer = press(client, gateway)?;
        ensure!(answer.status == 303, "{gone} was never seen: {}: {}", answer.summary(), answer.body);
        a_guest(client)?;
        wait_for("`evicted`", Duration::from_secs(10), || {
            told.log().lines().any(|line| line.contains("\"evicted\"") && line.contains(gone)).then_some(())
        })?;
    }
    thread::sleep(PROVISIONAL);
    let refused = portalctl(&lab, &["allow", INVENTED[2]])?;
    ensure!(refused.code != Some(0) && refused.stderr.contains("2 places"), "{}", refused.stderr);
    for (client, _) in clients(&lab) {
        a_guest(client)?;
    }
    Ok(())
}

#[test]
fn more_logins_than_the_rate_are_asked_to_try_again() -> Result<()> {
    let lab = lab()?;
    let config = config_text(&lab, &Settings::default());
    let _portald = Portald::start_with(&lab, &format!("{config}\n[limits]\nlogins = \"1/s burst 1\"\n"), &[])?;
    let (mut refused, mut admitted) = (0, 0);
    for _ in 0..20 {
        for (client, gateway) in clients(&lab) {
            let answer = press(client, gateway)?;
            match answer.status {
                303 => admitted += 1,
                503 => {
                    ensure!(answer.body.contains("try again in a moment"), "{}", answer.body);
                    ensure!(answer.header("retry-after").is_some(), "{}", answer.head);
                    a_stranger(client)?;
                    refused += 1;
                }
                _ => anyhow::bail!("{}", answer.summary()),
            }
        }
        if refused > 0 && admitted > 1 {
            break;
        }
        thread::sleep(Duration::from_millis(1_100));
    }
    ensure!(refused > 0, "nobody was refused of {admitted}");
    for (client, gateway) in clients(&lab) {
        wait_for("a login", Duration::from_secs(10), || press(client, gateway).ok().filter(|a| a.status == 303))?;
        a_guest(client)?;
    }
    Ok(())
}
