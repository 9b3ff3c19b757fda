//! The guest networks of a running daemon: which are guarded, and guarding others and no longer at run time.
//!
//! A network is guarded by a row in the gate's tables; its interface has one gate, one meter and one responder for all its networks.

mod observed;
mod policy;
mod port;
mod running;
mod setup;
mod view;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use anyhow::{Context as _, Result};
use portal_common::tables::Zone;
use tracing::{info, warn};

use self::port::{Common, Port};
use super::{garden::WalledGarden, preflight};
use crate::{
    config::{self, Config},
    datapath::{
        connections::Connections,
        gate::Gate,
        known::KnownAnswers,
        names::ZoneNames,
        pins::Pins,
        zones::{ZonePolicy, ZoneTables, rest_of},
    },
    net::{Interface, XdpMode},
    responder::{SharedKeys, SharedSockets, Snapshot},
    session::SessionStore,
};

pub(super) use policy::zone_policy;
pub use running::RunningZone;
pub(super) use setup::{BoundZone, ZoneSetup, check_together, interfaces};
pub use view::ZoneView;

/// Why a network could not be guarded, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum ZoneError {
    /// The configuration names no such network.
    #[error("the configuration has no network `{name}`; it has: {}", known.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// The networks there are.
        known: Vec<String>,
    },
    /// It is guarded already.
    #[error("the network `{0}` is guarded already")]
    Attached(String),
    /// It is not guarded.
    #[error("the network `{0}` is not guarded")]
    Detached(String),
    /// It is the last on its interface, so that the gate would come off.
    #[error("`{name}` is the last network on {interface}: without it the gate comes off, and everything passes there")]
    WouldOpen {
        /// The network.
        name: String,
        /// Its interface.
        interface: String,
    },
    /// Something else was in the way. Nothing was changed.
    #[error("{0:#}")]
    Refused(anyhow::Error),
}

impl ZoneError {
    /// The stable code, for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "no_such_zone",
            Self::Attached(_) => "zone_attached",
            Self::Detached(_) => "zone_detached",
            Self::WouldOpen { .. } => "would_open_network",
            Self::Refused(_) => "zone_refused",
        }
    }

    /// What to do.
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => {
                "add a [[zone]] section of this name to the configuration file, or correct the name"
            }
            Self::Attached(_) => "detach it first, to have what has changed in its configuration",
            Self::Detached(_) => "`portalctl zones list` shows which are guarded",
            Self::WouldOpen { .. } => "say that the network may be open, if that is what you want",
            Self::Refused(_) => "the message names the cause; what is guarded goes on as it was",
        }
    }
}

/// The guest networks of a running daemon.
pub struct ZoneManager {
    /// Read again when a network is attached.
    config_path: PathBuf,
    limits: config::Limits,
    store: Arc<SessionStore>,
    connections: Arc<Connections>,
    common: Common,
    tables: Arc<Mutex<ZoneTables>>,
    garden: Arc<WalledGarden>,
    gate: Arc<Mutex<Gate>>,
    pins: Arc<Pins>,
    program_id: u32,
    running: RwLock<Vec<Arc<RunningZone>>>,
    /// Of which networks clients are captured. Changed before the gate is told, and read while the gate's tables are held.
    captured: Mutex<BTreeSet<Zone>>,
    /// Held over every change.
    ports: tokio::sync::Mutex<Ports>,
}

struct Ports {
    open: Vec<Port>,
    names: ZoneNames,
}

/// When networks are admitted.
enum Start {
    /// With the daemon: whatever else the tables hold is of no network any more.
    Daemon,
    /// At run time, beside others.
    Later {
        /// The configuration's other networks that are not guarded.
        unguarded: Vec<config::ZoneConfig>,
    },
}

/// What a manager works with.
pub(super) struct Parts {
    pub(super) config_path: PathBuf,
    pub(super) limits: config::Limits,
    pub(super) store: Arc<SessionStore>,
    pub(super) connections: Connections,
    pub(super) sockets: SharedSockets,
    pub(super) keys: SharedKeys,
    pub(super) tables: Arc<Mutex<ZoneTables>>,
    pub(super) names: ZoneNames,
    pub(super) garden: Arc<WalledGarden>,
    pub(super) known: KnownAnswers,
    pub(super) gate: Gate,
    pub(super) pins: Arc<Pins>,
}

impl ZoneManager {
    /// Guards nothing yet.
    pub(super) fn new(parts: Parts) -> Result<Self> {
        let Parts {
            config_path,
            limits,
            store,
            connections,
            sockets,
            keys,
            tables,
            names,
            garden,
            known,
            mut gate,
            pins,
        } = parts;
        let memory = limits.responder_memory_kib.get() as usize * 1024;
        let program_id = gate.program_id()?;
        Ok(Self {
            config_path,
            limits,
            store,
            connections: Arc::new(connections),
            common: Common { sockets, keys, known: Arc::new(known), memory },
            tables,
            garden,
            gate: Arc::new(Mutex::new(gate)),
            pins,
            program_id,
            running: RwLock::default(),
            captured: Mutex::default(),
            ports: tokio::sync::Mutex::new(Ports { open: Vec::new(), names }),
        })
    }

    /// The networks that are guarded.
    pub fn running(&self) -> Vec<Arc<RunningZone>> {
        self.running.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The guarded network of this name.
    pub fn zone(&self, name: &str) -> Option<Arc<RunningZone>> {
        self.running().into_iter().find(|zone| zone.name() == name)
    }

    /// The sessions of all networks.
    pub fn sessions(&self) -> &Arc<SessionStore> {
        &self.store
    }

    /// The programs, for BPF_PROG_TEST_RUN. Held for as long as that takes, and no longer.
    pub fn gate(&self) -> &Arc<Mutex<Gate>> {
        &self.gate
    }

    /// The gate's program id.
    pub fn program_id(&self) -> u32 {
        self.program_id
    }

    /// The walled garden.
    pub fn garden(&self) -> &Arc<WalledGarden> {
        &self.garden
    }

    /// Whether frames of a network's clients are captured. It stays so when the network is attached again.
    pub fn set_capturing(&self, zone: Zone, on: bool) -> Result<()> {
        {
            let mut captured = self.captured();
            if on {
                captured.insert(zone)
            } else {
                captured.remove(&zone)
            };
        }
        let mut tables = self.tables();
        let config = tables.config(zone)?;
        if config.is_ready() { tables.configure(zone, config.with_capturing(on)) } else { Ok(()) }
    }

    /// The networks that are guarded, then those of the configuration file that are not. Where the file can't be read it is only the former.
    pub async fn list(&self) -> Vec<ZoneView> {
        let ports = self.ports.lock().await;
        let running = self.running();
        let port = |zone: &RunningZone| ports.open.iter().find(|port| port.interface.index == zone.setup.port.index);
        let mut views: Vec<_> = running.iter().filter_map(|zone| Some(ZoneView::attached(zone, port(zone)?))).collect();
        if let Ok(config) = Config::load(&self.config_path) {
            let others =
                config.zones().into_iter().filter(|zone| running.iter().all(|r| r.name() != zone.guest.name.as_str()));
            views.extend(others.map(|zone| ZoneView::detached(&zone)));
        }
        views
    }

    /// Guards the network of this name, as the configuration file has it now.
    pub async fn attach(&self, name: &str) -> Result<ZoneView, ZoneError> {
        let mut ports = self.ports.lock().await;
        if self.zone(name).is_some() {
            return Err(ZoneError::Attached(name.to_owned()));
        }
        let config = Config::load(&self.config_path).map_err(|e| ZoneError::Refused(e.into()))?;
        let mut zones = config.zones();
        let Some(found) = zones.iter().position(|zone| zone.guest.name.as_str() == name) else {
            let known = zones.iter().map(|zone| zone.guest.name.to_string()).collect();
            return Err(ZoneError::Unknown { name: name.to_owned(), known });
        };
        let bound = self.prepare(&config, zones.swap_remove(found), &ports).await.map_err(ZoneError::Refused)?;
        zones.retain(|zone| self.zone(zone.guest.name.as_str()).is_none());
        self.admit(&mut ports, vec![bound], &Start::Later { unguarded: zones }).map_err(ZoneError::Refused)?;
        let zone = self.zone(name).ok_or_else(|| ZoneError::Detached(name.to_owned()))?;
        info!(zone = name, interface = zone.setup.port.name, "the network is guarded");
        let port = ports.open.iter().find(|port| port.interface.index == zone.setup.port.index);
        Ok(port.map_or_else(|| ZoneView::detached(&zone.setup.written), |port| ZoneView::attached(&zone, port)))
    }

    /// Checks a network beside those that are guarded, and makes its login page listen.
    async fn prepare(&self, config: &Config, zone: config::ZoneConfig, ports: &Ports) -> Result<BoundZone> {
        let setup = ZoneSetup::new(config, zone).await?;
        let running = self.running();
        let mut together: Vec<ZoneSetup> = running.iter().map(|zone| zone.setup.clone()).collect();
        for other in &together {
            if let Some(listener) = setup.shares_listener(other) {
                anyhow::bail!(
                    "the login page of `{}` listens on {listener} already: give `{}` its own `listen` in [zone.portal], or start portald again with both \
                     in its configuration",
                    other.name(),
                    setup.name()
                );
            }
        }
        together.push(setup.clone());
        check_together(&together)?;
        preflight::destinations(&together)?;
        preflight::interface(&setup)?;
        if let Some(port) = ports.open.iter().find(|port| port.interface.index == setup.port.index) {
            anyhow::ensure!(
                port.mode == setup.effective.zone.xdp_mode,
                "the gate runs on {} in {} mode, and `xdp_mode` says otherwise",
                port.interface.name,
                port.mode
            );
        } else {
            let survey = self.pins.directory().survey(self.limits.clients.get())?;
            let others: Vec<&Interface> = ports.open.iter().map(|port| &port.interface).collect();
            preflight::leftovers(&[(&setup.port, setup.effective.zone.xdp_mode)], &others, &survey)?;
        }
        setup.bind(false).await
    }

    /// Guards these networks as the daemon starts.
    pub(super) fn guard(&self, zones: Vec<BoundZone>) -> Result<()> {
        let mut ports = self.ports.try_lock().context("the networks are being changed already")?;
        self.admit(&mut ports, zones, &Start::Daemon)
    }

    fn admit(&self, ports: &mut Ports, zones: Vec<BoundZone>, start: &Start) -> Result<()> {
        let (first, unguarded) = match start {
            Start::Daemon => (true, &[][..]),
            Start::Later { unguarded } => (false, &unguarded[..]),
        };
        let before = self.running();
        let new: Vec<&ZoneSetup> = zones.iter().map(|bound| &bound.setup).collect();
        let wanted: Vec<&str> = before.iter().map(|z| z.name()).chain(new.iter().map(|z| z.name())).collect();
        let numbering = ports.names.number(&wanted)?;
        let numbers = &numbering.zones[before.len()..];

        // First the sockets: a gate that sends them requests comes later.
        let all: Vec<&ZoneSetup> = before.iter().map(|zone| &zone.setup).chain(new.iter().copied()).collect();
        let guarded: Vec<_> = all.iter().copied().zip(numbering.zones.iter().copied()).collect();
        let on = |index: u32| guarded.iter().copied().filter(|(zone, _)| zone.port.index == index).collect::<Vec<_>>();
        let mut opened: Vec<Port> = Vec::new();
        for zone in &new {
            let here = |port: &Port| port.interface.index == zone.port.index;
            if !ports.open.iter().chain(&opened).any(here) {
                let taken: Vec<u32> = ports.open.iter().chain(&opened).map(Port::slot).collect();
                opened.push(Port::open(&on(zone.port.index), &taken, &self.common)?);
            }
        }

        // Then what nobody is to find again.
        let retired = numbering.retired.iter().copied().filter(|zone| first || numbers.contains(zone));
        self.retire(&retired.collect::<Vec<_>>(), &mut ports.names)?;
        let interfaces: BTreeSet<u32> = new.iter().map(|zone| zone.port.index).collect();
        let rest: Vec<_> = interfaces.iter().map(|index| (*index, rest(*index, &guarded, unguarded))).collect();
        let rest_before: Vec<_> = interfaces.iter().map(|index| (*index, self.tables().rest(*index))).collect();
        if first {
            let shadowed = rest.iter().filter(|(_, zone)| zone.is_some()).map(|(index, _)| rest_of(*index));
            let attachments: Vec<_> = all.iter().map(|zone| zone.attachment()).chain(shadowed).collect();
            self.tables().detach_where(|place, _| !attachments.contains(&place));
        }

        // Then the tables, and last the gates.
        self.garden.set_own(own_addresses(&all));
        let done = new.iter().zip(numbers).try_for_each(|(setup, number)| {
            let port = ports.open.iter().chain(&opened).find(|port| port.interface.index == setup.port.index);
            let base = port.context("a network without its interface")?.xsk_base();
            ports.names.set(*number, setup.name())?;
            self.garden.set_zone(*number, &setup.effective)?;
            let policy = zone_policy(setup, *number, base);
            let config = self.garden.told(*number, policy.config);
            let mut tables = self.tables();
            let config = config.with_capturing(self.captured().contains(number));
            tables.fill(&ZonePolicy { config, ..policy })
        });
        let done = done.and_then(|()| if first { self.garden.adopt() } else { Ok(()) });
        let done = done.and_then(|()| self.set_rest(&rest));
        let done = done.and_then(|()| self.attach_gates(&opened));
        if let Err(e) = done {
            if !first {
                // What was guarded before goes on, and nothing else.
                let removed = numbers.iter().try_for_each(|number| {
                    self.tables().remove(*number)?;
                    self.garden.remove_zone(*number)
                });
                for e in [removed, self.set_rest(&rest_before)].into_iter().filter_map(Result::err) {
                    warn!(error = format!("{e:#}"), "a network that could not be guarded stays in the gate's tables");
                }
            }
            return Err(e);
        }
        for port in &ports.open {
            port.answer(&on(port.interface.index));
        }
        ports.open.append(&mut opened);
        let numbers = numbers.to_vec();
        for (bound, number) in zones.into_iter().zip(numbers) {
            let zone = Arc::new(RunningZone::start(bound, number, &self.store, &self.connections, self.limits)?);
            if zone.setup.written.guest.shadow {
                warn!(
                    zone = zone.name(),
                    "shadow mode: the gate decides and counts, and lets everything pass: the network is OPEN"
                );
            }
            self.running.write().unwrap_or_else(PoisonError::into_inner).push(zone);
        }
        Ok(())
    }

    /// To which network, if any, belongs what has none of its own on these interfaces.
    fn set_rest(&self, rest: &[(u32, Option<Zone>)]) -> Result<()> {
        rest.iter().try_for_each(|(index, zone)| self.tables().set_rest(*index, *zone))
    }

    /// Puts the gate on these interfaces, or on none that had none before.
    fn attach_gates(&self, ports: &[Port]) -> Result<()> {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fresh: Vec<&Port> = Vec::new();
        for port in ports {
            let Interface { index, name, .. } = &port.interface;
            let is_fresh = !self.pins.directory().link(*index).exists();
            if let Err(e) = gate.attach(&self.pins, *index, name, port.mode) {
                for port in fresh {
                    if let Err(e) = Gate::detach(&self.pins, port.interface.index, &port.interface.name) {
                        warn!(
                            interface = port.interface.name,
                            error = format!("{e:#}"),
                            "the gate stays on the interface"
                        );
                    }
                }
                return Err(e);
            }
            if is_fresh {
                fresh.push(port);
            }
        }
        self.pins.hold()
    }

    /// Removes everything that belongs to numbers that are to be free, or another network's.
    fn retire(&self, numbers: &[Zone], names: &mut ZoneNames) -> Result<()> {
        for number in numbers {
            self.tables().remove(*number)?;
            self.garden.remove_zone(*number)?;
        }
        let removed = self.store.remove_zones(numbers)?;
        for number in numbers {
            names.clear(*number)?;
            info!(
                number = number.number(),
                sessions = removed,
                "a network is no longer in the configuration: its sessions are forgotten"
            );
        }
        Ok(())
    }

    /// Guards the network of this name no longer. Its sessions stay for when it is attached again; until then its frames are dropped. Where it is the
    /// last on its interface, the gate comes off, and `may_open` must say that this is wanted.
    pub async fn detach(&self, name: &str, may_open: bool) -> Result<(), ZoneError> {
        let mut ports = self.ports.lock().await;
        let zone = self.zone(name).ok_or_else(|| ZoneError::Detached(name.to_owned()))?;
        let port = &zone.setup.port;
        let rest: Vec<_> = self.running().into_iter().filter(|other| other.name() != name).collect();
        let heir = rest.iter().find(|other| other.setup.port.index == port.index).map(|other| other.number);
        let beside: Vec<_> =
            rest.iter().map(|z| (&z.setup, z.number)).filter(|(setup, _)| setup.port.index == port.index).collect();
        if beside.is_empty() {
            if !may_open {
                return Err(ZoneError::WouldOpen { name: name.to_owned(), interface: port.name.clone() });
            }
            Gate::detach(&self.pins, port.index, &port.name).map_err(ZoneError::Refused)?;
        }
        // What has no zone stays open only where it was: a network that was enforced is dropped from now on, whatever is beside it.
        let was_open = self.tables().rest(port.index).is_some();
        self.set_rest(&[(port.index, heir.filter(|_| was_open))]).map_err(ZoneError::Refused)?;
        self.tables().remove(zone.number).map_err(ZoneError::Refused)?;
        self.garden.remove_zone(zone.number).map_err(ZoneError::Refused)?;
        if beside.is_empty() {
            // With it go the sockets, and then what was learned through them.
            ports.open.retain(|open| open.interface.index != port.index);
            self.common.known.change(|| ());
            warn!(zone = name, interface = port.name, "the gate is detached: the network is OPEN");
        } else {
            for open in ports.open.iter().filter(|open| open.interface.index == port.index) {
                open.answer(&beside);
            }
            info!(zone = name, interface = port.name, "the network is no longer guarded: its frames are dropped");
        }
        *self.running.write().unwrap_or_else(PoisonError::into_inner) = rest;
        zone.stop().await;
        Ok(())
    }

    /// What has ended by itself, if anything has.
    pub(super) async fn failed(&self) -> Option<String> {
        let ports = self.ports.lock().await;
        let responder = ports.open.iter().find_map(|port| {
            let queue = port.responder.failed()?;
            Some(format!("the responder of receive queue {queue} of {} failed; the log says why", port.interface.name))
        });
        let page = || {
            self.running()
                .iter()
                .find(|z| z.page_ended())
                .map(|z| format!("the login page of `{}` ended by itself", z.name()))
        };
        let garden =
            || self.garden.has_failed().then(|| "the walled garden's thread has died; the log says why".to_owned());
        responder.or_else(page).or_else(garden)
    }

    /// Ends the login pages; what is being answered is answered. The gate stays.
    pub(super) async fn stop(&self) {
        let zones = self.running();
        futures::future::join_all(zones.iter().map(|zone| zone.stop())).await;
    }

    /// What all responders together have done, and what the gate has answered in their stead.
    pub fn responder_total(&self) -> Snapshot {
        let mut total = Snapshot::default();
        match self.common.known.given() {
            Ok(given) => total.answered.iter_mut().zip(given).for_each(|(sum, n)| *sum += n),
            Err(e) => warn!(error = format!("{e:#}"), "what the gate has answered by itself is missing in the figures"),
        }
        // While networks are being changed, the figures wait.
        if let Ok(ports) = self.ports.try_lock() {
            for port in &ports.open {
                total += port.responder.total();
            }
        }
        total
    }

    /// The interfaces with a gate, and its mode there.
    pub async fn interfaces(&self) -> Vec<(String, XdpMode)> {
        self.ports.lock().await.open.iter().map(|port| (port.interface.name.clone(), port.mode)).collect()
    }

    fn captured(&self) -> MutexGuard<'_, BTreeSet<Zone>> {
        self.captured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tables(&self) -> MutexGuard<'_, ZoneTables> {
        // What it guards is in the kernel.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// To which of these networks belongs what has none of its own on an interface: to the first, where all are in shadow mode, which is to change nothing.
/// What is not guarded now, and would not be in shadow mode, stays closed.
fn rest(index: u32, guarded: &[(&ZoneSetup, Zone)], unguarded: &[config::ZoneConfig]) -> Option<Zone> {
    let here = || guarded.iter().filter(|(zone, _)| zone.port.index == index);
    let (first, number) = here().next()?;
    let beside = unguarded.iter().filter(|zone| zone.guest.interface.as_str() == first.port.name);
    let in_shadow = |guest: &config::Guest| guest.shadow;
    let all = here().all(|(zone, _)| in_shadow(&zone.written.guest)) && beside.map(|zone| &zone.guest).all(in_shadow);
    all.then_some(*number)
}

/// The gateway's addresses, on the guest networks and elsewhere.
fn own_addresses(zones: &[&ZoneSetup]) -> Vec<std::net::IpAddr> {
    let all: BTreeSet<_> = zones.iter().flat_map(|zone| &zone.local).copied().collect();
    all.into_iter().collect()
}

#[cfg(test)]
mod tests;
