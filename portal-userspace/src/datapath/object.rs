//! The gate's object file, as `build.rs` built it.

/// The gate, compiled for BPF.
pub(crate) static GATE: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portal-gate"));
