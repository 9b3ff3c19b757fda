//! Installs Debian packages without starting anything on the machine.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::child::{Interrupts, named};

/// Asked by Debian's maintainer scripts before they start a service: invoke-rc.d(8), deb-systemd-invoke(1).
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs `packages`, and leaves `services`, which they enable, neither running nor starting at the next boot.
pub(crate) fn install(packages: &[&str], services: &[&str], interrupts: &Interrupts) -> Result<()> {
    // Once more on failure: a mirror that changes while it is read is the commonest cause, and passes.
    if fetch(packages, interrupts).is_err() {
        interrupts.check()?;
        fetch(packages, interrupts)?;
    }
    interrupts.check()?;
    let held = ServicesHeld::hold(Path::new(POLICY))?;
    let unpacked = unpack(packages).or_else(|_| unpack(packages));
    let disabled = disable(services);
    drop(held);
    unpacked.and(disabled)
}

/// Refreshes the lists and downloads. May be interrupted at any time.
fn fetch(packages: &[&str], interrupts: &Interrupts) -> Result<()> {
    update(interrupts)?;
    run(interrupts, apt_get().args(["install", "--download-only"]).args(packages))
}

/// Refreshes the package lists.
pub(crate) fn update(interrupts: &Interrupts) -> Result<()> {
    // A source of the machine's own that is broken fails this, and need not hold what we want. What does not come will
    // fail the next call.
    if let Err(error) = run(interrupts, apt_get().arg("update")) {
        interrupts.check()?;
        eprintln!("setup: warning: {error:#}; goes on with the package lists that are there");
    }
    Ok(())
}

/// Downloads packages into `directory`, whether they are installed or not. May be interrupted at any time.
pub(crate) fn download(packages: &[String], directory: &Path, interrupts: &Interrupts) -> Result<()> {
    let mut command = apt_get();
    // As whom it downloads: its own user may not write below the caller's directories.
    command.args(["-o", "APT::Sandbox::User=root", "download"]).args(packages).current_dir(directory);
    run(interrupts, &mut command)
}

/// What apt would install to have `package`: it and what it depends on, as far as the machine lacks it.
///
/// Nothing is installed. What it would have to remove for that does not matter here.
pub(crate) fn would_install(package: &str) -> Result<Vec<String>> {
    let mut command = portal_tools::command("apt-get");
    command.args(["--simulate", "-qq", "--no-install-recommends", "install", package]).env("LC_ALL", "C");
    // `Inst name (version release [architecture])`, and what is to be removed and configured.
    let names: Vec<_> = answer(&mut command)?
        .lines()
        .filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next().map(str::to_owned))
        .collect();
    if names.is_empty() {
        bail!("{} names no package", named(&command));
    }
    Ok(names)
}

/// The package of this name's own series that `package` depends on by exact version.
pub(crate) fn depends_exactly(package: &str) -> Result<String> {
    let mut command = portal_tools::command("apt-cache");
    command.args(["--no-all-versions", "show", package]).env("LC_ALL", "C");
    let shown = answer(&mut command)?;
    exact_dependency(&shown).with_context(|| {
        format!("{package} depends on no package by exact version, so its newest kernel is unknown; apt-cache says:\n{shown}")
    })
}

/// Of `Depends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2), ...`, the first name.
fn exact_dependency(shown: &str) -> Option<String> {
    let depends = shown.lines().find_map(|line| line.strip_prefix("Depends: "))?;
    depends.split(", ").find_map(|one| one.split_once(" (= ")).map(|(name, _)| name.to_owned())
}

/// What a command prints on success.
fn answer(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {}", named(command)))?;
    if !output.status.success() {
        bail!("{} failed: {}\n{}", named(command), output.status, tail(&String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs dpkg. Must not be interrupted, or the next installation has to repair it: so not in the process group that the
/// terminal sends Ctrl-C to.
fn unpack(packages: &[&str]) -> Result<()> {
    let mut command = apt_get();
    command.arg("install").args(packages).process_group(0);
    let output = command.output().with_context(|| format!("cannot start {}", named(&command)))?;
    if output.status.success() {
        return Ok(());
    }
    bail!(
        "{} failed: {}\n{}{}",
        named(&command),
        output.status,
        tail(&String::from_utf8_lossy(&output.stdout)),
        tail(&String::from_utf8_lossy(&output.stderr)),
    )
}

/// The last lines, where the cause is.
fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].iter().flat_map(|line| ["  ", line, "\n"]).collect()
}

fn apt_get() -> Command {
    let mut command = portal_tools::command("apt-get");
    command
        // apt must never remove a package for us: it says what is in the way instead.
        .args(["-qq", "-y", "--no-remove", "--no-install-recommends"])
        .args(["-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=3", "-o", "Dpkg::Use-Pty=0"])
        .args(["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("NEEDRESTART_SUSPEND", "1")
        // Maintainer scripts warn at length about a locale that is not there yet.
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    command
}

fn run(interrupts: &Interrupts, command: &mut Command) -> Result<()> {
    let status = interrupts.run(command.stdout(Stdio::null()))?;
    interrupts.check()?;
    if !status.success() {
        bail!("{} failed: {status}; what apt said is above", named(command));
    }
    Ok(())
}

/// Keeps them from starting at the next boot. Their packages have enabled them, and NetworkManager would take over
/// every interface that nothing else claims.
fn disable(services: &[&str]) -> Result<()> {
    if services.is_empty() || portal_tools::installed("systemctl").is_none() {
        return Ok(());
    }
    let mut command = portal_tools::command("systemctl");
    command.args(["--quiet", "disable"]).args(services).stdin(Stdio::null());
    let output = command.output().with_context(|| format!("cannot start {}", named(&command)))?;
    if !output.status.success() {
        bail!(
            "{} failed, so these would start at the next boot: {}",
            named(&command),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// While this lives, no maintainer script starts a service.
struct ServicesHeld {
    policy: PathBuf,
    original: PathBuf,
}

impl ServicesHeld {
    const TEXT: &str = "#!/bin/sh\n# Put here by Portal's `cargo xtask setup` while it installs packages; removed after.\n\
                        exit 101\n";

    fn hold(policy: &Path) -> Result<Self> {
        let held = Self { policy: policy.to_owned(), original: policy.with_extension("d.before-portal") };
        match fs::read(policy) {
            // Left by a run that was killed: what was there before it is in `original` still.
            Ok(text) if text == Self::TEXT.as_bytes() => {
                fs::remove_file(policy).with_context(|| format!("cannot remove {}", policy.display()))?;
            }
            Ok(_) => fs::rename(policy, &held.original)
                .with_context(|| format!("cannot set {} aside for the installation", policy.display()))?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", policy.display())),
        }
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(policy)
            .and_then(|mut file| file.write_all(Self::TEXT.as_bytes()))
            .with_context(|| {
                format!("cannot write {}, which keeps packages from starting services", policy.display())
            })?;
        Ok(held)
    }
}

impl Drop for ServicesHeld {
    fn drop(&mut self) {
        let restored = if self.original.exists() {
            fs::rename(&self.original, &self.policy)
        } else {
            fs::remove_file(&self.policy)
        };
        if let Err(error) = restored {
            eprintln!(
                "warning: cannot restore {}: {error}. While it says `exit 101`, no package can start a service: \
                 remove it, or move {} back over it.",
                self.policy.display(),
                self.original.display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_machines_own_policy_is_back_afterwards() {
        for (sentence, before, kept_from_a_killed_run, after) in [
            ("there was none", None, None, None),
            ("there was one", Some("own"), None, Some("own")),
            ("a run was killed; there was none", Some(ServicesHeld::TEXT), None, None),
            ("a run was killed; there was one", Some(ServicesHeld::TEXT), Some("own"), Some("own")),
        ] {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let policy = directory.path().join("policy-rc.d");
            if let Some(text) = before {
                fs::write(&policy, text).expect("a file");
            }
            if let Some(text) = kept_from_a_killed_run {
                fs::write(directory.path().join("policy-rc.d.before-portal"), text).expect("a file");
            }
            let held = ServicesHeld::hold(&policy).expect("held");
            // By its shell: a test beside this one may fork while the file is still open for writing, and executing it is then
            // refused (ETXTBSY). That it may be executed is asked of its mode.
            let mode = fs::metadata(&policy).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o111, 0o111, "{sentence}: executable");
            let answer = portal_tools::command("sh").arg(&policy).args(["nginx", "start"]).status().expect("it starts");
            assert_eq!(answer.code(), Some(101), "{sentence}: the answer that forbids");
            drop(held);
            assert_eq!(fs::read_to_string(&policy).ok().as_deref(), after, "{sentence}");
            let left = fs::read_dir(directory.path()).expect("a directory").count();
            assert_eq!(left, usize::from(after.is_some()), "{sentence}: nothing else is left");
        }
    }

    #[test]
    fn a_kernels_package_is_read_from_that_of_its_series() {
        for (sentence, shown, expected) in [
            (
                "as apt-cache shows it",
                "Package: linux-image-cloud-amd64\nDepends: linux-image-6.1.0-9-cloud-amd64 (= 6.1.2-2)\nSize: 1504\n",
                Some("linux-image-6.1.0-9-cloud-amd64"),
            ),
            ("behind another", "Depends: a (>= 2), linux-image-6 (= 6.12.1-1)\n", Some("linux-image-6")),
            ("none by exact version", "Depends: a (>= 2), b\n", None),
            ("none", "Package: a\n", None),
        ] {
            assert_eq!(exact_dependency(shown).as_deref(), expected, "{sentence}");
        }
    }

    #[test]
    fn the_last_lines_are_shown() {
        let text = (1..=30).map(|number| number.to_string()).collect::<Vec<_>>().join("\n");
        assert!(tail(&text).starts_with("  11\n") && tail(&text).ends_with("  30\n"));
        assert_eq!(tail(""), "");
    }
}
