//! The gate, without a network: the loaded programs under BPF_PROG_TEST_RUN, beside the same decision on the host.

mod bench;
mod docs;
mod verdicts;
