//! SipHash-2-4 (Aumasson and Bernstein, 2012) over 64-bit words: the keyed hash behind the SYN cookies.
//!
//! It is the function Linux uses for its own SYN cookies. Working on words instead of a byte stream keeps the number of
//! instructions the kernel has to verify fixed and small.

/// A 128-bit secret.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Key(pub [u64; 2]);

// A secret is not for logs.
impl core::fmt::Debug for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Key(..)")
    }
}

struct State([u64; 4]);

impl State {
    #[inline(always)]
    const fn round(mut self) -> Self {
        let [v0, v1, v2, v3] = &mut self.0;
        *v0 = v0.wrapping_add(*v1);
        *v1 = v1.rotate_left(13) ^ *v0;
        *v0 = v0.rotate_left(32);
        *v2 = v2.wrapping_add(*v3);
        *v3 = v3.rotate_left(16) ^ *v2;
        *v0 = v0.wrapping_add(*v3);
        *v3 = v3.rotate_left(21) ^ *v0;
        *v2 = v2.wrapping_add(*v1);
        *v1 = v1.rotate_left(17) ^ *v2;
        *v2 = v2.rotate_left(32);
        self
    }

    #[inline(always)]
    const fn absorb(mut self, word: u64) -> Self {
        self.0[3] ^= word;
        let mut next = self.round().round();
        next.0[0] ^= word;
        next
    }
}

/// The hash of these words, as of the message that is their little-endian bytes.
#[inline(always)]
pub fn siphash<const N: usize>(key: Key, words: [u64; N]) -> u64 {
    let [k0, k1] = key.0;
    let mut state = State([
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ]);
    for word in words {
        state = state.absorb(word);
    }
    // The last word carries the message's length in its top byte.
    state = state.absorb(((N as u64 * 8) & 0xff) << 56);
    state.0[2] ^= 0xff;
    let State([v0, v1, v2, v3]) = state.round().round().round().round();
    v0 ^ v1 ^ v2 ^ v3
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the reference implementation's vectors: key 00..0f, message 00..(8n-1).
    #[test]
    fn agrees_with_the_reference_vectors() {
        let key = Key([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);
        let word = |i: u64| u64::from_le_bytes(core::array::from_fn(|b| (i * 8) as u8 + b as u8));
        assert_eq!(siphash(key, []), u64::from_le_bytes([0x31, 0x0e, 0x0e, 0xdd, 0x47, 0xdb, 0x6f, 0x72]));
        assert_eq!(siphash(key, [word(0)]), u64::from_le_bytes([0x62, 0x24, 0x93, 0x9a, 0x79, 0xf5, 0xf5, 0x93]));
        #[expect(deprecated, reason = "the standard library's SipHash-2-4 is an independent oracle")]
        let mut oracle = core::hash::SipHasher::new_with_keys(key.0[0], key.0[1]);
        for i in 0..6 {
            core::hash::Hasher::write(&mut oracle, &word(i).to_le_bytes());
        }
        assert_eq!(
            siphash(key, core::array::from_fn::<_, 6, _>(|i| word(i as u64))),
            core::hash::Hasher::finish(&oracle)
        );
    }
}
