//! The load lab's programs in the kernel, as `build.rs` built them from `ebpf/`.

/// The object file.
pub static PROGRAMS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portal-bench-programs"));

/// The crowd of HTTP clients: a program `crowd`.
pub static CLIENTS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portal-bench-clients"));
