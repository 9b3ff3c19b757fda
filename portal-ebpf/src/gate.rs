//! What guests send: the gate itself, and its double that only says what the gate would do.

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use aya_log_ebpf::warn;
use portal_common::{
    Reason,
    decide::{Action, Decision, Familiar, Place, decide, decide_stranger, familiar, locate},
    frame::{Frame as _, MAX_REDIRECTED_LEN},
};

use crate::{
    known::{Outcome, answer_known},
    maps::XSKS,
    packet::Packet,
    record,
    tables::{Kernel, Program, count, new_case},
    word::opaque,
};

/// Guards the interface it is attached to.
#[expect(clippy::needless_pass_by_value, reason = "the entry point's signature is aya's")]
#[xdp(frags)]
// Or the compiler makes a function of it that the entry point calls: 7 ns for each packet.
#[inline(always)]
fn gate(ctx: XdpContext) -> u32 {
    let mut packet = Packet::new(&ctx);
    let ifindex = packet.ingress_ifindex();
    let tables = Kernel::<true>::arriving(ifindex, ctx.ctx);
    let (place, stranger) = match familiar(&packet, &tables) {
        Familiar::Decided { row, action, reason } => {
            count(row, opaque(reason as u32) as usize);
            return number(action);
        }
        Familiar::Stranger(place) => (place, true),
        Familiar::Unusual => match locate(&packet, &tables) {
            Ok(place) => (place, false),
            Err((row, reason)) => return drop_for(row, reason),
        },
    };
    let row = place.row();
    let Some(case) = new_case(Program::Gate) else { return drop_for(row, Reason::ConfigMissing) };
    if stranger {
        decide_stranger(&packet, &tables, &place, case);
    } else {
        decide(&packet, &tables, &place, case);
    }
    let decision = &case.decision;
    // The compiler knows that no reason needs masking where it is counted; the verifier does not.
    let reason = opaque(decision.reason as u32) as usize;
    if place.config.is_capturing() {
        record::capture_inbound(&packet, ifindex, &place, number(decision.action), reason);
    }
    if place.config.is_shadow() {
        count(row, reason);
        return xdp_action::XDP_PASS;
    }
    if may_be_known(&place, decision) {
        match answer_known(true, ctx.ctx) {
            Outcome::Answered => {
                count(row, Reason::HttpAnswered as usize);
                return xdp_action::XDP_TX;
            }
            Outcome::Failed => return drop_for(row, Reason::AnswerFailed),
            Outcome::Unknown => {}
        }
    }
    match carry_out(&mut packet, decision) {
        Ok(xdp_action::XDP_REDIRECT) => match XSKS.redirect(place.config.xsk_base() + ctx.rx_queue_index(), 0) {
            Ok(action) => {
                count(row, reason);
                action
            }
            Err(_) => drop_for(row, Reason::ResponderAbsent),
        },
        Ok(action) => {
            count(row, reason);
            action
        }
        Err(()) => {
            // The kernel refused to shorten the frame, which no frame should bring about: worth a line in the daemon's log.
            warn!(&ctx, "the kernel refused to shorten a frame");
            drop_for(row, Reason::AnswerFailed)
        }
    }
}

/// Says what the gate would do with a frame: the XDP action, and above its eight bits the reason. The answer is written over the frame. Never
/// attached: `portalctl explain` runs it.
#[expect(clippy::needless_pass_by_value, reason = "the entry point's signature is aya's")]
#[xdp(frags)]
fn explain(ctx: XdpContext) -> u32 {
    let mut packet = Packet::new(&ctx);
    let tables = Kernel::<false>::arriving(packet.ingress_ifindex(), ctx.ctx);
    let place = match locate(&packet, &tables) {
        Ok(place) => place,
        Err((_, reason)) => return xdp_action::XDP_DROP | (reason as u32) << 8,
    };
    let Some(case) = new_case(Program::Explain) else { return xdp_action::XDP_ABORTED };
    decide(&packet, &tables, &place, case);
    let reason = case.decision.reason as u32;
    if may_be_known(&place, &case.decision) && !place.config.is_shadow() {
        match answer_known(false, ctx.ctx) {
            Outcome::Answered => return xdp_action::XDP_TX | (Reason::HttpAnswered as u32) << 8,
            Outcome::Failed => return xdp_action::XDP_DROP | (Reason::AnswerFailed as u32) << 8,
            Outcome::Unknown => {}
        }
    }
    match carry_out(&mut packet, &case.decision) {
        Ok(action) => action | reason << 8,
        Err(()) => xdp_action::XDP_DROP | (Reason::AnswerFailed as u32) << 8,
    }
}

/// Writes the answer, or makes the frame fit the responder's; the XDP action that is left to take.
#[inline(always)]
fn carry_out(packet: &mut Packet, decision: &Decision) -> Result<u32, ()> {
    let done = match decision.action {
        Action::Pass | Action::Drop => true,
        Action::Answer => decision.answer.write(packet).is_some_and(|len| packet.truncate(len.get())),
        // Only as much as an AF_XDP frame holds; TCP sends the rest again if the responder asks for it.
        Action::Redirect => packet.truncate(MAX_REDIRECTED_LEN.min(packet.len())),
    };
    if done { Ok(number(decision.action)) } else { Err(()) }
}

/// Whether it is a request that the gate may answer by itself. Where frames are captured, whoever reads the capture is to see what happens without.
#[inline(always)]
fn may_be_known(place: &Place<'_>, decision: &Decision) -> bool {
    decision.request.len != 0 && !place.config.is_capturing()
}

/// The action's number in XDP.
#[inline(always)]
const fn number(action: Action) -> u32 {
    match action {
        Action::Pass => xdp_action::XDP_PASS,
        Action::Answer => xdp_action::XDP_TX,
        Action::Redirect => xdp_action::XDP_REDIRECT,
        Action::Drop => xdp_action::XDP_DROP,
    }
}

#[inline(always)]
fn drop_for(row: u32, reason: Reason) -> u32 {
    count(row, reason as usize);
    xdp_action::XDP_DROP
}
