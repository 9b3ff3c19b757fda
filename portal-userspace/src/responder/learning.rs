//! What the responder teaches the gate: answers that it gives again and again to requests that are the same byte for byte.
//!
//! An answer is learned when its request has been seen twice lately. What is remembered of requests is a fixed number of hashes, and a worker installs only so
//! many answers a second: a flood of ever different requests teaches nothing, and one of ever different pairs replaces what is least used.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, atomic::AtomicU64},
};

use portal_common::{
    bucket,
    budget::Limit,
    flag,
    tables::{KNOWN_REQUEST_MAX, KNOWN_REQUEST_MIN, KNOWN_STATUSES},
};

use super::{
    answers::Status,
    policies::Policies,
    reassembly::Judge as _,
    segment::{Content, Reply, Segment},
};
use crate::datapath::known::{Installed, KnownAnswers, Learned};

/// How many requests are remembered: more than there are places for.
const REMEMBERED: usize = 1024;
/// How long.
const LATELY_NS: u64 = 60 * 1_000_000_000;
/// For how long it is not looked whether what is installed still is.
const SETTLED_NS: u64 = 5 * 1_000_000_000;
/// How many answers are installed in a second, and at once.
const INSTALLS: Limit = Limit::new(16, 64);

const _: () = assert!(Status::ALL.len() <= KNOWN_STATUSES);

/// A worker's memory of the requests that it has answered.
pub struct Learner {
    known: Arc<KnownAnswers>,
    seen: Box<[Seen]>,
    hasher: RandomState,
    installs: AtomicU64,
}

/// A request, by its hash.
#[derive(Clone, Copy, Default)]
struct Seen {
    hash: u64,
    at_ns: u64,
    /// Until when its answer needs no look.
    settled_ns: u64,
}

impl Learner {
    /// Teaches the gate through this table.
    pub fn new(known: Arc<KnownAnswers>) -> Self {
        Self {
            known,
            seen: vec![Seen::default(); REMEMBERED].into(),
            hasher: RandomState::new(),
            installs: AtomicU64::new(0),
        }
    }

    /// Takes note of a frame that got this reply by these policies. `is_in_force` says whether they are still those by which is answered: it is
    /// asked while nobody can change them. `now_ns` is `CLOCK_MONOTONIC` in nanoseconds.
    pub fn saw(
        &mut self,
        frame: &[u8],
        reply: &Reply<'_>,
        policies: &Policies,
        now_ns: u64,
        is_in_force: impl FnOnce() -> bool,
    ) {
        let Content::Answer(answer) = reply.content else { return };
        if !matches!(answer.status(), Status::Success | Status::Redirect | Status::AuthenticationRequired) {
            return;
        }
        let Some(segment) = Segment::read(frame) else { return };
        let whole = segment.data.len() == segment.length as usize && segment.flags == flag::PSH | flag::ACK;
        if !whole || segment.path.is_tls() || !(KNOWN_REQUEST_MIN..=KNOWN_REQUEST_MAX).contains(&segment.data.len()) {
            return;
        }
        let Some((policy, Some(zone))) = policies.with_zone_of(segment.path.vlans()) else { return };
        let (request, family) = (segment.data, segment.path.family());
        let hash = self.hasher.hash_one((zone.number(), family as u8, request));
        let seen = &mut self.seen[hash as usize % REMEMBERED];
        if seen.hash != hash || now_ns.saturating_sub(seen.at_ns) > LATELY_NS {
            *seen = Seen { hash, at_ns: now_ns, settled_ns: 0 };
            return;
        }
        seen.at_ns = now_ns;
        if now_ns < seen.settled_ns {
            return;
        }
        // What came before in its connection may have had a part in its answer. The gate gives what the request gets by itself.
        let alone = policy.judge(request).map(|choice| policy.answers.pick(choice, family));
        if !alone.is_some_and(|alone| std::ptr::eq(alone, answer)) {
            return;
        }
        if !bucket::spend(&self.installs, now_ns, INSTALLS.cost_ns(1), INSTALLS.burst_ns()) {
            return;
        }
        let learned = Learned {
            zone,
            family,
            request,
            response: answer.bytes(),
            sum: answer.sum(),
            status: answer.status() as u8,
        };
        if self.known.install(&learned, is_in_force) != Installed::No {
            seen.settled_ns = now_ns + SETTLED_NS;
        }
    }
}

#[cfg(test)]
mod tests {
    use portal_common::{
        cookie::{self, SLOT_NS},
        siphash::Key,
        tables::{CookieKeys, Zone},
    };

    use super::{
        super::{
            Policy, SharedPolicies,
            answers::{Answers, Family},
            exchange::Exchange,
            policies::UNTAGGED,
            probes::Probes,
            reassembly::Limits,
            segment::tests::{frame, tcp},
        },
        *,
    };

    const NOW: u64 = 5 * SLOT_NS;
    const SECOND: u64 = 1_000_000_000;

    struct Bench {
        exchange: Exchange,
        learner: Learner,
        known: Arc<KnownAnswers>,
        policies: SharedPolicies,
        keys: CookieKeys,
    }

    fn policies(url: &str) -> Policies {
        let policy = Policy { answers: Answers::new(url, url).unwrap(), probes: Probes::new([]) };
        Policies::of_zones([(UNTAGGED, Zone::new(4), Arc::new(policy))])
    }

    impl Bench {
        fn new() -> Self {
            let known = Arc::new(KnownAnswers::create().unwrap());
            Self {
                exchange: Exchange::new(Limits::default(), Arc::default()),
                learner: Learner::new(Arc::clone(&known)),
                known,
                policies: SharedPolicies::new(policies("http://192.0.2.1/")),
                keys: CookieKeys::new(std::array::from_fn(|i| Key([i as u64, 1]))),
            }
        }

        /// A client's whole request, and how many answers the gate then knows.
        fn ask(&mut self, port: u16, request: &[u8], flags: u8, now: u64) -> usize {
            let syn = etherparse::TcpHeader { destination_port: port, ..tcp(7, 0, false) };
            let tuple = Segment::read(&frame(Family::V4, &[], syn, b"")).unwrap().path.tuple();
            let ack = cookie::isn(&self.keys, &tuple, 7, now).wrapping_add(1);
            let header = etherparse::TcpHeader {
                destination_port: port,
                psh: flags & flag::PSH != 0,
                urg: flags & 0x20 != 0,
                ..tcp(8, ack, flags & flag::FIN != 0)
            };
            let cause = frame(Family::V4, &[], header, request);
            let in_force = self.policies.get();
            if let Ok(reply) = self.exchange.receive(&cause, &in_force, &self.keys, now) {
                self.learner.saw(&cause, &reply, &in_force, now, || self.policies.are(&in_force));
            }
            self.known.len()
        }
    }

    #[test]
    fn what_is_asked_twice_lately_is_learned_and_nothing_else() {
        /// A sentence; the port, the request and its flags; in which seconds it comes, and how many answers are known then.
        type Row<'a> = (&'a str, (u16, &'a [u8], u8), [u64; 3], [usize; 3]);
        const PUSH: u8 = flag::PSH | flag::ACK;
        let get = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
        let long = [b"GET / HTTP/1.1\r\nHost: a\r\nX: ".as_slice(), &[b'x'; 600], b"\r\n\r\n"].concat();
        let table: [Row<'_>; 9] = [
            ("a page", (80, get, PUSH), [0, 1, 2], [0, 1, 1]),
            ("a probe", (80, b"GET /generate_204 HTTP/1.1\r\nHost: a\r\n\r\n", PUSH), [0, 1, 2], [0, 1, 1]),
            ("a page, a minute apart", (80, get, PUSH), [0, 61, 62], [0, 0, 1]),
            ("more is to come", (80, get, flag::ACK), [0, 1, 2], [0, 0, 0]),
            ("nothing is to come", (80, get, PUSH | flag::FIN), [0, 1, 2], [0, 0, 0]),
            ("urgent", (80, get, PUSH | 0x20), [0, 1, 2], [0, 0, 0]),
            ("a bad request", (80, b"GET / HTTP/1.1\r\nNo Host: at all\r\n\r\n", PUSH), [0, 1, 2], [0, 0, 0]),
            ("a long one", (80, &long, PUSH), [0, 1, 2], [0, 0, 0]),
            ("HTTP on TLS's port", (443, get, PUSH), [0, 1, 2], [0, 0, 0]),
        ];
        for (sentence, (port, request, flags), seconds, known) in table {
            let mut bench = Bench::new();
            assert_eq!(seconds.map(|s| bench.ask(port, request, flags, NOW + s * SECOND)), known, "{sentence}");
        }
    }

    #[test]
    fn a_flood_of_different_requests_teaches_little() {
        let mut bench = Bench::new();
        let request = |n: u32| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
        for n in 0..20_000 {
            assert_eq!(bench.ask(80, &request(n), flag::PSH | flag::ACK, NOW), 0, "each comes once");
        }
        for n in 0..20_000 {
            bench.ask(80, &request(n), flag::PSH | flag::ACK, NOW);
            bench.ask(80, &request(n), flag::PSH | flag::ACK, NOW);
        }
        assert!(bench.known.len() <= 65, "{} installed at once", bench.known.len());
    }

    #[test]
    fn answers_of_replaced_policies_are_not_learned() {
        let mut bench = Bench::new();
        let get = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
        let push = flag::PSH | flag::ACK;
        assert_eq!([0, 1].map(|s| bench.ask(80, get, push, NOW + s * SECOND)), [0, 1]);
        let old = bench.policies.get();
        bench.known.change(|| bench.policies.replace(policies("http://192.0.2.2/")));
        assert!(bench.known.is_empty());
        // A worker that has the old ones still.
        let policy = old.of(UNTAGGED).unwrap();
        let answer = policy.answers.pick(policy.judge(get).unwrap(), Family::V4);
        let learned = Learned {
            zone: Zone::new(4),
            family: Family::V4,
            request: get,
            response: answer.bytes(),
            sum: answer.sum(),
            status: 6,
        };
        assert_eq!(bench.known.install(&learned, || bench.policies.are(&old)), Installed::No);
        // The new ones' are learned once the old row would have been looked at again.
        assert_eq!(bench.ask(80, get, push, NOW + 7 * SECOND), 1);
    }
}
