//! Builds the gate for BPF and leaves the object file where `datapath::object` embeds it.

use std::path::Path;

use anyhow::Result;
use aya_build::{Package, Toolchain};

/// The rustup toolchain with a prebuilt `core` for BPF that `cargo xtask setup` links on Debian.
const LINKED_TOOLCHAIN: &str = "portal-bpf";
/// What that toolchain is a link to, where Debian has installed it.
const DEBIAN_BPF_CORE: &str = "/usr/lib/rustlib/bpfel-unknown-none";
/// Overrides the choice: the name of a rustup toolchain.
const OVERRIDE: &str = "PORTAL_BPF_TOOLCHAIN";

fn main() -> Result<()> {
    println!("cargo:rerun-if-env-changed={OVERRIDE}");
    println!("cargo:rerun-if-changed={DEBIAN_BPF_CORE}");
    let chosen = std::env::var(OVERRIDE).ok();
    let toolchain = match &chosen {
        Some(name) => Toolchain::Custom(name),
        None if Path::new(DEBIAN_BPF_CORE).is_dir() => Toolchain::Custom(LINKED_TOOLCHAIN),
        None => Toolchain::Nightly,
    };
    aya_build::build_ebpf(
        [Package { name: "portal-ebpf", root_dir: "../portal-ebpf", ..Default::default() }],
        toolchain,
    )?;
    println!("cargo:rerun-if-changed=../portal-common/src");
    Ok(())
}
