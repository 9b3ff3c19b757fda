//! Builds the load lab's programs for BPF and leaves the object file where `object` embeds it.

#[path = "../../portal-userspace/build/bpf.rs"]
mod bpf;

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-changed=../../portal-common/src");
    println!("cargo:rerun-if-changed=../../portal-common/Cargo.toml");
    bpf::build("portal-bench-ebpf", "ebpf")
}
