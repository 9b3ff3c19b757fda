//! The guest networks as the control API sees and changes them, and what it asks the gate there.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use futures::{FutureExt as _, future::BoxFuture};

use super::{RunningZone, ZoneError, ZoneManager, ZoneView};
use crate::{
    clock,
    control::{Guarded, Zones},
    datapath::gate::Gate,
    observe::explain::{self, Departing, ExplainProgram, Explainer, Ran},
    responder::{Policies, SharedKeys, rehearse},
};

impl Zones for ZoneManager {
    fn guarded(&self) -> Vec<Guarded> {
        let mut guarded: Vec<_> = self.running().iter().map(|zone| Guarded::from(&**zone)).collect();
        guarded.sort_by_key(|zone| zone.number);
        guarded
    }

    fn list(&self) -> BoxFuture<'_, Vec<ZoneView>> {
        ZoneManager::list(self).boxed()
    }

    fn attach<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<ZoneView, ZoneError>> {
        ZoneManager::attach(self, name).boxed()
    }

    fn detach<'a>(&'a self, name: &'a str, may_open: bool) -> BoxFuture<'a, Result<(), ZoneError>> {
        ZoneManager::detach(self, name, may_open).boxed()
    }
}

impl From<&RunningZone> for Guarded {
    fn from(zone: &RunningZone) -> Self {
        Self {
            name: zone.name().to_owned(),
            number: zone.number,
            interface: zone.setup.port.name.clone(),
            interface_index: zone.setup.port.index,
            sessions: Arc::clone(&zone.sessions),
            neighbours: Arc::clone(&zone.neighbours),
        }
    }
}

/// The loaded program `explain`.
struct Loaded(Arc<Mutex<Gate>>);

impl ExplainProgram for Loaded {
    fn run(&self, frame: &[u8], ifindex: u32) -> Result<Ran> {
        let mut gate = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        explain::run(gate.explain()?, frame, ifindex)
    }

    fn run_out(&self, frame: &[u8], departing: Departing) -> Result<u32> {
        let mut gate = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        explain::run_out(gate.explain_out()?, frame, departing)
    }
}

impl ZoneManager {
    /// Asks the gate, and the responders about what the gate gives to them.
    pub(in crate::daemon) fn explainer(self: &Arc<Self>, keys: SharedKeys) -> Explainer {
        let manager = Arc::clone(self);
        let answer = move |frame: &[u8], ifindex: u32| {
            let zones = manager.running();
            let here = zones.iter().filter(|zone| zone.setup.port.index == ifindex);
            let policies = Policies::new(here.map(|zone| (zone.setup.vlans(), Arc::clone(&zone.setup.answers))));
            let keys = *keys.read().unwrap_or_else(PoisonError::into_inner);
            rehearse(frame, &policies, &keys, clock::now_ns()).ok().map(|answer| answer.frame)
        };
        Explainer::new(Loaded(Arc::clone(&self.gate)), Box::new(answer))
    }
}
