//! Under which VLAN tags a guest network's frames arrive.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The VLAN ids of a network's frames: one tag, or two (QinQ), the outer first. Each from 1 to 4094 (IEEE 802.1Q-2018 table 9-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vlan {
    outer: u16,
    inner: u16,
}

const WANTED: &str = "write a VLAN id from 1 to 4094, as 10, or two for QinQ, the outer first, as \"100.10\"";

impl Vlan {
    /// The outer id.
    pub const fn outer(self) -> u16 {
        self.outer
    }

    /// The inner id; 0 where there is one tag.
    pub const fn inner(self) -> u16 {
        self.inner
    }

    /// The ids as they follow on the wire.
    pub fn ids(self) -> impl Iterator<Item = u16> {
        [self.outer, self.inner].into_iter().filter(|id| *id != 0)
    }
}

impl FromStr for Vlan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let id = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            text.parse()
                .ok()
                .filter(|id| digits && (1..=4094).contains(id))
                .ok_or_else(|| format!("`{text}` is no VLAN: {WANTED}"))
        };
        let (outer, inner) = text.split_once('.').map_or((text, None), |(outer, inner)| (outer, Some(inner)));
        Ok(Self { outer: id(outer)?, inner: inner.map(id).transpose()?.unwrap_or(0) })
    }
}

impl fmt::Display for Vlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { outer, inner: 0 } => outer.fmt(f),
            Self { outer, inner } => write!(f, "{outer}.{inner}"),
        }
    }
}

impl<'de> Deserialize<'de> for Vlan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrText;

        impl de::Visitor<'_> for NumberOrText {
            type Value = Vlan;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a VLAN, as 10 or \"100.10\"")
            }

            fn visit_i64<E: de::Error>(self, id: i64) -> Result<Vlan, E> {
                self.visit_str(&id.to_string())
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Vlan, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(NumberOrText)
    }
}

impl Serialize for Vlan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self { outer, inner: 0 } => serializer.serialize_u16(*outer),
            Self { .. } => serializer.collect_str(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tag_or_two() {
        #[derive(Deserialize, Serialize)]
        struct Of {
            vlan: Vlan,
        }
        for (text, expected) in [
            ("vlan = 10", Some("vlan = 10")),
            ("vlan = \"10\"", Some("vlan = 10")),
            ("vlan = \"100.10\"", Some("vlan = \"100.10\"")),
            ("vlan = 0", None),
            ("vlan = 4095", None),
            ("vlan = -1", None),
            ("vlan = \"+1\"", None),
            ("vlan = \"1.0\"", None),
            ("vlan = \"1.2.3\"", None),
            ("vlan = \"\"", None),
            ("vlan = 100.10", None),
            ("vlan = true", None),
        ] {
            match (toml::from_str::<Of>(text), expected) {
                (Ok(of), Some(expected)) => assert_eq!(toml::to_string(&of).unwrap().trim_end(), expected, "{text}"),
                (Err(e), None) => assert!(e.to_string().contains("100.10"), "{text}: {e}"),
                (got, _) => panic!("{text}: {:?}", got.map(|of| of.vlan)),
            }
        }
    }
}
