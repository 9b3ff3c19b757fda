//! Loading a million sessions into the kernel by the daemon's own bulk path: from the bytes that a restart finds to what the gate looks up.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use portal_common::tables::{ClientKey, Zone};
use portal_userspace::{
    datapath::gate::Gate,
    session::{
        Clocks, SessionStore,
        image::{Image, SavedSession, UnixMs},
    },
};

use crate::{
    Effort, Findings,
    report::{Bar, Row},
};

/// How many sessions.
const SESSIONS: u32 = 1_000_000;
const ZONE: &str = "guest";

/// Measures loading, and writing the image.
pub fn run(effort: &Effort) -> Result<Findings> {
    let repeats = if effort.quick { 2 } else { 5 };
    let clocks = Clocks::now();
    let mut image = Image {
        zones: vec![(Zone::FIRST, ZONE.to_owned())],
        sessions: (0..SESSIONS).map(|client| session(client, clocks.calendar)).collect(),
    };
    image.sessions.sort_unstable_by_key(|session| session.client);
    let start = Instant::now();
    let bytes = image.clone().encode();
    let encoding = start.elapsed();
    let (mut decoding, mut loading) = (Vec::new(), Vec::new());
    for _ in 0..repeats {
        // The maps that the gate itself reads, as loaded.
        let (_gate, maps) = Gate::load_unpinned(SESSIONS)?;
        let store = SessionStore::over(maps.sessions, maps.clients, maps.owners)?;
        let start = Instant::now();
        let read = Image::decode(&bytes)?;
        decoding.push(start.elapsed());
        let loaded = store.load(&read, clocks, |name| (name == ZONE).then_some(Zone::FIRST))?;
        loading.push(start.elapsed());
        ensure!(loaded.sessions == SESSIONS as usize, "loaded {loaded:?} of {SESSIONS}");
        ensure!(read == image, "what was read is not what was written");
    }
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let typical = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        ms(times[times.len() / 2])
    };
    let of = format!("{} sessions", crate::report::figure(f64::from(SESSIONS)));
    let mut findings = Findings::default();
    findings.rows.push(
        Row::new(format!("loading {of} into the kernel, decoding included"), "ms", typical(&mut loading))
            .bar(&Bar::AtMost(2_000.0)),
    );
    findings.rows.push(Row::new(format!("decoding and checking {of}"), "ms", typical(&mut decoding)));
    findings.rows.push(Row::new(format!("writing {of} as bytes"), "ms", ms(encoding)));
    findings.rows.push(Row::new("a session as bytes", "B", bytes.len() as f64 / f64::from(SESSIONS)));
    Ok(findings)
}

/// Sessions that differ, in what is long and what is short.
fn session(client: u32, now: UnixMs) -> SavedSession {
    let n = u64::from(client);
    // Spread over the addresses, as clients' are: a bijection of 32 bits.
    let [a, b, c, d] = client.wrapping_mul(0x9e37_79b1).to_be_bytes();
    SavedSession {
        client: ClientKey::new(Zone::FIRST, [2, 0, a, b, c, d]),
        started: UnixMs(now.0 - n),
        expires: (!n.is_multiple_of(16)).then_some(UnixMs(now.0 + 3_600_000 + n)),
        last_seen: (n % 2 == 0).then_some(now),
        quota_bytes: (n % 3 == 0).then_some(1 << 32),
        quota_used: n,
        idle_s: (n % 5 == 0).then_some(1800),
        rate_up: (n % 7 == 0).then_some(10_000_000),
        rate_down: (n % 7 == 0).then_some(50_000_000),
        up: (n, n * 100),
        down: (n * 2, n * 1000),
    }
}
