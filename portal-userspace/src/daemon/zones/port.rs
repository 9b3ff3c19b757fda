//! An interface with the gate, and the responder behind it. Several networks can share it, by VLANs.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use portal_common::tables::{MAX_INTERFACES, MAX_QUEUES, Zone};

use super::setup::ZoneSetup;
use crate::{
    config::XdpMode,
    datapath::known::KnownAnswers,
    net::Interface,
    responder::{
        Policies, Queues, Responder, Shared, SharedKeys, SharedPolicies, SharedSockets, SocketOptions, reassembly,
    },
};

/// A network, and its number in the gate's tables.
pub(super) type NumberedZone<'a> = (&'a ZoneSetup, Zone);

/// An interface with a responder.
pub(super) struct Port {
    pub(super) interface: Interface,
    pub(super) mode: XdpMode,
    /// Its place among the interfaces.
    slot: u32,
    policies: SharedPolicies,
    known: Arc<KnownAnswers>,
    pub(super) responder: Responder,
}

/// What responders of all interfaces share.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) sockets: SharedSockets,
    pub(super) keys: SharedKeys,
    /// What the gate answers by itself.
    pub(super) known: Arc<KnownAnswers>,
    /// Memory for requests in parts, bytes, of each interface.
    pub(super) memory: usize,
}

impl Port {
    /// Listens on the receive queues of the interface of these networks. `taken`: the places of the interfaces there are.
    pub(super) fn open(zones: &[NumberedZone<'_>], taken: &[u32], common: &Common) -> Result<Self> {
        let (first, _) = zones.first().context("an interface without a network")?;
        let interface = first.port.clone();
        let slot = (0..MAX_INTERFACES).find(|slot| !taken.contains(slot));
        let slot = slot.with_context(|| {
            format!("the gate guards at most {MAX_INTERFACES} interfaces, and {} is one more", interface.name)
        })?;
        // Whatever was learned for other networks of these numbers.
        let policies = common.known.change(|| SharedPolicies::new(policies(zones)));
        let queues = Queues { ifindex: interface.index, count: interface.rx_queues, xsk_base: slot * MAX_QUEUES };
        let shared = Shared {
            sockets: common.sockets.clone(),
            policies: policies.clone(),
            keys: common.keys.clone(),
            known: Arc::clone(&common.known),
        };
        let limits = reassembly::Limits::per_worker(common.memory, interface.rx_queues)?;
        let responder = Responder::spawn(queues, &shared, limits, SocketOptions::default())
            .with_context(|| format!("cannot answer requests on {}", interface.name))?;
        Ok(Self {
            mode: first.effective.zone.xdp_mode,
            interface,
            slot,
            policies,
            known: Arc::clone(&common.known),
            responder,
        })
    }

    pub(super) fn slot(&self) -> u32 {
        self.slot
    }

    /// Where its sockets begin.
    pub(super) fn xsk_base(&self) -> u32 {
        self.slot * MAX_QUEUES
    }

    /// Answers the clients of these networks from now on.
    pub(super) fn answer(&self, zones: &[NumberedZone<'_>]) {
        self.known.change(|| self.policies.replace(policies(zones)));
    }
}

fn policies(zones: &[NumberedZone<'_>]) -> Policies {
    Policies::of_zones(zones.iter().map(|(zone, number)| (zone.vlans(), *number, zone.answers.clone())))
}
