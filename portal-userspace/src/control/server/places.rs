//! Places at the control API: how many are answered at once, and who waits in line for how long.
//!
//! Questions, and answers that go on (monitors and captures), have places of their own, so that however many watch, questions are answered. A place is taken when
//! the head of a request has come: who connects and says nothing takes none. Who finds all taken waits in line, in order. Root and the daemon's own user have
//! places, a line and connections that nobody else can take.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;
use crate::net::serve;

/// How long somebody waits in line.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// How many questions are answered at once: root's, and those of all others together and of each user.
const QUESTIONS: (usize, usize, usize) = (64, 64, 32);
/// How many answers that go on are given at once, likewise.
const STREAMS: (usize, usize, usize) = (64, 64, 32);
/// How many connections there are at once with those in line: root's, and those of all others together. A user has half of these.
const CONNECTIONS: usize = 4096;
/// What a connection takes of the descriptors that the daemon may have: a quarter for root, a quarter for others, and half for all else.
const SHARE: u64 = 4;

/// All places.
pub(super) struct Places {
    questions: [Row; 2],
    streams: [Row; 2],
    connections: [serve::Places<u32>; 2],
}

/// Places of a kind, for root or for others.
struct Row {
    all: Arc<Semaphore>,
    each: usize,
    users: Mutex<HashMap<u32, Arc<Semaphore>>>,
}

/// A place, until this is dropped.
pub(super) struct Place {
    _own: OwnedSemaphorePermit,
    _one: OwnedSemaphorePermit,
}

/// What is wanted of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An answer.
    Question,
    /// An answer that goes on until somebody ends it.
    Stream,
}

/// Who wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Visitor {
    pub(super) uid: u32,
    /// Root, or the daemon's own user.
    pub(super) is_owner: bool,
}

impl Places {
    /// All are free. As many connections as there are descriptors for.
    pub(super) fn new() -> Self {
        let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let share = descriptors.map_or(CONNECTIONS, |most| usize::try_from(most / SHARE).unwrap_or(CONNECTIONS));
        let connections = share.clamp(1, CONNECTIONS);
        let rows = |(root, others, each)| [Row::new(root, root), Row::new(others, each)];
        Self {
            questions: rows(QUESTIONS),
            streams: rows(STREAMS),
            connections: [
                serve::Places::new(connections, connections),
                serve::Places::new(connections, connections.div_ceil(2)),
            ],
        }
    }

    /// A connection of this user's until the guard is dropped, if it may have one more.
    pub(super) fn connect(&self, visitor: Visitor) -> Option<serve::Place<u32>> {
        self.connections[usize::from(!visitor.is_owner)].take(visitor.uid).ok()
    }

    /// A place for this user, after a wait in line if need be.
    pub(super) async fn wait(&self, kind: Kind, visitor: Visitor) -> Result<Place, ApiError> {
        let (rows, code, message, remedy) = match kind {
            Kind::Question => (
                &self.questions,
                "busy",
                "too many questions at once",
                "ask again later, and fewer at once: `ss -xp` shows who holds the control socket",
            ),
            Kind::Stream => (
                &self.streams,
                "streams_full",
                "too many monitors and captures at once",
                "end another `portalctl monitor` or `portalctl capture`: `ss -xp` shows who holds the control socket",
            ),
        };
        let row = &rows[usize::from(!visitor.is_owner)];
        let place = tokio::time::timeout(PATIENCE, row.place(visitor.uid)).await;
        place.ok().flatten().ok_or_else(|| {
            let message = format!(
                "{message}: all {} places of user {} were taken for {} s",
                row.each,
                visitor.uid,
                PATIENCE.as_secs()
            );
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code, message, remedy)
        })
    }
}

impl Row {
    fn new(all: usize, each: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), each, users: Mutex::default() }
    }

    /// A place, when one is free and it is this one's turn; None only if there never will be.
    async fn place(&self, uid: u32) -> Option<Place> {
        // First one of its own: who waits for that keeps no other user waiting.
        let own = self.of(uid).acquire_owned().await.ok()?;
        let one = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Place { _own: own, _one: one })
    }

    fn of(&self, uid: u32) -> Arc<Semaphore> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        // Only those who have a place or wait for one are remembered: all hold the semaphore.
        users.retain(|_, places| Arc::strong_count(places) > 1);
        Arc::clone(users.entry(uid).or_insert_with(|| Arc::new(Semaphore::new(self.each))))
    }
}

/// A connection, and the place that it has.
#[derive(Clone)]
pub(super) struct Visit {
    places: Arc<Places>,
    visitor: Visitor,
    place: Arc<Mutex<Option<(Kind, Place)>>>,
}

impl Visit {
    /// It has no place yet.
    pub(super) fn new(places: Arc<Places>, visitor: Visitor) -> Self {
        Self { places, visitor, place: Arc::default() }
    }

    /// Takes a place of this kind until the connection ends, in place of the one it has, after a wait in line if need be.
    pub(super) async fn take(&self, kind: Kind) -> Result<(), ApiError> {
        // Who waits to watch keeps nobody from asking.
        drop(self.lock().take());
        let place = self.places.wait(kind, self.visitor).await?;
        *self.lock() = Some((kind, place));
        Ok(())
    }

    /// When the connection has lasted too long: never while its answer goes on.
    pub(super) async fn end(self) {
        // It may have waited in line twice.
        tokio::time::sleep(PATIENCE * 2 + serve::CONNECTION_TIME).await;
        if self.lock().as_ref().is_some_and(|(kind, _)| *kind == Kind::Stream) {
            std::future::pending::<()>().await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Kind, Place)>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const ROOT: Visitor = Visitor { uid: 0, is_owner: true };

    fn user(uid: u32) -> Visitor {
        Visitor { uid, is_owner: false }
    }

    /// A place, if there is one at once.
    fn at_once(places: &Places, kind: Kind, visitor: Visitor) -> Option<Place> {
        // Tokio lets a task take only so many at a time.
        tokio::task::unconstrained(places.wait(kind, visitor)).now_or_never()?.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_takes_anothers_places_and_who_waits_gets_the_first_that_is_free() {
        let places = Places::new();
        let mut taken: Vec<Place> = Vec::new();
        // The sentence, the kind, who, and how many there are.
        let table = [
            ("a user's streams", Kind::Stream, user(1), 32),
            ("another's are its own", Kind::Stream, user(2), 32),
            ("all are taken by two", Kind::Stream, user(3), 0),
            ("root's are its own", Kind::Stream, ROOT, 64),
            ("a user's questions beside its streams", Kind::Question, user(1), 32),
            ("another's", Kind::Question, user(3), 32),
            ("all are taken", Kind::Question, user(2), 0),
            ("root's are its own, beside its streams", Kind::Question, ROOT, 64),
        ];
        for (sentence, kind, visitor, expected) in table {
            let got: Vec<_> = std::iter::from_fn(|| at_once(&places, kind, visitor)).collect();
            assert_eq!(got.len(), expected, "{sentence}");
            taken.extend(got);
        }
        let mut waiting = Box::pin(places.wait(Kind::Question, ROOT));
        assert!((&mut waiting).now_or_never().is_none(), "all are taken");
        taken.pop();
        assert!(waiting.await.is_ok(), "one is free");
        assert!(places.wait(Kind::Question, user(3)).await.is_err(), "the line has an end");
        drop(taken);
        for row in places.questions.iter().chain(&places.streams) {
            row.of(9);
            assert_eq!(row.users.lock().unwrap().len(), 1, "nobody is remembered for nothing");
        }
    }

    #[test]
    fn root_has_connections_of_its_own() {
        let places = Places::new();
        let most = |visitor| std::iter::from_fn(|| places.connect(visitor)).collect::<Vec<_>>();
        let (one, other) = (most(user(1)), most(user(2)));
        assert!(!one.is_empty() && !other.is_empty());
        assert!(places.connect(user(3)).is_none(), "two took all");
        assert!(most(ROOT).len() >= one.len() + other.len());
    }
}
