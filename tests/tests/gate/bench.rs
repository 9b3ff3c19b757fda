//! The gate under test: the loaded programs and the same decision on the host, over the same tables.

use std::{collections::BTreeMap, os::fd::AsRawFd as _, sync::atomic::Ordering};

use aya::{
    maps::{HashMap, Map, MapData, MapInfo},
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use portal_common::{
    Reason,
    budget::Budgets,
    cookie::{self, RESPONSE_MAX},
    decide::{Action, Case, Departure, Outbound, Tables as _, decide, locate, outbound},
    event::RELAYED_MARK,
    frame::MAX_REDIRECTED_LEN,
    host::HostTables,
    meter::Load,
    tables::{
        Bindings, ClientKey, ConnectionKey, ConnectionNote, CookieKeys, GateConfig, MAX_BINDINGS, MAX_ZONES, OwnedWord,
        Strictness, UNZONED_ROW, Zone,
    },
};
use portal_lab::verdicts::{
    frames::Cookies,
    setting::{SLOTS, Setting, plain},
};
use portal_userspace::{
    clock,
    datapath::{
        gate::{Gate, GateMaps, GateSize},
        known::KnownAnswers,
    },
    responder::{SocketOptions, socket::Socket},
};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// The interface that BPF_PROG_TEST_RUN lets frames arrive at.
pub(crate) const LOOPBACK: u32 = 1;

/// Room for what a program may add to a frame.
const ROOM: usize = 256 + RESPONSE_MAX;

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) action: Action,
    pub(crate) reason: Reason,
    /// Where it was counted.
    pub(crate) row: u32,
    /// The frame afterwards.
    pub(crate) frame: Vec<u8>,
}

impl Outcome {
    pub(crate) fn is_shadow(&self) -> bool {
        (MAX_ZONES..UNZONED_ROW).contains(&self.row)
    }
}

/// A frame's way through all three.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// The frame.
    pub(crate) cause: Vec<u8>,
    /// What the program that explains says would be done. It counts nowhere.
    pub(crate) explained: (Action, Reason, Vec<u8>),
    /// What the gate did.
    pub(crate) done: Outcome,
    /// What the decision on the host would have the gate do.
    pub(crate) host: Outcome,
    /// What was decided on the host, which in shadow mode is not done.
    pub(crate) decided: (Action, Reason, Vec<u8>),
}

impl Run {
    /// Whether the three agree.
    pub(crate) fn agreement(&self) -> Result<(), String> {
        if self.done != self.host {
            return Err(format!("the gate did {:?}, by the host it should {:?}", self.done, self.host));
        }
        if self.explained != self.decided {
            return Err(format!("explained is {:?}, decided on the host {:?}", self.explained, self.decided));
        }
        Ok(())
    }
}

/// The loaded programs with their maps, and the host's copy of what is in them.
///
/// It moves its thread into a network namespace of its own, whose loopback has the responder's socket: a test run is received there.
pub(crate) struct Bench {
    gate: Gate,
    pub(crate) maps: GateMaps,
    host: HostTables,
    counted: BTreeMap<(u32, Reason), u64>,
    responder: Option<Socket>,
}

impl Bench {
    pub(crate) fn new(setting: &Setting) -> Self {
        let mut bench = Self::without_responder(setting);
        own_namespace();
        let socket = Socket::open(LOOPBACK, 0, SocketOptions::default()).expect("loopback takes an AF_XDP socket");
        bench.maps.sockets.set(0, socket.as_raw_fd(), 0).expect("the socket goes into the map");
        bench.responder = Some(socket);
        bench
    }

    pub(crate) fn without_responder(setting: &Setting) -> Self {
        let (gate, mut maps) = Gate::load_unpinned(GateSize { clients: SLOTS, unmetered: true })
            .expect("the gate loads; this test needs root");
        setting.fill(&mut maps).expect("there is room");
        let host = setting.host(maps.secrets.keys(), maps.sessions.address_hash());
        Self { gate, maps, host, counted: BTreeMap::new(), responder: None }
    }

    pub(crate) fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    /// The gate's program, and its maps.
    pub(crate) fn parts(&mut self) -> (&Xdp, &GateMaps) {
        (self.gate.program().expect("it is there"), &self.maps)
    }

    pub(crate) fn host(&self) -> &HostTables {
        &self.host
    }

    pub(crate) fn cookies(&self) -> Cookies {
        Cookies { keys: self.host.keys, now_ns: self.host.now_ns }
    }

    /// Changes a zone's configuration, in the kernel and on the host.
    pub(crate) fn configure(&mut self, zone: Zone, config: GateConfig) {
        // As user space fills it: the short way asks these filters.
        let config = if config == GateConfig::UNFILLED {
            config
        } else {
            config.with_services(self.host.services.iter().filter(|(key, _)| key.zone() == zone))
        };
        self.maps.zones.configure(zone, config).expect("the slot is there");
        self.host.configs.insert(zone, config);
    }

    /// Makes sessions that have as many addresses as there can be forget them all, where one more would displace any: by the clock, which the kernel
    /// and the host read one after the other.
    pub(crate) fn forget_learned(&mut self) {
        for (client, session) in &self.host.sessions {
            let slot = session.slot();
            let state = &self.host.states[slot as usize];
            let learns = self.host.configs[&client.zone()].strictness() == Strictness::Learn;
            if !learns || plain(state).bindings.iter().count() < MAX_BINDINGS {
                continue;
            }
            let mut kernel = self.maps.sessions.state(slot);
            for word in kernel.bindings.iter() {
                self.maps.owners.release(client.zone(), word, *client).expect("it is writable");
                self.host.disown(&OwnedWord::new(client.zone(), word), *client);
            }
            kernel.bindings = Bindings::default();
            // What rests by its addresses is looked at again.
            self.maps.sessions.insert(*client, *session).expect("it has its place");
            self.maps.sessions.write_state(slot, &kernel);
            for word in &state.bindings.words {
                word.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Runs a frame that is made for the time of the run through all three.
    pub(crate) fn run(&mut self, make: impl Fn(&Cookies) -> Vec<u8>) -> Run {
        loop {
            self.host.now_ns = clock::now_ns();
            let cause = make(&self.cookies());
            let explained = self.explain(&cause);
            // A cookie's time slot ended in between: they did not see the same clock. Until now nothing has changed.
            if cookie::slot(clock::now_ns()) != cookie::slot(self.host.now_ns) {
                continue;
            }
            let (host, decided) = self.on_host(&cause);
            let done = self.in_kernel(&cause, host.row);
            if cookie::slot(clock::now_ns()) == cookie::slot(self.host.now_ns) {
                return Run { cause, explained, done, host, decided };
            }
        }
    }

    /// What the program that explains says.
    pub(crate) fn explain(&mut self, frame: &[u8]) -> (Action, Reason, Vec<u8>) {
        let (value, out) = run_program(self.gate.explain().expect("it is there"), frame);
        let reason = Reason::try_from(value >> 8).expect("a reason of this version");
        (action(value & 0xff), reason, out)
    }

    /// Runs a frame that is made for the time of the run through the gate and the program that explains. The host has no table of known answers.
    pub(crate) fn run_known(&mut self, make: impl Fn(&Cookies) -> Vec<u8>) -> KnownRun {
        loop {
            let cause = self.make(&make);
            let explained = self.explain(&cause);
            let row = locate(&cause[..], &self.host).map_or_else(|(row, _)| row, |place| place.row());
            let done = self.in_kernel(&cause, row);
            if cookie::slot(clock::now_ns()) == cookie::slot(self.host.now_ns) {
                let done = (done.action, done.reason, done.frame);
                return KnownRun { cause, keys: self.host.keys, done, explained };
            }
        }
    }

    /// A frame that is made for now.
    pub(crate) fn make(&mut self, make: impl Fn(&Cookies) -> Vec<u8>) -> Vec<u8> {
        self.host.now_ns = clock::now_ns();
        make(&self.cookies())
    }

    /// The gate's program, and what it answers by itself.
    pub(crate) fn gate_and_known(&mut self) -> (&Xdp, &KnownAnswers) {
        (self.gate.program().expect("it is there"), &self.maps.known)
    }

    fn in_kernel(&mut self, frame: &[u8], expected_row: u32) -> Outcome {
        let (value, out) = run_program(self.gate.program().expect("it is there"), frame);
        let (row, reason) = self.counted(expected_row);
        Outcome { action: action(value), reason, row, frame: out }
    }

    /// The one counter that grew since the last call, which is expected in this row.
    fn counted(&mut self, expected_row: u32) -> (u32, Reason) {
        let mut grown = self.grown(expected_row);
        if grown.is_empty() {
            grown = (0..=UNZONED_ROW).flat_map(|row| self.grown(row)).collect();
        }
        let [(row, reason, 1)] = grown[..] else { panic!("not one counter grew by one, but {grown:?}") };
        (row, reason)
    }

    /// What has grown in a row since it was last read, and by how much.
    pub(crate) fn grown(&mut self, row: u32) -> Vec<(u32, Reason, u64)> {
        let mut grown = Vec::new();
        for (reason, count) in self.read_row(row) {
            let before = self.counted.insert((row, reason), count).unwrap_or_default();
            if count != before {
                grown.push((row, reason, count - before));
            }
        }
        grown
    }

    fn read_row(&self, row: u32) -> Vec<(Reason, u64)> {
        let counters = &self.maps.counters;
        let zone = |row| Zone::new(u16::try_from(row).expect("there are few zones"));
        let counts = match row {
            UNZONED_ROW => counters.read_unzoned(),
            row if row >= MAX_ZONES => counters.read_zone(zone(row - MAX_ZONES), true),
            row => counters.read_zone(zone(row), false),
        };
        counts.expect("the counters are readable")
    }

    fn on_host(&mut self, sent: &[u8]) -> (Outcome, (Action, Reason, Vec<u8>)) {
        let mut frame = sent.to_vec();
        let mut case = Case::EMPTY;
        let (row, action, reason) = match locate(&frame[..], &self.host) {
            Ok(place) => {
                decide(&frame[..], &self.host, &place, &mut case);
                (place.row(), case.decision.action, case.decision.reason)
            }
            Err((row, reason)) => (row, Action::Drop, reason),
        };
        self.host.settle();
        match action {
            Action::Answer => {
                let len = case.decision.answer.write(&mut frame[..]).expect("a decided answer fits the frame");
                frame.truncate(len.get());
                assert!(frame.len() <= sent.len(), "an answer is larger than its sent");
            }
            Action::Redirect => frame.truncate(MAX_REDIRECTED_LEN),
            Action::Pass | Action::Drop => {}
        }
        let decided = (action, reason, frame.clone());
        let shadow = (MAX_ZONES..UNZONED_ROW).contains(&row);
        let done = if shadow {
            Outcome { action: Action::Pass, reason, row, frame: sent.to_vec() }
        } else if action == Action::Redirect && self.responder.is_none() {
            Outcome { action: Action::Drop, reason: Reason::ResponderAbsent, row, frame }
        } else {
            Outcome { action, reason, row, frame }
        };
        (done, decided)
    }

    /// What the meter does with a frame that departs, and what the decision on the host would have it do. Sets the host's clock.
    pub(crate) fn depart(&mut self, frame: &[u8], relayed: bool, forwarded: bool) -> Departures {
        /// Of `struct __sk_buff` (Linux `include/uapi/linux/bpf.h`).
        const SKB_LEN: usize = 192;
        const MARK_AT: usize = 8;
        const INGRESS_IFINDEX_AT: usize = 36;
        let mut skb = [0; SKB_LEN];
        if relayed {
            skb[MARK_AT..MARK_AT + 4].copy_from_slice(&RELAYED_MARK.to_ne_bytes());
        }
        if forwarded {
            skb[INGRESS_IFINDEX_AT..INGRESS_IFINDEX_AT + 4].copy_from_slice(&LOOPBACK.to_ne_bytes());
        }
        let explained = self.explain_out(frame, &skb);
        self.host.now_ns = clock::now_ns();
        let departure = Departure { vlan: 0, load: Load::frame(frame.len() as u64), relayed, forwarded };
        let mut case = Case::EMPTY;
        let verdict = outbound(frame, &self.host, departure, &mut case);
        self.host.settle();
        let host = match verdict.decision {
            Outbound::Pass(_) | Outbound::Metered => Departed { passed: true, counted: Vec::new() },
            Outbound::Drop(reason) => Departed { passed: verdict.shadow, counted: vec![(verdict.row, reason, 1)] },
            Outbound::Hold => Departed { passed: false, counted: Vec::new() },
        };
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.ctx_in = Some(&skb);
        let result = self.gate.meter().expect("it is there").test_run(options).expect("the kernel runs it");
        let passed = match result.return_value.cast_signed() {
            -1 => true,
            2 => false,
            other => panic!("the meter returned {other}"),
        };
        let counted = (0..=UNZONED_ROW).flat_map(|row| self.grown(row)).collect();
        Departures { decided: verdict.decision, explained, done: Departed { passed, counted }, host }
    }

    /// What the program that explains says of a frame that departs.
    fn explain_out(&mut self, frame: &[u8], skb: &[u8]) -> Outbound {
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.ctx_in = Some(skb);
        let result = self.gate.explain_out().expect("it is there").test_run(options).expect("the kernel runs it");
        let reason = Reason::try_from(result.return_value >> 8).expect("a reason of this version");
        match result.return_value & 0xff {
            0 if reason == Reason::Authorized => Outbound::Metered,
            0 => Outbound::Pass(reason),
            1 => Outbound::Hold,
            2 => Outbound::Drop(reason),
            other => panic!("the program returned {other}"),
        }
    }

    /// Everything that a frame could change in the kernel's tables.
    pub(crate) fn state(&mut self) -> State {
        let counters = (0..=UNZONED_ROW).map(|row| self.read_row(row)).collect();
        let clients: Vec<_> = (0..SLOTS).map(|slot| self.maps.sessions.state(slot)).collect();
        let owners = sorted(self.host.owners.borrow().keys().map(|address| {
            (format!("{address:?}"), format!("{:?}", self.maps.owners.owner(address).expect("it is readable")))
        }));
        let strangers: HashMap<MapData, ClientKey, Budgets<u64>> =
            HashMap::try_from(Map::LruHashMap(self.map("STRANGERS"))).expect("it is a table of budgets");
        let strangers = sorted(strangers.iter().map(|row| format!("{:?}", row.expect("it is readable"))));
        let connections: HashMap<MapData, ConnectionKey, ConnectionNote> =
            HashMap::try_from(Map::LruHashMap(self.map("CONNECTIONS"))).expect("it is a table of connections");
        let connections = sorted(connections.iter().map(|row| format!("{:?}", row.expect("it is readable"))));
        State { connections, counters, clients: format!("{clients:?}"), owners, strangers }
    }

    /// Demands that what the sessions have carried and are bound to is the same in the kernel and on the host.
    pub(crate) fn demand_equal_states(&self) {
        for (slot, state) in self.host.states.iter().enumerate() {
            let (mut kernel, mut host) = (self.maps.sessions.state(slot as u32), plain(state));
            // By the clock, which they read one after the other.
            (kernel.last_seen_ns, host.last_seen_ns) = (0, 0);
            assert_eq!(kernel, host, "the state of slot {slot}: the kernel's and the host's");
        }
        for (address, owner) in self.host.owners.borrow().iter() {
            let kernel = self.maps.owners.owner(address).expect("it is readable");
            assert_eq!(kernel, Some(*owner), "who owns {address:?}: the kernel's and the host's");
        }
    }

    /// One of the gate's maps that user space has no other use for.
    fn map(&mut self, name: &str) -> MapData {
        let info = self.gate.program().expect("it is there").info().expect("the kernel tells");
        let ids = info.map_ids().expect("the kernel tells").expect("Linux 4.15 and later tell");
        let id = ids
            .into_iter()
            .find(|id| MapInfo::from_id(*id).expect("it is there").name_as_str().is_some_and(|found| found == name));
        MapData::from_id(id.expect("the gate has this map")).expect("it can be opened")
    }
}

/// A frame's way through the gate and the program that explains.
pub(crate) struct KnownRun {
    pub(crate) cause: Vec<u8>,
    pub(crate) keys: CookieKeys,
    pub(crate) done: (Action, Reason, Vec<u8>),
    pub(crate) explained: (Action, Reason, Vec<u8>),
}

/// What a program says of a frame, and how it leaves it.
pub(crate) fn run_program(program: &Xdp, frame: &[u8]) -> (u32, Vec<u8>) {
    let mut out = vec![0; frame.len() + ROOM];
    let mut options = TestRunOptions::new();
    options.data_in = Some(frame);
    options.data_out = Some(&mut out);
    let result = program.test_run(options).expect("the kernel runs it");
    out.truncate(result.data_size_out as usize);
    (result.return_value, out)
}

/// What became of a frame that departs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Departed {
    pub(crate) passed: bool,
    pub(crate) counted: Vec<(u32, Reason, u64)>,
}

/// A departing frame's way through all three.
#[derive(Clone, Debug)]
pub(crate) struct Departures {
    /// What was decided on the host.
    pub(crate) decided: Outbound,
    explained: Outbound,
    done: Departed,
    host: Departed,
}

impl Departures {
    /// Whether the three agree.
    pub(crate) fn agreement(&self) -> Result<(), String> {
        if self.done != self.host {
            return Err(format!("the meter did {:?}, by the host it should {:?}", self.done, self.host));
        }
        if self.explained != self.decided {
            return Err(format!("explained is {:?}, decided on the host {:?}", self.explained, self.decided));
        }
        Ok(())
    }
}

/// What a frame could change in the kernel's tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    counters: Vec<Vec<(Reason, u64)>>,
    clients: String,
    owners: Vec<(String, String)>,
    strangers: Vec<String>,
    connections: Vec<String>,
}

fn sorted<T: Ord>(rows: impl Iterator<Item = T>) -> Vec<T> {
    let mut rows: Vec<T> = rows.collect();
    rows.sort();
    rows
}

/// An action by XDP's number (`enum xdp_action`).
pub(crate) fn action(number: u32) -> Action {
    match number {
        1 => Action::Drop,
        2 => Action::Pass,
        3 => Action::Answer,
        4 => Action::Redirect,
        other => panic!("the program returned {other}"),
    }
}

#[expect(
    unsafe_code,
    reason = "rustix marks it so because other namespaces than the network's can break file descriptors"
)]
pub(crate) fn own_namespace() {
    // SAFETY: a network namespace shares nothing with memory or file descriptors; it ends with the thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("a network namespace of its own; this test needs root");
    let up = portal_tools::command("ip").args(["link", "set", "lo", "up"]).status().expect("iproute2 is installed");
    assert!(up.success(), "loopback comes up");
}
