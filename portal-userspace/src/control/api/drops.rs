//! `GET /v1/drops`: how often each reason was given.

use portal_common::Reason;
use serde::{Deserialize, Serialize};

/// `GET /v1/drops`, or with `?all=true` every reason, with `?zone=NAME` those of one zone.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Drops {
    /// What was done, of all zones together or of the one asked for, in the order of the reasons' numbers.
    pub reasons: Vec<ReasonCount>,
    /// The same by zone. Frames that belong to no zone stand last, under a zone without a name.
    #[serde(default)]
    pub zones: Vec<ZoneDrops>,
}

/// How often each reason was given in a zone.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ZoneDrops {
    /// The zone; None: the frames of no zone.
    pub zone: Option<String>,
    /// Whether this is what was decided in shadow mode, and not done.
    pub shadow: bool,
    /// In the order of the reasons' numbers.
    pub reasons: Vec<ReasonCount>,
}

/// How often a reason was given.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ReasonCount {
    /// The stable name.
    pub name: String,
    /// `passed`, `answered`, `redirected` or `dropped`.
    pub outcome: String,
    /// The rule, in a sentence.
    pub text: String,
    /// Packets since the gate's maps were made.
    pub packets: u64,
}

impl ReasonCount {
    /// This reason and its counter.
    pub fn new((reason, packets): (Reason, u64)) -> Self {
        Self {
            name: reason.name().to_owned(),
            outcome: reason.outcome().name().to_owned(),
            text: reason.text().to_owned(),
            packets,
        }
    }
}
