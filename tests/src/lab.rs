//! The lab itself: its namespaces, wires, addresses and services. `tests/README.md` draws it.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, ensure};
use aya::Ebpf;

use crate::{
    addresses::{
        GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, GUEST_INTERFACE, GUEST_MAC, GUEST_V4, GUEST_V6, NAMED_V4, NAMED_V6,
        OTHER_MAC, OTHER_V4, OTHER_V6, SECOND_GATEWAY_MAC, SECOND_GATEWAY_V4, SECOND_GATEWAY_V6, SECOND_INTERFACE,
        SITE_V4, SITE_V6, THIRD_MAC, THIRD_V4, THIRD_V6, UPLINK_V4, UPLINK_V6, VISITOR_MAC, VISITOR_V4, VISITOR_V6,
    },
    namespace::Namespace,
    process::{Service, sh, succeed},
    removal::{self, Registration},
    services, xdp_pass,
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
    guest_program: Ebpf,
    visitor_program: Option<Ebpf>,
    registration: Registration,
}

/// What a lab may have more of.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The queues of each end of the guests' wire. With one, one CPU at a time takes in what the guests send; flows are
    /// spread over several by their hash, and each queue is served by the CPU that fills it.
    pub queues: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { queues: 1 }
    }
}

impl Lab {
    /// Builds a lab. Needs root.
    pub fn new() -> Result<Self> {
        Self::with(Options::default())
    }

    /// Builds a lab that differs. Needs root.
    pub fn with(options: Options) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        demand_root()?;
        let name = format!("pl{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // Before the hold is given back, so that a failure can remove what there is.
        let (registration, directory) = Registration::of(name.clone())?;
        let hold = removal::hold_off();
        let ([guest, other, gateway, internet], guest_program) = match build(&name, &directory, options) {
            Ok(built) => built,
            Err(e) => {
                drop(hold);
                return Err(e);
            }
        };
        drop(hold);
        let services = vec![services::dnsmasq(&gateway, &directory)?, services::nginx(&internet, &directory)?];
        Ok(Self {
            guest,
            other,
            gateway,
            internet,
            directory,
            services,
            guest_program,
            visitor_program: None,
            registration,
        })
    }

    /// Adds a third guest: a MAC address of its own on the first one's wire.
    pub fn add_third(&self) -> Result<Namespace> {
        let _hold = removal::hold_off();
        let third = self.namespace(removal::THIRD)?;
        macvlan(&self.guest, &third, THIRD_MAC)?;
        set_up(&third, "eth0", THIRD_V4, THIRD_V6)?;
        route(&third, GATEWAY_V4, GATEWAY_V6)?;
        write_resolv_conf(&third, GATEWAY_V4)?;
        Ok(third)
    }

    /// Adds a second guest network: an interface of the gateway, and a guest behind it, whose `eth0` is its wire.
    pub fn add_second_network(&mut self) -> Result<Namespace> {
        let _hold = removal::hold_off();
        let visitor = self.namespace(removal::VISITOR)?;
        wire(&visitor, VISITOR_MAC, &self.gateway, SECOND_INTERFACE, SECOND_GATEWAY_MAC, Options::default())?;
        set_up(&visitor, "eth0", VISITOR_V4, VISITOR_V6)?;
        set_up(&self.gateway, SECOND_INTERFACE, SECOND_GATEWAY_V4, SECOND_GATEWAY_V6)?;
        route(&visitor, SECOND_GATEWAY_V4, SECOND_GATEWAY_V6)?;
        write_resolv_conf(&visitor, SECOND_GATEWAY_V4)?;
        self.visitor_program = Some(visitor.enter(|| xdp_pass::attach("eth0"))?);
        Ok(visitor)
    }

    /// One more namespace of this lab's.
    fn namespace(&self, part: &str) -> Result<Namespace> {
        let namespace = Namespace::create(&format!("{}-{part}", self.registration.name()))?;
        no_address_detection(&namespace)?;
        Ok(namespace)
    }

    /// The lab's own directory; it goes with the lab.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Lays the guests' wire again, after one end of it was deleted.
    pub fn rewire_guests(&mut self) -> Result<()> {
        self.guest_program = wire_guests(&self.guest, &self.other, &self.gateway, Options::default())?;
        Ok(())
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

/// Stops anybody but the machine's real root.
fn demand_root() -> Result<()> {
    const REMEDY: &str = "the lab makes network namespaces and loads BPF programs: run it as root";
    ensure!(rustix::process::geteuid().is_root(), REMEDY);
    // user_namespaces(7): the initial one maps every id to itself.
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let is_real = map.split_whitespace().eq(["0", "0", "4294967295"]);
    ensure!(is_real, "{REMEDY} of the machine, not of a user namespace, as a rootless container has it");
    Ok(())
}

/// Makes all of a lab that does not run: guest, other, gateway and internet, and what keeps the guest's end able to receive from
/// XDP.
fn build(name: &str, directory: &Path, options: Options) -> Result<([Namespace; 4], Ebpf)> {
    let [guest, other, gateway, internet] = removal::PARTS.map(|part| Namespace::create(&format!("{name}-{part}")));
    let (guest, other, gateway, internet) = (guest?, other?, gateway?, internet?);
    let bpf = directory.join("bpf");
    fs::create_dir(&bpf)?;
    succeed(portal_tools::command("mount").args(["-t", "bpf", "bpf"]).arg(&bpf)).context("cannot mount a bpffs")?;
    for namespace in [&guest, &other, &gateway, &internet] {
        no_address_detection(namespace)?;
    }
    gateway.set("net/ipv4/ip_forward", "1")?;
    gateway.set("net/ipv6/conf/all/forwarding", "1")?;
    let guest_program = wire_guests(&guest, &other, &gateway, options)?;
    wire_internet(&gateway, &internet)?;
    for client in [&guest, &other] {
        write_resolv_conf(client, GATEWAY_V4)?;
    }
    Ok(([guest, other, gateway, internet], guest_program))
}

/// Without duplicate address detection an IPv6 address works at once; advertisements would change what is set here.
fn no_address_detection(namespace: &Namespace) -> Result<()> {
    namespace.set("net/ipv6/conf/default/accept_dad", "0")?;
    namespace.set("net/ipv6/conf/default/accept_ra", "0")
}

fn write_resolv_conf(client: &Namespace, server: Ipv4Addr) -> Result<()> {
    let etc = Path::new("/etc/netns").join(client.name());
    // Again if another lab has just removed the empty parent.
    fs::create_dir_all(&etc).or_else(|_| fs::create_dir_all(&etc))?;
    fs::write(etc.join("resolv.conf"), format!("nameserver {server}\n"))?;
    Ok(())
}

/// Lays a wire from a guest's `eth0` to an interface of the gateway's.
fn wire(
    guest: &Namespace,
    guest_mac: &str,
    gateway: &Namespace,
    interface: &str,
    gateway_mac: &str,
    Options { queues }: Options,
) -> Result<()> {
    let (g, w) = (guest.name(), gateway.name());
    let queues = format!("numtxqueues {queues} numrxqueues {queues}");
    sh(&format!(
        "ip link add eth0 netns {g} address {guest_mac} {queues} type veth \
         peer name {interface} netns {w} address {gateway_mac} {queues}"
    ))?;
    for (namespace, interface) in [(guest, "eth0"), (gateway, interface)] {
        // Frames as they are on a real wire: with their checksums, and their VLAN tags inside.
        let off = ["tx", "off", "txvlan", "off", "rxvlan", "off"];
        succeed(namespace.service("ethtool").args(["-K", interface]).args(off))?;
    }
    Ok(())
}

/// Puts one more guest, with a MAC address of its own, on the guest's wire.
fn macvlan(guest: &Namespace, other: &Namespace, mac: &str) -> Result<()> {
    let (g, o) = (guest.name(), other.name());
    sh(&format!("ip -n {g} link add link eth0 name mac0 netns {o} address {mac} type macvlan mode bridge"))?;
    other.ip("link set mac0 name eth0")?;
    Ok(())
}

/// Lays the wire between the guests and the gateway; returns what keeps the guest's end able to receive from XDP.
fn wire_guests(guest: &Namespace, other: &Namespace, gateway: &Namespace, options: Options) -> Result<Ebpf> {
    wire(guest, GUEST_MAC, gateway, GUEST_INTERFACE, GATEWAY_MAC, options)?;
    macvlan(guest, other, OTHER_MAC)?;
    for (namespace, interface, v4, v6) in [
        (guest, "eth0", GUEST_V4, GUEST_V6),
        (other, "eth0", OTHER_V4, OTHER_V6),
        (gateway, GUEST_INTERFACE, GATEWAY_V4, GATEWAY_V6),
    ] {
        set_up(namespace, interface, v4, v6)?;
    }
    for client in [guest, other] {
        route(client, GATEWAY_V4, GATEWAY_V6)?;
    }
    guest.enter(|| xdp_pass::attach("eth0"))
}

/// Lays the wire between the gateway and the internet.
fn wire_internet(gateway: &Namespace, internet: &Namespace) -> Result<()> {
    sh(&format!("ip link add wan0 netns {} type veth peer name eth0 netns {}", gateway.name(), internet.name()))?;
    set_up(gateway, "wan0", UPLINK_V4, UPLINK_V6)?;
    set_up(internet, "eth0", SITE_V4, SITE_V6)?;
    route(internet, UPLINK_V4, UPLINK_V6)?;
    // The sites with addresses of their own. ARP answers for such routes, and neighbour discovery does not.
    internet.ip(&format!("route add local {NAMED_V4}/25 dev lo"))?;
    internet.ip(&format!("route add local {NAMED_V6}/64 dev lo"))?;
    gateway.ip(&format!("route add {NAMED_V6}/64 via {SITE_V6}"))?;
    Ok(())
}

fn set_up(namespace: &Namespace, interface: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<()> {
    namespace.ip(&format!("link set {interface} up"))?;
    namespace.ip(&format!("addr add {v4}/24 dev {interface}"))?;
    namespace.ip(&format!("addr add {v6}/64 dev {interface} nodad"))?;
    Ok(())
}

fn route(namespace: &Namespace, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<()> {
    namespace.ip(&format!("route add default via {v4}"))?;
    namespace.ip(&format!("route add default via {v6}"))?;
    Ok(())
}
