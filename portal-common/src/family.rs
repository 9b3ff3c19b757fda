//! The two families of network headers.

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4, with a header of 20 bytes.
    V4,
    /// IPv6, with a header of 40 bytes.
    V6,
}

impl Family {
    /// The length of the header without options or extensions, bytes.
    #[inline(always)]
    pub const fn header_len(self) -> usize {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }
}
