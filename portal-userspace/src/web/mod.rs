//! The login page: a guest accepts the terms, and the kernel lets its device through before the answer is sent.

mod bind;
mod host;
mod page;
mod rate;
mod seldom;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Extension, Form, Router,
    extract::{DefaultBodyLimit, Request, State, rejection::FormRejection},
    http::{HeaderMap, HeaderValue, Method, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Redirect, Response},
    routing,
};
use serde::Deserialize;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use self::{
    host::Hosts,
    page::{Page, Pages},
    rate::Logins,
    seldom::Seldom,
};
use crate::{
    clock,
    config::{Limits, ZoneConfig},
    net::{Mac, serve},
    session::{ClientView, SessionError, SessionService},
};

pub use bind::{BindError, bind, local_addresses};

/// Largest form, in bytes: ours has 10.
const FORM_BYTES: usize = 4096;
/// Where the login leads. It shows what the start page does, under a URL of its own: links does not load again a page that it has just shown.
const AFTER_LOGIN: &str = "/online";

/// Who is behind a connection. The daemon's is the gate's table, never the kernel's neighbour table: that one holds what stations say, of themselves and of
/// others.
pub trait Stations: Send + Sync + 'static {
    /// The station that began the connection of this peer; None where the gate has not noted one.
    fn station(&self, peer: SocketAddr) -> anyhow::Result<Option<Mac>>;
}

/// The login page.
#[derive(Clone)]
pub struct LoginPage {
    shared: Arc<Shared>,
    router: Router,
}

struct Shared {
    sessions: Arc<SessionService>,
    stations: Arc<dyn Stations>,
    pages: Pages,
    hosts: Hosts,
    /// Bounds the tasks, by what is known before one is started.
    by_address: serve::Crowd<IpAddr>,
    /// Bounds one client, however many addresses it has.
    by_client: serve::Places<Mac>,
    /// Bounds all clients together, real and invented ones.
    logins: Logins,
    warnings: Warnings,
}

/// What guests can cause at will.
struct Warnings {
    full: Seldom,
    busy: Seldom,
    no_station: Seldom,
    failed: Seldom,
}

impl Default for Warnings {
    fn default() -> Self {
        // An operator wants to see a flood of logins while it goes on.
        let busy = Seldom::every(Duration::from_secs(10));
        Self { full: Seldom::default(), busy, no_station: Seldom::default(), failed: Seldom::default() }
    }
}

/// A connection, as the requests on it see it.
#[derive(Clone)]
struct Connection {
    /// Who it was when the connection was accepted.
    client: Client,
    peer: SocketAddr,
    /// What the client connected to.
    local: SocketAddr,
    member: Arc<serve::Member<IpAddr>>,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    /// This station on the guest network.
    Known(Mac),
    /// Somebody whose connection the gate did not note: it did not come through it, or what it noted has given way.
    Unknown,
    /// The kernel did not say.
    Failed,
}

#[derive(Deserialize)]
struct LoginForm {
    accept: Option<String>,
}

impl LoginPage {
    /// The page of this network, writing these sessions for the stations that are behind its connections.
    pub fn new(zone: &ZoneConfig, limits: Limits, sessions: Arc<SessionService>, stations: Arc<dyn Stations>) -> Self {
        let portal = &zone.portal;
        let (total, each) = (limits.login_connections.get(), limits.login_connections_per_client.get());
        let (total, each) = (total as usize, each as usize);
        let shared = Arc::new(Shared {
            sessions,
            stations,
            pages: Pages::new(portal.title.as_str(), portal.terms.as_str(), portal.session.get()),
            hosts: Hosts::new(portal),
            by_address: serve::Crowd::new(total, each),
            // In all it is bounded by the addresses.
            by_client: serve::Places::new(usize::MAX, each),
            logins: Logins::new(limits.logins),
            warnings: Warnings::default(),
        });
        let router = Router::new()
            .route("/", routing::get(start))
            .route(AFTER_LOGIN, routing::get(start))
            .route("/login", routing::post(login).get(to_start))
            .route("/logout", routing::post(logout).get(to_start))
            .fallback(async |State(shared): State<Arc<Shared>>| shared.pages.render(Page::NotFound))
            .method_not_allowed_fallback(async |State(shared): State<Arc<Shared>>| {
                shared.pages.render(Page::MethodNotAllowed)
            })
            .layer(DefaultBodyLimit::max(FORM_BYTES))
            .layer(middleware::from_fn_with_state(Arc::clone(&shared), own_name))
            .layer(middleware::map_response(add_headers))
            .with_state(Arc::clone(&shared));
        Self { shared, router }
    }

    /// Serves the page on these listeners until the daemon stops; what is being answered then is answered.
    pub async fn serve(self, listeners: Vec<TcpListener>, stop: watch::Receiver<bool>) {
        let accepting: JoinSet<()> =
            listeners.into_iter().map(|listener| self.clone().accept(listener, stop.clone())).collect();
        accepting.join_all().await;
    }

    async fn accept(self, listener: TcpListener, stop: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        let accepting = async {
            loop {
                match listener.accept().await {
                    // Never an IPv4-mapped address: `bind` keeps the families apart.
                    Ok((stream, peer)) => {
                        // No place: the connection is closed at once, so that it does not wait for what will not come.
                        if let Some((member, closed)) = self.shared.by_address.admit(peer.ip()) {
                            let page = self.clone();
                            connections.spawn(async move {
                                tokio::select! {
                                    () = page.answer(stream, peer, Arc::new(member)) => {}
                                    () = closed => {}
                                }
                            });
                        }
                    }
                    Err(error) => serve::after_failed_accept(&error).await,
                }
                while connections.try_join_next().is_some() {}
            }
        };
        serve::until_stopped(stop, accepting).await;
        // An answer takes milliseconds; whoever has not asked by then never will.
        let _: Result<(), _> =
            tokio::time::timeout(Duration::from_secs(1), async { while connections.join_next().await.is_some() {} })
                .await;
    }

    async fn answer(self, stream: TcpStream, peer: SocketAddr, member: Arc<serve::Member<IpAddr>>) {
        // It is gone already where this fails.
        let Ok(local) = stream.local_addr() else { return };
        let client = self.shared.client(peer);
        let _place = match client {
            Client::Known(mac) => match self.shared.by_client.take(mac) {
                Ok(place) => Some(place),
                Err(_) => return,
            },
            // Bounded by the address.
            Client::Unknown | Client::Failed => None,
        };
        // The last one to drop it ends the connection: not the router, which is dropped before the answer is out.
        let seen = Connection { client, peer, local, member: Arc::clone(&member) };
        serve::connection(stream, &self.router, seen).await;
        drop(member);
    }
}

/// Before any page: whether the request is for us by name. See [`host`].
async fn own_name(
    State(shared): State<Arc<Shared>>,
    Extension(connection): Extension<Connection>,
    mut request: Request,
    next: Next,
) -> Response {
    let Connection { client, peer, local, member } = connection;
    member.heard();
    if shared.hosts.is_own(&request, local.ip()) {
        // Looked up again: whose request this is counts, and it must be whose connection it was.
        let now = shared.client(peer);
        request.extensions_mut().insert(if now == client { now } else { Client::Unknown });
        let origin = shared.hosts.origin(&request);
        let mut response = next.run(request).await;
        make_location_whole(&mut response, origin.as_deref());
        return response;
    }
    let url = shared.hosts.page(local);
    // A guest who typed another name for the gateway gets to the page in one step, and from there can log in; a page that
    // rebound its own name can't read across the redirect.
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        Redirect::to(&url).into_response()
    } else {
        shared.pages.render_with_link(Page::WrongName, &url)
    }
}

/// Makes a redirect's URL whole, as HTTP demanded until 2014 (RFC 2616 section 14.30) and lynx still does.
fn make_location_whole(response: &mut Response, origin: Option<&str>) {
    let location = response.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
    let Some((origin, path)) = origin.zip(location.filter(|location| location.starts_with('/'))) else { return };
    if let Ok(whole) = HeaderValue::from_str(&format!("{origin}{path}")) {
        response.headers_mut().insert(header::LOCATION, whole);
    }
}

async fn start(State(shared): State<Arc<Shared>>, Extension(client): Extension<Client>) -> Response {
    let page = match client {
        Client::Known(mac) => match shared.sessions.show(mac) {
            Ok(ClientView { remaining_seconds, .. }) => {
                Page::Online { remaining: remaining_seconds.map(Duration::from_secs) }
            }
            Err(SessionError::NotFound(_)) => match shared.sessions.barred(mac) {
                Ok(None) => Page::Terms,
                Ok(Some(barred)) => Page::Barred(barred),
                Err(error) => shared.failed(mac, &error),
            },
            Err(error) => shared.failed(mac, &error),
        },
        Client::Unknown => Page::UnknownDevice,
        Client::Failed => Page::Failed,
    };
    shared.pages.render(page)
}

async fn login(
    State(shared): State<Arc<Shared>>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    form: Result<Form<LoginForm>, FormRejection>,
) -> Response {
    let page = match (client, form) {
        _ if is_cross_site(&headers) => Page::CrossSite,
        (_, Err(rejection)) => Page::BadForm(rejection.status()),
        (_, Ok(Form(form))) if form.accept.as_deref() != Some("yes") => Page::NotAccepted,
        (Client::Unknown, Ok(_)) => Page::UnknownDevice,
        (Client::Failed, Ok(_)) => Page::Failed,
        (Client::Known(mac), Ok(_)) if !shared.takes_login(mac) => {
            if let Some(times) = shared.warnings.busy.count() {
                let zone = shared.sessions.zone_name();
                tracing::warn!(
                    zone, client = %mac, times,
                    "logins refused: more clients log in than `limits.logins` lets; an event with many guests needs more, and else somebody invents MAC addresses"
                );
            }
            Page::Busy
        }
        (Client::Known(mac), Ok(_)) => {
            let sessions = Arc::clone(&shared.sessions);
            // A full table is searched, which takes a while.
            match tokio::task::spawn_blocking(move || sessions.login(mac)).await {
                Ok(Ok(view)) => {
                    tracing::info!(client = %mac, until = view.expires_at, "logged in");
                    // The kernel has it. Clients probe again the moment the next page loads, and are through.
                    return Redirect::to(AFTER_LOGIN).into_response();
                }
                Ok(Err(error @ SessionError::Full { .. })) => {
                    if let Some(times) = shared.warnings.full.count() {
                        tracing::warn!(client = %mac, %error, times, "login refused; raise `limits.clients`");
                    }
                    Page::Full
                }
                Ok(Err(SessionError::Barred { barred, .. })) => Page::Barred(barred),
                Ok(Err(error)) => shared.failed(mac, &error),
                Err(panic) => shared.failed(mac, &panic),
            }
        }
    };
    shared.pages.render(page)
}

async fn logout(
    State(shared): State<Arc<Shared>>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
) -> Response {
    let page = match client {
        _ if is_cross_site(&headers) => Page::CrossSite,
        Client::Known(mac) => match shared.sessions.logout(mac) {
            Ok(was_in) => {
                if was_in {
                    tracing::info!(client = %mac, "logged out");
                }
                return Redirect::to("/").into_response();
            }
            Err(error) => shared.failed(mac, &error),
        },
        Client::Unknown => Page::UnknownDevice,
        Client::Failed => Page::Failed,
    };
    shared.pages.render(page)
}

/// Who reloads or bookmarks the form's address.
async fn to_start() -> Redirect {
    Redirect::to("/")
}

impl Shared {
    /// Whether the network's rate has room for this client. Who is in, or kept out, takes no place of it.
    fn takes_login(&self, mac: Mac) -> bool {
        // Where the kernel fails, the login itself says so.
        let may_begin = self.sessions.show(mac).is_err() && !matches!(self.sessions.barred(mac), Ok(Some(_)));
        !may_begin || self.logins.take(clock::now_ns())
    }

    /// Who is behind the connection of this peer at this moment.
    fn client(&self, peer: SocketAddr) -> Client {
        match self.stations.station(peer) {
            Ok(Some(mac)) => Client::Known(mac),
            Ok(None) => Client::Unknown,
            Err(error) => {
                if let Some(times) = self.warnings.no_station.count() {
                    tracing::warn!(error = format!("{error:#}"), %peer, times, "cannot find the station behind a connection");
                }
                Client::Failed
            }
        }
    }

    fn failed(&self, mac: Mac, error: &dyn std::fmt::Display) -> Page {
        if let Some(times) = self.warnings.failed.count() {
            tracing::error!(client = %mac, %error, times, "the login page cannot serve a client");
        }
        Page::Failed
    }
}

/// Whether a browser says that another site's page sent this form.
///
/// `Sec-Fetch-Site` (Fetch Metadata) is only sent to trustworthy origins, so rarely over plain HTTP; `Origin` comes with
/// every cross-origin POST. What sends neither is no browser that another site could steer. That `Host` is ours has been
/// checked before.
///
/// `Origin: null` is refused: a sandboxed frame or a `data:` page of anybody's sends it. Our own page never does, as its
/// `Referrer-Policy` is not "no-referrer" and its forms are not redirected on their way.
fn is_cross_site(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site != "same-origin" && site != "none";
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let authority = origin.to_str().ok().and_then(|o| o.parse::<Uri>().ok()).and_then(|o| o.into_parts().authority);
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok());
    // "null" has no authority.
    match (authority, host) {
        (Some(authority), Some(host)) => !authority.as_str().eq_ignore_ascii_case(host),
        _ => true,
    }
}

async fn add_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Not "no-referrer": under it browsers send our own form with `Origin: null` (Fetch, "append a request Origin header").
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    response
}

#[cfg(test)]
mod tests;
