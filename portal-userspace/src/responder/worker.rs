//! The responder's threads: one for each receive queue, asleep while there is nothing to answer.

use std::{
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{MapData, XskMap};
use portal_common::tables::CookieKeys;
use rustix::event::{EventfdFlags, eventfd};
use tracing::{error, info, warn};

use super::{
    exchange::{Exchange, Snapshot, Stats},
    learning::Learner,
    policies::SharedPolicies,
    reassembly::Limits,
    socket::{Socket, SocketOptions},
};
use crate::{clock, datapath::known::KnownAnswers};

/// The cookie keys, which the daemon renews as time goes by.
pub type SharedKeys = Arc<RwLock<CookieKeys>>;

/// The gate's table of sockets, which the responders of all interfaces share.
pub type SharedSockets = Arc<Mutex<XskMap<MapData>>>;

/// An interface's receive queues, and where their sockets are in the gate's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queues {
    /// The interface.
    pub ifindex: u32,
    /// How many receive queues it has.
    pub count: u32,
    /// The place of queue 0 in the table. The others follow.
    pub xsk_base: u32,
}

/// What the workers of a responder work with.
#[derive(Clone)]
pub struct Shared {
    /// The gate's table of sockets.
    pub sockets: SharedSockets,
    /// What is answered.
    pub policies: SharedPolicies,
    /// The cookie keys.
    pub keys: SharedKeys,
    /// What the gate answers by itself.
    pub known: Arc<KnownAnswers>,
}

struct Stop {
    requested: AtomicBool,
    wake: OwnedFd,
}

struct Worker {
    queue: u32,
    place: u32,
    stats: Arc<Stats>,
    thread: Option<JoinHandle<()>>,
}

/// The running responder. Dropping it stops it.
pub struct Responder {
    workers: Vec<Worker>,
    stop: Arc<Stop>,
    sockets: SharedSockets,
}

impl Responder {
    /// Opens a socket on each of the interface's receive queues, puts them into the gate's table of sockets, and answers what the gate
    /// redirects there. The limits are each worker's.
    pub fn spawn(queues: Queues, shared: &Shared, limits: Limits, options: SocketOptions) -> Result<Self> {
        let Queues { ifindex, count, xsk_base } = queues;
        let sockets = &shared.sockets;
        let places = lock(sockets).len().saturating_sub(xsk_base);
        ensure!(count > 0, "interface {ifindex} has no receive queue");
        ensure!(
            count <= places,
            "interface {ifindex} has {count} receive queues, but the gate has places for {places} of its sockets: use fewer \
             (`ethtool -L DEV combined {places}`)"
        );
        // All are open before the first is in the table: either every queue is answered, or none and the caller knows why.
        let opened = (0..count).map(|queue| Socket::open(ifindex, queue, options)).collect::<Result<Vec<_>, _>>()?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context("cannot create an eventfd")?;
        let stop = Arc::new(Stop { requested: AtomicBool::new(false), wake });
        let mut responder = Self { workers: Vec::new(), stop, sockets: Arc::clone(sockets) };
        for (queue, socket) in (0..count).zip(opened) {
            let place = xsk_base + queue;
            lock(sockets)
                .set(place, socket.as_raw_fd(), 0)
                .with_context(|| format!("cannot put the socket of queue {queue} into the gate's table"))?;
            let stats = Arc::new(Stats::default());
            let exchange = Exchange::new(limits, Arc::clone(&stats));
            let shared = shared.clone();
            let (stop, counted) = (Arc::clone(&responder.stop), Arc::clone(&stats));
            let thread = thread::Builder::new()
                .name(format!("responder-{place}"))
                .spawn(move || work(queue, socket, exchange, &shared, &stop, &counted))
                .context("cannot start a thread")?;
            responder.workers.push(Worker { queue, place, stats, thread: Some(thread) });
        }
        info!(ifindex, queues = count, xsk_base, frames = options.frames, "responder started");
        Ok(responder)
    }

    /// What each queue's worker has done.
    pub fn per_queue(&self) -> Vec<(u32, Snapshot)> {
        self.workers.iter().map(|worker| (worker.queue, worker.stats.snapshot())).collect()
    }

    /// What all workers together have done.
    pub fn total(&self) -> Snapshot {
        let mut total = Snapshot::default();
        for (_, snapshot) in self.per_queue() {
            total += snapshot;
        }
        total
    }

    /// The queue of a worker that has ended by itself, if one has: its requests are dropped and counted by the gate.
    pub fn failed(&self) -> Option<u32> {
        let ended = |worker: &&Worker| worker.thread.as_ref().is_some_and(JoinHandle::is_finished);
        self.workers.iter().find(ended).map(|worker| worker.queue)
    }

    /// Ends all workers and closes their sockets. From then on the gate drops and counts what it would redirect.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        for worker in &self.workers {
            // Closing the socket takes it out of the table as well; this only does so before its worker has ended.
            if let Err(e) = lock(&self.sockets).unset(worker.place) {
                warn!(queue = worker.queue, error = %e, "cannot take a socket out of the gate's table");
            }
        }
        self.stop.requested.store(true, Ordering::Release);
        // Nobody reads it, so that it stays readable until every worker has seen it.
        if let Err(e) = rustix::io::write(&self.stop.wake, &1u64.to_ne_bytes()) {
            error!(error = %e, "cannot wake the responder's threads");
        }
        for worker in &mut self.workers {
            if worker.thread.take().is_some_and(|thread| thread.join().is_err()) {
                error!(queue = worker.queue, "a responder thread has panicked");
            }
        }
        self.workers.clear();
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if !self.workers.is_empty() {
            self.end();
        }
    }
}

fn lock(sockets: &SharedSockets) -> MutexGuard<'_, XskMap<MapData>> {
    // The table is the kernel's: a panic elsewhere can't leave it half-written.
    sockets.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(queue: u32, mut socket: Socket, mut exchange: Exchange, shared: &Shared, stop: &Stop, stats: &Stats) {
    let mut stopped = None;
    let mut learner = Learner::new(Arc::clone(&shared.known));
    while !stop.requested.load(Ordering::Acquire) {
        // One reading of each for a batch: a request waits for a few microseconds at most.
        let (now_ns, keys) = (clock::now_ns(), *shared.keys.read().unwrap_or_else(PoisonError::into_inner));
        let policies = shared.policies.get();
        let turn = socket.turn(|frame| match exchange.receive(frame.bytes(), &policies, &keys, now_ns) {
            Ok(reply) => {
                learner.saw(frame.bytes(), &reply, &policies, now_ns, || shared.policies.are(&policies));
                frame.rewrite(reply.frame_length(), |bytes| reply.write(bytes))
            }
            Err(_) => false,
        });
        // A replaced policy must not stay in memory for as long as this thread sleeps.
        drop(policies);
        stats.tx_retries.fetch_add(turn.retries, Ordering::Relaxed);
        if turn.unsent > 0 {
            warn!(queue, frames = turn.unsent, "the send ring is full: these clients will ask again");
        }
        if turn.stopped != stopped {
            if let Some(e) = turn.stopped {
                warn!(queue, error = %e, "cannot send: is the interface up?");
            } else {
                info!(queue, "sending again");
            }
            stopped = turn.stopped;
        }
        if turn.is_full() {
            continue;
        }
        if let Err(e) = socket.wait(stop.wake.as_fd()) {
            // Out of kernel memory, at worst: it must not become a busy loop.
            warn!(queue, error = %e, "cannot wait for frames");
            thread::sleep(Duration::from_millis(100));
        }
    }
}
