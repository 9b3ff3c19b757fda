//! `/v1/zones`: the guest networks.

use serde::{Deserialize, Serialize};

pub use crate::daemon::zones::ZoneView;

/// `GET /v1/zones`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ZoneList {
    /// Every zone that is guarded, then those of the configuration file that are not.
    pub zones: Vec<ZoneView>,
}

/// The answer to `DELETE /v1/zones/{name}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Detached {
    /// The zone that is not guarded any more.
    pub name: String,
}
