//! Requests that come in several segments, put together within a fixed budget of memory.
//!
//! A request in one segment, with nothing to follow, leaves nothing behind. Of the others, three kinds of entry are kept:
//! - a *partial* request: its bytes so far. What has arrived is acknowledged, because the client's first flight may be
//!   smaller than its request (RFC 6928).
//! - an *answered* one: which answer it got, so that a client that repeats its last segment gets the same again.
//! - an *orphan*: a later segment whose first we have not seen. Most often the first was overtaken and comes at once. If
//!   the orphan is repeated after a while, its beginning was lost on our side (we restarted, or it was evicted), and the
//!   client, which has our acknowledgement of it, will never send it again: it gets the plain answer.
//!
//! Answered ones and orphans give way, oldest first, when room is needed. A fresh partial never does: whoever has filled
//! the budget can't take from the others what they began, and latecomers get the plain answer at once. The clock is
//! passed in.
//!
//! A client may half-close: its FIN then comes in a segment of its own, right behind the request and before the client has
//! our answer. What it gets depends on what is kept:
//! - on a partial request whose end it marks: the request is cut short, and refused as if the FIN had come with the data.
//! - on an answered one: the same answer again, now acknowledging the FIN. If the first was lost, it is the answer itself. If
//!   it is in flight, the two arrive in this order, and all that is new in the second is its acknowledgement: Linux takes
//!   that of a segment that ends where the window begins (`tcp_sequence`), and is done; others discard it as old, and repeat
//!   their FIN with the new acknowledgement number, which the gate acknowledges. An acknowledgement without the answer would
//!   be wrong in both cases: behind the first answer it lies before the window, and without that answer it keeps the client
//!   from asking again.
//! - on nothing, most often: the request came in one segment and was answered without leaving a trace. The answer is in
//!   flight: once it has it, the client repeats its FIN with the new acknowledgement number, and the gate acknowledges that.
//!   Or it was lost: then the client repeats its request, which Linux joins with the FIN (`tcp_retrans_try_collapse`). A bare
//!   FIN that comes before that is a tail loss probe. So it is ignored, and it is no orphan: there is nothing in it that
//!   would have to be answered, and the plain answer might be another than the one in flight.
//! - on nothing, where the client's stream begins: it has closed without a request, and so do we. The mark of a first segment
//!   is seldom wrong (see `Phase`). Then the answer left before our FIN, by the same ring, and the client discards this second,
//!   shorter FIN as old. Only if the answer was lost as well does that client get an empty response.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
};

use super::{request::HEAD_MAX, socket::FRAME_CAPACITY};

/// How long a partial request may wait for its next segment: longer than a client's first retransmissions take.
const PARTIAL_IDLE_NS: u64 = 10_000_000_000;
/// How long answered requests and orphans are remembered.
const RECORD_IDLE_NS: u64 = 30_000_000_000;
/// From when on a repeated orphan is a sign of state that we have lost. A client repeats its first segment, if that is what
/// got lost, within the 200 to 300 ms of a usual minimum retransmission timeout; and it may repeat its *last* segment before
/// that, as a tail loss probe (RFC 8985 section 7). It may be mistaken where a request was answered without leaving a trace, the answer was lost,
/// and the network held a copy of what follows back for longer than this: then the client gets the plain answer in its stead.
const ORPHAN_PATIENCE_NS: u64 = 500_000_000;
/// How far a stream may reach from its first byte: our window, and the longest request that is kept. A segment within is of
/// this stream, even if it is marked as a first one: the mark is seldom wrong, but it can be (see `Phase`).
const SAME_STREAM: u32 = 2 * 65_536;
/// What an entry takes beside the request's bytes: its places in the maps below, at their emptiest (a hash table that has just
/// doubled, B-tree nodes with five of eleven places taken), and what the allocator adds. A test measures it.
const ENTRY_BYTES: usize = 1024;
/// What the longest request takes that is put together: a head that is one byte short of being refused, and one segment more.
const LONGEST_BYTES: usize = ENTRY_BYTES + HEAD_MAX + FRAME_CAPACITY;
/// The share of one client, where there is that much.
const CLIENT_BYTES: usize = 128 << 10;
const CLIENT_ENTRIES: usize = 64;

/// How much memory unfinished requests may take. Bytes include a fixed share for each entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For all clients together, bytes.
    pub bytes: usize,
    /// For one client, bytes.
    pub client_bytes: usize,
    /// For one client, requests.
    pub client_entries: usize,
}

/// Too little memory was configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`limits.responder_memory_kib` is too low for {queues} receive queue(s): each needs room for the longest request; set it \
     to {least_kib} or more, or let the interface have fewer queues (`ethtool -L DEV combined N`)"
)]
pub struct LimitsError {
    /// How many workers share the memory.
    pub queues: u32,
    /// The least that is enough for them, KiB.
    pub least_kib: usize,
}

impl Limits {
    /// The limits of each of the workers that share this memory, one for each receive queue. It is shared out evenly: a
    /// client's connection always meets the same queue, but nobody knows which. One client gets an eighth of it, but no more
    /// than 128 KiB: that is ten requests of the longest kind, or 64 short ones.
    ///
    /// # Errors
    /// If a worker's part is too small for the longest request: then no such request could be put together.
    pub fn per_worker(total_bytes: usize, queues: u32) -> Result<Self, LimitsError> {
        let workers = queues.max(1) as usize;
        let bytes = total_bytes / workers;
        if bytes < LONGEST_BYTES {
            return Err(LimitsError { queues, least_kib: (workers * LONGEST_BYTES).div_ceil(1024) });
        }
        let client_bytes = (bytes / 8).clamp(LONGEST_BYTES, CLIENT_BYTES);
        Ok(Self { bytes, client_bytes, client_entries: CLIENT_ENTRIES })
    }
}

impl Default for Limits {
    /// As the configuration has it where it says nothing: 1 MiB, for one worker.
    fn default() -> Self {
        Self { bytes: 1 << 20, client_bytes: CLIENT_BYTES, client_entries: CLIENT_ENTRIES }
    }
}

/// Who decides what a request gets.
pub trait Judge {
    /// Which answer.
    type Answer: Copy;

    /// The answer to the request that begins with these bytes, once they suffice. It must not change when more follow.
    fn judge(&self, bytes: &[u8]) -> Option<Self::Answer>;

    /// The answer to a request that ends here although these bytes don't suffice.
    fn cut_short(&self, bytes: &[u8]) -> Self::Answer;

    /// The answer to a request that is not put together; these are the bytes at hand.
    fn plain(&self, bytes: &[u8]) -> Self::Answer;
}

/// The part of a segment that matters here.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// The sequence number of the first byte.
    pub seq: u32,
    /// The bytes, as far as captured.
    pub bytes: &'a [u8],
    /// How many bytes the client sent, at least as many as captured.
    pub length: u32,
    /// The client sends nothing after these bytes.
    pub fin: bool,
    /// The client marked the end of what it had to send (PSH). Without, more is on its way.
    pub push: bool,
    /// This is where the client's stream begins, as far as the cookie tells.
    pub first: bool,
}

impl Piece<'_> {
    /// What acknowledges the whole segment.
    fn end(&self) -> u32 {
        self.seq.wrapping_add(self.length).wrapping_add(u32::from(self.fin))
    }

    /// Whether the client says nothing but that its stream ends.
    fn is_bare_fin(&self) -> bool {
        self.fin && self.length == 0
    }

    /// Whether the client's stream ends with the bytes that were captured.
    fn ends(&self) -> bool {
        self.fin && self.bytes.len() == self.length as usize
    }
}

/// What to do about a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction<A> {
    /// Send this answer, acknowledging up to `ack`.
    Answer {
        /// Which.
        answer: A,
        /// The acknowledgement number.
        ack: u32,
    },
    /// Send a bare acknowledgement up to `ack`.
    Acknowledge {
        /// The acknowledgement number.
        ack: u32,
    },
    /// Send a FIN without an answer, acknowledging up to `ack`: the client has closed without a request.
    Close {
        /// The acknowledgement number.
        ack: u32,
    },
    /// Send nothing.
    Ignore,
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Orphans remembered.
    pub orphans: u64,
    /// Orphans answered: their beginning had been lost on our side.
    pub orphans_answered: u64,
    /// Requests answered plainly because the budget was spent.
    pub over_budget: u64,
    /// Entries that gave way to others.
    pub evictions: u64,
    /// Partial requests given up, because nothing more came.
    pub abandoned: u64,
}

/// The sort of an entry, in the order in which they give way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Record,
    Partial,
}

/// Place in the queue for eviction: by class, then by age.
type Place = (Class, u64);

enum State<A> {
    Partial { start: u32, bytes: Vec<u8> },
    Answered { start: u32, end: u32, answer: A },
    Orphan { seq: u32, since_ns: u64 },
}

impl<A> State<A> {
    fn class(&self) -> Class {
        match self {
            Self::Partial { .. } => Class::Partial,
            Self::Answered { .. } | Self::Orphan { .. } => Class::Record,
        }
    }

    fn cost(&self) -> usize {
        match self {
            Self::Partial { bytes, .. } => cost(bytes.capacity()),
            Self::Answered { .. } | Self::Orphan { .. } => cost(0),
        }
    }
}

fn cost(bytes: usize) -> usize {
    ENTRY_BYTES + bytes
}

struct Entry<A> {
    place: Place,
    touched_ns: u64,
    state: State<A>,
}

#[derive(Default)]
struct Share {
    bytes: usize,
    entries: usize,
}

/// The unfinished requests. `C` is a client, `K` one of its connections.
pub struct Reassembly<C, K, A> {
    limits: Limits,
    entries: HashMap<(C, K), Entry<A>>,
    queue: BTreeMap<Place, (C, K)>,
    /// The same places, client by client.
    places: BTreeSet<(C, Place)>,
    clients: HashMap<C, Share>,
    bytes: usize,
    next_stamp: u64,
    tally: Tally,
}

impl<C: Copy + Ord + Hash, K: Copy + Eq + Hash, A: Copy> Reassembly<C, K, A> {
    /// Nothing yet, within these limits.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            entries: HashMap::new(),
            queue: BTreeMap::new(),
            places: BTreeSet::new(),
            clients: HashMap::new(),
            bytes: 0,
            next_stamp: 0,
            tally: Tally::default(),
        }
    }

    /// How often what happened since the beginning.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How much of the budget is taken, bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a segment of a connection that has not been answered yet, as far as the client knows.
    pub fn receive(
        &mut self,
        client: C,
        connection: K,
        piece: Piece<'_>,
        now_ns: u64,
        judge: &impl Judge<Answer = A>,
    ) -> Reaction<A> {
        self.expire(now_ns);
        let key = (client, connection);
        match self.take(key) {
            // The client has used its port again.
            Some(State::Partial { start, .. } | State::Answered { start, .. })
                if piece.first && piece.seq.wrapping_sub(start) > SAME_STREAM =>
            {
                self.begin(key, piece, now_ns, judge)
            }
            Some(State::Partial { start, bytes }) => self.go_on(key, start, bytes, piece, now_ns, judge),
            Some(State::Answered { start, end, answer }) => {
                let repeated = is_before(piece.seq, end) || piece.is_bare_fin() && piece.seq == end;
                // The client may have put more into the segment than when it sent it first.
                let end = if repeated && is_before(end, piece.end()) { piece.end() } else { end };
                self.put(key, State::Answered { start, end, answer }, now_ns);
                // What comes after the request, such as its body, was in flight when the answer was sent.
                if repeated { Reaction::Answer { answer, ack: end } } else { Reaction::Ignore }
            }
            // The orphan shows that the client has sent something: its stream does not begin here.
            Some(orphan @ State::Orphan { .. }) if piece.is_bare_fin() => {
                self.put(key, orphan, now_ns);
                Reaction::Ignore
            }
            Some(State::Orphan { .. }) | None if piece.first => self.begin(key, piece, now_ns, judge),
            None if piece.is_bare_fin() => Reaction::Ignore,
            Some(State::Orphan { seq, since_ns }) => {
                if piece.seq == seq && now_ns.saturating_sub(since_ns) >= ORPHAN_PATIENCE_NS {
                    self.tally.orphans_answered += 1;
                    let (answer, ack) = (judge.plain(&[]), piece.end());
                    self.put(key, State::Answered { start: seq, end: ack, answer }, now_ns);
                    return Reaction::Answer { answer, ack };
                }
                // A client repeats the lowest byte we have not acknowledged: of a flight, only that one counts.
                let lower = is_before(piece.seq, seq);
                let (seq, since_ns) = if lower { (piece.seq, now_ns) } else { (seq, since_ns) };
                self.put(key, State::Orphan { seq, since_ns }, now_ns);
                Reaction::Ignore
            }
            None => {
                // Without room it stays unanswered: it may be the body of a request that has just got its answer, and a
                // second, different one in the same sequence numbers makes a Linux client reset the connection.
                if self.make_room(client, cost(0)) {
                    self.tally.orphans += 1;
                    self.put(key, State::Orphan { seq: piece.seq, since_ns: now_ns }, now_ns);
                }
                Reaction::Ignore
            }
        }
    }

    /// The first segment of a stream.
    fn begin(&mut self, key: (C, K), piece: Piece<'_>, now_ns: u64, judge: &impl Judge<Answer = A>) -> Reaction<A> {
        if piece.is_bare_fin() {
            return Reaction::Close { ack: piece.end() };
        }
        if let Some(answer) = judge.judge(piece.bytes) {
            let ack = piece.end();
            // The body follows. One of its segments might be taken for a first one, and must not be read as a request.
            if !piece.push && self.make_room(key.0, cost(0)) {
                self.put(key, State::Answered { start: piece.seq, end: ack, answer }, now_ns);
            }
            return Reaction::Answer { answer, ack };
        }
        if piece.ends() {
            return Reaction::Answer { answer: judge.cut_short(piece.bytes), ack: piece.end() };
        }
        if !self.make_room(key.0, cost(piece.bytes.len())) {
            self.tally.over_budget += 1;
            return Reaction::Answer { answer: judge.plain(piece.bytes), ack: piece.end() };
        }
        self.put(key, State::Partial { start: piece.seq, bytes: piece.bytes.to_vec() }, now_ns);
        Reaction::Acknowledge { ack: piece.seq.wrapping_add(piece.bytes.len() as u32) }
    }

    /// A segment of a stream whose first bytes are here.
    fn go_on(
        &mut self,
        key: (C, K),
        start: u32,
        mut bytes: Vec<u8>,
        piece: Piece<'_>,
        now_ns: u64,
        judge: &impl Judge<Answer = A>,
    ) -> Reaction<A> {
        let next = start.wrapping_add(bytes.len() as u32);
        let overlap = next.wrapping_sub(piece.seq) as usize;
        let is_new_data = overlap < piece.bytes.len();
        let is_end = overlap == piece.bytes.len() && piece.ends();
        if is_before(next, piece.seq) || !(is_new_data || is_end) {
            // A gap, or nothing new: say again what we have (RFC 5681 section 4.2).
            self.put(key, State::Partial { start, bytes }, now_ns);
            return Reaction::Acknowledge { ack: next };
        }
        let new = &piece.bytes[overlap..];
        let room = self.make_room(key.0, cost(bytes.len() + new.len()));
        if room {
            bytes.reserve_exact(new.len());
            bytes.extend_from_slice(new);
        }
        let answer = match room.then(|| judge.judge(&bytes)) {
            Some(Some(answer)) => answer,
            Some(None) if piece.ends() => judge.cut_short(&bytes),
            Some(None) => {
                let ack = next.wrapping_add(new.len() as u32);
                self.put(key, State::Partial { start, bytes }, now_ns);
                return Reaction::Acknowledge { ack };
            }
            None => {
                self.tally.over_budget += 1;
                judge.plain(&bytes)
            }
        };
        let end = piece.end();
        self.put(key, State::Answered { start, end, answer }, now_ns);
        Reaction::Answer { answer, ack: end }
    }

    /// Takes an entry out, with all that it counts for.
    fn take(&mut self, key: (C, K)) -> Option<State<A>> {
        let entry = self.entries.remove(&key)?;
        self.queue.remove(&entry.place);
        let cost = entry.state.cost();
        self.bytes -= cost;
        let share = self.clients.get_mut(&key.0).expect("`put` made the share");
        share.bytes -= cost;
        share.entries -= 1;
        self.places.remove(&(key.0, entry.place));
        if share.entries == 0 {
            self.clients.remove(&key.0);
        }
        Some(entry.state)
    }

    /// Puts an entry in, as the youngest of its class. There must be room for it, and none with this key.
    fn put(&mut self, key: (C, K), state: State<A>, now_ns: u64) {
        let place = (state.class(), self.next_stamp);
        self.next_stamp += 1;
        let cost = state.cost();
        self.bytes += cost;
        self.queue.insert(place, key);
        self.places.insert((key.0, place));
        let share = self.clients.entry(key.0).or_default();
        share.bytes += cost;
        share.entries += 1;
        self.entries.insert(key, Entry { place, touched_ns: now_ns, state });
    }

    /// Makes room for one entry of this cost; whether there is.
    fn make_room(&mut self, client: C, cost: usize) -> bool {
        if cost > self.limits.bytes.min(self.limits.client_bytes) {
            return false;
        }
        loop {
            let oldest = match self.clients.get(&client) {
                Some(share)
                    if share.entries >= self.limits.client_entries || share.bytes + cost > self.limits.client_bytes =>
                {
                    self.places.range((client, (Class::Record, 0))..).next().map(|(_, place)| *place)
                }
                _ if self.bytes + cost > self.limits.bytes => self.queue.first_key_value().map(|(place, _)| *place),
                _ => return true,
            };
            match oldest {
                Some(place @ (Class::Record, _)) => {
                    self.take(self.queue[&place]);
                    self.tally.evictions += 1;
                }
                Some((Class::Partial, _)) | None => return false,
            }
        }
    }

    /// Forgets what is too old. Every call adds one entry at most and removes up to four, so that it never falls behind.
    fn expire(&mut self, now_ns: u64) {
        for _ in 0..2 {
            for (class, idle_ns) in [(Class::Record, RECORD_IDLE_NS), (Class::Partial, PARTIAL_IDLE_NS)] {
                let Some((_, &key)) = self.queue.range((class, 0)..=(class, u64::MAX)).next() else { continue };
                if now_ns.saturating_sub(self.entries[&key].touched_ns) < idle_ns {
                    continue;
                }
                self.take(key);
                self.tally.abandoned += u64::from(class == Class::Partial);
            }
        }
    }
}

/// Whether a sequence number comes before another (RFC 9293 section 3.4).
fn is_before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A request is complete with its first `.`; the answer is its length up to there.
    struct Dot;

    const PLAIN: usize = 9999;
    const CUT: usize = 4000;

    impl Judge for Dot {
        type Answer = usize;

        fn judge(&self, bytes: &[u8]) -> Option<usize> {
            bytes.iter().position(|b| *b == b'.')
        }

        fn cut_short(&self, bytes: &[u8]) -> usize {
            CUT + bytes.len()
        }

        fn plain(&self, _: &[u8]) -> usize {
            PLAIN
        }
    }

    type Table = Reassembly<u8, u8, usize>;

    const MS: u64 = 1_000_000;

    fn piece(seq: u32, bytes: &[u8]) -> Piece<'_> {
        Piece { seq, bytes, length: bytes.len() as u32, fin: false, push: true, first: false }
    }

    fn first(seq: u32, bytes: &[u8]) -> Piece<'_> {
        Piece { first: true, ..piece(seq, bytes) }
    }

    fn answer(answer: usize, ack: u32) -> Reaction<usize> {
        Reaction::Answer { answer, ack }
    }

    fn ack(ack: u32) -> Reaction<usize> {
        Reaction::Acknowledge { ack }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn courses_of_one_connection() {
        let course = |sentence: &str, steps: &[(Piece<'_>, Reaction<usize>)]| {
            let mut table = Table::new(Limits::default());
            for (i, (piece, expected)) in steps.iter().enumerate() {
                assert_eq!(table.receive(1, 1, *piece, 0, &Dot), *expected, "{sentence}, step {i}");
            }
        };
        course("in one segment", &[(first(7, b"abc."), answer(3, 11))]);
        course("with a body", &[(first(7, b"abc.body"), answer(3, 15))]);
        course("with FIN", &[(Piece { fin: true, ..first(7, b"abc.") }, answer(3, 12))]);
        course("repeated", &[(first(7, b"abc."), answer(3, 11)), (first(7, b"abc."), answer(3, 11))]);
        course("in two", &[(first(7, b"abc"), ack(10)), (piece(10, b"d."), answer(4, 12))]);
        course(
            "across the end of the sequence numbers",
            &[
                (first(u32::MAX - 1, b"abc"), ack(1)),
                (piece(1, b"d."), answer(4, 3)),
                (piece(1, b"d."), answer(4, 3)),
                (piece(3, b"body"), Reaction::Ignore),
            ],
        );
        course(
            "a lost answer",
            &[
                (first(7, b"abc"), ack(10)),
                (piece(10, b"d."), answer(4, 12)),
                (piece(10, b"d."), answer(4, 12)),
                (first(7, b"abc"), answer(4, 12)),
                (first(7, b"abcd.body"), answer(4, 16)),
            ],
        );
        course("a gap", &[(first(7, b"abc"), ack(10)), (piece(12, b"."), ack(10)), (piece(10, b"de."), answer(5, 13))]);
        course("nothing new", &[(first(7, b"abc"), ack(10)), (first(7, b"ab"), ack(10)), (piece(9, b"c"), ack(10))]);
        course("an overlap", &[(first(7, b"abc"), ack(10)), (piece(8, b"bcd."), answer(4, 12))]);
        course("sent again with more", &[(first(7, b"abc"), ack(10)), (first(7, b"abcd."), answer(4, 12))]);
        course(
            "trimmed",
            &[
                (Piece { length: 9, ..first(7, b"abc") }, ack(10)),
                (Piece { length: 6, ..piece(10, b"d.") }, answer(4, 16)),
            ],
        );
        course(
            "FIN beyond what was captured does not count yet",
            &[
                (Piece { length: 9, fin: true, ..first(7, b"abc") }, ack(10)),
                (Piece { fin: true, ..piece(10, b"de") }, answer(CUT + 5, 13)),
            ],
        );
        course("the client gives up", &[(Piece { fin: true, ..first(7, b"abc") }, answer(CUT + 3, 11))]);
        course(
            "the client gives up later",
            &[(first(7, b"abc"), ack(10)), (Piece { fin: true, ..first(7, b"abc") }, answer(CUT + 3, 11))],
        );
        let fin = |seq| Piece { fin: true, push: false, ..piece(seq, b"") };
        let first_fin = |seq| Piece { first: true, ..fin(seq) };
        course("a bare FIN ends a partial request", &[(first(7, b"abc"), ack(10)), (fin(10), answer(CUT + 3, 11))]);
        course(
            "it is marked as a first one",
            &[
                (first(7, b"abc"), ack(10)),
                (first_fin(10), answer(CUT + 3, 11)),
                (first_fin(10), answer(CUT + 3, 11)),
                (first(7, b"abc"), answer(CUT + 3, 11)),
            ],
        );
        course(
            "a bare FIN overtakes the data",
            &[
                (first(7, b"abc"), ack(10)),
                (fin(12), ack(10)),
                (piece(10, b"de"), ack(12)),
                (fin(12), answer(CUT + 5, 13)),
            ],
        );
        course(
            "a bare FIN after the answer",
            &[
                (first(7, b"abc"), ack(10)),
                (piece(10, b"d."), answer(4, 12)),
                (fin(12), answer(4, 13)),
                (piece(10, b"d."), answer(4, 13)),
                (fin(12), answer(4, 13)),
                (fin(13), answer(4, 14)),
                (fin(20), Reaction::Ignore),
            ],
        );
        course(
            "a bare FIN behind a request that was answered without a trace",
            &[
                (first(7, b"abc."), answer(3, 11)),
                (fin(11), Reaction::Ignore),
                (fin(11), Reaction::Ignore),
                (Piece { fin: true, ..first(7, b"abc.") }, answer(3, 12)),
            ],
        );
        course(
            "a bare FIN before everything else",
            &[(fin(10), Reaction::Ignore), (first(7, b"abc"), ack(10)), (fin(10), answer(CUT + 3, 11))],
        );
        course(
            "closed without a request",
            &[(first_fin(7), Reaction::Close { ack: 8 }), (first_fin(7), Reaction::Close { ack: 8 })],
        );
        course(
            "the second overtakes the first",
            &[(piece(10, b"d."), Reaction::Ignore), (first(7, b"abc"), ack(10)), (piece(10, b"d."), answer(4, 12))],
        );
        course(
            "a tail loss probe comes before the repeated first",
            &[
                (piece(10, b"d."), Reaction::Ignore),
                (piece(10, b"d."), Reaction::Ignore),
                (first(7, b"abc"), ack(10)),
                (piece(10, b"d."), answer(4, 12)),
            ],
        );
        course(
            "the port is used again",
            &[
                (first(7, b"abc"), ack(10)),
                (first(7_000_000, b"x."), answer(1, 7_000_002)),
                (first(5, b"yz"), ack(7)),
                (first(4, b"."), answer(0, 5)),
            ],
        );
        course(
            "a body after the request",
            &[
                (Piece { push: false, ..first(7, b"abc.") }, answer(3, 11)),
                (Piece { push: false, ..piece(11, b"body") }, Reaction::Ignore),
                (first(15, b"it is taken for a first one."), Reaction::Ignore),
                (first(7, b"abc."), answer(3, 11)),
            ],
        );
        course(
            "a later segment that is taken for a first one",
            &[
                (first(7, b"abc"), ack(10)),
                (first(10, b"d."), answer(4, 12)),
                (first(10, b"d."), answer(4, 12)),
                (first(12, b"."), Reaction::Ignore),
            ],
        );
        course(
            "far outside of any window",
            &[
                (first(7, b"abc"), ack(10)),
                (piece(7u32.wrapping_sub(5000), b"xx"), ack(10)),
                (piece(7u32.wrapping_add(1 << 31), b"xx"), ack(10)),
                (piece(0x7fff_ffff, &[b'.'; 1400]), ack(10)),
            ],
        );
    }

    #[test]
    fn an_orphan_is_answered_when_our_memory_was_lost() {
        let mut table = Table::new(Limits::default());
        let orphan = piece(10, b"d.");
        assert_eq!(table.receive(1, 1, orphan, 0, &Dot), Reaction::Ignore);
        assert_eq!(table.receive(1, 1, piece(12, b"body"), 0, &Dot), Reaction::Ignore);
        assert_eq!(table.receive(1, 1, orphan, 200 * MS, &Dot), Reaction::Ignore, "too early to tell");
        assert_eq!(table.receive(1, 1, piece(12, b"body"), 600 * MS, &Dot), Reaction::Ignore, "not the lowest");
        assert_eq!(table.receive(1, 1, orphan, 600 * MS, &Dot), answer(PLAIN, 12));
        assert_eq!(table.receive(1, 1, orphan, 700 * MS, &Dot), answer(PLAIN, 12), "the same again");
        assert_eq!((table.tally().orphans, table.tally().orphans_answered), (1, 1));
    }

    #[test]
    fn a_bare_fin_is_no_orphan() {
        let mut table = Table::new(Limits::default());
        let fin = |seq, first| Piece { fin: true, first, ..piece(seq, b"") };
        for ms in [0, 600, 2000] {
            assert_eq!(table.receive(1, 1, fin(12, false), ms * MS, &Dot), Reaction::Ignore);
            assert_eq!(table.receive(1, 2, fin(12, true), ms * MS, &Dot), Reaction::Close { ack: 13 });
        }
        assert!(table.is_empty());
        assert_eq!(table.tally(), Tally::default());
        assert_eq!(table.receive(1, 1, piece(10, b"d."), 3000 * MS, &Dot), Reaction::Ignore);
        for first in [false, true] {
            assert_eq!(
                table.receive(1, 1, fin(12, first), 3600 * MS, &Dot),
                Reaction::Ignore,
                "nor does it end one's patience"
            );
        }
        assert_eq!(table.receive(1, 1, piece(10, b"d."), 3600 * MS, &Dot), answer(PLAIN, 12));
        assert_eq!(table.receive(1, 1, fin(12, false), 3600 * MS, &Dot), answer(PLAIN, 13));
    }

    #[test]
    fn memory_is_shared_out_by_queue() {
        let default = Limits::default();
        assert_eq!(Limits::per_worker(default.bytes, 1), Ok(default));
        for (sentence, kib, queues, expected) in [
            ("the least the configuration takes", 64, 1, Ok((65_536, LONGEST_BYTES))),
            ("on four queues", 64, 4, Ok((16_384, LONGEST_BYTES))),
            ("on one too many", 64, 6, Err(65)),
            ("the default on a server's card", 1024, 64, Ok((16_384, LONGEST_BYTES))),
            ("the default on the largest", 1024, 256, Err(2752)),
            ("a large one", 65_536, 4, Ok((16_777_216, CLIENT_BYTES))),
            ("one client gets an eighth", 1024, 8, Ok((131_072, 16_384))),
        ] {
            let limits = Limits::per_worker(kib << 10, queues);
            let seen = limits.map(|limits| (limits.bytes, limits.client_bytes)).map_err(|error| error.least_kib);
            assert_eq!(seen, expected, "{sentence}");
            if let Err(error) = limits {
                assert!(error.to_string().contains("limits.responder_memory_kib"), "{error}");
                assert!(Limits::per_worker(error.least_kib << 10, queues).is_ok(), "{sentence}");
                assert!(Limits::per_worker((error.least_kib - 1) << 10, queues).is_err(), "{sentence}");
            }
        }
    }

    /// Room for so many small entries.
    fn limits(entries: usize, client_entries: usize) -> Limits {
        Limits { bytes: entries * ENTRY_BYTES + 100, client_bytes: 1 << 20, client_entries }
    }

    #[test]
    fn one_client_cannot_take_it_all() {
        let mut table = Table::new(limits(100, 3));
        for connection in 0..3 {
            assert_eq!(table.receive(1, connection, first(0, b"abc"), 0, &Dot), ack(3));
        }
        assert_eq!(table.receive(1, 9, first(0, b"abc"), 0, &Dot), answer(PLAIN, 3), "its share is spent");
        assert_eq!(table.receive(2, 9, first(0, b"abc"), 0, &Dot), ack(3), "another's is not");
        assert_eq!(table.receive(1, 0, piece(3, b"."), 0, &Dot), answer(3, 4), "what it began goes on");
        assert_eq!(table.receive(1, 9, first(0, b"abc"), 0, &Dot), ack(3), "and gives way once answered");
        assert_eq!(table.receive(1, 0, piece(3, b"."), 0, &Dot), Reaction::Ignore, "it is an orphan now");
        assert_eq!((table.tally().over_budget, table.tally().evictions), (1, 1));
    }

    #[test]
    fn the_oldest_record_gives_way_and_no_fresh_partial_does() {
        let mut table = Table::new(limits(3, 3));
        for client in 0..3 {
            assert_eq!(table.receive(client, 0, first(0, b"abc"), u64::from(client), &Dot), ack(3));
        }
        for client in [1, 0] {
            assert_eq!(table.receive(client, 0, piece(3, b"."), 3, &Dot), answer(3, 4));
        }
        assert_eq!(table.receive(5, 0, first(0, b"x"), 4, &Dot), ack(1));
        assert_eq!(table.receive(0, 0, piece(3, b"."), 4, &Dot), answer(3, 4), "the younger record is still there");
        assert_eq!(table.receive(6, 0, first(0, b"x"), 4, &Dot), ack(1));
        assert_eq!(table.receive(7, 0, first(0, b"x"), 4, &Dot), answer(PLAIN, 1), "partials stay");
        assert_eq!(table.receive(2, 0, piece(3, b"."), 4, &Dot), answer(3, 4));
        assert_eq!(table.receive(7, 0, first(0, b"x"), PARTIAL_IDLE_NS + 5, &Dot), ack(1), "until they are stale");
        assert_eq!(table.tally().abandoned, 2);
    }

    #[test]
    fn a_request_that_outgrows_the_budget_gets_the_plain_answer() {
        let mut table = Table::new(Limits { client_bytes: ENTRY_BYTES + 5, ..Limits::default() });
        assert_eq!(table.receive(1, 1, first(0, b"abc"), 0, &Dot), ack(3));
        assert_eq!(table.receive(1, 1, piece(3, b"def"), 0, &Dot), answer(PLAIN, 6));
        assert_eq!(table.receive(1, 1, piece(3, b"def"), 0, &Dot), answer(PLAIN, 6), "the same again");
        assert_eq!(table.bytes(), ENTRY_BYTES);
    }

    #[test]
    fn nothing_is_left_of_what_went_stale() {
        let mut table = Table::new(Limits::default());
        for connection in 0..100 {
            table.receive(1, connection, first(0, b"abc"), 0, &Dot);
        }
        for _ in 0..100 {
            table.receive(1, 200, first(0, b"."), RECORD_IDLE_NS, &Dot);
        }
        assert!(table.is_empty());
        assert_eq!((table.bytes(), table.clients.len(), table.queue.len(), table.places.len()), (0, 0, 0, 0));
    }

    #[derive(Clone, Debug)]
    struct Event {
        client: u8,
        connection: u8,
        seq: u32,
        length: usize,
        uncaptured: u32,
        fin: bool,
        first: bool,
        later_ns: u64,
    }

    fn event() -> impl Strategy<Value = Event> {
        let seq = prop_oneof![3 => 0u32..20, 1 => (0u32..20).prop_map(|n| n.wrapping_sub(10)), 1 => any::<u32>()];
        let later = prop_oneof![0..1000 * MS, 0..20_000 * MS];
        (0u8..4, 0u8..4, seq, 0usize..12, prop_oneof![Just(0u32), 0u32..9], any::<bool>(), any::<bool>(), later)
            .prop_map(|(client, connection, seq, length, uncaptured, fin, first, later_ns)| Event {
                client,
                connection,
                seq,
                length,
                uncaptured,
                fin,
                first,
                later_ns,
            })
    }

    proptest! {
        #[test]
        fn the_budget_holds_whatever_comes(events in prop::collection::vec(event(), 0..200)) {
            let limits = Limits { bytes: 5 * ENTRY_BYTES + 20, client_bytes: 2 * ENTRY_BYTES + 15, client_entries: 3 };
            let mut table = Table::new(limits);
            let mut now = 0;
            for event in events {
                now += event.later_ns;
                let bytes = vec![if event.length % 3 == 0 { b'.' } else { b'x' }; event.length];
                let length = event.length as u32 + event.uncaptured;
                let piece = Piece { seq: event.seq, bytes: &bytes, length, fin: event.fin, push: event.length % 2 == 0, first: event.first };
                table.receive(event.client, event.connection, piece, now, &Dot);
                prop_assert!(table.bytes() <= limits.bytes);
                for share in table.clients.values() {
                    prop_assert!(share.bytes <= limits.client_bytes && share.entries <= limits.client_entries);
                }
                prop_assert_eq!(table.bytes(), table.entries.values().map(|entry| entry.state.cost()).sum::<usize>());
                prop_assert_eq!(table.queue.len(), table.len());
                prop_assert_eq!(table.clients.values().map(|share| share.entries).sum::<usize>(), table.len());
                let places: Vec<_> = table.places.iter().map(|(client, place)| (*place, *client)).collect();
                prop_assert!(places.len() == table.len() && places.iter().all(|(place, client)| table.queue[place].0 == *client));
            }
        }
    }
}
