//! The tables that the decision reads, on the host: a few clients and destinations, varied by a fuzzer's bytes.

use std::net::Ipv6Addr;

use portal_common::{
    decide::Tables,
    tables::{Address, ClientKey, CookieKeys, GateConfig, Service, ServiceKey, Session, Zone},
};

use crate::{
    client::{START_NS, keys},
    input::Input,
};

/// The gateway's station.
pub const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
/// The station whose frames most inputs are.
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];

const GATEWAY: [Address; 2] = [v4([192, 0, 2, 1]), v6(1)];
const RESOLVERS: [Address; 2] = [v4([192, 0, 2, 53]), v6(0x53)];

const fn v4(octets: [u8; 4]) -> Address {
    Address::v4(octets)
}

/// This host of 2001:db8::/64.
const fn v6(host: u16) -> Address {
    Address::v6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host).octets())
}

/// Whether the one client has a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Login {
    Never,
    Live,
    Expired,
}

/// One state of the tables.
pub struct World {
    configured: bool,
    login: Login,
    keys: CookieKeys,
}

impl World {
    /// How many bytes choose a world.
    pub const BYTES: usize = 8;

    /// The world that these bytes choose; all zero is a stranger's before a gate with an ordinary configuration.
    pub fn new(choices: &[u8]) -> Self {
        let mut choices = Input(choices);
        let login = match choices.byte() & 3 {
            1 => Login::Live,
            2 => Login::Expired,
            _ => Login::Never,
        };
        Self { configured: choices.byte() != 0xff, login, keys: keys() }
    }

    /// Whether the client of [`CLIENT_MAC`] is logged in.
    pub fn is_authorized(&self, mac: [u8; 6]) -> bool {
        self.configured && mac == CLIENT_MAC && self.login == Login::Live
    }

    /// Whether this is a resolver's.
    pub fn is_resolver(address: Address) -> bool {
        RESOLVERS.contains(&address)
    }

    /// Whether this is the gateway's own.
    pub fn is_gateway(address: Address) -> bool {
        GATEWAY.contains(&address)
    }
}

impl Tables for World {
    fn config(&self) -> Option<GateConfig> {
        self.configured.then(|| GateConfig::new(Zone::FIRST, GATEWAY_MAC))
    }

    fn session(&self, client: &ClientKey) -> Option<Session> {
        if *client != ClientKey::new(Zone::FIRST, CLIENT_MAC) {
            return None;
        }
        match self.login {
            Login::Never => None,
            Login::Live => Some(Session::new(0, Session::NEVER)),
            Login::Expired => Some(Session::new(0, START_NS)),
        }
    }

    fn service(&self, destination: &ServiceKey) -> Option<Service> {
        let at = |addresses: [Address; 2], protocol, port| {
            addresses.iter().any(|address| *destination == ServiceKey::new(*address, protocol, port))
        };
        if at(RESOLVERS, 6, 53) || at(RESOLVERS, 17, 53) {
            Some(Service::Resolver)
        } else if at(GATEWAY, 6, 80) {
            Some(Service::Portal)
        } else if GATEWAY.iter().any(|address| *destination == ServiceKey::of_gateway(*address)) {
            Some(Service::Gateway)
        } else {
            None
        }
    }

    fn cookie_keys(&self) -> Option<&CookieKeys> {
        Some(&self.keys)
    }

    fn now_ns(&self) -> u64 {
        START_NS
    }
}
