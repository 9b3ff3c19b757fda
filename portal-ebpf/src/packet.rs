//! The packet in kernel memory: the one place that reads and writes it.
#![expect(unsafe_code, reason = "the kernel hands out packet memory as two addresses")]

use aya_ebpf::{bindings::xdp_md, helpers::bpf_xdp_adjust_tail, programs::XdpContext};
use portal_common::frame::{Frame, MAX_OFFSET};

/// Bounds a forgotten offset: at least the longest Ethernet header, 22 bytes.
const FORGOTTEN_MASK: usize = 0x1f;

/// The frame between the two addresses of an XDP context.
pub(crate) struct Packet(*mut xdp_md);

impl Packet {
    #[inline(always)]
    pub(crate) fn new(ctx: &XdpContext) -> Self {
        Self(ctx.ctx)
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

    /// The same value, but unknown to the verifier, which then follows one path where it would follow one for every value.
    #[inline(always)]
    pub(crate) fn obscure(&self, value: usize) -> usize {
        let Some(address) = self.address::<1>(0) else {
            return value;
        };
        // SAFETY: the byte is within the frame. The two reads give the same byte, but the verifier takes each for unknown, and so
        // their difference.
        let zero = unsafe { address.read_volatile() ^ address.read_volatile() };
        value ^ usize::from(zero)
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
        self.obscure(at) & FORGOTTEN_MASK
    }
}
