//! Packets in kernel memory: the one place that reads and writes them.
#![expect(unsafe_code, reason = "the kernel hands out packet memory as two addresses")]

use aya_ebpf::{
    bindings::{__sk_buff, xdp_md},
    helpers::{bpf_skb_load_bytes, bpf_skb_pull_data, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    programs::{TcContext, XdpContext},
};
use portal_common::{
    frame::{Frame, MAX_OFFSET},
    meter::Load,
};

use crate::{record, word::opaque};

/// Bounds a forgotten offset: at least the longest Ethernet header, 22 bytes.
const FORGOTTEN_MASK: usize = 0x1f;

/// A frame that has arrived: between the two addresses of an XDP context.
pub(crate) struct Packet(*mut xdp_md);

impl Packet {
    #[inline(always)]
    pub(crate) fn new(ctx: &XdpContext) -> Self {
        Self(ctx.ctx)
    }

    /// The frame of this context.
    #[inline(always)]
    pub(crate) const fn over(ctx: *mut xdp_md) -> Self {
        Self(ctx)
    }

    /// The index of the interface it has arrived at.
    #[inline(always)]
    pub(crate) fn ingress_ifindex(&self) -> u32 {
        // SAFETY: the context is the one the kernel called us with, and lives as long as the call.
        unsafe { (*self.0).ingress_ifindex }
    }

    /// The frame's first byte, and the byte after its last.
    ///
    /// They are loaded for every access. Kept, they would carry what the verifier has proved of them so far, which differs from path to
    /// path, so that it could merge none; and they would take the BPF stack. A load is one instruction.
    #[inline(always)]
    fn bounds(&self) -> (*mut u8, *mut u8) {
        // SAFETY: the context is the one the kernel called us with, and lives as long as the call.
        let (data, data_end) =
            unsafe { ((&raw const (*self.0).data).read_volatile(), (&raw const (*self.0).data_end).read_volatile()) };
        // The kernel widens both fields to addresses when it loads the program.
        (data as usize as *mut u8, data_end as usize as *mut u8)
    }

    /// The address of `N` bytes at an offset, if they are within the frame. The check is written as the verifier wants it: against the
    /// end of the frame, on the very pointer that is then used.
    #[inline(always)]
    fn address<const N: usize>(&self, at: usize) -> Option<*mut u8> {
        if at > MAX_OFFSET {
            return None;
        }
        let (start, end) = self.bounds();
        let address = start.wrapping_add(at);
        if address.wrapping_add(N) > end { None } else { Some(address) }
    }

    /// Gives the frame this length, if it is in one piece; whether the kernel did. If not, the frame is as it was: a veth has no room behind small frames
    /// that came from the stack.
    #[inline(always)]
    pub(crate) fn resize(&mut self, len: usize) -> bool {
        self.len() == self.head_len() && self.truncate(len)
    }

    /// Cuts the frame's tail off; whether the kernel did.
    #[inline(always)]
    pub(crate) fn truncate(&mut self, len: usize) -> bool {
        #[expect(clippy::cast_possible_wrap, reason = "a frame's length is far below 2^31")]
        let removed = len as i32 - self.len() as i32;
        // SAFETY: the context is the one the kernel called us with; no address within the frame outlives an access.
        removed == 0 || unsafe { bpf_xdp_adjust_tail(self.0, removed) == 0 }
    }
}

impl Frame for Packet {
    #[inline(always)]
    fn len(&self) -> usize {
        // SAFETY: as for the context's fields.
        unsafe { bpf_xdp_get_buff_len(self.0) as usize }
    }

    #[inline(always)]
    fn head_len(&self) -> usize {
        let (start, end) = self.bounds();
        end as usize - start as usize
    }

    #[inline(always)]
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let address = self.address::<N>(at)?;
        // SAFETY: the N bytes are within the frame (checked above, and again by the verifier), and bytes need no alignment.
        Some(unsafe { *address.cast_const().cast::<[u8; N]>() })
    }

    #[inline(always)]
    fn write<const N: usize>(&mut self, at: usize, bytes: &[u8; N]) -> Option<()> {
        let address = self.address::<N>(at)?;
        // SAFETY: as in `read`; nothing else holds a reference into the frame.
        unsafe { *address.cast::<[u8; N]>() = *bytes };
        Some(())
    }

    #[inline(always)]
    fn forget(&self, at: usize) -> usize {
        self.forget_within::<FORGOTTEN_MASK>(at)
    }

    #[inline(always)]
    fn forget_within<const MASK: usize>(&self, at: usize) -> usize {
        let Some(address) = self.address::<1>(0) else { return at & MASK };
        // SAFETY: the byte is within the frame. The two reads give the same byte, but the verifier takes each for unknown, and so
        // their difference.
        let zero = unsafe { address.read_volatile() ^ address.read_volatile() };
        // The compiler may know that the mask takes nothing away. The verifier, which has just forgotten it, is to see it all the same.
        opaque((at ^ usize::from(zero)) as u32) as usize & MASK
    }
}

impl record::Copy for Packet {
    #[inline(always)]
    fn whole_len(&self) -> u32 {
        self.len() as u32
    }

    #[inline(always)]
    fn copy_to(&self, to: *mut u8, len: u32) -> bool {
        // SAFETY: the caller has room for so many bytes; the kernel copies no more.
        unsafe { bpf_xdp_load_bytes(self.0, 0, to.cast(), len) == 0 }
    }
}

/// A frame that departs: a socket buffer. Only the headers are read of it.
pub(crate) struct Buffer(*mut __sk_buff);

/// A VLAN tag beside a frame.
#[derive(Clone, Copy)]
pub(crate) struct Tag {
    /// Its EtherType; 0 where there is no tag.
    pub(crate) protocol: u16,
    /// Its control information.
    pub(crate) tci: u16,
}

impl Tag {
    pub(crate) const NONE: Self = Self { protocol: 0, tci: 0 };
}

/// Headers as far as they are looked at of everybody's: Ethernet with two tags, IPv6, the ports.
const HEADERS_LEN: u32 = 14 + 2 * 4 + 40 + 4;
/// As far as the rules read at most that are for stations without a session.
const STRANGERS_LEN: u32 = MAX_OFFSET as u32 + 1;

impl Buffer {
    #[inline(always)]
    pub(crate) fn new(ctx: &TcContext) -> Self {
        let buffer = Self(ctx.skb.skb);
        if buffer.head_len() < HEADERS_LEN as usize {
            // It fails where the frame is shorter; then what there is can be read already.
            // SAFETY: the context is the one the kernel called us with; no address within the frame outlives an access.
            unsafe { bpf_skb_pull_data(buffer.0, HEADERS_LEN) };
        }
        buffer
    }

    /// The frame of this context, as it is.
    #[inline(always)]
    pub(crate) const fn read(skb: *mut __sk_buff) -> Self {
        Self(skb)
    }

    /// The frame of this context, as far as the rules for stations without a session read it.
    #[inline(always)]
    pub(crate) fn over(skb: *mut __sk_buff) -> Self {
        let buffer = Self(skb);
        let len = buffer.len() as u32;
        let wanted = if len < STRANGERS_LEN { len } else { STRANGERS_LEN };
        if buffer.head_len() < wanted as usize {
            // Without memory for it the frame is as it was, and no rule is found for it.
            // SAFETY: the context is the one the kernel called us with; no address within the frame outlives an access.
            unsafe { bpf_skb_pull_data(skb, wanted) };
        }
        buffer
    }

    /// The index of the interface by which it has come in; 0 where it is the gateway's own (`skb_iif`).
    #[inline(always)]
    pub(crate) fn ingress_ifindex(&self) -> u32 {
        // SAFETY: as below.
        unsafe { (*self.0).ingress_ifindex }
    }

    /// The index of the interface it leaves by.
    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        // SAFETY: the context is the one the kernel called us with, and lives as long as the call. So below.
        unsafe { (*self.0).ifindex }
    }

    /// What a socket has marked it with.
    #[inline(always)]
    pub(crate) fn mark(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0).mark }
    }

    /// The VLAN tag that the kernel keeps beside the frame.
    #[inline(always)]
    pub(crate) fn vlan(&self) -> Tag {
        // SAFETY: as above.
        let (present, protocol, tci) = unsafe { ((*self.0).vlan_present, (*self.0).vlan_proto, (*self.0).vlan_tci) };
        if present == 0 { Tag::NONE } else { Tag { protocol: u16::from_be(protocol as u16), tci: tci as u16 } }
    }

    /// What it is on the wire, tags included: of a large buffer the NIC makes several frames, each with headers of its own
    /// (`qdisc_pkt_len_init`, before this hook).
    #[inline(always)]
    pub(crate) fn load(&self) -> Load {
        // SAFETY: as above.
        let (wire_len, segments, present) = unsafe { ((*self.0).wire_len, (*self.0).gso_segs, (*self.0).vlan_present) };
        let packets = u64::from(if segments == 0 { 1 } else { segments });
        Load { packets, bytes: u64::from(wire_len) + if present == 0 { 0 } else { 4 * packets } }
    }

    #[inline(always)]
    fn bounds(&self) -> (*mut u8, *mut u8) {
        // SAFETY: as above; loaded for every access for the reason that `Packet::bounds` gives.
        let (data, data_end) =
            unsafe { ((&raw const (*self.0).data).read_volatile(), (&raw const (*self.0).data_end).read_volatile()) };
        (data as usize as *mut u8, data_end as usize as *mut u8)
    }
}

impl Frame for Buffer {
    #[inline(always)]
    fn len(&self) -> usize {
        // SAFETY: as above.
        unsafe { (*self.0).len as usize }
    }

    #[inline(always)]
    fn head_len(&self) -> usize {
        let (start, end) = self.bounds();
        end as usize - start as usize
    }

    #[inline(always)]
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        if at > MAX_OFFSET {
            return None;
        }
        let (start, end) = self.bounds();
        let address = start.wrapping_add(at);
        if address.wrapping_add(N) > end {
            return None;
        }
        // SAFETY: the N bytes are within the frame (checked above, and again by the verifier), and bytes need no alignment.
        Some(unsafe { *address.cast_const().cast::<[u8; N]>() })
    }

    /// What the verifier does not know of already: it was in a register of unknown bits (see `Passage::from_word`).
    #[inline(always)]
    fn forget(&self, at: usize) -> usize {
        at & FORGOTTEN_MASK
    }

    /// Nothing is written to what departs.
    #[inline(always)]
    fn write<const N: usize>(&mut self, _at: usize, _bytes: &[u8; N]) -> Option<()> {
        None
    }
}

impl record::Copy for Buffer {
    #[inline(always)]
    fn whole_len(&self) -> u32 {
        self.len() as u32
    }

    #[inline(always)]
    fn copy_to(&self, to: *mut u8, len: u32) -> bool {
        // SAFETY: the caller has room for so many bytes; the kernel copies no more.
        unsafe { bpf_skb_load_bytes(self.0.cast(), 0, to.cast(), len) == 0 }
    }
}
