//! What the responder does with a request, without sockets and system calls: read, judge, and write the answer's frame.

use std::{hint::black_box, sync::Arc, time::Instant};

use anyhow::{Result, anyhow, ensure};
use portal_common::{
    cookie::{self, SLOT_NS},
    siphash::Key,
    tables::CookieKeys,
};
use portal_userspace::responder::{
    Policies, Policy, answers::Answers, exchange::Exchange, probes::Probes, reassembly::Limits, segment::Segment,
};

use crate::{
    Effort, Findings,
    frames::{FIRST_CLIENT, Version, tcp},
    kernel::{Rounds, on_one_cpu},
    report::Row,
};

/// Clients that take turns: each request is another's, as on a network.
const CLIENTS: u32 = 1024;

/// As curl asks, and as Android does.
const REQUESTS: [(&str, &[u8], &str); 2] = [
    ("GET as curl sends it", b"GET / HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n", "511"),
    (
        "Android's probe",
        b"GET /generate_204 HTTP/1.1\r\nUser-Agent: Dalvik/2.1.0 (Linux; U; Android 14)\r\nHost: connectivitycheck.gstatic.com\r\nConnection: Keep-Alive\r\nAccept-Encoding: gzip\r\n\r\n",
        "302",
    ),
];

/// By the clock of this thread's CPU, over frames that are in the caches.
pub fn run(effort: &Effort) -> Result<Findings> {
    std::thread::scope(|scope| {
        let apart = scope.spawn(|| {
            on_one_cpu()?;
            measure(effort)
        });
        apart.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn measure(effort: &Effort) -> Result<Findings> {
    const NOW: u64 = 5 * SLOT_NS;
    let turns = if effort.check { 1 } else { 500 };
    let keys = CookieKeys::new(std::array::from_fn(|i| Key([i as u64, 1])));
    let policies = Policies::untagged(Policy {
        answers: Answers::new("http://192.0.2.1:8080/", "http://[2001:db8:1::1]:8080/")
            .map_err(|e| anyhow!("the portal's address is refused: {e}"))?,
        probes: Probes::new([]),
    });
    let mut rows = Vec::new();
    for (name, request, expected) in REQUESTS {
        let frames: Vec<Vec<u8>> = (0..CLIENTS)
            .map(|n| {
                let number = FIRST_CLIENT + n;
                let make = |ack| tcp(Version::V4, number, [40_000, 80], [8, ack], request);
                let tuple = Segment::read(&make(0)).ok_or_else(|| anyhow!("no segment"))?.path.tuple();
                Ok(make(cookie::isn(&keys, &tuple, 7, NOW).wrapping_add(1)))
            })
            .collect::<Result<_>>()?;
        let mut exchange = Exchange::new(Limits::default(), Arc::default());
        let mut out = vec![0; 2048];
        let mut answer_all = || -> Result<f64> {
            let start = Instant::now();
            for _ in 0..turns {
                for frame in &frames {
                    let reply = exchange.receive(black_box(frame), &policies, &keys, NOW)?;
                    ensure!(reply.content.name() == expected, "answered with {}", reply.content.name());
                    reply.write(&mut out[..reply.frame_length()]);
                    black_box(&mut out);
                }
            }
            Ok(start.elapsed().as_nanos() as f64 / f64::from(turns * CLIENTS))
        };
        let costs = Rounds::of(effort.rounds(15, 7), &mut [&mut answer_all])?;
        rows.push(Row::new(format!("a request read, judged and answered: {name}, {expected}"), "ns", costs.cost(0)));
    }
    Ok(Findings { rows, plots: Vec::new() })
}
