//! Warnings that a guest can cause at will: counted, and written once in a while at most.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How often where nothing else is said.
const EVERY: Duration = Duration::from_mins(1);

/// One kind of warning.
pub(super) struct Seldom {
    every: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    written: Option<Instant>,
    since: u64,
}

impl Default for Seldom {
    fn default() -> Self {
        Self::every(EVERY)
    }
}

impl Seldom {
    /// Written once in this time at most.
    pub(super) fn every(every: Duration) -> Self {
        Self { every, state: Mutex::default() }
    }

    /// Counts one; where it is time to write, how many there have been since the last time, this one included.
    pub(super) fn count(&self) -> Option<u64> {
        self.count_at(Instant::now())
    }

    fn count_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.since += 1;
        if state.written.is_some_and(|written| now.duration_since(written) < self.every) {
            return None;
        }
        state.written = Some(now);
        Some(std::mem::take(&mut state.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_written_and_then_one_a_minute_with_their_number() {
        let seldom = Seldom::default();
        let begin = Instant::now();
        let at = |seconds| seldom.count_at(begin + Duration::from_secs(seconds));
        assert_eq!([at(0), at(1), at(59), at(60), at(61), at(200)], [Some(1), None, None, Some(3), None, Some(2)]);
    }
}
