//! The responder alone: requests from memory, answers into memory, without a socket.

use std::{sync::Arc, time::Instant};

use anyhow::{Result, ensure};
use portal_bench_ebpf::crowd::{Crowd, REQUEST_LEN, Segment};
use portal_common::{
    Family,
    checksum::Sum,
    cookie::{self, FourTuple},
    siphash::Key,
    tables::{Address, CookieKeys},
};
use portal_userspace::{
    clock,
    responder::{
        Policies, Policy,
        answers::Answers,
        exchange::{Exchange, Stats},
        probes::Probes,
        reassembly::Limits,
        segment::REPLY_MAX,
    },
};

use super::{
    gateway::{PAGE, SERVER},
    generator::request,
};
use crate::Effort;

/// So many different requests, that no branch predictor knows the next: more than a responder's batch.
const REQUESTS: u32 = 4096;
/// Of both families, in the order of arrival.
const FAMILIES: u8 = Crowd::V4 | Crowd::V6;

/// What a request costs the responder, nanoseconds: from the received frame to the written answer.
pub(super) fn responder(effort: &Effort) -> Result<f64> {
    let rounds = if effort.check { 1 } else { effort.rounds(200, 50) };
    let keys = CookieKeys::new(std::array::from_fn(|i| Key([i as u64 + 1, 7])));
    let policy =
        Policy { answers: Answers::new("http://192.0.2.1/", "http://[2001:db8::1]/")?, probes: Probes::new([]) };
    let policies = Policies::untagged(policy);
    let mut exchange = Exchange::new(Limits::default(), Arc::new(Stats::default()));
    let frames = requests(&keys)?;
    let mut reply = [0; REPLY_MAX];
    let mut answered = 0u64;
    let start = Instant::now();
    for _ in 0..rounds {
        // As a worker does for each batch.
        let now = clock::now_ns();
        for frame in &frames {
            let Ok(answer) = exchange.receive(std::hint::black_box(frame), &policies, &keys, now) else { continue };
            let length = answer.frame_length();
            answer.write(&mut reply[..length]);
            std::hint::black_box(&reply);
            answered += 1;
        }
    }
    let took = start.elapsed();
    let asked = rounds as u64 * u64::from(REQUESTS);
    ensure!(answered == asked, "the responder answered {answered} of {asked} requests");
    Ok(took.as_nanos() as f64 / asked as f64)
}

/// The requests of a crowd whose handshakes are done.
fn requests(keys: &CookieKeys) -> Result<Vec<Vec<u8>>> {
    let crowd = Crowd {
        client_v6: [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0],
        server_v6: SERVER.1.octets(),
        client_v4: [10, 1, 0, 0],
        server_v4: SERVER.0.octets(),
        gateway: [0, 0, 0x5e, 0, 0x53, 1],
        families: FAMILIES,
        verifies_checksums: 0,
        first_client: 0,
        clients: REQUESTS,
        slots: REQUESTS,
        rounds: 1,
        request_flags: 0,
        probe_every: 0,
    };
    let bytes: [u8; REQUEST_LEN] = request(PAGE.0, PAGE.1)?;
    let now = clock::now_ns();
    let frame = |slot| {
        let flow = crowd.flow(slot, 0);
        let (source, destination) = match flow.family {
            Family::V4 => (Address::v4(crowd.address_v4(flow.client)), Address::v4(crowd.server_v4)),
            Family::V6 => (Address(crowd.address_v6(flow.client)), Address(crowd.server_v6)),
        };
        let tuple = FourTuple { source, destination, source_port: flow.port, destination_port: 80 };
        let segment = Segment {
            seq: flow.isn.wrapping_add(1),
            ack: Some(cookie::isn(keys, &tuple, flow.isn, now).wrapping_add(1)),
            fin: false,
            request: Some(Sum::new().bytes(&bytes)),
        };
        match flow.family {
            Family::V4 => {
                let head = crowd.head_v4(&flow, &segment);
                [&head.ethernet[..], &head.network, &head.tcp, &bytes].concat()
            }
            Family::V6 => {
                let head = crowd.head_v6(&flow, &segment);
                [&head.ethernet[..], &head.network, &head.tcp, &bytes].concat()
            }
        }
    };
    Ok((0..REQUESTS).map(frame).collect())
}
