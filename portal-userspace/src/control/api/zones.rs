//! `/v1/zones`: the guest networks.

use serde::{Deserialize, Serialize};

use crate::net::Mac;

/// `GET /v1/zones`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ZoneList {
    /// Every zone that is guarded, by number.
    pub zones: Vec<ZoneView>,
}

/// A guest network that is guarded.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ZoneView {
    /// Its name.
    pub name: String,
    /// Its number in the kernel's tables.
    pub number: u16,
    /// The interface that guests are on.
    pub interface: String,
    /// Its index.
    pub interface_index: u32,
    /// The VLAN ids of its frames, as `10` or `100.10`, the outer first; None: frames without a tag.
    pub vlan: Option<String>,
    /// The MAC address that guests send to.
    pub gateway_mac: Mac,
    /// The gateway's addresses there, with their prefix lengths.
    pub addresses: Vec<String>,
    /// What a stranger's connection to TCP/443 gets: `reset`, `alert` or `drop`.
    pub https: String,
    /// `off`, `learn` or `strict`.
    pub anti_spoofing: String,
    /// Whether everything passes, and what would be done is only counted.
    pub shadow: bool,
    /// What clients that asked over IPv4 are sent to.
    pub url_v4: String,
    /// What clients that asked over IPv6 are sent to.
    pub url_v6: String,
}

/// The answer to `DELETE /v1/zones/{name}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Detached {
    /// The zone that is not guarded any more.
    pub name: String,
}
