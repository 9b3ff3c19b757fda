//! Loading a million sessions into the kernel by the daemon's own bulk path: from the bytes that a restart finds to what the gate looks up.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use aya::programs::Xdp;
use etherparse::PacketBuilder;
use portal_bench_ebpf::crowd::Crowd;
use portal_common::{
    Reason,
    tables::{Attachment, ClientKey, GateConfig, Zone},
};
use portal_userspace::{
    datapath::{gate::Gate, zones::ZonePolicy},
    observe::explain,
    session::{
        Clocks, SessionStore,
        image::{Image, SavedSession, UnixMs},
    },
};

use crate::{
    Effort, Findings,
    frames::GATEWAY_MAC,
    kernel::LOOPBACK,
    report::{Bar, Row},
};

/// How many sessions; fewer where it is but a check.
const SESSIONS: u32 = 1_000_000;
const CHECKED: u32 = 20_000;
const ZONE: &str = "guest";

/// Measures loading, and writing the image.
pub fn run(effort: &Effort) -> Result<Findings> {
    let repeats = effort.rounds(5, 2);
    let count = if effort.check { CHECKED } else { SESSIONS };
    let clocks = Clocks::now();
    let mut image = Image {
        zones: vec![(Zone::FIRST, ZONE.to_owned())],
        sessions: (0..count).map(|client| session(client, clocks.calendar)).collect(),
    };
    image.sessions.sort_unstable_by_key(|session| session.client);
    let start = Instant::now();
    let bytes = image.clone().encode();
    let encoding = start.elapsed();
    let (mut decoding, mut loading) = (Vec::new(), Vec::new());
    for _ in 0..repeats {
        // The maps that the gate itself reads, as loaded.
        let (mut gate, mut maps) = Gate::load_unpinned(count)?;
        let policy = ZonePolicy {
            zone: Zone::FIRST,
            attachment: Attachment::new(LOOPBACK, 0, 0),
            config: GateConfig::new(GATEWAY_MAC),
            gateway: Vec::new(),
            resolvers: Vec::new(),
            listeners: Vec::new(),
            ntp: Vec::new(),
        };
        maps.zones.fill(&policy)?;
        let store = SessionStore::over(maps.sessions, maps.owners)?;
        let start = Instant::now();
        let read = Image::decode(&bytes)?;
        decoding.push(start.elapsed());
        let loaded = store.load(&read, clocks, |name| (name == ZONE).then_some(Zone::FIRST))?;
        loading.push(start.elapsed());
        ensure!(loaded.sessions == count as usize, "loaded {loaded:?} of {count}");
        ensure!(read == image, "what was read is not what was written");
        // What was loaded is what the gate sees: each of these clients, and nobody else.
        for number in (0..count).step_by(997).chain([count - 1]) {
            let reason = seen(gate.explain()?, client_of(number))?;
            ensure!(reason == Reason::Authorized, "client {number} is loaded, and the gate says {}", reason.name());
        }
        let stranger = seen(gate.explain()?, client_of(count))?;
        ensure!(stranger != Reason::Authorized, "the gate lets a client pass that was not loaded");
    }
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let typical = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        ms(times[times.len() / 2])
    };
    let of = format!("{} sessions", crate::report::figure(f64::from(count)));
    let mut findings = Findings::default();
    findings.rows.push(
        Row::new(format!("loading {of} into the kernel, decoding included"), "ms", typical(&mut loading))
            .bar(&Bar::AtMost(2_000.0)),
    );
    findings.rows.push(Row::new(format!("decoding and checking {of}"), "ms", typical(&mut decoding)));
    findings.rows.push(Row::new(format!("writing {of} as bytes"), "ms", ms(encoding)));
    findings.rows.push(Row::new("a session as bytes", "B", bytes.len() as f64 / f64::from(count)));
    Ok(findings)
}

/// Why the gate does what it does with a client's frame.
fn seen(explain: &Xdp, client: ClientKey) -> Result<Reason> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(client.mac(), GATEWAY_MAC)
        .ipv4([192, 0, 2, 10], [198, 51, 100, 80], 64)
        .udp(5000, 9)
        .write(&mut frame, &[0; 18])?;
    let ran = explain::run(explain, &frame, LOOPBACK)?;
    Reason::try_from(ran.value >> 8).map_err(|_| anyhow!("no reason: {:#x}", ran.value))
}

/// A client: spread over the addresses, as clients are, by a bijection of 32 bits.
fn client_of(number: u32) -> ClientKey {
    ClientKey::new(Zone::FIRST, Crowd::mac(number.wrapping_mul(0x9e37_79b1)))
}

/// Sessions that differ, in what is long and what is short.
fn session(client: u32, now: UnixMs) -> SavedSession {
    let number = u64::from(client);
    SavedSession {
        client: client_of(client),
        started: UnixMs(now.0 - number),
        expires: (!number.is_multiple_of(16)).then_some(UnixMs(now.0 + 3_600_000 + number)),
        last_seen: (number % 2 == 0).then_some(now),
        quota_bytes: (number % 3 == 0).then_some(1 << 32),
        quota_used: number,
        idle_s: (number % 5 == 0).then_some(1800),
        rate_up: (number % 7 == 0).then_some(10_000_000),
        rate_down: (number % 7 == 0).then_some(50_000_000),
        up: (number, number * 100),
        down: (number * 2, number * 1000),
    }
}
