//! What the kernel's verifier and the hot path cost.

use aya::{
    EbpfLoader,
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use portal_userspace::datapath::object;

use crate::{bench::Bench, frames::GATEWAY_MAC, frames::GUEST};

/// The kernel's own limit is a million; this one keeps loading fast and leaves room for older kernels, which prune less.
const MAX_VERIFIED_INSTRUCTIONS: u32 = 20_000;

#[test]
fn the_verifier_walks_few_instructions() {
    let mut bench = Bench::new();
    let info = bench.gate().program().expect("the program is there").info().expect("the kernel tells");
    let verified = info.verified_instruction_count().expect("Linux 5.16 and later count");
    println!("verified instructions: {verified} (at most {MAX_VERIFIED_INSTRUCTIONS})");
    assert!(verified <= MAX_VERIFIED_INSTRUCTIONS);
}

/// Prints the cost of an authorised client's packet over that of an empty program; the performance issue sets the bar.
#[test]
fn the_hot_path_is_measured_against_an_empty_program() {
    const REPEAT: u32 = 2_000_000;
    let mut bench = Bench::new();
    let mut lab = EbpfLoader::new().load(object::LAB).expect("the lab's program loads");
    let pass: &mut Xdp = lab.program_mut("pass").expect("it is there").try_into().expect("it is an XDP program");
    pass.load().expect("the verifier takes an empty program");

    let mut frame = [GATEWAY_MAC, GUEST].concat();
    frame.extend([0x08, 0x00]);
    frame.resize(64, 0);
    let measure = |program: &mut Xdp| {
        let mut options = TestRunOptions::new();
        options.data_in = Some(&frame);
        options.repeat = REPEAT;
        let result = program.test_run(options).expect("the kernel runs it");
        assert_eq!(result.return_value, 2, "the packet passes");
        result.duration.as_nanos()
    };
    let (mut empty, mut gate) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        empty.push(measure(pass));
        gate.push(measure(bench.gate().program().expect("it is there")));
    }
    empty.sort_unstable();
    gate.sort_unstable();
    println!(
        "authorised packet: {} ns, empty program: {} ns (medians of 5 interleaved runs of {REPEAT} packets)",
        gate[2], empty[2]
    );
}
