//! The load lab's programs in the kernel.
#![no_std]
#![no_main]

mod inject;
#[expect(unreachable_pub, dead_code, reason = "user space has the same source, where all of it is public and used")]
mod plan;
mod rivals;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};

/// Passes every frame: what everything else is held against.
#[xdp(frags)]
fn empty(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Drops every frame: what a drop costs at least.
#[xdp(frags)]
fn discard(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
