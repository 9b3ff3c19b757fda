//! Native and generic XDP do the same, over IPv4 and IPv6.

use anyhow::{Context as _, Result, ensure};
use portal_lab::{
    Portald, Settings,
    addresses::{GATEWAY_V4, GATEWAY_V6, PORTAL_PORT},
    clients::http,
};

use crate::expect::{a_guest, a_stranger};
use crate::turn::lab;

#[test]
fn native_mode_serves_the_511_and_the_login() -> Result<()> {
    the_whole_path("native")
}

#[test]
fn generic_mode_serves_the_511_and_the_login() -> Result<()> {
    the_whole_path("generic")
}

fn the_whole_path(xdp_mode: &'static str) -> Result<()> {
    let lab = lab()?;
    let _portald = Portald::start(&lab, &Settings { xdp_mode, ..Settings::default() })?;
    let shown = lab.gateway.ip("link show dev guest0")?;
    let flag = if xdp_mode == "native" { " xdp " } else { " xdpgeneric " };
    ensure!(shown.contains(flag), "not in {xdp_mode} mode: {shown}");
    for page in [format!("http://{GATEWAY_V4}:{PORTAL_PORT}/"), format!("http://[{GATEWAY_V6}]:{PORTAL_PORT}/")] {
        a_stranger(&lab.guest).context(xdp_mode)?;
        let success = http::log_in(&lab.guest, &page).with_context(|| page.clone())?;
        ensure!(success.status == 200, "{page}: {}", success.summary());
        // The MAC is the client: a login over one IP version opens both.
        a_guest(&lab.guest).with_context(|| page.clone())?;
        let logout = http::request(&lab.guest, &["-L", "--data", "", &format!("{page}logout")])?;
        ensure!(logout.status == 200, "{page}: {}", logout.summary());
    }
    a_stranger(&lab.guest)
}
