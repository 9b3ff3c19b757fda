//! What the tables hold while the verdict table is tried: one description, for the kernel's maps and for the host's.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::Result;
use ipnet::IpNet;
use portal_common::{
    budget::{Class, Limit},
    host::HostTables,
    tables::{
        Address, AddressHash, Attachment, Bindings, ClientKey, ClientState, ConnectionKey, ConnectionNote, CookieKeys,
        Flow, GardenKey, GateConfig, HttpsPolicy, MAX_BINDINGS, OwnedAddress, Rate, ServiceKey, Session, Source,
        Strictness, Zone,
    },
};
use portal_userspace::datapath::{gate::GateMaps, zones::ZonePolicy};

/// The gateway's MAC address.
pub const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Has no session anywhere.
pub const STRANGER: [u8; 6] = [2, 0, 0, 0, 1, 1];
/// Has a session in the zones [`LEARN`], [`STRICT`] and [`SHADOW`].
pub const GUEST: [u8; 6] = [2, 0, 0, 0, 1, 2];
/// Had a session, which has expired.
pub const EXPIRED: [u8; 6] = [2, 0, 0, 0, 1, 3];
/// Has a session, and is far beyond its rates, up and down.
pub const FAST: [u8; 6] = [2, 0, 0, 0, 1, 4];
/// Has a session, and has used up its quota.
pub const SPENT: [u8; 6] = [2, 0, 0, 0, 1, 5];
/// Has a session, but was silent for too long.
pub const IDLE: [u8; 6] = [2, 0, 0, 0, 1, 6];
/// Has a session, and owns [`OWNED_V4`] and [`OWNED_V6`].
pub const OWNER: [u8; 6] = [2, 0, 0, 0, 1, 7];
/// Has a session in [`STRICT`], with as many addresses as there can be.
pub const SETTLED: [u8; 6] = [2, 0, 0, 0, 1, 8];
/// Has a session in [`UNCHECKED`].
pub const FREE: [u8; 6] = [2, 0, 0, 0, 1, 9];
/// Another guest's MAC address, which nobody in the tables has.
pub const ELSEWHERE: [u8; 6] = [2, 0, 0, 0, 9, 9];

/// From which port [`ELSEWHERE`] has begun connections to the portal, with the addresses [`CLIENT_V4`] and [`CLIENT_V6`].
pub const NOTED_PORT: u16 = 41_000;

/// What strangers send from.
pub const CLIENT_V4: [u8; 4] = [192, 0, 2, 50];
/// What [`GUEST`] sends from, and whoever has a session of its own address.
pub const GUEST_V4: [u8; 4] = [192, 0, 2, 51];
/// [`OWNER`]'s.
pub const OWNED_V4: [u8; 4] = [192, 0, 2, 57];
/// [`SETTLED`]'s first address.
pub const SETTLED_V4: [u8; 4] = [192, 0, 2, 60];
/// The gateway's, on another interface.
pub const ELSEWHERES_V4: [u8; 4] = [192, 0, 2, 253];
/// As [`ELSEWHERES_V4`].
pub const ELSEWHERES_V6: [u8; 16] = in_guests(0xfd);
/// The gateway: resolver, login page.
pub const GATEWAY_V4: [u8; 4] = [192, 0, 2, 1];
/// A resolver beyond the gateway.
pub const RESOLVER_V4: [u8; 4] = [203, 0, 113, 53];
/// A time server.
pub const NTP_V4: [u8; 4] = [203, 0, 113, 123];
/// Within the walled garden, TCP port 8443 alone.
pub const GARDEN_V4: [u8; 4] = [203, 0, 113, 200];
/// Within the walled garden by name.
pub const NAMED_V4: [u8; 4] = [203, 0, 113, 130];
/// Was within the walled garden by name, until its time was over.
pub const FORGOTTEN_V4: [u8; 4] = [203, 0, 113, 131];
/// Somewhere on the internet.
pub const SITE_V4: [u8; 4] = [198, 51, 100, 80];

/// As [`CLIENT_V4`].
pub const CLIENT_V6: [u8; 16] = in_guests(0x50);
/// As [`GUEST_V4`].
pub const GUEST_V6: [u8; 16] = in_guests(0x51);
/// [`FAST`]'s.
pub const FAST_V4: [u8; 4] = [192, 0, 2, 54];
/// [`SPENT`]'s.
pub const SPENT_V4: [u8; 4] = [192, 0, 2, 55];
/// [`SPENT`]'s.
pub const SPENT_V6: [u8; 16] = in_guests(0x55);
/// [`FAST`]'s.
pub const FAST_V6: [u8; 16] = in_guests(0x54);
/// As [`OWNED_V4`].
pub const OWNED_V6: [u8; 16] = in_guests(0x57);
/// As [`GATEWAY_V4`].
pub const GATEWAY_V6: [u8; 16] = in_guests(1);
/// As [`RESOLVER_V4`].
pub const RESOLVER_V6: [u8; 16] = in_internet(0x53);
/// As [`NTP_V4`].
pub const NTP_V6: [u8; 16] = in_internet(0x123);
/// As [`GARDEN_V4`].
pub const GARDEN_V6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
/// As [`NAMED_V4`].
pub const NAMED_V6: [u8; 16] = in_internet(0x130);
/// As [`SITE_V4`].
pub const SITE_V6: [u8; 16] = in_internet(0x80);
/// A client's link-local address.
pub const LINK_LOCAL_V6: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x50];
/// Every node of the link.
pub const ALL_NODES_V6: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

pub(super) const fn in_guests(host: u8) -> [u8; 16] {
    [0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]
}

const fn in_internet(host: u16) -> [u8; 16] {
    let [high, low] = host.to_be_bytes();
    [0x20, 1, 0x0d, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, high, low]
}

/// Without a tag: every default, but no budgets.
pub const LEARN: Zone = Zone::new(0);
/// VLAN 10: TLS alerts, a walled garden, time, and strict about addresses.
pub const STRICT: Zone = Zone::new(1);
/// VLAN 20: in shadow mode.
pub const SHADOW: Zone = Zone::new(2);
/// VLAN 30: TCP/443 is dropped, and addresses are not looked at.
pub const UNCHECKED: Zone = Zone::new(3);
/// VLAN 20 within VLAN 100.
pub const NESTED: Zone = Zone::new(4);
/// VLAN 60: every budget is spent.
pub const SPENDTHRIFT: Zone = Zone::new(5);
/// VLAN 70: nobody has filled its configuration.
pub const UNFILLED: Zone = Zone::new(6);

/// The VLAN of [`SHADOW`].
pub const SHADOW_VLAN: u16 = 20;

/// VLAN ids of the zones, outer and inner.
const PLACES: [(Zone, u16, u16); 7] = [
    (LEARN, 0, 0),
    (STRICT, 10, 0),
    (SHADOW, SHADOW_VLAN, 0),
    (UNCHECKED, 30, 0),
    (NESTED, 100, 20),
    (SPENDTHRIFT, 60, 0),
    (UNFILLED, 70, 0),
];

/// An instant that no test lives to see, with room to count on.
const FAR_NS: u64 = u64::MAX / 4;

/// How many slots of states there are.
pub const SLOTS: u32 = 64;

/// Who has this MAC address, in words.
pub fn who(mac: [u8; 6]) -> String {
    let known = match mac {
        GATEWAY_MAC => "the gateway",
        STRANGER => "a stranger",
        GUEST => "a guest with a session",
        EXPIRED => "a guest whose session expired",
        FAST => "a guest beyond its rate",
        SPENT => "a guest beyond its quota",
        IDLE => "a guest that was silent for too long",
        OWNER => "a guest with addresses of its own",
        SETTLED => "a guest with eight addresses",
        FREE => "a guest whose addresses are not looked at",
        ELSEWHERE => "another station",
        _ => return mac.map(|byte| format!("{byte:02x}")).join(":"),
    };
    known.into()
}

/// Everything in the tables.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The interface at which frames arrive.
    pub ifindex: u32,
    /// The zones that are configured.
    pub zones: Vec<ZonePolicy>,
    /// Zones that have frames, but no configuration.
    pub unfilled: Vec<(Attachment, Zone)>,
    /// Who is logged in.
    pub clients: Vec<Client>,
    /// Who owns which address.
    pub owners: Vec<(OwnedAddress, ClientKey)>,
    /// Who has begun which connection to the portal. None of them ever ends.
    pub connections: Vec<(ConnectionKey, ClientKey)>,
    /// The walled garden, and how many bits of the addresses count.
    pub garden: Vec<(GardenKey, u8)>,
    /// The walled garden as learned: until when, nanoseconds of CLOCK_MONOTONIC.
    pub learned: Vec<(ServiceKey, u64)>,
}

/// A client with a session.
#[derive(Clone, Debug)]
pub struct Client {
    /// Who it is.
    pub key: ClientKey,
    /// Its session.
    pub session: Session,
    /// What it has carried.
    pub state: ClientState<u64>,
    /// The addresses it is bound to.
    pub addresses: Vec<Address>,
}

impl Client {
    fn state(&self, hash: AddressHash) -> ClientState<u64> {
        let mut bindings = Bindings::default();
        for (word, address) in bindings.words.iter_mut().zip(&self.addresses) {
            *word = hash.word(*address).to_word();
        }
        ClientState { bindings, ..self.state }
    }
}

impl Setting {
    /// What the verdict table is about, for frames that arrive at this interface.
    pub fn standard(ifindex: u32) -> Self {
        let (unfilled, zones): (Vec<_>, Vec<_>) = PLACES
            .iter()
            .map(|(zone, outer, inner)| (Attachment::new(ifindex, *outer, *inner), *zone))
            .partition(|(_, zone)| *zone == UNFILLED);
        let zones = zones.into_iter().map(|(attachment, zone)| policy(attachment, zone)).collect();
        let holder = ClientKey::new(LEARN, OWNER);
        let owned = [Address::v4(OWNED_V4), Address::v6(OWNED_V6)];
        let settled = ClientKey::new(STRICT, SETTLED);
        let owners = owned.map(|address| (OwnedAddress::new(LEARN, address), holder)).into_iter();
        let settled_owns = settled_addresses().map(|address| (OwnedAddress::new(STRICT, address), settled));
        let unchecked = ClientKey::new(UNCHECKED, OWNER);
        let unchecked_owns = owned.map(|address| (OwnedAddress::new(UNCHECKED, address), unchecked));
        let noted = |zone| {
            [Address::v4(CLIENT_V4), Address::v6(CLIENT_V6)]
                .map(|address| (ConnectionKey::new(zone, address, NOTED_PORT), ClientKey::new(zone, ELSEWHERE)))
        };
        let named = |address, protocol, port, until| (ServiceKey::new(STRICT, address, protocol, port), until);
        Self {
            ifindex,
            zones,
            unfilled,
            clients: clients(),
            owners: owners.chain(settled_owns).chain(unchecked_owns).collect(),
            connections: [LEARN, STRICT, UNCHECKED].into_iter().flat_map(noted).collect(),
            garden: vec![
                (GardenKey::new(STRICT, 6, 8443, Address::v4([203, 0, 113, 192])), 96 + 26),
                (GardenKey::new(STRICT, 6, 8443, Address::v6(GARDEN_V6)), 64),
                (GardenKey::new(STRICT, 17, 0, Address::v6(GARDEN_V6)), 128),
            ],
            learned: vec![
                named(Address::v4(NAMED_V4), 6, 443, u64::MAX),
                named(Address::v4(NAMED_V4), 17, 0, u64::MAX),
                named(Address::v6(NAMED_V6), 6, 443, u64::MAX),
                named(Address::v4(FORGOTTEN_V4), 6, 443, 1),
            ],
        }
    }

    /// Puts everything into the kernel's maps.
    pub fn fill(&self, maps: &mut GateMaps) -> Result<()> {
        for policy in &self.zones {
            maps.zones.fill(policy)?;
        }
        for (attachment, zone) in &self.unfilled {
            let config = GateConfig::new(GATEWAY_MAC);
            let (gateway, resolvers, listeners, ntp) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            maps.zones.fill(&ZonePolicy {
                zone: *zone,
                attachment: *attachment,
                config,
                gateway,
                resolvers,
                listeners,
                ntp,
                sources: Vec::new(),
            })?;
            maps.zones.configure(*zone, GateConfig::UNFILLED)?;
        }
        for client in &self.clients {
            maps.sessions.write_state(client.session.slot(), &client.state(maps.sessions.address_hash()));
            maps.sessions.insert(client.key, client.session)?;
        }
        for (address, client) in &self.owners {
            maps.owners.insert(*address, *client)?;
        }
        for (key, client) in &self.connections {
            maps.connections.insert(*key, *client, FAR_NS)?;
        }
        for (key, bits) in &self.garden {
            maps.garden.insert_prefix(*key, *bits)?;
        }
        for (key, until) in &self.learned {
            maps.garden.insert_learned(*key, *until)?;
        }
        Ok(())
    }

    /// The same in tables on the host, with the kernel's hash of addresses.
    pub fn host(&self, keys: CookieKeys, hash: AddressHash) -> HostTables {
        let mut host = HostTables::new(keys);
        host.hash = hash;
        host.ifindex = self.ifindex;
        for policy in &self.zones {
            host.zones.insert(policy.attachment, policy.zone);
            host.configs.insert(policy.zone, policy.config);
            host.services.extend(policy.destinations());
            host.sources.extend(policy.sources.iter().map(|(prefix, source)| {
                let (bits, address) = match prefix {
                    IpNet::V4(v4) => (GardenKey::V4_BITS, Address::from(IpAddr::V4(v4.network()))),
                    IpNet::V6(v6) => (0, Address::from(IpAddr::V6(v6.network()))),
                };
                let row = GardenKey::of_source(policy.zone, address);
                ((GardenKey::EXACT_BITS + bits + u32::from(prefix.prefix_len()), row), *source)
            }));
        }
        for (attachment, zone) in &self.unfilled {
            host.zones.insert(*attachment, *zone);
            host.configs.insert(*zone, GateConfig::UNFILLED);
        }
        host.states.resize_with(SLOTS as usize, ClientState::default);
        for client in &self.clients {
            host.sessions.insert(client.key, client.session);
            host.states[client.session.slot() as usize] = atomic(&client.state(hash));
        }
        host.owners.borrow_mut().extend(self.owners.iter().copied());
        let note = |client| ConnectionNote { client, seen_ns: FAR_NS };
        host.connections.borrow_mut().extend(self.connections.iter().map(|(key, client)| (*key, note(*client))));
        host.garden = self.garden.iter().map(|(key, bits)| (GardenKey::EXACT_BITS + u32::from(*bits), *key)).collect();
        host.learned.extend(self.learned.iter().copied());
        host
    }
}

/// What applies to a zone.
pub fn config_of(zone: Zone) -> GateConfig {
    let config = Class::ALL.iter().fold(GateConfig::new(GATEWAY_MAC).with_source_check(true), |config, class| {
        config.with_limit(*class, if zone == SPENDTHRIFT { Limit::NOTHING } else { Limit::NONE })
    });
    match zone {
        STRICT => config.with_https(HttpsPolicy::Alert).with_strictness(Strictness::Strict).with_garden(true, true),
        SHADOW => config.with_shadow(true),
        UNCHECKED => config.with_https(HttpsPolicy::Drop).with_strictness(Strictness::Off),
        _ => config,
    }
}

fn policy(attachment: Attachment, zone: Zone) -> ZonePolicy {
    let both = |v4: [u8; 4], v6: [u8; 16]| vec![IpAddr::from(v4), IpAddr::from(v6)];
    ZonePolicy {
        zone,
        attachment,
        config: config_of(zone),
        gateway: both(GATEWAY_V4, GATEWAY_V6),
        resolvers: [both(GATEWAY_V4, GATEWAY_V6), both(RESOLVER_V4, RESOLVER_V6)].concat(),
        listeners: both(GATEWAY_V4, GATEWAY_V6).into_iter().map(|address| (address, 8080).into()).collect(),
        ntp: if zone == STRICT || zone == SPENDTHRIFT { both(NTP_V4, NTP_V6) } else { Vec::new() },
        sources: sources(),
    }
}

/// The guests' prefixes, and an address of the gateway's within.
fn sources() -> Vec<(IpNet, Source)> {
    let own = ["192.0.0.0/21", "2001:db8:1::/64"].map(|prefix| (prefix.parse().expect("a prefix"), Source::Own));
    let foreign = [IpAddr::from(ELSEWHERES_V4), IpAddr::from(ELSEWHERES_V6)].map(|a| (IpNet::from(a), Source::Foreign));
    own.into_iter().chain(foreign).collect()
}

fn clients() -> Vec<Client> {
    const SLOW: Rate = Rate::bits_per_second(2_000);
    let live = |slot| Session::new(0, Session::NEVER, slot);
    let fresh = ClientState::default();
    let ahead = Flow { bucket: FAR_NS, ..Flow::default() };
    let owned = [Address::v4(OWNED_V4), Address::v6(OWNED_V6)];
    // Seen in the future: an owner does not become stale while a slow machine runs the test.
    let there = ClientState { last_seen_ns: FAR_NS, ..fresh };
    let client = |zone, mac, session, state| Client {
        key: ClientKey::new(zone, mac),
        session,
        state,
        addresses: match mac {
            OWNER => owned.to_vec(),
            SETTLED => settled_addresses().collect(),
            FAST => vec![Address::v4(FAST_V4), Address::v6(FAST_V6)],
            SPENT => vec![Address::v4(SPENT_V4), Address::v6(SPENT_V6)],
            _ => Vec::new(),
        },
    };
    vec![
        client(LEARN, GUEST, live(0), fresh),
        client(LEARN, EXPIRED, Session::new(0, 1, 1), fresh),
        client(LEARN, FAST, live(2).with_rates(SLOW, SLOW), ClientState { up: ahead, down: ahead, ..fresh }),
        client(LEARN, SPENT, live(3).with_quota(1_000), ClientState { quota_used: 2_000, ..fresh }),
        client(LEARN, IDLE, live(4).with_idle_s(1), fresh),
        client(LEARN, OWNER, live(5), there),
        client(STRICT, SETTLED, live(6), fresh),
        client(UNCHECKED, FREE, live(7), fresh),
        client(UNCHECKED, OWNER, live(8), there),
        client(SHADOW, GUEST, live(9), fresh),
        client(SHADOW, FAST, live(10).with_rates(SLOW, SLOW), ClientState { up: ahead, down: ahead, ..fresh }),
        client(STRICT, GUEST, live(11), fresh),
    ]
}

/// [`SETTLED`]'s addresses: as many as a session can have.
fn settled_addresses() -> impl Iterator<Item = Address> {
    let [a, b, c, d] = SETTLED_V4;
    (0..MAX_BINDINGS as u8).map(move |n| Address::v4([a, b, c, d + n]))
}

/// The same state, as the host's tables hold it.
fn atomic(state: &ClientState<u64>) -> ClientState<AtomicU64> {
    let ClientState { last_seen_ns, bindings, reserved, quota_used, up, down } = *state;
    let flow =
        |flow: Flow<u64>| Flow { packets: flow.packets.into(), bytes: flow.bytes.into(), bucket: flow.bucket.into() };
    ClientState {
        last_seen_ns: last_seen_ns.into(),
        quota_used: quota_used.into(),
        up: flow(up),
        down: flow(down),
        bindings: Bindings { words: bindings.words.map(Into::into) },
        reserved: reserved.map(Into::into),
    }
}

/// The same state, as it is read out of the kernel's maps.
pub fn plain(state: &ClientState<AtomicU64>) -> ClientState<u64> {
    let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
    let flow = |flow: &Flow<AtomicU64>| Flow {
        packets: load(&flow.packets),
        bytes: load(&flow.bytes),
        bucket: load(&flow.bucket),
    };
    ClientState {
        last_seen_ns: load(&state.last_seen_ns),
        quota_used: load(&state.quota_used),
        up: flow(&state.up),
        down: flow(&state.down),
        bindings: Bindings { words: state.bindings.words.each_ref().map(load) },
        reserved: state.reserved.each_ref().map(load),
    }
}
