//! Builds the load lab's programs for BPF and leaves the object file where `object` embeds it.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya_build::{Package, Toolchain};

/// As in `portal-userspace/build.rs`, which says why.
const LINKED_TOOLCHAIN: &str = "portal-bpf";
const DEBIAN_BPF_CORE: &str = "/usr/lib/rustlib/bpfel-unknown-none";
const OVERRIDE: &str = "PORTAL_BPF_TOOLCHAIN";

fn main() -> Result<()> {
    println!("cargo:rerun-if-env-changed={OVERRIDE}");
    let debian = Path::new(DEBIAN_BPF_CORE).is_dir();
    if debian {
        println!("cargo:rerun-if-changed={DEBIAN_BPF_CORE}");
    }
    println!("cargo:rerun-if-changed=../../portal-common/src");
    let chosen = std::env::var(OVERRIDE).ok();
    let toolchain = match &chosen {
        Some(name) => Toolchain::Custom(name),
        None if debian => Toolchain::Custom(LINKED_TOOLCHAIN),
        None => Toolchain::Nightly,
    };
    aya_build::build_ebpf([Package { name: "portal-bench-ebpf", root_dir: "ebpf", ..Default::default() }], toolchain)
        .context("the load lab's BPF programs were not built; the compiler's messages are above")
}
