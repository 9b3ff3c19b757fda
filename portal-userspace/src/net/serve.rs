//! Serving HTTP/1 to whoever connects, within fixed bounds of number and time.

use std::{
    collections::HashMap,
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
    sync::watch,
};

/// How long a client may take to send the head of its request.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long a connection may last, from accepting it to the last byte of the answer.
const CONNECTION_TIME: Duration = Duration::from_secs(30);
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
    let service = TowerToHyperService::new(router.clone().layer(Extension(peer)));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(io), service);
    let answering = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx));
    // An error is the client's: a request that is none, or larger than what we read. hyper has answered it.
    if tokio::time::timeout(CONNECTION_TIME, answering).await.is_err() {
        return;
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

    /// A place for this client until the guard is dropped; None where it has all of its own, or none is left.
    pub(crate) fn take(&self, client: K) -> Option<Place<K>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.each.get(&client).copied().unwrap_or(0);
        if taken.sum >= self.total || own >= self.each {
            return None;
        }
        taken.sum += 1;
        taken.each.insert(client.clone(), own + 1);
        Some(Place { places: self.clone(), client })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_takes_its_own_places_and_no_more() {
        let places = Places::new(3, 2);
        let a = [places.take("a"), places.take("a")];
        assert!(a.iter().all(Option::is_some));
        assert!(places.take("a").is_none(), "a has two");
        let b = places.take("b");
        assert!(b.is_some());
        assert!(places.take("c").is_none(), "all three are taken");
        drop(a);
        assert!(places.take("c").is_some());
        drop(b);
        let taken = places.taken.lock().unwrap();
        assert!(taken.sum == 0 && taken.each.is_empty());
    }
}
