//! Portal's programs in the kernel: the shell around the decision in `portal-common`.
//!
//! They read frames and maps for the decision, and carry out what it says. What to do with which frame is decided there.
#![no_std]
#![no_main]
#![deny(unsafe_code)]
#![cfg_attr(
    target_arch = "bpf",
    expect(unstable_features, reason = "inline assembly for BPF is unstable"),
    feature(asm_experimental_arch)
)]

mod apart;
mod gate;
mod known;
mod maps;
mod meter;
mod packet;
mod recent;
mod record;
mod tables;
#[cfg(target_arch = "bpf")]
mod word;
/// The host's, where a linter looks at this crate.
#[cfg(not(target_arch = "bpf"))]
mod word {
    pub(crate) use core::{hint::black_box as opaque, sync::atomic::AtomicU64 as KernelWord};
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[expect(unsafe_code, reason = "the kernel reads the licence from a section of this name")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
