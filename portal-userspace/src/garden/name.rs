//! The names that a rule opens, and how a name in an answer is compared with them.

use std::{fmt, str::FromStr};

use idna::AsciiDenyList;

/// Longest name as text, without its final dot (RFC 1035 section 2.3.4: 255 bytes on the wire).
const LONGEST_NAME: usize = 253;
/// Longest label (RFC 1035 section 2.3.4).
const LONGEST_LABEL: usize = 63;

/// A name, or all names below one. Held in lower-case ASCII: an international name in its `xn--` form (RFC 5891).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamePattern {
    below: bool,
    name: String,
}

impl NamePattern {
    /// Whether it is a wildcard: it then matches names with one label or more in front of [`Self::name`], and not that name.
    pub const fn is_wildcard(&self) -> bool {
        self.below
    }

    /// The name without `*.`.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.below {
            f.write_str("*.")?;
        }
        f.write_str(&self.name)
    }
}

impl FromStr for NamePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (below, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        if matches!(text, "*" | "*." | "") || name.is_empty() {
            return Err(format!("`{text}` would open every name: list the names that guests need, as *.pay.example"));
        }
        if name.contains('*') {
            return Err(format!(
                "`{text}`: a `*` stands only for whole labels in front of a name, as in *.pay.example"
            ));
        }
        // UTS 46, as browsers do it, so that the name is the one that a guest's browser asks for.
        let name = idna::domain_to_ascii_cow(name.as_bytes(), AsciiDenyList::URL)
            .map_err(|_| format!("`{text}` is not a name: write it as pay.example, or in its `xn--` form"))?
            .into_owned();
        if name.len() > LONGEST_NAME {
            return Err(format!("`{text}` is too long: a name has at most {LONGEST_NAME} bytes"));
        }
        for label in name.split('.') {
            if label.is_empty() || label.len() > LONGEST_LABEL {
                return Err(format!("`{text}`: the part between two dots has 1 to {LONGEST_LABEL} bytes"));
            }
            if let Some(bad) = label.chars().find(|c| !c.is_ascii() || !is_host_byte(*c as u8)) {
                return Err(format!("`{text}`: {bad:?} can't be part of a name: write it as pay.example"));
            }
        }
        let Some((_, last)) = name.rsplit_once('.') else {
            return Err(format!(
                "`{text}` has one label: write the whole name, as pay.example; `.{name}` can't be opened"
            ));
        };
        if last.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!("`{text}` is neither an address nor a name: no name ends in a number"));
        }
        Ok(Self { below, name })
    }
}

/// Lower-case letters, digits, hyphen; and the underscore, which names in use have.
const fn is_host_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_')
}

/// A name from an answer, in the form that rules are compared with, without an allocation.
///
/// A byte that no rule can contain, a dot within a label included, becomes one that equals nothing: such a label matches no
/// name and still counts as a label below a wildcard.
#[derive(Clone, Copy)]
pub struct AskedName {
    bytes: [u8; 255],
    length: u8,
}

impl AskedName {
    const FOREIGN: u8 = b'?';

    /// The name with these labels, without the root's; None if it is longer than a name can be.
    pub fn new<'l>(labels: impl Iterator<Item = &'l [u8]>) -> Option<Self> {
        let mut bytes = [0; 255];
        let mut length = 0;
        for label in labels {
            if length > 0 {
                *bytes.get_mut(length)? = b'.';
                length += 1;
            }
            for (to, from) in bytes.get_mut(length..length + label.len())?.iter_mut().zip(label) {
                let lower = from.to_ascii_lowercase();
                *to = if is_host_byte(lower) { lower } else { Self::FOREIGN };
            }
            length += label.len();
        }
        Some(Self { bytes, length: u8::try_from(length).ok()? })
    }

    /// The name as text; `?` stands for each byte that no rule can contain.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).expect("only ASCII was written")
    }

    /// What is left after one label or more has been taken off the front, longest first.
    pub fn parents(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(Some(self.as_str()), |name| name.split_once('.').map(|(_, parent)| parent)).skip(1)
    }

    /// Whether a rule's name matches.
    pub fn matches(&self, pattern: &NamePattern) -> bool {
        if pattern.below { self.parents().any(|p| p == pattern.name) } else { self.as_str() == pattern.name }
    }
}

impl fmt::Debug for AskedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(labels: &[&[u8]]) -> AskedName {
        AskedName::new(labels.iter().copied()).unwrap()
    }

    #[test]
    fn what_matches_what() {
        let table: [(&str, &[&[u8]], &str, bool); 13] = [
            ("the name itself", &[b"pay", b"example"], "pay.example", true),
            ("in another case", &[b"PAY", b"eXample"], "pay.example", true),
            ("a name below an exact one", &[b"a", b"pay", b"example"], "pay.example", false),
            ("one label below", &[b"a", b"pay", b"example"], "*.pay.example", true),
            ("three labels below", &[b"a", b"b", b"c", b"pay", b"example"], "*.pay.example", true),
            ("a wildcard's own name", &[b"pay", b"example"], "*.pay.example", false),
            ("a longer label, not a label more", &[b"evilpay", b"example"], "*.pay.example", false),
            ("a longer label before an exact name", &[b"evilpay", b"example"], "pay.example", false),
            ("a dot within a label is no separator", &[b"pay.example"], "pay.example", false),
            ("nor before a name", &[b"a.pay", b"example"], "*.pay.example", false),
            ("but such a label is one below", &[b"a.b", b"pay", b"example"], "*.pay.example", true),
            ("a literal star is a label", &[b"*", b"pay", b"example"], "*.pay.example", true),
            ("the name further up", &[b"pay", b"example", b"evil"], "pay.example", false),
        ];
        for (sentence, labels, pattern, expected) in table {
            let pattern = pattern.parse().unwrap();
            assert_eq!(asked(labels).matches(&pattern), expected, "{sentence}");
        }
    }

    #[test]
    fn the_root_and_names_longer_than_allowed() {
        assert_eq!(asked(&[]).as_str(), "");
        assert_eq!(asked(&[]).parents().count(), 0);
        let label = [b'a'; 63];
        assert!(AskedName::new([&label[..]; 4].into_iter()).is_some());
        assert!(AskedName::new([&label[..]; 5].into_iter()).is_none());
    }
}
