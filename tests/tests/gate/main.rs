//! The gate, without a network: the loaded programs under BPF_PROG_TEST_RUN, beside the same decision on the host. And with one: over a wire.

mod bench;
mod connections;
mod differential;
mod docs;
mod known;
mod reply;
mod rest;
mod verdicts;
mod verifier;
mod wire;
