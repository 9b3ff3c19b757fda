//! Where the gate's maps and link are pinned, so that they outlive the daemon.
//!
//! ```text
//! /sys/fs/bpf/portal/          closed to other users
//!     v5/                      the version of the maps' layout; locked by the running portald
//!         SESSIONS, CONFIG, …  the maps of the programs, NAMES: which zone has which number, and USAGE: what clients have used
//!         link-<ifindex>       the gate's attachment to the interface
//!         meter-<ifindex>      the meter's, where the kernel has tcx
//! ```
//!
//! The ring buffers, whose frames are captured, and which requests the gate answers by itself are not pinned: they are for the daemon that runs. A capture ends
//! with it; and what the next one's gate answers is what its own responder has said.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result, bail};
use aya::maps::{MapInfo, MapType};
use portal_common::{
    budget::Budgets,
    tables::{
        AddressOwner, Bucket, COUNTER_ROWS, ClientKey, ClientRow, ConnectionKey, ConnectionNote, CookieKeys, Counters,
        GardenKey, GateConfig, MAX_INTERFACES, MAX_QUEUES, MAX_ZONES, OwnedWord, ServiceKey, SessionIndex, ZONE_ROWS,
        ZoneRow,
    },
};
use rustix::fs::statfs;

use super::{attachment::Attachment, keep::Keeper, names::Name, usage::UsageWords};
use crate::private::Private;

/// The version of the maps' layout. It changes when a map's key, value or meaning does.
const LAYOUT: &str = "v5";
/// `BPF_FS_MAGIC`, Linux `include/uapi/linux/magic.h`.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// How many destinations strangers may reach, and addresses of the gateway, in all zones together.
pub(crate) const MAX_SERVICES: u32 = 4096;
/// How many interfaces and VLANs can have a zone.
pub(crate) const MAX_ATTACHMENTS: u32 = 256;
/// How many prefixes the walled gardens have, in all zones together.
pub(crate) const MAX_GARDEN: u32 = 16_384;
/// How many prefixes of clients' own addresses there are, in all zones together.
pub(crate) const MAX_SOURCES: u32 = 1024;
/// How many destinations are learned from DNS, in all zones together.
pub(crate) const MAX_LEARNED: u32 = 16_384;
/// How many strangers' budgets are remembered.
const MAX_STRANGERS: u32 = 65_536;
/// How many connections to the portal are noted. Each is used for seconds.
const MAX_CONNECTIONS: u32 = 32_768;
/// What a pinned link's name begins with; the interface's index follows.
const GATE_PIN: &str = "link-";
const METER_PIN: &str = "meter-";
/// The map that says which zone has which number. The programs do not know it.
const NAMES: &str = "NAMES";
/// The map that says what clients have used. Nor this.
const USAGE: &str = "USAGE";

/// How many addresses can be bound to clients: as many as all sessions can hold, so that none is without an owner. Room is taken as it is used.
pub(crate) const fn max_owners(clients: u32) -> u32 {
    clients.saturating_mul(portal_common::tables::MAX_BINDINGS as u32)
}

/// How many buckets the index of so many sessions has, with the one that says how it is hashed.
pub(crate) const fn index_rows(clients: u32) -> u32 {
    SessionIndex::rows_for(clients)
}

/// The directory with the pins of this version. Reading it changes nothing.
#[derive(Clone, Debug)]
pub struct PinDirectory(PathBuf);

/// The pin directory, locked for as long as this lives.
pub struct Pins {
    directory: PinDirectory,
    keeper: Mutex<Keeper>,
}

/// What an earlier portald has left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The gate's attachments.
    pub attachments: Vec<Attachment>,
    /// The meter's.
    pub meters: Vec<Attachment>,
    /// The maps that cannot be used as they are.
    pub unfit: Vec<UnfitMap>,
}

/// A pinned map that is not the one that this portald would make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnfitMap {
    /// Where it is pinned.
    pub pin: PathBuf,
    /// What is wrong with it.
    pub fault: MapFault,
}

/// What is wrong with a pinned map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapFault {
    /// Its type, its key or its value is another.
    Layout,
    /// It has room for another number of entries.
    Size {
        /// How many it has room for.
        pinned: u32,
        /// How many it should have room for.
        wanted: u32,
    },
}

/// Maps that were not there before. Dropping this removes them, unless they are kept: a start that fails leaves nothing.
#[must_use]
pub struct FreshMaps(Vec<PathBuf>);

/// A map that the gate and user space share.
pub(crate) struct SharedMap {
    pub(crate) name: &'static str,
    kind: MapType,
    key_size: usize,
    value_size: usize,
    max_entries: u32,
}

/// Every map that is pinned, as user space expects it.
fn shared_maps(clients: u32) -> Vec<SharedMap> {
    let map =
        |name, kind, key_size, value_size, max_entries| SharedMap { name, kind, key_size, value_size, max_entries };
    let index = size_of::<u32>();
    let (client, owned, service) = (size_of::<ClientKey>(), size_of::<OwnedWord>(), size_of::<ServiceKey>());
    let trie_key = index + size_of::<GardenKey>();
    vec![
        map("ZONES", MapType::Array, index, size_of::<ZoneRow>(), ZONE_ROWS),
        map("CONFIG", MapType::Array, index, size_of::<GateConfig>(), MAX_ZONES),
        map("CLIENTS", MapType::Array, index, size_of::<ClientRow<u64>>(), clients),
        map("INDEX", MapType::Array, index, size_of::<Bucket>(), index_rows(clients)),
        map("OWNERS", MapType::Hash, owned, size_of::<AddressOwner>(), max_owners(clients)),
        map("STRANGERS", MapType::LruHash, client, size_of::<Budgets<u64>>(), MAX_STRANGERS),
        map("CONNECTIONS", MapType::LruHash, size_of::<ConnectionKey>(), size_of::<ConnectionNote>(), MAX_CONNECTIONS),
        map("SERVICES", MapType::Hash, service, index, MAX_SERVICES),
        map("GARDEN", MapType::LpmTrie, trie_key, index, MAX_GARDEN),
        map("SOURCES", MapType::LpmTrie, trie_key, index, MAX_SOURCES),
        map("LEARNED", MapType::Hash, service, size_of::<u64>(), MAX_LEARNED),
        map("COOKIE_KEYS", MapType::Array, index, size_of::<CookieKeys>(), 1),
        map("COUNTERS", MapType::PerCpuArray, index, size_of::<Counters>(), COUNTER_ROWS),
        map("XSKS", MapType::XskMap, index, index, MAX_INTERFACES * MAX_QUEUES),
        map(NAMES, MapType::Array, index, size_of::<Name>(), MAX_ZONES),
        map(USAGE, MapType::Hash, client, size_of::<UsageWords>(), clients),
    ]
}

/// The names of the pinned maps that the programs have.
pub(crate) fn program_maps() -> impl Iterator<Item = &'static str> {
    shared_maps(0).into_iter().map(|map| map.name).filter(|name| ![NAMES, USAGE].contains(name))
}

impl PinDirectory {
    /// The directory below this root, which need not be there yet; an error where nothing could be pinned.
    pub fn below(root: &Path) -> Result<Self> {
        let parent = root.parent().unwrap_or(root);
        let probe = if root.exists() { root } else { parent };
        if !probe.exists() {
            bail!(
                "{} does not exist, so there is nowhere to pin the gate; mount the BPF file system \
                 (`mount -t bpf bpf /sys/fs/bpf`), or set `paths.pins` to a directory on one",
                probe.display()
            );
        }
        if !on_bpffs(probe) {
            bail!(
                "{} is not on a BPF file system, so the gate would not outlive portald; \
                 mount one (`mount -t bpf bpf /sys/fs/bpf`) or set `paths.pins` to a directory on one",
                root.display()
            );
        }
        let directory = Self(root.join(LAYOUT));
        // Before anything that is in it is believed.
        private(root).check()?;
        private(&directory.0).check()?;
        for path in entries(root)? {
            if path != directory.0 {
                bail!(
                    "{} was pinned by another version of Portal; run that version's `portald --detach` first \
                     (the network is open until portald runs again)",
                    path.display()
                );
            }
        }
        Ok(directory)
    }

    /// What an earlier portald has left here, compared with what this one needs for this many clients.
    pub fn survey(&self, clients: u32) -> Result<Survey> {
        let entries = entries(&self.0)?;
        let pinned = |prefix: &str| {
            let pins =
                entries.iter().filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix)));
            pins.map(|pin| Attachment::from_pin(pin)).collect::<Result<Vec<_>>>()
        };
        let (attachments, meters) = (pinned(GATE_PIN)?, pinned(METER_PIN)?);
        let unfit = shared_maps(clients).iter().filter_map(|map| self.fault(map).transpose()).collect::<Result<_>>()?;
        Ok(Survey { attachments, meters, unfit })
    }

    /// The loader takes pinned maps without looking: this looks.
    fn fault(&self, expected: &SharedMap) -> Result<Option<UnfitMap>> {
        let pin = self.map(expected.name);
        if !pin.exists() {
            return Ok(None);
        }
        let info = MapInfo::from_pin(&pin).with_context(|| format!("cannot open the pinned map {}", pin.display()))?;
        let kind = info.map_type().with_context(|| format!("cannot tell the type of {}", pin.display()))?;
        let layout = (kind, info.key_size() as usize, info.value_size() as usize);
        let (pinned, wanted) = (info.max_entries(), expected.max_entries);
        let fault = if layout != (expected.kind, expected.key_size, expected.value_size) {
            MapFault::Layout
        } else if pinned != wanted {
            MapFault::Size { pinned, wanted }
        } else {
            return Ok(None);
        };
        Ok(Some(UnfitMap { pin, fault }))
    }

    /// Where a map of this name is pinned.
    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Where the zones' names are pinned.
    pub(crate) fn names(&self) -> PathBuf {
        self.map(NAMES)
    }

    /// Where it is pinned what clients have used.
    pub(crate) fn usage(&self) -> PathBuf {
        self.map(USAGE)
    }

    /// Where the gate's attachment to this interface is pinned.
    pub(crate) fn link(&self, ifindex: u32) -> PathBuf {
        self.0.join(format!("{GATE_PIN}{ifindex}"))
    }

    /// Where the meter's attachment to this interface is pinned.
    pub(crate) fn meter(&self, ifindex: u32) -> PathBuf {
        self.0.join(format!("{METER_PIN}{ifindex}"))
    }
}

impl Pins {
    /// Creates the directory if need be, and locks it.
    pub fn lock(root: &Path) -> Result<Self> {
        // Before anything is created.
        PinDirectory::below(root)?;
        let keeper = Keeper::lock(root, &root.join(LAYOUT))?;
        // Now that nobody else changes anything.
        let directory = PinDirectory::below(root)?;
        Ok(Self { directory, keeper: Mutex::new(keeper) })
    }

    /// Holds all that is pinned now, so that it can be pinned anew.
    pub(crate) fn hold(&self) -> Result<()> {
        self.keeper().hold()
    }

    /// Looks whether all that is held is pinned still, and pins anew what is not; what was done, in words.
    pub(crate) fn look_after(&self) -> Result<Vec<String>> {
        self.keeper().look_after()
    }

    fn keeper(&self) -> MutexGuard<'_, Keeper> {
        // Whatever is half done is looked at again.
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory.
    pub fn directory(&self) -> &PinDirectory {
        &self.directory
    }

    #[expect(clippy::unused_self, reason = "only who holds the lock may")]
    /// Removes what is of no use any more: attachments whose interface is gone, and maps that are unfit unless a gate runs over them.
    pub(crate) fn clear(&self, survey: &Survey) -> Result<()> {
        let live = survey.attachments.iter().any(|a| a.ifindex.is_some());
        if live && let Some(map) = survey.unfit.first() {
            bail!("a gate runs over the pinned map {}, which has another layout or size", map.pin.display());
        }
        let remove = |pin: &Path| fs::remove_file(pin).with_context(|| format!("cannot remove {}", pin.display()));
        for attachment in survey.attachments.iter().chain(&survey.meters).filter(|a| a.ifindex.is_none()) {
            remove(&attachment.pin)?;
            tracing::debug!(pin = %attachment.pin.display(), "removed the attachment to an interface that is gone");
        }
        for map in &survey.unfit {
            remove(&map.pin)?;
            tracing::warn!(map = %map.pin.display(), "made anew, as it had another layout or size and nothing is attached: what was in it is forgotten");
        }
        Ok(())
    }

    /// The maps that are not there yet. To be called before they are made.
    pub(crate) fn fresh_maps(&self) -> FreshMaps {
        // The size does not matter for the names.
        let pins = shared_maps(0).into_iter().map(|map| self.directory.map(map.name));
        FreshMaps(pins.filter(|pin| !pin.exists()).collect())
    }

    /// Removes the pins of an interface's attachments. The kernel takes the programs off.
    pub(crate) fn unlink(&self, ifindex: u32) -> Result<()> {
        // Nothing is pinned anew meanwhile.
        let mut keeper = self.keeper();
        for pin in [self.directory.meter(ifindex), self.directory.link(ifindex)] {
            keeper.let_go(&pin);
            match fs::remove_file(&pin) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(e).with_context(|| format!("cannot remove {}", pin.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes every pin. The kernel detaches the gate and forgets the sessions.
    pub fn remove(self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory.0)? {
            fs::remove_file(entry?.path())?;
        }
        fs::remove_dir(&self.directory.0)
    }
}

impl FreshMaps {
    /// Keeps them: the gate is attached.
    pub(crate) fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for FreshMaps {
    fn drop(&mut self) {
        for pin in &self.0 {
            match fs::remove_file(pin) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(map = %pin.display(), error = %e, "cannot remove a map that was made in vain");
                }
                _ => {}
            }
        }
    }
}

/// Whether this is there, and on a BPF file system.
pub(super) fn on_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|filesystem| u64::try_from(filesystem.f_type).ok() == Some(BPF_FS_MAGIC))
}

/// Looks at a directory for pins.
pub(super) fn private(directory: &Path) -> Private<'_> {
    Private::new(directory, "paths.pins")
}

/// What is in a directory, or nothing where there is none.
pub(super) fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("cannot read {}", directory.display());
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry.with_context(context)?.path())).collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e).with_context(context),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_can_be_pinned_the_error_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let table = [
            ("a missing parent", directory.path().join("missing/portal"), "does not exist"),
            ("an ordinary file system", directory.path().join("portal"), "not on a BPF file system"),
        ];
        for (sentence, root, part) in table {
            let text = format!("{:#}", Pins::lock(&root).err().expect(sentence));
            assert!(text.contains(part) && text.contains("mount -t bpf"), "{sentence}: {text}");
            assert!(!root.exists(), "{sentence}: something was created");
        }
    }
}
