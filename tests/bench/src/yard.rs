//! A gateway between two wires, for frames that the injector lets arrive there: the kernel's own path.
//!
//! ```text
//! injector ──► guest0 ─► (rules) ─► routing ─► (rules) ─► wan0 ─► sink: counts and drops at tc egress
//! ```

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use portal_lab::{Namespace, bare::Bare, process::sh};

use crate::{
    frames::{GATEWAY_MAC, SITE_V4, SITE_V6},
    inject::Injector,
    kernel,
};

/// The gateway, as it is without rules.
pub struct Yard {
    bare: Bare,
    /// The index of `guest0`, where frames arrive.
    pub ifindex: u32,
    /// The index of `wan0`, by which they leave.
    pub uplink: u32,
}

impl Yard {
    /// Makes the namespaces and the wires, and puts the injector's sink at the end.
    pub fn new(injector: &mut Injector) -> Result<Self> {
        let bare = Bare::new()?;
        let (guest, gateway, internet) = (&bare.guest, &bare.gateway, &bare.internet);
        let mac = GATEWAY_MAC.map(|byte| format!("{byte:02x}")).join(":");
        for (name, peer, address) in [("guest0", guest, format!("address {mac}")), ("wan0", internet, String::new())] {
            sh(&format!(
                "ip link add {name} netns {} {address} type veth peer name eth0 netns {}",
                gateway.name(),
                peer.name()
            ))?;
            peer.ip("link set eth0 up")?;
            // Neither link-local addresses nor what announces them: nothing but the injector's frames moves.
            for (namespace, interface) in [(gateway, name), (peer, "eth0")] {
                namespace.set(&format!("net/ipv6/conf/{interface}/addr_gen_mode"), "1")?;
            }
            gateway.ip(&format!("link set {name} up"))?;
        }
        for (setting, value) in [
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            // A check that Portal does not need, and that a filter would be charged with.
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/guest0/rp_filter", "0"),
        ] {
            gateway.set(setting, value)?;
        }
        for command in [
            "addr add 10.255.255.254/8 dev guest0".to_owned(),
            "addr add 198.51.100.1/24 dev wan0".to_owned(),
            "addr add 2001:db8:1::ffff:fffe/64 dev guest0 nodad".to_owned(),
            "addr add 2001:db8:2::1/64 dev wan0 nodad".to_owned(),
            format!("neigh add {SITE_V4} lladdr 02:00:5e:00:53:80 dev wan0 nud permanent"),
            format!("neigh add {SITE_V6} lladdr 02:00:5e:00:53:80 dev wan0 nud permanent"),
        ] {
            gateway.ip(&command)?;
        }
        let (ifindex, uplink) = (index(gateway, "guest0")?, index(gateway, "wan0")?);
        let yard = Self { bare, ifindex, uplink };
        yard.attach(injector, "sink", "wan0", TcAttachType::Egress)?;
        Ok(yard)
    }

    /// The gateway's namespace.
    pub fn gateway(&self) -> &Namespace {
        &self.bare.gateway
    }

    /// The guests' namespace, whose `eth0` is the other end of `guest0`.
    pub fn guest(&self) -> &Namespace {
        &self.bare.guest
    }

    /// The index of the guests' `eth0`, in their namespace.
    pub fn index_of_guest(&self) -> Result<u32> {
        index(self.guest(), "eth0")
    }

    /// A directory that goes with the yard.
    pub fn directory(&self) -> &Path {
        self.bare.directory()
    }

    /// Attaches one of the injector's classifiers, for as long as the injector lives.
    pub fn attach(&self, injector: &mut Injector, name: &str, interface: &str, at: TcAttachType) -> Result<()> {
        self.gateway().enter(|| {
            let program: &mut SchedClassifier = injector.program(name)?;
            program.attach(interface, at).with_context(|| format!("cannot attach `{name}` to {interface}"))?;
            Ok(())
        })
    }

    /// Lets so many frames arrive; the cost of one, ns.
    pub fn live(&self, injector: &mut Injector, frames: u32) -> Result<f64> {
        self.gateway().enter(|| {
            kernel::on_one_cpu()?;
            injector.live(self.ifindex, frames)
        })
    }

    /// The same, and demands that so many reach the sink.
    pub fn live_to_sink(&self, injector: &mut Injector, frames: u32, arrive: u32) -> Result<f64> {
        let before = injector.counts()?.sunk;
        let cost = self.live(injector, frames)?;
        let arrived = injector.counts()?.sunk - before;
        ensure!(arrived == u64::from(arrive), "{arrived} of {frames} frames reached the sink instead of {arrive}");
        Ok(cost)
    }

    /// How many packets IPv4 has received here (`InReceives`, RFC 4293).
    pub fn received(&self) -> Result<u64> {
        self.gateway().enter(|| {
            // The calling thread's own, where /proc/net is the process's.
            let text = fs::read_to_string("/proc/thread-self/net/snmp")?;
            let mut lines = text.lines().filter(|line| line.starts_with("Ip:"));
            let (names, values) = (lines.next().context("no Ip line")?, lines.next().context("no Ip values")?);
            let at = names.split(' ').position(|name| name == "InReceives").context("no InReceives")?;
            values.split(' ').nth(at).and_then(|value| value.parse().ok()).context("InReceives is no number")
        })
    }
}

fn index(namespace: &Namespace, interface: &str) -> Result<u32> {
    let shown = namespace.ip(&format!("-o link show {interface}"))?;
    shown.split(':').next().and_then(|text| text.trim().parse().ok()).context("no index is shown")
}
