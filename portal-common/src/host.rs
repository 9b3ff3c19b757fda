//! The tables on the host, for tests, fuzzing and whoever wants to know what the gate would do without a kernel.

use core::{
    cell::{OnceCell, RefCell},
    sync::atomic::AtomicU64,
};
use std::{collections::HashMap, vec::Vec};

use crate::{
    Reason,
    budget::Budgets,
    decide::{
        Admission, Binding, Case, Delivery, Passage, Tables, admit, afford, ask, bind, contradiction, depart, follow,
        is_related, stranger,
    },
    event::Event,
    frame::Frame,
    tables::{
        Address, AddressHash, AddressWord, Attachment, ClientKey, ClientState, ConnectionKey, ConnectionNote,
        CookieKeys, GardenKey, GateConfig, OwnedAddress, OwnedWord, Question, Service, ServiceKey, Session, Source,
        Zone,
    },
};

/// A row of the garden: a key, and how many of its bits count.
pub type GardenRow = (u32, GardenKey);

/// The tables, as the kernel's maps hold them.
#[derive(Debug)]
pub struct HostTables {
    /// The interface at which frames arrive.
    pub ifindex: u32,
    /// Which frames belong to which zone.
    pub zones: HashMap<Attachment, Zone>,
    /// Each zone's configuration.
    pub configs: HashMap<Zone, GateConfig>,
    /// How clients' addresses are hashed.
    pub hash: AddressHash,
    /// Who is logged in.
    pub sessions: HashMap<ClientKey, Session>,
    /// What each session has carried, by its slot.
    pub states: Vec<ClientState<AtomicU64>>,
    /// Where strangers may go.
    pub services: HashMap<ServiceKey, Service>,
    /// The walled garden, by prefix.
    pub garden: Vec<GardenRow>,
    /// Which addresses are a zone's own, by prefix.
    pub sources: Vec<(GardenRow, Source)>,
    /// The walled garden, as learned: until when.
    pub learned: HashMap<ServiceKey, u64>,
    /// Who uses which address.
    pub owners: RefCell<HashMap<OwnedAddress, ClientKey>>,
    /// How many addresses can be noted so.
    pub owners_room: usize,
    /// What strangers have asked, and when.
    pub questions: RefCell<HashMap<Question, u64>>,
    /// What strangers have spent.
    pub strangers: HashMap<ClientKey, Budgets<AtomicU64>>,
    /// Who has begun which connection to the portal.
    pub connections: RefCell<HashMap<ConnectionKey, ConnectionNote>>,
    /// The secrets behind the SYN cookies.
    pub keys: CookieKeys,
    /// Now, in nanoseconds of CLOCK_MONOTONIC.
    pub now_ns: u64,
    /// What was told.
    pub events: RefCell<Vec<Event>>,
    /// The stranger that the last decision saw first.
    newcomer: OnceCell<(ClientKey, Budgets<AtomicU64>)>,
}

impl HostTables {
    /// Empty tables with these secrets.
    pub fn new(keys: CookieKeys) -> Self {
        Self {
            ifindex: 0,
            zones: HashMap::new(),
            configs: HashMap::new(),
            hash: AddressHash::new(3 << 32 | 5),
            sessions: HashMap::new(),
            states: Vec::new(),
            services: HashMap::new(),
            garden: Vec::new(),
            sources: Vec::new(),
            learned: HashMap::new(),
            owners: RefCell::default(),
            owners_room: usize::MAX,
            questions: RefCell::default(),
            strangers: HashMap::new(),
            connections: RefCell::default(),
            keys,
            now_ns: 0,
            events: RefCell::default(),
            newcomer: OnceCell::new(),
        }
    }

    /// Takes over what the last decision began. To be called before the next.
    pub fn settle(&mut self) {
        if let Some((client, budgets)) = self.newcomer.take() {
            self.strangers.insert(client, budgets);
        }
    }
}

impl Tables for HostTables {
    const LIVE: bool = true;
    type Word = AtomicU64;

    fn zone(&self, outer: u16, inner: u16) -> Option<Zone> {
        self.zones.get(&Attachment::new(self.ifindex, outer, inner)).copied()
    }

    fn config(&self, zone: Zone) -> Option<&GateConfig> {
        self.configs.get(&zone)
    }

    fn member(&self, client: &ClientKey) -> Option<(&Session, &ClientState<AtomicU64>)> {
        let session = self.sessions.get(client)?;
        Some((session, self.state(session.slot())?))
    }

    fn member_apart(&self, client: &ClientKey) -> Option<(&Session, &ClientState<AtomicU64>)> {
        self.member(client)
    }

    // What only saves time the host does without.
    fn rests(&self, _client: ClientKey, _address: AddressWord, _now_ns: u64) -> bool {
        false
    }

    fn rest(&self, _client: ClientKey, _address: AddressWord, _now_ns: u64) {}

    fn rouse(&self, _client: ClientKey, _address: AddressWord) {}

    fn address_hash(&self) -> AddressHash {
        self.hash
    }

    fn state(&self, slot: u32) -> Option<&ClientState<AtomicU64>> {
        self.states.get(slot as usize)
    }

    fn service(&self, destination: &ServiceKey) -> Option<Service> {
        self.services.get(destination).copied()
    }

    fn garden(&self, destination: &GardenKey) -> bool {
        self.garden.iter().any(|row| holds(row, destination))
    }

    fn is_own_source(&self, client: &ClientKey, address: Address) -> bool {
        let key = GardenKey::of_source(client.zone(), address);
        let found = self.sources.iter().filter(|(row, _)| holds(row, &key));
        found.max_by_key(|((length, _), _)| *length).is_some_and(|(_, source)| *source == Source::Own)
    }

    fn learned_until(&self, destination: &ServiceKey) -> Option<u64> {
        self.learned.get(destination).copied()
    }

    fn owner(&self, address: &OwnedAddress) -> Option<ClientKey> {
        self.owners.borrow().get(address).copied()
    }

    fn owner_of(&self, zone: Zone, address: AddressWord) -> Option<ClientKey> {
        let wanted = OwnedWord::new(zone, address);
        let owners = self.owners.borrow();
        owners.iter().find(|(owned, _)| owned.row(&self.hash) == wanted).map(|(_, owner)| *owner)
    }

    fn own(&self, address: &OwnedAddress, client: ClientKey) -> bool {
        let mut owners = self.owners.borrow_mut();
        let room = owners.len() < self.owners_room || owners.contains_key(address);
        if room {
            owners.insert(*address, client);
        }
        room
    }

    fn disown(&self, address: &OwnedWord, client: ClientKey) {
        self.owners.borrow_mut().retain(|owned, owner| owned.row(&self.hash) != *address || *owner != client);
    }

    fn budgets(&self, stranger: &ClientKey) -> Option<&Budgets<AtomicU64>> {
        let begun = || self.newcomer.get().filter(|(client, _)| client == stranger).map(|(_, row)| row);
        self.strangers.get(stranger).or_else(begun)
    }

    fn open_budgets(&self, stranger: &ClientKey) -> bool {
        assert!(self.newcomer.set((*stranger, Budgets::default())).is_ok(), "the last decision was settled");
        true
    }

    fn connection(&self, key: &ConnectionKey) -> Option<ConnectionNote> {
        self.connections.borrow().get(key).copied()
    }

    fn note(&self, key: &ConnectionKey, note: ConnectionNote, _anew: bool) -> bool {
        self.connections.borrow_mut().insert(*key, note);
        true
    }

    fn cookie_keys(&self) -> Option<&CookieKeys> {
        Some(&self.keys)
    }

    fn tell(&self, event: &Event) {
        self.events.borrow_mut().push(*event);
    }

    fn stranger<F: Frame + ?Sized>(&self, frame: &F, config: &GateConfig, case: &mut Case) {
        stranger(frame, self, config, case);
    }

    fn contradiction<F: Frame + ?Sized>(&self, frame: &F, case: &Case) -> Option<Reason> {
        contradiction(frame, self, case)
    }

    fn is_related<F: Frame + ?Sized>(&self, frame: &F, config: &GateConfig, case: &Case) -> bool {
        is_related(frame, self, config, case)
    }

    fn bind(&self, request: &Binding) -> bool {
        bind(self, request)
    }

    fn admit(&self, request: &Admission) -> Option<Reason> {
        admit(self, request)
    }

    fn afford(&self, delivery: &Delivery) -> Option<Reason> {
        afford(self, delivery)
    }

    fn follow<F: Frame + ?Sized>(&self, frame: &F, config: &GateConfig, case: &mut Case) {
        follow(frame, self, config, case);
    }

    fn asked_at(&self, question: &Question) -> Option<u64> {
        self.questions.borrow().get(question).copied()
    }

    fn note_question(&self, question: &Question, now_ns: u64) {
        self.questions.borrow_mut().insert(*question, now_ns);
    }

    fn ask<F: Frame + ?Sized>(&self, frame: &F, case: &Case) {
        ask(frame, self, case);
    }

    fn depart<F: Frame + ?Sized>(&self, frame: &F, config: &GateConfig, passage: Passage, case: &mut Case) {
        depart(frame, self, config, passage, case);
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }
}

/// Whether the prefix of this row holds the key.
fn holds((length, row): &GardenRow, key: &GardenKey) -> bool {
    let shift = GardenKey::ALL_BITS - length;
    let (row, wanted) = (bits(row), bits(key));
    if shift < 128 {
        row.0 == wanted.0 && row.1 >> shift == wanted.1 >> shift
    } else {
        row.0 >> (shift - 128) == wanted.0 >> (shift - 128)
    }
}

/// The bits of a key in the order in which the kernel compares them: those that are always the same, then the address.
fn bits(key: &GardenKey) -> (u64, u128) {
    let exact = u64::from(key.zone().number()) << 48 | u64::from(key.port()) << 32 | u64::from(key.protocol()) << 24;
    (exact, u128::from_be_bytes(key.address().0))
}
