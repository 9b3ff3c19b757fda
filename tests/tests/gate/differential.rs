//! Generated frames under generated configurations: the loaded programs and the host's build of the decision must agree, and what must never happen
//! does not.

use std::cell::RefCell;

use portal_common::{
    Reason,
    budget::{Class, Limit},
    decide::{Action, Outbound, locate},
    host::HostTables,
    tables::{GateConfig, HttpsPolicy, MAX_BINDINGS, Strictness, Zone},
};
use portal_lab::verdicts::{
    frames::{Ack, Arp, Extension, Frame, Ipv4, Ipv6, Network, Payload, Tcp},
    outbound_rows,
    setting::{
        ALL_NODES_V6, CLIENT_V4, CLIENT_V6, EXPIRED, FAST, FREE, GARDEN_V4, GARDEN_V6, GATEWAY_MAC, GATEWAY_V4,
        GATEWAY_V6, GUEST, GUEST_V4, GUEST_V6, IDLE, LEARN, LINK_LOCAL_V6, NAMED_V4, NAMED_V6, NOTED_PORT, NTP_V4,
        OWNED_V4, OWNED_V6, OWNER, RESOLVER_V6, SETTLED, SETTLED_V4, SITE_V4, SITE_V6, SPENT, STRANGER, STRICT,
        Setting, UNCHECKED, config_of,
    },
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::{
    bench::{Bench, LOOPBACK, Run},
    reply::check_answer,
};

/// How many frames are tried: `PORTAL_DIFFERENTIAL_FRAMES` in the environment, or this many.
const FRAMES: u32 = 100_000;

fn frames() -> u32 {
    std::env::var("PORTAL_DIFFERENTIAL_FRAMES")
        .map_or(FRAMES, |number| number.parse().expect("PORTAL_DIFFERENTIAL_FRAMES is a number of frames"))
}

#[test]
fn kernel_and_host_agree_on_generated_frames_and_configurations() {
    let frames = frames();
    let bench = RefCell::new(Bench::new(&Setting::standard(LOOPBACK)));
    let reasons = RefCell::new(std::collections::BTreeMap::<Reason, u64>::new());
    let config = Config { cases: frames, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&(configuration(), frame(), mutation()), |(config, frame, mutation)| {
        let mut bench = bench.borrow_mut();
        bench.configure(config.0, config.1);
        bench.forget_learned();
        let run = bench.run(|cookies| mutation.apply(frame.to_bytes(cookies)));
        prop_assert_eq!(run.agreement(), Ok(()));
        prop_assert_eq!(keeps_the_rules(&run, bench.host()), Ok(()));
        *reasons.borrow_mut().entry(run.decided.1).or_default() += 1;
        Ok(())
    });
    if let Err(e) = result {
        panic!("{e}");
    }
    bench.borrow().demand_equal_states();
    println!("{frames} generated frames: the same verdict, reason and bytes; {:?}", reasons.borrow());
}

#[test]
fn kernel_and_host_agree_on_generated_frames_to_guests() {
    const SHORTEST: usize = 54;
    const LONGEST: usize = 3_000;
    let bench = RefCell::new(Bench::without_responder(&Setting::standard(LOOPBACK)));
    let rows = outbound_rows();
    let reasons = RefCell::new(std::collections::BTreeMap::<Reason, u64>::new());
    // A fifth: there are fewer ways to be decided about.
    let frames = frames() / 5;
    let config = Config { cases: frames, failure_persistence: None, ..Config::default() };
    let row = prop_oneof![3 => any::<prop::sample::Index>().prop_map(Some), 1 => Just(None)];
    let input = (configuration(), (row, frame()), mutation(), any::<bool>(), prop::bool::weighted(0.1));
    let result = TestRunner::new(config).run(&input, |(config, (row, frame), mutation, forwarded, relayed)| {
        let mut bench = bench.borrow_mut();
        bench.configure(config.0, config.1);
        let cookies = bench.cookies();
        let frame = if let Some(row) = row {
            rows[row.index(rows.len())].frame.to_bytes(&cookies)
        } else {
            // What a guest could have sent, sent back to it.
            let bytes = frame.to_bytes(&cookies);
            [&bytes[6..12], &bytes[..6], &bytes[12..]].concat()
        };
        let frame = mutation.apply(frame);
        // The kernel's test run refuses what has no room for an IP header, and what does not fit a page.
        if !(SHORTEST..=LONGEST).contains(&frame.len()) {
            return Ok(());
        }
        let departed = bench.depart(&frame, relayed, forwarded);
        prop_assert_eq!(departed.agreement(), Ok(()));
        // What is held fills a ring.
        while bench.maps.answers.next().is_some() {}
        if let Outbound::Pass(reason) = departed.decided {
            prop_assert!(STRANGERS_RECEIVE.contains(&reason), "a stranger is sent it for {reason:?}");
        }
        *reasons.borrow_mut().entry(departed.decided.reason()).or_default() += 1;
        Ok(())
    });
    if let Err(e) = result {
        panic!("{e}");
    }
    bench.borrow().demand_equal_states();
    println!("{frames} generated frames to guests: the same verdict and reason; {:?}", reasons.borrow());
}

/// What a frame to a station without a session may pass for.
const STRANGERS_RECEIVE: [Reason; 14] = [
    Reason::Arp,
    Reason::Eapol,
    Reason::NeighborDiscovery,
    Reason::MulticastListener,
    Reason::Dhcp,
    Reason::Dns,
    Reason::DnsTcp,
    Reason::PortalService,
    Reason::Ntp,
    Reason::Garden,
    Reason::GardenName,
    Reason::LinkGroup,
    Reason::IcmpRelated,
    Reason::GatewayEcho,
];

/// What a stranger's frame may pass for: design lines 1 to 4.
const STRANGERS_PASS: [Reason; 14] = [
    Reason::IcmpError,
    Reason::Echo,
    Reason::Igmp,
    Reason::Arp,
    Reason::Eapol,
    Reason::NeighborDiscovery,
    Reason::MulticastListener,
    Reason::Dhcp,
    Reason::Dns,
    Reason::DnsTcp,
    Reason::PortalService,
    Reason::Ntp,
    Reason::Garden,
    Reason::GardenName,
];

/// What a frame of a client with a session may be dropped for: its limits, its address, what only the gateway may send, another's connection to the
/// portal, malformation, and a place where it has no session.
const MEMBERS_DROP: [Reason; 21] = [
    Reason::ForeignSource,
    Reason::ArpIdentity,
    Reason::NeighborIdentity,
    Reason::DhcpIdentity,
    Reason::HiddenDiscovery,
    Reason::ExtensionChain,
    Reason::RateUp,
    Reason::QuotaSpent,
    Reason::ConnectionOfAnother,
    Reason::ConnectionHidden,
    Reason::SpoofedAddress,
    Reason::GatewayAddress,
    Reason::RouterAdvertisement,
    Reason::DhcpServer,
    Reason::FrameTruncated,
    Reason::Ipv4Malformed,
    Reason::Ipv6Malformed,
    Reason::ArpMalformed,
    Reason::VlanTags,
    Reason::ConfigMissing,
    Reason::NoZone,
];

/// What must hold of every frame, whoever wrote the rules.
fn keeps_the_rules(run: &Run, tables: &HostTables) -> Result<(), String> {
    let (action, reason, answer) = &run.decided;
    let (action, reason) = (*action, *reason);
    let member = locate(&run.cause[..], tables).ok().and_then(|place| {
        let session = tables.sessions.get(&place.client)?;
        let live = session.is_live(tables.now_ns) && place.client.mac() != IDLE;
        live.then_some((place.config.strictness(), session.slot()))
    });
    match (member, action) {
        (None, Action::Pass) if !STRANGERS_PASS.contains(&reason) => Err(format!("a stranger passes for {reason:?}")),
        (Some((strictness, slot)), Action::Drop) if !MEMBERS_DROP.contains(&reason) => {
            // With one address too many it is a stranger.
            let full = bound(tables, slot) == MAX_BINDINGS;
            if strictness == Strictness::Strict && full {
                Ok(())
            } else {
                Err(format!("a guest is dropped for {reason:?}"))
            }
        }
        (_, Action::Answer) => check_answer(&run.cause, answer),
        _ => Ok(()),
    }?;
    if run.done.is_shadow() && (run.done.action != Action::Pass || run.done.frame != run.cause) {
        return Err("shadow mode changed something".into());
    }
    Ok(())
}

fn bound(tables: &HostTables, slot: u32) -> usize {
    let state = portal_lab::verdicts::setting::plain(&tables.states[slot as usize]);
    state.bindings.iter().count()
}

/// A zone's configuration; its strictness is as in the setting, so that what is learned stays the same in the kernel and on the host.
fn configuration() -> impl Strategy<Value = (Zone, GateConfig)> {
    let zone = prop::sample::select(vec![LEARN, STRICT, UNCHECKED]);
    let https = prop::sample::select(vec![HttpsPolicy::Reset, HttpsPolicy::Alert, HttpsPolicy::Drop]);
    let garden = prop_oneof![2 => Just((true, true)), 1 => Just((true, false)), 1 => Just((false, false))];
    let limits = prop::collection::vec(prop::bool::weighted(0.1), Class::COUNT);
    (zone, https, garden, (prop::bool::weighted(0.1), any::<bool>()), limits).prop_map(
        |(zone, https, (garden, names), (shadow, accounting), limits)| {
            let config = config_of(zone).with_https(https).with_garden(garden, names).with_shadow(shadow);
            let config = config.with_accounting(accounting);
            let config = Class::ALL.iter().zip(limits).fold(config, |config, (class, nothing)| {
                config.with_limit(*class, if nothing { Limit::NOTHING } else { Limit::NONE })
            });
            (zone, config)
        },
    )
}

/// What is done to the bytes of a frame at last.
#[derive(Clone, Debug)]
enum Mutation {
    None,
    Truncate(prop::sample::Index),
    Flip(Vec<(prop::sample::Index, u8)>),
    Replace(Vec<u8>),
}

impl Mutation {
    fn apply(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        // The kernel's test run refuses less than an Ethernet header.
        const LEAST: usize = 14;
        match self {
            Self::None => {}
            Self::Truncate(at) => bytes.truncate(LEAST + at.index(bytes.len() - LEAST + 1)),
            Self::Flip(flips) => {
                for (at, mask) in flips {
                    let at = at.index(bytes.len().min(96));
                    bytes[at] ^= mask;
                }
            }
            Self::Replace(other) => bytes.clone_from(other),
        }
        bytes
    }
}

fn mutation() -> BoxedStrategy<Mutation> {
    prop_oneof![
        15 => Just(Mutation::None),
        1 => any::<prop::sample::Index>().prop_map(Mutation::Truncate),
        2 => prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..4).prop_map(Mutation::Flip),
        1 => prop::collection::vec(any::<u8>(), 14..200).prop_map(Mutation::Replace),
    ]
    .boxed()
}

fn frame() -> BoxedStrategy<Frame> {
    let destination = prop_oneof![20 => Just(GATEWAY_MAC), 1 => Just([0xff; 6]), 1 => any::<[u8; 6]>()];
    let source = prop_oneof![
        8 => Just(STRANGER),
        4 => prop::sample::select(vec![GUEST, EXPIRED, FAST, SPENT, IDLE, OWNER, SETTLED, FREE]),
        1 => any::<[u8; 6]>()
    ];
    let tag = (prop_oneof![Just(0x8100u16), Just(0x88a8)], any::<u16>());
    let tags = prop_oneof![
        6 => Just(Vec::new()),
        6 => prop::sample::select(vec![10u16, 30, 20, 60]).prop_map(|id| vec![(0x8100, id)]),
        1 => prop::sample::select(vec![
            vec![(0x8100, 70)], vec![(0x8100, 99)], vec![(0x8100, 0xe000)], vec![(0x88a8, 100), (0x8100, 20)],
            vec![(0x8100, 0), (0x8100, 10)],
        ]),
        1 => prop::collection::vec(tag, 1..4),
    ];
    let other = (
        prop_oneof![Just(0x888eu16), Just(0x0806), 0..0x600u16, any::<u16>()],
        prop::collection::vec(any::<u8>(), 0..64),
    );
    let network = prop_oneof![
        12 => ipv4().prop_map(Network::V4),
        12 => ipv6().prop_map(Network::V6),
        2 => arp().prop_map(Network::Arp),
        1 => other.prop_map(|(ether_type, payload)| Network::Other { ether_type, payload }),
    ];
    (destination, source, tags, network, prop_oneof![3 => Just(0usize), 1 => 0..40usize])
        .prop_map(|(destination, source, tags, network, padding)| Frame { destination, source, tags, network, padding })
        .boxed()
}

fn length_error() -> impl Strategy<Value = i16> {
    prop_oneof![29 => Just(0i16), 1 => -60..60i16]
}

fn source_v4() -> impl Strategy<Value = [u8; 4]> {
    prop_oneof![
        6 => Just(CLIENT_V4),
        3 => prop::sample::select(vec![GUEST_V4, OWNED_V4, SETTLED_V4, GATEWAY_V4, [0; 4]]),
        1 => any::<[u8; 4]>()
    ]
}

fn source_v6() -> impl Strategy<Value = [u8; 16]> {
    prop_oneof![
        6 => Just(CLIENT_V6),
        3 => prop::sample::select(vec![LINK_LOCAL_V6, GUEST_V6, OWNED_V6, GATEWAY_V6, RESOLVER_V6, [0; 16]]),
        1 => any::<[u8; 16]>()
    ]
}

fn arp() -> impl Strategy<Value = Arp> {
    let hardware = prop_oneof![9 => Just(1u16), 1 => any::<u16>()];
    let len = prop_oneof![9 => Just(28usize), 1 => 0..28usize];
    let sender_mac = prop_oneof![6 => Just(None), 1 => Just(Some(OWNER))];
    (1..3u16, hardware, sender_mac, source_v4(), any::<[u8; 4]>(), len).prop_map(
        |(operation, hardware, sender_mac, sender, target, len)| Arp {
            operation,
            hardware,
            sender_mac,
            sender,
            target,
            len,
        },
    )
}

fn ipv4() -> BoxedStrategy<Ipv4> {
    let destination = prop_oneof![
        6 => Just(SITE_V4),
        5 => prop::sample::select(vec![GATEWAY_V4, GARDEN_V4, NAMED_V4, NTP_V4]),
        1 => Just([255; 4]),
        1 => any::<[u8; 4]>()
    ];
    let option = prop_oneof![prop::sample::select(vec![1u8, 131, 137, 7, 148]), any::<u8>()];
    let options = prop_oneof![19 => Just(Vec::new()), 1 => prop::collection::vec(option, 1..41)];
    let flags_and_offset = prop_oneof![14 => Just(0x4000u16), 5 => Just(0), 1 => any::<u16>()];
    let version_and_ihl = prop_oneof![19 => Just(None), 1 => any::<u8>().prop_map(Some)];
    let bad_checksum = prop::bool::weighted(0.05);
    (source_v4(), destination, options, flags_and_offset, length_error(), bad_checksum, version_and_ihl, payload())
        .prop_map(
            |(source, destination, options, flags_and_offset, length_error, bad_checksum, version_and_ihl, payload)| {
                Ipv4 {
                    source,
                    destination,
                    ttl: if matches!(payload, Payload::Bytes { protocol: 2, .. }) { 1 } else { 64 },
                    options,
                    flags_and_offset,
                    length_error,
                    bad_checksum,
                    version_and_ihl,
                    payload,
                }
            },
        )
        .boxed()
}

fn ipv6() -> BoxedStrategy<Ipv6> {
    let destination = prop_oneof![
        6 => Just(SITE_V6),
        5 => prop::sample::select(vec![GATEWAY_V6, GARDEN_V6, NAMED_V6, RESOLVER_V6]),
        1 => Just(ALL_NODES_V6),
        1 => any::<[u8; 16]>()
    ];
    let hop_limit = prop_oneof![2 => Just(64u8), 1 => Just(255), 1 => Just(1), 1 => any::<u8>()];
    let version = prop_oneof![19 => Just(6u8), 1 => 0..16u8];
    let units = prop_oneof![4 => 0..4u8, 1 => any::<u8>()];
    let extension = (prop::sample::select(vec![0u8, 43, 44, 51, 60, 135, 139, 140]), units)
        .prop_map(|(protocol, units)| Extension { protocol, units });
    let extensions = prop_oneof![8 => Just(Vec::new()), 2 => prop::collection::vec(extension, 1..7)];
    (source_v6(), destination, hop_limit, length_error(), version, extensions, payload())
        .prop_map(|(source, destination, hop_limit, length_error, version, extensions, payload)| Ipv6 {
            source,
            destination,
            hop_limit,
            length_error,
            version,
            extensions,
            payload,
        })
        .boxed()
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![
        4 => Just(80u16),
        2 => Just(8080),
        3 => Just(443),
        3 => prop::sample::select(vec![53u16, 8080, 67, 68, 546, 547, 853, 22, 123, 8443]),
        1 => any::<u16>(),
    ]
}

fn payload() -> BoxedStrategy<Payload> {
    let data = prop_oneof![20 => 0..60usize, 10 => 1000..1400usize, 1 => 3000..9000usize];
    let udp = (port(), port(), data, length_error()).prop_map(|(source_port, destination_port, data, length_error)| {
        Payload::Udp { source_port, destination_port, data, length_error }
    });
    let kind = || prop_oneof![3 => 128..145u8, 1 => any::<u8>()];
    prop_oneof![
        16 => tcp().prop_map(Payload::Tcp),
        8 => udp,
        2 => any::<u8>().prop_map(Payload::Icmp),
        3 => kind().prop_map(Payload::Icmpv6),
        2 => source_v6().prop_map(Payload::Advertisement),
        1 => (kind(), 0..2u8, 2..30usize).prop_map(|(kind, code, len)| Payload::ShortIcmpv6 { kind, code, len }),
        2 => kind().prop_map(Payload::RouterAlert),
        2 => any::<u8>().prop_map(Payload::Other),
        3 => discovery(),
        2 => report(),
        1 => prop::sample::select(vec![0x11u8, 0x12, 0x16, 0x17, 0x22]).prop_map(|kind| {
            Payload::Bytes { protocol: 2, what: "IGMP".into(), bytes: vec![kind, 0, 0, 0, 0, 0, 0, 0] }
        }),
        1 => prop::sample::select(vec![(1u8, 8u8), (1, 0), (58, 128), (58, 129)]).prop_map(|(protocol, kind)| {
            Payload::Bytes { protocol, what: "a ping".into(), bytes: [&[kind, 0, 0, 0, 0, 1, 0, 1][..], &[0; 56]].concat() }
        }),
        2 => dhcp(),
    ]
    .boxed()
}

fn mac() -> impl Strategy<Value = [u8; 6]> {
    prop::sample::select(vec![STRANGER, GUEST, OWNER, SETTLED, IDLE])
}

/// Neighbour discovery with some options, right ones and others.
fn discovery() -> impl Strategy<Value = Payload> {
    let option = prop_oneof![
        6 => (1..3u8, mac()).prop_map(|(kind, mac)| [&[kind, 1][..], &mac].concat()),
        2 => (any::<u8>(), 1..4u8).prop_map(|(kind, units)| {
            let mut option = vec![kind, units];
            option.resize(8 * usize::from(units), 0);
            option
        }),
        1 => prop::collection::vec(any::<u8>(), 0..9),
    ];
    (prop::sample::select(vec![133u8, 135, 136]), source_v6(), prop::collection::vec(option, 0..7)).prop_map(
        |(kind, target, options)| {
            let head = if kind == 133 {
                vec![kind, 0, 0, 0, 0, 0, 0, 0]
            } else {
                [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target].concat()
            };
            Payload::Bytes { protocol: 58, what: "discovery".into(), bytes: [head, options.concat()].concat() }
        },
    )
}

/// ICMP errors about segments of this station and others.
fn report() -> impl Strategy<Value = Payload> {
    let segment = |port| {
        Payload::Tcp(Tcp {
            source_port: port,
            destination_port: 40_000,
            seq: 1,
            ack: Ack::Number(1),
            flags: 0x10,
            options: 0,
            data: 0,
            data_offset: None,
        })
    };
    let v4 = (prop::sample::select(vec![GATEWAY_V4, GARDEN_V4, NAMED_V4, SITE_V4]), source_v4(), port(), any::<u8>())
        .prop_map(move |(source, destination, port, odd)| {
            let version_and_ihl = (odd < 8).then_some(0x46);
            let flags_and_offset = if (8..16).contains(&odd) { 1 } else { 0x4000 };
            let (options, length_error, bad_checksum, payload) = (Vec::new(), 0, false, segment(port));
            Network::V4(Ipv4 {
                source,
                destination,
                ttl: 64,
                options,
                flags_and_offset,
                length_error,
                bad_checksum,
                version_and_ihl,
                payload,
            })
        });
    let v6 = (prop::sample::select(vec![GATEWAY_V6, GARDEN_V6, NAMED_V6, SITE_V6]), source_v6(), port()).prop_map(
        move |(source, destination, port)| {
            let (extensions, payload) = (Vec::new(), segment(port));
            Network::V6(Ipv6 { source, destination, hop_limit: 64, length_error: 0, version: 6, extensions, payload })
        },
    );
    let v4 = (prop::sample::select(vec![3u8, 11, 12]), v4);
    let v6 = (prop::sample::select(vec![1u8, 2, 3, 4]), v6);
    prop_oneof![v4, v6].prop_map(|(kind, quoted)| Payload::Error { kind, quoted: Box::new(quoted) })
}

/// DHCP and DHCPv6 clients' messages with some options, right ones and others.
fn dhcp() -> impl Strategy<Value = Payload> {
    let v4_option = prop_oneof![
        3 => mac().prop_map(|mac| [&[61, 7, 1][..], &mac].concat()),
        3 => (any::<u8>(), prop::collection::vec(any::<u8>(), 0..12)).prop_map(|(kind, data)| [vec![kind, data.len() as u8], data].concat()),
        1 => Just(vec![0]),
        1 => Just(vec![255]),
    ];
    let v4 = (mac(), prop::bool::weighted(0.1), prop::collection::vec(v4_option, 0..26)).prop_map(
        |(mac, relayed, options)| {
            let mut message = vec![0; 240];
            message[..3].copy_from_slice(&[1, 1, 6]);
            message[24] = u8::from(relayed);
            message[28..34].copy_from_slice(&mac);
            message[236..].copy_from_slice(&[99, 130, 83, 99]);
            message.extend(options.concat());
            (68u16, 67u16, message)
        },
    );
    let v6_option = prop_oneof![
        2 => (prop::sample::select(vec![1u8, 2, 3]), mac()).prop_map(|(kind, mac)| {
            let body = [&[0, kind, 0, 1][..], &[0; 4][..if kind == 1 { 4 } else { 0 }], &mac].concat();
            [&[0, 1, 0, body.len() as u8][..], &body].concat()
        }),
        3 => (any::<u16>(), prop::collection::vec(any::<u8>(), 0..12)).prop_map(|(code, data)| {
            [&code.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), &data].concat()
        }),
    ];
    let v6 = (1..13u8, prop::collection::vec(v6_option, 0..16))
        .prop_map(|(kind, options)| (546u16, 547u16, [vec![kind, 1, 2, 3], options.concat()].concat()));
    prop_oneof![v4, v6].prop_map(|(from, to, message)| {
        let head = [from.to_be_bytes(), to.to_be_bytes(), (8 + message.len() as u16).to_be_bytes(), [0; 2]].concat();
        Payload::Bytes { protocol: 17, what: "DHCP".into(), bytes: [head, message].concat() }
    })
}

fn tcp() -> BoxedStrategy<Tcp> {
    let flags = prop_oneof![2 => Just(0x02u8), 4 => Just(0x10), 2 => Just(0x18), 2 => Just(0x11), 1 => Just(0x04), 1 => any::<u8>()];
    let options = prop_oneof![1 => Just(0u8), 1 => Just(3), 1 => 0..11u8];
    let data = prop_oneof![8 => Just(0usize), 8 => 1..200usize, 4 => 1400..1800usize, 1 => 4000..8000usize];
    let data_offset = prop_oneof![19 => Just(None), 1 => any::<u8>().prop_map(Some)];
    let ack = prop_oneof![
        1 => any::<u32>().prop_map(Ack::Number),
        // Just after the handshake, around the ends of what a response may be, and beyond.
        4 => (any::<u32>(), prop_oneof![Just(0u32), 0..20u32, 0..2100u32]).prop_map(|(client_isn, received)| Ack::Cookie { client_isn, received }),
    ];
    // Few of those that open connections to the portal, so that stations meet in them.
    let source_port = prop_oneof![2 => Just(NOTED_PORT), 2 => 40_000..40_004u16, 1 => any::<u16>()];
    (source_port, port(), any::<u32>(), ack, flags, options, data, data_offset, any::<bool>())
        .prop_map(|(source_port, destination_port, seq, ack, flags, options, data, data_offset, first)| {
            let seq = match ack {
                Ack::Cookie { client_isn, .. } if first => client_isn.wrapping_add(1),
                Ack::Cookie { .. } | Ack::Number(_) => seq,
            };
            Tcp { source_port, destination_port, seq, ack, flags, options, data, data_offset }
        })
        .boxed()
}
