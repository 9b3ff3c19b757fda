//! Clients that are not metered, whose packets need not be looked at for a while: until anything about them changes.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use etherparse::PacketBuilder;
use portal_common::{
    decide::Action,
    tables::{Address, AddressWord, Bindings, ClientKey, Rate, Session},
};
use portal_lab::verdicts::setting::{
    CLIENT_V4, CLIENT_V6, GATEWAY_MAC, GUEST, LEARN, SITE_V4, SITE_V6, Setting, config_of,
};

use crate::bench::{Bench, LOOPBACK, action, run_program};

const CLIENT: ClientKey = ClientKey::new(LEARN, GUEST);
const SESSION: Session = Session::new(0, Session::NEVER, 0);
/// Another client, with a session in another place.
const OTHER: [u8; 6] = [2, 0, 0, 0, 9, 9];
const OTHER_SLOT: u32 = 12;

struct World {
    bench: Bench,
    own: IpAddr,
}

impl World {
    fn new(own: IpAddr) -> Self {
        let mut setting = Setting::standard(LOOPBACK);
        for zone in setting.zones.iter_mut().filter(|zone| zone.zone == LEARN) {
            zone.config = config_of(LEARN).with_accounting(false);
        }
        Self { bench: Bench::without_responder(&setting), own }
    }

    fn send(&mut self, source: [u8; 6], from: IpAddr) -> bool {
        let frame = packet(source, from);
        let (number, _) = run_program(self.bench.gate().program().expect("it is there"), &frame);
        action(number) == Action::Pass
    }

    /// As a client that has sent for some time.
    fn settle(&mut self) {
        // The first binds the address, the second notes that it rests, the third is let through by that.
        for _ in 0..3 {
            assert!(self.send(GUEST, self.own));
        }
    }

    fn word(&self, address: IpAddr) -> AddressWord {
        self.bench.maps.sessions.address_hash().word(Address::from(address))
    }

    fn is_bound(&self, address: IpAddr) -> bool {
        self.bench.maps.sessions.state(0).bindings.iter().any(|word| word == self.word(address))
    }

    fn change(&self, session: Session) {
        self.bench.maps.sessions.insert(CLIENT, session).expect("it has its place");
    }
}

fn packet(source: [u8; 6], from: IpAddr) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(source, GATEWAY_MAC);
    let packet = match from {
        IpAddr::V4(from) => ethernet.ipv4(from.octets(), SITE_V4, 64),
        IpAddr::V6(from) => ethernet.ipv6(from.octets(), SITE_V6, 64),
    };
    let mut frame = Vec::new();
    packet.udp(9, 9).write(&mut frame, &[0; 40]).expect("a vector takes it");
    frame
}

fn families() -> [IpAddr; 2] {
    [CLIENT_V4.into(), CLIENT_V6.into()]
}

/// Another address of the same network.
fn neighbour(of: IpAddr, n: u8) -> IpAddr {
    match of {
        IpAddr::V4(of) => {
            let [a, b, c, _] = of.octets();
            [a, b, c, 100 + n].into()
        }
        IpAddr::V6(of) => {
            let mut octets = of.octets();
            octets[15] = 100 + n;
            octets.into()
        }
    }
}

#[test]
fn nothing_is_looked_at_for_a_client_that_rests() {
    for own in families() {
        let mut world = World::new(own);
        world.settle();
        let mut state = world.bench.maps.sessions.state(0);
        assert!(world.is_bound(own));
        state.bindings = Bindings::default();
        world.bench.maps.sessions.write_state(0, &state);
        assert!(world.send(GUEST, own));
        assert!(!world.is_bound(own), "{own}: its address would have been bound again");
        assert!(world.send(GUEST, neighbour(own, 1)));
        assert!(world.is_bound(neighbour(own, 1)), "{own}: from another address it is looked at");
    }
}

#[test]
fn a_client_that_rests_is_looked_at_when_anything_changes() {
    type Change = fn(&mut World);
    let table: [(&str, Change, bool); 7] = [
        ("nothing", |_| (), true),
        ("revoked", |world| assert!(world.bench.maps.sessions.remove(CLIENT)), false),
        ("expired", |world| world.change(Session::new(0, 1, 0)), false),
        ("given a quota, which is too small", |world| world.change(SESSION.with_quota(1)), false),
        (
            "revoked and let in again",
            |world| {
                world.bench.maps.sessions.remove(CLIENT);
                world.change(SESSION);
            },
            true,
        ),
        (
            "given a rate, which it has used up",
            |world| {
                let slow = Rate::bits_per_second(Rate::MIN_BITS_PER_SECOND);
                world.change(SESSION.with_rates(slow, slow));
                assert!((0..100_000).any(|_| !world.send(GUEST, world.own)), "the rate is not asked");
            },
            false,
        ),
        (
            "counted",
            |world| {
                world.bench.maps.zones.configure(LEARN, config_of(LEARN)).expect("the zone is there");
                let before = world.bench.maps.sessions.state(0).up.packets;
                assert!(world.send(GUEST, world.own));
                assert_eq!(world.bench.maps.sessions.state(0).up.packets, before + 1);
            },
            true,
        ),
    ];
    for own in families() {
        for (sentence, change, passes) in table {
            let mut world = World::new(own);
            world.settle();
            change(&mut world);
            assert_eq!(world.send(GUEST, own), passes, "{sentence}, {own}");
        }
    }
}

#[test]
fn an_address_rests_for_one_client_alone() {
    for own in families() {
        let mut world = World::new(own);
        world.settle();
        let other = ClientKey::new(LEARN, OTHER);
        assert!(!world.send(OTHER, own), "{own}: a stranger with a client's address");
        world.bench.maps.sessions.insert(other, Session::new(0, Session::NEVER, OTHER_SLOT)).expect("there is room");
        assert!(!world.send(OTHER, own), "{own}: a client with another's address");
        assert!(world.send(GUEST, own), "{own}: whose it still is");
        // One address too many displaces any.
        let displaced = (0..100).cycle().take(1_000).any(|n| {
            assert!(world.send(GUEST, neighbour(own, n)));
            thread::sleep(std::time::Duration::from_millis(2));
            !world.is_bound(own)
        });
        assert!(displaced);
        assert!(world.send(OTHER, own), "{own}: displaced, it is free");
        assert!(!world.send(GUEST, own), "{own}: and no longer the first client's");
    }
}

#[test]
fn clients_whose_addresses_share_a_row_keep_to_themselves() {
    // The least rows that a gate has: a pool's addresses so far apart share one.
    const ROWS_APART: u32 = 1 << 10;
    for own in families() {
        let mut world = World::new(own);
        world.settle();
        let sharing: IpAddr = match own {
            IpAddr::V4(own) => Ipv4Addr::from(u32::from(own) + ROWS_APART).into(),
            IpAddr::V6(own) => Ipv6Addr::from(u128::from(own) + u128::from(ROWS_APART)).into(),
        };
        let other = ClientKey::new(LEARN, OTHER);
        world.bench.maps.sessions.insert(other, Session::new(0, Session::NEVER, OTHER_SLOT)).expect("there is room");
        for turn in 0..3 {
            for _ in 0..3 {
                assert!(world.send(OTHER, sharing), "{own}, {turn}");
            }
            assert!(!world.send(OTHER, own) && !world.send(GUEST, sharing), "{own}, {turn}: the other's");
            for _ in 0..3 {
                assert!(world.send(GUEST, own), "{own}, {turn}");
            }
            assert!(!world.send(OTHER, own) && !world.send(GUEST, sharing), "{own}, {turn}: the other's");
        }
    }
}

/// While one CPU notes that the client rests, another revokes it, sooner or later. That the gate looks at the session again matters only where it is interrupted
/// just then, which this meets too seldom to show it.
#[test]
fn who_was_revoked_does_not_rest_whatever_another_cpu_was_at() {
    const ROUNDS: usize = 20_000;
    for own in families() {
        let mut world = World::new(own);
        let (program, maps) = world.bench.parts();
        let passes = |frame: &[u8]| action(run_program(program, frame).0) == Action::Pass;
        let frame = packet(GUEST, own);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                // One packet a run: for more the kernel makes the program the one that its dispatcher calls directly (`bpf_test_run_xdp`, Linux 5.18), and
                // rewrites that code while the other CPU runs it, at which an emulated Linux 6.12 has died.
                while !done.load(Ordering::Relaxed) {
                    passes(&frame);
                }
            });
            // No assertion before the other thread is told to end.
            let wrong = (0..ROUNDS).find_map(|round| {
                maps.sessions.insert(CLIENT, SESSION).expect("it has its place");
                // Sooner or later than the other CPU's first packet of this session.
                for _ in 0..round % 200 {
                    std::hint::spin_loop();
                }
                let was_there = maps.sessions.remove(CLIENT);
                let first = (0..20).position(|_| passes(&frame));
                (!was_there || first.is_some()).then_some((round, first))
            });
            done.store(true, Ordering::Relaxed);
            assert_eq!(wrong, None, "{own}: the round, and the first packet that passed in it");
        });
    }
}
