//! The control API's client.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{body::Bytes, http::StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, task::JoinHandle, time::Instant};

use super::{
    Group,
    api::{
        AddRequest, AllowRequest, BlockList, BlockRequest, Blocked, ClientList, ClientView, Detached, Drops, ErrorBody,
        ErrorInfo, ExplainRequest, Explanations, GardenList, RemoveRequest, Removed, Revoked, RuleView, Status,
        Unblocked, ZoneList, ZoneView,
    },
};
use crate::{
    config::{BarTime, OrNone},
    net::{
        Mac,
        client::{ExchangeError, exchange},
    },
};

/// A list of a million clients takes seconds, and who finds many others waits in line first, for 20 s at most, or twice that to watch.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long between two attempts to connect while so many wait to be let in that the kernel takes no more.
const AGAIN: Duration = Duration::from_millis(20);
/// Largest refusal that is read, bytes.
const ERROR_BYTES: usize = 64 * 1024;

/// Speaks to a daemon.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Why the daemon did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("portald is not running: nobody answers on {}", .0.display())]
    NotRunning(PathBuf),
    /// The kernel does not let this user connect.
    #[error("no permission to use {}", socket.display())]
    NoPermission {
        /// The socket.
        socket: PathBuf,
        /// What to do.
        remedy: String,
    },
    /// The daemon said no.
    #[error("{}", .0.message)]
    Refused(ErrorInfo),
    /// Something else.
    #[error("cannot speak to portald on {}: {cause}", socket.display())]
    Transport {
        /// The socket.
        socket: PathBuf,
        /// Why not.
        cause: String,
    },
}

impl ClientError {
    /// The error in the API's form, whoever found it.
    pub fn info(&self) -> ErrorInfo {
        let (code, remedy) = match self {
            Self::Refused(info) => return info.clone(),
            Self::NotRunning(_) => (
                "not_running",
                "start it (`systemctl start portald`, or `portald --config FILE`), or name its socket with --socket",
            ),
            Self::NoPermission { remedy, .. } => ("no_permission", remedy.as_str()),
            Self::Transport { .. } => ("transport", "check that --socket names portald's socket, and portald's log"),
        };
        ErrorInfo { code: code.into(), message: self.to_string(), remedy: remedy.into() }
    }
}

impl Client {
    /// Speaks to the daemon on this socket.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// How the daemon is.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.call(Method::GET, "/v1/status", None::<()>).await
    }

    /// Who is logged in: in one zone, or in all.
    pub async fn clients(&self, zone: Option<&str>) -> Result<ClientList, ClientError> {
        self.call(Method::GET, &in_zone("/v1/clients", zone), None::<()>).await
    }

    /// One client's session, in this zone, or where it has one.
    pub async fn client(&self, mac: Mac, zone: Option<&str>) -> Result<ClientView, ClientError> {
        self.call(Method::GET, &in_zone(&format!("/v1/clients/{mac}"), zone), None::<()>).await
    }

    /// Lets a client through, in this zone, or in the only one. When this returns, the kernel has it.
    pub async fn allow(&self, mac: Mac, zone: Option<&str>, request: AllowRequest) -> Result<ClientView, ClientError> {
        self.call(Method::PUT, &in_zone(&format!("/v1/clients/{mac}"), zone), Some(request)).await
    }

    /// Makes a client a stranger, in this zone, or where it has a session, and keeps it out for as long as the configuration says. When this returns,
    /// it is one.
    pub async fn revoke(&self, mac: Mac, zone: Option<&str>) -> Result<Revoked, ClientError> {
        self.revoke_and_bar(mac, zone, None).await
    }

    /// As [`Self::revoke`], but keeps the client out for this long, where that is said.
    pub async fn revoke_and_bar(
        &self,
        mac: Mac,
        zone: Option<&str>,
        bar: Option<OrNone<BarTime>>,
    ) -> Result<Revoked, ClientError> {
        let bar = bar.map(|bar| bar.to_string());
        let query = Query::default().given("zone", zone).given("bar", bar.as_deref());
        self.call(Method::DELETE, &query.behind(&format!("/v1/clients/{mac}")), None::<()>).await
    }

    /// Who is kept out: of one zone, or of any.
    pub async fn blocks(&self, zone: Option<&str>) -> Result<BlockList, ClientError> {
        self.call(Method::GET, &in_zone("/v1/blocks", zone), None::<()>).await
    }

    /// Keeps a client out of this zone, or of the one where it has a session, or of the only one. When this returns, it is a stranger.
    pub async fn block(&self, mac: Mac, zone: Option<&str>, request: &BlockRequest) -> Result<Blocked, ClientError> {
        self.call(Method::PUT, &in_zone(&format!("/v1/blocks/{mac}"), zone), Some(request)).await
    }

    /// Lets a client log in again, in this zone, or where it is kept out.
    pub async fn unblock(&self, mac: Mac, zone: Option<&str>) -> Result<Unblocked, ClientError> {
        self.call(Method::DELETE, &in_zone(&format!("/v1/blocks/{mac}"), zone), None::<()>).await
    }

    /// How often each reason was given: those that drop, or all; in one zone, or in all.
    pub async fn drops(&self, all: bool, zone: Option<&str>) -> Result<Drops, ClientError> {
        let query = Query::default().given("all", all.then_some("true")).given("zone", zone);
        self.call(Method::GET, &query.behind("/v1/drops"), None::<()>).await
    }

    /// What the gate would do with frames.
    pub async fn explain(&self, request: &ExplainRequest) -> Result<Explanations, ClientError> {
        self.call(Method::POST, "/v1/explain", Some(request)).await
    }

    /// The guest networks.
    pub async fn zones(&self) -> Result<ZoneList, ClientError> {
        self.call(Method::GET, "/v1/zones", None::<()>).await
    }

    /// Guards a zone, as the configuration file has it now.
    pub async fn attach_zone(&self, name: &str) -> Result<ZoneView, ClientError> {
        self.call(Method::POST, &format!("/v1/zones/{}", escaped(name)), None::<()>).await
    }

    /// Guards a zone no longer; where it is the last on its interface only if it may be open.
    pub async fn detach_zone(&self, name: &str, may_open: bool) -> Result<Detached, ClientError> {
        let query = Query::default().given("open", may_open.then_some("true"));
        self.call(Method::DELETE, &query.behind(&format!("/v1/zones/{}", escaped(name))), None::<()>).await
    }

    /// The walled garden.
    pub async fn garden(&self) -> Result<GardenList, ClientError> {
        self.call(Method::GET, "/v1/garden", None::<()>).await
    }

    /// Adds to the walled garden.
    pub async fn add_to_garden(&self, request: &AddRequest) -> Result<RuleView, ClientError> {
        self.call(Method::POST, "/v1/garden", Some(request)).await
    }

    /// Removes from the walled garden.
    pub async fn remove_from_garden(&self, request: &RemoveRequest) -> Result<Removed, ClientError> {
        let query = Query::default().given("to", Some(&request.to.to_string())).given("zone", request.zone.as_deref());
        self.call(Method::DELETE, &query.behind("/v1/garden"), None::<()>).await
    }

    /// Everything that happens from now on: lines of JSON.
    pub async fn events(&self) -> Result<Download, ClientError> {
        self.download("/v1/events").await
    }

    /// A client's frames as pcapng: in one zone or in all, until there are so many, or for so many seconds.
    pub async fn capture(
        &self,
        client: Mac,
        zone: Option<&str>,
        count: Option<u64>,
        seconds: Option<u64>,
    ) -> Result<Download, ClientError> {
        let number = |n: Option<u64>| n.map(|n| n.to_string());
        let query = Query::default()
            .given("client", Some(&client.to_string()))
            .given("zone", zone)
            .given("count", number(count).as_deref())
            .given("seconds", number(seconds).as_deref());
        self.download(&query.behind("/v1/capture")).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<impl Serialize>,
    ) -> Result<T, ClientError> {
        let body = match body {
            Some(body) => Bytes::from(serde_json::to_vec(&body).expect("the API's types have a JSON form")),
            None => Bytes::new(),
        };
        let stream = self.connect().await?;
        let answer = exchange(stream, request(method, path, body), PATIENCE).await.map_err(|e| self.transport(&e))?;
        if answer.status() == StatusCode::OK {
            serde_json::from_slice(answer.body()).map_err(|e| self.unreadable(answer.status(), &e))
        } else {
            Err(self.refused(answer.status(), answer.body()))
        }
    }

    /// An answer that goes on until somebody ends it.
    async fn download(&self, path: &str) -> Result<Download, ClientError> {
        let begin = async {
            let (mut sender, connection) =
                http1::handshake(TokioIo::new(self.connect().await?)).await.map_err(|e| self.transport(&e))?;
            // Where the connection breaks, the body says so.
            let connection = AbortOnDrop(tokio::spawn(async move { drop(connection.await) }));
            let answer = sender.send_request(request(Method::GET, path, Bytes::new())).await;
            let (head, body) = answer.map_err(|e| self.transport(&e))?.into_parts();
            if head.status == StatusCode::OK {
                return Ok(Download { client: self.clone(), body, _connection: connection });
            }
            let body = Limited::new(body, ERROR_BYTES).collect().await.map_err(|e| self.transport(&*e))?.to_bytes();
            Err(self.refused(head.status, &body))
        };
        tokio::time::timeout(PATIENCE, begin).await.map_err(|_| self.transport(&ExchangeError::TimedOut(PATIENCE)))?
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match UnixStream::connect(&self.socket).await {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                    tokio::time::sleep(AGAIN).await;
                }
                connected => return connected.map_err(|e| self.not_connected(&e)),
            }
        }
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> ClientError {
        match serde_json::from_slice(body) {
            Ok(ErrorBody { error }) => ClientError::Refused(error),
            Err(e) => self.unreadable(status, &e),
        }
    }

    fn unreadable(&self, status: StatusCode, error: &serde_json::Error) -> ClientError {
        let cause = format!("the answer (status {status}) is none of portald's: {error}");
        ClientError::Transport { socket: self.socket.clone(), cause }
    }

    fn transport(&self, error: &(dyn std::error::Error + Send + Sync)) -> ClientError {
        ClientError::Transport { socket: self.socket.clone(), cause: error.to_string() }
    }

    fn not_connected(&self, error: &io::Error) -> ClientError {
        let socket = self.socket.clone();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning(socket),
            io::ErrorKind::PermissionDenied => {
                let remedy = who_may(&socket);
                ClientError::NoPermission { socket, remedy }
            }
            _ => ClientError::Transport { socket, cause: error.to_string() },
        }
    }
}

fn request(method: Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(path)
        // Nobody reads it: HTTP/1.1 demands it.
        .header(header::HOST, "portald")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .expect("what a path is made of is escaped")
}

fn in_zone(path: &str, zone: Option<&str>) -> String {
    Query::default().given("zone", zone).behind(path)
}

/// The query of a path.
#[derive(Default)]
struct Query(String);

impl Query {
    /// With this, if it is given.
    fn given(mut self, name: &str, value: Option<&str>) -> Self {
        if let Some(value) = value {
            self.0.push(if self.0.is_empty() { '?' } else { '&' });
            self.0.push_str(name);
            self.0.push('=');
            self.0.push_str(&escaped(value));
        }
        self
    }

    fn behind(&self, path: &str) -> String {
        format!("{path}{}", self.0)
    }
}

/// As it may stand anywhere in a path or a query (RFC 3986 section 2).
pub(super) fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// An answer that goes on until it is dropped, or the daemon ends it.
pub struct Download {
    client: Client,
    body: Incoming,
    _connection: AbortOnDrop,
}

impl Download {
    /// The next piece; None at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(e)) => return Err(self.client.transport(&e)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

/// Ends a connection with what reads from it.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Whom the socket's owner and mode let in.
fn who_may(socket: &Path) -> String {
    let Ok(metadata) = fs::metadata(socket) else {
        // Its directory is closed to this user.
        return "use sudo, or join the group that `control.group` names in portald's configuration".into();
    };
    let group = Some(metadata).filter(|m| m.mode() & 0o060 == 0o060).map(|m| m.gid());
    match group.map(|gid| (gid, Group::by_gid(gid))) {
        Some((_, Ok(Some(group)))) => format!("use sudo, or join the group `{}`", group.name),
        Some((gid, _)) => format!("use sudo, or join the group with number {gid}"),
        None => "use sudo: only root may (set `control.group` in portald's configuration to change that)".into(),
    }
}
