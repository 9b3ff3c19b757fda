//! Target: the bytes of a request, cut into segments, to the answer.
//!
//! The first byte's lowest bit says which of two clients sends them:
//! - an *honest* one is a TCP sender that cuts, loses, delays, and repeats as RFC 9293 and RFC 6298 let it. Whatever it does, it gets the
//!   answer that its whole stream would have got at once, and no other.
//! - a *hostile* one sends what it likes, as several clients at once, within a small memory.
//!
//! Of both: no panic; every reply is well-formed, goes back the way its cause came, and carries nothing or one of the answers.

use std::{
    collections::VecDeque,
    sync::{Arc, LazyLock},
};

use portal_common::{
    cookie::{ALERT_LEN, RESPONSE_MAX},
    flag,
};
use portal_userspace::responder::{
    Policies, Policy,
    answers::{Answers, Choice, Status},
    exchange::Exchange,
    probes::Probes,
    reassembly::{Judge as _, Limits},
    segment::Segment,
    tls,
};

use crate::{
    client::{Client, Flags, Identity, START_NS, keys},
    input::Input,
    reply,
};

const MS: u64 = 1_000_000;
/// A segment's data at most: some are longer than what the gate redirects.
const SEGMENT_MAX: usize = 1800;
/// RFC 6298 section 2.4 asks for a second, Linux uses 200 ms.
const RETRANSMISSION_MS: u64 = 250;
/// RFC 8985 section 7.2: two round trips.
const PROBE_MS: u64 = 20;
/// How long the network may delay a segment. One that comes later than the responder's patience with what has lost its beginning, and a second
/// time at that, gets the plain answer: a limit that the responder's documentation names.
const DELAY_MS: u64 = 400;

static POLICY: LazyLock<Policy> = LazyLock::new(|| Policy {
    answers: Answers::new("http://192.0.2.1/", "http://[2001:db8::1]/").expect("valid URLs"),
    probes: Probes::new([]),
});

static POLICIES: LazyLock<Policies> = LazyLock::new(|| {
    let policy = Arc::new(POLICY.clone());
    Policies::new([(0, 0), (7, 0), (7, 8)].map(|network| (network, Arc::clone(&policy))))
});

/// Runs one input.
///
/// # Panics
/// If something is wrong with the responder.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let shape = input.byte();
    let identity =
        Identity { number: 1, ipv6: shape & 2 != 0, tls: shape & 4 != 0, tags: shape >> 3 & 3, isn: input.long() };
    if shape & 1 == 0 {
        honest(identity, if shape & 0x20 != 0 { Fin::Sent } else { Fin::Never }, input);
    } else {
        hostile(identity, input);
    }
}

/// What came back for a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Sent {
    Acknowledgement,
    Answer(Vec<u8>),
    Fin,
}

/// Gives the responder a frame and judges what it sends back: the acknowledgement number, and the content.
fn give(exchange: &mut Exchange, frame: &[u8], now_ns: u64) -> Option<(u32, Sent)> {
    let reply = exchange.receive(frame, &POLICIES, &keys(), now_ns).ok()?;
    let mut sent = vec![0xaa; reply.frame_length()];
    reply.write(&mut sent);
    let (tcp, payload) = reply::segment(frame, &sent);
    let cause = Segment::read(frame).expect("only a segment is answered");
    assert_eq!(cause.flags & (flag::SYN | flag::RST | flag::ACK), flag::ACK, "what is answered");
    assert_eq!(tcp.sequence_number, cause.ack, "our stream begins where the client says");
    assert!(tcp.ack && !tcp.syn && !tcp.rst && !tcp.urg);
    assert!(payload.len() <= RESPONSE_MAX);
    let sent = match (tcp.fin, payload.is_empty()) {
        (false, true) => Sent::Acknowledgement,
        (true, true) => Sent::Fin,
        (true, false) => Sent::Answer(payload),
        (false, false) => panic!("an answer without FIN"),
    };
    if let Sent::Answer(payload) = &sent {
        let ours = POLICY.answers.all().any(|answer| answer.bytes() == payload);
        assert!(ours, "nothing of a request is reflected: {:?}", String::from_utf8_lossy(payload));
        let is_tls = cause.path.tuple().destination_port == 443;
        assert_eq!(payload.len() == ALERT_LEN, is_tls, "the answer is of the port's protocol");
    }
    Some((tcp.acknowledgment_number, sent))
}

/// How an honest client ends its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fin {
    Never,
    Sent,
}

/// A part of an honest client's stream, as a segment.
#[derive(Clone, Copy, Debug)]
struct Part {
    offset: usize,
    length: usize,
    flags: Flags,
}

/// An honest client: RFC 9293's sender, and what the network does to its segments.
struct Sender<'a> {
    exchange: Exchange,
    client: Client,
    stream: &'a [u8],
    /// The stream has a FIN.
    fin: bool,
    /// Up to where the stream is acknowledged; a FIN counts as one more byte.
    acknowledged: usize,
    /// Up to where it was sent at least once.
    sent: usize,
    /// The segment that was sent last, if it may be repeated as a tail loss probe: once, and before any timeout.
    probe: Option<Part>,
    /// With the time by which each must arrive.
    on_the_way: VecDeque<(u64, Part)>,
    answers: Vec<Vec<u8>>,
    done: bool,
    mistaken: bool,
    now_ns: u64,
}

impl Sender<'_> {
    /// One more than the stream's bytes, if it has a FIN.
    fn end(&self) -> usize {
        self.stream.len() + usize::from(self.fin)
    }

    /// The next segment from an offset on. A FIN goes with the last bytes, or alone.
    fn part(&self, offset: usize, size: u8, psh: bool, fin_apart: bool) -> Part {
        let length =
            (1 + usize::from(size) * 7).min(SEGMENT_MAX).min(self.stream.len() - offset.min(self.stream.len()));
        let fin = self.fin && offset + length >= self.stream.len() && !(fin_apart && length > 0);
        Part { offset, length, flags: Flags { fin, psh } }
    }

    /// The network delivers a segment; the reply may be lost.
    fn deliver(&mut self, part: Part, reply_is_lost: bool) {
        if self.done {
            return;
        }
        if part.offset > 0 && self.client.is_first(part.offset) {
            // The responder can't know better: a limit that the cookie's documentation names.
            self.mistaken = true;
            return;
        }
        let data = &self.stream[part.offset..part.offset + part.length];
        let frame = self.client.segment(self.client.seq(part.offset), data, part.flags);
        let Some((ack, sent)) = give(&mut self.exchange, &frame, self.now_ns) else { return };
        let acknowledged = ack.wrapping_sub(self.client.seq(0)) as usize;
        assert!(acknowledged <= self.sent, "{acknowledged} bytes are acknowledged, of {} sent", self.sent);
        match sent {
            Sent::Acknowledgement => {}
            Sent::Answer(answer) => {
                self.answers.push(answer);
                self.done = !reply_is_lost;
            }
            Sent::Fin => assert!(self.stream.is_empty(), "closed without an answer"),
        }
        if !reply_is_lost && acknowledged > self.acknowledged {
            self.acknowledged = acknowledged;
            self.probe = None;
        }
    }

    /// Time passes. What is on its way for too long arrives before.
    fn wait(&mut self, ms: u64) {
        let then_ns = self.now_ns + ms * MS;
        while let Some((due_ns, part)) = self.on_the_way.front().copied().filter(|(due_ns, _)| *due_ns < then_ns) {
            self.on_the_way.pop_front();
            self.now_ns = self.now_ns.max(due_ns);
            self.deliver(part, false);
        }
        self.now_ns = then_ns;
    }

    /// What is not acknowledged is sent again from its beginning on.
    fn time_out(&mut self, size: u8, psh: bool, fin_apart: bool) -> Option<Part> {
        self.wait(RETRANSMISSION_MS);
        self.probe = None;
        let part = self.part(self.acknowledged, size, psh, fin_apart);
        (self.acknowledged < self.sent).then_some(part)
    }

    fn note(&mut self, part: Part) {
        self.sent = self.sent.max(part.offset + part.length + usize::from(part.flags.fin));
    }
}

fn honest(identity: Identity, fin: Fin, mut input: Input<'_>) {
    let count = usize::from(input.byte() & 0x1f);
    let mut script = Input(input.take(2 * count));
    // More is not needed to overrun every limit, and would take long.
    let stream = &input.0[..input.0.len().min(20_000)];
    let client = Client::new(identity);
    let mut sender = Sender {
        exchange: Exchange::new(Limits::default(), Arc::default()),
        client,
        stream,
        fin: fin == Fin::Sent,
        acknowledged: 0,
        sent: 0,
        probe: None,
        on_the_way: VecDeque::new(),
        answers: Vec::new(),
        done: false,
        mistaken: false,
        now_ns: START_NS,
    };
    while !script.is_empty() {
        let (operation, size) = (script.byte(), script.byte());
        let (psh, fin_apart) = (operation & 8 != 0, operation & 0x10 != 0);
        let (reply_is_lost, is_lost) = (operation & 0x20 != 0, operation & 0x40 != 0);
        let part = match operation & 7 {
            0..=2 => {
                let part = sender.part(sender.sent, size, psh, fin_apart);
                (sender.sent < sender.end()).then_some(part)
            }
            3 => sender.time_out(size, psh, fin_apart),
            4 => {
                sender.wait(PROBE_MS);
                sender.probe.take()
            }
            5 => {
                sender.wait(size.into());
                // A probe comes before the first timeout.
                sender.probe = None;
                None
            }
            6 => {
                if let Some((_, part)) = sender.on_the_way.pop_front() {
                    sender.deliver(part, reply_is_lost);
                }
                None
            }
            _ => {
                if let Some((_, part)) = sender.on_the_way.pop_back() {
                    sender.deliver(part, reply_is_lost);
                }
                None
            }
        };
        let Some(part) = part else { continue };
        let is_new = part.offset == sender.sent;
        sender.note(part);
        sender.probe = is_new.then_some(part);
        if operation & 0x80 != 0 {
            sender.on_the_way.push_back((sender.now_ns + DELAY_MS * MS, part));
        } else if !is_lost {
            sender.deliver(part, reply_is_lost);
        }
    }
    // From here on nothing is lost.
    while let Some((_, part)) = sender.on_the_way.pop_front() {
        sender.deliver(part, false);
    }
    while !sender.done && !sender.mistaken && sender.acknowledged < sender.end() {
        let before = sender.acknowledged;
        let part = if sender.acknowledged < sender.sent {
            sender.time_out(u8::MAX, true, false).expect("something is not acknowledged")
        } else {
            sender.part(sender.sent, u8::MAX, true, false)
        };
        sender.note(part);
        sender.deliver(part, false);
        assert!(sender.done || sender.mistaken || sender.acknowledged > before, "it goes on");
    }
    if !sender.mistaken {
        let expected = unsplit(identity, stream, sender.fin);
        assert!(sender.answers.iter().all(|answer| Some(answer) == expected.as_ref()), "the unsplit request's answer");
        assert_eq!(sender.done, expected.is_some(), "it is answered if it is complete");
    }
}

/// The answer to the whole stream at once, if that suffices for one.
fn unsplit(identity: Identity, stream: &[u8], fin: bool) -> Option<Vec<u8>> {
    if stream.is_empty() {
        return None;
    }
    let choice = if identity.tls {
        (fin || tls::is_complete(stream)).then_some(Choice { status: Status::Alert, head: false })
    } else {
        POLICY.judge(stream).or_else(|| fin.then(|| POLICY.cut_short(stream)))
    }?;
    let family = Client::new(identity).family();
    Some(POLICY.answers.pick(choice, family).bytes().to_vec())
}

/// Segments at any place, of several clients, with any byte wrong.
fn hostile(identity: Identity, mut input: Input<'_>) {
    let limits = Limits { bytes: 16 << 10, client_bytes: 6 << 10, client_entries: 3 };
    let mut exchange = Exchange::new(limits, Arc::default());
    let mut now_ns = START_NS;
    let mut next = 0;
    while !input.is_empty() {
        let (operation, who) = (input.byte(), input.byte());
        let client = Client::new(Identity {
            number: who & 7,
            tags: identity.tags + (who >> 3 & 1),
            ipv6: identity.ipv6 ^ (who & 0x10 != 0),
            tls: identity.tls ^ (who & 0x20 != 0),
            isn: identity.isn ^ u32::from(who >> 6),
        });
        let seq = match operation & 3 {
            0 => client.seq(0),
            1 => client.seq(next),
            2 => client.seq(usize::from(input.byte())),
            _ => input.long(),
        };
        let length = usize::from(input.word()) % SEGMENT_MAX;
        let data = input.take(length);
        next = if operation & 3 == 1 { next + data.len() } else { data.len() };
        if operation & 4 != 0 {
            now_ns += u64::from(input.byte()) * 50 * MS;
        }
        let flags = Flags { fin: operation & 8 != 0, psh: operation & 0x10 != 0 };
        let mut frame = client.segment(seq, data, flags);
        if operation & 0x20 != 0 {
            let (at, byte) = (usize::from(input.byte()), input.byte());
            let at = at % frame.len();
            frame[at] = byte;
        }
        if operation & 0x40 != 0 {
            frame.truncate(usize::from(input.word()) % (frame.len() + 1));
        }
        if operation & 0x80 != 0 {
            give(&mut exchange, data, now_ns);
        }
        give(&mut exchange, &frame, now_ns);
        assert!(exchange.held_bytes() <= limits.bytes, "the memory is bounded");
    }
}
