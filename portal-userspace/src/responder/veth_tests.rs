//! The sockets and threads on the real kernel: a veth pair in a network namespace of its own, a program of six instructions that
//! redirects everything to the socket of its queue, and a packet socket for a client.

use std::{
    ffi::CStr,
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    sync::{Arc, LazyLock, Mutex, PoisonError, RwLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use aya::{
    maps::{Map, MapData, XskMap},
    programs::XdpMode,
};
use portal_common::{
    budget::{Class, Limit},
    cookie,
    siphash::Key,
    tables::{Attachment, CookieKeys, GateConfig, Zone},
};

use super::{
    Policies, Policy, Queues, Responder, Shared, SharedPolicies, SocketOptions,
    answers::{Answers, Choice, Family, Status},
    probes::Probes,
    reassembly::Limits,
    segment::{
        Segment,
        tests::{OWN_MAC, frame, tcp, verify},
    },
    socket::{Frames, Socket},
};
use crate::{
    clock,
    datapath::{gate::Gate, zones::ZonePolicy},
};

/// Runs the test in a network namespace that lives as long as its thread; skips it, saying so, without the privilege.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    // One at a time: a test counts the wakeups of threads by their name.
    static TURN: Mutex<()> = Mutex::new(());
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root for a network namespace, BPF and AF_XDP");
        return;
    }
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let run = move || {
        // SAFETY: only this thread, which has no files or threads of its own, moves to the new namespace.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "{}", io::Error::last_os_error());
        test();
    };
    if let Err(panic) = thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

fn ip(arguments: &str) {
    let done = portal_tools::command("ip").args(arguments.split(' ')).output().unwrap();
    assert!(done.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Where the interface's sockets begin in the table.
const XSK_BASE: u32 = 2;

struct Wire {
    gateway_index: u32,
    client: OwnedFd,
    _link: OwnedFd,
}

impl Wire {
    /// A pair of interfaces; what arrives at the gateway's end goes to the sockets in this map.
    fn new(sockets: &XskMap<MapData>, map: RawFd) -> Self {
        assert_eq!(sockets.len(), 4);
        ip("link add gateway type veth peer name client");
        for interface in ["gateway", "client"] {
            // No router solicitations: nothing but the test's frames is on the wire.
            ip(&format!("link set {interface} addrgenmode none"));
            ip(&format!("link set {interface} up"));
        }
        let gateway_index = index(c"gateway");
        Self { gateway_index, client: packet_socket(index(c"client")), _link: redirect(gateway_index, map) }
    }

    fn send(&self, frame: &[u8]) {
        rustix::io::write(&self.client, frame).unwrap();
    }

    /// The next frame of ours, or nothing within the time.
    fn receive(&self, patience: Duration) -> Option<Vec<u8>> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let until = Instant::now() + patience;
        loop {
            let mut buffer = vec![0; 2048];
            match rustix::net::recv(&self.client, &mut buffer, rustix::net::RecvFlags::DONTWAIT) {
                Ok((length, _)) => {
                    buffer.truncate(length);
                    // A packet socket sees what it sends, too.
                    if buffer[..6] == super::segment::tests::CLIENT_MAC {
                        return Some(buffer);
                    }
                }
                Err(rustix::io::Errno::AGAIN) => {
                    let left = until.checked_duration_since(Instant::now())?;
                    let left = Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
                    poll(&mut [PollFd::new(&self.client, PollFlags::IN)], Some(&left)).unwrap();
                }
                Err(e) => panic!("{e}"),
            }
        }
    }
}

fn index(name: &CStr) -> u32 {
    // SAFETY: the name is a string that ends with NUL.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    assert_ne!(index, 0, "{name:?}: {}", io::Error::last_os_error());
    index
}

fn packet_socket(ifindex: u32) -> OwnedFd {
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: plain system calls; the address is a valid `sockaddr_ll` that lives beyond the call.
    unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(protocol));
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        let fd = OwnedFd::from_raw_fd(fd);
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = ifindex.cast_signed();
        let bound = libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32);
        assert_eq!(bound, 0, "{}", io::Error::last_os_error());
        let size: libc::c_int = 8 << 20;
        let option = (&raw const size).cast();
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, option, size_of_val(&size) as u32);
        fd
    }
}

const fn instruction(code: u8, registers: u8, offset: u16, immediate: i32) -> u64 {
    code as u64 | (registers as u64) << 8 | (offset as u64) << 16 | (immediate.cast_unsigned() as u64) << 32
}

const EXIT: u64 = instruction(0x95, 0x00, 0, 0);

/// `return bpf_redirect_map(&map, XSK_BASE + ctx->rx_queue_index, XDP_PASS)`.
fn redirect(ifindex: u32, map: RawFd) -> OwnedFd {
    attach(
        ifindex,
        &[
            instruction(0x61, 0x12, 16, 0),  // r2 = *(u32 *)(r1 + 16)
            instruction(0x18, 0x11, 0, map), // r1 = map
            0,
            instruction(0x07, 0x02, 0, XSK_BASE.cast_signed()), // r2 += XSK_BASE
            instruction(0xb7, 0x03, 0, 2),                      // r3 = XDP_PASS
            instruction(0x85, 0x00, 0, 51),                     // call bpf_redirect_map
            EXIT,
        ],
    )
}

/// Attached for as long as the link is open.
fn attach(ifindex: u32, program: &[u64]) -> OwnedFd {
    // BPF_PROG_LOAD: prog_type XDP, insn_cnt, insns, license.
    let mut load = Vec::new();
    load.extend_from_slice(&6u32.to_ne_bytes());
    load.extend_from_slice(&(program.len() as u32).to_ne_bytes());
    load.extend_from_slice(&(program.as_ptr() as u64).to_ne_bytes());
    load.extend_from_slice(&(c"GPL".as_ptr() as u64).to_ne_bytes());
    let program = bpf(5, &load);
    // BPF_LINK_CREATE: prog_fd, target_ifindex, attach_type BPF_XDP, flags.
    let link = [program.as_raw_fd().cast_unsigned(), ifindex, 37, 0].map(u32::to_ne_bytes).concat();
    bpf(28, &link)
}

fn bpf(command: libc::c_long, attributes: &[u8]) -> OwnedFd {
    // SAFETY: the attributes are as `union bpf_attr` has them for this command, and what they point to lives on.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), attributes.len()) };
    assert!(fd >= 0, "bpf({command}): {}", io::Error::last_os_error());
    // SAFETY: the kernel has just returned it.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

/// A table of four sockets, and its descriptor.
fn sockets() -> (XskMap<MapData>, RawFd) {
    // BPF_MAP_CREATE: map_type XSKMAP, key_size, value_size, max_entries.
    let map = bpf(0, &[17u32, 4, 4, 4].map(u32::to_ne_bytes).concat());
    let fd = map.as_raw_fd();
    (Map::XskMap(MapData::from_fd(map).unwrap()).try_into().unwrap(), fd)
}

fn policy() -> &'static Policy {
    static POLICY: LazyLock<Policy> = LazyLock::new(|| Policy {
        answers: Answers::new("http://192.0.2.1/", "http://[2001:db8::1]/").unwrap(),
        probes: Probes::new([]),
    });
    &POLICY
}

fn shared(sockets: XskMap<MapData>, keys: CookieKeys) -> Shared {
    Shared {
        sockets: Arc::new(Mutex::new(sockets)),
        policies: SharedPolicies::new(Policies::untagged(policy().clone())),
        known: Arc::new(crate::datapath::known::KnownAnswers::create().unwrap()),
        keys: Arc::new(RwLock::new(keys)),
    }
}

fn keys() -> CookieKeys {
    CookieKeys::new(std::array::from_fn(|i| Key([i as u64, 3])))
}

/// A client's first segment, its handshake just done.
fn request(family: Family, isn: u32, data: &[u8]) -> (u32, Vec<u8>) {
    let syn = frame(family, &[], tcp(isn, 0, false), b"");
    let tuple = Segment::read(&syn).unwrap().path.tuple();
    let ack = cookie::isn(&keys(), &tuple, isn, clock::now_ns()).wrapping_add(1);
    (ack, frame(family, &[], tcp(isn.wrapping_add(1), ack, false), data))
}

/// How often threads of this name have gone to sleep.
fn wakeups(name: &str) -> u64 {
    let mut total = 0;
    let mut found = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let Ok(status) = std::fs::read_to_string(task.unwrap().path().join("status")) else { continue };
        let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim();
        if value("Name:") == name {
            found += 1;
            total += value("voluntary_ctxt_switches:").parse::<u64>().unwrap();
        }
    }
    assert_eq!(found, 1, "threads named {name}");
    total
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn no_frame_is_ever_lost() {
    in_namespace(|| {
        let (mut sockets, map) = sockets();
        let wire = Wire::new(&sockets, map);
        let options = SocketOptions { frames: 64, ..SocketOptions::default() };
        let mut socket = Socket::open(wire.gateway_index, 0, options).unwrap();
        sockets.set(XSK_BASE, socket.as_raw_fd(), 0).unwrap();
        assert_eq!(socket.frames(), Frames { free: 0, filling: 64, in_flight: 0 });
        let (mut received, mut sent, mut returned) = (0, 0, 0);
        for round in 0..300u32 {
            // Often more than there are frames: the kernel drops what it has no frame for.
            for i in 0..round % 100 {
                wire.send(&frame(Family::V4, &[], tcp(i, 1, false), &[b'x'; 900]));
            }
            // Every third frame is not answered.
            let mut n = 0;
            for _ in 0..3 {
                let turn = socket.turn(|frame| {
                    n += 1;
                    n % 3 != 0 && {
                        let mut copy = frame.bytes().to_vec();
                        copy[..12].rotate_left(6);
                        frame.rewrite(copy.len(), |bytes| bytes.copy_from_slice(&copy))
                    }
                });
                (received, sent) = (received + turn.received, sent + turn.sent);
                assert_eq!((turn.unsent, turn.stopped), (0, None));
                assert_eq!(socket.frames().total(), 64, "round {round}");
            }
            while wire.receive(Duration::ZERO).is_some() {
                returned += 1;
            }
        }
        for _ in 0..100 {
            sent += socket.turn(|_| false).sent;
            while wire.receive(Duration::from_millis(1)).is_some() {
                returned += 1;
            }
        }
        assert_eq!(socket.frames(), Frames { free: 0, filling: 64, in_flight: 0 }, "all are back");
        assert!(received > 10_000, "{received} received");
        assert!(sent > received / 2 && returned == sent, "{received} received, {sent} sent, {returned} returned");
    });
}

#[test]
fn a_responder_answers_sleeps_and_stops() {
    in_namespace(|| {
        let (sockets, map) = sockets();
        let wire = Wire::new(&sockets, map);
        let policy = policy();
        let queues = Queues { ifindex: wire.gateway_index, count: 1, xsk_base: XSK_BASE };
        let shared = shared(sockets, keys());
        let spawn = |queues| Responder::spawn(queues, &shared, Limits::default(), SocketOptions::default());
        let beyond = spawn(Queues { xsk_base: 4, ..queues }).err().unwrap().to_string();
        assert!(beyond.contains("places for 0 of its sockets"), "{beyond}");
        let responder = spawn(queues).unwrap();

        let plain = Choice { status: Status::AuthenticationRequired, head: false };
        let slowest = (0..2000u32).map(|i| {
            let family = if i % 2 == 0 { Family::V4 } else { Family::V6 };
            let (ack, request) = request(family, i.wrapping_mul(0x9e37_79b1), GET);
            let start = Instant::now();
            wire.send(&request);
            let reply = wire.receive(Duration::from_millis(900)).unwrap_or_else(|| panic!("request {i} got nothing"));
            let took = start.elapsed();
            let (header, payload) = verify(&reply);
            assert_eq!(header.sequence_number, ack);
            assert!(payload == policy.answers.pick(plain, family).bytes(), "request {i}");
            took
        });
        let mut times: Vec<_> = slowest.collect();
        times.sort_unstable();
        eprintln!("request to answer over veth: median {:?}, slowest {:?}", times[1000], times[1999]);
        let total = responder.total();
        assert_eq!(total.answered[Status::AuthenticationRequired as usize], 2000);
        assert_eq!((total.ignored, total.acknowledged), (0, 0));

        for start in (0..2000).step_by(200) {
            // A veth holds 256 frames (VETH_RING_SIZE in drivers/net/veth.c) before it drops.
            let isns = (start..start + 200u32).map(|i| i.wrapping_mul(0x9e37_79b1));
            let burst: Vec<_> = isns.map(|isn| request(Family::V4, isn, GET).1).collect();
            for request in &burst {
                wire.send(request);
            }
            let answered = (0..burst.len()).take_while(|_| wire.receive(Duration::from_millis(900)).is_some()).count();
            assert_eq!(answered, burst.len(), "the burst from {start} on");
        }

        // On a loaded machine it may come late to what there was to do. One that looks again and again never sleeps for as long.
        let sleeps = (0..50).any(|_| {
            let before = wakeups("responder-2");
            thread::sleep(Duration::from_millis(300));
            wakeups("responder-2") == before
        });
        assert!(sleeps, "it sleeps while there is nothing to do");

        assert_eq!(responder.failed(), None);
        let before = Instant::now();
        responder.stop();
        // It is woken: by itself it would sleep on.
        assert!(before.elapsed() < Duration::from_secs(20), "stopping took {:?}", before.elapsed());
        wire.send(&request(Family::V4, 1, GET).1);
        assert_eq!(wire.receive(Duration::from_millis(100)), None, "nobody answers any more");
    });
}

#[test]
fn a_queue_that_is_taken_or_absent_is_named() {
    in_namespace(|| {
        let (sockets, map) = sockets();
        let wire = Wire::new(&sockets, map);
        let absent = Socket::open(wire.gateway_index, 63, SocketOptions::default()).err().unwrap().to_string();
        assert!(absent.contains("queue 63") && absent.contains("no such queue"), "{absent}");
        let _first = Socket::open(wire.gateway_index, 0, SocketOptions::default()).unwrap();
        let second = Socket::open(wire.gateway_index, 0, SocketOptions::default()).err().unwrap().to_string();
        assert!(second.contains("another program has a socket on this queue"), "{second}");
    });
}

#[test]
fn a_queue_is_free_again_after_its_socket_is_closed() {
    in_namespace(|| {
        let (sockets, map) = sockets();
        let wire = Wire::new(&sockets, map);
        for _ in 0..5 {
            drop(Socket::open(wire.gateway_index, 0, SocketOptions::default()).unwrap());
        }
    });
}

/// What a client does after its request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Waits,
    /// Sends its FIN without waiting for the answer, in a segment of its own.
    HalfCloses,
}

/// Lets the kernel's TCP send these parts, each in a segment of its own, and reads until the server has closed.
fn converse(server: &str, parts: &[&[u8]], then: Then) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server.parse().unwrap(), Duration::from_secs(2))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    for part in parts {
        stream.write_all(part)?;
    }
    if then == Then::HalfCloses {
        stream.shutdown(Shutdown::Write)?;
    }
    let mut response = Vec::new();
    stream.read_to_end(&mut response)?;
    Ok(response)
}

const HALF_CLOSES: usize = 300;

#[test]
fn a_linux_client_gets_whole_answers_through_the_gate() {
    in_namespace(|| {
        ip("link add gateway address 02:00:00:00:00:fe type veth peer name client");
        ip("link set gateway up");
        let (client_ready, ready) = mpsc::channel();
        let (start, started) = mpsc::channel::<()>();
        let client = thread::spawn(move || {
            // SAFETY: only this thread, which has no files or threads of its own, moves to the new namespace.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "{}", io::Error::last_os_error());
            client_ready.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            started.recv().unwrap();
            for command in [
                "link set client up",
                "address add 192.0.2.7/24 dev client",
                "address add 2001:db8::7/64 dev client nodad",
                "neighbor add 192.0.2.1 lladdr 02:00:00:00:00:fe dev client",
                "neighbor add 2001:db8::1 lladdr 02:00:00:00:00:fe dev client",
                "route add default via 192.0.2.1",
                "-6 route add default via 2001:db8::1",
            ] {
                ip(command);
            }
            // A veth delivers what XDP sends only to a peer that has a program itself.
            let _pass = attach(index(c"client"), &[instruction(0xb7, 0x00, 0, 2), EXIT]);
            let plain = Choice { status: Status::AuthenticationRequired, head: false };
            let expected = |status, family| policy().answers.pick(Choice { status, ..plain }, family).bytes().to_vec();
            for (server, family) in [("198.51.100.80:80", Family::V4), ("[2001:db8:1::80]:80", Family::V6)] {
                let long = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {}\r\n\r\n", "x".repeat(7000));
                let byte_by_byte: Vec<_> = b"GET /gen_204 HTTP/1.1\r\nHost: a\r\n\r\n".chunks(1).collect();
                let upload =
                    [b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n".to_vec(), vec![b'x'; 8000]]
                        .concat();
                let table: [(&str, &[&[u8]], Status); 7] = [
                    ("a page", &[GET], Status::AuthenticationRequired),
                    ("a probe", &[b"GET /generate_204 HTTP/1.1\r\nHost: a\r\n\r\n"], Status::Redirect),
                    ("in two parts", &[b"GET /gen_204 HTTP/1.1\r\nHo", b"st: a\r\n\r\n"], Status::Redirect),
                    ("byte by byte", &byte_by_byte, Status::Redirect),
                    ("seven kilobytes", &[long.as_bytes()], Status::AuthenticationRequired),
                    ("an upload", &[&upload], Status::AuthenticationRequired),
                    ("TLS", &[b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], Status::BadRequest),
                ];
                for (sentence, parts, status) in table {
                    for _ in 0..20 {
                        let response = converse(server, parts, Then::Waits)
                            .unwrap_or_else(|e| panic!("{sentence}, {server}: {e}"));
                        assert!(response == expected(status, family), "{sentence}, {server}");
                    }
                }
                let half_closed: [(&str, &[&[u8]], Status); 3] = [
                    ("a page", &[GET], Status::AuthenticationRequired),
                    ("in two parts", &[b"GET /gen_204 HTTP/1.1\r\nHo", b"st: a\r\n\r\n"], Status::Redirect),
                    ("half a request", &[b"GET /gen_204 HTTP/1.1\r\nHo"], Status::BadRequest),
                ];
                for (sentence, parts, status) in half_closed {
                    for _ in 0..HALF_CLOSES {
                        let response = converse(server, parts, Then::HalfCloses)
                            .unwrap_or_else(|e| panic!("{sentence}, half-closed, {server}: {e}"));
                        assert!(
                            response == expected(status, family),
                            "{sentence}, half-closed, {server}: {response:?}"
                        );
                    }
                }
                for _ in 0..20 {
                    let closed = converse(server, &[], Then::HalfCloses);
                    assert!(closed.is_ok_and(|response| response.is_empty()), "closed without a request, {server}");
                }
            }
        });
        let tid = ready.recv().unwrap();
        ip(&format!("link set client netns {tid}"));

        let (mut gate, mut maps) = Gate::load_unpinned(16).unwrap();
        let ifindex = index(c"gateway");
        let off = Class::ALL
            .into_iter()
            .fold(GateConfig::new(OWN_MAC), |config, class| config.with_limit(class, Limit::NONE));
        let zone = ZonePolicy {
            zone: Zone::FIRST,
            attachment: Attachment::new(ifindex, 0, 0),
            // One client stands for many: it must not run into the limits of one.
            config: off,
            gateway: Vec::new(),
            resolvers: Vec::new(),
            listeners: Vec::new(),
            ntp: Vec::new(),
            sources: Vec::new(),
        };
        maps.zones.fill(&zone).unwrap();
        gate.program().unwrap().attach_to_if_index(ifindex, XdpMode::Driver).unwrap();
        let queues = Queues { ifindex, count: 1, xsk_base: 0 };
        let shared = shared(maps.sockets, maps.secrets.keys());
        let responder = Responder::spawn(queues, &shared, Limits::default(), SocketOptions::default()).unwrap();
        start.send(()).unwrap();
        let outcome = client.join();
        eprintln!("{:?}", responder.total());
        for (reason, count) in maps.counters.read().unwrap() {
            if count > 0 {
                eprintln!("{} {count}", reason.name());
            }
        }
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}
