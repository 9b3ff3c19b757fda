//! Whose requests get which answers: a policy for each guest network that shares the interface.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use portal_common::tables::Zone;

use super::{answers::Answers, probes::Probes};

/// A guest network's place on its interface: the identifiers of the outer and the inner VLAN tag, 0 where there is none. A tag of VLAN 0
/// carries only a priority (IEEE 802.1Q-2022 section 9.6): with it a frame is as good as untagged.
pub type Vlans = (u16, u16);

/// The network of the frames without VLAN tags.
pub const UNTAGGED: Vlans = (0, 0);

/// What the clients of one guest network are answered by.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The responses, which lead to this network's portal.
    pub answers: Answers,
    /// Which requests get another than 511.
    pub probes: Probes,
}

/// The policy of each guest network on an interface. Frames of any other network are ignored.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    by_vlans: HashMap<Vlans, (Arc<Policy>, Option<Zone>)>,
}

impl Policies {
    /// These networks, and no others. The gate is taught nothing of their answers.
    pub fn new(networks: impl IntoIterator<Item = (Vlans, Arc<Policy>)>) -> Self {
        Self { by_vlans: networks.into_iter().map(|(vlans, policy)| (vlans, (policy, None))).collect() }
    }

    /// These networks, and no others, with their numbers in the gate's tables.
    pub fn of_zones(networks: impl IntoIterator<Item = (Vlans, Zone, Arc<Policy>)>) -> Self {
        Self { by_vlans: networks.into_iter().map(|(vlans, zone, policy)| (vlans, (policy, Some(zone)))).collect() }
    }

    /// One network, without VLAN tags.
    pub fn untagged(policy: Policy) -> Self {
        Self::new([(UNTAGGED, Arc::new(policy))])
    }

    /// The policy of a network.
    pub fn of(&self, vlans: Vlans) -> Option<&Policy> {
        self.with_zone_of(vlans).map(|(policy, _)| policy)
    }

    /// The policy of a network, and its number in the gate's tables.
    pub fn with_zone_of(&self, vlans: Vlans) -> Option<(&Policy, Option<Zone>)> {
        self.by_vlans.get(&vlans).map(|(policy, zone)| (policy.as_ref(), *zone))
    }
}

/// The policies that running workers answer by. They can be replaced as a whole at any time: each worker takes them anew for every batch
/// of frames. A request in several segments goes on across a replacement.
#[derive(Clone, Debug, Default)]
pub struct SharedPolicies(Arc<RwLock<Arc<Policies>>>);

impl SharedPolicies {
    /// Begins with these.
    pub fn new(policies: Policies) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(policies))))
    }

    /// Those in force now.
    pub fn get(&self) -> Arc<Policies> {
        // A panic elsewhere can't leave it half-written: only a whole `Arc` is ever put there.
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether these are in force still.
    pub fn are(&self, policies: &Arc<Policies>) -> bool {
        // Who asks holds them, so that no others can be at their address.
        Arc::ptr_eq(&self.0.read().unwrap_or_else(PoisonError::into_inner), policies)
    }

    /// Puts these in force. Where the gate has been taught by the old ones, within [`crate::datapath::known::KnownAnswers::change`].
    pub fn replace(&self, policies: Policies) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policies);
    }
}
