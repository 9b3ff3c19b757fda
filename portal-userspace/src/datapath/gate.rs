//! Loading the gate, filling its maps, and attaching it.
//!
//! The order is what keeps the network closed: the maps are filled before the program is attached, and an attached program is replaced
//! in one step, over the same maps.

use std::{collections::HashSet, net::IpAddr, path::Path};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, XskMap},
    programs::{
        ProgramError, Xdp,
        links::{FdLink, PinnedLink},
        xdp::XdpLink,
    },
};
use aya_log::EbpfLogger;
use network_types::ip::IpProto;
use portal_common::tables::{Address, CookieKeys, GateConfig, Service, ServiceKey, Zone};
use tokio::io::{Interest, unix::AsyncFd};

use super::{counters::CounterReader, explain, object, pins::Pins, secrets::Secrets, sessions::SessionTable};
use crate::net::XdpMode;

const TCP: u8 = IpProto::Tcp as u8;
const UDP: u8 = IpProto::Udp as u8;

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

/// The gate, loaded into the kernel. Attached or not, it stays when this is dropped, if it was pinned.
pub struct Gate {
    ebpf: Ebpf,
    services: HashMap<MapData, ServiceKey, u32>,
    config: Array<MapData, GateConfig>,
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
    /// Loads the program over the pinned maps, which are made if they are not there. A gate that runs over these maps goes on as it was.
    pub fn load(pins: &Pins, clients: u32) -> Result<(Self, GateMaps)> {
        let paths: Vec<_> =
            super::pins::shared_maps(clients).iter().map(|map| (map.name, pins.directory().map(map.name))).collect();
        let mut loader = EbpfLoader::new();
        for (name, path) in &paths {
            loader.map_pin_path(name, path);
        }
        Self::load_with(loader, clients)
    }

    /// Loads the program over maps of its own, which end with it, and fills them: for tests and measurements.
    pub fn load_unpinned(clients: u32, policy: &Policy) -> Result<(Self, GateMaps)> {
        let (mut gate, maps) = Self::load_with(EbpfLoader::new(), clients)?;
        gate.fill(policy)?;
        Ok((gate, maps))
    }

    fn load_with(mut loader: EbpfLoader<'_>, clients: u32) -> Result<(Self, GateMaps)> {
        let mut ebpf = loader
            .map_max_entries("SESSIONS", clients)
            .load(object::GATE)
            .map_err(|e| explain::maps_refused(e, clients))?;
        // The maps are taken apart below: by then the loaded program holds its own references to them.
        program(&mut ebpf)?.load().map_err(explain::program_refused)?;
        let maps = GateMaps {
            sessions: SessionTable::new(take(&mut ebpf, "SESSIONS")?, clients),
            counters: CounterReader::new(take::<PerCpuArray<_, _>>(&mut ebpf, "COUNTERS")?),
            secrets: Secrets::over(take::<Array<_, CookieKeys>>(&mut ebpf, "COOKIE_KEYS")?)?,
            sockets: take(&mut ebpf, "XSKS")?,
        };
        let (services, config) = (take(&mut ebpf, "SERVICES")?, take(&mut ebpf, "CONFIG")?);
        Ok((Self { ebpf, services, config }, maps))
    }

    /// Makes the maps what the policy says. From here on a gate that already runs over them does as the policy says.
    pub fn fill(&mut self, policy: &Policy) -> Result<()> {
        fill_services(&mut self.services, &policy.destinations())?;
        // Last: with it the gate is ready.
        self.config
            .set(0, GateConfig::new(Zone::FIRST, policy.gateway_mac), 0)
            .context("cannot write the gate's configuration")
    }

    /// What the gate itself has to say, carried into the daemon's log for as long as this is polled. It can be taken once.
    pub fn take_log(&mut self) -> Result<impl Future<Output = ()> + Send + use<>> {
        let log = EbpfLogger::init(&mut self.ebpf).context("cannot open the gate's log")?;
        #[expect(deprecated, reason = "its successor is unsafe, and the logger owns the descriptor that it names")]
        let mut log = AsyncFd::try_with_interest(log, Interest::READABLE).context("cannot wait for the gate's log")?;
        Ok(async move {
            while let Ok(mut ready) = log.readable_mut().await {
                ready.get_inner_mut().flush();
                ready.clear_ready();
            }
        })
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
    pub fn attach(&mut self, pins: &Pins, ifindex: u32, interface: &str, mode: XdpMode) -> Result<()> {
        let pin = pins.directory().link(ifindex);
        if pin.exists() && self.take_over(&pin)? {
            return Ok(());
        }
        let flags = match mode {
            XdpMode::Native => aya::programs::XdpMode::Driver,
            XdpMode::Generic => aya::programs::XdpMode::Skb,
        };
        let program = program(&mut self.ebpf)?;
        let link =
            program.attach_to_if_index(ifindex, flags).map_err(|e| explain::attach_refused(&e, interface, mode))?;
        let link = program.take_link(link).context("aya lost the link it has just made")?;
        // aya falls back to netlink where the kernel refuses a link; such an attachment can't be pinned.
        let link = FdLink::try_from(link).map_err(|_| {
            anyhow!("the kernel cannot attach the gate to {interface} by a BPF link; Portal needs Linux 5.9 or later and a matching driver")
        })?;
        link.pin(&pin).with_context(|| format!("cannot pin the gate's link to {}", pin.display()))?;
        Ok(())
    }

    /// Replaces the program behind the pinned link, in one step; whether there was still an interface behind it.
    fn take_over(&mut self, pin: &Path) -> Result<bool> {
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

impl Policy {
    /// Where a stranger may go.
    pub fn destinations(&self) -> std::collections::HashMap<ServiceKey, Service> {
        let resolvers = self.resolvers.iter().flat_map(|&address| {
            [UDP, TCP].map(|protocol| (ServiceKey::new(Address::from(address), protocol, 53), Service::Resolver))
        });
        let listeners = self
            .listeners
            .iter()
            .map(|listener| (ServiceKey::new(Address::from(listener.ip()), TCP, listener.port()), Service::Portal));
        let gateway =
            self.gateway.iter().map(|&address| (ServiceKey::of_gateway(Address::from(address)), Service::Gateway));
        resolvers.chain(listeners).chain(gateway).collect()
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

/// Makes the table of permitted destinations what is wanted, without a moment at which a destination in both is missing.
fn fill_services(
    map: &mut HashMap<MapData, ServiceKey, u32>,
    wanted: &std::collections::HashMap<ServiceKey, Service>,
) -> Result<()> {
    let present: HashSet<ServiceKey> =
        map.keys().collect::<Result<_, _>>().context("cannot read the permitted destinations")?;
    let stale = |map: &mut HashMap<MapData, ServiceKey, u32>| {
        present
            .iter()
            .filter(|key| !wanted.contains_key(key))
            .try_for_each(|key| map.remove(key))
            .context("cannot remove a destination that is no longer permitted")
    };
    // The new before the old goes, where there is room for both.
    let both = present.iter().chain(wanted.keys()).collect::<HashSet<_>>().len();
    let room = both <= super::pins::MAX_SERVICES as usize;
    if !room {
        stale(map)?;
    }
    for (key, service) in wanted {
        map.insert(key, *service as u32, 0).with_context(|| {
            format!("cannot store the permitted destinations; there is room for {}", super::pins::MAX_SERVICES)
        })?;
    }
    if room { stale(map) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn policy(octet: u8, resolvers: u8, listeners: u16) -> Policy {
        Policy {
            gateway_mac: [2, 0, 0, 0, 0, 1],
            gateway: Vec::new(),
            resolvers: (0..resolvers).map(|n| IpAddr::from([192, 0, octet, n])).collect(),
            listeners: (0..listeners).map(|n| SocketAddr::from(([192, 0, octet, 1], 8080 + n))).collect(),
        }
    }

    #[test]
    fn the_permitted_destinations_become_what_the_policy_says() {
        let mut map = HashMap::<MapData, ServiceKey, u32>::create(super::super::pins::MAX_SERVICES, 0).unwrap();
        let table = [
            ("into an empty table", policy(2, 100, 0)),
            ("200 others, which do not fit beside the 200", policy(3, 0, 200)),
            ("some of them", policy(3, 2, 3)),
            ("as many as fit", policy(3, 128, 0)),
            ("none", policy(3, 0, 0)),
        ];
        for (sentence, policy) in table {
            let wanted = policy.destinations();
            fill_services(&mut map, &wanted).expect(sentence);
            let found: std::collections::HashMap<_, _> =
                map.iter().map(Result::unwrap).map(|(key, number)| (key, Service::try_from(number).unwrap())).collect();
            assert_eq!(found, wanted, "{sentence}");
        }
    }
}
