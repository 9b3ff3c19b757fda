//! What has been learned from answers: which address is open on which port, taught by which rule, until when.
//!
//! An address is open for the time to live of its records, but
//! - at least [`Limits::shortest`], because a guest connects after it has resolved, and browsers keep names for a minute;
//! - at most [`Limits::longest`], because an address may be another's tomorrow;
//! - and [`Limits::grace`] more, for a connection that began in the last moment of what the guest's own cache holds.
//!
//! A full table refuses what is new and counts it. It never takes an address away whose time has not come: a name with very
//! many addresses fills its own rule's share, and hurts only itself.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    time::Duration,
};

use portal_common::tables::Zone;
use tracing::warn;

use super::{
    counters::{Count, Counters},
    ports::Service,
};
use crate::clock;

/// An open destination: in this zone, this address, on this port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LearnedKey {
    /// The zone whose strangers may reach it.
    pub zone: Zone,
    /// The address; an IPv4 address is never written as IPv6 here.
    pub address: IpAddr,
    /// The protocol, and the port or 0 for any.
    pub service: Service,
}

/// The kernel's table of learned destinations, which compares each row's expiry with its clock.
pub trait LearnedSink {
    /// Writes a row, or another expiry into it: nanoseconds of CLOCK_MONOTONIC.
    fn insert(&mut self, key: LearnedKey, expires_ns: u64) -> anyhow::Result<()>;
    /// Takes a row out; no error if there is none.
    fn remove(&mut self, key: LearnedKey) -> anyhow::Result<()>;
}

/// Who taught a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub(super) u32);

impl RuleId {
    /// An earlier daemon: which of its rules is not known any more.
    pub const EARLIER: Self = Self(0);
}

/// How long and how much is learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The shortest time that an address is open.
    pub shortest: Duration,
    /// The longest time that it is open without another answer.
    pub longest: Duration,
    /// How much longer than that it stays open.
    pub grace: Duration,
    /// The most addresses taken from one answer.
    pub per_answer: usize,
    /// The most rows that one rule teaches: addresses times ports.
    pub per_rule: usize,
    /// The most rows in all: no more than the kernel's table holds.
    pub total: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            shortest: Duration::from_mins(1),
            longest: Duration::from_hours(1),
            grace: Duration::from_secs(30),
            per_answer: 32,
            per_rule: 512,
            total: 8192,
        }
    }
}

impl Limits {
    /// When an address closes that was learned now, with this time to live in seconds.
    fn until(&self, now_ns: u64, ttl: u32) -> u64 {
        // Not `clamp`, which panics where an operator has crossed the bounds.
        let held = Duration::from_secs(ttl.into()).max(self.shortest).min(self.longest);
        clock::after(now_ns, held.saturating_add(self.grace))
    }

    /// When it closes at the latest, without another answer.
    fn latest(&self, answered_ns: u64) -> u64 {
        clock::after(answered_ns, self.longest.saturating_add(self.grace))
    }
}

/// A rule's word that a destination is open.
#[derive(Clone, Copy, Debug)]
struct Lesson {
    rule: RuleId,
    until_ns: u64,
}

#[derive(Debug)]
struct Entry {
    /// Empty only where the kernel has not given the row up yet.
    lessons: Vec<Lesson>,
    /// When an answer last named it.
    answered_ns: u64,
    /// What the kernel's row says.
    written_ns: u64,
}

impl Entry {
    fn until_ns(&self) -> u64 {
        self.lessons.iter().map(|lesson| lesson.until_ns).max().unwrap_or(0)
    }
}

/// What became of an address that an answer named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is open now, until this instant.
    Learned(u64),
    /// It was already open, and is so until this instant.
    Refreshed(u64),
    /// It was not opened.
    Refused(Count),
}

/// The table.
#[derive(Debug)]
pub struct Learned {
    limits: Limits,
    entries: HashMap<LearnedKey, Entry>,
    /// How many rows each rule teaches; expired ones count until the next sweep.
    rows_of: HashMap<RuleId, usize>,
    swept_ns: u64,
}

/// How long a full table waits between two looks for what has expired.
const BETWEEN_SWEEPS: Duration = Duration::from_millis(100);

impl Learned {
    /// An empty table.
    pub fn new(limits: Limits) -> Self {
        Self { limits, entries: HashMap::new(), rows_of: HashMap::new(), swept_ns: 0 }
    }

    /// The limits.
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Rows that the kernel has from us.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Opens a destination for a rule, for a time to live in seconds from now.
    pub fn learn(
        &mut self,
        key: LearnedKey,
        rule: RuleId,
        ttl: u32,
        now_ns: u64,
        sink: &mut impl LearnedSink,
        counters: &mut Counters,
    ) -> Outcome {
        let until_ns = self.limits.until(now_ns, ttl);
        let outcome = self.try_learn(key, rule, until_ns, now_ns, sink, counters);
        counters.add(match outcome {
            Outcome::Learned(_) => Count::Learned,
            Outcome::Refreshed(_) => Count::Refreshed,
            Outcome::Refused(count) => count,
        });
        outcome
    }

    fn try_learn(
        &mut self,
        key: LearnedKey,
        rule: RuleId,
        until_ns: u64,
        now_ns: u64,
        sink: &mut impl LearnedSink,
        counters: &mut Counters,
    ) -> Outcome {
        let teaches = self.teaches(rule, &key);
        // What has expired takes no place from what is new; but a look at all of them is not for every address.
        if !teaches && self.is_full(rule) && now_ns >= clock::after(self.swept_ns, BETWEEN_SWEEPS) {
            self.sweep(now_ns, sink, counters);
        }
        if !teaches && self.rows(rule) >= self.limits.per_rule {
            return Outcome::Refused(Count::RefusedRuleFull);
        }
        if !self.entries.contains_key(&key) && self.entries.len() >= self.limits.total {
            return Outcome::Refused(Count::RefusedTableFull);
        }
        let known = self.entries.get(&key);
        let open = known.is_some_and(|entry| entry.until_ns() > now_ns);
        // The kernel first: what it has not got isn't open.
        let latest = known.map_or(0, Entry::until_ns).max(until_ns);
        if known.is_none_or(|entry| latest != entry.written_ns)
            && let Err(error) = sink.insert(key, latest)
        {
            warn!(address = %key.address, "the kernel did not take a learned address: {error:#}");
            return Outcome::Refused(Count::RefusedByKernel);
        }
        let entry = self.entries.entry(key).or_insert(Entry { lessons: Vec::new(), answered_ns: 0, written_ns: 0 });
        entry.answered_ns = now_ns;
        entry.written_ns = latest;
        if let Some(lesson) = entry.lessons.iter_mut().find(|lesson| lesson.rule == rule) {
            lesson.until_ns = lesson.until_ns.max(until_ns);
        } else {
            entry.lessons.push(Lesson { rule, until_ns });
            *self.rows_of.entry(rule).or_default() += 1;
        }
        if open { Outcome::Refreshed(latest) } else { Outcome::Learned(latest) }
    }

    /// Keeps a destination open that a guest is using now, for [`Limits::shortest`] more; but no longer than
    /// [`Limits::longest`] after the last answer that named it. What is closed stays closed.
    pub fn extend(&mut self, key: LearnedKey, now_ns: u64, sink: &mut impl LearnedSink, counters: &mut Counters) {
        let limits = self.limits;
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let until_ns = limits.until(now_ns, 0).min(limits.latest(entry.answered_ns));
        if entry.until_ns() <= now_ns || entry.until_ns() >= until_ns {
            return;
        }
        if let Err(error) = sink.insert(key, until_ns) {
            warn!(address = %key.address, "the kernel did not extend a learned address: {error:#}");
            counters.add(Count::RefusedByKernel);
            return;
        }
        counters.add(Count::Extended);
        entry.written_ns = until_ns;
        for lesson in &mut entry.lessons {
            if lesson.until_ns > now_ns {
                lesson.until_ns = lesson.until_ns.max(until_ns);
            }
        }
    }

    /// Takes over a row that an earlier daemon has left in the kernel's table. `permitted`: the rules could have taught it.
    pub fn adopt(
        &mut self,
        key: LearnedKey,
        expires_ns: u64,
        permitted: bool,
        now_ns: u64,
        sink: &mut impl LearnedSink,
        counters: &mut Counters,
    ) {
        if self.entries.contains_key(&key) {
            return;
        }
        // Another daemon's limits may have been wider.
        let until_ns = expires_ns.min(self.limits.latest(now_ns));
        let room = self.entries.len() < self.limits.total;
        let kept =
            permitted && room && until_ns > now_ns && (until_ns == expires_ns || sink.insert(key, until_ns).is_ok());
        let lessons = if kept { vec![Lesson { rule: RuleId::EARLIER, until_ns }] } else { Vec::new() };
        *self.rows_of.entry(RuleId::EARLIER).or_default() += lessons.len();
        self.entries.insert(key, Entry { lessons, answered_ns: now_ns, written_ns: until_ns });
        counters.add(if kept { Count::Adopted } else { Count::NotAdopted });
        if !kept {
            self.settle(key, sink, counters);
        }
    }

    /// Takes back what a rule has taught, but for these services. What another rule taught too stays open for that one.
    pub fn forget(
        &mut self,
        rule: RuleId,
        kept: impl Fn(&LearnedKey) -> bool,
        sink: &mut impl LearnedSink,
        counters: &mut Counters,
    ) {
        self.take_back(|key, lesson| lesson.rule == rule && !kept(key), Count::Removed, sink, counters);
    }

    /// Takes out what has expired. The kernel does not need it: it compares each row's expiry itself.
    pub fn sweep(&mut self, now_ns: u64, sink: &mut impl LearnedSink, counters: &mut Counters) {
        self.swept_ns = now_ns;
        self.take_back(|_, lesson| lesson.until_ns <= now_ns, Count::Expired, sink, counters);
    }

    fn take_back(
        &mut self,
        over: impl Fn(&LearnedKey, &Lesson) -> bool,
        count: Count,
        sink: &mut impl LearnedSink,
        counters: &mut Counters,
    ) {
        let mut touched = Vec::new();
        for (key, entry) in &mut self.entries {
            let before = entry.lessons.len();
            entry.lessons.retain(|lesson| {
                let over = over(key, lesson);
                if over && let Some(rows) = self.rows_of.get_mut(&lesson.rule) {
                    *rows -= 1;
                }
                !over
            });
            if before > 0 && entry.lessons.is_empty() {
                counters.add(count);
            }
            // With no lesson before either, its removal has failed: again.
            if entry.lessons.len() < before || entry.lessons.is_empty() {
                touched.push(*key);
            }
        }
        self.rows_of.retain(|_, rows| *rows > 0);
        for key in touched {
            self.settle(key, sink, counters);
        }
    }

    /// Brings the kernel's row in line with what the lessons that are left say.
    fn settle(&mut self, key: LearnedKey, sink: &mut impl LearnedSink, counters: &mut Counters) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let until_ns = entry.until_ns();
        let done = if entry.lessons.is_empty() {
            sink.remove(key)
        } else if until_ns != entry.written_ns {
            sink.insert(key, until_ns)
        } else {
            Ok(())
        };
        match done {
            Ok(()) if entry.lessons.is_empty() => {
                self.entries.remove(&key);
            }
            Ok(()) => entry.written_ns = until_ns,
            Err(error) => {
                warn!(address = %key.address, "the kernel did not close a learned address, tried again: {error:#}");
                counters.add(Count::NotRemoved);
            }
        }
    }

    fn teaches(&self, rule: RuleId, key: &LearnedKey) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.lessons.iter().any(|lesson| lesson.rule == rule))
    }

    fn rows(&self, rule: RuleId) -> usize {
        self.rows_of.get(&rule).copied().unwrap_or(0)
    }

    fn is_full(&self, rule: RuleId) -> bool {
        self.rows(rule) >= self.limits.per_rule || self.entries.len() >= self.limits.total
    }

    /// What a rule has taught and is open now, with when it closes.
    pub fn of(&self, rule: RuleId, now_ns: u64) -> impl Iterator<Item = (LearnedKey, u64)> {
        self.entries.iter().filter_map(move |(key, entry)| {
            let lesson = entry.lessons.iter().find(|lesson| lesson.rule == rule && lesson.until_ns > now_ns)?;
            Some((*key, lesson.until_ns))
        })
    }

    /// Every key in the kernel's table.
    pub fn keys(&self) -> BTreeSet<LearnedKey> {
        self.entries.keys().copied().collect()
    }
}
