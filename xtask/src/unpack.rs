//! Debian packages below `target/kernels`: downloaded and unpacked, not installed.
//!
//! A kernel that is installed becomes the one that the machine boots next, and the emulator's package cannot be installed beside
//! every other package. Neither needs to be: all that is wanted are the files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::child::{Interrupts, named};
use crate::requirements::{Unpacked, What};
use crate::{apt, environment, machine};

/// Where the package's files are. It exists only when they are all there.
pub(crate) fn directory(one: &Unpacked) -> PathBuf {
    environment::target().join("kernels").join(one.directory)
}

/// Whether there is nothing to do.
pub(crate) fn is_there(one: &Unpacked) -> bool {
    let installed = match one.what {
        What::Program(name) => program(name).is_some(),
        What::Itself | What::Kernel => false,
    };
    installed || directory(one).is_dir()
}

/// The program where a package has installed it, or another on PATH that starts and tells its version.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    portal_tools::installed(name).or_else(|| {
        portal_tools::find(name).filter(|file| machine::answers(portal_tools::command(file).arg("--version")).is_some())
    })
}

/// Downloads and unpacks.
pub(crate) fn unpack(one: &Unpacked, interrupts: &Interrupts) -> Result<()> {
    let directory = directory(one);
    // Beside its place, and moved there when it is complete.
    let partial = beside(&directory, "partial");
    remove(&partial)?;
    let downloads = partial.join("downloads");
    fs::create_dir_all(&downloads).with_context(|| format!("cannot create {}", downloads.display()))?;
    apt::update(interrupts)?;
    let packages = match one.what {
        What::Itself => vec![one.package.to_owned()],
        What::Kernel => vec![apt::depends_exactly(one.package)?],
        What::Program(_) => apt::would_install(one.package)?,
    };
    apt::download(&packages, &downloads, interrupts)?;
    let files = partial.join("files");
    for entry in fs::read_dir(&downloads).with_context(|| format!("cannot read {}", downloads.display()))? {
        let package = entry.with_context(|| format!("cannot read {}", downloads.display()))?.path();
        let mut command = portal_tools::command("dpkg-deb");
        command.arg("--extract").arg(&package).arg(&files);
        let status = interrupts.run(&mut command)?;
        interrupts.check()?;
        if !status.success() {
            bail!("{} failed: {status}; what it said is above", named(&command));
        }
    }
    fs::rename(&files, &directory).with_context(|| format!("cannot move {} to its place", files.display()))?;
    remove(&partial)
}

/// The directory's path with something behind its name, whose number after a dot is no extension.
pub(crate) fn beside(directory: &Path, suffix: &str) -> PathBuf {
    let mut path = directory.as_os_str().to_owned();
    path.push("-");
    path.push(suffix);
    path.into()
}

fn remove(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    Ok(())
}
