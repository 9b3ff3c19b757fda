//! The gate under test: the loaded program and the same decision on the host, over the same tables.

use std::{collections::HashMap, net::IpAddr, os::fd::AsRawFd as _, process::Command};

use aya::programs::{TestRun as _, TestRunOptions};
use portal_common::{
    Reason, cookie,
    decide::{Decision, Tables, decide},
    frame::MAX_REDIRECTED_LEN,
    tables::{Address, ClientKey, CookieKeys, GateConfig, Service, ServiceKey, Session, Zone},
};
use portal_userspace::{
    clock,
    datapath::gate::{Gate, GateMaps, Policy},
    responder::{SocketOptions, socket::Socket},
};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::frames::{Cookies, EXPIRED, GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, GUEST};

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) action: Action,
    pub(crate) reason: Reason,
    /// The frame afterwards.
    pub(crate) frame: Vec<u8>,
}

/// An XDP action, by the kernel's number (`enum xdp_action`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Action {
    Drop = 1,
    Pass = 2,
    Tx = 3,
    Redirect = 4,
}

/// The tables on the host.
pub(crate) struct HostTables {
    sessions: HashMap<ClientKey, Session>,
    services: HashMap<ServiceKey, Service>,
    keys: CookieKeys,
    now_ns: u64,
}

impl Tables for HostTables {
    fn config(&self) -> Option<GateConfig> {
        Some(GateConfig::new(Zone::FIRST, GATEWAY_MAC))
    }
    fn session(&self, client: &ClientKey) -> Option<Session> {
        self.sessions.get(client).copied()
    }
    fn service(&self, destination: &ServiceKey) -> Option<Service> {
        self.services.get(destination).copied()
    }
    fn cookie_keys(&self) -> Option<&CookieKeys> {
        Some(&self.keys)
    }
    fn now_ns(&self) -> u64 {
        self.now_ns
    }
}

/// The loaded program with its maps, and the host's copy of what is in them.
///
/// It moves its thread into a network namespace of its own, whose loopback has the responder's socket: a test run is received there.
pub(crate) struct Bench {
    gate: Gate,
    maps: GateMaps,
    host: HostTables,
    counted: HashMap<Reason, u64>,
    responder: Option<Socket>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let mut bench = Self::without_responder();
        own_namespace();
        let loopback = 1;
        let socket = Socket::open(loopback, 0, SocketOptions::default()).expect("loopback takes an AF_XDP socket");
        bench.maps.sockets.set(0, socket.as_raw_fd(), 0).expect("the socket goes into the map");
        bench.responder = Some(socket);
        bench
    }

    pub(crate) fn without_responder() -> Self {
        let policy = Policy {
            gateway_mac: GATEWAY_MAC,
            gateway: vec![IpAddr::from(GATEWAY_V4), IpAddr::from(GATEWAY_V6)],
            resolvers: vec![IpAddr::from(GATEWAY_V4), IpAddr::from(GATEWAY_V6)],
            listeners: vec![(IpAddr::from(GATEWAY_V4), 8080).into(), (IpAddr::from(GATEWAY_V6), 8080).into()],
        };
        let (gate, maps) = Gate::load_unpinned(1024, &policy).expect("the gate loads; this test needs root");
        let sessions = HashMap::from([
            (ClientKey::new(Zone::FIRST, GUEST), Session::new(0, Session::NEVER)),
            (ClientKey::new(Zone::FIRST, EXPIRED), Session::new(0, 1)),
        ]);
        for (client, session) in &sessions {
            maps.sessions.insert(*client, *session).expect("there is room");
        }
        let mut services = HashMap::new();
        for address in [Address::v4(GATEWAY_V4), Address::v6(GATEWAY_V6)] {
            services.insert(ServiceKey::of_gateway(address), Service::Gateway);
            services.insert(ServiceKey::new(address, 6, 53), Service::Resolver);
            services.insert(ServiceKey::new(address, 17, 53), Service::Resolver);
            services.insert(ServiceKey::new(address, 6, 8080), Service::Portal);
        }
        let host = HostTables { sessions, services, keys: maps.secrets.keys(), now_ns: clock::now_ns() };
        let counted = maps.counters.read().expect("the counters are readable").into_iter().collect();
        Self { gate, maps, host, counted, responder: None }
    }

    pub(crate) fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    pub(crate) fn cookies(&self) -> Cookies {
        Cookies { keys: self.host.keys, now_ns: self.host.now_ns }
    }

    /// Both outcomes of a frame that is made for the time of the run: the kernel's, then the host's.
    pub(crate) fn run(&mut self, make: impl Fn(&Cookies) -> Vec<u8>) -> (Outcome, Outcome) {
        loop {
            self.host.now_ns = clock::now_ns();
            let frame = make(&self.cookies());
            let kernel = self.in_kernel(&frame);
            // A cookie's time slot ended in between: the two did not see the same clock.
            if cookie::slot(clock::now_ns()) == cookie::slot(self.host.now_ns) {
                return (kernel, self.on_host(frame));
            }
        }
    }

    fn in_kernel(&mut self, frame: &[u8]) -> Outcome {
        let mut out = vec![0; frame.len() + 256];
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.data_out = Some(&mut out);
        let result = self.gate.program().expect("the program is there").test_run(options).expect("the kernel runs it");
        out.truncate(result.data_size_out as usize);
        let action = match result.return_value {
            1 => Action::Drop,
            2 => Action::Pass,
            3 => Action::Tx,
            4 => Action::Redirect,
            other => panic!("the gate returned {other}"),
        };
        Outcome { action, reason: self.counted_reason(), frame: out }
    }

    /// The one reason that was counted since the last call.
    fn counted_reason(&mut self) -> Reason {
        let now = self.maps.counters.read().expect("the counters are readable");
        let grown: Vec<_> = now.iter().filter(|(reason, count)| self.counted[reason] != *count).copied().collect();
        let [(reason, count)] = grown[..] else { panic!("not one counter grew, but {grown:?}") };
        assert_eq!(self.counted[&reason] + 1, count, "{reason:?} was counted more than once");
        self.counted = now.into_iter().collect();
        reason
    }

    fn on_host(&self, mut frame: Vec<u8>) -> Outcome {
        let decision = decide(&frame[..], &self.host);
        let (action, reason) = match decision {
            Decision::Pass(reason) => (Action::Pass, reason),
            Decision::Drop(reason) => (Action::Drop, reason),
            Decision::Answer(reason, answer) => {
                let before = frame.len();
                let len = answer.write(&mut frame[..]).expect("a decided answer fits the frame");
                frame.truncate(len.get());
                assert!(frame.len() <= before, "an answer is larger than its cause");
                (Action::Tx, reason)
            }
            Decision::Redirect(reason) => {
                frame.truncate(MAX_REDIRECTED_LEN);
                match self.responder {
                    Some(_) => (Action::Redirect, reason),
                    None => (Action::Drop, Reason::ResponderAbsent),
                }
            }
        };
        Outcome { action, reason, frame }
    }
}

#[expect(
    unsafe_code,
    reason = "rustix marks it so because other namespaces than the network's can break file descriptors"
)]
fn own_namespace() {
    // SAFETY: a network namespace shares nothing with memory or file descriptors; it ends with the thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("a network namespace of its own; this test needs root");
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("iproute2 is installed");
    assert!(up.success(), "loopback comes up");
}
