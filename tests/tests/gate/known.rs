//! Requests that the gate answers by itself: its bytes are the responder's, and whatever is not just this request goes to the responder.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use portal_common::{
    Family, Reason,
    checksum::Sum,
    cookie::RESPONSE_MAX,
    decide::Action,
    tables::{GateConfig, Zone},
};
use portal_lab::verdicts::{
    frames::{Ack, Cookies, Frame, Ipv4, Ipv6, Network, Payload, Tcp},
    setting::{
        CLIENT_V4, CLIENT_V6, GATEWAY_MAC, LEARN, NESTED, SHADOW, SHADOW_VLAN, SITE_V4, SITE_V6, STRANGER, STRICT,
        Setting, config_of,
    },
};
use portal_userspace::{
    clock,
    datapath::known::{Installed, Learned},
    responder::{
        Policies, Policy,
        answers::{Answers, Choice, Status},
        probes::Probes,
        rehearse,
    },
};

use crate::bench::{Bench, LOOPBACK, action, run_program};

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const CLIENT_ISN: u32 = 0xffff_ff00;

/// A request in its connection's first segment, and what may be different about it.
#[derive(Clone, Debug)]
struct Ask {
    family: Family,
    tags: Vec<(u16, u16)>,
    request: Vec<u8>,
    flags: u8,
    options: u8,
    /// How far behind the stream's beginning it is.
    offset: u32,
    /// Added to what it acknowledges.
    ack_error: u32,
    padding: usize,
}

impl Ask {
    fn new(family: Family, tags: &[(u16, u16)], request: &[u8]) -> Self {
        let (tags, request) = (tags.to_vec(), request.to_vec());
        Self { family, tags, request, flags: PSH | ACK, options: 0, offset: 0, ack_error: 0, padding: 0 }
    }

    fn bytes(&self, cookies: &Cookies) -> Vec<u8> {
        let tcp = Payload::Tcp(Tcp {
            source_port: 50_000,
            destination_port: 80,
            seq: CLIENT_ISN.wrapping_add(1 + self.offset),
            ack: Ack::Cookie { client_isn: CLIENT_ISN, received: self.ack_error },
            flags: self.flags,
            options: self.options,
            data: self.request.len(),
            data_offset: None,
        });
        let network = match self.family {
            Family::V4 => Network::V4(Ipv4 {
                ttl: 64,
                source: CLIENT_V4,
                destination: SITE_V4,
                options: Vec::new(),
                flags_and_offset: 0x4000,
                length_error: 0,
                bad_checksum: false,
                version_and_ihl: None,
                payload: tcp,
            }),
            Family::V6 => Network::V6(Ipv6 {
                source: CLIENT_V6,
                destination: SITE_V6,
                hop_limit: 64,
                length_error: 0,
                version: 6,
                extensions: Vec::new(),
                payload: tcp,
            }),
        };
        let frame = Frame {
            destination: GATEWAY_MAC,
            source: STRANGER,
            tags: self.tags.clone(),
            network,
            padding: self.padding,
        };
        let mut bytes = frame.to_bytes(cookies);
        let end = bytes.len() - self.padding;
        bytes[end - self.request.len()..end].copy_from_slice(&self.request);
        bytes
    }
}

/// A valid request of this length.
fn request(length: usize) -> Vec<u8> {
    let (head, tail) = (&b"GET / HTTP/1.1\r\nHost: a\r\nX: "[..], &b"\r\n\r\n"[..]);
    [head, &vec![b'x'; length - head.len() - tail.len()], tail].concat()
}

fn policy() -> Policy {
    let url = |host| format!("http://{host}/login");
    Policy {
        answers: Answers::new(&url("192.0.2.1:8080"), &url("[2001:db8:1::1]:8080")).expect("they are URLs"),
        probes: Probes::new([]),
    }
}

/// What frames are called, their tags, their VLANs, and the zone they belong to.
type Place = (&'static str, &'static [(u16, u16)], (u16, u16), Zone);

const NETWORKS: [Place; 4] = [
    ("untagged", &[], (0, 0), LEARN),
    ("with a priority tag", &[(0x8100, 0xe000)], (0, 0), LEARN),
    ("in a VLAN", &[(0x8100, 10)], (10, 0), STRICT),
    ("in a VLAN within a VLAN", &[(0x88a8, 100), (0x8100, 0x6014)], (100, 20), NESTED),
];

struct Known {
    bench: Bench,
    policies: Policies,
}

impl Known {
    fn new() -> Self {
        let policy = Arc::new(policy());
        let networks = NETWORKS.iter().map(|(_, _, vlans, zone)| (*vlans, *zone, Arc::clone(&policy)));
        Self { bench: Bench::new(&Setting::standard(LOOPBACK)), policies: Policies::of_zones(networks) }
    }

    /// Teaches the gate the answer to a request of a zone.
    fn learn(&self, zone: Zone, family: Family, request: &[u8], status: Status) {
        let policy = policy();
        let answer = policy.answers.pick(Choice { status, head: false }, family);
        let (response, sum) = (answer.bytes(), answer.sum());
        let learned = Learned { zone, family, request, response, sum, status: status as u8 };
        assert_ne!(self.bench.maps.known.install(&learned, || true), Installed::No);
    }

    /// What the gate does, what the program that explains says, and what the responder would send.
    fn run(&mut self, ask: &Ask) -> (Done, Done, Option<Vec<u8>>) {
        let run = self.bench.run_known(|cookies| ask.bytes(cookies));
        let rehearsed = rehearse(&run.cause, &self.policies, &run.keys, clock::now_ns()).ok();
        (run.done, run.explained, rehearsed.map(|reply| reply.frame))
    }

    fn given(&self) -> u64 {
        self.bench.maps.known.given().expect("the counters are readable").iter().sum()
    }
}

type Done = (Action, Reason, Vec<u8>);

#[test]
fn a_known_request_gets_the_responders_bytes() {
    let mut known = Known::new();
    let mut given = 0;
    for (where_, tags, _, zone) in NETWORKS {
        for family in [Family::V4, Family::V6] {
            for (length, options, padding) in
                [(32, 0, 0), (33, 3, 9), (96, 0, 0), (255, 10, 1), (511, 3, 0), (512, 0, 0)]
            {
                let sentence = format!("{where_}, {family:?}, {length} bytes, {options} words of options");
                let ask = Ask { options, padding, ..Ask::new(family, tags, &request(length)) };
                let fresh = zone != LEARN || tags.is_empty();
                if fresh {
                    let ((action, reason, _), explained, _) = known.run(&ask);
                    assert_eq!((action, reason), (Action::Redirect, Reason::HttpRequest), "{sentence}");
                    assert_eq!((explained.0, explained.1), (action, reason), "{sentence}");
                }
                known.learn(zone, family, &ask.request, Status::AuthenticationRequired);
                let ((action, reason, frame), explained, reply) = known.run(&ask);
                assert_eq!((action, reason), (Action::Answer, Reason::HttpAnswered), "{sentence}");
                assert_eq!(Some(&frame), reply.as_ref(), "{sentence}: not the responder's bytes");
                assert_eq!(explained, (action, reason, frame), "{sentence}");
                given += 1;
            }
        }
    }
    assert_eq!(known.given(), given, "each is counted by its kind, and what is explained is not");
    let counts = known.bench.maps.known.given().expect("the counters are readable");
    assert_eq!(counts[Status::AuthenticationRequired as usize], given);
}

#[test]
fn the_shortest_request_and_the_longest_response_fit() {
    let mut known = Known::new();
    for (family, response) in [(Family::V4, vec![b'r'; RESPONSE_MAX]), (Family::V6, vec![b'r'; RESPONSE_MAX - 1])] {
        let ask = Ask::new(family, NETWORKS[3].1, b"GET /\r\n0123456789");
        let sum = Sum::new().bytes(&response);
        let request = &ask.request[..];
        let learned = Learned { zone: NESTED, family, request, response: &response, sum, status: 7 };
        assert_eq!(known.bench.maps.known.install(&learned, || true), Installed::Now);
        let ((action, reason, frame), ..) = known.run(&ask);
        assert_eq!((action, reason), (Action::Answer, Reason::HttpAnswered));
        assert!(frame.ends_with(&response));
        let parsed = etherparse::PacketHeaders::from_ethernet_slice(&frame).expect("it is a packet");
        let Some(etherparse::TransportHeader::Tcp(tcp)) = parsed.transport else { panic!("it is no TCP") };
        let checksum = match parsed.net.expect("it is a packet") {
            etherparse::NetHeaders::Ipv4(ip, _) => tcp.calc_checksum_ipv4(&ip, &response),
            etherparse::NetHeaders::Ipv6(ip, _) => tcp.calc_checksum_ipv6(&ip, &response),
            etherparse::NetHeaders::Arp(_) => panic!("it is no IP"),
        };
        assert_eq!(Ok(tcp.checksum), checksum);
    }
}

#[test]
fn whatever_is_not_just_this_request_is_the_responders() {
    const REDIRECTED: (Action, Reason) = (Action::Redirect, Reason::HttpRequest);
    for family in [Family::V4, Family::V6] {
        let mut known = Known::new();
        let asked = request(100);
        known.learn(LEARN, family, &asked, Status::Redirect);
        let right = Ask::new(family, &[], &asked);
        let other_family = if family == Family::V4 { Family::V6 } else { Family::V4 };
        let changed = |at: usize| {
            let mut request = asked.clone();
            request[at] ^= 1;
            Ask::new(family, &[], &request)
        };
        let table = [
            ("its first byte differs", changed(0), REDIRECTED),
            ("its last byte differs", changed(99), REDIRECTED),
            ("a byte in the middle differs", changed(57), REDIRECTED),
            ("it is a byte shorter", Ask::new(family, &[], &asked[..99]), REDIRECTED),
            ("it is a byte longer", Ask::new(family, &[], &[&asked[..], b"\0"].concat()), REDIRECTED),
            ("it is in another zone", Ask::new(family, &[(0x8100, 10)], &asked), REDIRECTED),
            ("it is of the other family", Ask::new(other_family, &[], &asked), REDIRECTED),
            ("the client closes with it", Ask { flags: PSH | ACK | FIN, ..right.clone() }, REDIRECTED),
            ("more is to come", Ask { flags: ACK, ..right.clone() }, REDIRECTED),
            ("it has another flag", Ask { flags: PSH | ACK | 0x20, ..right.clone() }, REDIRECTED),
            ("it is not the stream's beginning", Ask { offset: 1000, ..right.clone() }, REDIRECTED),
            (
                "its client has the answer",
                Ask { ack_error: 300, ..right.clone() },
                (Action::Answer, Reason::HttpAcknowledged),
            ),
            ("its cookie is wrong", Ask { ack_error: 1 << 20, ..right.clone() }, (Action::Answer, Reason::HttpForeign)),
        ];
        for (sentence, ask, expected) in table {
            let ((action, reason, frame), explained, _) = known.run(&ask);
            assert_eq!((action, reason), expected, "{sentence}, {family:?}");
            assert_eq!(explained, (action, reason, frame), "{sentence}, {family:?}");
        }
        assert_eq!(known.given(), 0);
        let ((action, reason, _), ..) = known.run(&right);
        assert_eq!((action, reason), (Action::Answer, Reason::HttpAnswered), "the request itself, {family:?}");

        let capturing = config_of(LEARN).with_capturing(true);
        known.bench.configure(LEARN, capturing);
        let ((action, reason, _), explained, _) = known.run(&right);
        assert_eq!((action, reason), REDIRECTED, "while clients are captured");
        assert_eq!((explained.0, explained.1), REDIRECTED, "while clients are captured");
        known.bench.configure(LEARN, config_of(LEARN));

        assert!(known.bench.maps.known.begin_rewriting(LEARN, family, &asked));
        let ((action, reason, _), ..) = known.run(&right);
        assert_eq!((action, reason), REDIRECTED, "while its row is written");
        known.learn(LEARN, family, &asked, Status::AuthenticationRequired);
        assert_eq!(known.run(&right).0.1, Reason::HttpAnswered, "once it is written");
        known.bench.maps.known.change(|| ());
        assert_eq!((known.run(&right).0.0, known.run(&right).0.1), REDIRECTED, "after a change of policies");
    }
}

#[test]
fn in_shadow_mode_nothing_is_answered() {
    let mut known = Known::new();
    let ask = Ask::new(Family::V4, &[(0x8100, SHADOW_VLAN)], &request(80));
    known.learn(SHADOW, Family::V4, &ask.request, Status::Redirect);
    let (done, explained, _) = known.run(&ask);
    assert_eq!((done.0, done.1), (Action::Pass, Reason::HttpRequest));
    assert_eq!((explained.0, explained.1), (Action::Redirect, Reason::HttpRequest));
    let config: GateConfig = config_of(SHADOW).with_shadow(false);
    known.bench.configure(SHADOW, config);
    assert_eq!(known.run(&ask).0.1, Reason::HttpAnswered, "there is something to answer with");
}

/// Rows are written and rewritten while the gate answers from them: an answer is whole, and of one row.
#[test]
fn an_answer_is_never_a_mixture_of_two() {
    let mut known = Known::new();
    let asked = request(100);
    let ask = Ask::new(Family::V4, &[], &asked);
    let kinds: Vec<Vec<u8>> = [b'a', b'b'].map(|byte| vec![byte; 1100]).to_vec();
    let (mut answered, mut others) = (0, 0);
    for turn in 0..200 {
        let done = AtomicBool::new(false);
        let cause = known.bench.make(|cookies| ask.bytes(cookies));
        let (gate, table) = known.bench.gate_and_known();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut n = turn;
                while !done.load(Ordering::Relaxed) {
                    let response = &kinds[n % 2];
                    let (zone, family, request) = (LEARN, Family::V4, &asked[..]);
                    let sum = Sum::new().bytes(response);
                    table.install(&Learned { zone, family, request, response, sum, status: 6 }, || true);
                    n += 1;
                }
            });
            for _ in 0..100 {
                let (value, frame) = run_program(gate, &cause);
                if action(value) == Action::Answer {
                    answered += 1;
                    assert!(kinds.iter().any(|kind| frame.ends_with(kind)), "a mixture");
                } else {
                    others += 1;
                }
            }
            done.store(true, Ordering::Relaxed);
        });
    }
    println!("{answered} answered, {others} while the row was written");
    assert!(answered > 0 && others > 0);
}
