//! The control API's client.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{body::Bytes, http::StatusCode};
use http_body_util::Full;
use hyper::{Method, Request, header};
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use super::{
    Group,
    api::{AllowRequest, ClientList, ClientView, Drops, ErrorBody, ErrorInfo, Revoked, Status},
};
use crate::net::{
    Mac,
    client::{ExchangeError, exchange},
};

/// A list of a million clients takes seconds.
const PATIENCE: Duration = Duration::from_secs(30);

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

    /// Who is logged in.
    pub async fn clients(&self) -> Result<ClientList, ClientError> {
        self.call(Method::GET, "/v1/clients", None::<()>).await
    }

    /// One client's session.
    pub async fn client(&self, mac: Mac) -> Result<ClientView, ClientError> {
        self.call(Method::GET, &format!("/v1/clients/{mac}"), None::<()>).await
    }

    /// Lets a client through. When this returns, the kernel has it.
    pub async fn allow(&self, mac: Mac, request: AllowRequest) -> Result<ClientView, ClientError> {
        self.call(Method::PUT, &format!("/v1/clients/{mac}"), Some(request)).await
    }

    /// Makes a client a stranger. When this returns, it is one.
    pub async fn revoke(&self, mac: Mac) -> Result<Revoked, ClientError> {
        self.call(Method::DELETE, &format!("/v1/clients/{mac}"), None::<()>).await
    }

    /// How often each reason was given: those that drop, or all.
    pub async fn drops(&self, all: bool) -> Result<Drops, ClientError> {
        self.call(Method::GET, if all { "/v1/drops?all=true" } else { "/v1/drops" }, None::<()>).await
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
        let request = Request::builder()
            .method(method)
            .uri(path)
            // Nobody reads it: HTTP/1.1 demands it.
            .header(header::HOST, "portald")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .expect("a MAC address makes a valid path");
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.not_connected(&e))?;
        let answer = exchange(stream, request, PATIENCE).await.map_err(|e| self.transport(&e))?;
        let unreadable = |e: serde_json::Error| ClientError::Transport {
            socket: self.socket.clone(),
            cause: format!("the answer (status {}) is none of portald's: {e}", answer.status()),
        };
        if answer.status() == StatusCode::OK {
            serde_json::from_slice(answer.body()).map_err(unreadable)
        } else {
            let ErrorBody { error } = serde_json::from_slice(answer.body()).map_err(unreadable)?;
            Err(ClientError::Refused(error))
        }
    }

    fn transport(&self, error: &ExchangeError) -> ClientError {
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
