//! `/v1/capture`: a client's frames as a pcapng stream, until the client of the API goes or there is enough.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Bytes,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::Response,
};
use futures::{StreamExt as _, stream};
use portal_common::tables::ClientKey;
use serde::Deserialize;

use super::{
    ApiError, Control,
    places::{Kind, Visit},
    stream::{Stop, answer},
    zones,
};
use crate::{
    net::Mac,
    observe::{
        capture::{Capture, CaptureError},
        pcapng::PcapngStream,
    },
};

/// What [`capture`] takes.
const QUERY: &str = "use ?client=02:00:5e:10:00:01, and if you like &zone=NAME, &count=FRAMES and &seconds=SECONDS";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CaptureQuery {
    client: Mac,
    zone: Option<String>,
    count: Option<u64>,
    seconds: Option<u64>,
}

pub(super) async fn capture(
    State(control): State<Arc<Control>>,
    Extension(visit): Extension<Visit>,
    Extension(stop): Extension<Stop>,
    query: Result<Query<CaptureQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(CaptureQuery { client, zone, count, seconds }) = query
        .map_err(|rejection| ApiError::new(StatusCode::BAD_REQUEST, "bad_request", rejection.body_text(), QUERY))?;
    let wanted = zones::wanted(&*control.zones, zone.as_deref())?;
    let clients = wanted.iter().map(|zone| ClientKey::new(zone.number, client.bytes())).collect();
    // What is refused at once does not wait in line first.
    visit.take(Kind::Stream).await?;
    let capture = control.captures.begin(clients)?;
    let pcapng = PcapngStream::new(&format!("Frames of {client}, with what portald did with them")).map_err(broken)?;
    let writing =
        Writing { control: Arc::clone(&control), capture, pcapng, left: count.unwrap_or(u64::MAX), begun: false };
    let blocks = stream::unfold(writing, Writing::next);
    let length = Duration::from_secs(seconds.unwrap_or(u64::MAX));
    tracing::info!(%client, "a client's frames are captured");
    Ok(answer(stop, "application/x-pcapng", blocks.take_until(Box::pin(tokio::time::sleep(length)))))
}

/// A capture on its way to the client of the API.
struct Writing {
    control: Arc<Control>,
    capture: Capture,
    pcapng: PcapngStream,
    left: u64,
    begun: bool,
}

impl Writing {
    /// The next whole blocks, and itself.
    async fn next(mut self) -> Option<(Bytes, Self)> {
        if !self.begun {
            // The beginning is sent at once: who reads it knows that the capture is under way.
            self.begun = true;
            return Some((self.pcapng.take().into(), self));
        }
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let (frame, lost) = self.capture.next().await?;
        let control = Arc::clone(&self.control);
        let interface = || {
            let zone = control.zones.guarded().into_iter().find(|zone| zone.interface_index == frame.ifindex);
            zone.map_or_else(|| format!("interface {}", frame.ifindex), |zone| zone.interface)
        };
        if let Err(error) = self.pcapng.frame(&frame, interface, lost) {
            tracing::error!(%error, "a captured frame can't be written");
            return None;
        }
        Some((self.pcapng.take().into(), self))
    }
}

fn broken(error: impl std::error::Error + Send + Sync + 'static) -> ApiError {
    ApiError::internal(anyhow::Error::new(error).context("cannot begin the capture"))
}

impl From<CaptureError> for ApiError {
    fn from(error: CaptureError) -> Self {
        match error {
            CaptureError::Full => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "captures_full",
                error.to_string(),
                "end another capture, or name one zone with ?zone=NAME",
            ),
            CaptureError::Kernel(cause) => {
                Self::internal(cause.context("cannot tell the gate whose frames to capture"))
            }
        }
    }
}
