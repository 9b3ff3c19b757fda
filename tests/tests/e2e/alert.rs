//! With `https = "alert"` a browser that meets nothing but https finds its way to the portal.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use portal_lab::{
    Portald, Settings,
    addresses::{GATEWAY_V6, PORTAL_PORT, PORTAL_URL},
    clients::{http, webdriver::Browser},
    portald::config_text,
    process::wait_for,
};

use crate::{expect::a_guest, turn::lab};

const SECURE_SITE: &str = "https://www.example.com/";

#[test]
fn an_https_page_leads_chromium_to_the_portal_tab() -> Result<()> {
    let lab = lab()?;
    let config = config_text(&lab, &Settings::default()).replace("[portal]\n", "https = \"alert\"\n\n[portal]\n");
    let _portald = Portald::start_with(&lab, &config, &[])?;
    let browser = Browser::start(&lab)?;
    browser.go(SECURE_SITE)?;
    // It has asked for nothing over plain HTTP but what its own detection asks for.
    // Over whichever IP version its probe went.
    let pages = [PORTAL_URL.to_owned(), format!("http://[{GATEWAY_V6}]:{PORTAL_PORT}/")];
    let is_portal = |url: &String| pages.iter().any(|page| url.starts_with(page));
    let portal = || browser.tabs().ok().filter(|tabs| tabs.iter().any(is_portal));
    let tabs = wait_for("a tab with the portal", Duration::from_secs(20), portal)
        .with_context(|| format!("the tabs: {:?}", browser.tabs()))?;
    ensure!(tabs.len() == 2, "{tabs:?}");
    ensure!(tabs.iter().any(|url| url.starts_with(SECURE_SITE) || url.starts_with("chrome-error:")), "{tabs:?}");
    assert_eq!(http::log_in(&lab.guest, PORTAL_URL)?.status, 200);
    a_guest(&lab.guest)
}
