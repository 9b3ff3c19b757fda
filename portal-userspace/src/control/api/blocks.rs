//! `/v1/blocks`: who is kept out.

use serde::{Deserialize, Serialize};

use crate::{
    net::Mac,
    session::{BarView, Reason},
};

/// `GET /v1/blocks`, or with `?zone=NAME` those of one zone.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct BlockList {
    /// Everybody who is kept out, whatever the cause, sorted by zone and MAC address.
    pub blocks: Vec<BarView>,
}

/// The body of `PUT /v1/blocks/{mac}`; it may be left out, and so may each field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BlockRequest {
    /// How long the client is kept out from now, in seconds; None: until an operator lets it in again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub for_seconds: Option<u64>,
    /// Why, for operators: one line of at most 200 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

/// The answer to `PUT /v1/blocks/{mac}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Blocked {
    /// How the client is kept out now.
    pub block: BarView,
    /// Whether that ended a session.
    pub ended_session: bool,
}

/// The answer to `DELETE /v1/blocks/{mac}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Unblocked {
    /// The client, which may log in again.
    pub mac: Mac,
    /// The zone that it was kept out of.
    pub zone: String,
    /// How it was kept out.
    pub block: BarView,
}
