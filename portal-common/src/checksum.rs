//! The Internet checksum (RFC 1071).

/// A running ones'-complement sum, of words as they lie in memory: the sum does not depend on the order of bytes
/// (RFC 1071 section 2 (B)), so that only the result is swapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// An empty sum.
    #[inline(always)]
    pub const fn new() -> Self {
        Self(0)
    }

    /// A sum that [`Sum::to_raw`] has given.
    #[inline(always)]
    pub const fn from_raw(sum: u64) -> Self {
        Self(sum)
    }

    /// The sum as a number, to be kept in a map.
    pub const fn to_raw(self) -> u64 {
        self.0
    }

    /// Adds a 16-bit word.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, word: u16) -> Self {
        Self(self.0 + word.to_be() as u64)
    }

    /// Adds a header of known, even length.
    #[inline(always)]
    #[must_use]
    pub fn array<const N: usize>(mut self, bytes: &[u8; N]) -> Self {
        const { assert!(N.is_multiple_of(2)) };
        // 32 bits at a time: the sum of the halves is the same once the carries are folded.
        let mut i = 0;
        while i + 4 <= N {
            self.0 += u64::from(u32::from_ne_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]));
            i += 4;
        }
        if i < N {
            self.0 += u64::from(u16::from_ne_bytes([bytes[i], bytes[i + 1]]));
        }
        self
    }

    /// Adds bytes that start at an even offset; an odd last byte is padded with zero.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<2>();
        for word in words {
            self = self.array(word);
        }
        match rest {
            [last] => self.array(&[*last, 0]),
            _ => self,
        }
    }

    /// Adds what another sum holds.
    #[inline(always)]
    #[must_use]
    pub const fn sum(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The checksum field's value.
    #[inline(always)]
    pub const fn checksum(self) -> u16 {
        // A frame's worth of words never comes near 2^48: after this fold 33 bits are left at most, then 18, 17 and 16.
        let mut sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        u16::from_be(!(sum as u16))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn agrees_with_the_example_of_rfc_1071() {
        assert_eq!(Sum::new().array(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]).checksum(), !0xddf2);
    }

    proptest! {
        #[test]
        fn data_with_its_checksum_sums_to_zero(mut data in proptest::collection::vec(any::<u8>(), 2..2000)) {
            data[0] = 0;
            data[1] = 0;
            let checksum = Sum::new().bytes(&data).checksum();
            data[..2].copy_from_slice(&checksum.to_be_bytes());
            prop_assert_eq!(Sum::new().bytes(&data).checksum(), 0);
        }
    }
}
