//! A client's MAC address, as people and programs write it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The MAC address of one station: neither a group's nor zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

/// Why this is no client's MAC address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// It isn't written as one.
    #[error(
        "`{0}` is not a MAC address; write six bytes in hexadecimal: 02:00:5e:10:00:01, 02-00-5e-10-00-01 or 0200.5e10.0001"
    )]
    Syntax(String),
    /// The lowest bit of the first byte is set (IEEE 802-2014 section 8.2.2).
    #[error("{0} is a group address: no client sends from it; give the address of one station")]
    Group(String),
    /// All bits are zero.
    #[error("{0} is the zero address: no client sends from it")]
    Zero(String),
}

impl Mac {
    /// The station with this address.
    pub fn new(bytes: [u8; 6]) -> Result<Self, MacError> {
        if bytes[0] & 1 == 1 {
            Err(MacError::Group(Self(bytes).to_string()))
        } else if bytes == [0; 6] {
            Err(MacError::Zero(Self(bytes).to_string()))
        } else {
            Ok(Self(bytes))
        }
    }

    /// The six bytes, in the order they are sent.
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }

    /// The client with this MAC address that the kernel's table holds: whatever is there may be shown.
    pub(crate) const fn from_table(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, rest @ ..] = self.0;
        write!(f, "{first:02x}")?;
        rest.iter().try_for_each(|byte| write!(f, ":{byte:02x}"))
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let syntax = || MacError::Syntax(text.chars().take(40).collect());
        let (separator, group) = match text.as_bytes().get(2) {
            Some(b':') => (':', 2),
            Some(b'-') => ('-', 2),
            _ => ('.', 4),
        };
        let mut bytes = [0; 6];
        let mut parts = text.split(separator);
        for chunk in bytes.chunks_mut(group / 2) {
            let part = parts.next().filter(|p| p.len() == group && p.bytes().all(|b| b.is_ascii_hexdigit()));
            let number = u16::from_str_radix(part.ok_or_else(syntax)?, 16).map_err(|_| syntax())?;
            let wide = number.to_be_bytes();
            chunk.copy_from_slice(&wide[wide.len() - chunk.len()..]);
        }
        if parts.next().is_some() {
            return Err(syntax());
        }
        Self::new(bytes)
    }
}

impl TryFrom<String> for Mac {
    type Error = MacError;

    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn three_ways_to_write_one_address() {
        for text in ["02:00:5e:10:AB:01", "02-00-5e-10-ab-01", "0200.5e10.ab01"] {
            assert_eq!(text.parse::<Mac>().map(|m| m.to_string()), Ok("02:00:5e:10:ab:01".into()), "{text}");
        }
    }

    #[test]
    fn what_is_no_client_is_refused_with_the_reason() {
        let cases = [
            ("", "not a MAC"),
            ("02:00:5e:10:00", "not a MAC"),
            ("02:00:5e:10:00:01:02", "not a MAC"),
            ("02:00-5e:10:00:01", "not a MAC"),
            ("2:0:5e:10:0:1", "not a MAC"),
            ("+2:00:5e:10:00:01", "not a MAC"),
            ("02005e100001", "not a MAC"),
            ("zz:00:5e:10:00:01", "not a MAC"),
            ("é2:00:5e:10:00:01", "not a MAC"),
            ("ff:ff:ff:ff:ff:ff", "group"),
            ("01:00:5e:00:00:01", "group"),
            ("00:00:00:00:00:00", "zero"),
        ];
        for (text, part) in cases {
            let message = text.parse::<Mac>().expect_err(text).to_string();
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_or_an_error(text in ".{0,40}") {
            let _: Result<Mac, MacError> = text.parse();
        }

        #[test]
        fn what_is_printed_is_read_back(bytes: [u8; 6]) {
            if let Ok(mac) = Mac::new(bytes) {
                prop_assert_eq!(mac.to_string().parse(), Ok(mac));
            }
        }
    }
}
