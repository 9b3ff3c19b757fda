//! Who is given up where the table of sessions is full.
//!
//! A session costs whoever invents a MAC address one request. So it is provisional until its client has sent a frame as a member, and a full table gives
//! up sessions whose client was never seen, then those whose client was unseen for longest.

use std::{collections::BinaryHeap, time::Duration};

use portal_common::tables::{ClientKey, Session};

use super::store::Entry;

/// How long a session is left alone whose client was not seen yet: a client that has just logged in takes the answer, and loads the next page at once.
const PROVISIONAL: Duration = Duration::from_secs(10);
/// How long a client must be unseen before its session may be given up: a phone that is in use, or asleep but reachable, sends within minutes.
const UNSEEN: Duration = Duration::from_mins(5);
/// How many are remembered after a walk. It bounds memory; at most one walk a second is made, and no network takes so many logins in a second.
pub(super) const MAX_CANDIDATES: usize = 4096;

/// How readily a session is given up; who comes first in the order goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Its client was never seen. The instant at which it began, nanoseconds.
    NeverSeen(u64),
    /// When its client was seen last, nanoseconds.
    Unseen(u64),
}

/// How readily a live session may be given up; None: not at all.
pub(super) fn rank(Entry { session, state, .. }: &Entry, now_ns: u64) -> Option<Rank> {
    // An operator let it through until it is revoked: a printer may be silent for days.
    if session.expires_ns() == Session::NEVER {
        return None;
    }
    // The kernel may have written a later instant than the one that was read here.
    let ago = |then_ns: u64| Duration::from_nanos(now_ns.saturating_sub(then_ns));
    match state.last_seen_ns {
        0 => (ago(session.started_ns()) > PROVISIONAL).then_some(Rank::NeverSeen(session.started_ns())),
        // A session may be restored that began after its client was last seen.
        seen => (ago(seen.max(session.started_ns())) > UNSEEN).then_some(Rank::Unseen(seen)),
    }
}

/// Whom to give up next, as the last walk over the table found it: a login must not walk over a large table. Whether it still holds is looked at again
/// before it is done.
#[derive(Debug, Default)]
pub(super) struct Candidates(Vec<(Rank, ClientKey)>);

impl Candidates {
    /// The next one, who is a candidate no more.
    pub(super) fn take(&mut self) -> Option<ClientKey> {
        self.0.pop().map(|(_, client)| client)
    }

    /// Whether the next one was never seen. Where it was, another walk may find somebody by now who was not.
    pub(super) fn begins_with_never_seen(&self) -> bool {
        matches!(self.0.last(), Some((Rank::NeverSeen(_), _)))
    }
}

/// Gathers the first [`MAX_CANDIDATES`] of all that a walk meets.
#[derive(Debug, Default)]
pub(super) struct Gathering(BinaryHeap<(Rank, ClientKey)>);

impl Gathering {
    /// Notes this one, if it may be given up.
    pub(super) fn meet(&mut self, entry: &Entry, now_ns: u64) {
        let Some(rank) = rank(entry, now_ns) else { return };
        let candidate = (rank, entry.client);
        if self.0.len() < MAX_CANDIDATES {
            self.0.push(candidate);
        } else if let Some(mut last) = self.0.peek_mut()
            && candidate < *last
        {
            *last = candidate;
        }
    }

    /// What was gathered, in its order.
    pub(super) fn finish(self) -> Candidates {
        let mut candidates = self.0.into_sorted_vec();
        // A walk may meet a client twice whose session moves meanwhile.
        candidates.dedup();
        candidates.reverse();
        Candidates(candidates)
    }
}

#[cfg(test)]
mod tests {
    use portal_common::tables::{ClientState, Zone};
    use proptest::prelude::*;

    use super::*;

    const S: u64 = 1_000_000_000;
    const NOW: u64 = 100_000 * S;

    fn entry(n: u32, started_ago: u64, seen_ago: Option<u64>, expires_ns: u64) -> Entry {
        let [_, a, b, c] = n.to_be_bytes();
        let state =
            ClientState { last_seen_ns: seen_ago.map_or(0, |ago| NOW.saturating_sub(ago)), ..ClientState::default() };
        let session = Session::new(NOW.saturating_sub(started_ago), expires_ns, n);
        Entry { client: ClientKey::new(Zone::FIRST, [2, 0, 0, a, b, c]), session, state }
    }

    #[test]
    fn who_may_be_given_up() {
        let hour = NOW + 3_600 * S;
        let never_seen = |ago| Some(Rank::NeverSeen(NOW - ago));
        let unseen = |ago| Some(Rank::Unseen(NOW - ago));
        for (sentence, entry, expected) in [
            ("it has just logged in", entry(0, 0, None, hour), None),
            ("it logged in ten seconds ago", entry(0, 10 * S, None, hour), None),
            ("and was not seen a nanosecond later", entry(0, 10 * S + 1, None, hour), never_seen(10 * S + 1)),
            ("never seen for hours", entry(0, 9_000 * S, None, hour), never_seen(9_000 * S)),
            ("never seen, but an operator's without end", entry(0, 9_000 * S, None, Session::NEVER), None),
            ("seen just now", entry(0, 9_000 * S, Some(0), hour), None),
            ("seen five minutes ago", entry(0, 9_000 * S, Some(300 * S), hour), None),
            ("and not since", entry(0, 9_000 * S, Some(300 * S + 1), hour), unseen(300 * S + 1)),
            ("unseen, but an operator's without end", entry(0, 9_000 * S, Some(8_000 * S), Session::NEVER), None),
            ("seen long ago, and begun since", entry(0, 20 * S, Some(900 * S), hour), None),
            (
                "another CPU's clock is ahead",
                Entry { session: Session::new(NOW + S, hour, 0), ..entry(0, 0, None, hour) },
                None,
            ),
        ] {
            assert_eq!(rank(&entry, NOW), expected, "{sentence}");
        }
    }

    #[test]
    fn never_seen_ones_go_first_and_then_the_longest_unseen() {
        let hour = NOW + 3_600 * S;
        let mut gathering = Gathering::default();
        for entry in [
            entry(1, 9_000 * S, Some(400 * S), hour),
            entry(2, 9_000 * S, Some(900 * S), hour),
            entry(3, 20 * S, None, hour),
            entry(4, 9_000 * S, Some(S), hour),
            entry(5, 30 * S, None, hour),
            entry(5, 30 * S, None, hour),
        ] {
            gathering.meet(&entry, NOW);
        }
        let mut candidates = gathering.finish();
        let mut order = Vec::new();
        loop {
            let first = candidates.begins_with_never_seen();
            let Some(client) = candidates.take() else { break };
            order.push((client.mac()[5], first));
        }
        assert_eq!(order, [(5, true), (3, true), (2, false), (1, false)]);
    }

    proptest! {
        #[test]
        fn the_first_of_all_are_kept_and_no_active_one_is_among_them(
            all in proptest::collection::vec((0..1_000 * S, proptest::option::of(0..1_000 * S), prop::bool::weighted(0.1)), 0..300),
            repeat in 1u32..30,
        ) {
            let mut gathering = Gathering::default();
            let mut expected = Vec::new();
            let n = u32::try_from(all.len()).unwrap();
            for round in 0..repeat {
                for (i, (started, seen, forever)) in (0u32..).zip(&all) {
                    let expires = if *forever { Session::NEVER } else { NOW + S };
                    let entry = entry(round * n + i, *started, *seen, expires);
                    gathering.meet(&entry, NOW);
                    let active = match seen {
                        Some(ago) => ago.min(started) <= &(300 * S),
                        None => *started <= 10 * S,
                    };
                    prop_assert_eq!(rank(&entry, NOW).is_none(), active || *forever);
                    expected.extend(rank(&entry, NOW).map(|rank| (rank, entry.client)));
                }
            }
            expected.sort_unstable();
            expected.truncate(MAX_CANDIDATES);
            let mut candidates = gathering.finish();
            let order: Vec<_> = std::iter::from_fn(|| candidates.take()).collect();
            prop_assert_eq!(order, expected.into_iter().map(|(_, client)| client).collect::<Vec<_>>());
        }
    }
}
