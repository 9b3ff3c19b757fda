//! Looking after what is pinned while the daemon runs: whoever removes a pin, or unmounts the BPF file system, would open the network with the daemon's next crash.
//!
//! Each pinned map and link is held open as well. So nothing is lost with its pin, and it can be pinned again.

use std::{
    fs::{self, File, Permissions},
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::{MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::{
    fs::{FlockOperation, flock},
    mount::{MountFlags, mount},
};

use super::{pinned, pins};

/// How a BPF file system is mounted: it has nothing to run and no devices. The daemon's seccomp filter lets nothing else be mounted.
pub(crate) const MOUNT_FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// What is pinned, and held.
pub(super) struct Keeper {
    /// The directory of the configuration.
    root: PathBuf,
    /// The directory with the pins.
    directory: PathBuf,
    /// Where the BPF file system is mounted, and the mode of its uppermost directory.
    mounted: (PathBuf, u32),
    /// The kernel lets go of it when the daemon ends, however it ends.
    lock: File,
    held: Vec<Held>,
}

struct Held {
    pin: PathBuf,
    object: OwnedFd,
    /// The device and the inode of its pin.
    identity: (u64, u64),
}

impl Keeper {
    /// Makes the directories, and locks the one with the pins.
    ///
    /// A BPF file system holds no ordinary files, so the directory itself is locked. To lock it one must open it, which only its owner can: it is made with mode
    /// 0700, in one that no other user can change.
    pub(super) fn lock(root: &Path, directory: &Path) -> Result<Self> {
        make(root, directory)?;
        Ok(Self {
            root: root.to_owned(),
            directory: directory.to_owned(),
            mounted: mount_point(root)?,
            lock: locked(root, directory)?,
            held: Vec::new(),
        })
    }

    /// Holds all that is pinned now.
    pub(super) fn hold(&mut self) -> Result<()> {
        for pin in pins::entries(&self.directory)? {
            if self.held.iter().all(|held| held.pin != pin) {
                let object = pinned::open(&pin).with_context(|| format!("cannot open {}", pin.display()))?;
                let identity = identity(&pin)?.with_context(|| format!("{} is gone", pin.display()))?;
                self.held.push(Held { pin, object, identity });
            }
        }
        Ok(())
    }

    /// Holds this no longer: it is to go.
    pub(super) fn let_go(&mut self, pin: &Path) {
        self.held.retain(|held| held.pin != pin);
    }

    /// Looks whether all that is held is pinned still, and pins anew what is not; what was done, in words.
    pub(super) fn look_after(&mut self) -> Result<Vec<String>> {
        let mut done = Vec::new();
        // Before the daemon guards anything there is nothing to look after.
        if self.held.is_empty() {
            return Ok(done);
        }
        let (point, mode) = &self.mounted;
        // Not the directory: it may be gone, and the file system there.
        if !pins::on_bpffs(point) {
            remount(point).with_context(|| {
                format!(
                    "the BPF file system with the pins, at {}, is gone (somebody has unmounted it), and portald cannot mount it again: if portald ends now, the \
                     network is OPEN; mount it (`mount -t bpf bpf {}`), and portald pins the gate anew",
                    point.display(),
                    point.display()
                )
            })?;
            // Closed to others until portald's directory is there.
            let directories = make(&self.root, &self.directory);
            fs::set_permissions(point, Permissions::from_mode(*mode))
                .with_context(|| format!("cannot set the mode of {}", point.display()))?;
            directories?;
            done.push(format!("the BPF file system at {} was unmounted: it is mounted again", point.display()));
        }
        if identity(&self.directory)? != Some(identity_of(&self.lock.metadata().context("cannot look at the lock")?)) {
            make(&self.root, &self.directory)?;
            self.lock = locked(&self.root, &self.directory)?;
        }
        for held in &mut self.held {
            let found = identity(&held.pin)?;
            if found == Some(held.identity) {
                continue;
            }
            let pin = held.pin.display();
            let cause = if found.is_some() { "another was in its place" } else { "somebody has removed it" };
            if found.is_some() {
                fs::remove_file(&held.pin).with_context(|| format!("cannot remove what is in the place of {pin}"))?;
            }
            pinned::pin(held.object.as_fd(), &held.pin).with_context(|| {
                format!("{pin} is gone and cannot be pinned anew: if portald ends now, the network may be OPEN")
            })?;
            held.identity = identity(&held.pin)?.with_context(|| format!("{pin} went as soon as it was pinned"))?;
            done.push(format!("{pin} is pinned anew: {cause}"));
        }
        Ok(done)
    }
}

/// Makes the directories where they are missing, and closes them to others.
fn make(root: &Path, directory: &Path) -> Result<()> {
    pins::private(directory).make(0o700)?;
    let own = rustix::process::geteuid().as_raw();
    for directory in [root, directory] {
        let metadata = fs::metadata(directory).with_context(|| format!("cannot look at {}", directory.display()))?;
        // An earlier version let others read them. Root's own, where portald is not root, is as safe.
        if metadata.uid() == own && metadata.mode() & 0o077 != 0 {
            fs::set_permissions(directory, Permissions::from_mode(0o700))
                .with_context(|| format!("cannot close {} to other users", directory.display()))?;
        }
    }
    Ok(())
}

/// The directory, locked.
fn locked(root: &Path, directory: &Path) -> Result<File> {
    let lock = File::open(directory).with_context(|| format!("cannot open {}", directory.display()))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => bail!(
            "another portald is running with the pins in {}; stop it first, or give this one its own `paths.pins`",
            root.display()
        ),
        Err(e) => return Err(e).with_context(|| format!("cannot lock {}", directory.display())),
    }
    // `portald --detach` removes it, and may have done so since it was opened.
    let same = identity(directory)? == Some(identity_of(&lock.metadata().context("cannot look at the lock")?));
    ensure!(same, "another portald has just removed {}; start this one again", directory.display());
    Ok(lock)
}

/// Where the file system of this directory is mounted, and the mode of its uppermost directory.
fn mount_point(directory: &Path) -> Result<(PathBuf, u32)> {
    // Without symbolic links, or what is above might be elsewhere.
    let path = directory.canonicalize().with_context(|| format!("cannot look at {}", directory.display()))?;
    let look = |path: &Path| fs::metadata(path).with_context(|| format!("cannot look at {}", path.display()));
    let device = look(&path)?.dev();
    let mut point = path.as_path();
    while let Some(above) = point.parent() {
        if look(above)?.dev() != device {
            break;
        }
        point = above;
    }
    Ok((point.to_owned(), look(point)?.mode() & 0o7777))
}

fn remount(point: &Path) -> io::Result<()> {
    mount("bpf", point, "bpf", MOUNT_FLAGS, c"mode=0700").map_err(io::Error::from)
}

/// The device and the inode of what is there, if anything is.
fn identity(path: &Path) -> Result<Option<(u64, u64)>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(identity_of(&metadata))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("cannot look at {}", path.display())),
    }
}

fn identity_of(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}
