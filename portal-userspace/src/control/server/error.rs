//! What goes wrong, as the API says it.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};

use crate::{
    control::api::{ErrorBody, ErrorInfo},
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
