//! What the kernel's verifier and the hot path cost.
//!
//! The verifier sees no configuration: it lies in maps, whose values it takes for unknown, so that the programs it has accepted are accepted with every
//! configuration. What is left to show is that each of them runs.

use aya::{
    EbpfLoader,
    programs::{ProgramError, TestRun as _, TestRunOptions, Xdp},
};
use portal_common::{
    Reason,
    budget::{Class, Limit},
    checksum::Sum,
    siphash::Key,
    tables::{ClientState, CookieKeys, GateConfig, HttpsPolicy, Rate, Strictness},
};
use portal_lab::verdicts::{
    frames::Cookies,
    rows,
    setting::{FAST, GATEWAY_MAC, GUEST, LEARN, SETTLED, SHADOW, STRICT, Setting, config_of},
};
use portal_userspace::datapath::object;

use crate::bench::{Bench, LOOPBACK};

/// The kernel's own limit is a million; these keep loading fast and leave room for older kernels, which prune less.
const MOST_OF_A_GATE: u32 = 100_000;

#[test]
fn the_verifier_walks_few_instructions() {
    let mut bench = Bench::without_responder(&Setting::standard(LOOPBACK));
    let gate = bench.gate();
    let infos = [
        ("gate", MOST_OF_A_GATE, gate.program().expect("it is there").info()),
        ("explain", MOST_OF_A_GATE, gate.explain().expect("it is there").info()),
        ("meter", MOST_OF_A_GATE, gate.meter().expect("it is there").info()),
        ("explain_out", MOST_OF_A_GATE, gate.explain_out().expect("it is there").info()),
    ];
    for (name, most, info) in infos {
        let info = info.expect("the kernel tells");
        let verified = info.verified_instruction_count().expect("Linux 5.16 and later count");
        println!("{name}: {verified} verified instructions (at most {most})");
        assert!(verified <= most, "{name}");
    }
}

/// Every combination of what a configuration can say. The frames are a sample of the verdict table.
#[test]
fn every_configuration_runs_and_does_what_the_host_decides() {
    let mut bench = Bench::new(&Setting::standard(LOOPBACK));
    // Learning displaces addresses by the clock, which the kernel and the host read one after the other: not of who has eight.
    let rows: Vec<_> = rows().into_iter().filter(|row| row.frame.source != SETTLED).step_by(11).collect();
    let configs = configs();
    println!("{} configurations, {} frames each", configs.len(), rows.len());
    for (number, config) in configs.iter().enumerate() {
        for zone in [LEARN, STRICT, SHADOW] {
            bench.configure(zone, *config);
        }
        // The frames in turn, so that each configuration has some.
        for row in rows.iter().skip(number % 3).step_by(3) {
            let run = bench.run(|cookies| row.frame.to_bytes(cookies));
            assert_eq!(run.agreement(), Ok(()), "{}, with {config:?}", row.sentence);
        }
    }
}

fn configs() -> Vec<GateConfig> {
    let mut configs = vec![GateConfig::UNFILLED];
    for https in [HttpsPolicy::Reset, HttpsPolicy::Alert, HttpsPolicy::Drop] {
        for strictness in [Strictness::Off, Strictness::Learn, Strictness::Strict] {
            for (garden, names) in [(false, false), (true, false), (true, true)] {
                for shadow in [false, true] {
                    for capturing in [false, true] {
                        for limit in [Limit::NONE, Limit::NOTHING] {
                            let config = GateConfig::new(GATEWAY_MAC)
                                .with_https(https)
                                .with_strictness(strictness)
                                .with_garden(garden, names)
                                .with_shadow(shadow)
                                .with_capturing(capturing);
                            configs.push(Class::ALL.iter().fold(config, |c, class| c.with_limit(*class, limit)));
                        }
                    }
                }
            }
        }
    }
    configs
}

/// Prints the cost of an authorised client's packet over that of an empty program; the performance issue sets the bar.
#[test]
fn the_hot_path_is_measured_against_an_empty_program() {
    const REPEAT: u32 = 2_000_000;
    const RUNS: usize = 5;
    let mut setting = Setting::standard(LOOPBACK);
    // A limit that is looked at, but that nobody reaches.
    let fast = Rate::bits_per_second(100_000_000_000);
    for client in setting.clients.iter_mut().filter(|client| client.key.mac() == FAST) {
        client.state = ClientState::default();
        client.session = client.session.with_rates(fast, fast).with_quota(u64::MAX - 1);
    }
    let mut bench = Bench::new(&setting);
    let off = config_of(LEARN).with_strictness(Strictness::Off);
    let mut lab = EbpfLoader::new().load(object::LAB).expect("the lab's program loads");
    let pass: &mut Xdp = lab.program_mut("pass").expect("it is there").try_into().expect("it is an XDP program");
    pass.load().expect("the verifier takes an empty program");

    let row = rows().into_iter().find(|row| row.reason == Reason::Authorized).expect("there is one");
    let of = |source: [u8; 6]| {
        let mut frame = row.frame.to_bytes(&bench_cookies());
        frame[6..12].copy_from_slice(&source);
        frame
    };
    let measure = |program: &mut Xdp, frame: &[u8]| {
        let run = || program.test_run(TestRunOptions { data_in: Some(frame), repeat: REPEAT, ..TestRunOptions::new() });
        let interrupted = |e: &ProgramError| matches!(e, ProgramError::SyscallError(e) if e.io_error.kind() == std::io::ErrorKind::Interrupted);
        // A signal ends a long run (Linux `bpf_test_timer_continue`): as one that another test's child sends.
        let result = (0..9).find_map(|_| match run() {
            Err(e) if interrupted(&e) => None,
            other => Some(other.expect("the kernel runs it")),
        });
        let result = result.expect("no signal comes nine times");
        assert_eq!(
            result.return_value,
            if frame[6..12] == NOBODY { 1 } else { 2 },
            "the packet passes, or is a stranger's"
        );
        result.duration.as_nanos()
    };
    let mut limited = of(FAST);
    // An address of its own, and the header's checksum with it.
    limited[29] = 54;
    fix_checksum(&mut limited);
    let guest = of(GUEST);
    let uncounted = off.with_accounting(false);
    let stranger = of(NOBODY);
    let drop_all = config_of(LEARN).with_strictness(Strictness::Off).with_https(HttpsPolicy::Drop);
    // TCP to another port than the portal's, which is looked at.
    let mut tcp = guest.clone();
    tcp[23] = 6;
    fix_checksum(&mut tcp);
    let mut costs: [Vec<u128>; 7] = Default::default();
    for _ in 0..RUNS {
        costs[0].push(measure(pass, &guest));
        costs[1].push(measure(bench.gate().program().expect("it is there"), &guest));
        costs[2].push(measure(bench.gate().program().expect("it is there"), &limited));
        costs[6].push(measure(bench.gate().program().expect("it is there"), &tcp));
        let before = config_of(LEARN);
        bench.configure(LEARN, off);
        costs[3].push(measure(bench.gate().program().expect("it is there"), &guest));
        bench.configure(LEARN, uncounted);
        costs[4].push(measure(bench.gate().program().expect("it is there"), &guest));
        bench.configure(LEARN, drop_all);
        costs[5].push(measure(bench.gate().program().expect("it is there"), &stranger));
        bench.configure(LEARN, before);
    }
    let medians = costs.map(|mut runs| {
        runs.sort_unstable();
        runs[RUNS / 2]
    });
    println!(
        "an authorised IPv4 packet: {} ns with its address bound; {} ns of TCP; {} ns with rate and quota too; {} ns without bindings, \
         {} ns without accounting too; a stranger's that is dropped: {} ns; an empty program: {} ns (medians of {RUNS} interleaved runs of {REPEAT} packets)",
        medians[1], medians[6], medians[2], medians[3], medians[4], medians[5], medians[0]
    );
}

/// Who has no session.
const NOBODY: [u8; 6] = [2, 0, 0, 0, 0xee, 0xee];

fn bench_cookies() -> Cookies {
    let keys = CookieKeys::new([Key([0; 2]); 4]);
    Cookies { keys, now_ns: 0 }
}

fn fix_checksum(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let checksum = Sum::new().bytes(&frame[14..34]).checksum();
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
}
