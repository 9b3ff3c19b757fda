//! What a quota is of, and how long a client is kept out.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use super::values::LONGEST_SESSION;

/// What a quota is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum QuotaPer {
    /// Of each session: the next one has it anew.
    Session,
    /// Of the 24 hours that begin with the client's first login: a further login gets what is left of it.
    #[default]
    Day,
}

impl fmt::Display for QuotaPer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Session => "session",
            Self::Day => "day",
        })
    }
}

impl FromStr for QuotaPer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "session" => Ok(Self::Session),
            "day" => Ok(Self::Day),
            other => Err(format!("a quota is of a `session` or of a `day`, not of a `{other}`")),
        }
    }
}

/// How long a client is kept out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarTime {
    /// This long: 1 second to 3650 days, in whole seconds.
    For(Duration),
    /// Until an operator lets it in again.
    Forever,
}

/// How a bar without an end is written.
const FOREVER: &str = "forever";

impl BarTime {
    /// This many seconds.
    pub fn seconds(seconds: u64) -> Result<Self, String> {
        let time = Duration::from_secs(seconds);
        if (Duration::from_secs(1)..=LONGEST_SESSION).contains(&time) {
            Ok(Self::For(time))
        } else {
            Err("a client is kept out for 1s to 3650days, in whole seconds, or `forever`".into())
        }
    }

    /// How long; None: without an end.
    pub const fn get(self) -> Option<Duration> {
        match self {
            Self::For(time) => Some(time),
            Self::Forever => None,
        }
    }
}

impl FromStr for BarTime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == FOREVER {
            return Ok(Self::Forever);
        }
        let time = humantime::parse_duration(text).map_err(|e| {
            format!("`{text}` is not a duration ({e}): write it as 30m, 2h or \"1d 12h\", or `forever`")
        })?;
        // A fraction of a second is out of bounds, not rounded.
        Self::seconds(if time.subsec_nanos() == 0 { time.as_secs() } else { 0 })
    }
}

impl fmt::Display for BarTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::For(time) => humantime::format_duration(*time).fmt(f),
            Self::Forever => f.write_str(FOREVER),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::OrNone, *};

    #[test]
    fn how_long_a_client_is_kept_out() {
        let table = [
            ("2h", Ok("2h")),
            ("90s", Ok("1m 30s")),
            ("1d 12h", Ok("1day 12h")),
            ("forever", Ok("forever")),
            ("none", Ok("none")),
            ("0s", Err("1s to 3650days")),
            ("1500ms", Err("whole seconds")),
            ("3651days", Err("1s to 3650days")),
            ("until tomorrow", Err("write it as 30m")),
        ];
        for (text, expected) in table {
            let read = text.parse::<OrNone<BarTime>>().map(|time| time.to_string());
            match expected {
                Ok(printed) => assert_eq!(read.as_deref(), Ok(printed), "{text}"),
                Err(part) => assert!(read.as_ref().is_err_and(|e| e.contains(part)), "{text}: {read:?}"),
            }
        }
    }

    #[test]
    fn what_a_quota_is_of() {
        for per in [QuotaPer::Session, QuotaPer::Day] {
            assert_eq!(per.to_string().parse(), Ok(per));
        }
        assert!("month".parse::<QuotaPer>().unwrap_err().contains("`day`"));
    }
}
