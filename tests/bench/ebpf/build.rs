//! How bpf-linker makes machine code of the gate.

fn main() {
    // Headers lie at even, but seldom at natural addresses. x86-64 and arm64 read those at full width, and their verifiers
    // (CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS) accept it; byte by byte the gate would not fit the BPF stack.
    println!("cargo:rustc-link-arg=--cpu-features=+allows-misaligned-mem-access");
    println!("cargo:rerun-if-changed=build.rs");
}
