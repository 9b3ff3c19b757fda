//! Connections to the portal, as the kernel notes them: one after the other, which rows of the verdict table cannot be.

use portal_common::{
    Reason,
    decide::Action,
    tables::{Address, ClientKey, ConnectionKey, Strictness},
};
use portal_lab::verdicts::{
    frames::{Ack, Frame, Ipv4, Ipv6, Network, Payload, Tcp},
    setting::{
        CLIENT_V4, CLIENT_V6, FREE, GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, GUEST, GUEST_V4, GUEST_V6, LEARN, STRANGER,
        Setting, UNCHECKED, config_of,
    },
};
use portal_userspace::net::Mac;

use crate::bench::{Bench, LOOPBACK};

const SYN: u8 = 0x02;
const PSH_ACK: u8 = 0x18;

/// A segment to the login page.
fn to_portal(mac: [u8; 6], vlan: Option<u16>, v6: bool, guests: bool, source_port: u16, flags: u8) -> Frame {
    let payload = Payload::Tcp(Tcp {
        source_port,
        destination_port: 8080,
        seq: 1,
        ack: Ack::Number(7),
        flags,
        options: 0,
        data: 0,
        data_offset: None,
    });
    let network = if v6 {
        Network::V6(Ipv6 {
            source: if guests { GUEST_V6 } else { CLIENT_V6 },
            destination: GATEWAY_V6,
            hop_limit: 64,
            length_error: 0,
            version: 6,
            extensions: Vec::new(),
            payload,
        })
    } else {
        Network::V4(Ipv4 {
            ttl: 64,
            source: if guests { GUEST_V4 } else { CLIENT_V4 },
            destination: GATEWAY_V4,
            options: Vec::new(),
            flags_and_offset: 0x4000,
            length_error: 0,
            bad_checksum: false,
            version_and_ihl: None,
            payload,
        })
    };
    let tags = vlan.map(|id| (0x8100, id)).into_iter().collect();
    Frame { destination: GATEWAY_MAC, source: mac, tags, network, padding: 0 }
}

#[test]
fn who_sent_the_syn_is_noted_and_nobody_else_goes_on_with_its_connection() {
    // A guest that rests, one that does not, one whose addresses are not looked at, and a stranger.
    for (sentence, first, second, vlan, accounting) in [
        ("a stranger's, and a guest", STRANGER, FREE, Some(30), true),
        ("a guest's, and a stranger", FREE, STRANGER, Some(30), true),
        ("a resting guest's, and a stranger", FREE, STRANGER, Some(30), false),
        ("a stranger's, and a resting guest", STRANGER, FREE, Some(30), false),
    ] {
        let mut bench = Bench::new(&Setting::standard(LOOPBACK));
        bench.configure(UNCHECKED, config_of(UNCHECKED).with_accounting(accounting));
        for v6 in [false, true] {
            let mut send = |mac, flags| {
                let run = bench.run(|cookies| to_portal(mac, vlan, v6, false, 50_000, flags).to_bytes(cookies));
                assert_eq!(run.agreement(), Ok(()), "{sentence}");
                (run.done.action, run.done.reason)
            };
            assert_eq!(
                send(second, PSH_ACK).0,
                Action::Pass,
                "{sentence}: nothing is noted, by what does not begin one"
            );
            assert_eq!(send(first, SYN).0, Action::Pass, "{sentence}");
            for flags in [PSH_ACK, SYN, 0x04, 0x11, 0x12] {
                assert_eq!(send(first, PSH_ACK).0, Action::Pass, "{sentence}");
                assert_eq!(send(second, flags), (Action::Drop, Reason::ConnectionOfAnother), "{sentence}, {flags:#x}");
            }
            let peer = if v6 { (CLIENT_V6, 50_000).into() } else { (CLIENT_V4, 50_000).into() };
            let station = bench.maps.connections.station(UNCHECKED, LOOPBACK, peer).expect("the table is readable");
            assert_eq!(station, Some(Mac::new(first).expect("it is a station")), "{sentence}");
            let elsewhere = bench.maps.connections.station(LEARN, LOOPBACK, peer).expect("the table is readable");
            assert_eq!(elsewhere, None, "{sentence}: of this zone alone");
            let address = if v6 { Address::v6(CLIENT_V6) } else { Address::v4(CLIENT_V4) };
            let noted = bench.host().connections.borrow()[&ConnectionKey::new(UNCHECKED, address, 50_000)].client;
            assert_eq!(noted, ClientKey::new(UNCHECKED, first), "{sentence}: the host's");
        }
    }
}

#[test]
fn nobody_fills_the_table_of_connections() {
    // So fast that hardly any is earned meanwhile.
    for (mac, guests) in [(STRANGER, false), (GUEST, true)] {
        let mut bench = Bench::new(&Setting::standard(LOOPBACK));
        bench.configure(LEARN, config_of(LEARN).with_strictness(Strictness::Learn));
        let refused = (0..600).find(|n| {
            let frame = to_portal(mac, None, n % 2 == 0, guests, 50_000 + n, SYN);
            let run = bench.run(|cookies| frame.to_bytes(cookies));
            // The two clocks differ by less than it takes to earn one: at the end they may differ by one.
            run.done.reason == Reason::BudgetConnections
        });
        let begun = refused.expect("it ends");
        assert!((200..300).contains(&begun), "{begun}");
    }
}
