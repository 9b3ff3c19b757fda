//! The gate, without a network: the loaded program under BPF_PROG_TEST_RUN, beside the same decision on the host.

mod bench;
mod differential;
mod frames;
mod verdicts;
mod verifier;
