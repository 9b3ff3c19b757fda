//! The guest networks as the gate knows them: which frames are whose, and what a stranger may do there.

use std::{
    collections::{HashMap as Map, HashSet},
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context as _, Result};
use aya::maps::{Array, HashMap, MapData};
use ipnet::IpNet;
use network_types::ip::IpProto;
use portal_common::{
    decide::ANY_VLAN,
    tables::{Address, Attachment, GateConfig, Service, ServiceKey, Source, ZONE_ROWS, Zone, ZoneRow},
};

use super::{attachments::AttachmentTable, mapped::Mapped, pins::MAX_SERVICES, sources::Sources};

const TCP: u8 = IpProto::Tcp as u8;
const UDP: u8 = IpProto::Udp as u8;
const DNS: u16 = 53;
const NTP: u16 = 123;

/// What the gate must know of a guest network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZonePolicy {
    /// Its number.
    pub zone: Zone,
    /// Where its frames arrive.
    pub attachment: Attachment,
    /// What applies to them.
    pub config: GateConfig,
    /// The gateway's own addresses there, link-local ones included: no guest may use them.
    pub gateway: Vec<IpAddr>,
    /// The resolvers that strangers may ask.
    pub resolvers: Vec<IpAddr>,
    /// The portal's own TCP listeners.
    pub listeners: Vec<SocketAddr>,
    /// The time servers that strangers may ask.
    pub ntp: Vec<IpAddr>,
    /// Which addresses its clients may have, and which within those not.
    pub sources: Vec<(IpNet, Source)>,
}

/// The tables that say which zones there are.
pub struct ZoneTables {
    zones: AttachmentTable,
    configs: Array<MapData, GateConfig>,
    services: HashMap<MapData, ServiceKey, u32>,
    sources: Sources,
}

impl ZonePolicy {
    /// Where a stranger may go, and the addresses that are the gateway's.
    pub fn destinations(&self) -> Map<ServiceKey, Service> {
        let key = |address: IpAddr, protocol, port| ServiceKey::new(self.zone, Address::from(address), protocol, port);
        let ntp = self.ntp.iter().map(|&address| (key(address, UDP, NTP), Service::Ntp));
        let resolvers = self
            .resolvers
            .iter()
            .flat_map(|&address| [UDP, TCP].map(|protocol| (key(address, protocol, DNS), Service::Resolver)));
        let listeners =
            self.listeners.iter().map(|listener| (key(listener.ip(), TCP, listener.port()), Service::Portal));
        // Where it listens is its own too, whichever interface has the address.
        let own = self.gateway.iter().copied().chain(self.listeners.iter().map(SocketAddr::ip));
        let gateway = own.map(|address| (ServiceKey::of_gateway(self.zone, Address::from(address)), Service::Gateway));
        ntp.chain(resolvers).chain(listeners).chain(gateway).collect()
    }
}

impl ZoneTables {
    /// The tables in these maps.
    pub(super) fn new(
        zones: &Array<MapData, ZoneRow>,
        configs: Array<MapData, GateConfig>,
        services: HashMap<MapData, ServiceKey, u32>,
        sources: Sources,
    ) -> Result<Self> {
        Ok(Self { zones: AttachmentTable::new(Mapped::new(zones)?), configs, services, sources })
    }

    /// Tables of their own, that no program reads.
    pub fn create() -> Result<Self> {
        let context = "cannot create a BPF map";
        Ok(Self {
            zones: AttachmentTable::new(Mapped::create(ZONE_ROWS)?),
            configs: Array::create(portal_common::tables::MAX_ZONES, 0).context(context)?,
            services: HashMap::create(MAX_SERVICES, 0).context(context)?,
            sources: Sources::create()?,
        })
    }

    /// Makes the tables say of a zone what its policy says. From here on a gate that runs over them does so.
    pub fn fill(&mut self, policy: &ZonePolicy) -> Result<()> {
        let ZonePolicy { zone, attachment, config, .. } = policy;
        let destinations = policy.destinations();
        self.fill_services(*zone, &destinations)?;
        self.sources.fill(*zone, &policy.sources)?;
        self.configure(*zone, config.with_services(&destinations))?;
        // Last: with it the zone's frames are let in. Where it has been before, they are nobody's any more.
        self.zones.insert(*attachment, *zone)?;
        self.detach_where(|place, number| number == *zone && place != *attachment && place != rest_of(place.ifindex()));
        Ok(())
    }

    /// Changes what applies to a zone.
    pub fn configure(&mut self, zone: Zone, config: GateConfig) -> Result<()> {
        self.configs.set(zone.number().into(), config, 0).context("cannot write the gate's configuration")
    }

    /// What applies to a zone now.
    pub fn config(&self, zone: Zone) -> Result<GateConfig> {
        self.configs.get(&zone.number().into(), 0).context("cannot read the gate's configuration")
    }

    /// Makes the zone unknown to the gate, which then drops its frames. Its sessions stay.
    pub fn remove(&mut self, zone: Zone) -> Result<()> {
        self.detach_where(|_, number| number == zone);
        self.configure(zone, GateConfig::UNFILLED)?;
        self.sources.fill(zone, &[])?;
        self.fill_services(zone, &Map::new())
    }

    /// Whatever has no zone of its own on this interface belongs to this one, which is in shadow mode, until that is removed; without one it is dropped.
    pub fn set_rest(&mut self, ifindex: u32, zone: Option<Zone>) -> Result<()> {
        match zone {
            Some(zone) => self.zones.insert(rest_of(ifindex), zone)?,
            None => self.zones.remove(rest_of(ifindex)),
        }
        Ok(())
    }

    /// Which zone has what has no zone of its own on this interface.
    pub fn rest(&self, ifindex: u32) -> Option<Zone> {
        self.zones.get(rest_of(ifindex))
    }

    /// Lets no frames in by the attachments for which this is so.
    pub fn detach_where(&mut self, unwanted: impl Fn(Attachment, Zone) -> bool) {
        let rows: Vec<_> = self.zones.rows().filter(|(place, zone)| unwanted(*place, *zone)).collect();
        for (place, _) in rows {
            self.zones.remove(place);
        }
    }

    /// Makes the zone's part of the table of destinations what is wanted, without a moment at which one in both is missing.
    fn fill_services(&mut self, zone: Zone, wanted: &Map<ServiceKey, Service>) -> Result<()> {
        let present: Vec<ServiceKey> =
            self.services.keys().collect::<Result<_, _>>().context("cannot read the permitted destinations")?;
        let (own, others): (HashSet<_>, Vec<_>) = partition(present, |key| key.zone() == zone);
        // The new before the old goes, where there is room for both.
        let both = own.iter().chain(wanted.keys()).collect::<HashSet<_>>().len();
        let room = others.len() + both <= MAX_SERVICES as usize;
        if !room {
            self.remove_services(&own, wanted)?;
        }
        for (key, service) in wanted {
            self.services.insert(key, *service as u32, 0).with_context(|| {
                format!(
                    "cannot store the permitted destinations; there is room for {MAX_SERVICES} in all zones together"
                )
            })?;
        }
        if room { self.remove_services(&own, wanted) } else { Ok(()) }
    }

    fn remove_services(&mut self, present: &HashSet<ServiceKey>, wanted: &Map<ServiceKey, Service>) -> Result<()> {
        present
            .iter()
            .filter(|key| !wanted.contains_key(key))
            .try_for_each(|key| self.services.remove(key).or_else(super::absent))
            .context("cannot remove a destination that is no longer permitted")
    }
}

/// Where whatever has no zone of its own arrives at this interface.
pub fn rest_of(ifindex: u32) -> Attachment {
    Attachment::new(ifindex, ANY_VLAN, ANY_VLAN)
}

fn partition<T: Eq + std::hash::Hash>(all: Vec<T>, own: impl Fn(&T) -> bool) -> (HashSet<T>, Vec<T>) {
    let (own, others): (Vec<_>, Vec<_>) = all.into_iter().partition(own);
    (own.into_iter().collect(), others)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn policy(zone: u16, octet: u8, resolvers: u16, listeners: u16) -> ZonePolicy {
        ZonePolicy {
            zone: Zone::new(zone),
            attachment: Attachment::new(7, zone, 0),
            config: GateConfig::new(MAC),
            gateway: vec![IpAddr::from([192, 0, octet, 1])],
            resolvers: (0..resolvers).map(|n| IpAddr::from([10, octet, (n >> 8) as u8, n as u8])).collect(),
            listeners: (0..listeners).map(|n| SocketAddr::from(([192, 0, octet, 1], 8080 + n))).collect(),
            ntp: vec![IpAddr::from([192, 0, octet, 123])],
            sources: vec![(IpNet::from(IpAddr::from([192, 0, octet, 0])), Source::Own)],
        }
    }

    fn services(tables: &ZoneTables) -> Map<ServiceKey, Service> {
        tables.services.iter().map(Result::unwrap).map(|(key, n)| (key, Service::try_from(n).unwrap())).collect()
    }

    #[test]
    fn the_permitted_destinations_of_a_zone_become_what_its_policy_says_and_no_others() {
        let mut tables = ZoneTables::create().unwrap();
        let other = policy(5, 5, 3, 2);
        tables.fill(&other).unwrap();
        let others = services(&tables);
        let table = [
            ("into an empty table", policy(2, 2, 100, 0)),
            ("others, which do not fit beside the old", policy(2, 3, 0, 3900)),
            ("some of them", policy(2, 3, 2, 3)),
            ("as many as fit", policy(2, 3, 2042, 0)),
            ("few", policy(2, 3, 0, 0)),
        ];
        for (sentence, policy) in table {
            tables.fill(&policy).expect(sentence);
            let mut wanted = policy.destinations();
            wanted.extend(others.clone());
            assert_eq!(services(&tables), wanted, "{sentence}");
        }
        assert!(tables.fill(&policy(2, 3, 2043, 0)).is_err(), "one too many");
    }

    #[test]
    fn what_has_no_zone_of_its_own_belongs_to_one_or_to_none() {
        let mut tables = ZoneTables::create().unwrap();
        tables.fill(&policy(1, 1, 1, 1)).unwrap();
        let rest = |tables: &ZoneTables| tables.rest(7).map(Zone::number);
        tables.set_rest(7, None).expect("what is not there need not be removed");
        assert_eq!(rest(&tables), None);
        for zone in [1, 2] {
            tables.set_rest(7, Some(Zone::new(zone))).unwrap();
            assert_eq!(rest(&tables), Some(zone));
        }
        tables.set_rest(8, None).unwrap();
        tables.fill(&policy(2, 2, 1, 1)).unwrap();
        assert_eq!(rest(&tables), Some(2), "another interface, and the zone filled again");
        tables.remove(Zone::new(1)).unwrap();
        assert_eq!(rest(&tables), Some(2), "another zone removed");
        tables.remove(Zone::new(2)).unwrap();
        assert_eq!(rest(&tables), None, "nothing belongs to a zone that is gone");
        tables.set_rest(7, Some(Zone::new(3))).unwrap();
        tables.set_rest(7, None).unwrap();
        assert_eq!(rest(&tables), None);
    }

    #[test]
    fn a_zone_is_where_it_was_put_last_until_it_is_removed() {
        let mut tables = ZoneTables::create().unwrap();
        let places = |tables: &ZoneTables| {
            let mut rows: Vec<_> =
                tables.zones.rows().map(|(a, zone)| (a.ifindex(), a.vlans(), zone.number())).collect();
            rows.sort_unstable();
            rows
        };
        tables.fill(&policy(1, 1, 1, 1)).unwrap();
        tables.fill(&policy(2, 2, 1, 1)).unwrap();
        assert_eq!(places(&tables), [(7, (1, 0), 1), (7, (2, 0), 2)]);
        let moved = ZonePolicy { attachment: Attachment::new(8, 0, 0), ..policy(1, 1, 1, 1) };
        tables.fill(&moved).unwrap();
        assert_eq!(places(&tables), [(7, (2, 0), 2), (8, (0, 0), 1)]);
        assert!(tables.config(Zone::new(1)).unwrap().is_ready());
        tables.remove(Zone::new(1)).unwrap();
        assert_eq!(places(&tables), [(7, (2, 0), 2)]);
        assert_eq!(tables.config(Zone::new(1)).unwrap(), GateConfig::UNFILLED);
        assert!(services(&tables).keys().all(|key| key.zone() == Zone::new(2)));
        tables.remove(Zone::new(1)).expect("twice is once");
        tables.detach_where(|place, _| place.ifindex() == 7);
        assert_eq!(places(&tables), []);
        assert!(tables.config(Zone::new(2)).unwrap().is_ready());
    }
}
