//! Where everything that happens is told, and whoever watches hears it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::broadcast;

use super::events::EventLine;

/// How many events a slow watcher may be behind before it loses some, which it is told.
const BACKLOG: usize = 4096;

/// Carries events to everybody who watches. Telling never waits.
#[derive(Clone)]
pub struct EventHub {
    sender: broadcast::Sender<EventLine>,
    lost: Arc<AtomicU64>,
}

impl Default for EventHub {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(BACKLOG), lost: Arc::default() }
    }
}

impl EventHub {
    /// Tells everybody who watches.
    pub fn tell(&self, event: EventLine) {
        // Nobody watches: nobody is told.
        let _: Result<usize, _> = self.sender.send(event);
    }

    /// Everything from now on.
    pub fn watch(&self) -> Watcher {
        Watcher { receiver: self.sender.subscribe(), lost: Arc::clone(&self.lost) }
    }

    /// Whether nobody watches, so that there is no need to find words.
    pub fn is_unwatched(&self) -> bool {
        self.sender.receiver_count() == 0
    }

    /// How many events did not reach a watcher that was too slow, all watchers together.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// Hears everything from its beginning on.
pub struct Watcher {
    receiver: broadcast::Receiver<EventLine>,
    lost: Arc<AtomicU64>,
}

impl Watcher {
    /// The next event; that some were lost is one, too. None when nobody is left who could tell.
    pub async fn next(&mut self) -> Option<EventLine> {
        match self.receiver.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(count)) => {
                self.lost.fetch_add(count, Ordering::Relaxed);
                Some(EventLine::lost(count))
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_watcher_is_told_what_it_lost_and_others_lose_nothing() {
        let hub = EventHub::default();
        assert!(hub.is_unwatched());
        let mut slow = hub.watch();
        for n in 0..BACKLOG + 3 {
            hub.tell(EventLine { count: Some(n as u64), ..EventLine::now("n") });
        }
        let mut late = hub.watch();
        hub.tell(EventLine::now("last"));
        let first = slow.next().await.unwrap();
        assert_eq!((first.event.as_str(), first.count), ("lost", Some(4)));
        assert_eq!(slow.next().await.unwrap().count, Some(4), "the oldest that is left");
        assert_eq!(late.next().await.unwrap().event, "last");
        assert_eq!(hub.lost(), 4);
        drop(hub);
        let mut rest = 0;
        while slow.next().await.is_some() {
            rest += 1;
        }
        assert_eq!(rest, BACKLOG - 1);
    }
}
