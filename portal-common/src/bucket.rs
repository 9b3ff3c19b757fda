//! Token buckets in one word: the generic cell rate algorithm.
//!
//! The word is the instant up to which the client has used its rate ("theoretical arrival time", ITU-T I.371 annex A). Each packet moves it on by what
//! the packet costs; a packet that would move it further ahead of now than the burst is refused. One word needs no lock: a compare-and-swap changes it,
//! also where a client's packets arrive on several CPUs.

use crate::word::Word;

/// How often a change that another CPU was faster at is tried again. The kernel's verifier wants an end.
const TRIES: u32 = 4;

/// Takes this packet's cost from the bucket; whether there was enough. Where not, nothing is taken.
///
/// All times are nanoseconds; `now_ns` of CLOCK_MONOTONIC.
#[inline(always)]
pub fn spend<W: Word>(bucket: &W, now_ns: u64, cost_ns: u64, burst_ns: u64) -> bool {
    let mut i = 0;
    while i < TRIES {
        let used_up_to = bucket.load();
        let Some(next) = after(used_up_to, now_ns, cost_ns, burst_ns) else { return false };
        if bucket.replace(used_up_to, next) {
            return true;
        }
        i += 1;
    }
    // Busy CPUs: the packet passes, and its cost is not lost.
    bucket.add(cost_ns);
    true
}

/// Whether [`spend`] would find enough; takes nothing.
#[inline(always)]
pub fn has<W: Word>(bucket: &W, now_ns: u64, cost_ns: u64, burst_ns: u64) -> bool {
    after(bucket.load(), now_ns, cost_ns, burst_ns).is_some()
}

#[inline(always)]
const fn after(used_up_to: u64, now_ns: u64, cost_ns: u64, burst_ns: u64) -> Option<u64> {
    // What was not used is lost, or an idle hour would be a burst of an hour.
    let begin = if used_up_to > now_ns { used_up_to } else { now_ns };
    let next = begin.wrapping_add(cost_ns);
    if next.wrapping_sub(now_ns) > burst_ns { None } else { Some(next) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use core::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate() {
        let bucket = AtomicU64::new(0);
        // Ten packets of 100 ns fit a burst of 1,000 ns.
        let passed = |now, tries: u32| (0..tries).filter(|_| spend(&bucket, now, 100, 1_000)).count();
        for (sentence, now, expected) in [
            ("the burst", 1_000_000, 10),
            ("nothing at the same instant", 1_000_000, 0),
            ("one for each 100 ns", 1_000_100, 1),
            ("three after 300 ns", 1_000_400, 3),
            ("a burst and no more after a long time", 9_000_000, 10),
        ] {
            assert_eq!(passed(now, 50), expected, "{sentence}");
        }
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate(costs in prop::collection::vec((1u64..2_000, 0u64..3_000), 1..200)) {
            let bucket = AtomicU64::new(0);
            let (start, burst) = (1_000_000u64, 10_000u64);
            let (mut now, mut passed) = (start, 0u64);
            for (cost, wait) in costs {
                now += wait;
                let would = has(&bucket, now, cost, burst);
                prop_assert_eq!(spend(&bucket, now, cost, burst), would);
                if would {
                    passed += cost;
                }
                prop_assert!(passed <= burst + (now - start));
            }
        }
    }

    #[test]
    fn several_threads_get_no_more_than_one() {
        let bucket = AtomicU64::new(0);
        let passed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..10_000).filter(|_| spend(&bucket, 1_000_000, 100, 100_000)).count()))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        // 1,000 fit; beyond them at most what passed while CPUs were busy, whose cost was taken all the same.
        assert!((1_000..1_100).contains(&passed), "{passed}");
    }
}
