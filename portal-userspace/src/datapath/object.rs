//! The object files for BPF, as `build.rs` built them.

/// The gate.
pub(crate) static GATE: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portal-gate"));

/// What the lab needs in the kernel: a program `pass`. The daemon does not use it.
pub static LAB: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portal-lab"));
