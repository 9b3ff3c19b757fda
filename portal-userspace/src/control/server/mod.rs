//! The control API's server: who is let in, and what is where. Each resource has a file of its own.

mod blocks;
mod capture;
mod clients;
mod drops;
mod error;
mod events;
mod explain;
mod garden;
mod places;
mod stream;
mod zones;

use std::{
    process,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Extension, Json, Router,
    extract::{DefaultBodyLimit, Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing,
};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

use self::{
    error::ApiError,
    places::{Kind, Places, Visit, Visitor},
};
use super::{
    Access, ControlSocket,
    api::{ClientCount, GateInfo, Lost, Packets, Status},
    peer::Peer,
};
use crate::{
    datapath::counters::CounterReader,
    net::serve,
    observe::{capture::Captures, explain::Explainer, hub::EventHub},
    session::SessionStore,
};

pub use garden::GardenControl;
pub use zones::{Guarded, Zones};

/// Largest body, in bytes: ours has 40.
const BODY_BYTES: usize = 4096;
/// Largest body with frames, in bytes.
const FRAMES_BYTES: usize = 8 * 1024 * 1024;
/// What the API takes, for those who ask for something else.
const METHODS: &str = "GET for /v1/status, /v1/clients, /v1/blocks, /v1/drops, /v1/events, /v1/capture and /v1/zones; GET, PUT and DELETE for \
                       /v1/clients/{mac}; PUT and DELETE for /v1/blocks/{mac}; POST for /v1/explain; POST and DELETE for /v1/zones/{name}; GET, POST and DELETE for /v1/garden";
/// How long it takes at most to tell somebody that there are too many, and how many are told so at once. To more the connection is closed without a word.
const TURNING_AWAY: (Duration, usize) = (Duration::from_secs(1), 256);

/// Reads the responder's counters: their names and values.
pub type ResponderCounters = Arc<dyn Fn() -> Vec<(&'static str, u64)> + Send + Sync>;

/// Reads how much found no room in the kernel's ring buffers.
pub type LostInKernel = Arc<dyn Fn() -> anyhow::Result<Lost> + Send + Sync>;

/// What the control API tells and changes.
#[derive(Clone)]
pub struct Control {
    /// What has been set up.
    pub gate: GateInfo,
    /// The sessions of all zones.
    pub sessions: Arc<SessionStore>,
    /// The gate's counters.
    pub counters: Arc<CounterReader>,
    /// The responder's counters.
    pub responder: ResponderCounters,
    /// Who may.
    pub access: Access,
    /// When the daemon started.
    pub started: Instant,
    /// The guest networks.
    pub zones: Arc<dyn Zones>,
    /// The walled garden, where there is one.
    pub garden: Option<Arc<dyn GardenControl>>,
    /// Asks the gate what it would do.
    pub explainer: Arc<Explainer>,
    /// Where everything that happens is told.
    pub events: EventHub,
    /// Whose frames are captured.
    pub captures: Arc<Captures>,
    /// What found no room in the kernel's ring buffers since the gate was loaded.
    pub lost: LostInKernel,
}

impl Control {
    /// Serves the API on this socket until the daemon stops; what is being answered then is answered.
    pub async fn serve(self, socket: ControlSocket, stop: watch::Receiver<bool>) {
        let access = self.access.clone();
        let router = router(Arc::new(self), stop.clone());
        let places = Arc::new(Places::new());
        let (limit, most) = TURNING_AWAY;
        let turned_away = Arc::new(Semaphore::new(most));
        let mut connections = JoinSet::new();
        let accepting = async {
            loop {
                // Nothing here waits for a client: those who wait in line have connections, and the next is let in to it.
                match socket.listener.accept().await {
                    Ok((stream, _)) => match Peer::of(&stream) {
                        Ok(peer) => {
                            let visitor = Visitor { uid: peer.uid, is_owner: access.is_owner(&peer) };
                            if let Some(connection) = places.connect(visitor) {
                                let visit = Visit::new(Arc::clone(&places), visitor);
                                let router = router.clone().layer(Extension(visit.clone()));
                                connections.spawn(async move {
                                    serve::connection_until(stream, &router, peer, visit.end()).await;
                                    drop(connection);
                                });
                            } else if let Ok(turn) = Arc::clone(&turned_away).try_acquire_owned() {
                                connections.spawn(async move {
                                    let end = tokio::time::sleep(limit);
                                    serve::connection_until(stream, &too_many(visitor.uid), peer, end).await;
                                    drop(turn);
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

fn router(control: Arc<Control>, stop: watch::Receiver<bool>) -> Router {
    Router::new()
        .route("/v1/status", routing::get(status))
        .route("/v1/clients", routing::get(clients::list))
        .route("/v1/clients/{mac}", routing::get(clients::show).put(clients::allow).delete(clients::revoke))
        .route("/v1/blocks", routing::get(blocks::list))
        .route("/v1/blocks/{mac}", routing::put(blocks::block).delete(blocks::unblock))
        .route("/v1/drops", routing::get(drops::drops))
        .route("/v1/explain", routing::post(explain::explain).layer(DefaultBodyLimit::max(FRAMES_BYTES)))
        .route("/v1/events", routing::get(events::events))
        .route("/v1/capture", routing::get(capture::capture))
        .route("/v1/zones", routing::get(zones::list))
        .route("/v1/zones/{name}", routing::post(zones::attach).delete(zones::detach))
        .route("/v1/garden", routing::get(garden::list).post(garden::add).delete(garden::remove))
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
        .layer(Extension(stream::Stop(stop)))
        .layer(middleware::from_fn_with_state(Arc::clone(&control), admit))
        .with_state(control)
}

/// What is said to a user with too many connections.
fn too_many(uid: u32) -> Router {
    Router::new().fallback(async move || {
        let message = format!("user {uid}, or all users together, have too many connections to the control socket");
        let remedy = "ask again later, and fewer at once: `ss -xp` shows who holds the control socket";
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message, remedy)
    })
}

/// Lets in who may, when there is a place.
async fn admit(
    State(control): State<Arc<Control>>,
    Extension(peer): Extension<Peer>,
    Extension(visit): Extension<Visit>,
    request: Request,
    next: Next,
) -> Response {
    if control.access.permits(&peer) {
        return match visit.take(Kind::Question).await {
            Ok(()) => next.run(request).await,
            Err(full) => full.into_response(),
        };
    }
    tracing::warn!(uid = peer.uid, gid = peer.gid, "refused a user of the control socket");
    let message = format!("user {} may not control portald", peer.uid);
    ApiError::new(StatusCode::FORBIDDEN, "forbidden", message, control.access.in_words()).into_response()
}

async fn status(State(control): State<Arc<Control>>) -> Result<Json<Status>, ApiError> {
    let online = clients::blocking(&control, SessionStore::count).await?;
    let counters = control.counters.read().map_err(ApiError::internal)?;
    Ok(Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: process::id(),
        uptime_seconds: control.started.elapsed().as_secs(),
        gate: control.gate.clone(),
        zones: control.zones.guarded().into_iter().map(|zone| zone.name).collect(),
        clients: ClientCount { online: online as u64, capacity: u64::from(control.sessions.capacity()) },
        packets: Packets::sum(&counters),
        lost: Lost { watchers: control.events.lost(), ..(control.lost)().map_err(ApiError::internal)? },
        responder: (control.responder)().into_iter().map(|(name, n)| (name.to_owned(), n)).collect(),
    }))
}
