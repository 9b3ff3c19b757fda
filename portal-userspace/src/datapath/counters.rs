//! The gate's counters: how often each reason was given.

use anyhow::{Context as _, Result};
use aya::maps::{MapData, PerCpuArray};
use portal_common::{
    Reason,
    tables::{COUNTER_ROWS, Counters, MAX_ZONES, UNZONED_ROW, Zone},
};

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
        Ok(Self::new(PerCpuArray::create(COUNTER_ROWS, 0).context("cannot create a BPF per-CPU array")?))
    }

    /// Packets since the map was made, for every reason, summed over the CPUs, the zones, and what belongs to no zone. What a zone in shadow mode
    /// only decided is not among them.
    pub fn read(&self) -> Result<Vec<(Reason, u64)>> {
        let mut sum = self.read_unzoned()?;
        for zone in 0..u16::try_from(MAX_ZONES).expect("64 fit") {
            for ((_, total), (_, count)) in sum.iter_mut().zip(self.read_zone(Zone::new(zone), false)?) {
                *total += count;
            }
        }
        Ok(sum)
    }

    /// Of a zone; or what it only decided, in shadow mode.
    pub fn read_zone(&self, zone: Zone, shadow: bool) -> Result<Vec<(Reason, u64)>> {
        self.read_row(Counters::row(zone, shadow))
    }

    /// Of frames that belong to no zone.
    pub fn read_unzoned(&self) -> Result<Vec<(Reason, u64)>> {
        self.read_row(UNZONED_ROW)
    }

    fn read_row(&self, row: u32) -> Result<Vec<(Reason, u64)>> {
        let per_cpu = self.map.get(&row, 0).context("cannot read the counters")?;
        let total = |reason: &Reason| per_cpu.iter().map(|c| c.packets[*reason as usize]).sum();
        Ok(Reason::ALL.iter().map(|reason| (*reason, total(reason))).collect())
    }
}
