//! The tables that the decision reads: a few zones, clients and destinations, varied by a fuzzer's bytes.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::atomic::Ordering::Relaxed,
};

use portal_common::{
    budget::{Class, Limit},
    host::HostTables,
    tables::{
        Address, Attachment, ClientKey, ClientState, ConnectionKey, ConnectionNote, GardenKey, GateConfig, HttpsPolicy,
        OwnedAddress, Service, ServiceKey, Session, Strictness, Zone,
    },
};

use crate::{
    client::{START_NS, keys},
    input::Input,
};

/// The gateway's station.
pub const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
/// The station whose frames most inputs are. It logs in in [`HOME`] alone.
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
/// Another, which is logged in there.
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 1, 2];

/// The zone of untagged frames.
pub const HOME: Zone = Zone::FIRST;
/// The zone of two tagged networks.
const AWAY: Zone = Zone::new(1);

const GATEWAY: [Address; 2] = [Address::v4([192, 0, 2, 1]), v6(0, 1)];
const RESOLVERS: [Address; 2] = [Address::v4([192, 0, 2, 53]), v6(0, 0x53)];
const NTP: Address = Address::v4([198, 51, 100, 123]);
/// TCP/443.
const GARDEN_V4: (Address, u32) = (Address::v4([203, 0, 113, 0]), 96 + 25);
/// UDP, any port.
const GARDEN_V6: (Address, u32) = (v6(9, 0), 48);
/// TCP/443, by its name.
const LEARNED: Address = Address::v4([203, 0, 113, 200]);
/// The port from which [`OTHER_MAC`] has begun a connection to the portal, with each of [`DISPUTED`].
const NOTED_PORT: u16 = 40_000;
/// The other client's, or nobody's.
const DISPUTED: [Address; 2] = [Address::v4([192, 0, 2, 7]), v6(0, 7)];

/// This host of 2001:db8:NETWORK::/64.
const fn v6(network: u16, host: u16) -> Address {
    Address::v6(Ipv6Addr::new(0x2001, 0xdb8, network, 0, 0, 0, 0, host).octets())
}

/// Whether the client has a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// It has none.
    Never,
    /// It has.
    Live,
    /// It is over.
    Expired,
    /// It was silent for too long.
    Idle,
}

/// One state of the tables.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice by itself")]
pub struct World {
    /// The tables.
    pub tables: HostTables,
    /// Whether the client of [`CLIENT_MAC`] is logged in.
    pub login: Login,
    /// Every zone's.
    pub strictness: Strictness,
    /// Every zone's.
    pub https: HttpsPolicy,
    garden: bool,
    names: bool,
    noted: bool,
    disputed: bool,
    crowded: bool,
}

impl World {
    /// How many bytes choose a world.
    pub const BYTES: usize = 8;

    /// The world that these bytes choose; all zero is a stranger's before a gate with an ordinary configuration.
    pub fn new(choices: &[u8]) -> Self {
        let mut choices = Input(choices);
        let session = choices.byte();
        let zone = choices.byte();
        let strictness = [Strictness::Learn, Strictness::Off, Strictness::Strict][usize::from(choices.byte() % 3)];
        let flags = choices.byte();
        let budgets = choices.byte();
        let bindings = choices.byte();
        let https = [HttpsPolicy::Reset, HttpsPolicy::Alert, HttpsPolicy::Drop][usize::from(zone % 3)];
        let login = [Login::Never, Login::Live, Login::Expired, Login::Idle][usize::from(session & 3)];
        let mut world = Self {
            tables: HostTables::new(keys()),
            login,
            strictness,
            https,
            garden: flags & 1 != 0,
            names: flags & 2 != 0,
            noted: bindings & 4 != 0,
            disputed: bindings & 1 != 0,
            crowded: bindings & 2 != 0,
        };
        world.tables.now_ns = START_NS;
        let config = if zone == 0xff {
            GateConfig::UNFILLED
        } else {
            let limit = |config: GateConfig, class: Class| match budgets & 7 {
                0 => config.with_limit(class, Limit::NONE),
                7 => config,
                only if usize::from(only) == class as usize + 1 => config.with_limit(class, Limit::NOTHING),
                _ => config.with_limit(class, Limit::NONE),
            };
            Class::ALL
                .into_iter()
                .fold(GateConfig::new(GATEWAY_MAC), limit)
                .with_https(https)
                .with_strictness(strictness)
                .with_garden(world.garden, world.names)
                .with_shadow(flags & 4 != 0)
        };
        for (zone, vlans) in [(HOME, (0, 0)), (AWAY, (7, 0)), (AWAY, (7, 8))] {
            world.tables.zones.insert(Attachment::new(0, vlans.0, vlans.1), zone);
            world.tables.configs.insert(zone, config);
        }
        world.place_services();
        world.log_in(session & 4 != 0);
        world
    }

    fn place_services(&mut self) {
        let tables = &mut self.tables;
        for zone in [HOME, AWAY] {
            for address in GATEWAY {
                tables.services.insert(ServiceKey::of_gateway(zone, address), Service::Gateway);
                tables.services.insert(ServiceKey::new(zone, address, 6, 80), Service::Portal);
            }
            for (address, protocol) in RESOLVERS.into_iter().flat_map(|address| [(address, 6), (address, 17)]) {
                tables.services.insert(ServiceKey::new(zone, address, protocol, 53), Service::Resolver);
            }
            tables.services.insert(ServiceKey::new(zone, NTP, 17, 123), Service::Ntp);
            let row = |(address, bits), protocol, port| {
                (GardenKey::EXACT_BITS + bits, GardenKey::new(zone, protocol, port, address))
            };
            tables.garden.extend([row(GARDEN_V4, 6, 443), row(GARDEN_V6, 17, 0)]);
            tables.learned.insert(ServiceKey::new(zone, LEARNED, 6, 443), START_NS + 1);
        }
    }

    fn log_in(&mut self, spent: bool) {
        let tables = &mut self.tables;
        tables.states.resize_with(2, ClientState::default);
        let session = match self.login {
            Login::Never => None,
            Login::Live => Some(Session::new(0, Session::NEVER, 0)),
            Login::Expired => Some(Session::new(0, START_NS, 0)),
            Login::Idle => Some(Session::new(0, Session::NEVER, 0).with_idle_s(1)),
        };
        if let Some(session) = session {
            let session = if spent { session.with_quota(1) } else { session };
            tables.sessions.insert(ClientKey::new(HOME, CLIENT_MAC), session);
        }
        let other = ClientKey::new(HOME, OTHER_MAC);
        tables.sessions.insert(other, Session::new(START_NS, Session::NEVER, 1));
        if self.disputed {
            tables.owners.borrow_mut().extend(DISPUTED.map(|address| (OwnedAddress::new(HOME, address), other)));
        }
        if self.noted {
            let note = ConnectionNote { client: other, seen_ns: START_NS };
            let key = |address| ConnectionKey::new(HOME, address, NOTED_PORT);
            tables.connections.borrow_mut().extend(DISPUTED.map(|address| (key(address), note)));
        }
        if self.crowded {
            for (i, bound) in tables.states[0].bindings.words.iter().enumerate() {
                bound.store(tables.hash.word(v6(0x100, i as u16 + 1)).to_word(), Relaxed);
            }
        }
    }

    /// Whether this station is logged in where these VLANs lead to.
    pub fn is_member(&self, mac: [u8; 6], vlans: (u16, u16)) -> bool {
        vlans == (0, 0) && (mac == OTHER_MAC || mac == CLIENT_MAC && self.login == Login::Live)
    }

    /// Whether a frame that claims this address may make a stranger of a member.
    pub fn may_estrange(&self, mac: [u8; 6], claimed: Option<IpAddr>) -> bool {
        let claimed = claimed.map(Address::from);
        let Some(claimed) = claimed.filter(|_| self.strictness != Strictness::Off) else { return false };
        let crowded = self.crowded && mac == CLIENT_MAC && self.strictness == Strictness::Strict;
        self.is_anothers(mac, claimed) || crowded
    }

    /// Whether this station may not use the address, in [`HOME`].
    pub fn is_anothers(&self, mac: [u8; 6], claimed: Address) -> bool {
        let disputed = self.disputed && mac != OTHER_MAC && DISPUTED.contains(&claimed);
        GATEWAY.contains(&claimed) || RESOLVERS.contains(&claimed) || disputed
    }

    /// Whether another station than this has begun the connection to the portal from this address and port, in [`HOME`].
    pub fn is_anothers_connection(&self, mac: [u8; 6], source: IpAddr, port: u16) -> bool {
        self.noted && mac != OTHER_MAC && port == NOTED_PORT && DISPUTED.contains(&source.into())
    }

    /// Whether this is a resolver's.
    pub fn is_resolver(address: IpAddr) -> bool {
        RESOLVERS.contains(&address.into())
    }

    /// Whether this is the gateway's own.
    pub fn is_gateway(address: IpAddr) -> bool {
        GATEWAY.contains(&address.into())
    }

    /// Whether this is a time server's.
    pub fn is_ntp(address: IpAddr) -> bool {
        Address::from(address) == NTP
    }

    /// Whether the walled garden has this destination, by its prefix.
    pub fn in_garden(&self, address: IpAddr, protocol: u8, port: u16) -> bool {
        let rule = match address {
            IpAddr::V4(address) => address.octets()[..3] == [203, 0, 113] && address.octets()[3] < 128,
            IpAddr::V6(address) => address.segments()[..3] == [0x2001, 0xdb8, 9],
        };
        let right = if address.is_ipv4() { (protocol, port) == (6, 443) } else { protocol == 17 };
        (self.garden || self.names) && rule && right
    }

    /// Whether it was learned.
    pub fn is_learned(&self, address: IpAddr, protocol: u8, port: u16) -> bool {
        self.names && Address::from(address) == LEARNED && (protocol, port) == (6, 443)
    }
}
