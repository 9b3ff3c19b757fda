//! Whose frames are captured, and where they go.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use portal_common::{Reason, reason::Outcome, tables::ClientKey};
use tokio::sync::mpsc;

use super::pcapng::CapturedFrame;

/// How many clients of zones can be captured at once: the kernel's table has room for so many.
pub const MOST_CLIENTS: usize = 16;
/// How many frames a slow reader may be behind before it loses some.
const BACKLOG: usize = 2_048;

/// The kernel's table of clients whose frames are captured.
pub trait CapturedTable: Send {
    /// From now on the client's frames are captured.
    fn insert(&mut self, client: ClientKey) -> Result<()>;
    /// No more.
    fn remove(&mut self, client: ClientKey) -> Result<()>;
}

/// Why a capture can't begin.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// No room is left.
    #[error("{MOST_CLIENTS} clients are being captured already; end another capture")]
    Full,
    /// The kernel refused.
    #[error("cannot tell the gate whose frames to capture")]
    Kernel(#[source] anyhow::Error),
}

/// The captures that are under way.
pub struct Captures(Mutex<Table>);

struct Table {
    kernel: Box<dyn CapturedTable>,
    open: Vec<Open>,
    next_id: u64,
}

struct Open {
    id: u64,
    clients: Vec<ClientKey>,
    sender: mpsc::Sender<CapturedFrame>,
    lost: Arc<AtomicU64>,
}

impl Table {
    fn uses(&self, client: ClientKey) -> usize {
        self.open.iter().flat_map(|open| &open.clients).filter(|c| **c == client).count()
    }

    fn distinct(&self) -> usize {
        let mut all: Vec<_> = self.open.iter().flat_map(|open| &open.clients).collect();
        all.sort_unstable();
        all.dedup();
        all.len()
    }

    fn release(&mut self, clients: &[ClientKey]) {
        for client in clients {
            if self.uses(*client) == 0
                && let Err(error) = self.kernel.remove(*client)
            {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "cannot tell the gate to capture a client's frames no more"
                );
            }
        }
    }
}

impl Captures {
    /// No captures yet, over this table.
    pub fn new(kernel: impl CapturedTable + 'static) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Table { kernel: Box::new(kernel), open: Vec::new(), next_id: 0 })))
    }

    /// Captures the frames of these clients until what it returns is dropped.
    pub fn begin(self: &Arc<Self>, mut clients: Vec<ClientKey>) -> Result<Capture, CaptureError> {
        clients.sort_unstable();
        clients.dedup();
        let mut table = self.lock();
        let new: Vec<_> = clients.iter().copied().filter(|client| table.uses(*client) == 0).collect();
        if table.distinct() + new.len() > MOST_CLIENTS || table.open.len() >= MOST_CLIENTS {
            return Err(CaptureError::Full);
        }
        for (at, client) in new.iter().enumerate() {
            if let Err(error) = table.kernel.insert(*client) {
                table.release(&new[..at]);
                return Err(CaptureError::Kernel(error));
            }
        }
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let lost = Arc::new(AtomicU64::new(0));
        let id = table.next_id;
        table.next_id += 1;
        table.open.push(Open { id, clients, sender, lost: Arc::clone(&lost) });
        Ok(Capture { id, receiver, lost, captures: Arc::clone(self) })
    }

    /// Gives a frame of this client to whoever captures it. Never waits.
    pub fn deliver(&self, client: ClientKey, frame: &CapturedFrame) {
        for open in self.lock().open.iter().filter(|open| open.clients.contains(&client)) {
            if open.sender.try_send(frame.clone()).is_err() {
                open.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Counts frames that found no room in the kernel: any capture may have lost them.
    pub fn lose(&self, frames: u64) {
        for open in &self.lock().open {
            open.lost.fetch_add(frames, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // A panic elsewhere can't leave it half-changed: the kernel's table is changed before ours, and released by ours.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A capture. It ends when this is dropped.
pub struct Capture {
    id: u64,
    receiver: mpsc::Receiver<CapturedFrame>,
    lost: Arc<AtomicU64>,
    captures: Arc<Captures>,
}

impl Capture {
    /// The next frame, and how many were lost before it. Frames lost in the kernel count for every capture.
    pub async fn next(&mut self) -> Option<(CapturedFrame, u64)> {
        let frame = self.receiver.recv().await?;
        Some((frame, self.lost.swap(0, Ordering::Relaxed)))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let mut table = self.captures.lock();
        if let Some(at) = table.open.iter().position(|open| open.id == self.id) {
            let open = table.open.swap_remove(at);
            table.release(&open.clients);
        }
    }
}

/// What was done with a frame and why, for people: `dropped: fragment: …`. None stands for a frame to the client that nothing was against.
pub fn comment(verdict: Outcome, reason: Option<Reason>, shadow: bool) -> String {
    let done = if shadow && verdict != Outcome::Passed {
        format!("passed in shadow mode, otherwise {}", verdict.name())
    } else {
        verdict.name().to_owned()
    };
    match reason {
        Some(reason) => format!("{done}: {}: {}", reason.name(), reason.text()),
        None => done,
    }
}

/// What must be added to an instant of `CLOCK_MONOTONIC` to get the time since 1970.
#[derive(Clone, Copy, Debug)]
pub struct WallOffset(Duration);

impl WallOffset {
    /// As it is now; when somebody sets the clock, what was measured before stays as it was.
    pub fn now() -> Self {
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self(wall.saturating_sub(Duration::from_nanos(crate::clock::now_ns())))
    }

    /// The time since 1970 of this instant in nanoseconds.
    pub fn of(self, monotonic_ns: u64) -> Duration {
        self.0 + Duration::from_nanos(monotonic_ns)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use portal_common::tables::Zone;

    use super::*;

    #[derive(Clone, Default)]
    struct Kernel(Arc<Mutex<BTreeSet<ClientKey>>>);

    impl CapturedTable for Kernel {
        fn insert(&mut self, client: ClientKey) -> Result<()> {
            let mut clients = self.0.lock().unwrap();
            anyhow::ensure!(clients.len() < MOST_CLIENTS, "full");
            clients.insert(client);
            Ok(())
        }

        fn remove(&mut self, client: ClientKey) -> Result<()> {
            anyhow::ensure!(self.0.lock().unwrap().remove(&client), "not there");
            Ok(())
        }
    }

    fn client(n: u8) -> ClientKey {
        ClientKey::new(Zone::FIRST, [2, 0, 0, 0, 0, n])
    }

    fn frame(n: u8) -> CapturedFrame {
        CapturedFrame {
            at: Duration::ZERO,
            ifindex: 1,
            bytes: vec![n; 60],
            whole_len: 60,
            tag: None,
            outbound: false,
            comment: String::new(),
        }
    }

    #[tokio::test]
    async fn frames_go_to_who_captures_their_client_and_the_last_who_does_ends_it() {
        let kernel = Kernel::default();
        let captures = Captures::new(kernel.clone());
        let mut one = captures.begin(vec![client(1)]).unwrap();
        let mut both = captures.begin(vec![client(2), client(1), client(2)]).unwrap();
        for n in [1, 2, 3] {
            captures.deliver(client(n), &frame(n));
        }
        assert_eq!(one.next().await.unwrap(), (frame(1), 0));
        assert_eq!(both.next().await.unwrap(), (frame(1), 0));
        assert_eq!(both.next().await.unwrap(), (frame(2), 0));
        assert!(one.receiver.try_recv().is_err() && both.receiver.try_recv().is_err());
        drop(both);
        assert_eq!(*kernel.0.lock().unwrap(), BTreeSet::from([client(1)]), "another captures it still");
        drop(one);
        assert!(kernel.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_a_slow_reader_loses_is_counted_before_the_next_frame() {
        let captures = Captures::new(Kernel::default());
        let mut capture = captures.begin(vec![client(1)]).unwrap();
        for _ in 0..BACKLOG + 5 {
            captures.deliver(client(1), &frame(1));
        }
        captures.lose(2);
        assert_eq!(capture.next().await.unwrap().1, 7);
        assert_eq!(capture.next().await.unwrap().1, 0);
    }

    #[test]
    fn there_is_room_for_sixteen_and_what_ends_makes_room() {
        let kernel = Kernel::default();
        let captures = Captures::new(kernel.clone());
        let mut open: Vec<_> = (0..16).map(|n| captures.begin(vec![client(n)]).unwrap()).collect();
        assert!(matches!(captures.begin(vec![client(99)]), Err(CaptureError::Full)));
        open.pop();
        assert!(matches!(captures.begin(vec![client(98), client(99)]), Err(CaptureError::Full)), "two, and one place");
        assert_eq!(kernel.0.lock().unwrap().len(), 15, "nothing is left of what was refused");
        open.push(captures.begin(vec![client(99)]).unwrap());
        drop(open);
        assert!(kernel.0.lock().unwrap().is_empty());
    }

    #[test]
    fn comments_say_what_was_done_and_why() {
        let table = [
            (Outcome::Dropped, Some(Reason::Fragment), false, "dropped: fragment: A fragment from"),
            (
                Outcome::Answered,
                Some(Reason::TcpRefused),
                true,
                "passed in shadow mode, otherwise answered: tcp_refused: ",
            ),
            (Outcome::Passed, Some(Reason::Dns), true, "passed: dns: "),
            (Outcome::Passed, None, false, "passed"),
        ];
        for (verdict, reason, shadow, expected) in table {
            let comment = comment(verdict, reason, shadow);
            assert!(comment.starts_with(expected), "{comment}");
        }
    }
}
