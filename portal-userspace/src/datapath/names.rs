//! Which number each zone has in the kernel's tables.
//!
//! Sessions hold their zone's number, and outlive the daemon. What a number stands for is pinned beside them, so that a network that is added,
//! removed or moved in the configuration never gets another's sessions: a zone is its name.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use portal_common::tables::{MAX_ZONES, Zone};

/// The longest name, bytes.
pub(crate) const NAME_BYTES: usize = 32;
/// A name with zeros behind it; all zero where the number is free.
pub(crate) type Name = [u8; NAME_BYTES];

/// The names of the zones, by number.
pub struct ZoneNames(Array<MapData, Name>);

/// Which zones keep their numbers, which get one, and which are no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbering {
    /// The number of each wanted zone, in the order they were asked for.
    pub zones: Vec<Zone>,
    /// Numbers that no wanted zone has: what belongs to them is to be removed.
    pub retired: Vec<Zone>,
}

impl ZoneNames {
    /// The names pinned there; made if they are not.
    pub fn at(pin: &Path) -> Result<Self> {
        if !pin.exists() {
            let Self(names) = Self::create()?;
            names.pin(pin).with_context(|| format!("cannot pin the zones' names to {}", pin.display()))?;
        }
        let map = MapData::from_pin(pin).with_context(|| format!("cannot open the pinned map {}", pin.display()))?;
        let names = Array::try_from(Map::Array(map));
        Ok(Self(names.with_context(|| format!("{} is not what it should be", pin.display()))?))
    }

    /// Names that end with this.
    pub fn create() -> Result<Self> {
        Ok(Self(Array::create(MAX_ZONES, 0).context("cannot create a BPF array")?))
    }

    /// The numbers that these zones have or get. Changes nothing.
    pub fn number(&self, wanted: &[&str]) -> Result<Numbering> {
        let present = (0..MAX_ZONES)
            .map(|n| self.0.get(&n, 0))
            .collect::<Result<Vec<_>, _>>()
            .context("cannot read the zones' names")?;
        assign(&present, wanted)
    }

    /// Notes what the number stands for from now on.
    pub fn set(&mut self, zone: Zone, name: &str) -> Result<()> {
        self.0.set(zone.number().into(), padded(name)?, 0).context("cannot store a zone's name")
    }

    /// Frees the number. What belongs to it is to be removed before.
    pub fn clear(&mut self, zone: Zone) -> Result<()> {
        self.0.set(zone.number().into(), [0; NAME_BYTES], 0).context("cannot remove a zone's name")
    }
}

fn padded(name: &str) -> Result<Name> {
    ensure!(!name.is_empty() && name.len() <= NAME_BYTES, "a zone's name has 1 to {NAME_BYTES} bytes");
    let mut padded = [0; NAME_BYTES];
    padded[..name.len()].copy_from_slice(name.as_bytes());
    Ok(padded)
}

fn assign(present: &[Name], wanted: &[&str]) -> Result<Numbering> {
    const FREE: Name = [0; NAME_BYTES];
    let names = wanted.iter().map(|name| padded(name)).collect::<Result<Vec<_>>>()?;
    let number = |n: usize| Zone::new(u16::try_from(n).expect("there are at most 64 zones"));
    let kept: Vec<_> = names.iter().map(|name| present.iter().position(|p| p == name)).collect();
    // A number that is being freed is used last: by then what belonged to it is gone.
    let free = |is_free: bool| {
        let kept = &kept;
        (0..present.len()).filter(move |n| (present[*n] == FREE) == is_free && !kept.contains(&Some(*n)))
    };
    let mut unused = free(true).chain(free(false));
    let mut zones = Vec::new();
    for keeps in &kept {
        let n = keeps.or_else(|| unused.next()).context("there are more zones than numbers for them")?;
        zones.push(number(n));
    }
    let retired = free(false).map(number).collect();
    Ok(Numbering { zones, retired })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (sentence, the names that are wanted, their numbers, the retired numbers)
    type Case = (&'static str, &'static [&'static str], &'static [u16], &'static [u16]);

    #[test]
    fn a_zone_keeps_its_number_and_a_new_one_never_gets_one_that_is_in_use() {
        let mut names = ZoneNames::create().unwrap();
        let zones = |numbers: &[u16]| numbers.iter().map(|n| Zone::new(*n)).collect::<Vec<_>>();
        let table: [Case; 6] = [
            ("the first start", &["guest"], &[0], &[]),
            ("one more, in front", &["lobby", "guest"], &[1, 0], &[]),
            ("another order, and one more", &["guest", "staff", "lobby"], &[0, 2, 1], &[]),
            ("one goes", &["guest", "lobby"], &[0, 1], &[2]),
            ("one goes as another comes", &["guest", "events"], &[0, 2], &[1]),
            ("all are others", &["a", "b"], &[1, 3], &[0, 2]),
        ];
        for (sentence, wanted, numbers, retired) in table {
            let numbering = names.number(wanted).unwrap();
            assert_eq!(numbering, Numbering { zones: zones(numbers), retired: zones(retired) }, "{sentence}");
            for zone in numbering.retired {
                names.clear(zone).unwrap();
            }
            for (zone, name) in numbering.zones.iter().zip(wanted) {
                names.set(*zone, name).unwrap();
            }
        }
        let many: Vec<String> = (0..=MAX_ZONES).map(|n| format!("z{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(names.number(&many[1..]).unwrap().zones.len(), 64);
        assert!(names.number(&many).is_err());
        assert!(names.set(Zone::FIRST, &"x".repeat(33)).is_err() && names.set(Zone::FIRST, "").is_err());
    }
}
