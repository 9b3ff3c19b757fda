//! Building programs for BPF: for the build scripts of whoever embeds them.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya_build::{Package, Toolchain};

/// The rustup toolchain with a prebuilt `core` for BPF that `cargo xtask setup` links on Debian.
const LINKED_TOOLCHAIN: &str = "portal-bpf";
/// What that toolchain is a link to, where Debian has installed it.
const DEBIAN_BPF_CORE: &str = "/usr/lib/rustlib/bpfel-unknown-none";
/// Overrides the choice: the name of a rustup toolchain.
const OVERRIDE: &str = "PORTAL_BPF_TOOLCHAIN";

/// Builds this package, and leaves its object files in `OUT_DIR`.
pub(crate) fn build(package: &str, directory: &str) -> Result<()> {
    println!("cargo:rerun-if-env-changed={OVERRIDE}");
    let debian = Path::new(DEBIAN_BPF_CORE).is_dir();
    if debian {
        // Only where it is: cargo takes a missing file for a changed one, and would build again every time.
        println!("cargo:rerun-if-changed={DEBIAN_BPF_CORE}");
    }
    let chosen = std::env::var(OVERRIDE).ok();
    let toolchain = match &chosen {
        Some(name) => Toolchain::Custom(name),
        None if debian => Toolchain::Custom(LINKED_TOOLCHAIN),
        None => Toolchain::Nightly,
    };
    aya_build::build_ebpf([Package { name: package, root_dir: directory, ..Default::default() }], toolchain)
        .with_context(|| {
            format!(
                "{package} was not built for BPF. The compiler's messages are above; if a toolchain, `core` or \
                 bpf-linker is missing, run `cargo xtask setup`"
            )
        })
}
