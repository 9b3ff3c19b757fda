//! Whom an operator keeps out.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    admission::{BarCause, Barred},
    image::UnixMs,
};
use crate::net::Mac;

/// How many clients an operator can keep out at once.
pub(super) const MAX_BARS: usize = 65_536;
/// The longest reason, characters.
const LONGEST_REASON: usize = 200;

/// That an operator keeps a client out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OperatorBar {
    pub(super) cause: BarCause,
    pub(super) since: UnixMs,
    /// None: until an operator lets it in again.
    pub(super) until: Option<UnixMs>,
    pub(super) reason: Option<Reason>,
}

/// Why an operator keeps a client out, in his words: one line of text, for operators only.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reason(String);

impl TryFrom<String> for Reason {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.chars().count() {
            1..=LONGEST_REASON if !text.contains(char::is_control) => Ok(Self(text)),
            1..=LONGEST_REASON => Err("a reason is one line of text: remove the control characters".into()),
            n => Err(format!("a reason has 1 to {LONGEST_REASON} characters, this has {n}")),
        }
    }
}

impl std::str::FromStr for Reason {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::try_from(text.to_owned())
    }
}

impl From<Reason> for String {
    fn from(reason: Reason) -> Self {
        reason.0
    }
}

impl OperatorBar {
    /// How it keeps the client out at this instant, if it does.
    pub(super) fn bars(&self, now: UnixMs) -> Option<Barred> {
        let left = match self.until {
            None => None,
            Some(until) if until > now => Some(Duration::from_millis(until.0 - now.0)),
            Some(_) => return None,
        };
        Some(Barred { cause: self.cause, left })
    }
}

/// Everybody whom an operator keeps out, by zone and MAC address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bars(BTreeMap<(String, Mac), OperatorBar>);

impl Bars {
    pub(super) fn get(&self, zone: &str, mac: Mac) -> Option<&OperatorBar> {
        // The map is small, and a key to look up by would have to own its name.
        self.0.get(&(zone.to_owned(), mac))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Mac, &OperatorBar)> {
        self.0.iter().map(|((zone, mac), bar)| (zone.as_str(), *mac, bar))
    }

    /// Adds one, in place of what was said of the client before; whether there was room.
    #[must_use]
    pub(super) fn insert(&mut self, zone: &str, mac: Mac, bar: OperatorBar, now: UnixMs) -> bool {
        self.0.retain(|_, bar| bar.bars(now).is_some());
        let key = (zone.to_owned(), mac);
        if self.0.len() >= MAX_BARS && !self.0.contains_key(&key) {
            return false;
        }
        self.0.insert(key, bar);
        true
    }

    /// Removes one.
    pub(super) fn remove(&mut self, zone: &str, mac: Mac) -> Option<OperatorBar> {
        self.0.remove(&(zone.to_owned(), mac))
    }
}

impl FromIterator<(String, Mac, OperatorBar)> for Bars {
    fn from_iter<I: IntoIterator<Item = (String, Mac, OperatorBar)>>(all: I) -> Self {
        Self(all.into_iter().map(|(zone, mac, bar)| ((zone, mac), bar)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_makes_room_and_nothing_else_does() {
        let mac = |n: u32| {
            let [_, a, b, c] = n.to_be_bytes();
            Mac::new([2, 0, 0, a, b, c]).unwrap()
        };
        let bar = |until| OperatorBar { cause: BarCause::Blocked, since: UnixMs(0), until, reason: None };
        let mut bars: Bars = (1..MAX_BARS as u32).map(|n| ("guest".to_owned(), mac(n), bar(None))).collect();
        assert!(bars.insert("guest", mac(0), bar(Some(UnixMs(10))), UnixMs(5)));
        assert!(!bars.insert("guest", mac(70_000), bar(None), UnixMs(5)));
        assert!(bars.insert("guest", mac(1), bar(Some(UnixMs(20))), UnixMs(5)), "who is in it already");
        assert!(bars.insert("guest", mac(70_000), bar(None), UnixMs(10)));
        assert_eq!(bars.get("guest", mac(0)), None);
        assert!(bars.get("staff", mac(1)).is_none() && bars.remove("guest", mac(1)).is_some());
    }

    #[test]
    fn a_reason_is_a_line() {
        for (text, good) in [("sold the password", true), ("", false), ("a\nb", false), ("\u{1b}[2J", false)] {
            assert_eq!(text.parse::<Reason>().is_ok(), good, "{text:?}");
        }
        assert!("x".repeat(201).parse::<Reason>().is_err());
    }
}
