//! Held frames on their way, in memory and over a real interface.
#![expect(unsafe_code, reason = "network namespaces, and a BPF program of five instructions, need it")]

use std::{
    io,
    mem::MaybeUninit,
    net::{IpAddr, UdpSocket},
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::net::UnixDatagram,
    },
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use portal_common::tables::Zone;
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    answer::tests::fixture,
    datagram::tests::{frame, make_partial},
    held::{RECORD_MAX, record},
    learning_tests::Tables,
    packet_socket::{MARK, PacketSocket, address},
    relay::{FrameSender, Relay},
    table::{Garden, Policy, ZoneGarden},
    worker::{Records, Worker},
};
use crate::net::testing::{in_namespace, ip};

const ZONE: u16 = 3;
/// How long anything may take: a loaded machine is slow, and nothing waits for as long where all is well.
const PATIENCE: Duration = Duration::from_secs(20);

fn garden() -> Arc<Mutex<Garden<Tables>>> {
    let mut garden = Garden::new(Policy::default(), Tables::default());
    let resolvers = ["192.0.2.1", "2001:db8::1"].map(|address| address.parse::<IpAddr>().unwrap()).to_vec();
    let rules = vec![toml::from_str("to = 'pay.example'\nports = ['443/tcp']").unwrap()];
    garden.set_zone(Zone::new(ZONE), ZoneGarden { name: "guests".into(), rules, resolvers }).unwrap();
    Arc::new(Mutex::new(garden))
}

fn happened(garden: &Mutex<Garden<Tables>>) -> Vec<String> {
    let counters = garden.lock().unwrap().counters().by_name();
    counters.into_iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{n} {name}")).collect()
}

/// Notes what is sent, and how many destinations are open at that moment.
struct Noted {
    garden: Arc<Mutex<Garden<Tables>>>,
    sent: mpsc::Sender<(u32, Vec<u8>, usize)>,
    fails: bool,
}

impl FrameSender for Noted {
    fn send(&mut self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        let open = self.garden.lock().unwrap().learned().len();
        self.sent.send((ifindex, frame.to_vec(), open)).unwrap();
        if self.fails { Err(io::ErrorKind::NetworkDown.into()) } else { Ok(()) }
    }
}

/// A sentence, a tag beside the frame, the frame, what is sent, how many destinations are open then, and what is counted.
type Row<'a> = (&'a str, Option<(u16, u16)>, &'a [u8], &'a [u8], usize, &'a [&'a str]);

#[test]
fn every_frame_goes_on_and_what_it_teaches_is_open_before() {
    let answer = fixture("pay-a");
    let whole = frame(false, 0, 53, &answer);
    let tagged = frame(false, 1, 53, &answer);
    let mut partial = whole.clone();
    make_partial(&mut partial);
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let elsewhere = frame(false, 0, 853, &answer);
    let other = frame(false, 0, 53, &fixture("multi-a"));
    let noise = frame(false, 0, 53, b"noise");
    let v6 = frame(true, 2, 53, &fixture("pay-aaaa"));
    let learned = ["1 answers", "1 learned", "1 matched", "1 relayed"];
    let table: [Row<'_>; 9] = [
        ("an answer", None, &whole, &whole, 1, &learned),
        ("over IPv6 with two tags", None, &v6, &v6, 1, &learned),
        ("with a tag beside it", Some((0x8100, 7)), &whole, &tagged, 1, &learned),
        (
            "with a checksum left to the NIC",
            None,
            &partial,
            &whole,
            1,
            &["1 answers", "1 completed", "1 learned", "1 matched", "1 relayed"],
        ),
        ("with a wrong checksum", None, &damaged, &damaged, 0, &["1 bad_checksum", "1 relayed"]),
        ("from another port", None, &elsewhere, &elsewhere, 0, &["1 not_dns", "1 relayed"]),
        ("about another name", None, &other, &other, 0, &["1 answers", "1 relayed", "1 unmatched"]),
        ("no DNS", None, &noise, &noise, 0, &["1 answers", "1 malformed", "1 relayed"]),
        ("no IP", None, &[7; 60], &[7; 60], 0, &["1 not_dns", "1 relayed"]),
    ];
    for (sentence, tag, frame, expected, open, counts) in table {
        let garden = garden();
        let (sent, frames) = mpsc::channel();
        let mut relay = Relay::new(Arc::clone(&garden), Noted { garden: Arc::clone(&garden), sent, fails: false });
        relay.handle(&record(ZONE, 9, tag, frame), 1);
        assert_eq!(frames.try_recv(), Ok((9, expected.to_vec(), open)), "{sentence}");
        assert_eq!(happened(&garden), counts, "{sentence}");
    }
}

#[test]
fn what_can_not_go_on_is_counted() {
    let garden = garden();
    let (sent, frames) = mpsc::channel();
    let noted = Noted { garden: Arc::clone(&garden), sent, fails: true };
    let (told, seen) = mpsc::channel();
    let mut relay = Relay::new(Arc::clone(&garden), noted).with_observer(Box::new(move |held, lesson| {
        told.send((held.zone(), lesson.name.as_str().to_owned(), lesson.learned)).unwrap();
    }));
    relay.handle(&record(ZONE, 9, None, &frame(false, 0, 53, &fixture("shop-a"))), 1);
    relay.handle(&[0; 15], 1);
    assert_eq!((frames.try_iter().count(), seen.try_recv()), (1, Ok((Zone::new(ZONE), "pay.example".into(), 1))));
    assert_eq!(happened(&garden), ["1 answers", "1 bad_record", "1 learned", "1 matched", "1 not_relayed"]);
}

/// A source of records that a test can write to: each datagram is one.
struct Datagrams(UnixDatagram);

impl AsFd for Datagrams {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Records for Datagrams {
    fn next(&mut self, handle: &mut dyn FnMut(&[u8])) -> bool {
        let mut record = [0; RECORD_MAX];
        self.0.recv(&mut record).map(|length| handle(&record[..length])).is_ok()
    }
}

#[test]
fn the_thread_handles_each_record_at_once_sleeps_and_stops() {
    let (ring, records) = UnixDatagram::pair().unwrap();
    records.set_nonblocking(true).unwrap();
    let garden = garden();
    let (sent, frames) = mpsc::channel();
    let noted = Noted { garden: Arc::clone(&garden), sent, fails: false };
    let worker = Worker::spawn(Datagrams(records), Relay::new(Arc::clone(&garden), noted)).unwrap();
    let answer = record(ZONE, 9, None, &frame(false, 0, 53, &fixture("pay-a")));
    let mut slowest = Duration::ZERO;
    for _ in 0..500 {
        let start = Instant::now();
        ring.send(&answer).unwrap();
        let (_, _, open) = frames.recv_timeout(PATIENCE).unwrap();
        assert_eq!(open, 1);
        slowest = slowest.max(start.elapsed());
    }
    eprintln!("record to frame, slowest of 500: {slowest:?}");
    assert!(!worker.has_failed());
    let before = Instant::now();
    worker.stop();
    assert!(before.elapsed() < PATIENCE, "stopping took {:?}", before.elapsed());
    assert!(frames.recv_timeout(PATIENCE).is_err(), "the thread and its sender are gone");
}

fn ifindex(name: &std::ffi::CStr) -> u32 {
    // SAFETY: the name ends in NUL.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}

/// A call of bpf(2) with this attribute, that makes a descriptor.
fn bpf<A>(command: libc::c_int, attribute: &A) -> OwnedFd {
    // SAFETY: the attribute and what it points to live until the call returns, and its size is given.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attribute), size_of::<A>()) };
    assert!(fd >= 0, "bpf({command}): {}", io::Error::last_os_error());
    // SAFETY: the kernel has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap()) }
}

/// Drops everything that leaves by an interface without our mark, as long as the descriptor is open.
fn hold_unmarked(ifindex: u32) -> OwnedFd {
    const PROG_LOAD: libc::c_int = 5;
    const LINK_CREATE: libc::c_int = 28;
    const SCHED_CLS: u32 = 3;
    const TCX_EGRESS: u32 = 47;
    #[repr(C)]
    struct Load {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log: [u32; 2],
        log_buf: u64,
        rest: [u32; 2],
    }
    #[repr(C)]
    struct Link {
        prog_fd: u32,
        target_ifindex: u32,
        attach_type: u32,
        flags: u32,
        rest: [u64; 2],
    }
    let instruction = |code: u8, registers: u8, offset: i16, immediate: u32| {
        u64::from(code)
            | u64::from(registers) << 8
            | u64::from(offset.cast_unsigned()) << 16
            | u64::from(immediate) << 32
    };
    // r2 = skb->mark; r0 = TCX_PASS; if r2 == MARK goto exit; r0 = TCX_DROP; exit
    let program = [
        instruction(0x61, 0x12, 8, 0),
        instruction(0xb7, 0x00, 0, 0),
        instruction(0x16, 0x02, 1, MARK),
        instruction(0xb7, 0x00, 0, 2),
        instruction(0x95, 0x00, 0, 0),
    ];
    let load = Load {
        prog_type: SCHED_CLS,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: c"MIT".as_ptr() as u64,
        log: [0; 2],
        log_buf: 0,
        rest: [0; 2],
    };
    let program = bpf(PROG_LOAD, &load);
    let prog_fd = program.as_raw_fd().cast_unsigned();
    bpf(LINK_CREATE, &Link { prog_fd, target_ifindex: ifindex, attach_type: TCX_EGRESS, flags: 0, rest: [0; 2] })
}

/// The next answer from this resolver that leaves by this interface, as it is before the NIC completes it.
fn tap(socket: &Socket, resolver: IpAddr) -> Vec<u8> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let mut bytes = [MaybeUninit::new(0); 2048];
        let length = socket.recv(&mut bytes).unwrap();
        // SAFETY: every byte was set when the array was made.
        let bytes: Vec<u8> = bytes[..length].iter().map(|byte| unsafe { byte.assume_init() }).collect();
        if super::datagram::Datagram::find(&bytes).is_some_and(|found| found.source == resolver) {
            return bytes;
        }
    }
    panic!("no answer left");
}

#[test]
fn a_linux_guest_gets_the_held_answer() {
    in_namespace(|| async {
        ip("link set lo up");
        ip("link add gateway address 02:00:00:00:00:fe type veth peer name client");
        for command in [
            "address add 192.0.2.1/24 dev gateway",
            "address add 2001:db8::1/64 dev gateway nodad",
            "link set gateway up",
            "neighbor add 192.0.2.7 lladdr 02:00:00:00:00:01 dev gateway",
            "neighbor add 2001:db8::7 lladdr 02:00:00:00:00:01 dev gateway",
        ] {
            ip(command);
        }
        let (tid, ready) = mpsc::channel();
        let (moved, go) = mpsc::channel::<()>();
        let (up, is_up) = mpsc::channel();
        let (got, gets) = mpsc::channel();
        let over = Arc::new(AtomicBool::new(false));
        let guest_over = Arc::clone(&over);
        let guest = thread::spawn(move || {
            // SAFETY: only this thread, which has no files or threads of its own, moves to the new namespace.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.unwrap();
            tid.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            go.recv().unwrap();
            for command in [
                "link set client address 02:00:00:00:00:01",
                "address add 192.0.2.7/24 dev client",
                "address add 2001:db8::7/64 dev client nodad",
                "link set client up",
            ] {
                ip(command);
            }
            let sockets = ["192.0.2.7:5353", "[2001:db8::7]:5353"].map(|address| UdpSocket::bind(address).unwrap());
            up.send(()).unwrap();
            let mut listeners = Vec::new();
            for socket in sockets {
                let (got, over) = (got.clone(), Arc::clone(&guest_over));
                listeners.push(thread::spawn(move || {
                    // Short, as it is asked again whether this is the end.
                    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
                    let mut bytes = [0; 2048];
                    while !over.load(Ordering::Relaxed) {
                        if let Ok((length, from)) = socket.recv_from(&mut bytes) {
                            got.send((from.to_string(), bytes[..length].to_vec())).unwrap();
                        }
                    }
                }));
            }
            drop(got);
            for listener in listeners {
                listener.join().unwrap();
            }
        });
        ip(&format!("link set client netns {}", ready.recv().unwrap()));
        moved.send(()).unwrap();
        is_up.recv().unwrap();

        let index = ifindex(c"gateway");
        let every_protocol = (libc::ETH_P_ALL as u16).to_be();
        let tapped = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(every_protocol)))).unwrap();
        tapped.bind(&address(index.cast_signed(), every_protocol)).unwrap();
        tapped.set_read_timeout(Some(PATIENCE)).unwrap();
        let garden = garden();
        let mut relay = Relay::new(Arc::clone(&garden), PacketSocket::open().unwrap());
        let families =
            [("192.0.2.1:53", "192.0.2.7:5353", "pay-a"), ("[2001:db8::1]:53", "[2001:db8::7]:5353", "pay-aaaa")];
        for (i, (resolver, guest, answer)) in families.into_iter().enumerate() {
            let answer = fixture(answer);
            let socket = UdpSocket::bind(resolver).unwrap();
            socket.send_to(&answer, guest).unwrap();
            let arrived = gets.recv_timeout(PATIENCE).expect("without a hold it arrives");
            assert_eq!(arrived, (resolver.to_owned(), answer.clone()));
            let frame = tap(&tapped, socket.local_addr().unwrap().ip());

            let hold = hold_unmarked(index);
            // The sender is not told: UDP takes a drop for congestion (`udp_send_skb()`).
            socket.send_to(&answer, guest).unwrap();
            let withheld = gets.recv_timeout(Duration::from_millis(200));
            assert!(withheld.is_err(), "the hold lets {withheld:?} through");
            relay.handle(&record(ZONE, index, None, &frame), 1);
            assert_eq!(happened(&garden).first().map(String::as_str), Some(["1 answers", "2 answers"][i]));
            let arrived = gets.recv_timeout(PATIENCE).expect("the guest's kernel takes the frame");
            assert_eq!(arrived, (resolver.to_owned(), answer.clone()));
            drop(hold);

            // What the test would see without the completion: the guest's kernel drops the frame.
            PacketSocket::open().unwrap().send(index, &frame).unwrap();
            let incomplete = gets.recv_timeout(Duration::from_millis(200));
            assert!(incomplete.is_err(), "{incomplete:?}");
        }
        assert_eq!(happened(&garden), ["2 answers", "2 completed", "2 learned", "2 matched", "2 relayed"]);

        assert!(PacketSocket::open().unwrap().send(4711, &[7; 60]).is_err(), "no such interface");
        over.store(true, Ordering::Relaxed);
        guest.join().unwrap();
    });
}
