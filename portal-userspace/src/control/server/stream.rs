//! Answers that go on until somebody ends them.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse as _, Response},
};
use futures::{Stream, StreamExt as _};
use tokio::sync::watch;

use crate::net::serve;

/// Whether a connection may last longer than it takes to answer a question.
#[derive(Clone, Default)]
pub(super) struct Lasting(Arc<AtomicBool>);

impl Lasting {
    /// When the connection has lasted too long.
    pub(super) async fn end(self) {
        tokio::time::sleep(serve::CONNECTION_TIME).await;
        if self.0.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }
}

/// Tells when the daemon stops.
#[derive(Clone)]
pub(super) struct Stop(pub(super) watch::Receiver<bool>);

/// An answer of these pieces, which ends with the daemon if not before. When the client goes, the pieces are dropped.
pub(super) fn answer(
    lasting: &Lasting,
    stop: Stop,
    content_type: &'static str,
    pieces: impl Stream<Item = Bytes> + Send + 'static,
) -> Response {
    lasting.0.store(true, Ordering::Relaxed);
    let pieces = pieces.take_until(Box::pin(serve::stopped(stop.0))).map(Ok::<_, Infallible>);
    let headers = [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(pieces)).into_response()
}
