//! The control API's server.

use std::{
    process,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Query, Request, State, rejection::BytesRejection},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing,
};
use portal_common::reason::Outcome;
use serde::Deserialize;
use tokio::{sync::watch, task::JoinSet};

use super::{
    Access, ControlSocket,
    api::{
        AllowRequest, ClientCount, ClientList, ClientView, Drops, ErrorBody, ErrorInfo, GateInfo, Packets, ReasonCount,
        Revoked, Status,
    },
    peer::Peer,
};
use crate::{
    datapath::counters::CounterReader,
    net::{Mac, Neighbours, serve},
    session::{SessionError, SessionService},
};

/// Largest body, in bytes: ours has 40.
const BODY_BYTES: usize = 4096;
/// What the API takes, for those who ask for something else.
const METHODS: &str = "GET for /v1/status, /v1/clients and /v1/drops; GET, PUT and DELETE for /v1/clients/{mac}";
/// Open connections, all users together.
const CONNECTIONS: usize = 64;

/// Reads the responder's counters: their names and values.
pub type ResponderCounters = Arc<dyn Fn() -> Vec<(&'static str, u64)> + Send + Sync>;

/// What the control API tells and changes.
#[derive(Clone)]
pub struct Control {
    /// What has been set up.
    pub gate: GateInfo,
    /// The sessions.
    pub sessions: Arc<SessionService>,
    /// The gate's counters.
    pub counters: Arc<CounterReader>,
    /// The responder's counters.
    pub responder: ResponderCounters,
    /// Who has which address.
    pub neighbours: Arc<dyn Neighbours>,
    /// Who may.
    pub access: Access,
    /// When the daemon started.
    pub started: Instant,
}

impl Control {
    /// Serves the API on this socket until the daemon stops; what is being answered then is answered.
    pub async fn serve(self, socket: ControlSocket, stop: watch::Receiver<bool>) {
        let router = router(Arc::new(self));
        let places = serve::Places::new(CONNECTIONS, CONNECTIONS / 2);
        let mut connections = JoinSet::new();
        let accepting = async {
            loop {
                match socket.listener.accept().await {
                    Ok((stream, _)) => match Peer::of(&stream) {
                        Ok(peer) => {
                            // No place: the connection is closed, and portalctl says so.
                            if let Ok(place) = places.take(peer.uid) {
                                let router = router.clone();
                                connections.spawn(async move {
                                    serve::connection(stream, &router, peer).await;
                                    drop(place);
                                });
                            }
                        }
                        // Unknown is not permitted: the connection is closed.
                        Err(error) => tracing::warn!(%error, "cannot tell who connects to the control socket"),
                    },
                    Err(error) => serve::after_failed_accept(&error).await,
                }
                while connections.try_join_next().is_some() {}
            }
        };
        serve::until_stopped(stop, accepting).await;
        let finishing = async { while connections.join_next().await.is_some() {} };
        let _: Result<(), _> = tokio::time::timeout(Duration::from_secs(2), finishing).await;
    }
}

fn router(control: Arc<Control>) -> Router {
    Router::new()
        .route("/v1/status", routing::get(status))
        .route("/v1/clients", routing::get(list))
        .route("/v1/clients/{mac}", routing::get(show).put(allow).delete(revoke))
        .route("/v1/drops", routing::get(drops))
        .fallback(async || {
            ApiError::new(StatusCode::NOT_FOUND, "no_such_path", "there is nothing at this path", METHODS)
        })
        .method_not_allowed_fallback(async || {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "this path does not take that method",
                METHODS,
            )
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(middleware::from_fn_with_state(Arc::clone(&control), authorise))
        .with_state(control)
}

async fn authorise(
    State(control): State<Arc<Control>>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if control.access.permits(&peer) {
        return next.run(request).await;
    }
    tracing::warn!(uid = peer.uid, gid = peer.gid, "refused a user of the control socket");
    let message = format!("user {} may not control portald", peer.uid);
    ApiError::new(StatusCode::FORBIDDEN, "forbidden", message, control.access.in_words()).into_response()
}

async fn status(State(control): State<Arc<Control>>) -> Result<Json<Status>, ApiError> {
    let online = blocking(&control, SessionService::count).await?;
    let counters = control.counters.read().map_err(ApiError::internal)?;
    Ok(Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: process::id(),
        uptime_seconds: control.started.elapsed().as_secs(),
        gate: control.gate.clone(),
        clients: ClientCount { online: online as u64, capacity: u64::from(control.sessions.capacity()) },
        packets: Packets::sum(&counters),
        responder: (control.responder)().into_iter().map(|(name, n)| (name.to_owned(), n)).collect(),
    }))
}

async fn list(State(control): State<Arc<Control>>) -> Result<Json<ClientList>, ApiError> {
    let mut clients = blocking(&control, SessionService::list).await?;
    add_addresses(&control, &mut clients).await;
    Ok(Json(ClientList { clients }))
}

async fn show(State(control): State<Arc<Control>>, Path(mac): Path<String>) -> Result<Json<ClientView>, ApiError> {
    let view = control.sessions.show(parse(&mac)?)?;
    with_addresses(&control, view).await
}

/// What [`allow`] takes.
const ALLOW_BODY: &str = "send {\"for_seconds\": 7200} or {\"forever\": true}, or nothing for as long as a login lasts";

async fn allow(
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

async fn revoke(State(control): State<Arc<Control>>, Path(mac): Path<String>) -> Result<Json<Revoked>, ApiError> {
    let mac = parse(&mac)?;
    control.sessions.revoke(mac)?;
    tracing::info!(client = %mac, "revoked by the operator");
    Ok(Json(Revoked { mac }))
}

#[derive(Deserialize)]
struct DropsQuery {
    #[serde(default)]
    all: bool,
}

async fn drops(
    State(control): State<Arc<Control>>,
    query: Result<Query<DropsQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Drops>, ApiError> {
    let Query(DropsQuery { all }) = query.map_err(|rejection| {
        ApiError::new(StatusCode::BAD_REQUEST, "bad_request", rejection.body_text(), "use ?all=true or ?all=false")
    })?;
    let counters = control.counters.read().map_err(ApiError::internal)?;
    let wanted = counters.into_iter().filter(|(reason, _)| all || reason.outcome() == Outcome::Dropped);
    Ok(Json(Drops { reasons: wanted.map(ReasonCount::new).collect() }))
}

fn parse(mac: &str) -> Result<Mac, ApiError> {
    mac.parse().map_err(|e| {
        let remedy = "give a station's address, such as 02:00:5e:10:00:01";
        ApiError::new(StatusCode::BAD_REQUEST, "bad_mac", format!("{e}"), remedy)
    })
}

/// Runs what walks over the session table, or may have to. What is one client's takes microseconds, on no lock that is
/// held for longer, and needs no thread of its own.
async fn blocking<T: Send + 'static>(
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

struct ApiError {
    status: StatusCode,
    info: ErrorInfo,
}

impl ApiError {
    fn new(status: StatusCode, code: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        let info = ErrorInfo { code: code.to_owned(), message: message.into(), remedy: remedy.into() };
        Self { status, info }
    }

    #[expect(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
    fn internal(error: anyhow::Error) -> Self {
        tracing::error!(error = format!("{error:#}"), "the control API failed");
        let remedy = "see portald's log; if it persists, restart portald (guests stay in)";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", format!("{error:#}"), remedy)
    }
}

impl From<SessionError> for ApiError {
    fn from(error: SessionError) -> Self {
        let message = error.to_string();
        match error {
            SessionError::Full { .. } => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "table_full",
                message,
                "revoke a client, or raise `limits.clients` and restart portald",
            ),
            SessionError::NotFound(_) => Self::new(
                StatusCode::NOT_FOUND,
                "no_such_client",
                message,
                "`portalctl clients list` shows who is logged in",
            ),
            SessionError::Length(_) => {
                Self::new(StatusCode::BAD_REQUEST, "bad_length", message, "give a length such as 2h (7200 seconds)")
            }
            SessionError::Kernel(error) => Self::internal(error),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(ErrorBody { error: self.info })).into_response()
    }
}
