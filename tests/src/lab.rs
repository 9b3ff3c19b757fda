//! The lab itself: its namespaces, wires, addresses and services. `tests/README.md` draws it.

use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    addresses::{
        GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, GUEST_INTERFACE, GUEST_MAC, GUEST_V4, GUEST_V6, OTHER_MAC, OTHER_V4,
        OTHER_V6, SITE_V4, SITE_V6, UPLINK_V4, UPLINK_V6,
    },
    namespace::Namespace,
    process::{Service, sh, succeed},
    removal, services, xdp_pass,
};

/// The page that the lab's web server has for every name and path.
pub const SITE_PAGE: &str = "<!doctype html><title>The real site</title><p>This page is from the internet.</p>\n";
/// The length of `/big`, in bytes of zero.
pub const BIG_FILE: u64 = 64 << 20;
/// How fast `/drip` comes, in bytes per second.
pub const DRIP_RATE: u64 = 1 << 20;

/// Namespaces for two guests, a gateway and an internet, wired and served. Dropping it removes it.
#[derive(Debug)]
pub struct Lab {
    /// The first guest: `eth0` is its wire to the gateway.
    pub guest: Namespace,
    /// The second guest: a MAC address of its own on the first one's wire.
    pub other: Namespace,
    /// The gateway, whose `guest0` portald guards.
    pub gateway: Namespace,
    /// The internet, with a web server for every name.
    pub internet: Namespace,
    directory: PathBuf,
    services: Vec<Service>,
    // Held for what dropping them does. The registration goes last: it removes what the others need.
    _guest_program: OwnedFd,
    _registration: Registration,
}

#[derive(Debug)]
struct Registration {
    name: String,
}

impl Drop for Registration {
    fn drop(&mut self) {
        removal::unregister(&self.name);
    }
}

impl Lab {
    /// Builds a lab. Needs root.
    pub fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        ensure!(
            rustix::process::geteuid().is_root(),
            "the lab makes network namespaces and loads BPF programs: run it as root"
        );
        removal::remove_abandoned()?;
        let name = format!("pl{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = removal::register(&name)?;
        let registration = Registration { name: name.clone() };
        let [guest, other, gateway, internet] = removal::PARTS.map(|part| Namespace::create(&format!("{name}-{part}")));
        let (guest, other, gateway, internet) = (guest?, other?, gateway?, internet?);
        let bpf = directory.join("bpf");
        fs::create_dir(&bpf)?;
        succeed(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&bpf)).context("cannot mount a bpffs")?;
        let guest_program = wire(&guest, &other, &gateway, &internet)?;
        for client in [&guest, &other] {
            let etc = Path::new("/etc/netns").join(client.name());
            // Again if another lab has just removed the empty parent.
            fs::create_dir_all(&etc).or_else(|_| fs::create_dir_all(&etc))?;
            fs::write(etc.join("resolv.conf"), format!("nameserver {GATEWAY_V4}\n"))?;
        }
        let services = vec![services::dnsmasq(&gateway, &directory)?, services::nginx(&internet, &directory)?];
        Ok(Self {
            guest,
            other,
            gateway,
            internet,
            directory,
            services,
            _guest_program: guest_program,
            _registration: registration,
        })
    }

    /// The lab's own directory; it goes with the lab.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A bpffs of the lab's own, for pins.
    pub fn bpffs(&self) -> PathBuf {
        self.directory.join("bpf")
    }

    /// How a person gets in.
    pub fn how_to_enter(&self) -> String {
        let (guest, other) = (self.guest.name(), self.other.name());
        format!(
            "guest      ip netns exec {guest} bash\n\
             other      ip netns exec {other} bash\n\
             gateway    nsenter --net={gateway} bash      (`ip netns exec` would hide the pins)\n\
             a page     ip netns exec {guest} curl -i http://www.example.com/\n\
             browser    ip netns exec {guest} chromium --no-sandbox --disable-quic --user-data-dir={directory}/browser http://www.example.com/\n\
             files      {directory}\n",
            gateway = self.gateway.path().display(),
            directory = self.directory.display(),
        )
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // All are asked before the first is waited for.
        for service in &mut self.services {
            let _ = service.signal(rustix::process::Signal::TERM);
        }
        self.services.clear();
    }
}

/// Lays the wires and sets the addresses and routes; returns what keeps the guest's end able to receive from XDP.
fn wire(guest: &Namespace, other: &Namespace, gateway: &Namespace, internet: &Namespace) -> Result<OwnedFd> {
    for namespace in [guest, other, gateway, internet] {
        // Without duplicate address detection an IPv6 address works at once.
        namespace.set("net/ipv6/conf/default/accept_dad", "0")?;
        namespace.set("net/ipv6/conf/default/accept_ra", "0")?;
    }
    gateway.set("net/ipv4/ip_forward", "1")?;
    gateway.set("net/ipv6/conf/all/forwarding", "1")?;
    let (g, o, w, i) = (guest.name(), other.name(), gateway.name(), internet.name());
    sh(&format!(
        "ip link add eth0 netns {g} address {GUEST_MAC} type veth peer name {GUEST_INTERFACE} netns {w} address {GATEWAY_MAC}"
    ))?;
    sh(&format!("ip link add wan0 netns {w} type veth peer name eth0 netns {i}"))?;
    for (namespace, interface) in [(guest, "eth0"), (gateway, GUEST_INTERFACE)] {
        // Frames as they are on a real wire: with their checksums, and their VLAN tags inside.
        let off = ["tx", "off", "txvlan", "off", "rxvlan", "off"];
        succeed(namespace.service("ethtool").args(["-K", interface]).args(off))?;
    }
    sh(&format!("ip -n {g} link add link eth0 name mac0 netns {o} address {OTHER_MAC} type macvlan mode bridge"))?;
    other.ip("link set mac0 name eth0")?;

    for (namespace, interface, v4, v6) in [
        (guest, "eth0", GUEST_V4, GUEST_V6),
        (other, "eth0", OTHER_V4, OTHER_V6),
        (gateway, GUEST_INTERFACE, GATEWAY_V4, GATEWAY_V6),
        (gateway, "wan0", UPLINK_V4, UPLINK_V6),
        (internet, "eth0", SITE_V4, SITE_V6),
    ] {
        namespace.ip(&format!("link set {interface} up"))?;
        namespace.ip(&format!("addr add {v4}/24 dev {interface}"))?;
        namespace.ip(&format!("addr add {v6}/64 dev {interface} nodad"))?;
    }
    for (namespace, v4, v6) in
        [(guest, GATEWAY_V4, GATEWAY_V6), (other, GATEWAY_V4, GATEWAY_V6), (internet, UPLINK_V4, UPLINK_V6)]
    {
        namespace.ip(&format!("route add default via {v4}"))?;
        namespace.ip(&format!("route add default via {v6}"))?;
    }
    guest.enter(|| xdp_pass::attach("eth0"))
}
