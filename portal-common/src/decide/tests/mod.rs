//! What takes time, or many frames: budgets, addresses, limits, events. What a single frame gets, the verdict table shows.

mod identity;

use super::*;
use crate::{
    budget::Limit,
    checksum::Sum,
    event::EventKind as Kind,
    host::HostTables,
    meter::Load,
    siphash::Key,
    tables::{Attachment, MAX_BINDINGS, Rate, Session},
};
use crate::{flag, protocol as p};

const S: u64 = 1_000_000_000;
const ZONE: Zone = Zone::FIRST;
const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ONE: [u8; 6] = [2, 0, 0, 0, 1, 1];
const OTHER: [u8; 6] = [2, 0, 0, 0, 1, 2];
const STRANGER: [u8; 6] = [2, 0, 0, 0, 1, 3];
const GATEWAY: Address = Address::v4([192, 0, 2, 1]);
const GATEWAY_V6: Address = Address::v6([0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
/// The login page's port.
const PORTAL: u16 = 8080;
const SITE: Address = Address::v4([198, 51, 100, 80]);

/// A zone, its clients and its clock.
struct World(HostTables);

impl World {
    fn new(strictness: Strictness) -> Self {
        let mut tables = HostTables::new(CookieKeys::new([Key([1, 2]); 4]));
        tables.zones.insert(Attachment::new(0, 0, 0), ZONE);
        for protocol in [p::TCP, p::UDP] {
            tables.services.insert(ServiceKey::new(ZONE, GATEWAY, protocol, p::PORT_DNS), Service::Resolver);
        }
        for gateway in [GATEWAY, GATEWAY_V6] {
            tables.services.insert(ServiceKey::of_gateway(ZONE, gateway), Service::Gateway);
            tables.services.insert(ServiceKey::new(ZONE, gateway, p::TCP, PORTAL), Service::Portal);
        }
        let config = GateConfig::new(GATEWAY_MAC).with_strictness(strictness);
        tables.configs.insert(ZONE, config.with_services(&tables.services));
        tables.states.resize_with(8, ClientState::default);
        tables.now_ns = 1_000 * S;
        Self(tables)
    }

    fn with_limit(mut self, class: Class, limit: Limit) -> Self {
        let config = self.0.configs.get_mut(&ZONE).unwrap();
        *config = config.with_limit(class, limit);
        self
    }

    fn log_in(&mut self, mac: [u8; 6], slot: u32, change: impl FnOnce(Session) -> Session) {
        let session = Session::new(self.0.now_ns, Session::NEVER, slot);
        self.0.sessions.insert(ClientKey::new(ZONE, mac), change(session));
    }

    fn send(&mut self, frame: &[u8]) -> Reason {
        let mut case = Case::EMPTY;
        let reason = match locate(frame, &self.0) {
            Ok(place) => {
                decide(frame, &self.0, &place, &mut case);
                case.decision.reason
            }
            Err((_, reason)) => reason,
        };
        self.0.settle();
        reason
    }

    fn receive(&mut self, frame: &[u8]) -> Outbound {
        // Over IPv4, without a tag.
        let forwarded = Address::v4([frame[26], frame[27], frame[28], frame[29]]) != GATEWAY;
        let departure = Departure { vlan: 0, load: Load::frame(frame.len() as u64), relayed: false, forwarded };
        let mut case = Case::EMPTY;
        let verdict = outbound(frame, &self.0, departure, &mut case);
        self.0.settle();
        verdict.decision
    }

    /// How many of these frames get the same as the first, before one does not; and what that one gets.
    fn until_refused(&mut self, frame: &[u8]) -> (u64, Reason) {
        let first = self.send(frame);
        for count in 1..1_000_000 {
            let reason = self.send(frame);
            if reason != first {
                return (count, reason);
            }
        }
        panic!("never refused");
    }

    fn owner(&self, address: Address) -> Option<[u8; 6]> {
        self.0.owner(&OwnedAddress::new(ZONE, address)).map(ClientKey::mac)
    }

    /// What was told since the last call.
    fn told(&mut self) -> Vec<Kind> {
        self.0.events.take().iter().map(|event| Kind::try_from(event.kind).unwrap()).collect()
    }

    fn sleep(&mut self, ns: u64) {
        self.0.now_ns += ns;
    }
}

fn ethernet(destination: [u8; 6], source: [u8; 6], tags: &[u16], ether_type: u16) -> Vec<u8> {
    let mut frame = [destination, source].concat();
    for tag in tags {
        frame.extend(p::ETHER_VLAN.to_be_bytes());
        frame.extend(tag.to_be_bytes());
    }
    frame.extend(ether_type.to_be_bytes());
    frame
}

/// An IPv4 or IPv6 packet, by its addresses.
fn packet(frame: Vec<u8>, [source, destination]: [Address; 2], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = frame;
    let is_v4 = |a: Address| a.words()[0] == 0 && a.words()[1] >> 32 == 0xffff;
    if is_v4(source) {
        let mut header = vec![0x45, 0];
        header.extend((20 + payload.len() as u16).to_be_bytes());
        header.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
        header.extend(&source.0[12..]);
        header.extend(&destination.0[12..]);
        let checksum = Sum::new().bytes(&header).checksum();
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        frame.extend(p::ETHER_IPV4.to_be_bytes());
        frame.extend(header);
    } else {
        frame.extend(p::ETHER_IPV6.to_be_bytes());
        frame.extend([0x60, 0, 0, 0]);
        frame.extend((payload.len() as u16).to_be_bytes());
        frame.extend([protocol, 64]);
        frame.extend(source.0);
        frame.extend(destination.0);
    }
    frame.extend(payload);
    frame
}

/// UDP with so many bytes of data.
fn udp(source: [u8; 6], addresses: [Address; 2], ports: [u16; 2], data: usize) -> Vec<u8> {
    udp_between([source, GATEWAY_MAC], addresses, ports, data)
}

fn udp_between(
    [from, to]: [[u8; 6]; 2],
    addresses: [Address; 2],
    [from_port, to_port]: [u16; 2],
    data: usize,
) -> Vec<u8> {
    let mut payload = [from_port.to_be_bytes(), to_port.to_be_bytes()].concat();
    payload.extend((8 + data as u16).to_be_bytes());
    payload.extend([0; 2]);
    payload.resize(8 + data, 0);
    packet([to, from].concat(), addresses, p::UDP, &payload)
}

/// A TCP segment without data.
fn tcp(source: [u8; 6], addresses: [Address; 2], port: u16, flags: u8) -> Vec<u8> {
    let mut payload = [40_000u16.to_be_bytes(), port.to_be_bytes()].concat();
    payload.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    packet([GATEWAY_MAC, source].concat(), addresses, p::TCP, &payload)
}

/// Something that a member may send and a stranger may not.
fn anything(source: [u8; 6], from: Address) -> Vec<u8> {
    let v6 = Address::v6([0x20, 1, 0x0d, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80]);
    udp(source, [from, if from.0[0] == 0 { SITE } else { v6 }], [9, 9], 60)
}

fn host(number: u8) -> Address {
    Address::v4([192, 0, 2, number])
}

fn host_v6(number: u8) -> Address {
    Address::v6([0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, number])
}

#[test]
fn an_address_goes_stale_after_five_minutes_unless_the_zone_is_strict() {
    for address in [host(10), host_v6(10)] {
        for (strictness, stale_after) in [(Strictness::Learn, Some(300 * S)), (Strictness::Strict, None)] {
            let mut world = World::new(strictness);
            world.log_in(ONE, 0, |session| session);
            world.log_in(OTHER, 1, |session| session);
            // Not seen at the session's beginning, but later.
            world.sleep(50 * S);
            assert_eq!(world.send(&anything(ONE, address)), Reason::Authorized);
            assert_eq!(world.owner(address), Some(ONE));
            world.sleep(300 * S - 1);
            assert_eq!(world.send(&anything(OTHER, address)), Reason::SpoofedAddress, "{strictness:?}: until then");
            assert_eq!(world.send(&anything(STRANGER, address)), Reason::SpoofedAddress);
            world.sleep(1);
            let expected = if stale_after.is_some() { Reason::Authorized } else { Reason::SpoofedAddress };
            assert_eq!(world.send(&anything(OTHER, address)), expected, "{strictness:?}: from then on");
            world.sleep(24 * 3600 * S);
            let expected = if stale_after.is_some() { Reason::UdpRefused } else { Reason::SpoofedAddress };
            assert_eq!(world.send(&anything(STRANGER, address)), expected, "{strictness:?}: after a day");
        }
    }
}

#[test]
fn who_has_lost_an_address_to_another_does_not_get_it_back_by_using_it() {
    let mut world = World::new(Strictness::Learn);
    world.log_in(ONE, 0, |session| session);
    world.log_in(OTHER, 1, |session| session);
    assert_eq!(world.send(&anything(ONE, host(10))), Reason::Authorized);
    world.sleep(300 * S);
    assert_eq!(world.send(&anything(OTHER, host(10))), Reason::Authorized, "taken over");
    assert_eq!(world.send(&anything(ONE, host(10))), Reason::SpoofedAddress);
    // Nor does it take the address from the other by displacing it among its own.
    for n in 0..3 * MAX_BINDINGS as u8 {
        world.sleep(1 << 20);
        assert_eq!(world.send(&anything(ONE, host(50 + n))), Reason::Authorized);
    }
    assert_eq!(world.owner(host(10)), Some(OTHER));
}

#[test]
fn one_address_too_many_displaces_another_or_makes_a_stranger() {
    let number = |n: usize| if n.is_multiple_of(2) { host(100 + n as u8) } else { host_v6(100 + n as u8) };
    let bound = |world: &World| (0..=MAX_BINDINGS).filter(|n| world.owner(number(*n)) == Some(ONE)).count();
    for (strictness, ninth) in [(Strictness::Learn, Reason::Authorized), (Strictness::Strict, Reason::UdpRefused)] {
        let mut world = World::new(strictness);
        world.log_in(ONE, 0, |session| session);
        for n in 0..MAX_BINDINGS {
            assert_eq!(world.send(&anything(ONE, number(n))), Reason::Authorized);
        }
        assert_eq!(bound(&world), MAX_BINDINGS);
        world.told();
        assert_eq!(world.send(&anything(ONE, number(MAX_BINDINGS))), ninth, "{strictness:?}");
        assert_eq!(bound(&world), MAX_BINDINGS, "{strictness:?}: as many as before");
        let newest = world.owner(number(MAX_BINDINGS)).is_some();
        assert_eq!(newest, strictness == Strictness::Learn, "{strictness:?}: the newest is bound");
        let expected: &[Kind] =
            if newest { &[Kind::AddressLearned] } else { &[Kind::Stranger, Kind::TooManyAddresses] };
        assert_eq!(world.told(), expected);
        // What it had first still works.
        assert_eq!(world.send(&anything(ONE, number(0))), Reason::Authorized);
        assert_eq!(world.send(&anything(ONE, number(7))), Reason::Authorized);
    }
}

#[test]
fn an_address_is_taken_over_when_its_owners_session_ends() {
    for strictness in [Strictness::Learn, Strictness::Strict] {
        type End = fn(&mut World);
        let ends: [(&str, End); 3] = [
            ("expired", |world| world.sleep(60 * S)),
            ("revoked", |world| {
                world.0.sessions.remove(&ClientKey::new(ZONE, ONE));
            }),
            ("idle", |world| world.sleep(30 * S)),
        ];
        for (sentence, end) in ends {
            let mut world = World::new(strictness);
            let expires = world.0.now_ns + 60 * S;
            world.log_in(ONE, 0, |session| Session::new(session.started_ns(), expires, 0).with_idle_s(30));
            world.log_in(OTHER, 1, |session| session);
            assert_eq!(world.send(&anything(ONE, host(10))), Reason::Authorized);
            assert_eq!(world.send(&anything(OTHER, host(10))), Reason::SpoofedAddress);
            end(&mut world);
            assert_eq!(world.send(&anything(OTHER, host(10))), Reason::Authorized, "{sentence}");
            assert_eq!(world.owner(host(10)), Some(OTHER));
            assert_eq!(
                world.send(&anything(ONE, host(10))),
                Reason::SpoofedAddress,
                "{sentence}: now it is the other's"
            );
        }
    }
}

#[test]
fn events_are_told_and_a_strangers_trouble_at_most_once_in_ten_seconds() {
    let mut world = World::new(Strictness::Learn).with_limit(Class::Link, Limit::NOTHING);
    world.log_in(ONE, 0, |session| session.with_quota(200));
    world.send(&anything(ONE, host(10)));
    assert_eq!(world.told(), [Kind::AddressLearned], "a guest's first frame");
    world.send(&anything(ONE, host(10)));
    world.send(&anything(ONE, host(10)));
    assert_eq!(world.told(), [Kind::QuotaSpent], "told once, though two frames are over the quota");

    let spoofed = anything(STRANGER, host(10));
    assert_eq!(world.send(&spoofed), Reason::SpoofedAddress);
    let told = world.0.events.take();
    assert_eq!(told.iter().map(|e| e.kind).collect::<Vec<_>>(), [Kind::Stranger as u32, Kind::SpoofedAddress as u32]);
    assert_eq!((told[1].other.mac(), told[1].address), (ONE, host(10)), "it says whose address it is");
    assert_eq!(told[1].reason, Reason::SpoofedAddress as u32);

    let gateway = anything(STRANGER, GATEWAY);
    let eapol = ethernet(GATEWAY_MAC, STRANGER, &[], p::ETHER_EAPOL);
    for (frame, reason) in
        [(&spoofed, Reason::SpoofedAddress), (&gateway, Reason::GatewayAddress), (&eapol, Reason::BudgetLink)]
    {
        assert_eq!(world.send(frame), reason);
        assert_eq!(world.told(), [], "within ten seconds");
    }
    for (frame, kind) in
        [(&gateway, Kind::GatewayAddress), (&eapol, Kind::BudgetSpent), (&spoofed, Kind::SpoofedAddress)]
    {
        world.sleep(10 * S + 1);
        world.send(frame);
        world.send(frame);
        assert_eq!(world.told(), [kind], "after ten seconds");
    }
    // Each stranger has ten seconds of its own.
    world.send(&anything(OTHER, host(10)));
    assert_eq!(world.told(), [Kind::Stranger, Kind::SpoofedAddress]);
}

#[test]
fn each_budget_is_a_burst_and_then_a_rate() {
    let to_gateway = [host(20), GATEWAY];
    let to_site = [host(20), SITE];
    let syn = |port| tcp(STRANGER, to_site, port, flag::SYN);
    let arp = [
        &ethernet([0xff; 6], STRANGER, &[], p::ETHER_ARP)[..],
        &[0, 1, 8, 0, 6, 4, 0, 1],
        &STRANGER,
        &[192, 0, 2, 20],
        &[0; 6],
        &[192, 0, 2, 1],
    ]
    .concat();
    let dns_tcp = tcp(STRANGER, to_gateway, 53, flag::SYN);
    let portal = tcp(STRANGER, to_gateway, PORTAL, flag::ACK);
    let [requests, queries, ..] = Limit::DEFAULTS;
    assert!(requests.is_limited() && queries.is_limited());
    let table: [(&str, Class, Vec<u8>, u64, u64); 5] = [
        ("short DNS queries", Class::DnsQueries, udp(STRANGER, to_gateway, [9, 53], 20), 200, 10),
        (
            "segments of DNS over TCP",
            Class::DnsBytes,
            dns_tcp.clone(),
            32 * 1024 / dns_tcp.len() as u64,
            400 / dns_tcp.len() as u64,
        ),
        ("ARP", Class::Link, arp, 200, 50),
        ("SYNs", Class::Replies, syn(80), 500, 100),
        (
            "the login page",
            Class::Services,
            portal.clone(),
            (2 << 20) / portal.len() as u64,
            (256 << 10) / portal.len() as u64,
        ),
    ];
    for (sentence, class, frame, burst, rate) in table {
        let mut world = World::new(Strictness::Learn);
        let close = |got: u64, expected: u64| got.abs_diff(expected) <= 1 + expected / 500;
        let (count, reason) = world.until_refused(&frame);
        assert_eq!(reason, class.exhausted(), "{sentence}");
        assert!(close(count, burst), "{sentence}: {count} at once, not {burst}");
        for _ in 0..3 {
            world.sleep(S);
            let (count, _) = world.until_refused(&frame);
            assert!(close(count, rate), "{sentence}: {count} in a second, not {rate}");
        }
        // Another stranger has a budget of its own, and an hour is not more than the burst.
        let mut other = frame.clone();
        other[6..12].copy_from_slice(&OTHER);
        if sentence == "ARP" {
            other[22..28].copy_from_slice(&OTHER);
        }
        assert_eq!(world.send(&other).class(), Some(class), "{sentence}");
        world.sleep(3600 * S);
        let (count, _) = world.until_refused(&frame);
        assert!(close(count, burst), "{sentence}: {count} after an hour, not {burst}");
    }
}

#[test]
fn requests_have_a_budget_of_their_own() {
    let mut world = World::new(Strictness::Learn);
    // A handshake, then its first segment with data.
    let tuple =
        crate::cookie::FourTuple { source: host(20), destination: SITE, source_port: 40_000, destination_port: 80 };
    let isn = crate::cookie::isn(&world.0.keys, &tuple, 0, world.0.now_ns);
    let mut request = tcp(STRANGER, [host(20), SITE], 80, flag::ACK | flag::FIN);
    request[42..46].copy_from_slice(&isn.wrapping_add(1).to_be_bytes());
    assert_eq!(world.send(&request), Reason::HttpRequest);
    assert_eq!(world.until_refused(&request), (99, Reason::BudgetRequests));
    assert_eq!(
        world.send(&tcp(STRANGER, [host(20), SITE], 80, flag::SYN)),
        Reason::HttpHandshake,
        "its replies are not spent"
    );
}

#[test]
fn dns_counts_in_queries_and_in_bytes() {
    let mut world = World::new(Strictness::Learn);
    let large = udp(STRANGER, [host(20), GATEWAY], [9, 53], 1_000);
    let (count, reason) = world.until_refused(&large);
    assert_eq!((count, reason), (32 * 1024 / large.len() as u64, Reason::BudgetDnsBytes));
    let mut world = World::new(Strictness::Learn).with_limit(Class::DnsBytes, Limit::NONE);
    assert_eq!(world.until_refused(&large), (200, Reason::BudgetDnsQueries));
}

/// A DNS message with this many bytes in all, one question, and this id.
fn dns(id: u16, answer: bool, len: usize) -> Vec<u8> {
    let mut message = [id, if answer { 0x8180 } else { 0x0100 }, 1, 0, 0, 0].map(u16::to_be_bytes).concat();
    message.extend(b"\x07example\x03org\0\0\x01\0\x01");
    message.resize(len, 0);
    message
}

/// The frame with this behind its UDP header.
fn carrying(mut frame: Vec<u8>, data: &[u8]) -> Vec<u8> {
    let at = frame.len() - data.len();
    frame[at..].copy_from_slice(data);
    frame
}

#[test]
fn dns_answers_pass_when_asked_for_and_are_charged() {
    let mut world = World::new(Strictness::Learn);
    let query = carrying(udp(STRANGER, [host(20), GATEWAY], [9, 53], 60), &dns(7, false, 60));
    let answer =
        |to, id| carrying(udp_between([GATEWAY_MAC, to], [GATEWAY, host(20)], [53, 9], 1_200), &dns(id, true, 1_200));
    assert_eq!(world.receive(&answer(STRANGER, 7)), Outbound::Drop(Reason::DnsUnasked), "before the question");
    assert_eq!(world.send(&query), Reason::Dns);
    assert_eq!(world.receive(&answer(STRANGER, 8)), Outbound::Drop(Reason::DnsUnasked), "another id");
    assert_eq!(world.receive(&answer(ONE, 7)), Outbound::Drop(Reason::DnsUnasked), "another station");
    for _ in 0..26 {
        assert_eq!(world.receive(&answer(STRANGER, 7)), Outbound::Pass(Reason::Dns));
    }
    assert_eq!(
        world.receive(&answer(STRANGER, 7)),
        Outbound::Drop(Reason::BudgetDnsBytes),
        "the answers have spent it"
    );
    world.sleep(9 * S);
    assert_eq!(world.receive(&answer(STRANGER, 7)), Outbound::Pass(Reason::Dns), "a resolver may be slow");
    world.sleep(S);
    assert_eq!(world.receive(&answer(STRANGER, 7)), Outbound::Drop(Reason::DnsUnasked), "but not that slow");
}

#[test]
fn a_silent_guest_is_a_stranger_until_it_logs_in_again() {
    let mut world = World::new(Strictness::Learn);
    world.log_in(ONE, 0, |session| session.with_idle_s(60));
    let frame = anything(ONE, host(10));
    for _ in 0..10 {
        world.sleep(58 * S);
        assert_eq!(world.send(&frame), Reason::Authorized, "seen within the minute");
    }
    assert_eq!(world.receive(&udp_between([GATEWAY_MAC, ONE], [SITE, host(10)], [9, 9], 60)), Outbound::Metered);
    world.sleep(60 * S);
    assert_eq!(
        world.receive(&udp_between([GATEWAY_MAC, ONE], [SITE, host(10)], [9, 9], 60)),
        Outbound::Drop(Reason::ToStranger),
        "nor is it sent anything"
    );
    assert_eq!(world.send(&frame), Reason::UdpRefused);
    assert_eq!(world.send(&frame), Reason::UdpRefused, "what it sends as a stranger does not count as being there");
}

#[test]
fn a_quota_counts_both_directions_and_cuts_on_the_frame_that_crosses_it() {
    let mut world = World::new(Strictness::Learn);
    let up = anything(ONE, host(10));
    let down = udp_between([GATEWAY_MAC, ONE], [SITE, host(10)], [9, 9], 60);
    assert_eq!((up.len(), down.len()), (102, 102));
    world.log_in(ONE, 0, |session| session.with_quota(3 * 102));
    assert_eq!(world.send(&up), Reason::Authorized);
    assert_eq!(world.receive(&down), Outbound::Metered);
    assert_eq!(world.send(&up), Reason::Authorized, "just what it may");
    assert_eq!(world.receive(&down), Outbound::Drop(Reason::QuotaSpent));
    assert_eq!(world.send(&up), Reason::QuotaSpent);
    let state = &world.0.states[0];
    assert_eq!([&state.up.bytes, &state.down.bytes].map(Word::load), [204, 102], "only what passed is counted");
}

#[test]
fn frames_of_no_zone_pass_on_an_interface_that_is_all_in_shadow_mode() {
    const WATCHED: Zone = Zone::new(5);
    let mut world = World::new(Strictness::Learn);
    let tagged = |tags: &[u16]| ethernet(GATEWAY_MAC, STRANGER, tags, 0x1234);
    let frames = [(tagged(&[99]), Reason::NoZone), (tagged(&[1, 2, 3]), Reason::VlanTags)];
    for (frame, reason) in &frames {
        assert_eq!(locate(&frame[..], &world.0).err(), Some((UNZONED_ROW, *reason)), "dropped: no zone in shadow mode");
    }
    world.0.zones.insert(Attachment::new(0, ANY_VLAN, ANY_VLAN), WATCHED);
    world.0.configs.insert(WATCHED, GateConfig::new(GATEWAY_MAC).with_shadow(true));
    for (frame, reason) in &frames {
        let place = locate(&frame[..], &world.0).unwrap();
        assert_eq!(place.row(), Counters::row(WATCHED, true));
        assert_eq!(world.send(frame), *reason, "counted for what it is");
    }
    let place = locate(&anything(STRANGER, host(20))[..], &world.0).map(|place| place.client.zone());
    assert_eq!(place.ok(), Some(ZONE), "a zone of its own comes first");
}

/// The frame with these VLAN tags.
fn tagged(frame: &[u8], ids: &[u16]) -> Vec<u8> {
    let tags: Vec<u8> = ids.iter().flat_map(|id| [p::ETHER_VLAN.to_be_bytes(), id.to_be_bytes()].concat()).collect();
    [&frame[..12], &tags, &frame[12..]].concat()
}

#[test]
fn the_short_way_is_for_plain_packets_and_says_what_the_rules_say() {
    #[derive(Debug, PartialEq)]
    enum Way {
        Decided,
        Stranger,
        Unusual,
    }
    let site_v6 = Address::v6([0x20, 1, 0x0d, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80]);
    for (own, new, gateway, site, dhcp_server) in [
        (host(10), host(11), GATEWAY, SITE, p::PORT_DHCP_SERVER),
        (host_v6(10), host_v6(11), GATEWAY_V6, site_v6, p::PORT_DHCPV6_SERVER),
    ] {
        let mut world = World::new(Strictness::Learn);
        let now = world.0.now_ns;
        world.0.zones.insert(Attachment::new(0, 5, 0), ZONE);
        world.0.zones.insert(Attachment::new(0, 5, 6), ZONE);
        let slow = Rate::bits_per_second(Rate::MIN_BITS_PER_SECOND);
        let spent: [u8; 6] = [2, 0, 0, 0, 2, 1];
        let expired: [u8; 6] = [2, 0, 0, 0, 2, 2];
        world.log_in(ONE, 0, |session| session);
        world.log_in(OTHER, 1, |session| session.with_rates(slow, slow));
        world.log_in(spent, 2, |session| session.with_quota(1));
        world.log_in(expired, 3, |session| Session::new(0, now, session.slot()));
        let plain = anything(ONE, own);
        assert_eq!(world.send(&plain), Reason::Authorized, "from now on the address is bound");
        // It is refused with what binds its address, or later.
        while world.send(&anything(OTHER, new)) == Reason::Authorized {}
        let of_spent = Address::v4([192, 0, 2, 77]);
        assert_eq!(world.send(&anything(spent, of_spent)), Reason::QuotaSpent);
        let mut group = plain.clone();
        group[6] |= 1;
        let mut other_version = plain.clone();
        other_version[14] = 0x55;
        let icmp = if own == host(10) { p::ICMP } else { p::ICMPV6 };
        let icmp = packet([GATEWAY_MAC, ONE].concat(), [own, site], icmp, &[128, 0, 0, 0, 0, 0, 0, 0]);
        let icmp_way = if own == host(10) { Way::Decided } else { Way::Unusual };
        let tcp_to_site = tcp(ONE, [own, site], 443, flag::SYN);
        let to_portal = |flags| tcp(ONE, [own, gateway], PORTAL, flags);
        let same_port = tcp(ONE, [own, site], PORTAL, flag::SYN);
        let extended =
            packet([GATEWAY_MAC, ONE].concat(), [own, site], p::DESTINATION_OPTIONS, &[59, 0, 1, 4, 0, 0, 0, 0]);
        let extended_way = if own == host(10) { Way::Decided } else { Way::Unusual };
        let table: [(&str, Vec<u8>, Way); 21] = [
            ("a client's UDP", plain.clone(), Way::Decided),
            ("a client's TCP", tcp_to_site, Way::Decided),
            ("a client's TCP to the port that the portal has, elsewhere", same_port, Way::Decided),
            ("what opens a connection to the portal", to_portal(flag::SYN), Way::Unusual),
            ("a segment of one", to_portal(flag::ACK), Way::Unusual),
            ("behind an extension header, which only IPv6 has", extended, extended_way),
            ("a client's ping", icmp, icmp_way),
            ("with a tag", tagged(&plain, &[5]), Way::Decided),
            ("with a tag of no zone", tagged(&plain, &[7]), Way::Unusual),
            ("with two tags", tagged(&plain, &[5, 6]), Way::Unusual),
            ("over its rate", anything(OTHER, new), Way::Decided),
            ("over its quota", anything(spent, of_spent), Way::Decided),
            ("from an address that it is not bound to", anything(ONE, new), Way::Unusual),
            ("of a client whose session has expired", anything(expired, own), Way::Unusual),
            ("a stranger's", anything(STRANGER, own), Way::Stranger),
            ("a stranger's, with a tag", tagged(&anything(STRANGER, own), &[5]), Way::Stranger),
            ("from a group", group, Way::Unusual),
            ("cut within the network header", plain[..30].to_vec(), Way::Unusual),
            ("a byte shorter than it says", plain[..plain.len() - 1].to_vec(), Way::Unusual),
            ("of another version", other_version, Way::Unusual),
            ("from a DHCP server's port", udp(ONE, [own, site], [dhcp_server, 68], 60), Way::Unusual),
        ];
        for (sentence, frame, expected) in table {
            let (way, decided) = match familiar(&frame[..], &world.0) {
                Familiar::Decided { action, reason, .. } => (Way::Decided, Some((action, reason))),
                Familiar::Stranger(_) => (Way::Stranger, None),
                Familiar::Unusual => (Way::Unusual, None),
            };
            assert_eq!(way, expected, "{sentence}, {own:?}");
            if let Some((action, reason)) = decided {
                assert_eq!(reason, world.send(&frame), "{sentence}, {own:?}: the rules");
                assert_eq!(action == Action::Pass, reason == Reason::Authorized, "{sentence}, {own:?}");
            }
        }
    }
}

/// A TCP segment to the portal from this address and port.
fn to_portal(mac: [u8; 6], from: Address, port: u16, flags: u8) -> Vec<u8> {
    let to = if from.words()[0] == 0 { GATEWAY } else { GATEWAY_V6 };
    let mut frame = tcp(mac, [from, to], PORTAL, flags);
    let at = frame.len() - 20;
    frame[at..at + 2].copy_from_slice(&port.to_be_bytes());
    frame
}

#[test]
fn who_sent_the_syn_sends_the_rest_of_a_connection_to_the_portal_and_nobody_else() {
    use flag::{ACK, FIN, PSH, RST, SYN};
    const P: Reason = Reason::PortalService;
    const A: Reason = Reason::Authorized;
    const X: Reason = Reason::ConnectionOfAnother;
    /// A sentence, how long after the last one, who, its flags, and what becomes of it.
    type Step = (&'static str, u64, [u8; 6], u8, Reason);
    // ONE is a guest, STRANGER and OTHER are not. All of it from one address and port, which the zone does not look at: only the note tells them apart.
    let steps: [Step; 22] = [
        ("a segment of a connection that nobody began", 0, STRANGER, ACK | PSH, P),
        ("another's, as nothing was noted", 0, ONE, ACK | PSH, A),
        ("an answer to a SYN begins nothing", 0, OTHER, SYN | ACK, P),
        ("a guest's SYN", 0, ONE, SYN, A),
        ("its ACK", 0, ONE, ACK, A),
        ("a stranger's data in between", 0, STRANGER, ACK | PSH, X),
        ("its end", 0, STRANGER, ACK | FIN, X),
        ("its reset", 0, STRANGER, RST, X),
        ("its SYN", 0, STRANGER, SYN, X),
        ("its SYN with whatever else", 0, STRANGER, SYN | PSH | 0xe0, X),
        ("the guest's data", 0, ONE, ACK | PSH, A),
        ("a SYN just before it may be over", 30 * S - 1, STRANGER, SYN, X),
        ("data when it is over", 1, STRANGER, ACK | PSH, X),
        ("a SYN when it is over", 0, STRANGER, SYN, P),
        ("the stranger's data", 0, STRANGER, ACK | PSH, P),
        ("a guest's data in between", 0, ONE, ACK | PSH, X),
        ("and another stranger's", 0, OTHER, ACK | PSH, X),
        ("the stranger's last, a while later", 20 * S, STRANGER, ACK, P),
        ("the guest's SYN: it was not over", 20 * S, ONE, SYN, X),
        ("the stranger's own SYN again", 0, STRANGER, SYN, P),
        ("the guest's SYN when it is over", 40 * S, ONE, SYN, A),
        ("the stranger's then", 0, STRANGER, ACK, X),
    ];
    for from in [host(20), host_v6(20)] {
        let mut world = World::new(Strictness::Off);
        world.log_in(ONE, 0, |session| session);
        for (sentence, later, mac, flags, expected) in steps {
            world.sleep(later);
            assert_eq!(world.send(&to_portal(mac, from, 40_001, flags)), expected, "{sentence}, {from:?}");
        }
        let key = ConnectionKey::new(ZONE, from, 40_001);
        assert_eq!(world.0.connection(&key).map(|note| note.client), Some(ClientKey::new(ZONE, ONE)));
        assert_eq!(world.send(&to_portal(STRANGER, from, 40_002, SYN)), P, "another port is another connection");
        let elsewhere = tcp(STRANGER, [host(20), GATEWAY], 53, SYN);
        assert_eq!(world.send(&elsewhere), Reason::DnsTcp, "and what is not for the portal none of these");
        assert_eq!(world.0.connections.borrow().len(), 2);
    }
}

#[test]
fn nothing_gets_to_the_portal_that_hides_whose_it_is() {
    let fragment = |mut frame: Vec<u8>, offset: u16| {
        frame[20..22].copy_from_slice(&offset.to_be_bytes());
        frame[24..26].fill(0);
        let checksum = Sum::new().bytes(&frame[14..34]).checksum();
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        frame
    };
    let site_v6 = Address::v6([0x20, 1, 0x0d, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80]);
    let behind = |to, header, next: u8| {
        // Where another header follows, it leads to a segment.
        let bytes = [next, 0, 1, 4, 0, 0, 0, 0, p::TCP, 0, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0];
        packet([GATEWAY_MAC, ONE].concat(), [host_v6(10), to], header, &bytes)
    };
    let segment = to_portal(ONE, host(10), 40_001, flag::ACK);
    let datagram = udp(ONE, [host(10), GATEWAY], [9, 9], 60);
    let hidden = Reason::ConnectionHidden;
    let table: [(&str, Vec<u8>, Reason); 13] = [
        ("the first fragment of a segment", fragment(segment.clone(), 0x2000), hidden),
        ("eight bytes of it", fragment([&segment[..16], &[0, 28], &segment[18..42]].concat(), 0x2000), hidden),
        ("a later one, which is nothing without it", fragment(segment.clone(), 0x2001), Reason::Authorized),
        ("a fragment of something else", fragment(datagram, 0x2000), Reason::Authorized),
        ("a segment cut within its header", [&segment[..16], &[0, 28], &segment[18..42]].concat(), hidden),
        ("a segment behind destination options", behind(GATEWAY_V6, p::DESTINATION_OPTIONS, p::TCP), hidden),
        ("in an IPv6 fragment", behind(GATEWAY_V6, p::FRAGMENT, p::TCP), hidden),
        ("behind a routing header", behind(GATEWAY_V6, p::ROUTING, p::TCP), hidden),
        ("behind authentication", behind(GATEWAY_V6, p::AUTHENTICATION, p::TCP), hidden),
        ("behind more than one header", behind(GATEWAY_V6, p::HOP_BY_HOP, p::DESTINATION_OPTIONS), hidden),
        ("a datagram in fragments", behind(GATEWAY_V6, p::FRAGMENT, p::UDP), Reason::Authorized),
        ("a large ping", behind(GATEWAY_V6, p::FRAGMENT, p::ICMPV6), Reason::Authorized),
        ("what is not for the gateway", behind(site_v6, p::FRAGMENT, p::TCP), Reason::Authorized),
    ];
    for (sentence, frame, expected) in table {
        let mut world = World::new(Strictness::Learn);
        world.log_in(ONE, 0, |session| session);
        assert_eq!(world.send(&frame), expected, "{sentence}");
        assert!(!matches!(familiar(&frame[..], &world.0), Familiar::Decided { .. }) || expected == Reason::Authorized);
        assert!(world.0.connections.borrow().is_empty(), "{sentence}");
    }
}

#[test]
fn nobody_begins_more_connections_to_the_portal_than_a_household_does() {
    for (mac, passes) in [(STRANGER, Reason::PortalService), (ONE, Reason::Authorized)] {
        let mut world = World::new(Strictness::Learn).with_limit(Class::Services, Limit::NONE);
        world.log_in(ONE, 0, |session| session);
        let begun = |world: &mut World, first: u16| {
            (first..first + 1_000)
                .take_while(|port| world.send(&to_portal(mac, host(20), *port, flag::SYN)) == passes)
                .count()
        };
        assert_eq!(begun(&mut world, 1), 200, "at once");
        assert_eq!(world.send(&to_portal(mac, host(20), 9_999, flag::SYN)), Reason::BudgetConnections);
        assert_eq!(world.send(&to_portal(mac, host(20), 7, flag::SYN)), passes, "one of them again");
        assert_eq!(world.send(&to_portal(mac, host(20), 7, flag::ACK)), passes, "and its segments");
        world.sleep(S);
        assert_eq!(begun(&mut world, 10_000), 20, "in a second");
        assert_eq!(world.0.connections.borrow().len(), 220);
        let other = to_portal(OTHER, host(30), 1, flag::SYN);
        assert_eq!(world.send(&other), Reason::PortalService, "another has its own");
    }
}

#[test]
fn in_shadow_mode_the_page_knows_its_client_whatever_the_budget_says() {
    for (limit, reason) in [(Limit::NONE, Reason::PortalService), (Limit::NOTHING, Reason::BudgetServices)] {
        let mut world = World::new(Strictness::Learn).with_limit(Class::Services, limit);
        let config = world.0.configs[&ZONE];
        world.0.configs.insert(ZONE, config.with_shadow(true));
        for (from, port) in [(host(20), 1), (host_v6(20), 2)] {
            assert_eq!(world.send(&to_portal(STRANGER, from, port, flag::SYN)), reason);
            let note = world.0.connection(&ConnectionKey::new(ZONE, from, port));
            assert_eq!(note.map(|note| note.client), Some(ClientKey::new(ZONE, STRANGER)));
        }
        // Where it is enforced, who has no budget is not noted either.
        world.0.configs.insert(ZONE, config);
        world.send(&to_portal(STRANGER, host(20), 3, flag::SYN));
        assert_eq!(world.0.connections.borrow().len(), if limit == Limit::NONE { 3 } else { 2 });
    }
}

#[test]
fn an_address_that_cannot_be_noted_makes_its_client_a_stranger() {
    for address in [host(10), host_v6(10)] {
        let mut world = World::new(Strictness::Learn);
        world.log_in(ONE, 0, |session| session);
        world.0.owners_room = 0;
        let reason = world.send(&anything(ONE, address));
        assert_eq!(reason, Reason::UdpRefused, "{address:?}: never an unprotected member");
        assert!(world.told().contains(&Kind::TooManyAddresses), "{address:?}");
        world.0.owners_room = 1;
        assert_eq!(world.send(&anything(ONE, address)), Reason::Authorized, "{address:?}: with room again");
    }
}
