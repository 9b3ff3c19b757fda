//! The gate, loaded without an interface, with so many clients logged in.

use anyhow::{Context as _, Result, ensure};
use portal_common::{
    Reason,
    tables::{Attachment, ClientKey, GateConfig, HttpsPolicy, Rate, Session, Zone},
};
use portal_userspace::datapath::{
    gate::{Gate, GateMaps, GateSize},
    zones::ZonePolicy,
};

use crate::frames::{self, FIRST_CLIENT, GATEWAY_MAC};

/// The one zone.
pub const ZONE: Zone = Zone::FIRST;

/// What sessions are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limits {
    /// Nothing is limited.
    None,
    /// A rate both ways and a quota, which no measurement reaches.
    Far,
}

/// A gate with clients.
pub struct LoadedGate {
    /// Its programs.
    pub gate: Gate,
    /// Its maps.
    pub maps: GateMaps,
    clients: u32,
}

impl LoadedGate {
    /// Loads a gate for frames that arrive at this interface, with room for exactly these clients, and logs them in.
    pub fn new(ifindex: u32, clients: u32, limits: Limits) -> Result<Self> {
        let (gate, mut maps) =
            Gate::load_unpinned(GateSize { clients, unmetered: true }).context("the gate does not load")?;
        let policy = ZonePolicy {
            zone: ZONE,
            attachment: Attachment::new(ifindex, 0, 0),
            // What nobody answers: rivals drop too, and an answer is a cost of its own.
            config: GateConfig::new(GATEWAY_MAC).with_https(HttpsPolicy::Drop),
            gateway: vec![[192, 0, 2, 1].into()],
            resolvers: vec![[192, 0, 2, 1].into()],
            listeners: vec![([192, 0, 2, 1], 8080).into()],
            ntp: Vec::new(),
            sources: Vec::new(),
        };
        maps.zones.fill(&policy)?;
        let mut loaded = Self { gate, maps, clients };
        loaded.log_in(limits)?;
        Ok(loaded)
    }

    /// Counts what clients carry, or not.
    pub fn set_accounting(&mut self, accounting: bool) -> Result<()> {
        let config = self.maps.zones.config(ZONE)?;
        self.maps.zones.configure(ZONE, config.with_accounting(accounting))
    }

    /// Logs every client in, or changes what its session limits.
    pub fn log_in(&mut self, limits: Limits) -> Result<()> {
        const FAST: Rate = Rate::bits_per_second(Rate::MAX_BITS_PER_SECOND);
        for slot in 0..self.clients {
            let session = Session::new(0, Session::NEVER, slot);
            let session = match limits {
                Limits::None => session,
                Limits::Far => session.with_rates(FAST, FAST).with_quota(Session::NO_QUOTA - 1),
            };
            self.maps.sessions.insert(ClientKey::new(ZONE, frames::mac(FIRST_CLIENT + slot)), session)?;
        }
        Ok(())
    }

    /// How often the gate has given this reason, and every other.
    pub fn counted(&self, reason: Reason) -> Result<(u64, u64)> {
        let counts = self.maps.counters.read()?;
        let of = |wanted: bool| counts.iter().filter(|(r, _)| (*r == reason) == wanted).map(|(_, count)| count).sum();
        Ok((of(true), of(false)))
    }

    /// Calls the function and demands that the gate meanwhile gave this reason so often, and no other.
    pub fn demand<T>(&mut self, reason: Reason, frames: u32, run: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let (before, others) = self.counted(reason)?;
        let result = run(self)?;
        let (after, others_after) = self.counted(reason)?;
        ensure!(
            after - before == u64::from(frames) && others_after == others,
            "of {frames} frames the gate counted {} as {}, and {} as something else",
            after - before,
            reason.name(),
            others_after - others,
        );
        Ok(result)
    }
}
