//! How the decision sees a frame.

/// An Ethernet frame, from the destination MAC to the last byte of the payload.
///
/// The kernel's implementation is the one place in Portal that reads packet memory without Rust's protection; the host's
/// is a byte slice.
pub trait Frame {
    /// The frame's length, bytes.
    fn len(&self) -> usize;

    /// Whether the frame has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The `N` bytes at an offset, if they are within the frame.
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]>;

    /// Overwrites the `N` bytes at an offset, if they are within the frame.
    #[must_use]
    fn write<const N: usize>(&mut self, at: usize, bytes: &[u8; N]) -> Option<()>;

    /// The same offset. The kernel's implementation makes the verifier forget which of the few possible ones it is, or it would verify all
    /// that follows once for each.
    fn forget(&self, at: usize) -> usize {
        at
    }
}

/// No header that the decision looks at starts beyond this offset. It keeps every offset within what the verifier accepts
/// as a packet offset (`MAX_PACKET_OFF`, 65,535).
pub const MAX_OFFSET: usize = 0xff;

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
