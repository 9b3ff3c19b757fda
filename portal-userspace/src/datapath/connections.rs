//! Whose the connections to the portal's services are, as the gate has noted it.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, MapData, MapError};
use portal_common::tables::{Address, ClientKey, ConnectionKey, ConnectionNote, Zone};

use crate::net::Mac;

/// The kernel's table of connections to the portal's services, and who began them.
///
/// It is pinned: a daemon that takes over listens before its own gate is in the other's place, and what the other notes meanwhile is noted for both.
pub struct Connections(HashMap<MapData, ConnectionKey, ConnectionNote>);

impl Connections {
    /// A table of its own, that no program writes.
    pub fn create(capacity: u32) -> Result<Self> {
        Ok(Self::new(HashMap::create(capacity, 0).context("cannot create a BPF hash map")?))
    }

    /// The table in a map that programs write.
    pub fn new(map: HashMap<MapData, ConnectionKey, ConnectionNote>) -> Self {
        Self(map)
    }

    /// The station that began the connection of this peer, in this zone, whose interface has this index.
    pub fn station(&self, zone: Zone, interface_index: u32, peer: SocketAddr) -> Result<Option<Mac>> {
        let Some(key) = key_of(zone, interface_index, peer) else { return Ok(None) };
        match self.0.get(&key, 0) {
            Ok(note) => Ok(Some(Mac::from_table(note.client.mac()))),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(e) => Err(e).context("cannot read the table of connections"),
        }
    }

    /// Notes who began a connection, as the gate does.
    pub fn insert(&mut self, key: ConnectionKey, client: ClientKey, seen_ns: u64) -> Result<()> {
        self.0.insert(key, ConnectionNote { client, seen_ns }, 0).context("cannot write the table of connections")
    }
}

/// The peer's end of a connection; none where it cannot be of this zone.
fn key_of(zone: Zone, interface_index: u32, peer: SocketAddr) -> Option<ConnectionKey> {
    match peer {
        // A link-local address means something only with its interface (RFC 4007 section 6).
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() != interface_index => None,
        // An IPv4 address is one whether the socket maps it or not.
        _ => Some(ConnectionKey::new(zone, Address::from(peer.ip()), peer.port())),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV6;

    use super::*;

    #[test]
    fn a_station_is_found_by_zone_address_and_port_and_by_nothing_less() {
        let (zone, other) = (Zone::FIRST, Zone::new(1));
        let mac = [2, 0, 0x5e, 0x10, 0, 7];
        let mut connections = Connections::create(8).expect("a BPF map needs root");
        for address in ["192.0.2.7:40000", "[2001:db8::7]:40000", "[fe80::7]:40000"] {
            let address: SocketAddr = address.parse().unwrap();
            let key = ConnectionKey::new(zone, Address::from(address.ip()), address.port());
            connections.insert(key, ClientKey::new(zone, mac), 1).unwrap();
        }
        let scoped = |scope| SocketAddr::from(SocketAddrV6::new("fe80::7".parse().unwrap(), 40_000, 0, scope));
        let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
        let table = [
            ("IPv4", zone, parse("192.0.2.7:40000"), true),
            ("IPv4 at an IPv6 socket", zone, parse("[::ffff:192.0.2.7]:40000"), true),
            ("IPv6", zone, parse("[2001:db8::7]:40000"), true),
            ("link-local", zone, scoped(5), true),
            ("link-local on another interface", zone, scoped(6), false),
            ("link-local on no interface", zone, scoped(0), false),
            ("another port", zone, parse("192.0.2.7:40001"), false),
            ("another address", zone, parse("192.0.2.8:40000"), false),
            ("another zone", other, parse("192.0.2.7:40000"), false),
            ("another zone over IPv6", other, parse("[2001:db8::7]:40000"), false),
            ("loopback", zone, parse("127.0.0.1:40000"), false),
        ];
        for (sentence, zone, peer, found) in table {
            let station = connections.station(zone, 5, peer).unwrap();
            assert_eq!(station, found.then(|| Mac::from_table(mac)), "{sentence}");
        }
    }
}
