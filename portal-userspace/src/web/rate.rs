//! How many clients may log in on a network in a time.

use std::sync::atomic::AtomicU64;

use portal_common::bucket;

use crate::config::{Bucket, LoginRate};

const SECOND_NS: u64 = 1_000_000_000;

/// The logins of one network: a token bucket.
pub(super) struct Logins {
    used_up_to: AtomicU64,
    limit: Option<Bucket>,
}

impl Logins {
    pub(super) fn new(rate: LoginRate) -> Self {
        Self { used_up_to: AtomicU64::new(0), limit: rate.get() }
    }

    /// Takes one login at this instant of `CLOCK_MONOTONIC`; whether there was one.
    pub(super) fn take(&self, now_ns: u64) -> bool {
        let Some(Bucket { per_second, burst }) = self.limit else { return true };
        let cost_ns = SECOND_NS / per_second;
        bucket::spend(&self.used_up_to, now_ns, cost_ns, cost_ns.saturating_mul(burst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_logs_in_and_then_the_rate() {
        let taken = |logins: &Logins, second, tries: usize| {
            (0..tries).filter(|_| logins.take(1_000_000 * SECOND_NS + second * SECOND_NS)).count()
        };
        let limited = Logins::new(LoginRate::default());
        for (sentence, second, expected) in [
            ("the first wave", 0, 2_000),
            ("nobody more at this instant", 0, 0),
            ("a second later", 1, 50),
            ("four more seconds later", 5, 200),
            ("no more than a wave after an hour", 3_600, 2_000),
        ] {
            assert_eq!(taken(&limited, second, 20_000), expected, "{sentence}");
        }
        let phones = Logins::new(LoginRate::default());
        let in_five_minutes: usize = (0..300).map(|second| taken(&phones, second, 34)).sum();
        assert_eq!(in_five_minutes, 300 * 34, "10,000 phones that arrive within five minutes");
        let unlimited = Logins::new("off".to_owned().try_into().unwrap());
        assert_eq!(taken(&unlimited, 0, 20_000), 20_000, "no limit");
    }
}
