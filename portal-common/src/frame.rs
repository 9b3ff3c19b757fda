//! How the decision sees a frame.

/// An Ethernet frame, from the destination MAC to the last byte of the payload.
///
/// The kernel's implementation is the one place in Portal that reads packet memory without Rust's protection; the host's
/// is a byte slice.
pub trait Frame {
    /// The frame's length, bytes. In the kernel a call; see [`Frame::head_len`].
    fn len(&self) -> usize;

    /// The length of the frame's first buffer, bytes: the whole frame, unless it is a jumbo frame of several buffers (Linux 5.18).
    fn head_len(&self) -> usize {
        self.len()
    }

    /// Whether the frame has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The `N` bytes at an offset, if they are within the frame's first buffer.
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]>;

    /// The byte at an offset, if it is within the frame's first buffer; else a number that no byte has.
    // An option of a byte is packed into one register, of which a part is undefined where there is none: the verifier refuses that.
    fn byte(&self, at: usize) -> u16 {
        match self.read::<1>(at) {
            Some([byte]) => u16::from(byte),
            None => NO_BYTE,
        }
    }

    /// Overwrites the `N` bytes at an offset, if they are within the frame.
    #[must_use]
    fn write<const N: usize>(&mut self, at: usize, bytes: &[u8; N]) -> Option<()>;

    /// The same offset. The kernel's implementation makes the verifier forget which of the few possible ones it is, or it would verify all
    /// that follows once for each.
    fn forget(&self, at: usize) -> usize {
        at
    }

    /// As [`Frame::forget`], of an offset that is at most `MASK`, one less than a power of two.
    fn forget_within<const MASK: usize>(&self, at: usize) -> usize {
        at
    }
}

/// As [`Frame::forget`], of an offset within a list of options, at most [`MAX_OFFSET`]: nothing where it is beyond that. So that a walk over options is
/// verified once for each step, and not once for each way to come to it.
#[inline(always)]
pub(crate) fn forget_option<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<usize> {
    if at > MAX_OFFSET { None } else { Some(frame.forget_within::<MAX_OFFSET>(at)) }
}

/// What [`Frame::byte`] gives beyond the frame.
pub const NO_BYTE: u16 = 0x100;

/// No header or option that the decision looks at starts beyond this offset: a DHCP client's options end before it. It keeps every offset within what the verifier accepts
/// as a packet offset (`MAX_PACKET_OFF`, 65,535).
pub const MAX_OFFSET: usize = 0x3ff;

/// The longest frame that goes to the responder, bytes: a full Ethernet frame with two VLAN tags fits, and an AF_XDP frame of
/// 2,048 bytes holds it behind the kernel's headroom of 256 (`XDP_PACKET_HEADROOM`).
pub const MAX_REDIRECTED_LEN: usize = 1600;

impl Frame for [u8] {
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        if at > MAX_OFFSET {
            return None;
        }
        self.get(at..at + N)?.try_into().ok()
    }

    fn write<const N: usize>(&mut self, at: usize, bytes: &[u8; N]) -> Option<()> {
        if at > MAX_OFFSET {
            return None;
        }
        self.get_mut(at..at + N)?.copy_from_slice(bytes);
        Some(())
    }
}
