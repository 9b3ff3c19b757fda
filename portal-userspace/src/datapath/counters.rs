//! The gate's counters: how often each reason was given.

use anyhow::{Context as _, Result};
use aya::maps::{MapData, PerCpuArray};
use portal_common::{Reason, tables::Counters};

/// Reads the gate's per-CPU counters.
pub struct CounterReader {
    map: PerCpuArray<MapData, Counters>,
}

impl CounterReader {
    /// The counters in this map.
    pub fn new(map: PerCpuArray<MapData, Counters>) -> Self {
        Self { map }
    }

    /// A map of its own, that no program counts in: all zero.
    pub fn create() -> Result<Self> {
        Ok(Self::new(PerCpuArray::create(1, 0).context("cannot create a BPF per-CPU array")?))
    }

    /// Packets since the map was made, for every reason, summed over the CPUs.
    pub fn read(&self) -> Result<Vec<(Reason, u64)>> {
        let per_cpu = self.map.get(&0, 0).context("cannot read the counters")?;
        let total = |reason: &Reason| per_cpu.iter().map(|c| c.packets[*reason as usize]).sum();
        Ok(Reason::ALL.iter().map(|reason| (*reason, total(reason))).collect())
    }
}
