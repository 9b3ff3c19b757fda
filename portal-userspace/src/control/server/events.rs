//! `/v1/events`: everything that happens, a line of JSON each, until the client goes.

use std::sync::Arc;

use axum::{Extension, body::Bytes, extract::State, response::Response};
use futures::stream;

use super::{
    ApiError, Control,
    places::{Kind, Visit},
    stream::{Stop, answer},
};

pub(super) async fn events(
    State(control): State<Arc<Control>>,
    Extension(visit): Extension<Visit>,
    Extension(stop): Extension<Stop>,
) -> Result<Response, ApiError> {
    visit.take(Kind::Stream).await?;
    let lines = stream::unfold(control.events.watch(), async |mut watcher| {
        let event = watcher.next().await?;
        Some((Bytes::from(event.to_json_line()), watcher))
    });
    Ok(answer(stop, "application/x-ndjson", lines))
}
