//! `/v1/blocks`: who is kept out.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
    http::StatusCode,
};

use super::{
    ApiError, Control, Guarded,
    clients::{self, InZone},
    zones,
};
use crate::{
    config::BarTime,
    control::api::{BarView, BlockList, BlockRequest, Blocked, Unblocked},
    net::Mac,
    session::{SessionError, SessionService, SessionStore},
};

/// What [`block`] takes.
const BLOCK_BODY: &str =
    "send {\"for_seconds\": 7200}, with a \"reason\" of one line if you like, or nothing for a block without an end";

pub(super) async fn list(State(control): State<Arc<Control>>, query: InZone) -> Result<Json<BlockList>, ApiError> {
    let zone = zones::named(query)?;
    let wanted: Vec<String> =
        zones::wanted(&*control.zones, zone.as_deref())?.into_iter().map(|zone| zone.name).collect();
    let mut blocks = clients::blocking(&control, SessionStore::kept_out).await?;
    // Without a name those of zones that are not guarded now too: they go on.
    blocks.retain(|block| zone.is_none() || wanted.contains(&block.zone));
    Ok(Json(BlockList { blocks }))
}

pub(super) async fn block(
    State(control): State<Arc<Control>>,
    Path(mac): Path<String>,
    query: InZone,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Blocked>, ApiError> {
    let mac = clients::parse(&mac)?;
    let BlockRequest { for_seconds, reason } = clients::read_body(body, BLOCK_BODY)?;
    let time = for_seconds.map_or(Ok(BarTime::Forever), BarTime::seconds).map_err(SessionError::Length)?;
    let zone = of(&control, mac, zones::named(query)?.as_deref(), |sessions| sessions.show(mac).is_ok())?;
    let (block, ended_session) = on_disk(&zone, move |sessions| sessions.block(mac, time, reason)).await?;
    tracing::info!(client = %mac, zone = zone.name, until = block.until, "blocked by the operator");
    Ok(Json(Blocked { block, ended_session }))
}

pub(super) async fn unblock(
    State(control): State<Arc<Control>>,
    Path(mac): Path<String>,
    query: InZone,
) -> Result<Json<Unblocked>, ApiError> {
    let mac = clients::parse(&mac)?;
    let kept_out = |sessions: &SessionService| matches!(sessions.kept_out(mac), Ok(Some(_)));
    let zone = of(&control, mac, zones::named(query)?.as_deref(), kept_out)?;
    let block = on_disk(&zone, move |sessions| sessions.unblock(mac)).await?;
    tracing::info!(client = %mac, zone = zone.name, "unblocked by the operator");
    Ok(Json(Unblocked { mac, zone: zone.name, block }))
}

/// How a client without a session is kept out of one of these zones, if it is.
pub(super) fn bar_of(control: &Control, mac: Mac, zone: Option<&str>) -> Result<Option<BarView>, ApiError> {
    for zone in zones::wanted(&*control.zones, zone)? {
        if let Some(bar) = zone.sessions.kept_out(mac)? {
            return Ok(Some(bar));
        }
    }
    Ok(None)
}

/// Does what waits for a disk.
pub(super) async fn on_disk<T: Send + 'static>(
    zone: &Guarded,
    work: impl FnOnce(&SessionService) -> Result<T, SessionError> + Send + 'static,
) -> Result<T, ApiError> {
    let sessions = Arc::clone(&zone.sessions);
    let done = tokio::task::spawn_blocking(move || work(&sessions)).await;
    Ok(done.map_err(|panic| ApiError::internal(panic.into()))??)
}

/// The zone of this name, or the only one, or the only one where this is so.
fn of(
    control: &Control,
    mac: Mac,
    name: Option<&str>,
    there: impl Fn(&SessionService) -> bool,
) -> Result<Guarded, ApiError> {
    let zones = zones::wanted(&*control.zones, name)?;
    let found: Vec<_> = zones.iter().filter(|zone| there(&zone.sessions)).cloned().collect();
    if zones.is_empty() {
        let message = format!("no zone is guarded that {mac} could be in");
        return Err(ApiError::new(StatusCode::NOT_FOUND, "no_such_zone", message, "see `portalctl zones list`"));
    }
    zones::only(if found.is_empty() { zones } else { found })
}
