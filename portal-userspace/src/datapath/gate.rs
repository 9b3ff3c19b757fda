//! Loading the programs, and attaching them.
//!
//! The order is what keeps the network closed: the maps are filled before the gate is attached, and an attached program is replaced
//! in one step, over the same maps.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, RingBuf, XskMap},
    programs::{SchedClassifier, Xdp},
};
use aya_log::EbpfLogger;
use portal_common::{
    event::Lost,
    tables::{ClientKey, CookieKeys},
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    connections::Connections,
    counters::CounterReader,
    explain,
    garden::GardenTables,
    known::KnownAnswers,
    meter,
    names::ZoneNames,
    object,
    owners::Owners,
    pins::{self, Pins},
    recent,
    secrets::Secrets,
    sessions::SessionTable,
    sources::Sources,
    usage::UsageMap,
    xdp,
    zones::ZoneTables,
};
use crate::net::XdpMode;

/// The programs, loaded into the kernel. Attached or not, they stay when this is dropped, if they were pinned.
pub struct Gate {
    ebpf: Ebpf,
}

/// The maps that the daemon works with.
pub struct GateMaps {
    /// Which zone has which number.
    pub names: ZoneNames,
    /// What clients have used.
    pub usage: UsageMap,
    /// Which zones there are.
    pub zones: ZoneTables,
    /// Who is logged in.
    pub sessions: SessionTable,
    /// Who uses which address.
    pub owners: Owners,
    /// Who has begun which connection to the portal.
    pub connections: Connections,
    /// The walled garden.
    pub garden: GardenTables,
    /// How often each reason was given.
    pub counters: CounterReader,
    /// The secrets behind the SYN cookies.
    pub secrets: Secrets,
    /// The requests that the gate answers by itself.
    pub known: KnownAnswers,
    /// The responder's sockets.
    pub sockets: XskMap<MapData>,
    /// Whose frames are captured.
    pub captured: HashMap<MapData, ClientKey, u32>,
    /// What the gate tells: [`portal_common::event::Event`]s.
    pub events: RingBuf<MapData>,
    /// The frames that are captured: [`portal_common::event::FrameRecord`]s.
    pub captures: RingBuf<MapData>,
    /// The DNS answers that are learned from, likewise.
    pub answers: RingBuf<MapData>,
    /// What found no room in these three.
    pub lost: PerCpuArray<MapData, Lost>,
}

/// For how many clients a gate has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateSize {
    /// How many can be logged in.
    pub clients: u32,
    /// Whether some are not metered: then 8 to 16 bytes for each are spent on letting them through sooner.
    pub unmetered: bool,
}

impl From<u32> for GateSize {
    fn from(clients: u32) -> Self {
        Self { clients, unmetered: false }
    }
}

impl Gate {
    /// Loads the programs over the pinned maps, which are made if they are not there. What runs over these maps goes on as it was.
    pub fn load(pins: &Pins, size: impl Into<GateSize>) -> Result<(Self, GateMaps)> {
        let paths: Vec<_> = pins::program_maps().map(|name| (name, pins.directory().map(name))).collect();
        let size = size.into();
        let (gate, maps) = Self::load_over(&paths, size)?;
        let names = ZoneNames::at(&pins.directory().names())?;
        let usage = UsageMap::at(&pins.directory().usage(), size.clients)?;
        Ok((gate, GateMaps { names, usage, ..maps }))
    }

    /// Loads the programs over maps of their own, which end with them: for tests and measurements.
    pub fn load_unpinned(size: impl Into<GateSize>) -> Result<(Self, GateMaps)> {
        Self::load_over(&[], size.into())
    }

    fn load_over(pinned: &[(&str, std::path::PathBuf)], size: GateSize) -> Result<(Self, GateMaps)> {
        let GateSize { clients, unmetered } = size;
        let recent = recent::rows_for(clients, unmetered);
        let (mask, seal_keys) = (recent - 1, recent::seal_keys()?);
        let mut loader = EbpfLoader::new();
        for (name, path) in pinned {
            loader.map_pin_path(name, path);
        }
        let mut ebpf = loader
            .map_max_entries("INDEX", pins::index_rows(clients))
            .override_global("RECENT_MASK", &mask, true)
            .override_global("RECENT_KEYS", &seal_keys, true)
            .map_max_entries("RECENT", recent)
            .map_max_entries("CLIENTS", clients)
            .map_max_entries("OWNERS", pins::max_owners(clients))
            .load(object::GATE)
            .map_err(|e| explain::maps_refused(e, clients))?;
        // The maps are taken apart below: by then the loaded programs hold their own references to them.
        xdp_program(&mut ebpf, "gate")?.load().map_err(explain::program_refused)?;
        xdp_program(&mut ebpf, "explain")?.load().map_err(explain::program_refused)?;
        for name in ["meter", "explain_out"] {
            classifier(&mut ebpf, name)?.load().map_err(explain::program_refused)?;
        }
        let sessions =
            SessionTable::new(&take(&mut ebpf, "INDEX")?, &take(&mut ebpf, "CLIENTS")?, &take(&mut ebpf, "RECENT")?)?;
        let maps = GateMaps {
            names: ZoneNames::create()?,
            usage: UsageMap::create(clients)?,
            zones: ZoneTables::new(
                &take(&mut ebpf, "ZONES")?,
                take(&mut ebpf, "CONFIG")?,
                take(&mut ebpf, "SERVICES")?,
                Sources::new(take(&mut ebpf, "SOURCES")?),
            )?,
            owners: Owners::new(take(&mut ebpf, "OWNERS")?, sessions.address_hash()),
            sessions,
            connections: Connections::new(take(&mut ebpf, "CONNECTIONS")?),
            garden: GardenTables::new(take(&mut ebpf, "GARDEN")?, take(&mut ebpf, "LEARNED")?),
            counters: CounterReader::new(take::<PerCpuArray<_, _>>(&mut ebpf, "COUNTERS")?),
            secrets: Secrets::over(take::<Array<_, CookieKeys>>(&mut ebpf, "COOKIE_KEYS")?)?,
            known: KnownAnswers::new(&take(&mut ebpf, "KNOWN")?, take::<PerCpuArray<_, _>>(&mut ebpf, "KNOWN_GIVEN")?)?,
            sockets: take(&mut ebpf, "XSKS")?,
            captured: take(&mut ebpf, "CAPTURED")?,
            events: take(&mut ebpf, "EVENTS")?,
            captures: take(&mut ebpf, "CAPTURES")?,
            answers: take(&mut ebpf, "ANSWERS")?,
            lost: take(&mut ebpf, "LOST")?,
        };
        Ok((Self { ebpf }, maps))
    }

    /// What the programs themselves have to say, carried into the daemon's log for as long as this is polled. It can be taken once.
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

    /// The gate, for BPF_PROG_TEST_RUN.
    pub fn program(&mut self) -> Result<&mut Xdp> {
        xdp_program(&mut self.ebpf, "gate")
    }

    /// The program that only says what the gate would do, for BPF_PROG_TEST_RUN.
    pub fn explain(&mut self) -> Result<&mut Xdp> {
        xdp_program(&mut self.ebpf, "explain")
    }

    /// The meter, for BPF_PROG_TEST_RUN.
    pub fn meter(&mut self) -> Result<&mut SchedClassifier> {
        classifier(&mut self.ebpf, "meter")
    }

    /// The program that only says what the meter would do, for BPF_PROG_TEST_RUN.
    pub fn explain_out(&mut self) -> Result<&mut SchedClassifier> {
        classifier(&mut self.ebpf, "explain_out")
    }

    /// The gate's program id, as `bpftool prog show id` takes it.
    pub fn program_id(&mut self) -> Result<u32> {
        Ok(self.program()?.info().context("the kernel does not tell about the gate")?.id())
    }

    /// Guards the interface: takes over from the programs that an earlier portald left there, or attaches and pins.
    pub fn attach(&mut self, pins: &Pins, ifindex: u32, interface: &str, mode: XdpMode) -> Result<()> {
        let (gate, meter) = (pins.directory().link(ifindex), pins.directory().meter(ifindex));
        let metered_before = meter.exists();
        meter::attach(classifier(&mut self.ebpf, "meter")?, &meter, interface)?;
        let attached = xdp::attach(xdp_program(&mut self.ebpf, "gate")?, &gate, ifindex, interface, mode);
        if attached.is_err() && !metered_before {
            // Nothing is left of an attempt in vain.
            let undone = meter::detach_filter(interface).and_then(|()| pins.unlink(ifindex));
            if let Err(e) = undone {
                tracing::warn!(interface, error = format!("{e:#}"), "the meter stays");
            }
        }
        attached
    }

    /// Takes the gate and the meter off the interface: its network is open from then on.
    pub fn detach(pins: &Pins, ifindex: u32, interface: &str) -> Result<()> {
        meter::detach_filter(interface)?;
        pins.unlink(ifindex)
    }
}

/// Takes the meter off an interface where no pin holds it (before Linux 6.6).
pub fn detach_meter(interface: &str) -> Result<()> {
    meter::detach_filter(interface)
}

fn xdp_program<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut Xdp> {
    let program = ebpf.program_mut(name).with_context(|| format!("the object file has no program `{name}`"))?;
    program.try_into().with_context(|| format!("the program `{name}` is not an XDP program"))
}

fn classifier<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut SchedClassifier> {
    let program = ebpf.program_mut(name).with_context(|| format!("the object file has no program `{name}`"))?;
    program.try_into().with_context(|| format!("the program `{name}` is not a classifier"))
}

fn take<M>(ebpf: &mut Ebpf, name: &str) -> Result<M>
where
    M: TryFrom<Map, Error = aya::maps::MapError>,
{
    let map = ebpf.take_map(name).with_context(|| format!("the gate's object file has no map {name}"))?;
    M::try_from(map).with_context(|| format!("the map {name} is not what it should be"))
}
