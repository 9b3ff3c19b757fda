//! What guests are sent: metered on its way out of the guest interface.

use core::ptr;

use aya_ebpf::{macros::classifier, programs::TcContext};
use portal_common::{
    Reason,
    decide::{Departure, Outbound, outbound},
    event::RELAYED_MARK,
};

use crate::{
    packet::Buffer,
    record,
    tables::{Kernel, Program, count, new_case},
};

/// Leave the decision to what comes next (`TCX_NEXT`, Linux 6.6; the same number is TC_ACT_UNSPEC, which lets a frame go on).
const NEXT: i32 = -1;
/// Drop the frame (`TCX_DROP`, TC_ACT_SHOT).
const DROP: i32 = 2;

/// Meters what leaves the interface it is attached to.
#[expect(clippy::needless_pass_by_value, reason = "the entry point's signature is aya's")]
#[classifier]
fn meter(ctx: TcContext) -> i32 {
    let buffer = Buffer::new(&ctx);
    let departure =
        Departure { vlan: buffer.vlan().tci & 0x0fff, load: buffer.load(), relayed: buffer.mark() == RELAYED_MARK };
    let ifindex = buffer.ifindex();
    // Nothing is metered without: that cannot be.
    let Some(case) = new_case(Program::Meter) else { return NEXT };
    let verdict = outbound(&buffer, &Kernel::<true> { ifindex, ctx: ptr::null_mut() }, departure, case);
    let (action, reason) = match verdict.decision {
        Outbound::Pass | Outbound::Metered => (NEXT, 0),
        Outbound::Drop(reason) if verdict.shadow => (NEXT, reason as usize),
        Outbound::Drop(reason) => (DROP, reason as usize),
        Outbound::Hold if record::hold(&buffer, ifindex, &verdict) => return DROP,
        Outbound::Hold => (DROP, Reason::AnswerHeld as usize),
    };
    if reason != 0 {
        count(verdict.row, reason);
    }
    if verdict.capture {
        record::capture_outbound(&buffer, ifindex, &verdict, reason);
    }
    action
}
