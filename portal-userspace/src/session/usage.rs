//! What is written down of a client that has used up something of a quota.
//!
//! A day is the 24 hours that begin with the client's first login. It needs no time zone, is never 23 or 25 hours long, and does not begin for all
//! clients at once, so that nobody gets two quotas within minutes by waiting for midnight.

use std::time::Duration;

use portal_common::tables::Session;

use super::admission::{BarCause, Barred, QuotaPolicy};
use crate::{clock, config::QuotaPer, datapath::usage::UsageWords};

/// How long a day is, nanoseconds.
pub(super) const DAY_NS: u64 = 24 * 3_600 * 1_000_000_000;

/// What is written down of one client. Instants are of the gate's clock, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UsageRow {
    /// When the client's day began.
    pub(super) began_ns: u64,
    /// How many bytes the day's sessions that have ended have carried.
    pub(super) used: u64,
    /// The quota of the day that an operator gave; 0: as configured.
    pub(super) given: u64,
    /// Until when a spent quota keeps the client out; 0: it does not.
    pub(super) barred_until_ns: u64,
}

/// The day that a client is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Day {
    /// How many bytes it may carry in it, or [`Session::NO_QUOTA`].
    pub(super) quota_bytes: u64,
    /// How many of them its sessions that have ended have carried.
    pub(super) used: u64,
    /// How long it lasts yet.
    pub(super) left: Duration,
}

impl UsageRow {
    /// Of a client whose day begins now.
    pub(super) const fn beginning(now_ns: u64) -> Self {
        Self { began_ns: now_ns, used: 0, given: 0, barred_until_ns: 0 }
    }

    /// When it says nothing any more.
    pub(super) fn ends_ns(&self) -> u64 {
        let of_the_day = if self.used > 0 || self.given > 0 { self.day_ends_ns() } else { 0 };
        of_the_day.max(self.barred_until_ns)
    }

    /// How a spent quota keeps the client out at this instant, if it does.
    pub(super) fn bars(&self, now_ns: u64) -> Option<Barred> {
        let left = match self.barred_until_ns {
            Session::NEVER => None,
            until if until > now_ns => Some(Duration::from_nanos(until - now_ns)),
            _ => return None,
        };
        Some(Barred { cause: BarCause::Quota, left })
    }

    /// The client's day, if it is not over and its quota is one of the day.
    pub(super) fn day(&self, policy: &QuotaPolicy, now_ns: u64) -> Option<Day> {
        let left = self.day_ends_ns().checked_sub(now_ns).filter(|left| *left > 0)?;
        let quota_bytes = match (self.given, policy.per) {
            (0, QuotaPer::Day) => policy.quota_bytes,
            (0, QuotaPer::Session) => return None,
            (given, _) => given,
        };
        Some(Day { quota_bytes, used: self.used, left: Duration::from_nanos(left) })
    }

    /// What is written down once a session ends that has carried so much; `row` is what was written before.
    pub(super) fn after(row: Option<Self>, session: &Session, carried: u64, policy: &QuotaPolicy, now_ns: u64) -> Self {
        let mut row = Self::on(row, session.started_ns(), now_ns);
        let quota = session.quota_bytes();
        if quota == Session::NO_QUOTA {
            return row;
        }
        if policy.per == QuotaPer::Day || row.given > 0 {
            // What the gate refused is counted there too.
            row.used = row.used.saturating_add(carried.min(quota));
        }
        if carried > quota
            && let Some(bar) = policy.bar
        {
            let until = bar.get().map_or(Session::NEVER, |time| clock::after(now_ns, time));
            row.barred_until_ns = row.barred_until_ns.max(until);
        }
        row
    }

    /// What is written down once an operator has let a client through, with this quota where he gave one. Whatever kept it out is lifted; without a
    /// running session its day begins anew.
    pub(super) fn let_through(
        row: Option<Self>,
        session: &Session,
        is_running: bool,
        quota: Option<(u64, QuotaPer)>,
        now_ns: u64,
    ) -> Self {
        let mut row = Self::on(row.filter(|_| is_running), session.started_ns(), now_ns);
        row.barred_until_ns = 0;
        match quota {
            None => {}
            Some((_, QuotaPer::Session)) => row.given = 0,
            // It is said from the session's beginning, and the row counts from the day's.
            Some((bytes, QuotaPer::Day)) => row.given = bytes.saturating_add(row.used),
        }
        row
    }

    /// What is written down of a client with this session, as it stands now.
    pub(super) fn current(row: Option<Self>, session: &Session, now_ns: u64) -> Self {
        Self::on(row, session.started_ns(), now_ns)
    }

    /// The row, in the day that is on now: the one that was, or one that began with this session.
    fn on(row: Option<Self>, started_ns: u64, now_ns: u64) -> Self {
        match row {
            Some(row) if row.day_ends_ns() > now_ns => row,
            Some(Self { barred_until_ns, .. }) => Self { barred_until_ns, ..Self::beginning(started_ns) },
            None => Self::beginning(started_ns),
        }
    }

    fn day_ends_ns(&self) -> u64 {
        self.began_ns.saturating_add(DAY_NS)
    }

    /// As the kernel keeps it.
    pub(super) const fn to_words(self) -> UsageWords {
        let Self { began_ns, used, given, barred_until_ns } = self;
        [began_ns, used, given, barred_until_ns]
    }

    /// What [`Self::to_words`] gave.
    pub(super) const fn from_words(words: UsageWords) -> Self {
        let [began_ns, used, given, barred_until_ns] = words;
        Self { began_ns, used, given, barred_until_ns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BarTime;

    const H: u64 = 3_600 * 1_000_000_000;
    const DAY: QuotaPolicy = QuotaPolicy { quota_bytes: 1_000, per: QuotaPer::Day, bar: None };
    const NOW: u64 = 100 * H;

    fn session(began_h: u64, quota: u64) -> Session {
        Session::new(began_h * H, Session::NEVER, 0).with_quota(quota)
    }

    #[test]
    fn what_a_session_has_carried_counts_once_and_on_its_day() {
        let bars = QuotaPolicy { per: QuotaPer::Session, bar: Some(BarTime::seconds(3_600).unwrap()), ..DAY };
        let forever = QuotaPolicy { bar: Some(BarTime::Forever), ..bars };
        let row = |used| UsageRow { used, ..UsageRow::beginning(90 * H) };
        let counted = |began_h: u64, used| UsageRow { used, ..UsageRow::beginning(began_h * H) };
        let none = |began_h: u64| UsageRow::beginning(began_h * H);
        let table = [
            ("the first of the day", DAY, None, session(99, 1_000), 400, counted(99, 400)),
            ("what was refused is not carried", DAY, None, session(99, 1_000), 9_999, counted(99, 1_000)),
            ("a further one", DAY, Some(row(400)), session(99, 600), 100, row(500)),
            (
                "one that outlasted the day",
                DAY,
                Some(UsageRow { used: 400, ..UsageRow::beginning(70 * H) }),
                session(90, 600),
                600,
                counted(90, 600),
            ),
            ("one without a quota", DAY, None, session(99, Session::NO_QUOTA), 0, none(99)),
            ("sessions have their own", QuotaPolicy { bar: None, ..bars }, None, session(99, 1_000), 9_999, none(99)),
            (
                "and a spent one bars",
                bars,
                None,
                session(99, 1_000),
                1_001,
                UsageRow { barred_until_ns: NOW + H, ..none(99) },
            ),
            ("one that is just used up does not", bars, None, session(99, 1_000), 1_000, none(99)),
            ("for ever", forever, None, session(99, 1_000), 1_001, UsageRow { barred_until_ns: u64::MAX, ..none(99) }),
        ];
        for (sentence, policy, before, session, carried, expected) in table {
            assert_eq!(UsageRow::after(before, &session, carried, &policy, NOW), expected, "{sentence}");
        }
        assert_eq!(none(99).ends_ns(), 0, "it says nothing");
        assert_eq!(counted(99, 1).ends_ns(), (99 + 24) * H);
    }

    #[test]
    fn an_operator_lifts_what_kept_a_client_out() {
        let row = UsageRow { used: 1_000, barred_until_ns: 200 * H, ..UsageRow::beginning(90 * H) };
        let here = UsageRow::beginning(99 * H);
        let day = |bytes| Some((bytes, QuotaPer::Day));
        let kept = UsageRow { barred_until_ns: 0, ..row };
        let table = [
            ("nothing was there", None, false, None, here),
            ("its day begins anew", Some(row), false, None, here),
            ("with another quota", Some(row), false, day(500), UsageRow { given: 500, ..here }),
            ("a running session goes on in its day", Some(row), true, None, kept),
            ("with a quota beside what was used before", Some(row), true, day(500), UsageRow { given: 1_500, ..kept }),
            ("or without a limit", Some(row), true, day(Session::NO_QUOTA), UsageRow { given: u64::MAX, ..kept }),
            (
                "one of the session alone",
                Some(UsageRow { given: 7, ..row }),
                true,
                Some((500, QuotaPer::Session)),
                kept,
            ),
        ];
        for (sentence, before, is_running, quota, expected) in table {
            let after = UsageRow::let_through(before, &session(99, 1), is_running, quota, NOW);
            assert_eq!(after, expected, "{sentence}");
            assert_eq!(UsageRow::from_words(after.to_words()), after, "{sentence}");
        }
    }
}
