//! Frames for user space, through ring buffers.
#![expect(unsafe_code, reason = "a record is written in place, as a frame is too large for the BPF stack")]

use aya_ebpf::{bindings::xdp_action, btf_maps::RingBuf, helpers::generated::bpf_ktime_get_coarse_ns};
use portal_common::{
    Reason,
    decide::{OutboundVerdict, Place},
    event::{FrameRecord, RECORDED_BYTES},
    tables::ClientKey,
};

use crate::{
    maps::{ANSWERS, CAPTURED, CAPTURES},
    packet::{Buffer, Packet, Tag},
    tables::lost,
    word::opaque,
};

/// A frame whose bytes the kernel can copy.
pub(crate) trait Copy {
    /// How long it is, bytes.
    fn whole_len(&self) -> u32;
    /// Copies the frame's first bytes to an address with room for them; whether it could.
    fn copy_to(&self, to: *mut u8, len: u32) -> bool;
}

/// What stands before the bytes.
struct Header {
    ifindex: u32,
    reason: u32,
    zone: u16,
    vlan: Tag,
    action: u8,
    flags: u8,
}

/// Records a frame that a guest sent, if the guest is one whose frames are captured.
// Functions of their own: captures are rare.
#[inline(never)]
pub(crate) fn capture_inbound(packet: &Packet, ifindex: u32, place: &Place<'_>, action: u32, reason: usize) {
    if is_captured(place.client) {
        let header = Header {
            ifindex,
            reason: reason as u32,
            zone: place.client.zone().number(),
            vlan: Tag::NONE,
            action: action as u8,
            flags: shadow(place.config.is_shadow()),
        };
        if !write(&CAPTURES, packet, &header) {
            count_lost(|lost| &raw mut lost.captures);
        }
    }
}

/// Records a frame that goes to a guest, if the guest is one whose frames are captured.
#[inline(never)]
pub(crate) fn capture_outbound(buffer: &Buffer, ifindex: u32, verdict: &OutboundVerdict, reason: usize, dropped: bool) {
    if is_captured(verdict.client)
        && !write(&CAPTURES, buffer, &outbound_header(buffer, ifindex, verdict, reason as u32, dropped))
    {
        count_lost(|lost| &raw mut lost.captures);
    }
}

/// Gives a DNS answer to the daemon; whether there was room.
#[inline(never)]
pub(crate) fn hold(buffer: &Buffer, ifindex: u32, verdict: &OutboundVerdict) -> bool {
    // What does not fit whole cannot be sent on.
    let held = buffer.whole_len() as usize <= RECORDED_BYTES
        && write(&ANSWERS, buffer, &outbound_header(buffer, ifindex, verdict, Reason::AnswerHeld as u32, true));
    if !held {
        count_lost(|lost| &raw mut lost.answers);
    }
    held
}

#[inline(always)]
fn outbound_header(buffer: &Buffer, ifindex: u32, verdict: &OutboundVerdict, reason: u32, dropped: bool) -> Header {
    Header {
        ifindex,
        reason,
        zone: verdict.client.zone().number(),
        vlan: buffer.vlan(),
        action: if dropped { xdp_action::XDP_DROP as u8 } else { xdp_action::XDP_PASS as u8 },
        flags: FrameRecord::OUTBOUND | shadow(verdict.shadow),
    }
}

#[inline(always)]
const fn shadow(shadow: bool) -> u8 {
    if shadow { FrameRecord::SHADOW } else { 0 }
}

#[inline(always)]
fn is_captured(client: ClientKey) -> bool {
    // SAFETY: one aligned word, of which only the presence counts.
    unsafe { CAPTURED.get(client) }.is_some()
}

#[inline(always)]
fn count_lost(counter: impl Fn(&mut portal_common::event::Lost) -> *mut u64) {
    if let Some(lost) = lost() {
        // SAFETY: this CPU's own.
        unsafe { *counter(&mut *lost) += 1 };
    }
}

const _: () = assert!(RECORDED_BYTES.is_power_of_two());

/// Writes a record; whether there was room.
#[inline(always)]
fn write<C: Copy, const SIZE: usize>(ring: &RingBuf<FrameRecord, SIZE>, frame: &C, header: &Header) -> bool {
    let Some(mut entry) = ring.reserve(0) else { return false };
    let whole = frame.whole_len();
    let len = if whole as usize > RECORDED_BYTES { RECORDED_BYTES as u32 } else { whole };
    // No more than this says already; but Linux 6.1 forgets what a comparison has told it, while a mask it cannot miss.
    let len = (opaque(len).wrapping_sub(1) & (RECORDED_BYTES as u32 - 1)) + 1;
    let record = entry.as_mut_ptr();
    // SAFETY: the ring buffer has reserved room for a record, and nobody else sees it before it is submitted.
    let copied = unsafe {
        (&raw mut (*record).at_ns).write(bpf_ktime_get_coarse_ns());
        (&raw mut (*record).ifindex).write(header.ifindex);
        (&raw mut (*record).frame_len).write(whole);
        (&raw mut (*record).len).write(len);
        (&raw mut (*record).reason).write(header.reason);
        (&raw mut (*record).zone).write(header.zone);
        (&raw mut (*record).vlan_tci).write(header.vlan.tci);
        (&raw mut (*record).vlan_protocol).write(header.vlan.protocol);
        (&raw mut (*record).action).write(header.action);
        (&raw mut (*record).flags).write(header.flags);
        frame.copy_to((&raw mut (*record).bytes).cast(), len)
    };
    if copied {
        entry.submit(0);
    } else {
        entry.discard(0);
    }
    copied
}
