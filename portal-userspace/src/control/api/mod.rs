//! What the control API says, shared by the daemon and `portalctl`. The JSON forms are stable: fields are added, never
//! renamed, removed or given another meaning within `/v1`.

use std::{collections::BTreeMap, net::SocketAddr};

use portal_common::{Reason, reason::Outcome};
use serde::{Deserialize, Serialize};

mod blocks;
mod clients;
mod drops;
mod explain;
mod zones;

pub use crate::{
    garden::view::{AddRequest, GardenList, RemoveRequest, Removed, RuleView},
    observe::events::EventLine,
    session::{BarCause, BarView, ClientView},
};
pub use blocks::{BlockList, BlockRequest, Blocked, Unblocked};
pub use clients::{AllowRequest, ClientList, Revoked};
pub use drops::{Drops, ReasonCount, ZoneDrops};
pub use explain::{Direction, ExplainRequest, Explanation, Explanations, MOST_FRAMES};
pub use zones::{Detached, ZoneList, ZoneView};

/// `GET /v1/status`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// Seconds since the daemon started.
    pub uptime_seconds: u64,
    /// The first zone's gate and login page.
    pub gate: GateInfo,
    /// The zones that are guarded, by name.
    #[serde(default)]
    pub zones: Vec<String>,
    /// The session table.
    pub clients: ClientCount,
    /// What the gate has done with packets since its maps were made.
    pub packets: Packets,
    /// What was lost on the way to whoever watches.
    #[serde(default)]
    pub lost: Lost,
    /// The responder's counters since the daemon started, by name.
    pub responder: BTreeMap<String, u64>,
}

/// The gate and the login page, as they have been set up.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct GateInfo {
    /// The guest interface.
    pub interface: String,
    /// Its index.
    pub interface_index: u32,
    /// `native` or `generic`.
    pub xdp_mode: String,
    /// Receive queues with a responder.
    pub queues: u32,
    /// The gate's program id, as `bpftool prog show id` takes it.
    pub program_id: u32,
    /// What clients that asked over IPv4 are sent to.
    pub url_v4: String,
    /// What clients that asked over IPv6 are sent to.
    pub url_v6: String,
    /// Where the login page listens.
    pub listeners: Vec<SocketAddr>,
}

/// How full the session table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ClientCount {
    /// Clients with a live session.
    pub online: u64,
    /// How many sessions fit.
    pub capacity: u64,
}

/// Packets by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Packets {
    /// Given to the kernel.
    pub passed: u64,
    /// Answered by the gate itself.
    pub answered: u64,
    /// Given to the responder.
    pub redirected: u64,
    /// Given to nobody.
    pub dropped: u64,
}

impl Packets {
    /// The counters of each reason, summed by outcome.
    pub fn sum(counters: &[(Reason, u64)]) -> Self {
        let mut sum = Self::default();
        for (reason, packets) in counters {
            let total = match reason.outcome() {
                Outcome::Passed => &mut sum.passed,
                Outcome::Answered => &mut sum.answered,
                Outcome::Redirected => &mut sum.redirected,
                Outcome::Dropped => &mut sum.dropped,
            };
            *total += packets;
        }
        sum
    }
}

/// Records that were lost since the gate was loaded, as there was no room for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Lost {
    /// Events that the kernel could not tell the daemon.
    pub events: u64,
    /// Frames that a capture has missed.
    pub captures: u64,
    /// DNS answers that the walled garden could not be learned from, and that were dropped.
    pub answers: u64,
    /// Events that did not reach a watcher that was too slow.
    pub watchers: u64,
}

/// Every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorInfo,
}

/// What went wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ErrorInfo {
    /// The stable code, for programs.
    pub code: String,
    /// The cause.
    pub message: String,
    /// What to do.
    pub remedy: String,
}
