//! A held answer's way: learn from it, then send it on.
//!
//! Whatever is in the frame, it is sent on: an answer that can't be read is the guest's to judge. What is wrong with it is
//! counted. If it can't be sent, it is lost, and the guest asks again, as it does for any datagram.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    counters::Count,
    datagram::{Checksum, Datagram},
    held::Held,
    learned::LearnedSink,
    table::{Garden, Lesson, PrefixSink},
};

/// What sends a whole Ethernet frame out of an interface, without waiting.
pub trait FrameSender {
    /// Sends it, past the egress program's hold.
    fn send(&mut self, ifindex: u32, frame: &[u8]) -> io::Result<()>;
}

/// Learns from held frames and sends them on.
pub struct Relay<S, F> {
    garden: Arc<Mutex<Garden<S>>>,
    sender: F,
    held: Held,
    observer: Option<Observer>,
}

/// Is told of each answer that a rule of the garden matched, before it is sent on: it must not wait.
pub type Observer = Box<dyn FnMut(&Held, &Lesson) + Send>;

impl<S: PrefixSink + LearnedSink, F: FrameSender> Relay<S, F> {
    /// A relay into this garden.
    pub fn new(garden: Arc<Mutex<Garden<S>>>, sender: F) -> Self {
        Self { garden, sender, held: Held::default(), observer: None }
    }

    /// Tells `observer` of each answer that a rule matched.
    #[must_use]
    pub fn with_observer(mut self, observer: Observer) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Handles one record of the ring, at this instant of CLOCK_MONOTONIC in nanoseconds.
    pub fn handle(&mut self, record: &[u8], now_ns: u64) {
        if !self.held.take(record) {
            self.count(Count::BadRecord);
            return;
        }
        let lesson = self.learn(now_ns);
        if let (Some(lesson), Some(observer)) = (&lesson, &mut self.observer) {
            observer(&self.held, lesson);
        }
        let count = match self.sender.send(self.held.ifindex(), self.held.frame()) {
            Ok(()) => Count::Relayed,
            Err(error) => {
                tracing::debug!(ifindex = self.held.ifindex(), "an answer was not sent on: {error}");
                Count::NotRelayed
            }
        };
        self.count(count);
    }

    fn learn(&mut self, now_ns: u64) -> Option<Lesson> {
        let Some(datagram) = Datagram::find(self.held.frame()) else {
            self.count(Count::NotDns);
            return None;
        };
        match datagram.checksum {
            Checksum::Good => {}
            Checksum::Partial(complete) => {
                datagram.complete(self.held.frame_mut(), complete);
                self.count(Count::Completed);
            }
            Checksum::Bad => {
                self.count(Count::BadChecksum);
                return None;
            }
        }
        let mut garden = self.garden.lock().unwrap_or_else(PoisonError::into_inner);
        garden.learn(self.held.zone(), datagram.source, datagram.message(self.held.frame()), now_ns)
    }

    /// Takes out what has expired.
    pub fn sweep(&self, now_ns: u64) {
        self.garden.lock().unwrap_or_else(PoisonError::into_inner).sweep(now_ns);
    }

    fn count(&self, count: Count) {
        self.garden.lock().unwrap_or_else(PoisonError::into_inner).count(count);
    }
}
