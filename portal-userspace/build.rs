//! Builds the gate for BPF and leaves the object file where `datapath::object` embeds it.

#[path = "build/bpf.rs"]
mod bpf;

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-changed=../portal-common/src");
    println!("cargo:rerun-if-changed=../portal-common/Cargo.toml");
    bpf::build("portal-ebpf", "../portal-ebpf")
}
