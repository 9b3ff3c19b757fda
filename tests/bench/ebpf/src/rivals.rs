//! Programs that Portal is held against, and those that count where frames end.
#![expect(clippy::needless_pass_by_value, reason = "the entry points' signatures are aya's")]

use aya_ebpf::{
    bindings::{TC_ACT_OK, TC_ACT_SHOT, xdp_action},
    btf_maps::{HashMap, PerCpuArray},
    macros::{btf_map, classifier, xdp},
    programs::{TcContext, XdpContext},
};

use crate::plan::FIRST_STRANGER;

/// Until when clients are let through, by MAC address: nanoseconds of CLOCK_MONOTONIC. User space sets the size.
#[btf_map]
static CLIENTS_BY_MAC: HashMap<u64, u64, 1024> = HashMap::new();

/// Frames that were let through, that were not, and that reached the sink.
#[btf_map]
static COUNTS: PerCpuArray<u64, 3> = PerCpuArray::new();

const PASSED: u32 = 0;
const DROPPED: u32 = 1;
const SUNK: u32 = 2;

#[inline(always)]
fn count(what: u32) {
    if let Some(count) = COUNTS.get_ptr_mut(what) {
        // SAFETY: this CPU's own.
        unsafe { *count += 1 };
    }
}

/// Whether the sender of the frame between these two addresses has a session.
#[inline(always)]
fn is_client(start: usize, end: usize) -> bool {
    const MAC: u64 = 0xffff_ffff_ffff;
    if start + 14 > end {
        return false;
    }
    // SAFETY: the eight bytes are within the frame (checked above, and again by the verifier).
    let key = unsafe { ((start + 6) as *const u64).read_unaligned() } & MAC;
    // SAFETY: one aligned word.
    unsafe { CLIENTS_BY_MAC.get(key) }.is_some_and(|until| *until != 0)
}

/// What one writes first: a hash table by MAC address, and nothing else.
#[xdp(frags)]
fn hash(ctx: XdpContext) -> u32 {
    if is_client(ctx.data(), ctx.data_end()) { xdp_action::XDP_PASS } else { xdp_action::XDP_DROP }
}

/// Drops strangers, whom it knows by a bit of the address that the injector gives them, and asks nothing: no gate can do better.
#[xdp(frags)]
fn oracle(ctx: XdpContext) -> u32 {
    /// Of the Ethernet header: in the number that a source's address ends with, the bit of [`FIRST_STRANGER`].
    const AT: usize = 6 + 3;
    let byte = ctx.data() + AT;
    if byte + 1 > ctx.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: within the frame, as was just asked.
    let is_stranger = unsafe { *(byte as *const u8) } & (FIRST_STRANGER >> 16) as u8 != 0;
    if is_stranger { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
}

/// The same as [`hash`] at tc ingress, behind the allocation of the socket buffer, as spotfilter and uspot do it.
#[classifier]
fn filter(ctx: TcContext) -> i32 {
    if is_client(ctx.data(), ctx.data_end()) {
        count(PASSED);
        return TC_ACT_OK;
    }
    count(DROPPED);
    TC_ACT_SHOT
}

/// The end of a path: counts and drops what leaves, but does not count what the kernel itself sends (multicast listener reports).
#[classifier]
fn sink(ctx: TcContext) -> i32 {
    const TCP: u8 = 6;
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + 24 <= end {
        // SAFETY: both bytes are within the frame (checked above, and again by the verifier).
        let (v4, v6) = unsafe { (*((start + 23) as *const u8), *((start + 20) as *const u8)) };
        if v4 == TCP || v6 == TCP {
            count(SUNK);
        }
    }
    TC_ACT_SHOT
}

/// The end of a path, where frames arrive.
#[xdp(frags)]
fn swallow(_ctx: XdpContext) -> u32 {
    count(SUNK);
    xdp_action::XDP_DROP
}
