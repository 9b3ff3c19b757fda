//! What a stranger may use up before it logs in.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::quantity::{ByteCount, with_unit};

/// How a budget without a limit is written.
const OFF: &str = "off";
/// The fastest budget worth a limit: beyond it a unit takes less than a nanosecond.
const FASTEST: u64 = 1_000_000_000;
/// A budget of bytes smaller than that lets no full Ethernet frame with two VLAN tags through.
const LEAST_BYTES: u64 = 1_522;

/// A token bucket, or `"off"`. `BYTES`: whether it counts bytes of whole frames, not packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Budget<const BYTES: bool>(Option<Bucket>);

/// How fast a budget is filled, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Units (packets, or bytes) a second.
    pub per_second: u64,
    /// Units at once.
    pub burst: u64,
}

impl<const BYTES: bool> Budget<BYTES> {
    const fn of(per_second: u64, burst: u64) -> Self {
        Self(Some(Bucket { per_second, burst }))
    }

    /// The limit, if there is one.
    pub const fn get(self) -> Option<Bucket> {
        self.0
    }
}

impl<const BYTES: bool> FromStr for Budget<BYTES> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case(OFF) {
            return Ok(Self(None));
        }
        let example = if BYTES { "400B/s burst 32KiB" } else { "20/s burst 100" };
        let number = |text: &str| {
            let text = text.trim();
            text.parse().ok().or_else(|| with_unit(text, &ByteCount::UNITS, true).filter(|_| BYTES))
        };
        let (per_second, burst): (u64, u64) = text
            .split_once("/s")
            .and_then(|(rate, rest)| Some((number(rate)?, number(rest.trim_start().strip_prefix("burst")?)?)))
            .ok_or_else(|| format!("`{text}` is not a budget: write it as \"{example}\", or \"off\""))?;
        if per_second == 0 || burst == 0 {
            return Err(format!(
                "`{text}` would let nothing through: write it as \"{example}\", or \"off\" for no limit"
            ));
        }
        if per_second > FASTEST {
            return Err(format!("`{text}` fills faster than {FASTEST}/s: write \"off\" for no limit"));
        }
        if BYTES && burst < LEAST_BYTES {
            return Err(format!(
                "`{text}` holds less than one Ethernet frame: a burst of bytes is at least {LEAST_BYTES}"
            ));
        }
        if burst / per_second > 3600 {
            return Err(format!("`{text}` takes more than an hour to fill: lower the burst or raise the rate"));
        }
        Ok(Self::of(per_second, burst))
    }
}

impl<const BYTES: bool> TryFrom<String> for Budget<BYTES> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl<const BYTES: bool> fmt::Display for Budget<BYTES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = if BYTES { "B" } else { "" };
        match self.0 {
            Some(Bucket { per_second, burst }) => write!(f, "{per_second}{unit}/s burst {burst}{unit}"),
            None => f.write_str(OFF),
        }
    }
}

impl<const BYTES: bool> From<Budget<BYTES>> for String {
    fn from(budget: Budget<BYTES>) -> Self {
        budget.to_string()
    }
}

/// How many clients may log in on a network in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct LoginRate(Budget<false>);

impl LoginRate {
    /// The limit, if there is one.
    pub const fn get(self) -> Option<Bucket> {
        self.0.get()
    }
}

impl Default for LoginRate {
    /// 10,000 phones that arrive within five minutes are 34 a second; the doors' opening is one wave. Whoever invents MAC addresses gets no more than 17,000
    /// sessions in the five minutes after which they may be given up: a quarter of the default table.
    fn default() -> Self {
        Self(Budget::of(50, 2_000))
    }
}

impl TryFrom<String> for LoginRate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self)
    }
}

impl From<LoginRate> for String {
    fn from(rate: LoginRate) -> Self {
        rate.0.into()
    }
}

super::section::section! {
    /// What each stranger may use up before it logs in.
    Budgets,
    /// A zone's own budgets.
    BudgetsOverride {
        /// Segments that go to the responder: packets.
        requests: Budget<false> = Budget::of(20, 100),
        /// DNS queries: packets.
        dns_queries: Budget<false> = Budget::of(10, 200),
        /// DNS in both directions: bytes.
        dns_bytes: Budget<true> = Budget::of(400, 32 * 1024),
        /// ARP, neighbour discovery, DHCP, EAPOL: packets.
        link: Budget<false> = Budget::of(50, 200),
        /// Answers that the gate makes itself: packets.
        replies: Budget<false> = Budget::of(100, 500),
        /// The login page, the walled garden, time: bytes.
        services: Budget<true> = Budget::of(256 * 1024, 2 * 1024 * 1024),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_as_written() {
        let packets = [
            ("20/s burst 100", Ok("20/s burst 100")),
            (" 20 /s  burst 100 ", Ok("20/s burst 100")),
            ("off", Ok("off")),
            ("20", Err("20/s burst 100")),
            ("20/s", Err("20/s burst 100")),
            ("20/s burst", Err("20/s burst 100")),
            ("20kB/s burst 100", Err("20/s burst 100")),
            ("0/s burst 1", Err("nothing through")),
            ("1/s burst 0", Err("nothing through")),
            ("1/s burst 3601", Err("an hour")),
            ("2000000000/s burst 1", Err("faster")),
        ];
        for (text, expected) in packets {
            let budget = text.parse::<Budget<false>>().map(|b| b.to_string());
            match (&budget, expected) {
                (Ok(budget), Ok(expected)) => assert_eq!(budget, expected, "{text}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{text}: {error}"),
                _ => panic!("{text}: {budget:?}"),
            }
        }
        let bytes = "400B/s burst 32KiB".parse::<Budget<true>>().unwrap();
        assert_eq!(bytes, Budgets::default().dns_bytes);
        assert_eq!(bytes.to_string().parse(), Ok(bytes));
        assert!("400/s burst 1500".parse::<Budget<true>>().unwrap_err().contains("1522"));
    }
}
