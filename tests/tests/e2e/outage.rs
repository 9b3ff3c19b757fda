//! `kill -9` of portald: strangers stay out, guests stay in, connections that it had not answered are answered by the next one.

use std::{
    fs,
    io::Write as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use portal_lab::{
    Portald, Settings,
    addresses::{OTHER_MAC, SITES},
    process::{Service, wait_for},
};

use crate::expect::{REQUEST, a_guest, a_stranger, connections, done, nothing_gets_through, read_to_end, the_511};
use crate::{
    turn::lab_alone,
    watch::{GUEST, OTHER, Watch, knock},
};

#[test]
fn a_kill_between_handshake_and_request_loses_nothing_and_lets_nothing_through() -> Result<()> {
    let lab = lab_alone()?;
    let begun = Instant::now();
    let mut portald = Portald::start(&lab, &Settings::default())?;
    let start = begun.elapsed();
    let expected = SITES.into_iter().map(|site| the_511(&lab, site)).collect::<Result<Vec<_>>>()?;
    done(&lab, &["allow", OTHER_MAC])?;
    let file = lab.directory().join("transfer");
    let arrived = || fs::metadata(&file).map_or(0, |meta| meta.len());
    let mut transfer = Service::start(
        "curl",
        lab.other
            .client("curl")
            .args(["-sS", "--max-time", "120", "--no-buffer", "http://www.example.com/drip", "-o"])
            .arg(&file),
        &lab.directory().join("transfer.log"),
    )?;
    let watch = Watch::start(&lab)?;

    // Two of each IP version: one sends its request while nobody is there, one when portald is back.
    wait_for("the transfer's start", Duration::from_secs(10), || (arrived() > 0).then_some(()))?;
    let mut during = connections(&lab.guest)?;
    let mut after = connections(&lab.guest)?;
    portald.kill9()?;
    let killed = Instant::now();
    let before = arrived();
    for (_, stream) in &mut during {
        stream.write_all(REQUEST)?;
    }
    thread::sleep(Duration::from_millis(1500));
    let grown = arrived() - before;
    let begun = Instant::now();
    portald.restart(&lab)?;
    let (restart, outage) = (begun.elapsed(), killed.elapsed());
    // Beside the first start, which the machine's speed is in: taking the gate over is no more work than making it.
    assert!(restart < 2 * start + Duration::from_secs(1), "the restart took {restart:?}, the start {start:?}");
    for (_, stream) in &mut after {
        stream.write_all(REQUEST)?;
    }
    for ((site, stream), expected) in during.iter_mut().chain(&mut after).zip(expected.iter().cycle()) {
        let bytes = read_to_end(stream).with_context(|| format!("{site}"))?;
        assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(expected), "{site}");
    }
    println!(
        "outage {outage:?}, answered {:?} after the kill; the guest's transfer grew by {grown} bytes",
        killed.elapsed()
    );
    assert!(grown >= 1 << 20, "the transfer stood still: {grown} bytes in 1.5 s");

    // Once more, and longer: what a stranger tries while nobody is there.
    portald.kill9()?;
    nothing_gets_through(&lab.guest)?;
    knock(&lab.guest)?;
    watch.sees_only_the_guest(GUEST, &lab.other, OTHER)?;
    a_guest(&lab.other)?;
    portald.restart(&lab)?;
    a_stranger(&lab.guest)?;
    assert!(transfer.ended()?.is_none(), "the transfer ended: {}", transfer.log());
    watch.sees_only_the_guest(GUEST, &lab.other, OTHER)
}
