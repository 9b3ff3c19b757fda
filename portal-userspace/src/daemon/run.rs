//! The daemon's life: set up everything that can fail, guard the interfaces, serve, and stop.
//!
//! Whatever can be refused is refused before a gate is attached, and the gates are attached last: by then they are configured and their responders
//! listen. When the daemon ends, by whatever cause, the gates stay: strangers stay out and guests stay in.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, RwLock},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tokio::{sync::watch, task::JoinSet};
use tracing::{info, warn};

use super::{
    confine,
    garden::{self, WalledGarden},
    preflight, privilege,
    signals::Signals,
    tasks::{renew_secrets, responder_counters},
    watch as watcher,
    zones::{BoundZone, Parts, ZoneManager, ZoneSetup},
};
use crate::{
    config::Config,
    control::{Access, Control, ControlSocket, api::GateInfo},
    datapath::{
        gate::{Gate, GateSize},
        pins::{PinDirectory, Pins, Survey},
    },
    net::{Interface, XdpMode, serve},
    observe::{
        capture::Captures,
        hub::EventHub,
        kernel::{self, CapturedClients, LostReader},
    },
    responder::SharedKeys,
    session::{self, SessionStore},
};

/// How often it is looked whether a part of the daemon has died.
const HEALTH_CHECK: Duration = Duration::from_secs(5);
/// How many descriptors are of use: the control socket has up to 8,192 connections, and each login page up to 65,536, if `limits.login_connections` says so.
const DESCRIPTORS: u64 = 262_144;
/// How long requests in progress may take at the end.
const DRAIN: Duration = Duration::from_secs(1);

/// Everything that follows from the configuration and the interfaces, checked.
pub(super) struct Setup {
    config: Config,
    config_path: PathBuf,
    zones: Vec<ZoneSetup>,
}

impl Setup {
    pub(super) async fn new(config: Config, config_path: PathBuf) -> Result<Self> {
        let zones = ZoneSetup::all(&config).await?;
        Ok(Self { config, config_path, zones })
    }

    /// The configuration with every default written.
    pub(super) fn filled(&self) -> Config {
        let networks: Vec<_> = self.zones.iter().map(|zone| zone.effective.clone()).collect();
        self.config.filled(&networks)
    }

    /// Refuses what `run` would refuse, without touching anything.
    pub(super) fn check(&self) -> Result<()> {
        let config = &self.config;
        self.check_interfaces()?;
        ControlSocket::group(config.control.group.as_ref())?;
        let lacking = privilege::lacking()?;
        if !lacking.is_empty() {
            warn!(
                "without {} it is not checked what an earlier portald or others have left on the interfaces",
                lacking.join(", ")
            );
            return Ok(());
        }
        session::check_state(config.paths.state.as_path())?;
        let survey = PinDirectory::below(config.paths.pins.as_path())?.survey(config.limits.clients.get())?;
        self.check_leftovers(&survey)
    }

    fn check_interfaces(&self) -> Result<()> {
        self.zones.iter().try_for_each(preflight::interface)?;
        preflight::destinations(&self.zones)
    }

    fn check_leftovers(&self, survey: &Survey) -> Result<()> {
        let mut ports: Vec<(&Interface, XdpMode)> = Vec::new();
        for zone in &self.zones {
            if ports.iter().all(|(port, _)| port.index != zone.port.index) {
                ports.push((&zone.port, zone.effective.zone.xdp_mode));
            }
        }
        preflight::leftovers(&ports, &[], survey)
    }

    /// Guards the networks until the daemon is told to stop.
    pub(super) async fn run(self) -> Result<()> {
        let started = Instant::now();
        let mut signals = Signals::catch()?;
        raise_descriptors();

        // First whatever can be refused. Nothing of it touches a gate that an earlier portald has left.
        self.check_interfaces()?;
        session::check_state(self.config.paths.state.as_path())?;
        let clients = self.config.limits.clients.get();
        let pins = Arc::new(Pins::lock(self.config.paths.pins.as_path())?);
        let survey = pins.directory().survey(clients)?;
        self.check_leftovers(&survey)?;
        let Self { config, config_path, zones } = self;
        // Of networks that come later only as much as this says is let through sooner.
        let unmetered = zones.iter().any(|zone| !zone.written.session.accounting);
        let group = ControlSocket::group(config.control.group.as_ref())?;
        let socket = ControlSocket::bind(config.paths.socket.as_path(), group.as_ref())?;
        let bound = bind(zones).await?;

        // Then what only the kernel can refuse: the programs and the sockets.
        pins.clear(&survey)?;
        let (fresh, pinned) = (pins.fresh_maps(), Arc::clone(&pins));
        let (mut gate, maps) = Gate::load(&pins, GateSize { clients, unmetered })?;
        let log = gate.take_log();
        // From here on nothing needs more than attaching another network at run time does. All other threads are started by this one, later.
        confine::look_after(&pins)?;
        confine::process()?;
        let store = Arc::new(
            SessionStore::over(maps.sessions, maps.owners)?.remembering(maps.usage, config.paths.state.as_path())?,
        );
        let keys: SharedKeys = Arc::new(RwLock::new(maps.secrets.keys()));
        let events = EventHub::default();
        let tables = Arc::new(Mutex::new(maps.zones));
        let observer = garden::told_to(events.clone(), Arc::clone(&store));
        let garden = Arc::new(WalledGarden::start(maps.garden, Arc::clone(&tables), maps.answers, observer)?);
        let manager = Arc::new(ZoneManager::new(Parts {
            config_path,
            limits: config.limits,
            store: Arc::clone(&store),
            connections: maps.connections,
            sockets: Arc::new(Mutex::new(maps.sockets)),
            keys: Arc::clone(&keys),
            tables,
            names: maps.names,
            garden,
            known: maps.known,
            gate,
            pins,
        })?);

        // Last what changes what happens to packets.
        manager.guard(bound)?;
        fresh.keep();
        match log {
            // Beside the tasks: its end is no reason for the daemon's.
            Ok(log) => drop(tokio::spawn(log)),
            Err(e) => warn!(error = format!("{e:#}"), "what the gate has to say will not be in this log"),
        }
        tell_closed(&manager).await;
        info!(socket = %socket.path().display(), "the control socket listens");

        let (stop, stopped) = watch::channel(false);
        let switching = Arc::clone(&manager);
        let captures =
            Captures::new(CapturedClients::new(maps.captured, move |zone, on| switching.set_capturing(zone, on)));
        let lost = Arc::new(LostReader::new(maps.lost));
        let mut tasks = JoinSet::new();
        tasks.spawn(told(kernel::tell_events(maps.events, Arc::clone(&store), events.clone()), stopped.clone()));
        tasks.spawn(told(kernel::tell_sessions(store.events().subscribe(), events.clone()), stopped.clone()));
        tasks.spawn(told(
            kernel::tell_losses(Arc::clone(&lost), events.clone(), Arc::clone(&captures)),
            stopped.clone(),
        ));
        tasks.spawn(told(kernel::deliver_captures(maps.captures, Arc::clone(&captures)), stopped.clone()));
        let counting = Arc::clone(&manager);
        let control = Control {
            gate: gate_info(&manager).await?,
            sessions: Arc::clone(&store),
            counters: Arc::new(maps.counters),
            responder: Arc::new(move || responder_counters(&counting.responder_total())),
            access: Access::new(group),
            started,
            zones: manager.clone(),
            garden: Some(Arc::<WalledGarden>::clone(manager.garden())),
            explainer: Arc::new(manager.explainer(Arc::clone(&keys))),
            events,
            captures,
            lost: Arc::new(move || lost.read()),
        };
        tasks.spawn(control.serve(socket, stopped.clone()));
        tasks.spawn(session::sweep_regularly(store, stopped.clone()));
        tasks.spawn(renew_secrets(maps.secrets, keys, stopped));

        let cause = tokio::select! {
            cause = until_told_to_stop(&mut signals, &mut tasks, &manager) => cause,
            lost = watcher::until_lost(&manager) => Err(lost),
        };
        let _: Result<(), _> = stop.send(true);
        let draining = async {
            manager.stop().await;
            while tasks.join_next().await.is_some() {}
        };
        if tokio::time::timeout(DRAIN, draining).await.is_err() {
            info!("requests in progress were cut off");
        }
        look_after_a_last_time(&pinned);
        if cause.is_ok() {
            info!("portald ends; the gate stays: guests stay in, strangers stay out");
        }
        cause
    }
}

/// Mends what was done to the pins in the last two seconds: it would open the network once the daemon has ended.
fn look_after_a_last_time(pins: &Pins) {
    match pins.look_after() {
        Ok(done) => done.iter().for_each(|what| warn!("{what}")),
        Err(e) => tracing::error!(error = format!("{e:#}"), "the pins are not as they should be"),
    }
}

/// Raises the limit of open descriptors as far as it may be, but no further than is of use: each connection takes one.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(DESCRIPTORS).min(DESCRIPTORS);
    if current.is_some_and(|current| current < wanted)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
    {
        warn!(%error, "cannot raise the limit of open descriptors (`ulimit -n`)");
    }
}

/// Makes every network's login page listen.
async fn bind(zones: Vec<ZoneSetup>) -> Result<Vec<BoundZone>> {
    let shared: Vec<bool> = zones
        .iter()
        .map(|zone| zones.iter().any(|other| other.name() != zone.name() && zone.shares_listener(other).is_some()))
        .collect();
    let mut bound = Vec::new();
    for (zone, shared) in zones.into_iter().zip(shared) {
        if !zone.port.up {
            let interface = &zone.port.name;
            warn!(interface, "the interface is down; bring it up with `ip link set {interface} up`");
        }
        bound.push(zone.bind(shared).await?);
    }
    Ok(bound)
}

/// Says which networks are guarded.
async fn tell_closed(manager: &ZoneManager) {
    for zone in manager.list().await.iter().filter(|zone| zone.attached) {
        info!(
            zone = zone.name,
            interface = zone.interface,
            vlan = zone.vlan,
            mode = zone.xdp_mode,
            queues = zone.queues,
            program = manager.program_id(),
            login = zone.url_v4,
            login_v6 = zone.url_v6,
            "the gate is closed"
        );
    }
}

/// The first network's gate and login page.
async fn gate_info(manager: &ZoneManager) -> Result<GateInfo> {
    let first = manager.running().into_iter().next().context("no network is guarded")?;
    let view =
        manager.list().await.into_iter().find(|zone| zone.name == first.name()).context("no network is guarded")?;
    Ok(GateInfo {
        interface: view.interface,
        interface_index: view.interface_index.unwrap_or_default(),
        xdp_mode: view.xdp_mode,
        queues: view.queues.unwrap_or_default(),
        program_id: manager.program_id(),
        url_v4: view.url_v4.unwrap_or_default(),
        url_v6: view.url_v6.unwrap_or_default(),
        listeners: view.listeners,
    })
}

/// Runs what tells until the daemon stops; that it ends before, the daemon takes as its own end.
async fn told(telling: impl Future<Output = Result<()>>, stopped: watch::Receiver<bool>) {
    let telling = async {
        if let Err(error) = telling.await {
            tracing::error!(error = format!("{error:#}"), "what happens is no longer told");
        }
    };
    serve::until_stopped(stopped, telling).await;
}

/// Waits for a signal; an error if a part of the daemon ended by itself.
async fn until_told_to_stop(signals: &mut Signals, tasks: &mut JoinSet<()>, manager: &ZoneManager) -> Result<()> {
    let mut check = tokio::time::interval(HEALTH_CHECK);
    loop {
        tokio::select! {
            name = signals.next() => {
                info!(signal = name, "told to end");
                return Ok(());
            }
            ended = tasks.join_next() => match ended {
                Some(Err(e)) => return Err(e).context("a part of portald failed"),
                Some(Ok(())) | None => bail!("a part of portald ended by itself"),
            },
            _ = check.tick() => if let Some(what) = manager.failed().await {
                bail!(what);
            },
        }
    }
}
