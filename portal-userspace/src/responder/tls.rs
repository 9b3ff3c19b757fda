//! Tells when a client's first TLS record is complete.
//!
//! The answer is always the same alert. It waits for the whole record only because some clients read nothing before they have sent their
//! ClientHello, and one that spans segments is common: post-quantum key shares alone take 1,200 bytes.

use super::request::HEAD_MAX;

/// RFC 8446 section 5.1: type, legacy version, length.
const HEADER: usize = 5;
const HANDSHAKE: u8 = 22;
/// Every version since SSL 3.0 has it.
const MAJOR_VERSION: u8 = 3;
/// The longest record that is waited for, as for HTTP's heads; TLS has up to 16 KiB, but no ClientHello.
const FRAGMENT_MAX: usize = HEAD_MAX - HEADER;

/// Whether the client has said all that is worth waiting for. As in [`super::request`], the shortest run of first bytes that settles it decides: what is
/// no handshake is not waited for, nor is one that is too long.
pub fn is_complete(bytes: &[u8]) -> bool {
    let [kind, rest @ ..] = bytes else { return false };
    if *kind != HANDSHAKE {
        return true;
    }
    let [major, rest @ ..] = rest else { return false };
    if *major != MAJOR_VERSION {
        return true;
    }
    let [_, high, low, fragment @ ..] = rest else { return false };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    length > FRAGMENT_MAX || fragment.len() >= length
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(hex: &str) -> Vec<u8> {
        let digits: Vec<_> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
        digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
    }

    /// What OpenSSL 3.0, curl 7.88 and Chromium 156 sent to a listening socket. The last needs two segments.
    pub(crate) fn client_hellos() -> [(&'static str, Vec<u8>); 3] {
        [
            ("OpenSSL", decode(include_str!("hello/openssl.hex"))),
            ("curl", decode(include_str!("hello/curl.hex"))),
            ("Chromium", decode(include_str!("hello/chromium.hex"))),
        ]
    }

    #[test]
    fn records() {
        let record = |kind: u8, major: u8, claimed: u16, fragment: usize| {
            let mut bytes = vec![kind, major, 1];
            bytes.extend_from_slice(&claimed.to_be_bytes());
            bytes.resize(HEADER + fragment, 1);
            bytes
        };
        for (sentence, bytes, expected) in [
            ("nothing yet", vec![], false),
            ("only its type", vec![22], false),
            ("only its version", vec![22, 3], false),
            ("a cut header", vec![22, 3, 1, 0], false),
            ("only the header", record(22, 3, 9, 0), false),
            ("all but a byte", record(22, 3, 9, 8), false),
            ("a record", record(22, 3, 9, 9), true),
            ("and more", record(22, 3, 9, 10), true),
            ("an empty one, which is against section 5.1", record(22, 3, 0, 0), true),
            ("the longest", record(22, 3, FRAGMENT_MAX as u16, 0), false),
            ("one longer", record(22, 3, FRAGMENT_MAX as u16 + 1, 0), true),
            ("another type", vec![23], true),
            ("an alert", vec![21, 3, 1], true),
            ("another version", vec![22, 4], true),
            ("SSL 2.0", vec![0x80, 0x2e, 1, 0, 2], true),
            ("HTTP", b"GET / HTTP/1.1\r\n".to_vec(), true),
        ] {
            assert_eq!(is_complete(&bytes), expected, "{sentence}");
        }
        for (client, hello) in client_hellos() {
            assert!(is_complete(&hello) && !is_complete(&hello[..hello.len() - 1]), "{client}");
        }
        let longest = client_hellos().into_iter().map(|(_, hello)| hello.len()).max();
        assert!(longest > Some(1460), "one needs two segments");
    }

    proptest! {
        #[test]
        fn what_is_complete_stays_so(
            mut bytes in prop::collection::vec(any::<u8>(), 0..99), kind in 21u8..24, major in 2u8..5, length in 0u8..99,
            cut in any::<prop::sample::Index>(),
        ) {
            for (byte, value) in bytes.iter_mut().zip([kind, major, 1, 0, length]) {
                *byte = value;
            }
            let cut = cut.index(bytes.len() + 1);
            prop_assert!(!is_complete(&bytes[..cut]) || is_complete(&bytes));
        }
    }
}
