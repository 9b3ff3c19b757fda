//! `/v1/drops`: how often each reason was given.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use portal_common::reason::Outcome;
use serde::Deserialize;

use super::{ApiError, Control};
use crate::control::api::{Drops, ReasonCount};

#[derive(Deserialize)]
pub(super) struct DropsQuery {
    #[serde(default)]
    all: bool,
}

pub(super) async fn drops(
    State(control): State<Arc<Control>>,
    query: Result<Query<DropsQuery>, QueryRejection>,
) -> Result<Json<Drops>, ApiError> {
    let Query(DropsQuery { all }) = query.map_err(|rejection| {
        ApiError::new(StatusCode::BAD_REQUEST, "bad_request", rejection.body_text(), "use ?all=true or ?all=false")
    })?;
    let counters = control.counters.read().map_err(ApiError::internal)?;
    let wanted = counters.into_iter().filter(|(reason, _)| all || reason.outcome() == Outcome::Dropped);
    Ok(Json(Drops { reasons: wanted.map(ReasonCount::new).collect(), zones: Vec::new() }))
}
