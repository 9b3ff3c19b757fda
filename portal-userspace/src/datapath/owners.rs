//! Who uses which address, as the gate has learned it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, MapData, MapError};
use portal_common::tables::{
    Address, AddressHash, AddressOwner, AddressWord, ClientKey, OwnedAddress, OwnedWord, Zone,
};

/// The kernel's table of addresses and the clients that are bound to them.
pub struct Owners {
    map: Mutex<HashMap<MapData, OwnedWord, AddressOwner>>,
    hash: AddressHash,
}

impl Owners {
    /// A table of its own, that no program writes.
    pub fn create(capacity: u32, hash: AddressHash) -> Result<Self> {
        Ok(Self::new(HashMap::create(capacity, 0).context("cannot create a BPF hash map")?, hash))
    }

    /// The table in a map that programs write, with the hash that they use.
    pub fn new(map: HashMap<MapData, OwnedWord, AddressOwner>, hash: AddressHash) -> Self {
        Self { map: Mutex::new(map), hash }
    }

    /// How addresses become words.
    pub fn hash(&self) -> AddressHash {
        self.hash
    }

    /// Who uses the address.
    pub fn owner(&self, address: &OwnedAddress) -> Result<Option<ClientKey>> {
        Ok(self.get(&address.row(&self.hash))?.map(|owner| owner.client))
    }

    /// Which address has this word in this zone, while somebody uses it.
    pub fn address(&self, zone: Zone, word: AddressWord) -> Result<Option<Address>> {
        Ok(self.get(&OwnedWord::new(zone, word))?.map(|owner| owner.address))
    }

    /// Notes who uses the address.
    pub fn insert(&self, address: OwnedAddress, client: ClientKey) -> Result<()> {
        let owner = AddressOwner { client, address: address.address() };
        self.lock().insert(address.row(&self.hash), owner, 0).context("cannot write the table of addresses")
    }

    /// Gives the address up if it is this client's.
    ///
    /// Between the look and the removal the gate may give it to another client, who then has to be bound again with its next packet.
    pub fn release(&self, zone: Zone, word: AddressWord, client: ClientKey) -> Result<()> {
        self.release_row(&OwnedWord::new(zone, word), client)
    }

    /// Gives up the addresses of clients for whom this is so; how many. A walk over the table: not for an async task.
    pub fn release_where(&self, gone: impl Fn(ClientKey) -> bool) -> Result<usize> {
        let stale: Vec<_> = {
            let map = self.lock();
            // What changes meanwhile is found, or not, by the next walk.
            map.iter().filter_map(Result::ok).filter(|(_, owner)| gone(owner.client)).collect()
        };
        for (row, owner) in &stale {
            self.release_row(row, owner.client)?;
        }
        Ok(stale.len())
    }

    fn release_row(&self, row: &OwnedWord, client: ClientKey) -> Result<()> {
        if self.get(row)?.is_none_or(|owner| owner.client != client) {
            return Ok(());
        }
        self.lock().remove(row).or_else(super::absent).context("cannot remove from the table of addresses")
    }

    fn get(&self, row: &OwnedWord) -> Result<Option<AddressOwner>> {
        match self.lock().get(row, 0) {
            Ok(owner) => Ok(Some(owner)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(e) => Err(e).context("cannot read the table of addresses"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<MapData, OwnedWord, AddressOwner>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
