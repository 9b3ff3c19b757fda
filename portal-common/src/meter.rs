//! Metering: what a session has carried, its rate limits and its quota.

use crate::{
    bucket,
    reason::Reason,
    tables::{ClientState, Flow, GateConfig, Session},
    word::Word,
};

/// How far [`ClientState::last_seen_ns`] may lag behind: it is written at most this often, so that CPUs seldom contend for its line.
const SEEN_EVERY_NS: u64 = 1_000_000_000;

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    Up,
    /// To the client.
    Down,
}

/// Why a frame does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is faster than the limit.
    Rate,
    /// It would be more than the quota.
    Quota {
        /// It is the frame that crosses the quota.
        first: bool,
    },
}

impl Refusal {
    /// As the reason of a drop.
    #[inline(always)]
    pub const fn reason(self, direction: Direction) -> Reason {
        match (self, direction) {
            (Self::Quota { .. }, _) => Reason::QuotaSpent,
            (Self::Rate, Direction::Up) => Reason::RateUp,
            (Self::Rate, Direction::Down) => Reason::RateDown,
        }
    }
}

/// What is about to pass: a frame, or a buffer that the NIC makes several frames of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Frames on the wire.
    pub packets: u64,
    /// Their bytes, without check sequences.
    pub bytes: u64,
}

impl Load {
    /// One frame of so many bytes.
    #[inline(always)]
    pub const fn frame(bytes: u64) -> Self {
        Self { packets: 1, bytes }
    }
}

/// Counts what is about to pass, unless the session's limits refuse it. Only what passes is counted.
#[inline(always)]
pub fn charge<W: Word>(
    state: &ClientState<W>,
    session: &Session,
    direction: Direction,
    load: Load,
    now_ns: u64,
    config: &GateConfig,
) -> Result<(), Refusal> {
    let Load { packets, bytes } = load;
    let burst_ns = config.rate_burst_ns();
    let (flow, rate) = of(state, session, direction);
    if rate.is_limited() && !bucket::spend(&flow.bucket, now_ns, rate.cost_ns(bytes), burst_ns) {
        return Err(Refusal::Rate);
    }
    if session.quota_bytes() != Session::NO_QUOTA {
        // Both directions count on one word, so that exactly one frame is the one that crosses. Then it stays crossed.
        let used = state.quota_used.add(bytes);
        if used.saturating_add(bytes) > session.quota_bytes() {
            return Err(Refusal::Quota { first: used <= session.quota_bytes() });
        }
    }
    // An atomic addition is 5 to 6 ns: where nobody wants to know, it is not made.
    if config.is_accounting() {
        flow.packets.add(packets);
        flow.bytes.add(bytes);
    }
    if matches!(direction, Direction::Up) {
        let seen = state.last_seen_ns.load();
        if now_ns.wrapping_sub(seen) > SEEN_EVERY_NS && now_ns > seen {
            state.last_seen_ns.store(now_ns);
        }
    }
    Ok(())
}

/// What [`charge`] would say; counts nothing.
#[inline(always)]
pub fn check<W: Word>(
    state: &ClientState<W>,
    session: &Session,
    direction: Direction,
    load: Load,
    now_ns: u64,
    config: &GateConfig,
) -> Result<(), Refusal> {
    let burst_ns = config.rate_burst_ns();
    let bytes = load.bytes;
    let (flow, rate) = of(state, session, direction);
    if rate.is_limited() && !bucket::has(&flow.bucket, now_ns, rate.cost_ns(bytes), burst_ns) {
        return Err(Refusal::Rate);
    }
    let used = state.quota_used.load();
    if session.quota_bytes() != Session::NO_QUOTA && used.saturating_add(bytes) > session.quota_bytes() {
        return Err(Refusal::Quota { first: used <= session.quota_bytes() });
    }
    Ok(())
}

#[inline(always)]
fn of<'a, W>(state: &'a ClientState<W>, session: &Session, direction: Direction) -> (&'a Flow<W>, crate::tables::Rate) {
    match direction {
        Direction::Up => (&state.up, session.rate_up()),
        Direction::Down => (&state.down, session.rate_down()),
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;
    use crate::tables::Rate;

    const MS: u64 = 1_000_000;
    const S: u64 = 1_000 * MS;
    const CONFIG: GateConfig = GateConfig::new([2; 6]).with_rate_burst_ns(100 * MS);

    #[test]
    fn only_what_passes_is_counted() {
        let state = ClientState::<AtomicU64>::default();
        // 8 Mbit/s: a kilobyte takes a millisecond; 100 fit the burst.
        let session = Session::new(0, Session::NEVER, 0).with_rates(Rate::UNLIMITED, Rate::bits_per_second(8_000_000));
        let pass = |direction, now| charge(&state, &session, direction, Load::frame(1_000), now, &CONFIG).is_ok();
        assert_eq!((0..300).filter(|_| pass(Direction::Down, 1_000 * MS)).count(), 100);
        assert!((0..300).all(|_| pass(Direction::Up, 1_000 * MS)), "the other direction has no limit");
        assert_eq!((state.down.packets.load(Relaxed), state.down.bytes.load(Relaxed)), (100, 100_000));
        assert_eq!((state.up.packets.load(Relaxed), state.up.bytes.load(Relaxed)), (300, 300_000));
    }

    #[test]
    fn a_quota_cuts_on_the_frame_that_crosses_it() {
        let state = ClientState::<AtomicU64>::default();
        let session = Session::new(0, Session::NEVER, 0).with_quota(2_500);
        for (sentence, direction, bytes, expected) in [
            ("fits", Direction::Up, 1_000, Ok(())),
            ("fits in the other direction", Direction::Down, 1_500, Ok(())),
            ("one byte too many crosses", Direction::Up, 1, Err(Refusal::Quota { first: true })),
            ("then nothing passes", Direction::Down, 1, Err(Refusal::Quota { first: false })),
        ] {
            let would = check(&state, &session, direction, Load::frame(bytes), MS, &CONFIG);
            assert_eq!(charge(&state, &session, direction, Load::frame(bytes), MS, &CONFIG), expected, "{sentence}");
            assert_eq!(would, expected, "{sentence}: asked before");
        }
        assert_eq!(state.up.bytes.load(Relaxed) + state.down.bytes.load(Relaxed), 2_500);
    }

    #[test]
    fn the_client_is_seen_when_it_sends_and_late_by_a_second_at_most() {
        let state = ClientState::<AtomicU64>::default();
        let session = Session::new(0, Session::NEVER, 0);
        for (sentence, direction, now, seen) in [
            ("what it is sent does not count", Direction::Down, 5 * S, 0),
            ("what it sends does", Direction::Up, 5 * S, 5 * S),
            ("not again within a second", Direction::Up, 6 * S, 5 * S),
            ("but after it", Direction::Up, 6 * S + 1, 6 * S + 1),
            ("another CPU's clock reading is older", Direction::Up, 4 * S, 6 * S + 1),
        ] {
            charge(&state, &session, direction, Load::frame(1), now, &CONFIG).unwrap();
            assert_eq!(state.last_seen_ns.load(Relaxed), seen, "{sentence}");
        }
    }
}
