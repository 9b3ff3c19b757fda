//! What goes wrong, as the API says it.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};

use crate::{
    control::api::{BarCause, BarView, ErrorBody, ErrorInfo},
    session::SessionError,
};

/// An answer that is not a success.
pub(super) struct ApiError {
    status: StatusCode,
    info: ErrorInfo,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        let info = ErrorInfo { code: code.to_owned(), message: message.into(), remedy: remedy.into() };
        Self { status, info }
    }

    /// That a client has no session because it is kept out.
    pub(super) fn barred(bar: &BarView) -> Self {
        let BarView { mac, zone, cause, until, .. } = bar;
        let until = until.as_ref().map_or_else(|| "until it is let in again".into(), |until| format!("until {until}"));
        let why = match cause {
            BarCause::Quota => "it has spent a session's quota",
            BarCause::Day => "it has spent its quota of the day",
            BarCause::Revoked => "its session was revoked",
            BarCause::Blocked => "it is blocked",
        };
        let message = format!("client {mac} has no session, and is kept out of `{zone}` {until}: {why}");
        let remedy = "`portalctl unblock` lets it log in again, `portalctl allow` lets it through at once";
        Self::new(StatusCode::NOT_FOUND, "client_barred", message, remedy)
    }

    #[expect(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
    pub(super) fn internal(error: anyhow::Error) -> Self {
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
            SessionError::Barred { .. } => Self::new(
                StatusCode::FORBIDDEN,
                "client_barred",
                message,
                "`portalctl allow` lets it through all the same",
            ),
            SessionError::NotBarred(_) => {
                Self::new(StatusCode::NOT_FOUND, "not_blocked", message, "`portalctl blocks` shows who is kept out")
            }
            SessionError::BarsFull => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "blocks_full",
                message,
                "unblock those that need not be kept out any more: `portalctl blocks` shows them",
            ),
            SessionError::State(error) => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "state_not_written",
                format!("{error:#}"),
                "nothing was changed; put right what the message names, and try again",
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
