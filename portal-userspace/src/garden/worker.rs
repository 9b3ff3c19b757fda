//! The thread that takes held frames from the ring.

use std::{
    borrow::Borrow,
    io,
    os::fd::{AsFd, OwnedFd},
    thread::JoinHandle,
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
};

use super::{
    learned::LearnedSink,
    relay::{FrameSender, Relay},
    table::PrefixSink,
};
use crate::clock;

/// How often what has expired is taken out.
const SWEEP: Duration = Duration::from_secs(1);
/// How far the clock may be behind: it moves once a tick, every 10 ms at the most seldom (`CONFIG_HZ_100`).
const CLOCK_LAG: Duration = Duration::from_millis(10);
/// How many records are handled before the thread looks whether it is to stop.
const BATCH: usize = 64;

/// Where records come from: readable, in poll(2)'s sense, while it has one.
pub trait Records: AsFd {
    /// Gives the next record to `handle`; false if there is none now.
    fn next(&mut self, handle: &mut dyn FnMut(&[u8])) -> bool;
}

impl<T: Borrow<MapData>> Records for RingBuf<T> {
    fn next(&mut self, handle: &mut dyn FnMut(&[u8])) -> bool {
        Self::next(self).map(|record| handle(&record)).is_some()
    }
}

/// A running relay.
#[derive(Debug)]
pub struct Worker {
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread: it handles each record as it comes, and once a second takes out what has expired.
    pub fn spawn<R, S, F>(mut records: R, mut relay: Relay<S, F>) -> io::Result<Self>
    where
        R: Records + Send + 'static,
        S: PrefixSink + LearnedSink + Send + 'static,
        F: FrameSender + Send + 'static,
    {
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let stopped = stop.try_clone()?;
        let thread = std::thread::Builder::new().name("garden".into()).spawn(move || {
            let mut sweep_ns = clock::after(clock::now_ns(), SWEEP);
            loop {
                let mut handled = 0;
                while handled < BATCH && records.next(&mut |record| relay.handle(record, clock::now_ns())) {
                    handled += 1;
                }
                let now_ns = clock::now_ns();
                if now_ns >= sweep_ns {
                    relay.sweep(now_ns);
                    sweep_ns = clock::after(now_ns, SWEEP);
                }
                // Beyond the lag, or a thread that wakes on time asks the clock again and again until it has moved.
                let wait = if handled == BATCH { 0 } else { clock::after(sweep_ns.saturating_sub(now_ns), CLOCK_LAG) };
                if is_stopped(&records, &stopped, wait) {
                    return;
                }
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Whether it has died, which it never should.
    pub fn has_failed(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Ends the thread, and waits until it has ended.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // A full counter is readable, too.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // It has told the world of its panic itself.
            let _ = thread.join();
        }
    }
}

/// Waits for a record, at most so many nanoseconds; true if the thread is to stop.
fn is_stopped(records: &impl AsFd, stop: &OwnedFd, wait_ns: u64) -> bool {
    let mut fds = [PollFd::new(records, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
    let wait = Duration::from_nanos(wait_ns);
    let wait = Timespec { tv_sec: wait.as_secs().try_into().unwrap_or(1), tv_nsec: wait.subsec_nanos().into() };
    match poll(&mut fds, Some(&wait)) {
        Ok(_) | Err(Errno::INTR) => !fds[1].revents().is_empty(),
        // Only a descriptor that is none, or no memory: going on would be a busy loop.
        Err(error) => {
            tracing::error!(
                "the garden's thread can't wait for answers: {error}; strangers get none until portald is restarted"
            );
            true
        }
    }
}
