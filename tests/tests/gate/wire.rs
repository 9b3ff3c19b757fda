//! The verdict table over a wire: what is explained of each frame is what then happens to it.
//!
//! ```text
//!   network namespace of the test
//!   guest0 (XDP: pass) ═══ veth ═══ gate0 (XDP: gate) ── packet socket, AF_XDP socket
//!   └ packet socket: sends the frame, sees the answer
//! ```

use std::{
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use aya::{
    Ebpf, EbpfLoader,
    programs::{TestRun as _, TestRunOptions, Xdp, XdpMode},
};
use portal_common::{Reason, cookie, decide::Action, tables::Zone};
use portal_lab::{
    verdicts::{
        Row,
        frames::Cookies,
        rows, rows_without_responder,
        setting::{SHADOW_VLAN, SLOTS, Setting, UNFILLED},
    },
    wire::Wire,
};
use portal_userspace::{
    clock,
    datapath::{
        gate::{Gate, GateMaps},
        object,
    },
    responder::{SocketOptions, socket::Socket},
};

use crate::bench::{action, own_namespace};

/// Of both ends: room for the longest frame of the table.
const MTU: usize = 9_216;
const ETHERNET_LEN: usize = 14;
/// A veth may make several buffers of a frame that is longer.
const ONE_BUFFER: usize = 3_000;
/// How long anything may take: a loaded machine is slow, and nothing waits for as long where all is well.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long after the gate has decided a frame that it should have dropped may still turn up.
const GRACE: Duration = Duration::from_millis(3);

#[test]
fn what_is_explained_is_what_happens_on_the_wire() {
    let mut link = Link::new();
    let (mut wrong, mut carried) = (Vec::new(), 0);
    for row in rows() {
        let length = row.frame.to_bytes(&link.cookies()).len();
        if !(ETHERNET_LEN..=MTU + ETHERNET_LEN).contains(&length) {
            println!("not carried by a veth, with {length} bytes: {}", row.sentence);
            continue;
        }
        if length > ONE_BUFFER && matches!(row.action, Action::Answer | Action::Redirect) && forgets_its_pool() {
            println!("a row is skipped: this kernel frees a buffer wrongly when it is cut off: {}", row.sentence);
            continue;
        }
        carried += 1;
        if let Err(complaint) = link.try_row(&row) {
            wrong.push(format!("{}: {complaint}", row.sentence));
        }
    }
    println!("{carried} rows over the wire");
    // The kernel takes a closed socket out of the table.
    link.responder = None;
    for row in rows_without_responder() {
        let (cause, (action, reason, _)) = link.explain(&row);
        assert_eq!((action, reason.class()), (Action::Redirect, Some(portal_common::budget::Class::Requests)));
        if let Err(complaint) = link.demand(&cause, Action::Drop, row.reason, &[]) {
            wrong.push(format!("{}: {complaint}", row.sentence));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether this kernel's veth takes buffers from a pool (Linux 6.4) and does not tell XDP so: what `bpf_xdp_adjust_tail` cuts off a frame is then freed beside
/// the pool, and the kernel complains of a page_pool leak. Seen on 6.12, not on 6.1 and 6.18.
fn forgets_its_pool() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux tells its version");
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().expect("it begins with numbers"), numbers.next().expect("of which there are two"));
    ((6, 4)..(6, 18)).contains(&version)
}

struct Link {
    gate: Gate,
    maps: GateMaps,
    ifindex: u32,
    at_gate: Wire,
    at_guest: Wire,
    responder: Option<Socket>,
    /// Detached when it is dropped.
    _pass: Ebpf,
}

impl Link {
    fn new() -> Self {
        own_namespace();
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").expect("IPv6 can be switched off");
        // One queue: a frame is where the socket is.
        ip("link add gate0 numrxqueues 1 numtxqueues 1 type veth peer name guest0 numrxqueues 1 numtxqueues 1");
        for end in ["gate0", "guest0"] {
            ip(&format!("link set {end} mtu {MTU} up"));
        }
        let ifindex = index_of("gate0");
        let (mut gate, mut maps) = Gate::load_unpinned(SLOTS).expect("the gate loads; this test needs root");
        Setting::standard(ifindex).fill(&mut maps).expect("there is room");
        gate.program().expect("it is there").attach_to_if_index(ifindex, XdpMode::Driver).expect("veth has native XDP");
        let mut pass = EbpfLoader::new().load(object::LAB).expect("the lab's program loads");
        let program: &mut Xdp = pass.program_mut("pass").expect("it is there").try_into().expect("it is for XDP");
        program.load().expect("the verifier takes an empty program");
        program.attach("guest0", XdpMode::Driver).expect("veth has native XDP");
        let responder = Socket::open(ifindex, 0, SocketOptions::default()).expect("veth takes an AF_XDP socket");
        maps.sockets.set(0, responder.as_raw_fd(), 0).expect("the socket goes into the map");
        let open = |end| Wire::open(end).expect("a packet socket opens");
        let (at_gate, at_guest) = (open("gate0"), open("guest0"));
        let link = Self { gate, maps, ifindex, at_gate, at_guest, responder: Some(responder), _pass: pass };
        // What the kernel itself sends when an interface comes up.
        link.at_gate.within(Duration::from_millis(50)).expect("the socket works");
        link.at_guest.clear().expect("the socket works");
        link
    }

    fn cookies(&self) -> Cookies {
        Cookies { keys: self.maps.secrets.keys(), now_ns: clock::now_ns() }
    }

    /// The row's frame, and what is explained of it.
    fn explain(&mut self, row: &Row) -> (Vec<u8>, (Action, Reason, Vec<u8>)) {
        let cause = row.frame.to_bytes(&self.cookies());
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context: Vec<u8> =
            [0, cause.len() as u32, 0, self.ifindex, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
        let mut out = vec![0; cause.len() + 256];
        let mut options = TestRunOptions::new();
        options.data_in = Some(&cause);
        options.data_out = Some(&mut out);
        options.ctx_in = Some(&context);
        let result = self.gate.explain().expect("it is there").test_run(options).expect("the kernel runs it");
        out.truncate(result.data_size_out as usize);
        let reason = Reason::try_from(result.return_value >> 8).expect("a reason of this version");
        (cause, (action(result.return_value & 0xff), reason, out))
    }

    fn try_row(&mut self, row: &Row) -> Result<(), String> {
        loop {
            let slot = cookie::slot(clock::now_ns());
            let (cause, (action, reason, frame)) = self.explain(row);
            let shadow = matches!(&row.frame.tags[..], [(_, tag)] if tag & 0xfff == SHADOW_VLAN);
            let happened = if shadow {
                self.demand(&cause, Action::Pass, reason, &cause)
            } else {
                self.demand(&cause, action, reason, &frame)
            };
            // A cookie's time slot may end in between; then the answer is another.
            if cookie::slot(clock::now_ns()) == slot {
                return happened;
            }
        }
    }

    /// Sends the frame, and demands that this happens to it, and nothing else.
    fn demand(&mut self, cause: &[u8], action: Action, reason: Reason, expected: &[u8]) -> Result<(), String> {
        let before = self.count();
        let until = Instant::now() + PATIENCE;
        self.at_guest.send(cause).map_err(|e| format!("cannot be sent: {e}"))?;
        // The kernel counts before it carries out: from then on all is decided.
        let counted = loop {
            let grown: Vec<_> = self
                .count()
                .iter()
                .zip(&before)
                .filter(|(now, then)| now != then)
                .map(|(now, then)| (now.0, now.1 - then.1))
                .collect();
            if !grown.is_empty() {
                break grown;
            }
            if Instant::now() > until {
                return Err("the gate has not seen it".into());
            }
        };
        if counted != [(reason, 1)] {
            return Err(format!("explained as {reason:?}, counted as {counted:?}"));
        }
        let wait = if action == Action::Drop { Instant::now() + GRACE } else { until };
        let mut seen = Vec::new();
        loop {
            self.collect(&mut seen)?;
            if !seen.is_empty() || Instant::now() > wait {
                break;
            }
        }
        // Nothing else comes.
        self.collect(&mut seen)?;
        let wanted = if action == Action::Drop { Vec::new() } else { vec![(action, expected.to_vec())] };
        if seen == wanted { Ok(()) } else { Err(format!("expected {wanted:02x?}, seen {seen:02x?}")) }
    }

    /// What has come where since the last call.
    fn collect(&mut self, seen: &mut Vec<(Action, Vec<u8>)>) -> Result<(), String> {
        for (wire, action) in [(&self.at_gate, Action::Pass), (&self.at_guest, Action::Answer)] {
            let frames = wire.within(Duration::ZERO).map_err(|e| e.to_string())?;
            seen.extend(frames.into_iter().filter(|frame| !frame.sent).map(|frame| (action, frame.frame)));
        }
        if let Some(responder) = &mut self.responder {
            responder.turn(|frame| {
                seen.push((Action::Redirect, frame.bytes().to_vec()));
                false
            });
        }
        Ok(())
    }

    /// How often each reason was given, in every zone and mode.
    fn count(&self) -> Vec<(Reason, u64)> {
        let counters = &self.maps.counters;
        let zones = (0..=UNFILLED.number()).flat_map(|zone| [false, true].map(|shadow| (Zone::new(zone), shadow)));
        zones
            .flat_map(|(zone, shadow)| counters.read_zone(zone, shadow).expect("the counters are readable"))
            .chain(counters.read_unzoned().expect("the counters are readable"))
            .collect()
    }
}

fn index_of(interface: &str) -> u32 {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)
        .expect("a socket opens");
    rustix::net::netdevice::name_to_index(&socket, interface).expect("the interface is there")
}

fn ip(words: &str) {
    let status = portal_tools::command("ip").args(words.split_whitespace()).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {words}");
}
