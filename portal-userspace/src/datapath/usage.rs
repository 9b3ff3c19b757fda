//! What clients have used, where it outlives the daemon: a map that only user space knows.
//!
//! It lives as long as the sessions do: until `portald --detach` or a restart of the machine. Its rows hold the gate's clock, which starts anew with
//! the machine too.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, Map, MapData};
use portal_common::tables::ClientKey;

/// `BPF_F_NO_PREALLOC`, Linux `include/uapi/linux/bpf.h`: most rows are never needed.
const NO_PREALLOC: u32 = 1;

/// The words of a row; [`crate::session`] says what they mean.
pub(crate) type UsageWords = [u64; 4];

/// The kernel's copy of what clients have used.
pub struct UsageMap(HashMap<MapData, ClientKey, UsageWords>);

impl UsageMap {
    /// The map pinned there, with room for so many clients; made if it is not.
    pub fn at(pin: &Path, clients: u32) -> Result<Self> {
        if !pin.exists() {
            let Self(map) = Self::create(clients)?;
            map.pin(pin).with_context(|| format!("cannot pin what clients have used to {}", pin.display()))?;
        }
        let map = MapData::from_pin(pin).with_context(|| format!("cannot open the pinned map {}", pin.display()))?;
        let map = HashMap::try_from(Map::HashMap(map));
        Ok(Self(map.with_context(|| format!("{} is not what it should be", pin.display()))?))
    }

    /// A map that ends with this.
    pub fn create(clients: u32) -> Result<Self> {
        Ok(Self(HashMap::create(clients, NO_PREALLOC).context("cannot create a BPF hash map")?))
    }

    /// Every row.
    pub(crate) fn rows(&self) -> Result<Vec<(ClientKey, UsageWords)>> {
        self.0.iter().collect::<Result<_, _>>().context("cannot read what clients have used")
    }

    /// Writes a client's row.
    pub(crate) fn insert(&mut self, client: ClientKey, row: UsageWords) -> Result<()> {
        self.0.insert(client, row, 0).context("cannot write what a client has used")
    }

    /// Removes a client's row, if there is one.
    pub(crate) fn remove(&mut self, client: ClientKey) -> Result<()> {
        self.0.remove(&client).or_else(super::absent).context("cannot remove what a client has used")
    }
}
