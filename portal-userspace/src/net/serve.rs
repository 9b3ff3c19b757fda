//! Serving HTTP/1 to whoever connects, within fixed bounds of number and time.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    io,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::{oneshot, watch},
};

/// How long a client may take to send the head of its request: a phone with poor reception repeats a lost segment after 1 s
/// and again after 3 s (RFC 6298 section 5).
const HEAD_TIME: Duration = Duration::from_secs(5);
/// How long a connection may last, from accepting it to the last byte of the answer.
pub(crate) const CONNECTION_TIME: Duration = Duration::from_secs(30);
/// How long the rest of a request that was answered early is still read.
const LINGER_TIME: Duration = Duration::from_secs(2);
/// How much of it is: a request as large as this costs its sender more than us.
const LINGER_BYTES: usize = 16 * 1024 * 1024;
/// Largest head of a request, in bytes: hyper answers 431 to a larger one.
const HEAD_BYTES: usize = 16 * 1024;

/// Serves one request of one connection, then closes it.
///
/// One request for each connection: nothing waits for a second, so no idle connection takes a place. `peer` is what
/// handlers see as [`Extension`].
pub(crate) async fn connection<I, P>(io: I, router: &Router, peer: P)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    P: Clone + Send + Sync + 'static,
{
    connection_until(io, router, peer, tokio::time::sleep(CONNECTION_TIME)).await;
}

/// As [`connection`], for as long as is said here instead of [`CONNECTION_TIME`].
pub(crate) async fn connection_until<I, P>(io: I, router: &Router, peer: P, end: impl Future<Output = ()>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    P: Clone + Send + Sync + 'static,
{
    let service = TowerToHyperService::new(router.clone().layer(Extension(peer)));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(io), service);
    let answering = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx));
    // An error is the client's: a request that is none, or larger than what we read. hyper has answered it.
    tokio::select! {
        _ = answering => {}
        () = end => return,
    }
    // Closing with unread data resets the connection and can destroy the answer: FIN, then read what still comes.
    let mut io = connection.into_parts().io.into_inner();
    let linger = async {
        io.shutdown().await?;
        let mut rest = vec![0; 16 * 1024];
        let mut read = 0;
        while read < LINGER_BYTES {
            match io.read(&mut rest).await? {
                0 => break,
                n => read += n,
            }
        }
        io::Result::Ok(())
    };
    // However it ends, the answer has been given.
    let _: Result<io::Result<()>, _> = tokio::time::timeout(LINGER_TIME, linger).await;
}

/// Resolves when the daemon is asked to stop, or nobody is left who could ask.
pub(crate) async fn stopped(mut stop: watch::Receiver<bool>) {
    let _: Result<_, watch::error::RecvError> = stop.wait_for(|stop| *stop).await;
}

/// Waits after a failed `accept`, so that running out of file descriptors does not become a busy loop.
pub(crate) async fn after_failed_accept(error: &io::Error) {
    // What concerns the one connection only (accept(2)).
    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        tracing::warn!(%error, "cannot accept a connection");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Runs until the work is done or the daemon stops.
pub(crate) async fn until_stopped(stop: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    let (work, stop) = (pin!(work), pin!(stopped(stop)));
    futures::future::select(work, stop).await;
}

/// How many connections are open: in all, and of each client.
#[derive(Clone)]
pub(crate) struct Places<K> {
    taken: Arc<Mutex<Taken<K>>>,
    total: usize,
    each: usize,
}

/// What is taken: the sum, and each client's part, which is never 0.
struct Taken<K> {
    sum: usize,
    each: HashMap<K, usize>,
}

impl<K: Clone + Eq + Hash> Places<K> {
    pub(crate) fn new(total: usize, each: usize) -> Self {
        let taken = Arc::new(Mutex::new(Taken { sum: 0, each: HashMap::new() }));
        Self { taken, total, each }
    }

    /// A place for this client until the guard is dropped.
    pub(crate) fn take(&self, client: K) -> Result<Place<K>, NoPlace> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.each.get(&client).copied().unwrap_or(0);
        if own >= self.each {
            return Err(NoPlace::Own);
        }
        if taken.sum >= self.total {
            return Err(NoPlace::Any);
        }
        taken.sum += 1;
        taken.each.insert(client.clone(), own + 1);
        Ok(Place { places: self.clone(), client })
    }
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// The client has all of its own.
    Own,
    /// None is left.
    Any,
}

/// A taken place.
pub(crate) struct Place<K: Clone + Eq + Hash> {
    places: Places<K>,
    client: K,
}

impl<K: Clone + Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.sum -= 1;
        match taken.each.get_mut(&self.client) {
            Some(own) if *own > 1 => *own -= 1,
            _ => {
                taken.each.remove(&self.client);
            }
        }
    }
}

/// Open connections, of which the oldest gives way where no place is left: whoever takes places to keep others out loses
/// them first, those who have not even asked before the others.
#[derive(Clone)]
pub(crate) struct Crowd<K: Clone + Eq + Hash> {
    places: Places<K>,
    open: Arc<Mutex<Open<K>>>,
}

/// By age; what is removed is closed.
struct Open<K: Clone + Eq + Hash> {
    next: u64,
    silent: BTreeMap<u64, Seat<K>>,
    heard: BTreeMap<u64, Seat<K>>,
}

struct Seat<K: Clone + Eq + Hash> {
    _place: Place<K>,
    /// Closes the connection by being dropped.
    _open: oneshot::Sender<()>,
}

impl<K: Clone + Eq + Hash> Crowd<K> {
    /// A crowd of so many in all, and so many of each client.
    pub(crate) fn new(total: usize, each: usize) -> Self {
        let open = Open { next: 0, silent: BTreeMap::new(), heard: BTreeMap::new() };
        Self { places: Places::new(total, each), open: Arc::new(Mutex::new(open)) }
    }

    /// A place for this client until the guard is dropped, and what resolves when another needs it; None where the client
    /// has all of its own.
    pub(crate) fn admit(&self, client: K) -> Option<(Member<K>, impl Future<Output = ()> + use<K>)> {
        let place = self.places.take(client.clone()).or_else(|no| match no {
            NoPlace::Own => Err(no),
            NoPlace::Any => {
                let mut open = self.lock();
                let oldest = open.silent.pop_first().or_else(|| open.heard.pop_first());
                drop(open);
                drop(oldest);
                self.places.take(client)
            }
        });
        let (sender, closed) = oneshot::channel();
        let seat = Seat { _place: place.ok()?, _open: sender };
        let mut open = self.lock();
        let id = open.next;
        open.next += 1;
        open.silent.insert(id, seat);
        drop(open);
        let closed = async move {
            let _: Result<(), oneshot::error::RecvError> = closed.await;
        };
        Some((Member { id, crowd: self.clone() }, closed))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open<K>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection in a [`Crowd`].
pub(crate) struct Member<K: Clone + Eq + Hash> {
    id: u64,
    crowd: Crowd<K>,
}

impl<K: Clone + Eq + Hash> Member<K> {
    /// Notes that the client has sent a whole head.
    pub(crate) fn heard(&self) {
        let mut open = self.crowd.lock();
        if let Some(seat) = open.silent.remove(&self.id) {
            open.heard.insert(self.id, seat);
        }
    }
}

impl<K: Clone + Eq + Hash> Drop for Member<K> {
    fn drop(&mut self) {
        let mut open = self.crowd.lock();
        let seat = open.silent.remove(&self.id).or_else(|| open.heard.remove(&self.id));
        drop(open);
        drop(seat);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn in_a_full_crowd_the_oldest_that_is_silent_gives_way_and_then_the_oldest() {
        let crowd = Crowd::new(3, 2);
        let admit = |client| crowd.admit(client).map(|(member, closed)| (member, Box::pin(closed)));
        let mut members: Vec<_> = ["a", "b", "b"].map(|client| admit(client).unwrap()).into();
        members[0].0.heard();
        assert!(admit("b").is_none(), "b has two, and does not push others out");
        members.push(admit("c").unwrap());
        assert_eq!(over(&mut members), [false, true, false, false], "the older of the two that are silent");
        drop(members.remove(1));
        for (member, _) in &members {
            member.heard();
        }
        members.push(admit("d").unwrap());
        assert_eq!(over(&mut members), [true, false, false, false], "all had asked: the oldest");
        drop(members);
        let open = crowd.lock();
        assert!(open.silent.is_empty() && open.heard.is_empty());
        let taken = crowd.places.taken.lock().unwrap();
        assert!(taken.sum == 0 && taken.each.is_empty());
    }

    /// Which have to close. To be asked once for each that has.
    fn over<M>(members: &mut [(M, impl Future + Unpin)]) -> Vec<bool> {
        members.iter_mut().map(|(_, closed)| closed.now_or_never().is_some()).collect()
    }

    #[test]
    fn one_client_takes_its_own_places_and_no_more() {
        let places = Places::new(3, 2);
        let a = [places.take("a"), places.take("a")];
        assert!(a.iter().all(Result::is_ok));
        assert_eq!(places.take("a").err(), Some(NoPlace::Own));
        let b = places.take("b");
        assert!(b.is_ok());
        assert_eq!(places.take("c").err(), Some(NoPlace::Any));
        drop(a);
        assert!(places.take("c").is_ok());
        drop(b);
        let taken = places.taken.lock().unwrap();
        assert!(taken.sum == 0 && taken.each.is_empty());
    }
}
