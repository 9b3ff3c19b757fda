//! Putting the meter on an interface's way out: by a pinned tcx link, or where the kernel has none (before Linux 6.6) by a filter of clsact.
//!
//! A filter of clsact needs no pin: the kernel keeps it until it is removed or its interface goes. It is found again by its priority and handle.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use aya::{
    programs::{
        LinkOrder, SchedClassifier, TcAttachType,
        links::FdLink,
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle},
    },
    util::KernelVersion,
};

use super::link;

/// The program's name, by which its filter is found to be removed.
const NAME: &str = "meter";
/// What nobody else picks: the kernel hands out priorities from 49152 downwards, and people write small ones.
const PRIORITY: u16 = 0x5054;
const HANDLE: TcHandle = TcHandle::new(0x504f, 0x5254);

/// Whether the kernel has tcx.
fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

/// Takes over from the program that an earlier portald left there, or attaches.
pub(super) fn attach(program: &mut SchedClassifier, pin: &Path, interface: &str) -> Result<()> {
    if !has_tcx() {
        return attach_filter(program, interface);
    }
    if pin.exists() && take_over(program, pin)? {
        return Ok(());
    }
    let link = program
        .attach_with_options(interface, TcAttachType::Egress, TcAttachOptions::TcxOrder(LinkOrder::default()))
        .with_context(|| format!("the kernel refused the meter on the way out of {interface}"))?;
    let link = program.take_link(link).context("aya lost the link it has just made")?;
    let link = FdLink::try_from(link).map_err(|_| anyhow!("the meter's attachment to {interface} is no link"))?;
    link::pin(link, pin, "meter")
}

/// Replaces the program behind the pinned link, in one step; whether there was still an interface behind it.
fn take_over(program: &mut SchedClassifier, pin: &Path) -> Result<bool> {
    let link =
        SchedClassifierLink::try_from(link::open(pin)?).map_err(|_| anyhow!("{} is not a tcx link", pin.display()))?;
    let Some(id) = link::replaced(program.attach_to_link(link), pin, "meter")? else { return Ok(false) };
    // Dropped here, the file descriptor goes; the pin keeps the link.
    let _link = program.take_link(id).context("aya lost the link it has just updated")?;
    Ok(true)
}

fn attach_filter(program: &mut SchedClassifier, interface: &str) -> Result<()> {
    let refused = || {
        format!(
            "the kernel refused the meter on the way out of {interface}; it needs CONFIG_NET_CLS_BPF and CONFIG_NET_SCH_INGRESS"
        )
    };
    // It fails where the queueing discipline is there already, and what comes next where it is not.
    let _: Result<(), tc::TcError> = tc::qdisc_add_clsact(interface);
    // In place of an earlier portald's, if there is one: without a moment without.
    let earlier = SchedClassifierLink::attached(interface, TcAttachType::Egress, PRIORITY, HANDLE, None)
        .with_context(|| format!("there is no interface {interface}"))?;
    let link = match program.attach_to_link(earlier) {
        Ok(link) => link,
        Err(_) => program
            .attach_with_options(
                interface,
                TcAttachType::Egress,
                TcAttachOptions::Netlink(NlOptions { priority: PRIORITY, handle: HANDLE, classid: None }),
            )
            .with_context(refused)?,
    };
    // Dropping it would take the filter off.
    std::mem::forget(program.take_link(link).context("aya lost the filter it has just added")?);
    Ok(())
}

/// Takes the meter off an interface, if it is a filter there; a link goes with its pin.
pub(super) fn detach_filter(interface: &str) -> Result<()> {
    if has_tcx() {
        return Ok(());
    }
    match tc::qdisc_detach_program(interface, TcAttachType::Egress, NAME) {
        Ok(()) => Ok(()),
        Err(tc::TcError::IoError(e)) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e).with_context(|| {
            format!("cannot take the meter off {interface}; `tc filter del dev {interface} egress` does")
        }),
    }
}
