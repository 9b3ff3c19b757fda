//! What the kernel keeps of each session.

use anyhow::Result;
use aya::maps::{Array, MapData};
use portal_common::tables::ClientState;

use super::mapped::Mapped;

/// The kernel's table of what each session has carried, by its slot.
pub struct ClientStates(Mapped<ClientState<u64>>);

impl ClientStates {
    /// A table of its own, that no program writes.
    pub fn create(slots: u32) -> Result<Self> {
        Ok(Self(Mapped::create(slots)?))
    }

    /// The table in a map that programs write.
    pub fn new(map: &Array<MapData, ClientState<u64>>) -> Result<Self> {
        Ok(Self(Mapped::new(map)?))
    }

    /// How many slots there are.
    pub fn slots(&self) -> u32 {
        self.0.len()
    }

    /// What is in the slot now. The kernel may be changing it: each word is right, but they may be of different frames. Panics beyond the last slot.
    pub fn read(&self, slot: u32) -> ClientState<u64> {
        self.0.read(slot)
    }

    /// Writes the slot: to be done before a session has it, as the kernel counts there without asking. Panics beyond the last slot.
    pub fn write(&self, slot: u32, state: &ClientState<u64>) {
        self.0.write(slot, state);
    }
}
