//! Under load every request gets its 511, whole and exact.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use portal_lab::{
    Portald,
    addresses::SITES,
    clients::{load, wrk::run_wrk},
};

use crate::expect::{REQUEST, the_511};
use crate::turn::lab_alone;

/// Requests by wrk over IPv4. It compares what it has parsed: the status, the fields and the body.
const BY_WRK_V4: u64 = 1_000_000;
/// Requests by wrk over IPv6.
const BY_WRK_V6: u64 = 200_000;
/// Requests by the client that compares raw bytes: the number over IPv4, enough to see a difference over IPv6.
const BY_BYTES: [u64; 2] = [1_000_000, 200_000];

#[test]
fn a_million_requests_get_a_million_exact_responses() -> Result<()> {
    let lab = lab_alone()?;
    let _portald = Portald::start_without_budgets(&lab)?;
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
    let lab = lab_alone()?;
    let _portald = Portald::start_without_budgets(&lab)?;
    for (site, count) in SITES.into_iter().zip(BY_BYTES) {
        let expected = the_511(&lab, site)?;
        let tally = load::run(&lab.guest, SocketAddr::new(site, 80), REQUEST, &expected, count, 8)?;
        assert!(tally.wrong.is_empty(), "{site}: {} wrong, the first: {}", tally.wrong.len(), tally.wrong[0]);
        assert_eq!(tally.exact, count);
        println!("{site}: {} byte-exact responses", tally.exact);
    }
    Ok(())
}
