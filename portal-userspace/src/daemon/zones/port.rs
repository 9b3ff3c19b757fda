//! An interface with the gate, and the responder behind it. Several networks can share it, by VLANs.

use anyhow::{Context as _, Result};
use portal_common::tables::{MAX_INTERFACES, MAX_QUEUES};

use super::setup::ZoneSetup;
use crate::{
    config::XdpMode,
    net::Interface,
    responder::{
        Policies, Queues, Responder, Shared, SharedKeys, SharedPolicies, SharedSockets, SocketOptions, reassembly,
    },
};

/// An interface with a responder.
pub(super) struct Port {
    pub(super) interface: Interface,
    pub(super) mode: XdpMode,
    /// Its place among the interfaces.
    slot: u32,
    policies: SharedPolicies,
    pub(super) responder: Responder,
}

/// What responders of all interfaces share.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) sockets: SharedSockets,
    pub(super) keys: SharedKeys,
    /// Memory for requests in parts, bytes, of each interface.
    pub(super) memory: usize,
}

impl Port {
    /// Listens on the receive queues of the interface of these networks. `taken`: the places of the interfaces there are.
    pub(super) fn open(zones: &[&ZoneSetup], taken: &[u32], common: &Common) -> Result<Self> {
        let first = zones.first().context("an interface without a network")?;
        let interface = first.port.clone();
        let slot = (0..MAX_INTERFACES).find(|slot| !taken.contains(slot));
        let slot = slot.with_context(|| {
            format!("the gate guards at most {MAX_INTERFACES} interfaces, and {} is one more", interface.name)
        })?;
        let policies = SharedPolicies::new(policies(zones));
        let queues = Queues { ifindex: interface.index, count: interface.rx_queues, xsk_base: slot * MAX_QUEUES };
        let shared = Shared { sockets: common.sockets.clone(), policies: policies.clone(), keys: common.keys.clone() };
        let limits = reassembly::Limits::per_worker(common.memory, interface.rx_queues)?;
        let responder = Responder::spawn(queues, &shared, limits, SocketOptions::default())
            .with_context(|| format!("cannot answer requests on {}", interface.name))?;
        Ok(Self { mode: first.effective.zone.xdp_mode, interface, slot, policies, responder })
    }

    pub(super) fn slot(&self) -> u32 {
        self.slot
    }

    /// Where its sockets begin.
    pub(super) fn xsk_base(&self) -> u32 {
        self.slot * MAX_QUEUES
    }

    /// Answers the clients of these networks from now on.
    pub(super) fn answer(&self, zones: &[&ZoneSetup]) {
        self.policies.replace(policies(zones));
    }
}

fn policies(zones: &[&ZoneSetup]) -> Policies {
    Policies::new(zones.iter().map(|zone| (zone.vlans(), zone.answers.clone())))
}
