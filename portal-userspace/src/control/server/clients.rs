//! `/v1/clients`: who is logged in.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
    http::StatusCode,
};

use super::{ApiError, BODY_BYTES, Control};
use crate::{
    control::api::{AllowRequest, ClientList, ClientView, Revoked},
    net::Mac,
    session::{SessionError, SessionService},
};

pub(super) async fn list(State(control): State<Arc<Control>>) -> Result<Json<ClientList>, ApiError> {
    let mut clients = blocking(&control, SessionService::list).await?;
    add_addresses(&control, &mut clients).await;
    Ok(Json(ClientList { clients }))
}

pub(super) async fn show(
    State(control): State<Arc<Control>>,
    Path(mac): Path<String>,
) -> Result<Json<ClientView>, ApiError> {
    let view = control.sessions.show(parse(&mac)?)?;
    with_addresses(&control, view).await
}

/// What [`allow`] takes.
const ALLOW_BODY: &str = "send {\"for_seconds\": 7200} or {\"forever\": true}, or nothing for as long as a login lasts";

pub(super) async fn allow(
    State(control): State<Arc<Control>>,
    Path(mac): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<ClientView>, ApiError> {
    let mac = parse(&mac)?;
    let body = body.map_err(|rejection| {
        let remedy = format!("send at most {BODY_BYTES} bytes");
        ApiError::new(rejection.status(), "bad_request", rejection.body_text(), remedy)
    })?;
    let request = if body.is_empty() {
        AllowRequest::default()
    } else {
        serde_json::from_slice(&body).map_err(|e| {
            ApiError::new(StatusCode::BAD_REQUEST, "bad_request", format!("the body can't be read: {e}"), ALLOW_BODY)
        })?
    };
    let view = match request {
        AllowRequest { for_seconds, forever: false } => {
            let length = for_seconds.map(Duration::from_secs);
            blocking(&control, move |sessions| sessions.allow(mac, length)).await?
        }
        AllowRequest { for_seconds: None, forever: true } => {
            blocking(&control, move |sessions| sessions.allow_forever(mac)).await?
        }
        AllowRequest { for_seconds: Some(_), forever: true } => {
            let message = "`for_seconds` and `forever` contradict each other";
            return Err(ApiError::new(StatusCode::BAD_REQUEST, "bad_request", message, ALLOW_BODY));
        }
    };
    tracing::info!(client = %mac, until = view.expires_at, "allowed by the operator");
    with_addresses(&control, view).await
}

pub(super) async fn revoke(
    State(control): State<Arc<Control>>,
    Path(mac): Path<String>,
) -> Result<Json<Revoked>, ApiError> {
    let mac = parse(&mac)?;
    control.sessions.revoke(mac)?;
    tracing::info!(client = %mac, "revoked by the operator");
    Ok(Json(Revoked { mac }))
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
    work: impl FnOnce(&SessionService) -> Result<T, SessionError> + Send + 'static,
) -> Result<T, ApiError> {
    let sessions = Arc::clone(&control.sessions);
    let done = tokio::task::spawn_blocking(move || work(&sessions)).await;
    done.map_err(|panic| ApiError::internal(panic.into()))?.map_err(ApiError::from)
}

async fn with_addresses(control: &Control, view: ClientView) -> Result<Json<ClientView>, ApiError> {
    let mut views = [view];
    add_addresses(control, &mut views).await;
    let [view] = views;
    Ok(Json(view))
}

/// Adds each client's addresses. Without them the answer is still right, so a failure is only logged.
async fn add_addresses(control: &Control, views: &mut [ClientView]) {
    match control.neighbours.all().await {
        Ok(neighbours) => {
            for neighbour in neighbours {
                if let Ok(at) = views.binary_search_by_key(&neighbour.mac, |view| view.mac) {
                    views[at].addresses.push(neighbour.address);
                }
            }
        }
        Err(error) => tracing::warn!(%error, "cannot read the clients' addresses"),
    }
}
