//! `/v1/drops`: how often each reason was given.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use portal_common::{Reason, reason::Outcome};
use serde::Deserialize;

use super::{ApiError, Control, zones};
use crate::control::api::{Drops, ReasonCount, ZoneDrops};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DropsQuery {
    #[serde(default)]
    all: bool,
    zone: Option<String>,
}

pub(super) async fn drops(
    State(control): State<Arc<Control>>,
    query: Result<Query<DropsQuery>, QueryRejection>,
) -> Result<Json<Drops>, ApiError> {
    let Query(DropsQuery { all, zone }) = query.map_err(|rejection| {
        let remedy = "use ?all=true or ?all=false, and if you like zone=NAME";
        ApiError::new(StatusCode::BAD_REQUEST, "bad_request", rejection.body_text(), remedy)
    })?;
    let wanted = zones::wanted(&*control.zones, zone.as_deref())?;
    let counters = &control.counters;
    let shown = |counted: Vec<(Reason, u64)>| -> Vec<ReasonCount> {
        let shown = counted.into_iter().filter(|(reason, _)| all || reason.outcome() == Outcome::Dropped);
        shown.map(ReasonCount::new).collect()
    };
    let read = || -> anyhow::Result<Drops> {
        let mut rows = Vec::new();
        for zone in &wanted {
            for shadow in [false, true] {
                let reasons = shown(counters.read_zone(zone.number, shadow)?);
                rows.push(ZoneDrops { zone: Some(zone.name.clone()), shadow, reasons });
            }
        }
        let reasons = if let (Some(_), Some(zone)) = (&zone, wanted.first()) {
            counters.read_zone(zone.number, false)?
        } else {
            rows.push(ZoneDrops { zone: None, shadow: false, reasons: shown(counters.read_unzoned()?) });
            counters.read()?
        };
        Ok(Drops { reasons: shown(reasons), zones: rows })
    };
    Ok(Json(read().map_err(ApiError::internal)?))
}
