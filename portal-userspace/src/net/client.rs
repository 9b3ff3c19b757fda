//! One HTTP/1 request over a connection that is there.

use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, Response, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// Largest answer that is read, in bytes: a list of a million clients has a quarter of that.
const ANSWER_BYTES: usize = 1 << 30;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// The connection broke, or what came is no HTTP.
    #[error("the connection broke before the answer was complete: {0}")]
    Http(#[from] hyper::Error),
    /// The answer ended early or is too long.
    #[error("the answer can't be read: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// No answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
}

/// Sends the request and reads the whole answer.
pub(crate) async fn exchange<I>(
    io: I,
    request: Request<Full<Bytes>>,
    patience: Duration,
) -> Result<Response<Bytes>, ExchangeError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let exchange = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
        // It owns the sender: when it is done, the connection ends too.
        let answer = async move {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES).collect().await.map_err(ExchangeError::Body)?.to_bytes();
            Ok(Response::from_parts(head, body))
        };
        // Where the connection breaks, the answer says how.
        let (answer, _) = tokio::join!(answer, connection);
        answer
    };
    tokio::time::timeout(patience, exchange).await.map_err(|_| ExchangeError::TimedOut(patience))?
}
