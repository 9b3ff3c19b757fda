//! `/v1/events`: everything that happens, a line of JSON each, until the client goes.

use std::sync::Arc;

use axum::{Extension, body::Bytes, extract::State, response::Response};
use futures::stream;

use super::{
    Control,
    stream::{Lasting, Stop, answer},
};

pub(super) async fn events(
    State(control): State<Arc<Control>>,
    Extension(lasting): Extension<Lasting>,
    Extension(stop): Extension<Stop>,
) -> Response {
    let lines = stream::unfold(control.events.watch(), async |mut watcher| {
        let event = watcher.next().await?;
        Some((Bytes::from(event.to_json_line()), watcher))
    });
    answer(&lasting, stop, "application/x-ndjson", lines)
}
