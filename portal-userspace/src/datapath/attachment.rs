//! A pinned link: which program it runs, and whether there still is an interface behind it.

use std::{fs, path::Path, path::PathBuf};

use anyhow::{Context as _, Result};
use aya::programs::links::{FdLink, PinnedLink};

/// An attachment of the gate that an earlier portald has pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Where it is pinned.
    pub pin: PathBuf,
    /// The program it runs, as `bpftool prog show id` takes it.
    pub program_id: u32,
    /// The index of the interface in the interface's own network namespace; None where the interface is gone.
    pub ifindex: Option<u32>,
}

impl Attachment {
    /// Reads it from its pin.
    pub(super) fn from_pin(pin: &Path) -> Result<Self> {
        let link =
            PinnedLink::from_pin(pin).with_context(|| format!("cannot open the pinned link {}", pin.display()))?;
        let link = FdLink::from(link);
        let info = link.info().with_context(|| format!("the kernel does not tell about {}", pin.display()))?;
        let ifindex = interface_of(info.id())
            .with_context(|| format!("cannot tell which interface {} is attached to", pin.display()))?;
        Ok(Self { pin: pin.to_owned(), program_id: info.program_id(), ifindex })
    }
}

/// The interface behind the link of this id, which this process has open; None where the interface is gone.
///
/// aya does not tell it; the kernel writes it into the descriptor's fdinfo (`bpf_xdp_link_show_fdinfo`, Linux 5.9).
fn interface_of(link_id: u32) -> Result<Option<u32>> {
    for entry in fs::read_dir("/proc/self/fdinfo").context("cannot read /proc/self/fdinfo")? {
        // A descriptor that another thread has closed meanwhile.
        let Ok(text) = fs::read_to_string(entry.context("cannot read /proc/self/fdinfo")?.path()) else { continue };
        if field(&text, "link_id") == Some(link_id) {
            let ifindex = field(&text, "ifindex").context("it is not an XDP link")?;
            return Ok((ifindex != 0).then_some(ifindex));
        }
    }
    anyhow::bail!("/proc/self/fdinfo does not show it");
}

fn field(fdinfo: &str, name: &str) -> Option<u32> {
    fdinfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "pos:\t0\nlink_type:\txdp\nlink_id:\t12\nprog_id:\t34\nifindex:\t0\n";
        let table =
            [("link_id", Some(12)), ("prog_id", Some(34)), ("ifindex", Some(0)), ("link", None), ("type", None)];
        for (name, expected) in table {
            assert_eq!(field(text, name), expected, "{name}");
        }
    }
}
