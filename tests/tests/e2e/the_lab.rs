//! The lab by itself, without portald: what a test sees behind the portal is there without it.

use anyhow::Result;
use portal_lab::{
    Lab,
    clients::{
        browser,
        http::{self, Family},
        network_manager::NetworkManager,
    },
    lab::SITE_PAGE,
};

#[test]
fn every_client_reaches_the_site() -> Result<()> {
    let lab = Lab::new()?;
    for namespace in [&lab.guest, &lab.other] {
        for family in Family::ALL {
            let response = http::get(namespace, family, "http://www.example.com/")?;
            assert_eq!((response.status, response.body.as_str()), (200, SITE_PAGE), "{family:?}");
            let wget = http::wget(namespace, family, "http://www.example.com/")?;
            assert_eq!((wget.code, wget.stdout.as_str()), (Some(0), SITE_PAGE), "{}", wget.stderr);
        }
    }
    assert_eq!(http::python_requests(&lab.guest, "http://www.example.com/")?, (200, SITE_PAGE.to_owned()));
    assert!(browser::document(&lab, "http://www.example.com/")?.contains("This page is from the internet."));
    assert_eq!(http::curl(&lab.guest, &["-k", "https://www.example.com/"])?.success()?, SITE_PAGE);
    let manager = NetworkManager::start(&lab)?;
    assert_eq!(manager.connectivity(&lab)?, "full", "{}", manager.log());
    Ok(())
}
