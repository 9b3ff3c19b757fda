//! The gate's accelerator, as user space sees it: what it may have to take out of it.

use std::sync::atomic::{Ordering::SeqCst, fence};

use anyhow::Result;
use aya::maps::{Array, MapData};
use portal_common::tables::{Bindings, ClientKey, RecentPass, Seal, SealKeys, recent_row};

use super::{mapped::Mapped, secrets::random_key};

/// The least rows.
const LEAST: u32 = 1 << 10;

/// How many rows the accelerator has for so many clients; 1, which is none, where every client is metered.
pub(super) const fn rows_for(clients: u32, unmetered: bool) -> u32 {
    if !unmetered {
        return 1;
    }
    let rows = clients.next_power_of_two();
    if rows < LEAST { LEAST } else { rows }
}

/// Secrets for the seals of a gate.
pub(super) fn seal_keys() -> Result<SealKeys> {
    Ok(SealKeys([random_key()?.0, random_key()?.0]))
}

/// The accelerator's table. The gate fills it; only user space knows when a session changes.
pub(super) struct RecentTable(Mapped<RecentPass<u64>>);

impl RecentTable {
    /// A table of its own, that no program reads.
    pub(super) fn create() -> Result<Self> {
        Ok(Self(Mapped::create(1)?))
    }

    /// The table in a map that a program fills.
    pub(super) fn new(map: &Array<MapData, RecentPass<u64>>) -> Result<Self> {
        Ok(Self(Mapped::new(map)?))
    }

    /// Takes away what it says of a client whose session has changed, or ended: to be called after the change is in the table of clients. A row that is
    /// another's by now is written again with that one's next packet.
    pub(super) fn forget(&self, client: ClientKey, bindings: impl FnOnce() -> Bindings<u64>) {
        // The gate binds an address, claims a row, and then looks whether the session is still as it was; this is the other way round. So that one of the two sees the
        // other, both need a fence in between.
        fence(SeqCst);
        for address in bindings().iter() {
            let [seal] = self.0.words(recent_row(client, address, self.0.len() - 1)) else {
                unreachable!("a row is one word")
            };
            seal.store(Seal::NONE, SeqCst);
        }
    }
}
