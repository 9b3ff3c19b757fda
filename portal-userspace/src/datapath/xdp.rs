//! Putting the gate on an interface, by a pinned link.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use aya::programs::{
    ProgramError, Xdp,
    links::{FdLink, PinnedLink},
    xdp::XdpLink,
};

use super::explain;
use crate::net::XdpMode;

/// Takes over from the program that an earlier portald left there, or attaches and pins.
pub(super) fn attach(program: &mut Xdp, pin: &Path, ifindex: u32, interface: &str, mode: XdpMode) -> Result<()> {
    if pin.exists() && take_over(program, pin)? {
        return Ok(());
    }
    let flags = match mode {
        XdpMode::Native => aya::programs::XdpMode::Driver,
        XdpMode::Generic => aya::programs::XdpMode::Skb,
    };
    let link = program.attach_to_if_index(ifindex, flags).map_err(|e| explain::attach_refused(&e, interface, mode))?;
    let link = program.take_link(link).context("aya lost the link it has just made")?;
    // aya falls back to netlink where the kernel refuses a link; such an attachment can't be pinned.
    let link = FdLink::try_from(link).map_err(|_| {
        anyhow!("the kernel cannot attach the gate to {interface} by a BPF link; Portal needs Linux 5.9 or later and a matching driver")
    })?;
    link.pin(pin).with_context(|| format!("cannot pin the gate's link to {}", pin.display()))?;
    Ok(())
}

/// Replaces the program behind the pinned link, in one step; whether there was still an interface behind it.
fn take_over(program: &mut Xdp, pin: &Path) -> Result<bool> {
    let link = PinnedLink::from_pin(pin).with_context(|| format!("cannot open the pinned link {}", pin.display()))?;
    let link = XdpLink::try_from(FdLink::from(link)).map_err(|_| anyhow!("{} is not an XDP link", pin.display()))?;
    match program.attach_to_link(link) {
        Ok(id) => {
            // Dropped here, the file descriptor goes; the pin keeps the link.
            let _link = program.take_link(id).context("aya lost the link it has just updated")?;
            Ok(true)
        }
        // ENOLINK: the interface went away, and the link with it.
        Err(ProgramError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOLINK) => {
            std::fs::remove_file(pin).with_context(|| format!("cannot remove {}", pin.display()))?;
            Ok(false)
        }
        Err(e) => Err(e).context("the kernel refused to replace the gate"),
    }
}
