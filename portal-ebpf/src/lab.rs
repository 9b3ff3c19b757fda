//! What the lab needs in the kernel beside the gate.
#![no_std]
#![no_main]

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};

/// Passes every frame: the baseline of measurements, and what makes a veth accept the frames that its peer's program sends.
#[xdp(frags)]
fn pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
