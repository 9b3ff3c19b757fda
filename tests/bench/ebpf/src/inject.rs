//! The injector: gives each frame another sender, and hands it on.
#![expect(clippy::needless_pass_by_value, reason = "the entry point's signature is aya's")]

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, DevMap, PerCpuArray, ProgramArray},
    macros::{btf_map, xdp},
    programs::XdpContext,
};

use crate::plan::{CALL, Done, PASS, Plan, SEQUENTIAL, ZIPF};

#[btf_map]
static PLAN: Array<Plan, 1> = Array::new();

#[btf_map]
static DONE: PerCpuArray<Done, 1> = PerCpuArray::new();

/// The program under test.
#[btf_map]
static TARGET: ProgramArray<1> = ProgramArray::new();

/// The interface that [`crate::plan::REDIRECT`] sends out of.
#[btf_map]
static OUT: DevMap<1> = DevMap::new();

/// Gives the frame another sender, and hands it on.
#[xdp(frags)]
fn inject(ctx: XdpContext) -> u32 {
    let (Some(plan), Some(done)) = (PLAN.get(0), DONE.get_ptr_mut(0)) else { return xdp_action::XDP_ABORTED };
    // SAFETY: this CPU's own, and nothing interrupts the program to run it again.
    let done = unsafe { &mut *done };
    let Some(withheld) = change(&ctx, plan, done) else {
        done.failed += 1;
        return xdp_action::XDP_ABORTED;
    };
    done.made += 1;
    if withheld {
        done.withheld += 1;
        return xdp_action::XDP_DROP;
    }
    match plan.then {
        CALL => {
            // SAFETY: it returns only if there is no such program.
            unsafe { TARGET.tail_call(&ctx, 0) };
            done.failed += 1;
            xdp_action::XDP_ABORTED
        }
        PASS => xdp_action::XDP_PASS,
        _ => OUT.redirect(0, 0).unwrap_or_else(|_| {
            done.failed += 1;
            xdp_action::XDP_ABORTED
        }),
    }
}

/// Whether the frame is to be withheld.
#[inline(always)]
fn change(ctx: &XdpContext, plan: &Plan, done: &mut Done) -> Option<bool> {
    /// Up to the source port behind an IPv6 header.
    const LEN: usize = 14 + 40 + 2;
    /// Frames come again, as the kernel left them: forwarded, with one hop less and other MAC addresses.
    const HOPS: u8 = 64;
    // xorshift64 (Marsaglia 2003): three shifts, where the kernel's own helper would cost a call.
    let mut random = done.random;
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    done.random = random;
    let other = ((random >> 16) & 0xffff) < u64::from(plan.share);
    done.others += u64::from(other);
    let population = if other { &plan.other } else { &plan.main };
    let clients = u64::from(population.clients);
    let high = random >> 32;
    let number = if plan.pattern == SEQUENTIAL {
        let next = done.next + 1;
        done.next = if next >= clients { 0 } else { next };
        if done.next < clients { done.next } else { 0 }
    } else if plan.pattern == ZIPF && !other {
        // The octave, each as likely as the next; then a rank within it; then whose rank it is: neighbours in rank must not be neighbours in memory.
        let octave = (high * u64::from(plan.octaves)) >> 32;
        let least = 1u64 << (octave & 31);
        let rank = least - 1 + (((random & 0xffff_ffff) * least) >> 32);
        if clients == 0 {
            return None;
        }
        (rank * 2_654_435_761) % clients
    } else {
        (high * clients) >> 32
    } as u32
        + population.first;

    let (start, end) = (ctx.data(), ctx.data_end());
    if start + LEN > end {
        return None;
    }
    let at = |offset: usize| (start + offset) as *mut u8;
    let port = (random >> 3) as u16 | 0x8000;
    if plan.family != 0 {
        // SAFETY: all of this is within the frame (checked above, and again by the verifier). So below.
        unsafe {
            at(0).cast::<[u8; 8]>().write_unaligned(plan.head);
            at(8).cast::<u32>().write_unaligned(number.to_be());
        }
    }
    match plan.family {
        4 => {
            // 10.0.0.0/8.
            let address = 0x0a00_0000 | number & 0x00ff_ffff;
            // RFC 1624: the sum without the address is known, and a sum does not depend on the byte order.
            let mut sum = plan.sum + u32::from((address >> 16) as u16) + u32::from(address as u16);
            sum = (sum & 0xffff) + (sum >> 16);
            sum = (sum & 0xffff) + (sum >> 16);
            // SAFETY: as above.
            unsafe {
                at(22).write(HOPS);
                at(24).cast::<u16>().write_unaligned((!(sum as u16)).to_be());
                at(26).cast::<u32>().write_unaligned(address.to_be());
                at(34).cast::<u16>().write_unaligned(port.to_be());
            }
        }
        6 => {
            // SAFETY: as above.
            unsafe {
                at(21).write(HOPS);
                at(34).cast::<u32>().write_unaligned(number.to_be());
                at(54).cast::<u16>().write_unaligned(port.to_be());
            }
        }
        _ => {}
    }
    Some(other && (random & 0xffff) < u64::from(plan.withheld))
}
