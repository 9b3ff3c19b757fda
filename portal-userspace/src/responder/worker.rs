//! The responder's threads: one for each receive queue, asleep while there is nothing to answer.

use std::{
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::{
        Arc, PoisonError, RwLock,
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
    exchange::{Exchange, Policy, Snapshot, Stats},
    socket::{Socket, SocketOptions},
};
use crate::clock;

/// The cookie keys, which the daemon renews as time goes by.
pub type SharedKeys = Arc<RwLock<CookieKeys>>;

struct Stop {
    requested: AtomicBool,
    wake: OwnedFd,
}

struct Worker {
    queue: u32,
    stats: Arc<Stats>,
    thread: Option<JoinHandle<()>>,
}

/// The running responder. Dropping it stops it.
pub struct Responder {
    workers: Vec<Worker>,
    stop: Arc<Stop>,
    sockets: XskMap<MapData>,
}

impl Responder {
    /// Opens a socket on each of the interface's receive queues 0 to `queues`-1, puts them into the gate's table of sockets,
    /// and answers what the gate redirects there.
    pub fn spawn(
        ifindex: u32,
        queues: u32,
        sockets: XskMap<MapData>,
        policy: &Arc<Policy>,
        keys: &SharedKeys,
        options: SocketOptions,
    ) -> Result<Self> {
        let places = sockets.len();
        ensure!(queues > 0, "interface {ifindex} has no receive queue");
        ensure!(
            queues <= places,
            "interface {ifindex} has {queues} receive queues, but the gate has sockets for {places}: use fewer \
             (`ethtool -L DEV combined {places}`)"
        );
        // All are open before the first is in the table: either every queue is answered, or none and the caller knows why.
        let opened = (0..queues).map(|queue| Socket::open(ifindex, queue, options)).collect::<Result<Vec<_>, _>>()?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context("cannot create an eventfd")?;
        let stop = Arc::new(Stop { requested: AtomicBool::new(false), wake });
        let mut responder = Self { workers: Vec::new(), stop, sockets };
        for (queue, socket) in (0..queues).zip(opened) {
            responder
                .sockets
                .set(queue, socket.as_raw_fd(), 0)
                .with_context(|| format!("cannot put the socket of queue {queue} into the gate's table"))?;
            let stats = Arc::new(Stats::default());
            let exchange = Exchange::new(Arc::clone(policy), Arc::clone(&stats));
            let (keys, stop, counted) = (Arc::clone(keys), Arc::clone(&responder.stop), Arc::clone(&stats));
            let thread = thread::Builder::new()
                .name(format!("responder-{queue}"))
                .spawn(move || work(queue, socket, exchange, &keys, &stop, &counted))
                .context("cannot start a thread")?;
            responder.workers.push(Worker { queue, stats, thread: Some(thread) });
        }
        info!(ifindex, queues, frames = options.frames, "responder started");
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
            if let Err(e) = self.sockets.unset(worker.queue) {
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

fn work(queue: u32, mut socket: Socket, mut exchange: Exchange, keys: &SharedKeys, stop: &Stop, stats: &Stats) {
    let mut stopped = None;
    while !stop.requested.load(Ordering::Acquire) {
        // One reading of both for a batch: a request waits for a few microseconds at most.
        let (now_ns, keys) = (clock::now_ns(), *keys.read().unwrap_or_else(PoisonError::into_inner));
        let turn = socket.turn(|frame| match exchange.receive(frame.bytes(), &keys, now_ns) {
            Some(reply) => frame.rewrite(reply.frame_length(), |bytes| reply.write(bytes)),
            None => false,
        });
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
