//! The walled garden as the gate looks it up: by prefix, and by what has been learned from DNS.

use anyhow::{Context as _, Result};
use aya::maps::{
    HashMap, MapData,
    lpm_trie::{Key, LpmTrie},
};
use portal_common::tables::{GardenKey, ServiceKey, Zone};

/// What every trie is made with (Linux `include/uapi/linux/bpf.h`).
const BPF_F_NO_PREALLOC: u32 = 1;

/// The walled garden's tables of all zones.
pub struct GardenTables {
    prefixes: LpmTrie<MapData, GardenKey, u32>,
    learned: HashMap<MapData, ServiceKey, u64>,
}

impl GardenTables {
    /// The tables in these maps.
    pub fn new(prefixes: LpmTrie<MapData, GardenKey, u32>, learned: HashMap<MapData, ServiceKey, u64>) -> Self {
        Self { prefixes, learned }
    }

    /// Tables of their own, that no program reads.
    pub fn create() -> Result<Self> {
        let prefixes =
            LpmTrie::create(super::pins::MAX_GARDEN, BPF_F_NO_PREALLOC).context("cannot create a BPF trie")?;
        let learned = HashMap::create(super::pins::MAX_LEARNED, 0).context("cannot create a BPF hash map")?;
        Ok(Self::new(prefixes, learned))
    }

    /// Opens a prefix: so many bits of the key's address count.
    pub fn insert_prefix(&mut self, key: GardenKey, address_bits: u8) -> Result<()> {
        self.prefixes.insert(&row(key, address_bits), 1, 0).context("cannot add to the walled garden")
    }

    /// Closes a prefix; no error if it is not open.
    pub fn remove_prefix(&mut self, key: GardenKey, address_bits: u8) -> Result<()> {
        self.prefixes
            .remove(&row(key, address_bits))
            .or_else(super::absent)
            .context("cannot remove from the walled garden")
    }

    /// Opens a destination until this instant, nanoseconds of CLOCK_MONOTONIC.
    pub fn insert_learned(&mut self, key: ServiceKey, expires_ns: u64) -> Result<()> {
        self.learned.insert(key, expires_ns, 0).context("cannot add to what was learned from DNS")
    }

    /// Closes a destination; no error if it is not open.
    pub fn remove_learned(&mut self, key: &ServiceKey) -> Result<()> {
        self.learned.remove(key).or_else(super::absent).context("cannot remove from what was learned from DNS")
    }

    /// The prefixes that are open, and how many bits of their addresses count.
    pub fn all_prefixes(&self) -> Result<Vec<(GardenKey, u8)>> {
        let mut found = Vec::new();
        for key in self.prefixes.keys() {
            let key = key.context("cannot read the walled garden")?;
            let bits = key.prefix_len().saturating_sub(GardenKey::EXACT_BITS);
            found.push((key.data(), u8::try_from(bits).unwrap_or(u8::MAX)));
        }
        Ok(found)
    }

    /// What is open as learned, and until when.
    pub fn all_learned(&self) -> Result<Vec<(ServiceKey, u64)>> {
        self.learned.iter().collect::<Result<_, _>>().context("cannot read what was learned from DNS")
    }

    /// Closes everything in a zone.
    pub fn clear(&mut self, zone: Zone) -> Result<()> {
        for (key, bits) in self.all_prefixes()?.into_iter().filter(|(key, _)| key.zone() == zone) {
            self.remove_prefix(key, bits)?;
        }
        for (key, _) in self.all_learned()?.into_iter().filter(|(key, _)| key.zone() == zone) {
            self.remove_learned(&key)?;
        }
        Ok(())
    }
}

fn row(key: GardenKey, address_bits: u8) -> Key<GardenKey> {
    Key::new(GardenKey::EXACT_BITS + u32::from(address_bits.min(128)), key)
}

#[cfg(test)]
mod tests {
    use portal_common::tables::Address;

    use super::*;

    #[test]
    fn each_zone_has_rows_of_its_own() {
        let mut tables = GardenTables::create().unwrap();
        let (one, two) = (Zone::new(1), Zone::new(2));
        let block = |zone| GardenKey::new(zone, 6, 443, Address::v4([203, 0, 113, 0]));
        let learned = |zone| ServiceKey::new(zone, Address::v4([203, 0, 113, 9]), 6, 443);
        for zone in [one, two] {
            tables.insert_prefix(block(zone), 120).unwrap();
            tables.insert_prefix(block(zone), 121).unwrap();
            tables.insert_learned(learned(zone), 7).unwrap();
        }
        tables.insert_prefix(block(one), 120).expect("twice is once");
        assert_eq!(tables.all_prefixes().unwrap().len(), 4);
        tables.remove_prefix(block(two), 121).unwrap();
        tables.remove_prefix(block(two), 121).expect("what is not there need not be removed");
        tables.clear(one).unwrap();
        assert_eq!(tables.all_prefixes().unwrap(), [(block(two), 120)]);
        assert_eq!(tables.all_learned().unwrap(), [(learned(two), 7)]);
        tables.remove_learned(&learned(two)).unwrap();
        tables.remove_learned(&learned(two)).expect("what is not there need not be removed");
        assert_eq!(tables.all_learned().unwrap(), []);
    }
}
