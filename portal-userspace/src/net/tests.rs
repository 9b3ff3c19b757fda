//! Against the real kernel, in a network namespace of each test's own.

use std::os::fd::AsRawFd as _;

use rtnetlink::{
    LinkUnspec,
    packet_route::link::{LinkAttribute, LinkXdp},
};

use super::{
    testing::{in_namespace, ip, load_xdp_pass},
    *,
};

fn veth() {
    ip("link add guest address 02:00:5e:10:00:01 type veth peer name other address 02:00:5e:10:00:02");
    ip("link set guest up");
    ip("link set other up");
}

#[test]
fn an_interface_is_described_as_it_is() {
    in_namespace(|| async {
        veth();
        ip("address add 192.0.2.1/24 dev guest");
        ip("address add 2001:db8::1/64 dev guest nodad");
        ip("address add fd00::1/64 dev guest nodad");
        ip("address add 198.51.100.1/24 dev other");
        ip("link set guest mtu 1400");
        let found = Interface::by_name("guest").await.unwrap();
        assert_eq!((found.name.as_str(), found.mtu, found.up), ("guest", 1400, true));
        assert_eq!(found.mac, [0x02, 0, 0x5e, 0x10, 0, 1]);
        assert_eq!(found.gateway_mac(), found.mac);
        assert_eq!(found.neighbour_index(), found.index);
        assert_eq!(found.v4, ["192.0.2.1".parse::<std::net::Ipv4Addr>().unwrap()]);
        let mut v6 = found.v6.clone();
        v6.sort_unstable();
        assert_eq!(v6, ["2001:db8::1", "fd00::1"].map(|a| a.parse::<std::net::Ipv6Addr>().unwrap()));
        assert!(found.v6_link_local.iter().all(std::net::Ipv6Addr::is_unicast_link_local));
        assert_eq!(found.xdp, []);
        ip("link set guest down");
        assert!(!Interface::by_name("guest").await.unwrap().up);
    });
}

#[test]
fn the_receive_queues_are_those_in_use() {
    in_namespace(|| async {
        ip("link add many numrxqueues 4 numtxqueues 4 type veth peer name other");
        let queues = Interface::by_name("many").await.unwrap().rx_queues;
        // veth uses one queue of those it has been given until XDP or ethtool asks for more (Linux 5.13), older all.
        assert!((1..=4).contains(&queues), "{queues}");
        ip("link add one numrxqueues 1 numtxqueues 1 type veth peer name two");
        assert_eq!(Interface::by_name("one").await.unwrap().rx_queues, 1);
    });
}

#[test]
fn a_port_of_a_bridge_has_the_bridges_mac_and_addresses() {
    in_namespace(|| async {
        veth();
        ip("link add bridge0 address 02:00:5e:10:00:0b type bridge");
        ip("link set guest master bridge0");
        ip("address add 192.0.2.1/24 dev bridge0");
        let found = Interface::by_name("guest").await.unwrap();
        let bridge = Interface::by_name("bridge0").await.unwrap();
        assert_eq!(found.gateway_mac(), [0x02, 0, 0x5e, 0x10, 0, 0x0b]);
        assert_eq!(found.neighbour_index(), bridge.index);
        assert_eq!(found.v4, bridge.v4);
        assert_eq!(found.v4.len(), 1);
    });
}

#[test]
fn an_attached_xdp_program_is_seen_with_its_mode() {
    in_namespace(|| async {
        veth();
        let program = load_xdp_pass();
        let index = Interface::by_name("guest").await.unwrap().index;
        for (flags, mode) in [(1 << 1, XdpMode::Generic), (1 << 2, XdpMode::Native)] {
            for (fd, attached) in [(program.as_raw_fd(), true), (-1, false)] {
                let xdp = LinkAttribute::Xdp(vec![LinkXdp::Fd(fd), LinkXdp::Flags(flags)]);
                let request = LinkUnspec::new_with_index(index).append_extra_attribute(xdp).build();
                netlink::ask(|h| futures::stream::once(async move { h.link().set(request).execute().await }))
                    .await
                    .unwrap();
                let found = Interface::by_name("guest").await.unwrap().xdp;
                assert_eq!(
                    found.iter().map(|x| x.mode).collect::<Vec<_>>(),
                    Vec::from_iter(attached.then_some(Some(mode)))
                );
                assert!(found.iter().all(|x| x.program_id > 0));
            }
        }
    });
}

#[test]
fn no_such_interface_names_those_there_are() {
    in_namespace(|| async {
        veth();
        let message = Interface::by_name("gest").await.unwrap_err().to_string();
        assert!(message.contains("`gest`") && message.contains("guest") && message.contains("other"), "{message}");
        let message = Interface::by_name("lo").await.unwrap_err().to_string();
        assert!(message.contains("Ethernet"), "{message}");
    });
}

#[test]
fn the_stations_that_the_kernel_has_resolved_are_listed_in_both_families() {
    in_namespace(|| async {
        veth();
        ip("address add 192.0.2.1/24 dev guest");
        ip("address add 2001:db8::1/64 dev guest nodad");
        let states = [
            ("reachable", true),
            ("stale", true),
            ("delay", true),
            ("probe", true),
            ("permanent", true),
            ("noarp", false),
            ("incomplete", false),
            ("failed", false),
        ];
        let index = Interface::by_name("guest").await.unwrap().index;
        let other = Interface::by_name("other").await.unwrap().index;
        let kernel = KernelNeighbours { interface_index: index };
        let mac: Mac = "02:00:5e:10:00:07".parse().unwrap();
        assert_eq!(kernel.all().await.unwrap(), [], "before they are there");
        let addresses = ["192.0.2.7", "2001:db8::7"];
        let expected = addresses.map(|a| Neighbour { mac, address: a.parse().unwrap() });
        for (state, usable) in states {
            for address in addresses {
                ip(&format!("neighbour replace {address} lladdr {mac} dev guest nud {state}"));
            }
            assert_eq!(kernel.all().await.unwrap(), if usable { expected.to_vec() } else { Vec::new() }, "{state}");
        }
        ip(&format!("neighbour replace 192.0.2.7 lladdr {mac} dev guest nud permanent"));
        assert_eq!(neighbours(other).await.unwrap(), [], "on another interface");
        assert_eq!(neighbours(4_000_000).await.unwrap(), [], "no such interface");
    });
}

#[test]
fn the_kernel_tells_of_changes() {
    in_namespace(|| async {
        veth();
        let mut changes = Changes::subscribe().unwrap();
        for change in [
            "link set guest down",
            "link set guest up",
            "address add 192.0.2.1/24 dev guest",
            "address add 2001:db8::1/64 dev guest nodad",
            "link set guest address 02:00:5e:10:00:09",
            "link delete guest",
        ] {
            // What an earlier change brings in its wake, such as the carrier.
            let quiet = std::time::Duration::from_millis(200);
            while tokio::time::timeout(quiet, changes.next()).await.is_ok_and(|alive| alive) {}
            ip(change);
            let told = tokio::time::timeout(std::time::Duration::from_secs(20), changes.next()).await;
            assert_eq!(told.ok(), Some(true), "{change}");
        }
    });
}

#[test]
fn temporary_addresses_are_not_the_interfaces_own() {
    in_namespace(|| async {
        veth();
        ip("address add 2001:db8::1/64 dev guest nodad");
        ip("address add 192.0.2.1/24 dev guest");
        ip("address add 192.0.2.2/24 dev guest");
        let found = Interface::by_name("guest").await.unwrap();
        // The second IPv4 address has the flag that marks temporary IPv6 addresses.
        assert_eq!((found.v4.len(), found.v6.len()), (2, 1));
    });
}
