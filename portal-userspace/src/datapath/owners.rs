//! Who uses which address, as the gate has learned it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, MapData, MapError};
use portal_common::tables::{ClientKey, OwnedAddress};

/// The kernel's table of addresses and the clients that are bound to them.
pub struct Owners(Mutex<HashMap<MapData, OwnedAddress, ClientKey>>);

impl Owners {
    /// A table of its own, that no program writes.
    pub fn create(capacity: u32) -> Result<Self> {
        Ok(Self::new(HashMap::create(capacity, 0).context("cannot create a BPF hash map")?))
    }

    /// The table in a map that programs write.
    pub fn new(map: HashMap<MapData, OwnedAddress, ClientKey>) -> Self {
        Self(Mutex::new(map))
    }

    /// Who uses the address.
    pub fn owner(&self, address: &OwnedAddress) -> Result<Option<ClientKey>> {
        match self.lock().get(address, 0) {
            Ok(owner) => Ok(Some(owner)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(e) => Err(e).context("cannot read the table of addresses"),
        }
    }

    /// Notes who uses the address.
    pub fn insert(&self, address: OwnedAddress, owner: ClientKey) -> Result<()> {
        self.lock().insert(address, owner, 0).context("cannot write the table of addresses")
    }

    /// Gives the address up if it is this client's.
    ///
    /// Between the look and the removal the gate may give it to another client, who then has to be bound again with its next packet.
    pub fn release(&self, address: &OwnedAddress, client: ClientKey) -> Result<()> {
        if self.owner(address)? == Some(client) { self.remove(address) } else { Ok(()) }
    }

    /// Gives up the addresses of clients for whom this is so; how many. A walk over the table: not for an async task.
    pub fn release_where(&self, gone: impl Fn(ClientKey) -> bool) -> Result<usize> {
        let stale: Vec<_> = {
            let map = self.lock();
            // What changes meanwhile is found, or not, by the next walk.
            map.iter().filter_map(Result::ok).filter(|(_, owner)| gone(*owner)).collect()
        };
        for (address, owner) in &stale {
            self.release(address, *owner)?;
        }
        Ok(stale.len())
    }

    fn remove(&self, address: &OwnedAddress) -> Result<()> {
        self.lock().remove(address).or_else(super::absent).context("cannot remove from the table of addresses")
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<MapData, OwnedAddress, ClientKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
