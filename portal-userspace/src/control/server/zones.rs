//! `/v1/zones`: the guest networks.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use futures::future::BoxFuture;
use portal_common::tables::Zone;
use serde::Deserialize;

use super::{ApiError, Control};
use crate::{
    control::api::{Detached, ZoneList, ZoneView},
    daemon::zones::ZoneError,
    net::Neighbours,
    session::SessionService,
};

/// The guest networks, as the control API asks for them and changes them.
pub trait Zones: Send + Sync {
    /// Those that are guarded, by number.
    fn guarded(&self) -> Vec<Guarded>;
    /// Those that are guarded, and then those that the configuration has beside them.
    fn list(&self) -> BoxFuture<'_, Vec<ZoneView>>;
    /// Guards one, as the configuration file has it now.
    fn attach<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<ZoneView, ZoneError>>;
    /// Guards one no longer; where it is the last on its interface only if `may_open`.
    fn detach<'a>(&'a self, name: &'a str, may_open: bool) -> BoxFuture<'a, Result<(), ZoneError>>;
}

/// A guest network that is guarded.
#[derive(Clone)]
pub struct Guarded {
    /// Its name.
    pub name: String,
    /// Its number in the kernel's tables.
    pub number: Zone,
    /// The interface that its frames arrive at.
    pub interface: String,
    /// That interface's index.
    pub interface_index: u32,
    /// Its sessions.
    pub sessions: Arc<SessionService>,
    /// Who has which address there.
    pub neighbours: Arc<dyn Neighbours>,
}

/// The query of what may be about one zone.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ZoneQuery {
    pub(super) zone: Option<String>,
}

/// The zone that a query names.
pub(super) fn named(query: Result<Query<ZoneQuery>, QueryRejection>) -> Result<Option<String>, ApiError> {
    let Query(ZoneQuery { zone }) = query.map_err(|rejection| {
        ApiError::new(StatusCode::BAD_REQUEST, "bad_request", rejection.body_text(), "use ?zone=NAME, or nothing")
    })?;
    Ok(zone)
}

pub(super) async fn list(State(control): State<Arc<Control>>) -> Json<ZoneList> {
    Json(ZoneList { zones: control.zones.list().await })
}

pub(super) async fn attach(
    State(control): State<Arc<Control>>,
    Path(name): Path<String>,
) -> Result<Json<ZoneView>, ApiError> {
    // To the end, whether or not whoever asked for it stays.
    let zones = Arc::clone(&control.zones);
    let done = tokio::spawn(async move { zones.attach(&name).await }).await;
    Ok(Json(done.map_err(|panic| ApiError::internal(panic.into()))??))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DetachQuery {
    /// Whether the network may be open afterwards.
    #[serde(default)]
    open: bool,
}

pub(super) async fn detach(
    State(control): State<Arc<Control>>,
    Path(name): Path<String>,
    query: Result<Query<DetachQuery>, QueryRejection>,
) -> Result<Json<Detached>, ApiError> {
    let Query(DetachQuery { open }) = query.map_err(|rejection| {
        ApiError::new(StatusCode::BAD_REQUEST, "bad_request", rejection.body_text(), "use ?open=true, or nothing")
    })?;
    let zones = Arc::clone(&control.zones);
    let detaching = name.clone();
    let done = tokio::spawn(async move { zones.detach(&detaching, open).await }).await;
    done.map_err(|panic| ApiError::internal(panic.into()))??;
    Ok(Json(Detached { name }))
}

impl From<ZoneError> for ApiError {
    fn from(error: ZoneError) -> Self {
        let status = match &error {
            ZoneError::Unknown { .. } => StatusCode::NOT_FOUND,
            ZoneError::Attached(_) | ZoneError::Detached(_) | ZoneError::WouldOpen { .. } | ZoneError::Refused(_) => {
                StatusCode::CONFLICT
            }
        };
        let remedy = match &error {
            ZoneError::WouldOpen { .. } => "detach it with --open (?open=true), if the network may be open",
            other => other.remedy(),
        };
        Self::new(status, error.code(), error.to_string(), remedy)
    }
}

/// The guarded zone of this name, or every guarded zone.
pub(super) fn wanted(zones: &dyn Zones, name: Option<&str>) -> Result<Vec<Guarded>, ApiError> {
    let mut all = zones.guarded();
    let Some(name) = name else { return Ok(all) };
    let known: Vec<String> = all.iter().map(|zone| zone.name.clone()).collect();
    all.retain(|zone| zone.name == name);
    if all.is_empty() {
        let message = format!("no zone `{name}` is guarded");
        let remedy = format!("name one of these: {}", known.join(", "));
        return Err(ApiError::new(StatusCode::NOT_FOUND, "no_such_zone", message, remedy));
    }
    Ok(all)
}

/// The one zone of these that is meant.
pub(super) fn only(mut zones: Vec<Guarded>) -> Result<Guarded, ApiError> {
    let zone = zones.pop();
    match zone {
        Some(zone) if zones.is_empty() => Ok(zone),
        zone => {
            let names: Vec<String> = zones.into_iter().chain(zone).map(|zone| zone.name).collect();
            let message = "it is not clear which zone is meant";
            let remedy = format!("name one of these with --zone (?zone=NAME): {}", names.join(", "));
            Err(ApiError::new(StatusCode::BAD_REQUEST, "which_zone", message, remedy))
        }
    }
}
