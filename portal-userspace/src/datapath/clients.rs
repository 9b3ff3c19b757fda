//! What the kernel keeps of each session.

use std::sync::{PoisonError, RwLock};

use anyhow::{Context as _, Result};
use aya::maps::{Array, IterableMap as _, MapData};
use portal_common::tables::ClientState;

use super::batch::{Batch, BatchError};

/// The kernel's table of what each session has carried, by its slot.
pub struct ClientStates {
    /// Locked for one system call: aya's writing methods need it, the kernel's map does not.
    map: RwLock<Array<MapData, ClientState<u64>>>,
    slots: u32,
}

impl ClientStates {
    /// A table of its own, that no program writes.
    pub fn create(slots: u32) -> Result<Self> {
        Ok(Self::new(Array::create(slots, 0).context("cannot create a BPF array")?))
    }

    /// The table in a map that programs write.
    pub fn new(map: Array<MapData, ClientState<u64>>) -> Self {
        let slots = map.len();
        Self { map: RwLock::new(map), slots }
    }

    /// How many slots there are.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// What is in the slot now. The kernel may be changing it: each word is right, but they may be of different frames.
    pub fn read(&self, slot: u32) -> Result<ClientState<u64>> {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        map.get(&slot, 0).with_context(|| format!("cannot read the state of slot {slot}"))
    }

    /// Writes the slot: to be done before a session has it, as the kernel counts there without asking.
    pub fn write(&self, slot: u32, state: ClientState<u64>) -> Result<()> {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        map.set(slot, state, 0).with_context(|| format!("cannot write the state of slot {slot}"))
    }

    /// For writing many slots at once: under the same rule.
    pub fn batch(&self) -> Result<Batch<u32, ClientState<u64>>, BatchError> {
        Batch::over(self.map.read().unwrap_or_else(PoisonError::into_inner).map())
    }
}
