//! The clock that the kernel's side of Portal reads.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Now, in nanoseconds of CLOCK_MONOTONIC at the scheduler tick's resolution: the clock of `bpf_ktime_get_coarse_ns`
/// (Linux 5.11), with which the gate compares a session's expiry and picks a cookie's time slot.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    let seconds = u64::try_from(now.tv_sec).expect("CLOCK_MONOTONIC is never negative");
    let nanoseconds = u64::try_from(now.tv_nsec).expect("a timespec's nanoseconds are never negative");
    seconds * 1_000_000_000 + nanoseconds
}

/// This instant plus a duration, saturating at the far end of the clock.
pub fn after(now_ns: u64, duration: Duration) -> u64 {
    now_ns.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}
