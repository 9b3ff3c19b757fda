//! The crowd of HTTP clients, from user space: it fills the program's tables, sends each slot's first SYN, and begins again what is stuck.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData, PerCpuArray},
    programs::{Xdp, XdpMode},
};
use portal_bench_ebpf::crowd::{
    self, Crowd, Expected, Head, KINDS, REQUEST_LEN, RESPONSE_WORDS, Seen, Segment, Slot, phase,
};
use portal_common::{Family, checksum::Sum, cookie::RESPONSE_MAX};
use portal_lab::{Namespace, wire::Wire as Frames};

use super::wire::{MOST_CLIENTS, Wire, addresses};
use crate::object;

/// How often stuck exchanges are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How soon it is seen that all are done.
const FIRST_LOOK: Duration = Duration::from_millis(1);
/// After how many looks without a step an exchange is given up: within a tenth of what a client waits for a SYN-ACK (RFC 6298).
const LOOKS_UNTIL_STUCK: u32 = 6;
/// How long exchanges in flight may take to end after the last was begun.
const DRAIN: Duration = Duration::from_secs(3);

/// What a client asks for, and what it must get.
#[derive(Clone, Debug)]
pub struct Question {
    /// The request's target.
    pub target: &'static str,
    /// The request's host.
    pub host: &'static str,
    /// The response over IPv4 and over IPv6.
    pub responses: [Response; 2],
}

/// A response, and which of its bytes may differ.
#[derive(Clone, Debug)]
pub struct Response {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Bytes that may be others.
    pub ignored: std::ops::Range<usize>,
}

impl Response {
    /// One of which every byte counts.
    pub fn exact(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), ignored: 0..0 }
    }

    fn expected(&self) -> Result<Expected> {
        let length = self.bytes.len();
        ensure!(length <= RESPONSE_MAX, "a response of {length} bytes: the program compares {RESPONSE_MAX} at most");
        let mut words = [[0; 2]; RESPONSE_WORDS];
        for (at, byte) in self.bytes.iter().enumerate() {
            let mask = if self.ignored.contains(&at) { 0 } else { u64::from_ne_bytes(byte_at(at, 0xff)) };
            let [value, counts] = &mut words[at / 8];
            *value |= u64::from_ne_bytes(byte_at(at, *byte));
            *counts |= mask;
        }
        Ok(Expected { sum: Sum::new().bytes(&self.bytes).to_raw(), length: length as u32, padding: 0, words })
    }
}

fn byte_at(at: usize, byte: u8) -> [u8; 8] {
    let mut word = [0; 8];
    word[at % 8] = byte;
    word
}

/// The request for a target at a host, filled up to the one length with what a browser calls itself.
pub(super) fn request(target: &str, host: &str) -> Result<[u8; REQUEST_LEN]> {
    let (head, tail) = (format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: "), "\r\n\r\n");
    let name = REQUEST_LEN.checked_sub(head.len() + tail.len()).filter(|room| *room > 0);
    let name = name.with_context(|| format!("a request for {host}{target} does not fit {REQUEST_LEN} bytes"))?;
    let bytes = [head.as_bytes(), &b"x".repeat(name), tail.as_bytes()].concat();
    Ok(bytes.try_into().expect("it was made of this length"))
}

/// How the crowd behaves.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many clients there are, each with a MAC address and addresses of both families.
    pub clients: u32,
    /// How many exchanges are in flight at once. A veth holds 256 frames (`VETH_RING_SIZE`).
    pub in_flight: u32,
    /// [`Crowd::V4`], [`Crowd::V6`], or both.
    pub families: u8,
    /// Every so many exchanges are for the second question; 0 for none.
    pub probe_every: u32,
    /// Whether checksums are verified.
    pub verifies_checksums: bool,
    /// Where the requests go.
    pub server: (Ipv4Addr, Ipv6Addr),
    /// The two questions: a page, and a probe.
    pub questions: [Question; KINDS],
}

/// What the crowd has seen, and what it has given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// What the program has counted.
    pub seen: Seen,
    /// SYNs that user space has sent.
    pub begun: u64,
    /// Exchanges that were given up, because a frame was lost.
    pub lost: u64,
}

impl Tally {
    /// What went wrong, in words; nothing if nothing did.
    pub fn faults(&self) -> Option<String> {
        // What is not TCP is the gateway's own: neighbour discovery and the like.
        let Seen { wrong_bytes, wrong_checksum, resets, unexpected, foreign, unsent, .. } = self.seen;
        let all = [
            ("exchanges lost", self.lost),
            ("responses with wrong bytes", wrong_bytes),
            ("wrong checksums", wrong_checksum),
            ("resets", resets),
            ("segments that do not belong there", unexpected),
            ("frames of no exchange", foreign),
            ("frames not sent", unsent),
        ];
        let faults: Vec<_> = all.iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{n} {what}")).collect();
        (!faults.is_empty()).then(|| faults.join(", "))
    }

    /// What has come since an earlier tally.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let (now, then) = (self.seen, earlier.seen);
        Self {
            seen: Seen {
                opened: now.opened - then.opened,
                handshakes: now.handshakes - then.handshakes,
                responses: std::array::from_fn(|i| now.responses[i] - then.responses[i]),
                completed: now.completed - then.completed,
                wrong_bytes: now.wrong_bytes - then.wrong_bytes,
                wrong_checksum: now.wrong_checksum - then.wrong_checksum,
                resets: now.resets - then.resets,
                unexpected: now.unexpected - then.unexpected,
                foreign: now.foreign - then.foreign,
                other: now.other - then.other,
                unsent: now.unsent - then.unsent,
                acknowledgements: now.acknowledgements - then.acknowledgements,
            },
            begun: self.begun - earlier.begun,
            lost: self.lost - earlier.lost,
        }
    }

    /// SYNs, whoever has sent them.
    pub fn syns(&self) -> u64 {
        self.begun + self.seen.opened
    }
}

/// The crowd at its end of a wire. Dropping it takes its program off.
pub struct Generator {
    crowd: Crowd,
    // Held for its program and its maps.
    ebpf: Ebpf,
    slots: Array<MapData, Slot>,
    setup: Array<MapData, Crowd>,
    frames: Frames,
    begun: u64,
    lost: u64,
    looks: Vec<(u32, u32)>,
}

impl Generator {
    /// Attaches the crowd to its end of the wire.
    pub fn attach(namespace: &Namespace, wire: &Wire, plan: &Plan) -> Result<Self> {
        let most = MOST_CLIENTS;
        ensure!((1..=most).contains(&plan.clients), "a wire has addresses for 1 to {most} clients");
        ensure!((1..=crowd::MAX_SLOTS).contains(&plan.in_flight), "1 to {} exchanges in flight", crowd::MAX_SLOTS);
        let crowd = Crowd {
            client_v6: addresses::client_v6(wire.number).octets(),
            server_v6: plan.server.1.octets(),
            client_v4: addresses::client_v4(wire.number).octets(),
            server_v4: plan.server.0.octets(),
            gateway: wire.gateway_mac(),
            families: plan.families,
            verifies_checksums: u8::from(plan.verifies_checksums),
            first_client: 0,
            clients: plan.clients,
            slots: plan.in_flight,
            rounds: 0,
            probe_every: plan.probe_every,
            request_flags: 0,
        };
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("SLOTS", plan.in_flight)
            .load(object::CLIENTS)
            .context("cannot load the crowd's program")?;
        let mut requests: Array<_, [u8; REQUEST_LEN]> = take(&mut ebpf, "REQUESTS")?;
        let mut expected: Array<_, Expected> = take(&mut ebpf, "EXPECTED")?;
        for (kind, question) in (0..).zip(&plan.questions) {
            requests.set(kind, request(question.target, question.host)?, 0)?;
            for (family, response) in [Family::V4, Family::V6].into_iter().zip(&question.responses) {
                expected.set(kind * 2 + family as u32, response.expected()?, 0)?;
            }
        }
        let slots = take(&mut ebpf, "SLOTS")?;
        let setup = take(&mut ebpf, "CROWD")?;
        let program: &mut Xdp = ebpf.program_mut("crowd").context("no program `crowd`")?.try_into()?;
        program.load().context("the kernel refuses the crowd's program")?;
        let (interface, program) = (wire.clients.as_str(), program);
        let frames = namespace.enter(|| {
            program.attach(interface, XdpMode::Driver).context("cannot attach the crowd")?;
            Ok(Frames::open_for_sending(interface, 8 << 20)?)
        })?;
        let looks = vec![(0, 0); plan.in_flight as usize];
        Ok(Self { crowd, ebpf, slots, setup, frames, begun: 0, lost: 0, looks })
    }

    /// Begins as many exchanges as may be in flight; each slot then makes so many, one after the other.
    pub fn begin(&mut self, rounds: u32) -> Result<()> {
        ensure!(rounds > 0, "nothing to do");
        self.set_rounds(rounds)?;
        for number in 0..self.crowd.slots {
            // Never the same connection twice, however often it begins.
            let round = self.slots.get(&number, 0)?.round;
            ensure!(round < rounds, "slot {number} has made all its exchanges already");
            self.open(number, round, 0)?;
        }
        Ok(())
    }

    /// Whether the requests are such as the gate answers by itself. To be called while none is in flight.
    pub fn can_be_known(&mut self, known: bool) {
        self.crowd.request_flags = if known { 0 } else { Crowd::CWR };
    }

    /// Lets each of these clients make at least so many exchanges, and waits until they have; an error if that takes longer than the limit.
    pub fn ask(&mut self, first: u32, clients: u32, exchanges: u32, limit: Duration) -> Result<()> {
        ensure!(clients > 0 && first.checked_add(clients).is_some_and(|end| end <= MOST_CLIENTS), "no such clients");
        (self.crowd.first_client, self.crowd.clients) = (first, clients);
        // As many consecutive numbers as there are clients name each client once.
        let rounds = (clients * exchanges).div_ceil(self.crowd.slots);
        self.begin(self.rounds()? + rounds)?;
        ensure!(self.go_on(limit)?, "exchanges are still in flight after {limit:?}");
        Ok(())
    }

    /// How many rounds each slot has made, at most.
    pub fn rounds(&self) -> Result<u32> {
        let mut most = 0;
        for number in 0..self.crowd.slots {
            most = most.max(self.slots.get(&number, 0)?.round);
        }
        Ok(most)
    }

    /// Lets the exchanges go on for so long, and begins again those that are stuck; returns early when all are done.
    pub fn go_on(&mut self, time: Duration) -> Result<bool> {
        let end = Instant::now() + time;
        let mut pause = FIRST_LOOK;
        loop {
            // What is not looked after at even intervals must not be taken for stuck.
            let all_done = if pause == LOOK_EVERY { self.look()? } else { self.is_done()? };
            let left = end.saturating_duration_since(Instant::now());
            if all_done || left.is_zero() {
                return Ok(all_done);
            }
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(LOOK_EVERY);
        }
    }

    /// Begins no more, and waits for those in flight.
    pub fn finish(&mut self) -> Result<()> {
        self.set_rounds(0)?;
        if !self.go_on(DRAIN)? {
            bail!("exchanges are still in flight after {DRAIN:?}");
        }
        Ok(())
    }

    /// Whether all slots have made all their exchanges.
    fn is_done(&self) -> Result<bool> {
        for number in 0..self.crowd.slots {
            if self.slots.get(&number, 0)?.phase != phase::DONE {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Looks after every slot; whether all have made all their exchanges.
    fn look(&mut self) -> Result<bool> {
        let mut all_done = true;
        for number in 0..self.crowd.slots {
            let slot = self.slots.get(&number, 0)?;
            if slot.phase == phase::DONE {
                continue;
            }
            all_done = false;
            let (moves, looks) = &mut self.looks[number as usize];
            if *moves != slot.moves {
                (*moves, *looks) = (slot.moves, 0);
                continue;
            }
            *looks += 1;
            if *looks < LOOKS_UNTIL_STUCK {
                continue;
            }
            *looks = 0;
            self.lost += 1;
            let round = slot.round + 1;
            if round < self.crowd.rounds {
                self.open(number, round, slot.moves)?;
            } else {
                self.slots.set(number, Slot { round, phase: phase::DONE, ..slot }, 0)?;
            }
        }
        Ok(all_done)
    }

    fn open(&mut self, number: u32, round: u32, moves: u32) -> Result<()> {
        let began_ns = monotonic_ns();
        let slot = Slot { began_ns, round, phase: phase::OPENING, server_next: 0, moves: moves.wrapping_add(1) };
        self.slots.set(number, slot, 0)?;
        self.begun += 1;
        let flow = self.crowd.flow(number, round);
        let segment = Segment { seq: flow.isn, ack: None, fin: false, request: None };
        let frame = match flow.family {
            Family::V4 => {
                let Head { ethernet, network, tcp } = self.crowd.head_v4(&flow, &segment);
                [&ethernet[..], &network, &tcp, &crowd::SYN_OPTION, &[0; 2]].concat()
            }
            Family::V6 => {
                let Head { ethernet, network, tcp } = self.crowd.head_v6(&flow, &segment);
                [&ethernet[..], &network, &tcp, &crowd::SYN_OPTION].concat()
            }
        };
        self.frames.send(&frame).context("cannot send a SYN")
    }

    fn set_rounds(&mut self, rounds: u32) -> Result<()> {
        self.crowd.rounds = rounds;
        Ok(self.setup.set(0, self.crowd, 0)?)
    }

    /// What has been seen so far.
    pub fn tally(&self) -> Result<Tally> {
        let map: PerCpuArray<_, Seen> = self.ebpf.map("SEEN").context("no map SEEN")?.try_into()?;
        let mut seen = Seen::default();
        for one in map.get(&0, 0)?.iter() {
            seen.opened += one.opened;
            seen.handshakes += one.handshakes;
            for (sum, n) in seen.responses.iter_mut().zip(one.responses) {
                *sum += n;
            }
            seen.completed += one.completed;
            seen.wrong_bytes += one.wrong_bytes;
            seen.wrong_checksum += one.wrong_checksum;
            seen.resets += one.resets;
            seen.unexpected += one.unexpected;
            seen.foreign += one.foreign;
            seen.other += one.other;
            seen.unsent += one.unsent;
            seen.acknowledgements += one.acknowledgements;
        }
        Ok(Tally { seen, begun: self.begun, lost: self.lost })
    }

    /// How long exchanges took from the SYN to the checked response, by share of them: the duration that so many parts of one were below.
    pub fn latency(&self, shares: &[f64]) -> Result<Vec<Duration>> {
        let map: PerCpuArray<_, u64> = self.ebpf.map("TOOK").context("no map TOOK")?.try_into()?;
        let counts: Vec<u64> =
            (0..crowd::TIMES).map(|i| Ok(map.get(&i, 0)?.iter().sum())).collect::<Result<_, aya::maps::MapError>>()?;
        let total: u64 = counts.iter().sum();
        let at = |share: f64| {
            let wanted = (total as f64 * share).ceil() as u64;
            let mut below = 0;
            let bucket = counts.iter().position(|count| {
                below += count;
                below >= wanted
            });
            Duration::from_nanos(crowd::bucket_start(bucket.unwrap_or_default() as u32 + 1))
        };
        Ok(shares.iter().map(|share| at(*share)).collect())
    }

    /// The last response that was wrong, as text.
    pub fn wrong_sample(&self) -> Result<String> {
        let map: Array<_, [u64; RESPONSE_WORDS]> = self.ebpf.map("WRONG").context("no map WRONG")?.try_into()?;
        let bytes: Vec<u8> = map.get(&0, 0)?.iter().flat_map(|word| word.to_ne_bytes()).collect();
        Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned())
    }
}

fn take<M: TryFrom<aya::maps::Map, Error = aya::maps::MapError>>(ebpf: &mut Ebpf, name: &str) -> Result<M> {
    Ok(ebpf.take_map(name).with_context(|| format!("the crowd's object has no map {name}"))?.try_into()?)
}

fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_one_length_and_ends_as_requests_do() {
        for (target, host) in [("/", "www.example.com"), ("/generate_204", "connectivitycheck.gstatic.com")] {
            let bytes = request(target, host).expect("it fits");
            assert!(bytes.starts_with(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n").as_bytes()));
            assert!(bytes.ends_with(b"x\r\n\r\n"));
        }
        assert!(request(&"/".repeat(90), "a").is_err());
    }

    #[test]
    fn ignored_bytes_have_no_mask_and_all_others_have_one() {
        let expected = Response { bytes: (0..21).collect(), ignored: 3..9 }.expected().expect("it fits");
        let masks: Vec<u8> = expected.words.iter().flat_map(|[_, mask]| mask.to_ne_bytes()).collect();
        for (at, mask) in masks.iter().enumerate() {
            assert_eq!(*mask, if at < 21 && !(3..9).contains(&at) { 0xff } else { 0 }, "byte {at}");
        }
        assert_eq!(expected.length, 21);
    }
}
