//! Rates, bytes and spans of time with their units.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// How an absent limit is written.
const NONE: &str = "none";

/// A limit, or `"none"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(
    try_from = "String",
    into = "String",
    bound(deserialize = "T: FromStr<Err = String>", serialize = "T: Copy + fmt::Display")
)]
pub struct OrNone<T>(Option<T>);

impl<T: Copy> OrNone<T> {
    /// No limit.
    pub const NONE: Self = Self(None);

    /// This limit.
    pub const fn some(limit: T) -> Self {
        Self(Some(limit))
    }

    /// The limit, if there is one.
    pub const fn get(self) -> Option<T> {
        self.0
    }
}

impl<T> Default for OrNone<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: FromStr<Err = String>> FromStr for OrNone<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case(NONE) { Ok(Self(None)) } else { text.parse().map(|limit| Self(Some(limit))) }
    }
}

impl<T: FromStr<Err = String>> TryFrom<String> for OrNone<T> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl<T: fmt::Display> fmt::Display for OrNone<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(limit) => limit.fmt(f),
            None => f.write_str(NONE),
        }
    }
}

impl<T: Copy + fmt::Display> From<OrNone<T>> for String {
    fn from(limit: OrNone<T>) -> Self {
        limit.to_string()
    }
}

/// A rate in bits per second, from 2 kbit/s to 100 Gbit/s. Bits of whole Ethernet frames without the check sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BitRate(u64);

impl BitRate {
    const MIN: u64 = 2_000;
    const MAX: u64 = 100_000_000_000;
    const UNITS: [(&'static str, u64); 4] = [("gbit", 1_000_000_000), ("mbit", 1_000_000), ("kbit", 1_000), ("bit", 1)];

    /// This many bits per second.
    pub fn new(bits_per_second: u64) -> Result<Self, String> {
        if (Self::MIN..=Self::MAX).contains(&bits_per_second) {
            Ok(Self(bits_per_second))
        } else {
            Err(format!("a rate is from 2kbit to 100gbit, not {bits_per_second} bits per second"))
        }
    }

    /// Bits per second.
    pub const fn bits_per_second(self) -> u64 {
        self.0
    }
}

impl FromStr for BitRate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let bits = with_unit(lower.strip_suffix("/s").unwrap_or(&lower), &Self::UNITS, false).ok_or_else(|| {
            format!("`{text}` is not a rate: write it as 10mbit, 500kbit or 1gbit (bits per second, 1 kbit = 1000 bit), or \"none\"")
        })?;
        Self::new(bits)
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        largest_unit(self.0, &Self::UNITS, f)
    }
}

/// A number of bytes, from 1 to 10^18.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteCount(u64);

impl ByteCount {
    const MAX: u64 = 1_000_000_000_000_000_000;
    /// Decimal and binary prefixes (IEC 80000-13).
    pub(super) const UNITS: [(&'static str, u64); 9] = [
        ("TiB", 1 << 40),
        ("TB", 1_000_000_000_000),
        ("GiB", 1 << 30),
        ("GB", 1_000_000_000),
        ("MiB", 1 << 20),
        ("MB", 1_000_000),
        ("KiB", 1 << 10),
        ("kB", 1_000),
        ("B", 1),
    ];

    /// This many bytes.
    pub fn new(bytes: u64) -> Result<Self, String> {
        if (1..=Self::MAX).contains(&bytes) {
            Ok(Self(bytes))
        } else {
            Err(format!("a number of bytes is from 1B to 1000000TB, not {bytes}"))
        }
    }

    /// How many.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = with_unit(text, &Self::UNITS, true).ok_or_else(|| {
            format!("`{text}` is not a number of bytes: write it as 2GB (10^9), 500MiB (2^20) or 1500B")
        })?;
        Self::new(bytes)
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        largest_unit(self.0, &Self::UNITS, f)
    }
}

/// After how long without a frame from the client a session ends: 10 seconds to 3650 days, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IdleTime(u32);

impl IdleTime {
    /// The kernel writes down when a client was last seen at most once a second.
    const MIN: u32 = 10;
    const MAX: u32 = 3650 * 24 * 3600;

    /// This many seconds.
    pub fn new(seconds: u64) -> Result<Self, String> {
        u32::try_from(seconds)
            .ok()
            .filter(|s| (Self::MIN..=Self::MAX).contains(s))
            .map(Self)
            .ok_or_else(|| "an idle time is from 10s to 3650days in whole seconds".to_owned())
    }

    /// Seconds.
    pub const fn seconds(self) -> u32 {
        self.0
    }
}

impl FromStr for IdleTime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let time = humantime::parse_duration(text)
            .map_err(|e| format!("`{text}` is not a duration ({e}): write it as 30m or 2h, or \"none\""))?;
        // A fraction of a second is out of bounds, not rounded.
        Self::new(if time.subsec_nanos() == 0 { time.as_secs() } else { 0 })
    }
}

impl fmt::Display for IdleTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(Duration::from_secs(self.0.into())).fmt(f)
    }
}

/// How far a rate-limited client may run ahead of its rate: 10 milliseconds to 10 seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct RateBurst(Duration);

impl RateBurst {
    /// Nanoseconds.
    pub fn ns(self) -> u64 {
        u64::try_from(self.0.as_nanos()).expect("ten seconds fit")
    }
}

impl Default for RateBurst {
    /// TCP waits out a burst of losses for at least 200 ms (Linux `TCP_RTO_MIN`): what it could have sent meanwhile must not be lost to it.
    fn default() -> Self {
        Self(Duration::from_millis(500))
    }
}

impl TryFrom<String> for RateBurst {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wanted = "write it as 500ms, from 10ms to 10s";
        let time =
            humantime::parse_duration(&text).map_err(|e| format!("`{text}` is not a duration ({e}): {wanted}"))?;
        if (Duration::from_millis(10)..=Duration::from_secs(10)).contains(&time) {
            Ok(Self(time))
        } else {
            Err(format!("`{text}` is out of bounds: {wanted}"))
        }
    }
}

impl From<RateBurst> for String {
    fn from(burst: RateBurst) -> Self {
        humantime::format_duration(burst.0).to_string()
    }
}

/// A decimal number with a unit behind it, where the product is a whole number; None for anything else.
pub(super) fn with_unit(text: &str, units: &[(&str, u64)], exact_case: bool) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = (&text[..split], text[split..].trim_start());
    let (_, unit) =
        units.iter().find(|(name, _)| if exact_case { *name == unit } else { name.eq_ignore_ascii_case(unit) })?;
    let (whole, fraction) = number.split_once('.').map_or((number, None), |(whole, fraction)| (whole, Some(fraction)));
    let fraction = match fraction {
        Some("") => return None,
        other => other.unwrap_or_default(),
    };
    let scale = 10u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let digits: u64 = if fraction.is_empty() { whole.parse() } else { format!("{whole}{fraction}").parse() }.ok()?;
    let product = u128::from(digits) * u128::from(*unit);
    (!whole.is_empty() && product % u128::from(scale) == 0).then(|| u64::try_from(product / u128::from(scale)).ok())?
}

/// The number in the largest unit that divides it.
fn largest_unit(number: u64, units: &[(&str, u64)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (name, unit) = units.iter().find(|(_, unit)| number.is_multiple_of(*unit)).expect("the last unit is 1");
    write!(f, "{}{name}", number / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: FromStr<Err = String> + fmt::Display>(cases: &[(&str, Result<&str, &str>)]) {
        for (text, expected) in cases {
            match (text.parse::<T>(), expected) {
                (Ok(value), Ok(expected)) => {
                    assert_eq!(value.to_string(), *expected, "{text}");
                    let again = expected.parse::<T>().unwrap_or_else(|e| panic!("{text}: {e}"));
                    assert_eq!(again.to_string(), *expected, "{text}: what is printed is read back");
                }
                (Err(error), Err(part)) => assert!(error.contains(part), "{text}: no «{part}» in: {error}"),
                (Ok(value), Err(_)) => panic!("{text}: taken as {value}"),
                (Err(error), Ok(_)) => panic!("{text}: {error}"),
            }
        }
    }

    #[test]
    fn rates() {
        check::<OrNone<BitRate>>(&[
            ("10mbit", Ok("10mbit")),
            ("500 kbit", Ok("500kbit")),
            ("10 Mbit/s", Ok("10mbit")),
            ("1500000bit", Ok("1500kbit")),
            ("2.5mbit", Ok("2500kbit")),
            ("100gbit", Ok("100gbit")),
            ("none", Ok("none")),
            ("10", Err("not a rate")),
            ("10mbps", Err("not a rate")),
            ("-1mbit", Err("not a rate")),
            (".5mbit", Err("not a rate")),
            ("5.mbit", Err("not a rate")),
            ("1.00005kbit", Err("not a rate")),
            ("99999999999999999999gbit", Err("not a rate")),
            ("1999bit", Err("from 2kbit")),
            ("101gbit", Err("to 100gbit")),
            ("", Err("not a rate")),
        ]);
    }

    #[test]
    fn bytes() {
        check::<OrNone<ByteCount>>(&[
            ("2GB", Ok("2GB")),
            ("500 MiB", Ok("500MiB")),
            ("1024KiB", Ok("1MiB")),
            ("1.5GB", Ok("1500MB")),
            ("1B", Ok("1B")),
            ("none", Ok("none")),
            ("0B", Err("from 1B")),
            ("2", Err("not a number of bytes")),
            ("2gb", Err("not a number of bytes")),
            ("1000001TB", Err("to 1000000TB")),
        ]);
    }

    #[test]
    fn idle_times() {
        check::<OrNone<IdleTime>>(&[
            ("30m", Ok("30m")),
            ("90s", Ok("1m 30s")),
            ("none", Ok("none")),
            ("9s", Err("from 10s")),
            ("10500ms", Err("whole seconds")),
            ("soon", Err("not a duration")),
        ]);
    }

    #[test]
    fn bursts() {
        for (text, expected) in
            [("500ms", Some(500_000_000)), ("10s", Some(10_000_000_000)), ("9ms", None), ("11s", None), ("x", None)]
        {
            assert_eq!(RateBurst::try_from(text.to_owned()).ok().map(RateBurst::ns), expected, "{text}");
        }
    }
}
