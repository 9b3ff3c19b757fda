//! Pinned links, and how one program takes over from another behind them.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya::programs::{
    ProgramError,
    links::{FdLink, PinnedLink},
};

/// The link behind a pin.
pub(super) fn open(pin: &Path) -> Result<FdLink> {
    let link = PinnedLink::from_pin(pin).with_context(|| format!("cannot open the pinned link {}", pin.display()))?;
    Ok(link.into())
}

/// What replacing the program behind a pinned link gave; nothing where its interface went away, and the link with it: then the pin goes too.
pub(super) fn replaced<T>(result: Result<T, ProgramError>, pin: &Path, what: &str) -> Result<Option<T>> {
    match result {
        Ok(replaced) => Ok(Some(replaced)),
        Err(ProgramError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOLINK) => {
            std::fs::remove_file(pin).with_context(|| format!("cannot remove {}", pin.display()))?;
            Ok(None)
        }
        Err(e) => Err(e).with_context(|| format!("the kernel refused to replace the {what}")),
    }
}

/// Pins a link that was just made.
pub(super) fn pin(link: FdLink, pin: &Path, what: &str) -> Result<()> {
    link.pin(pin).with_context(|| format!("cannot pin the {what}'s link to {}", pin.display()))?;
    Ok(())
}
