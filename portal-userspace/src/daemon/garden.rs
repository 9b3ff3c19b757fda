//! The walled garden of a running daemon: its rules, the gate's tables, and what is learned from DNS.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use portal_common::tables::{Address, GardenKey, GateConfig, ServiceKey, Zone};

use crate::{
    clock,
    config::Effective,
    control::GardenControl,
    datapath::{garden::GardenTables, zones::ZoneTables},
    garden::{
        held::Held,
        learned::{LearnedKey, LearnedSink},
        packet_socket::PacketSocket,
        ports::Service,
        relay::{Observer, Relay},
        rules::GardenRow,
        table::{Garden, GardenError, Lesson, Policy, PrefixSink, ZoneGarden},
        view::{self, AddRequest, GardenList, RemoveRequest, Removed, RuleView},
        worker::Worker,
    },
    net::Mac,
    observe::{events::EventLine, hub::EventHub},
    session::SessionStore,
};

/// The gate's tables, as the rules write them.
struct Sink(Arc<Mutex<GardenTables>>);

/// The walled garden of all networks.
pub struct WalledGarden {
    rules: Arc<Mutex<Garden<Sink>>>,
    tables: Arc<Mutex<GardenTables>>,
    zones: Arc<Mutex<ZoneTables>>,
    worker: Worker,
}

impl PrefixSink for Sink {
    fn insert_prefix(&mut self, zone: Zone, row: GardenRow) -> Result<()> {
        lock(&self.0).insert_prefix(prefix_key(zone, row), row.prefix_len)
    }

    fn remove_prefix(&mut self, zone: Zone, row: GardenRow) -> Result<()> {
        lock(&self.0).remove_prefix(prefix_key(zone, row), row.prefix_len)
    }
}

impl LearnedSink for Sink {
    fn insert(&mut self, key: LearnedKey, expires_ns: u64) -> Result<()> {
        lock(&self.0).insert_learned(learned_key(key), expires_ns)
    }

    fn remove(&mut self, key: LearnedKey) -> Result<()> {
        lock(&self.0).remove_learned(&learned_key(key))
    }
}

impl WalledGarden {
    /// A garden without networks, that learns from what this ring holds.
    pub(super) fn start(
        tables: GardenTables,
        zones: Arc<Mutex<ZoneTables>>,
        answers: RingBuf<MapData>,
        observer: Observer,
    ) -> Result<Self> {
        let tables = Arc::new(Mutex::new(tables));
        let rules = Arc::new(Mutex::new(Garden::new(Policy::default(), Sink(Arc::clone(&tables)))));
        let relay = Relay::new(Arc::clone(&rules), PacketSocket::open()?).with_observer(observer);
        let worker = Worker::spawn(answers, relay).context("cannot start the walled garden's thread")?;
        Ok(Self { rules, tables, zones, worker })
    }

    /// Sets a network's garden up as its configuration says.
    pub(super) fn set_zone(&self, zone: Zone, network: &Effective) -> Result<(), GardenError> {
        let name = network.zone.guest.name.to_string();
        let settings = ZoneGarden { name, rules: network.zone.garden.clone(), resolvers: network.resolvers.clone() };
        self.rules().set_zone(zone, settings)
    }

    /// Closes a network's garden, and what an earlier daemon left of it.
    pub(super) fn remove_zone(&self, zone: Zone) -> Result<()> {
        self.rules().remove_zone(zone)?;
        lock(&self.tables).clear(zone)
    }

    /// The addresses that are never opened.
    pub(super) fn set_own(&self, own: Vec<IpAddr>) {
        self.rules().set_own(own);
    }

    /// Takes over what an earlier daemon has left, after every network has been set up.
    pub(super) fn adopt(&self) -> Result<()> {
        let mut rules = self.rules();
        let (rows, learned) = {
            let tables = lock(&self.tables);
            (tables.all_prefixes()?, tables.all_learned()?)
        };
        let rows = rows.into_iter().map(|(key, prefix_len)| {
            let service = Service { protocol: key.protocol(), port: key.port() };
            (key.zone(), GardenRow { service, address: key.address().0, prefix_len })
        });
        let learned = learned.into_iter().map(|(key, expires_ns)| {
            let service = Service { protocol: key.protocol(), port: key.port() };
            (LearnedKey { zone: key.zone(), address: key.address().into(), service }, expires_ns)
        });
        rules.adopt(rows, learned, clock::now_ns())?;
        Ok(())
    }

    /// What the gate is told of a network, with its garden.
    pub(super) fn told(&self, zone: Zone, config: GateConfig) -> GateConfig {
        with_garden(&self.rules(), zone, config)
    }

    /// Whether its thread has died.
    pub(super) fn has_failed(&self) -> bool {
        self.worker.has_failed()
    }

    fn tell(&self, rules: &Garden<Sink>, zone: Zone) -> Result<(), GardenError> {
        let mut zones = lock(&self.zones);
        let config = zones.config(zone).map_err(GardenError::Kernel)?;
        zones.configure(zone, with_garden(rules, zone, config)).map_err(GardenError::Kernel)
    }

    fn rules(&self) -> MutexGuard<'_, Garden<Sink>> {
        lock(&self.rules)
    }
}

impl GardenControl for WalledGarden {
    fn list(&self) -> GardenList {
        view::list(&self.rules(), clock::now_ns())
    }

    fn add(&self, request: AddRequest) -> Result<RuleView, GardenError> {
        let mut rules = self.rules();
        let zone = rules.zone_named(request.zone.as_deref())?;
        let view = view::add(&mut rules, request, clock::now_ns())?;
        self.tell(&rules, zone)?;
        Ok(view)
    }

    fn remove(&self, request: &RemoveRequest) -> Result<Removed, GardenError> {
        let mut rules = self.rules();
        let zone = rules.zone_named(request.zone.as_deref())?;
        let removed = view::remove(&mut rules, request)?;
        self.tell(&rules, zone)?;
        Ok(removed)
    }
}

/// Tells what is learned to everybody who watches.
pub(super) fn told_to(hub: EventHub, sessions: Arc<SessionStore>) -> Observer {
    Box::new(move |held: &Held, lesson: &Lesson| {
        if lesson.learned > 0 && !hub.is_unwatched() {
            let client = held.frame().first_chunk().and_then(|mac| Mac::new(*mac).ok());
            hub.tell(EventLine {
                zone: Some(sessions.zone_name(held.zone())),
                client,
                name: Some(lesson.name.as_str().to_owned()),
                count: Some(lesson.learned.into()),
                ..EventLine::now("garden_learned")
            });
        }
    })
}

fn with_garden(rules: &Garden<Sink>, zone: Zone, config: GateConfig) -> GateConfig {
    let any = rules.rules(zone).is_ok_and(|rules| !rules.is_empty());
    config.with_garden(any, rules.has_names(zone))
}

fn prefix_key(zone: Zone, row: GardenRow) -> GardenKey {
    GardenKey::new(zone, row.service.protocol, row.service.port, Address(row.address))
}

fn learned_key(key: LearnedKey) -> ServiceKey {
    ServiceKey::new(key.zone, Address::from(key.address), key.service.protocol, key.service.port)
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    // The kernel's tables are consistent whatever a panicking thread was doing, and the rules change as a whole.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
