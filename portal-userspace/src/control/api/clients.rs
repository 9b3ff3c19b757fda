//! `/v1/clients`: who is logged in.

use serde::{Deserialize, Serialize};

use crate::{
    config::{BitRate, ByteCount, IdleTime, OrNone, QuotaPer},
    net::Mac,
    session::{BarView, ClientView},
};

/// `GET /v1/clients`, or with `?zone=NAME` those of one zone.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ClientList {
    /// Every client with a live session, sorted by zone and MAC address.
    pub clients: Vec<ClientView>,
}

/// The body of `PUT /v1/clients/{mac}`; it may be left out, and so may each field: then it stays as it is in the client's session, or without one
/// is as the zone's configuration says. Limits are written as in the configuration, `"none"` for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AllowRequest {
    /// How long the session lasts from now, in seconds; None: as long as a login's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub for_seconds: Option<u64>,
    /// Whether it lasts until it is revoked or the machine restarts; not beside `for_seconds`.
    pub forever: bool,
    /// How fast the client may send, as `10mbit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_up: Option<OrNone<BitRate>>,
    /// How fast it may be sent to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_down: Option<OrNone<BitRate>>,
    /// How many bytes it may send and receive, together, from the session's beginning, as `2GB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<OrNone<ByteCount>>,
    /// What that quota is of, `session` or `day`, beside `quota`; None: as the configuration says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_per: Option<QuotaPer>,
    /// After how long without a frame from it the session ends, as `30m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<OrNone<IdleTime>>,
}

/// The answer to `DELETE /v1/clients/{mac}`, which takes `?bar=2h`, `?bar=forever` and `?bar=none`, as the configuration says where it is left out.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Revoked {
    /// The client, a stranger now.
    pub mac: Mac,
    /// The zone it was in.
    #[serde(default)]
    pub zone: String,
    /// How it is kept out now, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bar: Option<BarView>,
}
