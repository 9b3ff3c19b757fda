//! Portal's XDP gate: the shell around the decision in `portal-common`.
//!
//! It reads the packet and the maps for the decision, and carries out what the decision says. What to do with which packet is decided there.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod maps;
mod packet;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use aya_log_ebpf::warn;
use portal_common::{
    Reason,
    decide::{Decision, decide},
    frame::{Frame as _, MAX_REDIRECTED_LEN},
};

use crate::{
    maps::{Kernel, count, redirect_to_responder},
    packet::Packet,
};

/// Guards the interface it is attached to.
#[expect(clippy::needless_pass_by_value, reason = "the entry point's signature is aya's")]
#[xdp]
fn gate(ctx: XdpContext) -> u32 {
    let mut packet = Packet::new(&ctx);
    let decision = decide(&packet, &Kernel);
    // The reason is but a number to count by: what it is must not multiply the paths to verify.
    let reason = packet.obscure(decision.reason() as usize);
    match decision {
        Decision::Pass(_) => {
            count(reason);
            xdp_action::XDP_PASS
        }
        Decision::Drop(_) => {
            count(reason);
            xdp_action::XDP_DROP
        }
        Decision::Answer(_, answer) => match answer.write(&mut packet) {
            Some(len) if packet.truncate(len.get()) => {
                count(reason);
                xdp_action::XDP_TX
            }
            Some(_) | None => answer_failed(&ctx),
        },
        Decision::Redirect(_) => {
            // Only as much as an AF_XDP frame holds; TCP sends the rest again if the responder asks for it.
            if packet.len() > MAX_REDIRECTED_LEN && !packet.truncate(MAX_REDIRECTED_LEN) {
                return answer_failed(&ctx);
            }
            match redirect_to_responder(ctx.rx_queue_index()) {
                Ok(action) => {
                    count(reason);
                    action
                }
                Err(()) => drop_for(Reason::ResponderAbsent),
            }
        }
    }
}

#[inline(always)]
fn drop_for(reason: Reason) -> u32 {
    count(reason as usize);
    xdp_action::XDP_DROP
}

/// The kernel refused to shorten the frame, which no frame should bring about: worth a line in the daemon's log.
// A function of its own, because two copies of the logging would cost over 2,000 verified instructions.
#[inline(never)]
fn answer_failed(ctx: &XdpContext) -> u32 {
    warn!(ctx, "the kernel refused to shorten a frame");
    drop_for(Reason::AnswerFailed)
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[expect(unsafe_code, reason = "the kernel reads the licence from a section of this name")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
