//! Each real client gets the 511, and after login the real page.

use std::{env, fs, os::unix::fs::symlink, time::Duration};

use anyhow::{Context as _, Result};
use portal_lab::{
    Portald, Settings,
    addresses::PORTAL_URL,
    clients::{
        browser,
        http::{self, Family},
        network_manager::NetworkManager,
    },
    lab::SITE_PAGE,
    portald::{BINARIES, binary},
    process::run,
};

use crate::expect::{SITE, a_guest, a_stranger};
use crate::turn::lab;

#[test]
fn curl_wget_and_requests_get_the_511_then_the_site() -> Result<()> {
    let lab = lab()?;
    let _portald = Portald::start(&lab, &Settings::default())?;
    a_stranger(&lab.guest)?;
    for family in Family::ALL {
        let wget = http::wget(&lab.guest, family, SITE)?;
        // wget(1): 8 is an error response of the server.
        assert_eq!(wget.code, Some(8), "{wget:?}");
        assert!(wget.stderr.contains("HTTP/1.1 511 "), "{wget:?}");
    }
    assert_eq!(http::python_requests(&lab.guest, SITE)?.0, 511);

    let page = http::log_in(&lab.guest, PORTAL_URL)?;
    assert_eq!(page.status, 200, "{}", page.body);
    // At once: the map is written before the page is sent.
    a_guest(&lab.guest)?;
    for family in Family::ALL {
        let wget = http::wget(&lab.guest, family, SITE)?;
        assert_eq!((wget.code, wget.stdout.as_str()), (Some(0), SITE_PAGE), "{}", wget.stderr);
    }
    assert_eq!(http::python_requests(&lab.guest, SITE)?, (200, SITE_PAGE.to_owned()));
    // One client's login is not another's.
    a_stranger(&lab.other)
}

#[test]
fn whatever_comes_first_in_path_the_packages_programs_are_started() -> Result<()> {
    /// All that the tests of clients start, and what those start.
    const PROGRAMS: &str = "NetworkManager basename cat chromedriver chromium curl dbus-daemon dirname dnsmasq ethtool ip mkdir mount nginx \
                            nmcli node nsenter openssl python3 qemu-system-x86_64 setpriv sh ss sysctl taskset tc tcpdump umount \
                            unshare wget which";
    let lab = lab()?;
    let wrong = lab.directory().join("wrong");
    fs::create_dir(&wrong)?;
    for program in PROGRAMS.split_whitespace() {
        symlink("/bin/false", wrong.join(program))?;
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([wrong].into_iter().chain(env::split_paths(&path)))?;
    let mut tests = portal_tools::command(env::current_exe()?);
    tests.args(["--exact", "clients::curl_wget_and_requests_get_the_511_then_the_site"]);
    tests.arg("the_lab::every_client_reaches_the_site");
    // The binaries are built: the child needs no cargo.
    let binaries = binary("portald")?.parent().context("a binary is in a directory")?.to_owned();
    let output = run(tests.env("PATH", &path).env(BINARIES, binaries), Duration::from_mins(3))?;
    assert!(output.code == Some(0) && output.stdout.contains("2 passed"), "{}{}", output.stdout, output.stderr);
    Ok(())
}

#[test]
fn chromium_follows_the_511_to_the_login_page_then_gets_the_site() -> Result<()> {
    let lab = lab()?;
    let _portald = Portald::start(&lab, &Settings::default())?;
    let document = browser::document(&lab, SITE)?;
    assert!(document.contains("<form") && document.contains("/login"), "not the login page: {document}");
    assert_eq!(http::log_in(&lab.guest, PORTAL_URL)?.status, 200);
    let document = browser::document(&lab, SITE)?;
    assert!(document.contains("This page is from the internet."), "not the site: {document}");
    Ok(())
}

#[test]
fn networkmanager_says_portal_then_full() -> Result<()> {
    let lab = lab()?;
    let _portald = Portald::start(&lab, &Settings::default())?;
    // It gets its address by DHCP, through the gate.
    let manager = NetworkManager::start(&lab)?;
    assert_eq!(manager.connectivity(&lab)?, "portal", "{}", manager.log());
    assert_eq!(http::log_in(&lab.guest, PORTAL_URL)?.status, 200);
    assert_eq!(manager.connectivity(&lab)?, "full", "{}", manager.log());
    Ok(())
}
