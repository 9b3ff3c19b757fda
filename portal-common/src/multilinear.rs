//! A keyed hash for words of a number that is known beforehand: sums of products (Dietzfelbinger 1996; Lemire and Kaser 2014). SipHash takes 28 steps a
//! word, this takes two multiplications.

/// Takes a word into the hash, by its halves. Of two inputs, whichever they are, the upper 33 bits of the sums' difference are as good as random to who does not
/// know the secrets; each word needs a pair of its own.
#[inline(always)]
pub const fn absorb(hash: u64, word: u64, seeds: [u64; 2]) -> u64 {
    hash.wrapping_add((word & 0xffff_ffff).wrapping_mul(seeds[0])).wrapping_add((word >> 32).wrapping_mul(seeds[1]))
}
