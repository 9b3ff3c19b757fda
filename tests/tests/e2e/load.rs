//! Under load every request gets its 511, whole and exact.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use portal_lab::{
    Lab, Portald, Settings,
    addresses::SITES,
    clients::{load, wrk::run_wrk},
};

use crate::expect::{REQUEST, the_511};

/// Requests by wrk over IPv4.
const BY_WRK_V4: u64 = 1_000_000;
/// Requests by wrk over IPv6.
const BY_WRK_V6: u64 = 200_000;
/// Requests by the client that compares raw bytes, over each IP version.
const BY_BYTES: u64 = 20_000;

#[test]
fn a_million_requests_get_a_million_exact_responses() -> Result<()> {
    let lab = Lab::new()?;
    let _portald = Portald::start(&lab, &Settings::default())?;
    for (site, url, requests) in
        [(SITES[0], "http://198.51.100.80/", BY_WRK_V4), (SITES[1], "http://[2001:db8:2::80]/", BY_WRK_V6)]
    {
        let expected = the_511(&lab, site)?;
        let report = run_wrk(&lab, url, &expected, requests, Duration::from_mins(4))?;
        println!(
            "wrk, {site}: {} exact responses in {:.1} s, {:.0} a second; latency in µs: median {}, 99th percentile {}, longest {}",
            report.exact,
            report.seconds,
            f64::from(u32::try_from(report.exact)?) / report.seconds,
            report.latency_us[0],
            report.latency_us[1],
            report.latency_us[2]
        );
        assert_eq!((report.wrong, report.errors), (0, [0; 4]), "{report:?}");
        assert!(report.exact >= requests, "{report:?}");
    }
    Ok(())
}

#[test]
fn raw_responses_are_the_same_bytes_and_then_the_end() -> Result<()> {
    let lab = Lab::new()?;
    let _portald = Portald::start(&lab, &Settings::default())?;
    for site in SITES {
        let expected = the_511(&lab, site)?;
        let tally = load::run(&lab.guest, SocketAddr::new(site, 80), REQUEST, &expected, BY_BYTES, 8)?;
        assert!(tally.wrong.is_empty(), "{site}: {} wrong, the first: {}", tally.wrong.len(), tally.wrong[0]);
        assert_eq!(tally.exact, BY_BYTES);
        println!("{site}: {} byte-exact responses", tally.exact);
    }
    Ok(())
}
