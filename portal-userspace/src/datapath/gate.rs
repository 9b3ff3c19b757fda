//! Loading the gate, filling its maps, and attaching it.
//!
//! The order is what keeps the network closed: the maps are filled before the program is attached, and an attached program is replaced
//! in one step, over the same maps.

use std::{collections::HashSet, net::IpAddr, path::Path};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, XskMap},
    programs::{
        ProgramError, Xdp, XdpMode,
        links::{FdLink, PinnedLink},
        xdp::XdpLink,
    },
};
use network_types::ip::IpProto;
use portal_common::tables::{Address, CookieKeys, GateConfig, Service, ServiceKey, Zone};

use super::{counters::CounterReader, object, pins::Pins, secrets::Secrets, sessions::SessionTable};

const TCP: u8 = IpProto::Tcp as u8;
const UDP: u8 = IpProto::Udp as u8;

/// How the gate is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before the kernel makes a socket buffer.
    Native,
    /// In the kernel's receive path: any interface, less speed.
    Generic,
}

/// What the gate needs to know of the network it guards.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The MAC address that guests send to.
    pub gateway_mac: [u8; 6],
    /// The resolvers that strangers may ask.
    pub resolvers: Vec<IpAddr>,
    /// The gateway's own addresses on the guest network, link-local ones included: where DHCP and neighbour discovery may be sent.
    pub gateway: Vec<IpAddr>,
    /// The portal's own TCP listeners.
    pub listeners: Vec<std::net::SocketAddr>,
}

/// The gate, loaded into the kernel, with its maps filled. Attached or not, it stays when this is dropped, if it was pinned.
pub struct Gate {
    ebpf: Ebpf,
}

/// The maps that the daemon works with.
pub struct GateMaps {
    /// Who is logged in.
    pub sessions: SessionTable,
    /// How often each reason was given.
    pub counters: CounterReader,
    /// The secrets behind the SYN cookies.
    pub secrets: Secrets,
    /// The responder's sockets.
    pub sockets: XskMap<MapData>,
}

impl Gate {
    /// Loads the program over the pinned maps, which are made if they are not there, and fills them. Nothing is attached yet.
    pub fn load(pins: &Pins, clients: u32, policy: &Policy) -> Result<(Self, GateMaps)> {
        pins.check(clients)?;
        let paths: Vec<_> =
            super::pins::shared_maps(clients).iter().map(|map| (map.name, pins.map(map.name))).collect();
        let mut loader = EbpfLoader::new();
        for (name, path) in &paths {
            loader.map_pin_path(name, path);
        }
        Self::load_with(loader, clients, policy)
    }

    /// Loads the program over maps of its own, which end with it: for tests and measurements.
    pub fn load_unpinned(clients: u32, policy: &Policy) -> Result<(Self, GateMaps)> {
        Self::load_with(EbpfLoader::new(), clients, policy)
    }

    fn load_with(mut loader: EbpfLoader<'_>, clients: u32, policy: &Policy) -> Result<(Self, GateMaps)> {
        let mut ebpf = loader
            .map_max_entries("SESSIONS", clients)
            .load(object::GATE)
            .context("the kernel refused the gate's maps; Portal needs Linux 5.15 or later, and the capabilities CAP_BPF and CAP_NET_ADMIN")?;

        // The maps are taken apart below: by then the loaded program holds its own references to them.
        let program = program(&mut ebpf)?;
        program.load().context(
            "the kernel's verifier refused the gate; this kernel is older than the one Portal was built for",
        )?;

        fill_services(&mut ebpf, policy)?;
        let keys: Array<MapData, CookieKeys> = take(&mut ebpf, "COOKIE_KEYS")?;
        let secrets = Secrets::over(keys)?;
        // Last: with it the gate is ready.
        let mut config: Array<MapData, GateConfig> = take(&mut ebpf, "CONFIG")?;
        config
            .set(0, GateConfig::new(Zone::FIRST, policy.gateway_mac), 0)
            .context("cannot write the gate's configuration")?;

        let maps = GateMaps {
            sessions: SessionTable::new(take(&mut ebpf, "SESSIONS")?, clients),
            counters: CounterReader::new(take::<PerCpuArray<_, _>>(&mut ebpf, "COUNTERS")?),
            secrets,
            sockets: take(&mut ebpf, "XSKS")?,
        };
        Ok((Self { ebpf }, maps))
    }

    /// The loaded program, for BPF_PROG_TEST_RUN.
    pub fn program(&mut self) -> Result<&mut Xdp> {
        program(&mut self.ebpf)
    }

    /// The loaded program's id, as `bpftool prog show id` takes it.
    pub fn program_id(&mut self) -> Result<u32> {
        Ok(self.program()?.info().context("the kernel does not tell about the gate")?.id())
    }

    /// Guards the interface: takes over from the program that an earlier portald left there, or attaches and pins.
    pub fn attach(&mut self, pins: &Pins, ifindex: u32, interface: &str, mode: Mode) -> Result<()> {
        let pin = pins.link(ifindex);
        let taken_over = pin.exists() && self.take_over(&pin, interface, mode)?;
        if !taken_over {
            let flags = match mode {
                Mode::Native => XdpMode::Driver,
                Mode::Generic => XdpMode::Skb,
            };
            let program = program(&mut self.ebpf)?;
            let link = program.attach_to_if_index(ifindex, flags).map_err(|e| explain_attach(&e, interface, mode))?;
            let link = program.take_link(link).context("aya lost the link it has just made")?;
            // aya falls back to netlink where the kernel refuses a link; such an attachment can't be pinned.
            let link = FdLink::try_from(link).map_err(|_| {
                anyhow!("the kernel cannot attach the gate to {interface} by a BPF link; Portal needs Linux 5.9 or later and a matching driver")
            })?;
            link.pin(&pin).with_context(|| format!("cannot pin the gate's link to {}", pin.display()))?;
        }
        // A link to an interface that is no longer in the configuration would go on guarding it with nobody to answer.
        for other in pins.links()?.into_iter().filter(|other| *other != pin) {
            std::fs::remove_file(&other).with_context(|| format!("cannot remove {}", other.display()))?;
            tracing::warn!(link = %other.display(), "detached the gate from an interface that is not configured any more");
        }
        Ok(())
    }

    /// Replaces the program behind the pinned link, in one step; whether there was still an interface behind it.
    fn take_over(&mut self, pin: &Path, interface: &str, mode: Mode) -> Result<bool> {
        let attached = crate::net::attached_mode(interface)?;
        if let Some(attached) = attached
            && attached != mode
        {
            bail!(
                "the gate is attached to {interface} in {attached:?} mode, and a running gate cannot change to {mode:?}; set `guest.xdp_mode` back, \
                 or run `portald --detach` first (the network is open until portald runs again)"
            );
        }
        let link =
            PinnedLink::from_pin(pin).with_context(|| format!("cannot open the pinned link {}", pin.display()))?;
        let link =
            XdpLink::try_from(FdLink::from(link)).map_err(|_| anyhow!("{} is not an XDP link", pin.display()))?;
        let program = program(&mut self.ebpf)?;
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
}

fn explain_attach(error: &ProgramError, interface: &str, mode: Mode) -> anyhow::Error {
    let code = match error {
        ProgramError::SyscallError(e) => e.io_error.raw_os_error(),
        _ => None,
    };
    let generic = "set `guest.xdp_mode = \"generic\"`";
    match (code, mode) {
        (Some(libc::EBUSY | libc::EEXIST), _) => anyhow!(
            "another XDP program is attached to {interface}; see it with `ip link show {interface}`, and detach it with `ip link set {interface} xdp off`"
        ),
        (Some(libc::EOPNOTSUPP), Mode::Native) => {
            anyhow!("the driver of {interface} has no native XDP; {generic}")
        }
        (Some(libc::ERANGE | libc::EINVAL), Mode::Native) => anyhow!(
            "the driver of {interface} refuses native XDP with the interface as it is set up, most often because of a large MTU or of offloads; \
             lower the MTU (1500 always works), or {generic}"
        ),
        (Some(libc::EPERM | libc::EACCES), _) => {
            anyhow!(
                "not permitted to attach to {interface}; portald needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW"
            )
        }
        (Some(libc::ENODEV), _) => anyhow!("{interface} is gone; check `guest.interface`"),
        _ => anyhow!("cannot attach the gate to {interface}: {error}"),
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp> {
    let program = ebpf.program_mut("gate").context("the gate's object file has no program `gate`")?;
    program.try_into().context("the program `gate` is not an XDP program")
}

fn take<M>(ebpf: &mut Ebpf, name: &str) -> Result<M>
where
    M: TryFrom<Map, Error = aya::maps::MapError>,
{
    let map = ebpf.take_map(name).with_context(|| format!("the gate's object file has no map {name}"))?;
    M::try_from(map).with_context(|| format!("the map {name} is not what it should be"))
}

/// Makes the table of permitted destinations what the policy says, without a moment at which a destination in both is missing.
fn fill_services(ebpf: &mut Ebpf, policy: &Policy) -> Result<()> {
    let mut map: HashMap<MapData, ServiceKey, u32> = take(ebpf, "SERVICES")?;
    let resolvers = policy.resolvers.iter().flat_map(|&address| {
        [UDP, TCP].map(|protocol| (ServiceKey::new(Address::from(address), protocol, 53), Service::Resolver))
    });
    let listeners = policy
        .listeners
        .iter()
        .map(|listener| (ServiceKey::new(Address::from(listener.ip()), TCP, listener.port()), Service::Portal));
    let gateway =
        policy.gateway.iter().map(|&address| (ServiceKey::of_gateway(Address::from(address)), Service::Gateway));
    let wanted: std::collections::HashMap<ServiceKey, Service> = resolvers.chain(listeners).chain(gateway).collect();
    for (key, service) in &wanted {
        map.insert(key, *service as u32, 0).with_context(|| {
            format!("cannot store the permitted destinations; there is room for {}", super::pins::MAX_SERVICES)
        })?;
    }
    let present: HashSet<ServiceKey> =
        map.keys().collect::<Result<_, _>>().context("cannot read the permitted destinations")?;
    for stale in present.iter().filter(|key| !wanted.contains_key(key)) {
        map.remove(stale).context("cannot remove a destination that is no longer permitted")?;
    }
    Ok(())
}
