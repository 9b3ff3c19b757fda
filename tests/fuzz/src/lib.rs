//! What Portal takes from the guest network, fuzzed.
//!
//! Each target is a function from bytes to nothing that panics when something is wrong. libFuzzer calls it from a program of its own (see the
//! README for how to run it), and an ordinary test replays the seeds and 20,000 mutations of them.

pub mod client;
pub mod facts;
pub mod input;
pub mod reply;
pub mod request;
pub mod seeds;
pub mod verdict;
pub mod world;

/// A target: its name, what runs one input, and its seeds as text.
pub type Target = (&'static str, fn(&[u8]), &'static str);

/// All targets.
pub const TARGETS: [Target; 2] = [
    ("request", request::run, include_str!("../seeds/request.txt")),
    ("verdict", verdict::run, include_str!("../seeds/verdict.txt")),
];
