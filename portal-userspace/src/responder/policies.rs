//! Whose requests get which answers: a policy for each guest network that shares the interface.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

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
    by_vlans: HashMap<Vlans, Arc<Policy>>,
}

impl Policies {
    /// These networks, and no others.
    pub fn new(networks: impl IntoIterator<Item = (Vlans, Arc<Policy>)>) -> Self {
        Self { by_vlans: networks.into_iter().collect() }
    }

    /// One network, without VLAN tags.
    pub fn untagged(policy: Policy) -> Self {
        Self::new([(UNTAGGED, Arc::new(policy))])
    }

    /// The policy of a network.
    pub fn of(&self, vlans: Vlans) -> Option<&Policy> {
        self.by_vlans.get(&vlans).map(Arc::as_ref)
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

    /// Puts these in force.
    pub fn replace(&self, policies: Policies) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policies);
    }
}
