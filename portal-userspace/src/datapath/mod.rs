//! The kernel's side of Portal: loading and attaching its programs, and their maps with their types.

pub mod attachment;
mod attachments;
pub mod connections;
pub mod counters;
mod explain;
pub mod garden;
pub mod gate;
mod index;
pub(crate) mod keep;
pub mod known;
mod link;
mod mapped;
mod meter;
pub mod names;
pub mod object;
pub mod owners;
mod pinned;
pub mod pins;
mod recent;
pub mod secrets;
pub mod sessions;
mod sources;
pub mod usage;
mod xdp;
pub mod zones;

use aya::maps::MapError;

/// What is not there need not be removed.
fn absent(error: MapError) -> Result<(), MapError> {
    match &error {
        MapError::KeyNotFound => Ok(()),
        MapError::SyscallError(e) if e.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        _ => Err(error),
    }
}
