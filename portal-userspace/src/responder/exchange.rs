//! One frame in, at most one frame out: the responder without its sockets and its clock.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use portal_common::{
    cookie::{Phase, phase},
    flag,
    tables::CookieKeys,
};

use super::{
    answers::{Choice, Status},
    policies::{Policies, Policy, Vlans},
    probes::ProbeAnswer,
    reassembly::{Judge, Limits, Piece, Reaction, Reassembly, Tally},
    request::{self, Method, Reading, Refusal},
    segment::{Content, Reply, Segment},
    tls,
};

/// What one worker has done since it began. Only that worker writes; anybody may read.
#[derive(Debug, Default)]
pub struct Stats {
    answered: [AtomicU64; Status::ALL.len()],
    acknowledged: AtomicU64,
    closed: AtomicU64,
    ignored: AtomicU64,
    orphans: AtomicU64,
    orphans_answered: AtomicU64,
    over_budget: AtomicU64,
    evictions: AtomicU64,
    abandoned: AtomicU64,
    pub(super) tx_retries: AtomicU64,
}

/// A reading of one worker's, or several workers', [`Stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Answers sent, in the order of [`Status::ALL`].
    pub answered: [u64; Status::ALL.len()],
    /// Bare acknowledgements sent, for requests in several segments.
    pub acknowledged: u64,
    /// Connections closed because the client closed them without a request.
    pub closed: u64,
    /// Frames that got nothing: no segment of a live exchange, or one that waits for an earlier one.
    pub ignored: u64,
    /// Later segments that came without their first.
    pub orphans: u64,
    /// Those of them that got the plain 511, because their first had been lost on our side.
    pub orphans_answered: u64,
    /// Requests that got the plain 511 because the memory for partial requests was spent.
    pub over_budget: u64,
    /// Finished entries that made room for others.
    pub evictions: u64,
    /// Partial requests given up, because nothing more came.
    pub abandoned: u64,
    /// Calls to send that the kernel refused for the moment (EAGAIN, EBUSY, ENOBUFS).
    pub tx_retries: u64,
}

impl Stats {
    /// Reads the counters, each by itself.
    pub fn snapshot(&self) -> Snapshot {
        let Self {
            answered,
            acknowledged,
            closed,
            ignored,
            orphans,
            orphans_answered,
            over_budget,
            evictions,
            abandoned,
            tx_retries,
        } = self;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Snapshot {
            answered: std::array::from_fn(|i| read(&answered[i])),
            acknowledged: read(acknowledged),
            closed: read(closed),
            ignored: read(ignored),
            orphans: read(orphans),
            orphans_answered: read(orphans_answered),
            over_budget: read(over_budget),
            evictions: read(evictions),
            abandoned: read(abandoned),
            tx_retries: read(tx_retries),
        }
    }

    fn note(&self, tally: Tally) {
        let Tally { orphans, orphans_answered, over_budget, evictions, abandoned } = tally;
        self.orphans.store(orphans, Ordering::Relaxed);
        self.orphans_answered.store(orphans_answered, Ordering::Relaxed);
        self.over_budget.store(over_budget, Ordering::Relaxed);
        self.evictions.store(evictions, Ordering::Relaxed);
        self.abandoned.store(abandoned, Ordering::Relaxed);
    }
}

impl std::ops::AddAssign for Snapshot {
    fn add_assign(&mut self, other: Self) {
        let Self {
            answered,
            acknowledged,
            closed,
            ignored,
            orphans,
            orphans_answered,
            over_budget,
            evictions,
            abandoned,
            tx_retries,
        } = other;
        for (sum, n) in self.answered.iter_mut().zip(answered) {
            *sum += n;
        }
        self.acknowledged += acknowledged;
        self.closed += closed;
        self.ignored += ignored;
        self.orphans += orphans;
        self.orphans_answered += orphans_answered;
        self.over_budget += over_budget;
        self.evictions += evictions;
        self.abandoned += abandoned;
        self.tx_retries += tx_retries;
    }
}

/// A client: a station within its network. The tags' priorities don't count: a client could have a share of the memory with each.
type Station = ([u8; 6], Vlans);

/// One of its connections. Our sequence number is part of it, so that a connection that uses the same ports again is
/// another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Connection {
    tuple: portal_common::cookie::FourTuple,
    ack: u32,
}

/// Why a frame gets nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// See [`Segment::read`].
    #[error("it is not a whole TCP segment")]
    NoSegment,
    /// There is no policy for its VLAN tags.
    #[error("no guest network has its VLAN tags")]
    UnknownNetwork,
    /// It opens or resets a connection, or acknowledges nothing.
    #[error("only segments of an open connection are answered here")]
    NotOpen,
    /// A bare acknowledgement.
    #[error("it carries neither data nor the end of the client's stream")]
    SaysNothing,
    /// It acknowledges nothing that the gate has sent, or something too old.
    #[error("its acknowledgement number is no valid cookie")]
    NoCookie,
    /// The client has its answer. The gate acknowledges what still comes.
    #[error("the client has received its answer already")]
    HasAnswer,
    /// A later segment than the next that is needed, or one that comes after the request.
    #[error("an earlier segment is missing, or the answer is under way")]
    Waits,
}

/// Answers the frames of one receive queue.
pub struct Exchange {
    reassembly: Reassembly<Station, Connection, Choice>,
    stats: Arc<Stats>,
}

impl Exchange {
    /// Spends no more memory than this on requests in several segments, and counts here.
    pub fn new(limits: Limits, stats: Arc<Stats>) -> Self {
        Self { reassembly: Reassembly::new(limits), stats }
    }

    /// How much of its memory is taken, bytes.
    pub fn held_bytes(&self) -> usize {
        self.reassembly.bytes()
    }

    /// What goes back for this frame by these policies, or why nothing does. `now_ns` is `CLOCK_MONOTONIC` in nanoseconds.
    pub fn receive<'p>(
        &mut self,
        frame: &[u8],
        policies: &'p Policies,
        keys: &CookieKeys,
        now_ns: u64,
    ) -> Result<Reply<'p>, Silence> {
        let reply = self.decide(frame, policies, keys, now_ns);
        self.stats.note(self.reassembly.tally());
        let counter = match &reply {
            Ok(Reply { content: Content::Answer(answer), .. }) => &self.stats.answered[answer.status() as usize],
            Ok(Reply { content: Content::Nothing, .. }) => &self.stats.acknowledged,
            Ok(Reply { content: Content::Fin, .. }) => &self.stats.closed,
            Err(_) => &self.stats.ignored,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        reply
    }

    fn decide<'p>(
        &mut self,
        frame: &[u8],
        policies: &'p Policies,
        keys: &CookieKeys,
        now_ns: u64,
    ) -> Result<Reply<'p>, Silence> {
        let segment = Segment::read(frame).ok_or(Silence::NoSegment)?;
        let vlans = segment.path.vlans();
        let policy = policies.of(vlans).ok_or(Silence::UnknownNetwork)?;
        if segment.flags & (flag::SYN | flag::RST | flag::ACK) != flag::ACK {
            return Err(Silence::NotOpen);
        }
        let fin = segment.flags & flag::FIN != 0;
        // Data of which nothing was captured is none.
        if segment.data.is_empty() && !(fin && segment.length == 0) {
            return Err(Silence::SaysNothing);
        }
        let tuple = segment.path.tuple();
        // The gate has checked the cookie already. Here it tells whether this segment is the first.
        let first = match phase(keys, &tuple, segment.seq, segment.ack, now_ns) {
            Some(Phase::Request { first }) => first,
            Some(Phase::Answered) => return Err(Silence::HasAnswer),
            None => return Err(Silence::NoCookie),
        };
        let piece = Piece {
            seq: segment.seq,
            bytes: segment.data,
            length: segment.length,
            fin,
            push: segment.flags & flag::PSH != 0,
            first,
        };
        let station = (segment.path.client_mac(), vlans);
        let connection = Connection { tuple, ack: segment.ack };
        let reaction = if tuple.is_tls() {
            self.reassembly.receive(station, connection, piece, now_ns, &Tls)
        } else {
            self.reassembly.receive(station, connection, piece, now_ns, policy)
        };
        let (content, ack) = match reaction {
            Reaction::Answer { answer, ack } => {
                (Content::Answer(policy.answers.pick(answer, segment.path.family())), ack)
            }
            Reaction::Acknowledge { ack } => (Content::Nothing, ack),
            Reaction::Close { ack } => (Content::Fin, ack),
            Reaction::Ignore => return Err(Silence::Waits),
        };
        Ok(Reply { path: segment.path, seq: segment.ack, ack, content })
    }
}

/// Judges what comes on port 443: whatever it is, and whatever becomes of it, it gets the alert.
struct Tls;

impl Tls {
    const ALERT: Choice = Choice { status: Status::Alert, head: false };
}

impl Judge for Tls {
    type Answer = Choice;

    fn judge(&self, bytes: &[u8]) -> Option<Choice> {
        tls::is_complete(bytes).then_some(Self::ALERT)
    }

    fn cut_short(&self, _: &[u8]) -> Choice {
        Self::ALERT
    }

    fn plain(&self, _: &[u8]) -> Choice {
        Self::ALERT
    }
}

/// Judges HTTP.
impl Judge for Policy {
    type Answer = Choice;

    fn judge(&self, bytes: &[u8]) -> Option<Choice> {
        match request::read(bytes) {
            Reading::Incomplete => None,
            Reading::Complete { method, host, path } => {
                let head = method == Method::Head;
                let answer = match method {
                    Method::Get | Method::Head => self.probes.answer(host, path),
                    Method::Other => ProbeAnswer::AuthenticationRequired,
                };
                let status = match answer {
                    ProbeAnswer::Success => Status::Success,
                    ProbeAnswer::Redirect => Status::Redirect,
                    ProbeAnswer::AuthenticationRequired => Status::AuthenticationRequired,
                };
                Some(Choice { status, head })
            }
            Reading::Refused { refusal, method } => {
                let status = match refusal {
                    Refusal::BadRequest => Status::BadRequest,
                    Refusal::TargetTooLong => Status::TargetTooLong,
                    Refusal::FieldsTooLarge => Status::FieldsTooLarge,
                    Refusal::Version => Status::VersionNotSupported,
                };
                Some(Choice { status, head: method == Method::Head })
            }
        }
    }

    /// RFC 9112 section 8: an incomplete request may get an error before the connection is closed.
    fn cut_short(&self, bytes: &[u8]) -> Choice {
        Choice { status: Status::BadRequest, ..self.plain(bytes) }
    }

    fn plain(&self, bytes: &[u8]) -> Choice {
        Choice { status: Status::AuthenticationRequired, head: bytes.starts_with(b"HEAD ") }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use portal_common::{
        cookie::{self, SLOT_NS},
        siphash::Key,
    };
    use proptest::prelude::*;

    use super::{
        super::{
            answers::{Answers, Family},
            heap_tests,
            policies::{SharedPolicies, UNTAGGED},
            probes::Probes,
            request::tests::nearly_a_request,
            segment::tests::{frame, tcp, verify},
            tls::tests::client_hellos,
        },
        *,
    };

    const NOW: u64 = 5 * SLOT_NS;
    const MS: u64 = 1_000_000;

    fn keys() -> CookieKeys {
        CookieKeys::new(std::array::from_fn(|i| Key([i as u64 + 1, 99])))
    }

    fn policy() -> &'static Policy {
        static POLICY: LazyLock<Policy> = LazyLock::new(|| Policy {
            answers: Answers::new("http://192.0.2.1/", "http://[2001:db8::1]/").unwrap(),
            probes: Probes::new([]),
        });
        &POLICY
    }

    fn policies() -> &'static Policies {
        static POLICIES: LazyLock<Policies> = LazyLock::new(|| Policies::untagged(policy().clone()));
        &POLICIES
    }

    fn exchange() -> Exchange {
        Exchange::new(Limits::default(), Arc::default())
    }

    /// A client with its handshake behind it.
    #[derive(Clone, Copy)]
    struct Client {
        family: Family,
        port: u16,
        isn: u32,
        ack: u32,
    }

    impl Client {
        fn new(family: Family, isn: u32) -> Self {
            Self::of_port(family, 80, isn)
        }

        fn of_port(family: Family, port: u16, isn: u32) -> Self {
            let syn = frame(family, &[], etherparse::TcpHeader { destination_port: port, ..tcp(isn, 0, false) }, b"");
            let tuple = Segment::read(&syn).unwrap().path.tuple();
            Self { family, port, isn, ack: cookie::isn(&keys(), &tuple, isn, NOW).wrapping_add(1) }
        }

        /// The sequence number of this byte of the request.
        fn seq(&self, offset: usize) -> u32 {
            self.isn.wrapping_add(1 + offset as u32)
        }

        fn frame(&self, offset: usize, data: &[u8], fin: bool) -> Vec<u8> {
            let header = tcp(self.seq(offset), self.ack, fin);
            frame(self.family, &[], etherparse::TcpHeader { destination_port: self.port, ..header }, data)
        }
    }

    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Sent {
        Acknowledgement,
        Answer(Vec<u8>),
        Fin,
    }

    /// What came back: the acknowledgement as an offset into the request, and what the segment carries.
    fn send_any(exchange: &mut Exchange, client: &Client, frame: &[u8], now: u64) -> Option<(u32, Sent)> {
        let reply = exchange.receive(frame, policies(), &keys(), now).ok()?;
        let mut sent = vec![0; reply.frame_length()];
        reply.write(&mut sent);
        let (header, payload) = verify(&sent);
        assert_eq!(header.sequence_number, client.ack, "seq = SEG.ACK");
        assert!(!header.rst && !header.syn);
        let sent = match (header.fin, payload.is_empty()) {
            (false, true) => Sent::Acknowledgement,
            (true, false) => Sent::Answer(payload),
            (true, true) => Sent::Fin,
            (false, false) => panic!("an answer without FIN"),
        };
        Some((header.acknowledgment_number.wrapping_sub(client.seq(0)), sent))
    }

    /// As [`send_any`], where no bare FIN may come: the payload, which an acknowledgement has none of.
    fn send(exchange: &mut Exchange, client: &Client, frame: &[u8], now: u64) -> Option<(u32, Vec<u8>)> {
        match send_any(exchange, client, frame, now)? {
            (ack, Sent::Acknowledgement) => Some((ack, Vec::new())),
            (ack, Sent::Answer(payload)) => Some((ack, payload)),
            (_, Sent::Fin) => panic!("closed without an answer"),
        }
    }

    /// Whether a segment with these numbers is taken for the first one: rightly, or seldom wrongly (see `Phase`).
    fn is_first(client: &Client, offset: usize) -> bool {
        let path = Segment::read(&client.frame(0, b"", false)).unwrap().path;
        let phase = phase(&keys(), &path.tuple(), client.seq(offset), client.ack, NOW);
        matches!(phase, Some(Phase::Request { first: true }))
    }

    fn expected(client: &Client, status: Status, head: bool) -> Vec<u8> {
        policy().answers.pick(Choice { status, head }, client.family).bytes().to_vec()
    }

    #[test]
    fn requests_and_their_answers() {
        use Status::{
            AuthenticationRequired, BadRequest, FieldsTooLarge, Redirect, TargetTooLong, VersionNotSupported,
        };
        let long_target = [&b"GET /"[..], &[b'a'; 8000], b" HTTP/1.1\r\n\r\n"].concat();
        let long_field = [&b"HEAD / HTTP/1.1\r\nX: "[..], &[b'a'; 8192]].concat();
        let table: [(&str, &[u8], Status, bool); 13] = [
            ("a page", b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", AuthenticationRequired, false),
            ("HEAD", b"HEAD / HTTP/1.1\r\nHost: a.example\r\n\r\n", AuthenticationRequired, true),
            ("Android", b"GET /generate_204 HTTP/1.1\r\nHost: a.example\r\n\r\n", Redirect, false),
            ("Android, query", b"GET /generate_204?x HTTP/1.1\r\nHost: a.example\r\n\r\n", Redirect, false),
            ("HEAD of a probe", b"HEAD /generate_204 HTTP/1.1\r\nHost: a.example\r\n\r\n", Redirect, true),
            ("POST to a probe", b"POST /generate_204 HTTP/1.1\r\nHost: a\r\n\r\n", AuthenticationRequired, false),
            ("CONNECT", b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", AuthenticationRequired, false),
            (
                "Windows through a proxy's form",
                b"GET http://www.msftncsi.com/ncsi.txt HTTP/1.1\r\nHost: x\r\n\r\n",
                Redirect,
                false,
            ),
            ("no Host", b"GET / HTTP/1.1\r\n\r\n", BadRequest, false),
            ("TLS on HTTP's port", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", BadRequest, false),
            ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", VersionNotSupported, false),
            ("a long target", &long_target, TargetTooLong, false),
            ("a long field", &long_field, FieldsTooLarge, true),
        ];
        for family in [Family::V4, Family::V6] {
            for (sentence, request, status, head) in table {
                let (mut exchange, client) = (exchange(), Client::new(family, u32::MAX - 700));
                let mut answer = None;
                for (i, part) in request.chunks(1400).enumerate() {
                    assert!(answer.is_none(), "{sentence}: answered early");
                    let (ack, payload) =
                        send(&mut exchange, &client, &client.frame(i * 1400, part, false), NOW).unwrap();
                    assert_eq!(ack as usize, i * 1400 + part.len(), "{sentence}");
                    answer = Some(payload).filter(|payload| !payload.is_empty());
                }
                assert!(answer == Some(expected(&client, status, head)), "{sentence}");
                let kinds = exchange.stats.snapshot().answered;
                assert_eq!((kinds[status as usize], kinds.iter().sum::<u64>()), (1, 1), "{sentence}");
            }
        }
    }

    #[test]
    fn segments_that_get_nothing() {
        let client = Client::new(Family::V4, 7);
        let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let patched = |frame: &[u8], at: usize, byte: u8| [&frame[..at], &[byte], &frame[at + 1..]].concat();
        let with = |change: fn(&mut etherparse::TcpHeader)| {
            let mut header = tcp(client.seq(0), client.ack, false);
            change(&mut header);
            frame(Family::V4, &[], header, get)
        };
        let tagged =
            [&client.frame(0, get, false)[..12], &[0x81, 0, 0, 5], &client.frame(0, get, false)[12..]].concat();
        for (sentence, frame, expected) in [
            ("UDP", patched(&client.frame(0, get, false), 23, 17), Silence::NoSegment),
            ("a VLAN that is nobody's", tagged, Silence::UnknownNetwork),
            ("SYN", with(|tcp| tcp.syn = true), Silence::NotOpen),
            ("RST", with(|tcp| tcp.rst = true), Silence::NotOpen),
            ("no ACK", with(|tcp| tcp.ack = false), Silence::NotOpen),
            ("no data", client.frame(0, b"", false), Silence::SaysNothing),
            ("data that was not captured", client.frame(0, get, false)[..54].to_vec(), Silence::SaysNothing),
            ("FIN behind data that we have not seen", client.frame(get.len(), b"", true), Silence::Waits),
            ("data behind data that we have not seen", client.frame(get.len(), b"x", false), Silence::Waits),
            (
                "RST and FIN without data",
                frame(
                    Family::V4,
                    &[],
                    etherparse::TcpHeader { rst: true, ..tcp(client.seq(0), client.ack, true) },
                    b"",
                ),
                Silence::NotOpen,
            ),
            ("a cookie that is not ours", with(|tcp| tcp.acknowledgment_number ^= 1 << 20), Silence::NoCookie),
            ("the answer is acknowledged", with(|tcp| tcp.acknowledgment_number += 700), Silence::HasAnswer),
            ("another port", with(|tcp| tcp.source_port ^= 1), Silence::NoCookie),
        ] {
            let mut exchange = exchange();
            let silence = exchange.receive(&frame, policies(), &keys(), NOW).err();
            assert_eq!(silence, Some(expected), "{sentence}");
            assert_eq!(exchange.stats.snapshot().ignored, 1, "{sentence}");
        }
        let (request, late) = (client.frame(0, get, false), NOW + 4 * SLOT_NS);
        assert_eq!(exchange().receive(&request, policies(), &keys(), late).err(), Some(Silence::NoCookie), "too old");
        assert!(exchange().receive(&request, policies(), &keys(), NOW + SLOT_NS).is_ok());
    }

    #[test]
    fn each_network_has_its_portal() {
        let portal = |host: &str| {
            let answers = Answers::new(&format!("http://{host}/"), &format!("http://{host}/")).unwrap();
            Arc::new(Policy { answers, probes: Probes::new([]) })
        };
        let networks: [(Vlans, &[u8], &str); 4] = [
            ((0, 0), &[], "plain.example"),
            ((7, 0), &[0x81, 0, 0x60, 7], "seven.example"),
            ((8, 0), &[0x88, 0xa8, 0, 8], "eight.example"),
            ((7, 8), &[0x88, 0xa8, 0, 7, 0x81, 0, 0xa0, 8], "both.example"),
        ];
        let all = |left_out: Option<Vlans>| {
            let rest = networks.iter().filter(|(vlans, ..)| Some(*vlans) != left_out);
            Policies::new(rest.map(|(vlans, _, host)| (*vlans, portal(host))))
        };
        let shared = SharedPolicies::new(all(None));
        let client = Client::new(Family::V4, 7);
        let frame = |tags: &[u8], offset: usize, part: &[u8]| {
            let untagged = client.frame(offset, part, false);
            [&untagged[..12], tags, &untagged[12..]].concat()
        };
        let (head, tail) = (b"GET / HTTP/1.1\r\nHost: a", b"\r\n\r\n");
        let mut exchange = exchange();
        // The same station, ports and sequence numbers in each, one in the middle of another's request.
        for (_, tags, host) in networks {
            let policies = shared.get();
            let reply = exchange.receive(&frame(tags, 0, head), &policies, &keys(), NOW);
            assert!(matches!(reply, Ok(Reply { content: Content::Nothing, .. })), "{host}: {reply:?}");
        }
        for (vlans, tags, host) in networks {
            shared.replace(all(Some(vlans)));
            let gone = exchange.receive(&frame(tags, head.len(), tail), &shared.get(), &keys(), NOW).err();
            assert_eq!(gone, Some(Silence::UnknownNetwork), "{host} was detached");
            shared.replace(all(None));
            let policies = shared.get();
            let reply = exchange.receive(&frame(tags, head.len(), tail), &policies, &keys(), NOW).unwrap();
            let Content::Answer(answer) = reply.content else { panic!("{host}: {reply:?}") };
            let text = String::from_utf8_lossy(answer.bytes());
            assert!(text.contains(&format!("href=\"http://{host}/\"")), "{host}: {text}");
            let mut sent = vec![0; reply.frame_length()];
            reply.write(&mut sent);
            assert_eq!(&sent[12..12 + tags.len()], tags, "{host}: with the tags it came with");
        }
    }

    #[test]
    fn a_half_closing_client_gets_its_answer() {
        let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let (_, hello) = client_hellos().into_iter().next().unwrap();
        let http = (80, &get[..], Status::AuthenticationRequired, Status::BadRequest);
        let tls = (443, &hello[..], Status::Alert, Status::Alert);
        for (family, (port, get, whole, cut_short)) in
            [Family::V4, Family::V6].into_iter().flat_map(|family| [(family, http), (family, tls)])
        {
            let end = get.len();
            // One whose FIN is not taken for a first segment.
            let mut clients = (1..99).map(|isn| Client::of_port(family, port, isn));
            let client = clients.find(|client| !is_first(client, end)).unwrap();
            let fin = client.frame(end, b"", true);
            let plain = |ack: usize| Some((ack as u32, expected(&client, whole, false)));

            let mut exchange = exchange();
            let request = client.frame(0, get, false);
            assert_eq!(send(&mut exchange, &client, &request, NOW), plain(end));
            let kept = exchange.reassembly.len();
            let again = send(&mut exchange, &client, &fin, NOW);
            assert_eq!(again, if kept == 1 { plain(end + 1) } else { None }, "with what PSH left behind");
            assert_eq!(exchange.reassembly.len(), kept);
            assert_eq!(
                send(&mut exchange, &client, &client.frame(0, get, true), NOW + 250 * MS),
                plain(end + 1),
                "joined"
            );

            let mut exchange = self::exchange();
            assert!(send(&mut exchange, &client, &client.frame(0, &get[..9], false), NOW).is_some());
            assert_eq!(send(&mut exchange, &client, &client.frame(9, &get[9..], false), NOW), plain(end));
            assert_eq!(send(&mut exchange, &client, &fin, NOW), plain(end + 1), "in two segments");

            let mut exchange = self::exchange();
            assert!(send(&mut exchange, &client, &client.frame(0, &get[..end - 1], false), NOW).is_some());
            let fin = client.frame(end - 1, b"", true);
            let refused = Some((end as u32, expected(&client, cut_short, false)));
            assert_eq!(send(&mut exchange, &client, &fin, NOW), refused, "cut short");

            let closed = send_any(&mut self::exchange(), &client, &client.frame(0, b"", true), NOW);
            assert_eq!(closed, Some((1, Sent::Fin)), "no request at all");
        }
    }

    #[test]
    fn the_account_of_memory_is_honest() {
        let tuple = Segment::read(&Client::new(Family::V6, 1).frame(0, b"", false)).unwrap().path.tuple();
        let table = [
            ("each request of another client", 1_000_000, 1),
            ("some clients with many requests", 20, 1),
            ("some clients with long requests", 50, 1400),
        ];
        for (kib, (sentence, clients, size)) in
            [16, 64, 1024, 4096].into_iter().flat_map(|kib| table.map(|row| (kib, row)))
        {
            let mut held = 0;
            let mut bytes = b"GET /".to_vec();
            bytes.resize(1400, b'a');
            let peak = heap_tests::peak_of(|| {
                let mut table = Reassembly::new(Limits::per_worker(kib << 10, 1).unwrap());
                for i in 0..5000u32 {
                    let client = (i.wrapping_mul(0x9e37_79b1) % clients).to_be_bytes();
                    let station = ([0, 0, client[0], client[1], client[2], client[3]], UNTAGGED);
                    let connection = Connection { tuple, ack: i };
                    let (bytes, length) = (&bytes[..size], size as u32);
                    let piece = Piece { seq: 0, bytes, length, fin: false, push: true, first: true };
                    table.receive(station, connection, piece, 0, policy());
                    // Some are answered, and make room for others at places all over the maps.
                    if i % 7 < 4 {
                        let end = Piece { seq: length, bytes: b"\n\n", length: 2, first: false, ..piece };
                        table.receive(station, connection, end, 0, policy());
                    }
                    held = held.max(table.bytes());
                }
            });
            eprintln!("{sentence}, {kib} KiB: {held} bytes by the account, {peak} of heap");
            assert!(peak <= held, "{sentence}, {kib} KiB: {held} bytes by the account, {peak} of heap");
            assert!(peak * 3 > held, "{sentence}, {kib} KiB: {held} bytes by the account, only {peak} of heap");
        }
    }

    #[test]
    fn a_restart_between_two_segments_ends_in_511() {
        let client = Client::new(Family::V6, 1);
        let (head, tail) = (b"GET / HTTP/1.1\r\nHost: a", b"\r\n\r\n");
        assert!(send(&mut exchange(), &client, &client.frame(0, head, false), NOW).is_some());
        let mut restarted = exchange();
        let again = client.frame(head.len(), tail, false);
        let mut answers =
            [0, 200, 600, 1400].map(|ms| send(&mut restarted, &client, &again, NOW + ms * MS)).into_iter();
        assert_eq!((answers.next(), answers.next()), (Some(None), Some(None)));
        let plain = Some(((head.len() + tail.len()) as u32, expected(&client, Status::AuthenticationRequired, false)));
        assert!(answers.all(|answer| answer == plain));
    }

    #[test]
    fn whatever_comes_on_443_gets_the_alert_when_it_is_complete() {
        let record =
            |claimed: u16, fragment: usize| [&[22, 3, 1][..], &claimed.to_be_bytes(), &b"x".repeat(fragment)].concat();
        let mut table = vec![
            ("HTTP", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
            ("one byte of it", b"G".to_vec()),
            ("SSL 2.0", b"\x80\x2e\x01\x00\x02".to_vec()),
            ("a handshake that is none", record(400, 400)),
            ("a record as long as TLS permits", record(1 << 14, 1395)),
        ];
        table.extend(client_hellos());
        for family in [Family::V4, Family::V6] {
            for (sentence, request) in &table {
                let (mut exchange, client) = (exchange(), Client::of_port(family, 443, u32::MAX - 700));
                let last = request.chunks(1400).count() - 1;
                for (i, part) in request.chunks(1400).enumerate() {
                    let frame = client.frame(i * 1400, part, false);
                    let expected = if i == last { expected(&client, Status::Alert, false) } else { Vec::new() };
                    assert!(i < last || expected.len() == cookie::ALERT_LEN);
                    let expected = Some(((i * 1400 + part.len()) as u32, expected));
                    assert_eq!(send(&mut exchange, &client, &frame, NOW), expected, "{sentence}");
                    assert_eq!(send(&mut exchange, &client, &frame, NOW + 250 * MS), expected, "{sentence}, again");
                }
                let kinds = exchange.stats.snapshot().answered;
                assert_eq!((kinds[Status::Alert as usize], kinds.iter().sum::<u64>()), (2, 2), "{sentence}");
            }
        }
    }

    #[test]
    fn when_the_memory_is_spent_a_part_of_a_hello_gets_the_alert() {
        let mut exchange = Exchange::new(Limits { client_entries: 1, ..Limits::default() }, Arc::default());
        let [first, second] = [7, 8].map(|isn| Client::of_port(Family::V6, 443, isn));
        let (_, hello) = client_hellos().into_iter().next_back().unwrap();
        assert_eq!(send(&mut exchange, &first, &first.frame(0, &hello[..1400], false), NOW), Some((1400, Vec::new())));
        let alert = Some((1400, expected(&second, Status::Alert, false)));
        assert_eq!(send(&mut exchange, &second, &second.frame(0, &hello[..1400], false), NOW), alert);
        assert_eq!(exchange.stats.snapshot().over_budget, 1);
    }

    /// Request bytes, where they are cut into segments, and in which order those arrive.
    #[derive(Clone, Debug)]
    struct Traffic {
        family: Family,
        port: u16,
        isn: u32,
        bytes: Vec<u8>,
        cuts: Vec<usize>,
        fin: Fin,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Fin {
        None,
        WithData,
        Alone,
    }

    impl Traffic {
        /// Offset, bytes and FIN of each segment.
        fn segments(&self) -> Vec<(usize, &[u8], bool)> {
            let mut cuts = self.cuts.clone();
            cuts.extend([0, self.bytes.len()]);
            cuts.extend((0..self.bytes.len()).step_by(1400));
            cuts.sort_unstable();
            cuts.dedup();
            let last = cuts.len() - 2;
            let data = cuts
                .windows(2)
                .enumerate()
                .map(|(i, cut)| (cut[0], &self.bytes[cut[0]..cut[1]], self.fin == Fin::WithData && i == last));
            data.chain((self.fin == Fin::Alone).then_some((self.bytes.len(), &b""[..], true))).collect()
        }

        /// The answer to the whole request at once; nothing if it does not suffice.
        fn unsplit(&self, client: &Client) -> Option<Vec<u8>> {
            let policy = policy();
            let cut_short = self.fin != Fin::None;
            let choice = match self.port {
                443 => Tls.judge(&self.bytes).or(cut_short.then_some(Tls::ALERT)),
                _ => policy.judge(&self.bytes).or(cut_short.then(|| policy.cut_short(&self.bytes))),
            }?;
            Some(policy.answers.pick(choice, client.family).bytes().to_vec())
        }
    }

    fn traffic() -> impl Strategy<Value = Traffic> {
        let family = prop_oneof![Just(Family::V4), Just(Family::V6)];
        let http = (Just(80), nearly_a_request());
        let tls = (Just(443), prop_oneof![nearly_a_hello(), nearly_a_request()]);
        let request = prop_oneof![2 => http, 1 => tls].prop_filter("something to send", |(_, bytes)| !bytes.is_empty());
        let fin = prop_oneof![Just(Fin::None), Just(Fin::WithData), Just(Fin::Alone)];
        let cuts = prop::collection::vec(any::<prop::sample::Index>(), 0..8);
        (family, any::<u32>(), request, cuts, fin).prop_map(|(family, isn, (port, bytes), cuts, fin)| {
            let cuts = cuts.into_iter().map(|cut| cut.index(bytes.len())).collect();
            Traffic { family, port, isn, bytes, cuts, fin }
        })
    }

    /// A real one, or one that has lost its end, or whose record's header has a wrong byte.
    fn nearly_a_hello() -> impl Strategy<Value = Vec<u8>> {
        let hello = prop::sample::select(client_hellos().map(|(_, hello)| hello).to_vec());
        let change = prop_oneof![Just(None), (0usize..5, any::<u8>()).prop_map(Some)];
        (hello, change, any::<prop::sample::Index>(), any::<bool>()).prop_map(|(mut hello, change, at, cut)| {
            if let Some((at, byte)) = change {
                hello[at] = byte;
            }
            hello.truncate(if cut { at.index(hello.len()) } else { hello.len() });
            hello
        })
    }

    #[test]
    fn a_hello_in_two_parts_gets_the_alert_wherever_it_is_cut() {
        for (sentence, hello) in client_hellos() {
            for cut in 1..hello.len() {
                let family = if cut % 2 == 0 { Family::V4 } else { Family::V6 };
                let (mut exchange, client) = (exchange(), Client::of_port(family, 443, cut as u32 * 7919));
                let parts = [client.frame(0, &hello[..cut], false), client.frame(cut, &hello[cut..], false)];
                let alert = Some((hello.len() as u32, expected(&client, Status::Alert, false)));
                assert_eq!(send(&mut exchange, &client, &parts[0], NOW), Some((cut as u32, Vec::new())), "{sentence}");
                assert_eq!(send(&mut exchange, &client, &parts[1], NOW), alert, "{sentence} cut at {cut}");
                assert_eq!(send(&mut exchange, &client, &parts[1], NOW), alert, "{sentence} cut at {cut}, again");
            }
        }
    }

    proptest! {
        #[test]
        fn a_split_request_gets_the_answer_of_the_unsplit_one(traffic in traffic()) {
            let (mut exchange, client) = (exchange(), Client::of_port(traffic.family, traffic.port, traffic.isn));
            let mut answer = None;
            for (offset, bytes, fin) in traffic.segments() {
                let frame = client.frame(offset, bytes, fin);
                let once = send(&mut exchange, &client, &frame, NOW);
                let Some((ack, payload)) = once.clone() else { panic!("an in-order segment got nothing") };
                prop_assert_eq!(ack as usize, offset + bytes.len() + usize::from(fin));
                prop_assert_eq!(send(&mut exchange, &client, &frame, NOW), once, "the same again");
                if !payload.is_empty() {
                    answer = Some(payload);
                    break;
                }
            }
            prop_assert_eq!(&answer, &traffic.unsplit(&client));
            // The client had not seen the answer when it sent the rest: it gets nothing for it, or the same once more.
            for (offset, bytes, fin) in traffic.segments() {
                match send_any(&mut exchange, &client, &client.frame(offset, bytes, fin), NOW) {
                    Some((_, Sent::Answer(payload))) => prop_assert_eq!(Some(payload), answer.clone()),
                    Some((_, Sent::Acknowledgement)) => prop_assert_eq!(&answer, &None),
                    Some((_, Sent::Fin)) => prop_assert!(bytes.is_empty() && is_first(&client, offset)),
                    None => {}
                }
            }
        }

        /// The first flight arrives in any order and with losses; then the client repeats what is not acknowledged, from the lowest
        /// byte on, one segment per timeout (RFC 6298 section 5).
        #[test]
        fn whatever_is_reordered_or_lost_the_answer_is_that_of_the_unsplit_request(
            traffic in traffic(), order in any::<prop::sample::Index>(), lost in any::<u64>(), lost_replies in any::<u64>(),
        ) {
            let (mut exchange, client) = (exchange(), Client::of_port(traffic.family, traffic.port, traffic.isn));
            // A mistaken first is a known limit, and only of reordering.
            let segments = traffic.segments();
            prop_assume!(segments.iter().all(|(offset, ..)| *offset == 0 || !is_first(&client, *offset)));

            let (mut acknowledged, mut answer, mut replies) = (0u32, None, 0);
            let mut deliver = |exchange: &mut Exchange, acknowledged: &mut u32, segment: &(usize, &[u8], bool), now| {
                let reply = send(exchange, &client, &client.frame(segment.0, segment.1, segment.2), now);
                let Some((ack, payload)) = reply else { return };
                replies += 1;
                if replies < 64 && lost_replies >> replies & 1 == 1 {
                    return;
                }
                *acknowledged = (*acknowledged).max(ack);
                if !payload.is_empty() {
                    answer.get_or_insert(payload);
                }
            };
            let mut flight: Vec<_> = segments.iter().enumerate().filter(|(i, _)| lost >> (i % 64) & 1 == 0).collect();
            let turn = order.index(flight.len() + 1);
            let by = turn % flight.len().max(1);
            flight.rotate_left(by);
            if turn % 2 == 1 {
                flight.reverse();
            }
            for (_, segment) in flight {
                deliver(&mut exchange, &mut acknowledged, segment, NOW);
            }
            let mut now = NOW;
            for _ in 0..200 {
                let Some(next) = segments.iter().find(|(offset, bytes, fin)| {
                    offset + bytes.len() + usize::from(*fin) > acknowledged as usize
                }) else { break };
                now += 250 * MS;
                deliver(&mut exchange, &mut acknowledged, next, now);
            }
            prop_assert_eq!(answer, traffic.unsplit(&client));
        }

        /// `verify` has shown that headers hold only what must be there; the payload is one of ours or nothing.
        #[test]
        fn nothing_of_a_request_is_reflected(
            isn: u32, segments in prop::collection::vec((0usize..3000, nearly_a_request(), any::<bool>(), 0..2000 * MS), 1..20),
        ) {
            let (mut exchange, client) = (exchange(), Client::new(Family::V4, isn));
            let ours: Vec<Vec<u8>> = policy().answers.all().map(|answer| answer.bytes().to_vec()).collect();
            let mut now = NOW;
            for (offset, bytes, fin, later) in segments {
                now += later;
                let cut = bytes.len().min(1400);
                let frame = client.frame(offset, &bytes[..cut], fin);
                if let Some((_, Sent::Answer(payload))) = send_any(&mut exchange, &client, &frame, now) {
                    prop_assert!(ours.contains(&payload));
                }
            }
        }

        #[test]
        fn any_frame_is_survived(frame in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), byte: u8) {
            let (mut exchange, client) = (exchange(), Client::new(Family::V6, 1));
            let _ = exchange.receive(&frame, policies(), &keys(), NOW);
            let mut nearly = client.frame(0, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", true);
            let at = at.index(nearly.len());
            nearly[at] = byte;
            let _ = exchange.receive(&nearly, policies(), &keys(), NOW);
            let _ = exchange.receive(&nearly[..at], policies(), &keys(), NOW);
        }
    }
}
