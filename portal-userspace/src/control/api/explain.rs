//! `POST /v1/explain`: what the gate would do with frames.

use clap::ValueEnum;
use portal_common::{Reason, reason::Outcome};
use serde::{Deserialize, Serialize};

/// The most frames of one request.
pub const MOST_FRAMES: usize = 256;

/// The body of `POST /v1/explain`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// Frames from the destination MAC on, without check sequence, each as hexadecimal digits without anything between them; at
    /// most [`MOST_FRAMES`].
    pub frames: Vec<String>,
    /// The zone on whose interface the frames arrive; None: the first one's. Which zone a frame then belongs to, its VLAN tags say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Which way the frames go.
    #[serde(default)]
    pub direction: Direction,
    /// Of frames to guests: the gateway itself sends them, and does not forward them.
    #[serde(default)]
    pub own: bool,
}

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// A guest sends it
    #[default]
    In,
    /// It is sent to a guest
    Out,
}

/// The answer to `POST /v1/explain`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Explanations {
    /// For each frame, in the request's order.
    pub frames: Vec<Explanation>,
}

/// What the gate would do with a frame now.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Explanation {
    /// `passed`, `answered`, `redirected` or `dropped`.
    pub verdict: String,
    /// The reason's stable name.
    pub reason: String,
    /// The rule, in a sentence.
    pub rule: String,
    /// The frame that the client would get back, by the gate or the responder, as hexadecimal digits; None where it gets none.
    pub reply_hex: Option<String>,
}

impl Explanation {
    /// This verdict for this reason, with what is sent back.
    pub fn new(verdict: Outcome, reason: Reason, reply: Option<&[u8]>) -> Self {
        Self {
            verdict: verdict.name().to_owned(),
            reason: reason.name().to_owned(),
            rule: reason.text().to_owned(),
            reply_hex: reply.map(crate::observe::input::to_hex),
        }
    }
}
