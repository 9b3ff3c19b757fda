//! Which addresses clients of a network may have, as the gate looks them up.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use aya::maps::{
    MapData,
    lpm_trie::{Key, LpmTrie},
};
use ipnet::IpNet;
use portal_common::tables::{Address, GardenKey, Source, Zone};

use super::pins::MAX_SOURCES;

/// What every trie is made with (Linux `include/uapi/linux/bpf.h`).
const BPF_F_NO_PREALLOC: u32 = 1;

/// The table of all networks. Of the prefixes that hold an address the longest counts.
pub(super) struct Sources {
    rows: LpmTrie<MapData, GardenKey, u32>,
}

/// A network's rows: how many bits of a key count, and what they say.
type Rows = HashMap<(GardenKey, u32), Source>;

impl Sources {
    /// The table in this map.
    pub(super) fn new(rows: LpmTrie<MapData, GardenKey, u32>) -> Self {
        Self { rows }
    }

    /// A table of its own, that no program reads.
    pub(super) fn create() -> Result<Self> {
        Ok(Self::new(LpmTrie::create(MAX_SOURCES, BPF_F_NO_PREALLOC).context("cannot create a BPF trie")?))
    }

    /// Makes the network's part of the table what is wanted. The new is there before the old goes.
    pub(super) fn fill(&mut self, zone: Zone, wanted: &[(IpNet, Source)]) -> Result<()> {
        let wanted: Rows = wanted.iter().map(|(prefix, source)| (row(zone, *prefix), *source)).collect();
        let mut present = Vec::new();
        for key in self.rows.keys() {
            let key = key.context("cannot read which addresses are a network's own")?;
            if key.data().zone() == zone {
                present.push((key.data(), key.prefix_len()));
            }
        }
        for ((key, bits), source) in &wanted {
            self.rows.insert(&Key::new(*bits, *key), *source as u32, 0).with_context(|| {
                format!(
                    "cannot note which addresses are a network's own: there is room for {MAX_SOURCES} prefixes and gateway's addresses in all; name fewer in \
                     `downstream`"
                )
            })?;
        }
        for (key, bits) in present.into_iter().filter(|row| !wanted.contains_key(row)) {
            self.rows
                .remove(&Key::new(bits, key))
                .or_else(super::absent)
                .context("cannot forget a network's own prefix")?;
        }
        Ok(())
    }
}

/// The key of a prefix, and how many of its bits count.
pub(super) fn row(zone: Zone, prefix: IpNet) -> (GardenKey, u32) {
    let bits = match prefix {
        IpNet::V4(_) => GardenKey::V4_BITS,
        IpNet::V6(_) => 0,
    };
    let address = Address::from(prefix.network());
    (GardenKey::of_source(zone, address), GardenKey::EXACT_BITS + bits + u32::from(prefix.prefix_len()))
}
