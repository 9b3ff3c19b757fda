//! A guest network as programs see it.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{port::Port, running::RunningZone};
use crate::net::Mac;

/// A guest network that is guarded, or one of the configuration that is not. The JSON form is stable.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ZoneView {
    /// Its name.
    pub name: String,
    /// Whether the gate guards it.
    pub attached: bool,
    /// Its number in the kernel's tables; None where it has none.
    pub number: Option<u16>,
    /// The interface that its frames arrive at.
    pub interface: String,
    /// That interface's index.
    pub interface_index: Option<u32>,
    /// Its VLAN, as `10` or `100.10`; None: frames without a tag.
    pub vlan: Option<String>,
    /// The interface with the gateway's addresses.
    pub gateway_interface: Option<String>,
    /// The gateway's addresses there.
    pub gateway_addresses: Vec<IpAddr>,
    /// The MAC address that guests send to.
    pub gateway_mac: Option<Mac>,
    /// `native` or `generic`.
    pub xdp_mode: String,
    /// Receive queues with a responder.
    pub queues: Option<u32>,
    /// Whether the gate only decides and counts there.
    pub shadow: bool,
    /// `reset`, `alert` or `drop`.
    pub https: String,
    /// `off`, `learn` or `strict`.
    pub anti_spoofing: String,
    /// What clients that asked over IPv4 are sent to.
    pub url_v4: Option<String>,
    /// What clients that asked over IPv6 are sent to.
    pub url_v6: Option<String>,
    /// Where its login page listens.
    pub listeners: Vec<SocketAddr>,
}

impl ZoneView {
    /// A network that is not guarded.
    pub(super) fn detached(zone: &crate::config::ZoneConfig) -> Self {
        let crate::config::Guest { name, interface, vlan, gateway, https, anti_spoofing, shadow, .. } = &zone.guest;
        Self {
            name: name.to_string(),
            attached: false,
            number: None,
            interface: interface.to_string(),
            interface_index: None,
            vlan: vlan.map(|vlan| vlan.to_string()),
            gateway_interface: gateway.as_ref().map(ToString::to_string),
            gateway_addresses: Vec::new(),
            gateway_mac: None,
            xdp_mode: zone.xdp_mode.to_string(),
            queues: None,
            shadow: *shadow,
            https: https.to_string(),
            anti_spoofing: anti_spoofing.to_string(),
            url_v4: None,
            url_v6: None,
            listeners: Vec::new(),
        }
    }

    pub(super) fn attached(zone: &RunningZone, port: &Port) -> Self {
        let setup = &zone.setup;
        Self {
            attached: true,
            number: Some(zone.number.number()),
            interface_index: Some(port.interface.index),
            gateway_interface: Some(setup.network.neighbour_name().to_owned()),
            gateway_addresses: setup.network.addresses().collect(),
            gateway_mac: Some(Mac::from_table(setup.network.gateway_mac())),
            queues: Some(port.interface.rx_queues),
            url_v4: Some(setup.effective.url_v4.to_string()),
            url_v6: Some(setup.effective.url_v6.to_string()),
            listeners: zone.listeners.clone(),
            ..Self::detached(&setup.effective.zone)
        }
    }
}
