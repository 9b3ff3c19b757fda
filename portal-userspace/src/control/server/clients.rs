//! `/v1/clients`: who is logged in.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::Bytes,
    extract::{
        Path, Query, State,
        rejection::{BytesRejection, QueryRejection},
    },
    http::StatusCode,
};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    ApiError, BODY_BYTES, Control, Guarded, blocks,
    zones::{self, ZoneQuery},
};
use crate::{
    config::{BarTime, OrNone},
    control::api::{AllowRequest, ClientList, ClientView, Revoked},
    net::Mac,
    session::{Grant, Length, SessionError, SessionService, SessionStore},
};

/// What a query may hold.
pub(super) type InZone = Result<Query<ZoneQuery>, QueryRejection>;

pub(super) async fn list(State(control): State<Arc<Control>>, query: InZone) -> Result<Json<ClientList>, ApiError> {
    let zone = zones::named(query)?;
    let wanted = zones::wanted(&*control.zones, zone.as_deref())?;
    let mut clients = blocking(&control, SessionStore::list).await?;
    if let Some(zone) = zone {
        clients.retain(|client| client.zone == zone);
    }
    for zone in &wanted {
        add_addresses(zone, &mut clients).await;
    }
    Ok(Json(ClientList { clients }))
}

pub(super) async fn show(
    State(control): State<Arc<Control>>,
    Path(mac): Path<String>,
    query: InZone,
) -> Result<Json<ClientView>, ApiError> {
    let mac = parse(&mac)?;
    let name = zones::named(query)?;
    let found = zone_of(&control, mac, name.as_deref()).and_then(|zone| Ok((zone.sessions.show(mac)?, zone)));
    match found {
        Ok((view, zone)) => with_addresses(&zone, view).await,
        // Who is kept out has no session, and it is told why.
        Err(no_session) => match blocks::bar_of(&control, mac, name.as_deref())? {
            Some(bar) => Err(ApiError::barred(&bar)),
            None => Err(no_session),
        },
    }
}

/// What [`allow`] takes.
const ALLOW_BODY: &str = "send {\"for_seconds\": 7200} or {\"forever\": true}, with \"rate_up\", \"rate_down\" (\"10mbit\"), \"quota\" (\"2GB\", with \"quota_per\": \"session\" or \
                          \"day\") and \"idle\" (\"30m\") if you like, or nothing for as long as a login lasts";

pub(super) async fn allow(
    State(control): State<Arc<Control>>,
    Path(mac): Path<String>,
    query: InZone,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<ClientView>, ApiError> {
    let mac = parse(&mac)?;
    let AllowRequest { for_seconds, forever, rate_up, rate_down, quota, quota_per, idle } =
        read_body(body, ALLOW_BODY)?;
    let bad = |message: &str| ApiError::new(StatusCode::BAD_REQUEST, "bad_request", message, ALLOW_BODY);
    let length = match (for_seconds, forever) {
        (None, false) => None,
        (Some(seconds), false) => Some(Length::For(Duration::from_secs(seconds))),
        (None, true) => Some(Length::Forever),
        (Some(_), true) => return Err(bad("`for_seconds` and `forever` contradict each other")),
    };
    if quota.is_none() && quota_per.is_some() {
        return Err(bad("`quota_per` says what a quota is of, and there is no `quota`"));
    }
    let grant = Grant { length, rate_up, rate_down, quota, quota_per, idle };
    let zone = zones::only(zones::wanted(&*control.zones, zones::named(query)?.as_deref())?)?;
    let view = blocks::on_disk(&zone, move |sessions| sessions.grant(mac, &grant)).await?;
    tracing::info!(client = %mac, zone = zone.name, until = view.expires_at, "allowed by the operator");
    with_addresses(&zone, view).await
}

pub(super) async fn revoke(
    State(control): State<Arc<Control>>,
    Path(mac): Path<String>,
    query: Result<Query<RevokeQuery>, QueryRejection>,
) -> Result<Json<Revoked>, ApiError> {
    let mac = parse(&mac)?;
    let Query(RevokeQuery { zone, bar }) = query.map_err(|rejection| {
        let remedy = "use ?zone=NAME, ?bar=2h, both, or nothing";
        ApiError::new(StatusCode::BAD_REQUEST, "bad_request", rejection.body_text(), remedy)
    })?;
    let bar: Option<OrNone<BarTime>> = bar.map(|text| text.parse()).transpose().map_err(SessionError::Length)?;
    let zone = zone_of(&control, mac, zone.as_deref())?;
    let time = bar.map_or_else(|| zone.sessions.bar_after_revoke(), OrNone::get);
    let bar = blocks::on_disk(&zone, move |sessions| sessions.revoke_and_bar(mac, time)).await?;
    let until = bar.as_ref().and_then(|bar| bar.until.as_deref());
    tracing::info!(client = %mac, zone = zone.name, barred = bar.is_some(), until, "revoked by the operator");
    Ok(Json(Revoked { mac, zone: zone.name, bar }))
}

/// The query of [`revoke`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RevokeQuery {
    zone: Option<String>,
    /// How long the client is kept out.
    bar: Option<String>,
}

/// What the body says, or the default where there is none.
pub(super) fn read_body<T: Default + DeserializeOwned>(
    body: Result<Bytes, BytesRejection>,
    takes: &'static str,
) -> Result<T, ApiError> {
    let body = body.map_err(|rejection| {
        let remedy = format!("send at most {BODY_BYTES} bytes");
        ApiError::new(rejection.status(), "bad_request", rejection.body_text(), remedy)
    })?;
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&body).map_err(|e| {
        ApiError::new(StatusCode::BAD_REQUEST, "bad_request", format!("the body can't be read: {e}"), takes)
    })
}

/// The zone of this name, or the one in which the client has a session.
fn zone_of(control: &Control, mac: Mac, name: Option<&str>) -> Result<Guarded, ApiError> {
    let mut zones = zones::wanted(&*control.zones, name)?;
    if zones.len() > 1 {
        let has_one = |sessions: &SessionService| match sessions.show(mac) {
            Ok(_) => Ok(true),
            Err(SessionError::NotFound(_)) => Ok(false),
            Err(other) => Err(other),
        };
        let mut found = Vec::new();
        for zone in zones {
            if has_one(&zone.sessions)? {
                found.push(zone);
            }
        }
        if found.is_empty() {
            return Err(SessionError::NotFound(mac).into());
        }
        zones = found;
    }
    zones::only(zones)
}

pub(super) fn parse(mac: &str) -> Result<Mac, ApiError> {
    mac.parse().map_err(|e| {
        let remedy = "give a station's address, such as 02:00:5e:10:00:01";
        ApiError::new(StatusCode::BAD_REQUEST, "bad_mac", format!("{e}"), remedy)
    })
}

/// Runs what walks over the session table, or may have to. What is one client's takes microseconds, on no lock that is
/// held for longer, and needs no thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    control: &Arc<Control>,
    work: impl FnOnce(&SessionStore) -> Result<T, SessionError> + Send + 'static,
) -> Result<T, ApiError> {
    let sessions = Arc::clone(&control.sessions);
    let done = tokio::task::spawn_blocking(move || work(&sessions)).await;
    done.map_err(|panic| ApiError::internal(panic.into()))?.map_err(ApiError::from)
}

async fn with_addresses(zone: &Guarded, view: ClientView) -> Result<Json<ClientView>, ApiError> {
    let mut views = [view];
    add_addresses(zone, &mut views).await;
    let [view] = views;
    Ok(Json(view))
}

/// Adds the addresses of each client of this zone. Without them the answer is still right, so a failure is only logged.
async fn add_addresses(zone: &Guarded, views: &mut [ClientView]) {
    match zone.neighbours.all().await {
        Ok(neighbours) => {
            let mut own: std::collections::HashMap<Mac, &mut ClientView> =
                views.iter_mut().filter(|view| view.zone == zone.name).map(|view| (view.mac, view)).collect();
            for neighbour in neighbours {
                if let Some(view) = own.get_mut(&neighbour.mac) {
                    view.addresses.push(neighbour.address);
                }
            }
        }
        Err(error) => tracing::warn!(%error, zone = zone.name, "cannot read the clients' addresses"),
    }
}
