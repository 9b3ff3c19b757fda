//! What guests are sent: decided and metered on its way out of the guest interface, and its double that only says what would be done.

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
    word::opaque,
};

/// Leave the decision to what comes next (`TCX_NEXT`, Linux 6.6; the same number is TC_ACT_UNSPEC, which lets a frame go on).
const NEXT: i32 = -1;
/// Drop the frame (`TCX_DROP`, TC_ACT_SHOT).
const DROP: i32 = 2;

/// What is known of the frame beside its bytes.
#[inline(always)]
fn departure(buffer: &Buffer) -> Departure {
    Departure {
        vlan: buffer.vlan().tci & 0x0fff,
        load: buffer.load(),
        relayed: buffer.mark() == RELAYED_MARK,
        forwarded: buffer.ingress_ifindex() != 0,
    }
}

/// Guards the way out of the interface it is attached to.
#[expect(clippy::needless_pass_by_value, reason = "the entry point's signature is aya's")]
#[classifier]
fn meter(ctx: TcContext) -> i32 {
    let buffer = Buffer::new(&ctx);
    let ifindex = buffer.ifindex();
    // Fail closed: that cannot be.
    let Some(case) = new_case(Program::Meter) else { return DROP };
    let tables = Kernel::<true>::departing(ifindex, ctx.skb.skb);
    let verdict = outbound(&buffer, &tables, departure(&buffer), case);
    // The compiler knows that no reason needs masking where it is counted; the verifier does not.
    let reason = opaque(verdict.decision.reason() as u32) as usize;
    let (action, reason) = match verdict.decision {
        Outbound::Pass(_) | Outbound::Metered => (NEXT, reason),
        Outbound::Drop(_) => {
            count(verdict.row, reason);
            (if verdict.shadow { NEXT } else { DROP }, reason)
        }
        Outbound::Hold if record::hold(&buffer, ifindex, &verdict) => return DROP,
        Outbound::Hold => {
            count(verdict.row, Reason::AnswerHeld as usize);
            (DROP, Reason::AnswerHeld as usize)
        }
    };
    if verdict.capture {
        let dropped = matches!(verdict.decision, Outbound::Drop(_) | Outbound::Hold);
        record::capture_outbound(&buffer, ifindex, &verdict, reason, dropped);
    }
    action
}

/// Says what would be done with a frame: 1 for holding it, else the action as the meter gives it, and above its eight bits the reason. Never attached:
/// `portalctl explain` runs it.
#[expect(clippy::needless_pass_by_value, reason = "the entry point's signature is aya's")]
#[classifier]
fn explain_out(ctx: TcContext) -> i32 {
    const PASSES: u32 = 0;
    const IS_HELD: u32 = 1;
    let buffer = Buffer::new(&ctx);
    let Some(case) = new_case(Program::ExplainOut) else { return DROP };
    let tables = Kernel::<false>::departing(buffer.ifindex(), ctx.skb.skb);
    let verdict = outbound(&buffer, &tables, departure(&buffer), case);
    let action = match verdict.decision {
        Outbound::Pass(_) | Outbound::Metered => PASSES,
        Outbound::Hold => IS_HELD,
        Outbound::Drop(_) => DROP as u32,
    };
    (action | (verdict.decision.reason() as u32) << 8).cast_signed()
}
