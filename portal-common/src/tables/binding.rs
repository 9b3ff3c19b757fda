//! The addresses that a session is bound to, a word each.

use super::Address;

/// How many addresses a session can be bound to: an IPv4 address, a link-local one, and what a phone uses of IPv6 at once.
pub const MAX_BINDINGS: usize = 8;

/// An address in one word: of IPv4 the address itself, of IPv6 a hash. 0 is none.
///
/// Two addresses with one word are one in the gate's eyes: who comes second is refused it. Two in one prefix never have the same; of two in different
/// prefixes it is true for one choice of the secrets in 2^32, whatever the two are (NH of UMAC, RFC 4418 section 5.2.1, is almost universal for differences).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct AddressWord(u64);

impl AddressWord {
    /// No address.
    pub const NONE: Self = Self(0);
    /// As in [`Address::v4`].
    const V4: u64 = 0xffff << 32;

    /// Of this IPv4 address.
    #[inline(always)]
    pub const fn v4(address: u32) -> Self {
        Self(Self::V4 | address as u64)
    }

    /// The word.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        self.0
    }

    /// The address of which [`AddressWord::to_word`] gave this.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }
}

/// How addresses become words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressHash {
    seed: u64,
}

impl AddressHash {
    /// With this secret.
    #[inline(always)]
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The word of an address; none of the unspecified one.
    #[inline(always)]
    pub const fn word(&self, address: Address) -> AddressWord {
        match address.words() {
            [0, 0] => AddressWord::NONE,
            [0, low] if low >> 32 == AddressWord::V4 >> 32 => AddressWord(low),
            words => self.v6(words),
        }
    }

    /// The word of an IPv6 address, which is given in words.
    #[inline(always)]
    pub const fn v6(&self, [high, low]: [u64; 2]) -> AddressWord {
        let left = ((high >> 32) as u32).wrapping_add((self.seed >> 32) as u32) as u64;
        let right = (high as u32).wrapping_add(self.seed as u32) as u64;
        let word = low.wrapping_add(left * right);
        // None is what a place without an address has.
        AddressWord(if word == 0 { 1 } else { word })
    }
}

/// The addresses that a session is bound to; none where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Bindings<W> {
    /// An [`AddressWord`] each, in no order.
    pub words: [W; MAX_BINDINGS],
}

impl Bindings<u64> {
    /// The addresses there are.
    pub fn iter(&self) -> impl Iterator<Item = AddressWord> + '_ {
        self.words.iter().filter(|word| **word != 0).map(|word| AddressWord(*word))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn an_address_has_a_word_of_its_own() {
        let hash = AddressHash::new(0x1234_5678_9abc_def1);
        assert_eq!(hash.word(Address::UNSPECIFIED), AddressWord::NONE);
        let v4 = Address::v4([192, 0, 2, 7]);
        assert_eq!(hash.word(v4), AddressWord::v4(0xc000_0207));
        let mut words = HashSet::from([hash.word(v4)]);
        // The last two differ in bits that a product by an odd number keeps.
        for prefix in [0xfe80_0000_0000_0000u64, 0x2001_0db8_0001_0000, 0x2001_0db8_0001_0001, 0xa001_0db8_0001_0001] {
            for low in (0..5_000).chain((0..64).map(|bit| 1 << bit)).collect::<HashSet<u64>>() {
                assert!(words.insert(hash.word(Address::from_words([prefix, low]))), "{prefix:x}:{low:x}");
            }
        }
        let address = Address::from_words([0x2001_0db8_0001_0000, 1]);
        assert_ne!(AddressHash::new(7).word(address), hash.word(address), "the secret counts");
        let [left, right] = [0x2001_0db8u32 + 0x1234_5678, 0x0001_0000u32 + 0x9abc_def1].map(u64::from);
        let none = Address::from_words([0x2001_0db8_0001_0000, (left * right).wrapping_neg()]);
        assert_ne!(hash.word(none), AddressWord::NONE);
    }
}
