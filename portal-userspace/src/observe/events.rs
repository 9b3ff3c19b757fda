//! What happened, as an operator and programs read it.

use std::{fmt::Write as _, net::IpAddr, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::net::Mac;

/// Something that happened: a line of `GET /v1/events` and of `portalctl monitor --json`. The JSON form is stable: fields are added, never
/// renamed, and left out where they do not apply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct EventLine {
    /// What happened, by its stable name.
    pub event: String,
    /// When, by the wall clock (RFC 3339, UTC, milliseconds).
    pub at: String,
    /// The zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Whose session it is, or who sent the frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Mac>,
    /// The address that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The client that the address belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Mac>,
    /// The reason that the gate gave, by its stable name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The name of the walled garden that an address was learned for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How many there were: addresses learned, or events lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

impl EventLine {
    /// This event, now.
    pub fn now(event: &str) -> Self {
        Self::at(event, SystemTime::now())
    }

    /// This event at this time.
    pub fn at(event: &str, at: SystemTime) -> Self {
        // A clock set before 1970 has no place in the format.
        let at = at.max(SystemTime::UNIX_EPOCH);
        Self { event: event.to_owned(), at: humantime::format_rfc3339_millis(at).to_string(), ..Self::default() }
    }

    /// That so many events were lost on the way to whoever reads this.
    pub fn lost(count: u64) -> Self {
        Self { count: Some(count), ..Self::now(LOST) }
    }

    /// The line of JSON, with its end.
    pub fn to_json_line(&self) -> String {
        let mut text = serde_json::to_string(self).expect("strings and numbers have a JSON form");
        text.push('\n');
        text
    }

    /// The line as people read it.
    pub fn to_line(&self) -> String {
        let Self { event, at, zone, client, address, owner, reason, name, count } = self;
        let mut line = format!("{at}  {event:<17}");
        let mut word = |word: String| write!(line, "  {word}").expect("writing to a String does not fail");
        if let Some(zone) = zone {
            word(zone.clone());
        }
        if let Some(client) = client {
            word(client.to_string());
        }
        if let Some(address) = address {
            word(address.to_string());
        }
        if let Some(owner) = owner {
            word(format!("of {owner}"));
        }
        if let Some(name) = name {
            word(name.clone());
        }
        if let Some(reason) = reason {
            word(format!("({reason})"));
        }
        if let Some(count) = count {
            word(count.to_string());
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    }
}

/// The name of the event that tells how many others were lost.
pub const LOST: &str = "lost";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_line_has_what_applies_and_nothing_else() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        let client: Mac = "02:00:5e:10:00:01".parse().unwrap();
        let login = EventLine { zone: Some("guests".into()), client: Some(client), ..EventLine::at("login", at) };
        let spoof = EventLine {
            address: Some([192, 0, 2, 7].into()),
            owner: Some("02:00:5e:10:00:02".parse().unwrap()),
            reason: Some("spoofed_address".into()),
            ..EventLine { event: "spoofed_address".into(), ..login.clone() }
        };
        let table = [
            (
                &login,
                r#"{"event":"login","at":"1970-01-01T00:00:01.500Z","zone":"guests","client":"02:00:5e:10:00:01"}"#,
                "1970-01-01T00:00:01.500Z  login              guests  02:00:5e:10:00:01",
            ),
            (
                &spoof,
                r#"{"event":"spoofed_address","at":"1970-01-01T00:00:01.500Z","zone":"guests","client":"02:00:5e:10:00:01","address":"192.0.2.7","owner":"02:00:5e:10:00:02","reason":"spoofed_address"}"#,
                "1970-01-01T00:00:01.500Z  spoofed_address    guests  02:00:5e:10:00:01  192.0.2.7  of 02:00:5e:10:00:02  (spoofed_address)",
            ),
        ];
        for (line, json, text) in table {
            assert_eq!(line.to_json_line(), format!("{json}\n"));
            assert_eq!(line.to_line(), format!("{text}\n"));
            assert_eq!(serde_json::from_str::<EventLine>(json).unwrap(), *line);
        }
        let lost: serde_json::Value = serde_json::from_str(&EventLine::lost(7).to_json_line()).unwrap();
        assert_eq!((lost["event"].as_str(), lost["count"].as_u64()), (Some("lost"), Some(7)));
    }
}
