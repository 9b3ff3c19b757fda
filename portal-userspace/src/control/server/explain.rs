//! `/v1/explain`: what the gate would do with frames.

use std::sync::Arc;

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
    http::StatusCode,
};

use super::{ApiError, Control, zones};
use crate::{
    control::api::{Direction, ExplainRequest, Explanation, Explanations, MOST_FRAMES},
    observe::{explain::Departing, input},
};

/// What [`explain`] takes.
const BODY: &str = "send {\"frames\": [\"0200…\"]}, each frame in hexadecimal digits, and if you like \"zone\": NAME, as application/json";

pub(super) async fn explain(
    State(control): State<Arc<Control>>,
    request: Result<Json<ExplainRequest>, JsonRejection>,
) -> Result<Json<Explanations>, ApiError> {
    let bad = |message: String, remedy: &str| ApiError::new(StatusCode::BAD_REQUEST, "bad_request", message, remedy);
    let Json(ExplainRequest { frames, zone, direction, own }) =
        request.map_err(|rejection| ApiError::new(rejection.status(), "bad_request", rejection.body_text(), BODY))?;
    if frames.len() > MOST_FRAMES {
        let message = format!("{} frames are more than the {MOST_FRAMES} of one request", frames.len());
        return Err(bad(message, "send them in several requests"));
    }
    let ifindex = match zones::wanted(&*control.zones, zone.as_deref())?.first() {
        Some(zone) => zone.interface_index,
        None => control.gate.interface_index,
    };
    let frames = frames
        .iter()
        .enumerate()
        .map(|(at, text)| input::one(at + 1, text))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| bad(e.to_string(), BODY))?;
    // Microseconds each, but there may be many, and the responder reads whole requests.
    let explainer = Arc::clone(&control.explainer);
    let run = move || -> anyhow::Result<Vec<Explanation>> {
        let explain = |frame: &Vec<u8>| {
            let outcome = match direction {
                Direction::In => explainer.explain(frame, ifindex)?,
                Direction::Out => explainer.explain_out(frame, Departing { ifindex, forwarded: !own })?,
            };
            Ok(Explanation::new(outcome.verdict, outcome.reason, outcome.reply.as_deref()))
        };
        frames.iter().map(explain).collect()
    };
    let done = tokio::task::spawn_blocking(run).await.map_err(|panic| ApiError::internal(panic.into()))?;
    Ok(Json(Explanations { frames: done.map_err(ApiError::internal)? }))
}
