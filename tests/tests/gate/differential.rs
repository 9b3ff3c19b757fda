//! The same frames through the loaded program and the host's build of the decision.

use std::cell::RefCell;

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::{
    bench::Bench,
    frames::{
        ALL_NODES_V6, Ack, CLIENT_V4, CLIENT_V6, EXPIRED, Frame, GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, GUEST, Ipv4,
        Ipv6, LINK_LOCAL_V6, Network, Payload, SITE_V4, SITE_V6, STRANGER, Tcp,
    },
};

/// How many frames are tried: `PORTAL_DIFFERENTIAL_FRAMES` in the environment, or this many.
const FRAMES: u32 = 100_000;

#[test]
fn kernel_and_host_agree_on_generated_frames() {
    let frames = std::env::var("PORTAL_DIFFERENTIAL_FRAMES")
        .map_or(FRAMES, |number| number.parse().expect("PORTAL_DIFFERENTIAL_FRAMES is a number of frames"));
    let bench = RefCell::new(Bench::new());
    let config = Config { cases: frames, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&(frame(), mutation()), |(frame, mutation)| {
        let (kernel, host) = bench.borrow_mut().run(|cookies| mutation.apply(frame.to_bytes(cookies)));
        prop_assert_eq!(&kernel, &host);
        Ok(())
    });
    if let Err(e) = result {
        panic!("{e}");
    }
    println!("{frames} generated frames: the same verdict, reason and bytes");
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
        6 => Just(Mutation::None),
        1 => any::<prop::sample::Index>().prop_map(Mutation::Truncate),
        2 => prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..4).prop_map(Mutation::Flip),
        1 => prop::collection::vec(any::<u8>(), 14..200).prop_map(Mutation::Replace),
    ]
    .boxed()
}

fn frame() -> BoxedStrategy<Frame> {
    let destination = prop_oneof![8 => Just(GATEWAY_MAC), 1 => Just([0xff; 6]), 1 => any::<[u8; 6]>()];
    let source = prop_oneof![8 => Just(STRANGER), 1 => Just(GUEST), 1 => Just(EXPIRED), 1 => any::<[u8; 6]>()];
    let tag = (prop_oneof![Just(0x8100u16), Just(0x88a8)], any::<u16>());
    let tags = prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec(tag, 1..4)];
    let network = prop_oneof![
        6 => ipv4().prop_map(Network::V4),
        6 => ipv6().prop_map(Network::V6),
        1 => (prop_oneof![Just(0x0806u16), Just(0x888e), any::<u16>()], prop::collection::vec(any::<u8>(), 0..64))
            .prop_map(|(ether_type, payload)| Network::Other { ether_type, payload }),
    ];
    (destination, source, tags, network, prop_oneof![3 => Just(0usize), 1 => 0..40usize])
        .prop_map(|(destination, source, tags, network, padding)| Frame { destination, source, tags, network, padding })
        .boxed()
}

fn length_error() -> impl Strategy<Value = i16> {
    prop_oneof![9 => Just(0i16), 1 => -60..60i16]
}

fn ipv4() -> BoxedStrategy<Ipv4> {
    let source = prop_oneof![8 => Just(CLIENT_V4), 1 => Just([0; 4]), 1 => any::<[u8; 4]>()];
    let destination =
        prop_oneof![6 => Just(SITE_V4), 3 => Just(GATEWAY_V4), 1 => Just([255; 4]), 1 => any::<[u8; 4]>()];
    let options = prop_oneof![9 => Just(0u8), 1 => 1..11u8];
    let flags_and_offset = prop_oneof![6 => Just(0x4000u16), 3 => Just(0), 1 => any::<u16>()];
    let version_and_ihl = prop_oneof![19 => Just(None), 1 => any::<u8>().prop_map(Some)];
    let bad_checksum = prop::bool::weighted(0.05);
    (source, destination, options, flags_and_offset, length_error(), bad_checksum, version_and_ihl, payload())
        .prop_map(
            |(source, destination, options, flags_and_offset, length_error, bad_checksum, version_and_ihl, payload)| {
                Ipv4 {
                    source,
                    destination,
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
    let source =
        prop_oneof![8 => Just(CLIENT_V6), 2 => Just(LINK_LOCAL_V6), 1 => Just([0; 16]), 1 => any::<[u8; 16]>()];
    let destination =
        prop_oneof![6 => Just(SITE_V6), 3 => Just(GATEWAY_V6), 1 => Just(ALL_NODES_V6), 1 => any::<[u8; 16]>()];
    let hop_limit = prop_oneof![2 => Just(64u8), 1 => Just(255), 1 => Just(1), 1 => any::<u8>()];
    let version = prop_oneof![19 => Just(6u8), 1 => 0..16u8];
    (source, destination, hop_limit, length_error(), version, payload())
        .prop_map(|(source, destination, hop_limit, length_error, version, payload)| Ipv6 {
            source,
            destination,
            hop_limit,
            length_error,
            version,
            payload,
        })
        .boxed()
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![
        6 => Just(80u16),
        2 => prop::sample::select(vec![53u16, 443, 8080, 67, 68, 546, 547, 853, 22]),
        1 => any::<u16>(),
    ]
}

fn payload() -> BoxedStrategy<Payload> {
    let udp = (port(), port(), prop_oneof![0..60usize, 1000..1400usize], length_error()).prop_map(
        |(source_port, destination_port, data, length_error)| Payload::Udp {
            source_port,
            destination_port,
            data,
            length_error,
        },
    );
    let kind = || prop_oneof![3 => 128..145u8, 1 => any::<u8>()];
    prop_oneof![
        8 => tcp().prop_map(Payload::Tcp),
        4 => udp,
        1 => any::<u8>().prop_map(Payload::Icmp),
        2 => kind().prop_map(Payload::Icmpv6),
        1 => kind().prop_map(Payload::RouterAlert),
        1 => any::<u8>().prop_map(Payload::Other),
    ]
    .boxed()
}

fn tcp() -> BoxedStrategy<Tcp> {
    let flags = prop_oneof![2 => Just(0x02u8), 4 => Just(0x10), 2 => Just(0x18), 2 => Just(0x11), 1 => Just(0x04), 1 => any::<u8>()];
    let options = prop_oneof![1 => Just(0u8), 1 => Just(3), 1 => 0..11u8];
    let data = prop_oneof![2 => Just(0usize), 2 => 1..200usize, 1 => 1400..1800usize];
    let data_offset = prop_oneof![19 => Just(None), 1 => any::<u8>().prop_map(Some)];
    let ack = prop_oneof![
        1 => any::<u32>().prop_map(Ack::Number),
        // Just after the handshake, around the ends of what a response may be, and beyond.
        4 => (any::<u32>(), prop_oneof![Just(0u32), 0..2100u32]).prop_map(|(client_isn, received)| Ack::Cookie { client_isn, received }),
    ];
    (any::<u16>(), port(), any::<u32>(), ack, flags, options, data, data_offset, any::<bool>())
        .prop_map(|(source_port, destination_port, seq, ack, flags, options, data, data_offset, first)| {
            let seq = match ack {
                Ack::Cookie { client_isn, .. } if first => client_isn.wrapping_add(1),
                Ack::Cookie { .. } | Ack::Number(_) => seq,
            };
            Tcp { source_port, destination_port, seq, ack, flags, options, data, data_offset }
        })
        .boxed()
}
