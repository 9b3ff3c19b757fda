//! Putting the gate on an interface, by a pinned link.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use aya::programs::{Xdp, links::FdLink, xdp::XdpLink};

use super::{explain, link};
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
    link::pin(link, pin, "gate")
}

/// Replaces the program behind the pinned link, in one step; whether there was still an interface behind it.
fn take_over(program: &mut Xdp, pin: &Path) -> Result<bool> {
    let link = XdpLink::try_from(link::open(pin)?).map_err(|_| anyhow!("{} is not an XDP link", pin.display()))?;
    let Some(id) = link::replaced(program.attach_to_link(link), pin, "gate")? else { return Ok(false) };
    // Dropped here, the file descriptor goes; the pin keeps the link.
    let _link = program.take_link(id).context("aya lost the link it has just updated")?;
    Ok(true)
}
