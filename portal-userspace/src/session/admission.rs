//! Whether a client may log in, and with how much of its quota: decided here alone, from what is written down about the client.

use std::time::Duration;

use portal_common::tables::Session;
use serde::{Deserialize, Serialize};

use super::{Clocks, bars::OperatorBar, usage::UsageRow};
use crate::config::{BarTime, QuotaPer, SessionLimits};

/// Why a client may not log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BarCause {
    /// It had spent a session's quota, and `bar_after_quota` keeps it out.
    Quota,
    /// It has spent its quota of the day.
    Day,
    /// An operator has revoked its session, and keeps it out.
    Revoked,
    /// An operator has blocked it.
    Blocked,
}

impl BarCause {
    /// The cause, for an operator.
    pub(super) const fn in_words(self) -> &'static str {
        match self {
            Self::Quota => "it has spent the quota of a session",
            Self::Day => "it has spent its quota of the day",
            Self::Revoked => "an operator has revoked its session",
            Self::Blocked => "an operator has blocked it",
        }
    }
}

/// That a client may not log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Barred {
    /// Why.
    pub cause: BarCause,
    /// For how long from now; None: until an operator lets it in again.
    pub left: Option<Duration>,
}

impl Barred {
    /// For how long, for an operator.
    pub(super) fn how_long(&self) -> String {
        self.left.map_or_else(String::new, |left| {
            format!(" for another {}", humantime::format_duration(Duration::from_secs(left.as_secs() + 1)))
        })
    }
}

/// What a zone says about quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QuotaPolicy {
    pub(super) quota_bytes: u64,
    pub(super) per: QuotaPer,
    pub(super) bar: Option<BarTime>,
}

impl QuotaPolicy {
    pub(super) fn configured(limits: &SessionLimits) -> Self {
        Self {
            quota_bytes: limits.quota.get().map_or(Session::NO_QUOTA, crate::config::ByteCount::get),
            per: limits.quota_per,
            bar: limits.bar_after_quota.get(),
        }
    }
}

impl Default for QuotaPolicy {
    /// Of a zone that is not guarded: nobody logs in there.
    fn default() -> Self {
        Self { quota_bytes: Session::NO_QUOTA, per: QuotaPer::default(), bar: None }
    }
}

/// How many bytes a client that logs in without a running session may carry, or why it may not log in.
pub(super) fn quota_at_login(
    policy: &QuotaPolicy,
    bar: Option<&OperatorBar>,
    row: Option<&UsageRow>,
    now: Clocks,
) -> Result<u64, Barred> {
    if let Some(barred) = bar.and_then(|bar| bar.bars(now.calendar)) {
        return Err(barred);
    }
    let Some(row) = row else { return Ok(policy.quota_bytes) };
    if let Some(barred) = row.bars(now.gate_ns) {
        return Err(barred);
    }
    let Some(day) = row.day(policy, now.gate_ns) else { return Ok(policy.quota_bytes) };
    match day.quota_bytes {
        Session::NO_QUOTA => Ok(Session::NO_QUOTA),
        quota => match quota.saturating_sub(day.used) {
            0 => Err(Barred { cause: BarCause::Day, left: Some(day.left) }),
            left => Ok(left),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{image::UnixMs, usage::DAY_NS},
        *,
    };

    const S: u64 = 1_000_000_000;
    const NOW: Clocks = Clocks { gate_ns: 2 * DAY_NS, calendar: UnixMs(1_700_000_000_000) };
    const TODAY: u64 = NOW.gate_ns - 3_600 * S;

    fn row(used: u64) -> UsageRow {
        UsageRow { used, ..UsageRow::beginning(TODAY) }
    }

    fn blocked(until: Option<u64>) -> OperatorBar {
        OperatorBar { cause: BarCause::Blocked, since: UnixMs(0), until: until.map(UnixMs), reason: None }
    }

    #[test]
    fn who_may_log_in_and_with_how_much() {
        let day = QuotaPolicy { quota_bytes: 1_000, per: QuotaPer::Day, bar: None };
        let session = QuotaPolicy { per: QuotaPer::Session, ..day };
        let free = QuotaPolicy { quota_bytes: Session::NO_QUOTA, ..day };
        let rest_of_the_day = Some(Duration::from_hours(23));
        let barred = |cause, left| Err(Barred { cause, left });
        let table = [
            ("nothing is known", day, None, None, Ok(1_000)),
            ("no quota at all", free, None, None, Ok(Session::NO_QUOTA)),
            ("some of the day's is used", day, None, Some(row(300)), Ok(700)),
            ("all but a byte", day, None, Some(row(999)), Ok(1)),
            ("all of it", day, None, Some(row(1_000)), barred(BarCause::Day, rest_of_the_day)),
            (
                "more, as the quota was made smaller",
                day,
                None,
                Some(row(5_000)),
                barred(BarCause::Day, rest_of_the_day),
            ),
            ("all, but each session has its own", session, None, Some(row(1_000)), Ok(1_000)),
            ("all, but the quota is gone", free, None, Some(row(1_000)), Ok(Session::NO_QUOTA)),
            (
                "the last nanosecond of the day",
                day,
                None,
                Some(UsageRow { used: 1_000, ..UsageRow::beginning(NOW.gate_ns - DAY_NS + 1) }),
                barred(BarCause::Day, Some(Duration::from_nanos(1))),
            ),
            (
                "the next day",
                day,
                None,
                Some(UsageRow { used: 1_000, ..UsageRow::beginning(NOW.gate_ns - DAY_NS) }),
                Ok(1_000),
            ),
            ("the operator gave more of the day", day, None, Some(UsageRow { given: 5_000, ..row(1_000) }), Ok(4_000)),
            (
                "and a day where sessions had their own",
                session,
                None,
                Some(UsageRow { given: 5_000, ..row(1_000) }),
                Ok(4_000),
            ),
            (
                "and no limit",
                day,
                None,
                Some(UsageRow { given: Session::NO_QUOTA, ..row(1_000) }),
                Ok(Session::NO_QUOTA),
            ),
            (
                "a spent quota bars",
                session,
                None,
                Some(UsageRow { barred_until_ns: NOW.gate_ns + 7 * S, ..row(0) }),
                barred(BarCause::Quota, Some(Duration::from_secs(7))),
            ),
            (
                "without an end",
                session,
                None,
                Some(UsageRow { barred_until_ns: u64::MAX, ..row(0) }),
                barred(BarCause::Quota, None),
            ),
            ("no longer", session, None, Some(UsageRow { barred_until_ns: NOW.gate_ns, ..row(0) }), Ok(1_000)),
            ("blocked", free, Some(blocked(None)), None, barred(BarCause::Blocked, None)),
            (
                "blocked for a while",
                free,
                Some(blocked(Some(NOW.calendar.0 + 5_000))),
                None,
                barred(BarCause::Blocked, Some(Duration::from_secs(5))),
            ),
            ("blocked until now", free, Some(blocked(Some(NOW.calendar.0))), None, Ok(Session::NO_QUOTA)),
        ];
        for (sentence, policy, bar, row, expected) in table {
            assert_eq!(quota_at_login(&policy, bar.as_ref(), row.as_ref(), NOW), expected, "{sentence}");
        }
    }
}
