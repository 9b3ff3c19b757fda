//! The XDP program at the clients' end of the wire.
//!
//! A veth takes what its peer sends by `XDP_TX` only while it has an XDP program of its own: `veth_xdp_flush` looks for one
//! (drivers/net/veth.c, Linux 6.18), and polling by GRO is not enough (tried: nothing arrives).

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    programs::{Xdp, XdpMode},
};
use portal_userspace::datapath::object;

/// Attaches a program that passes everything to the interface, in native mode. It is detached when what is returned is dropped.
pub(crate) fn attach(interface: &str) -> Result<Ebpf> {
    let mut objects = Ebpf::load(object::LAB).context("cannot load the lab's XDP program")?;
    let program: &mut Xdp = objects.program_mut("pass").context("the object has no program `pass`")?.try_into()?;
    program.load()?;
    program
        .attach(interface, XdpMode::Driver)
        .with_context(|| format!("cannot attach an XDP program to {interface}"))?;
    Ok(objects)
}
