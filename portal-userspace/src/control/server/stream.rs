//! Answers that go on until somebody ends them.

use std::convert::Infallible;

use axum::{
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse as _, Response},
};
use futures::{Stream, StreamExt as _};
use tokio::sync::watch;

use crate::net::serve;

/// Tells when the daemon stops.
#[derive(Clone)]
pub(super) struct Stop(pub(super) watch::Receiver<bool>);

/// An answer of these pieces, which ends with the daemon if not before. When the client goes, the pieces are dropped. The visit has a place for it.
pub(super) fn answer(
    stop: Stop,
    content_type: &'static str,
    pieces: impl Stream<Item = Bytes> + Send + 'static,
) -> Response {
    let pieces = pieces.take_until(Box::pin(serve::stopped(stop.0))).map(Ok::<_, Infallible>);
    let headers = [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(pieces)).into_response()
}
