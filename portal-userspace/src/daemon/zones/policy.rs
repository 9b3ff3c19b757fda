//! From a network's configuration to what the gate is told.

use std::net::IpAddr;

use ipnet::IpNet;
use portal_common::{
    budget::{Class, Limit},
    tables::{GateConfig, HttpsPolicy, Source, Strictness, Zone},
};

use super::setup::ZoneSetup;
use crate::{
    config::{AntiSpoofing, Bucket, Budgets, Https, SourceCheck, ZoneConfig},
    datapath::zones::ZonePolicy,
};

/// What the gate is told of a network that has this number, and whose interface has its sockets from this place on.
pub(in crate::daemon) fn zone_policy(setup: &ZoneSetup, zone: Zone, xsk_base: u32) -> ZonePolicy {
    let ZoneSetup { effective, network, .. } = setup;
    let link_local = network.v6_link_local.iter().copied().map(std::net::IpAddr::V6);
    ZonePolicy {
        zone,
        attachment: setup.attachment(),
        config: gate_config(&effective.zone, network.gateway_mac()).with_xsk_base(xsk_base),
        gateway: network.addresses().chain(link_local).collect(),
        resolvers: effective.resolvers.clone(),
        listeners: effective.services.clone(),
        ntp: effective.zone.ntp.servers.clone(),
        sources: sources(setup),
    }
}

/// The network's own prefixes and those behind its clients, without the addresses of this machine, of whatever interface: whoever has one of those on the
/// wire would be taken for the gateway.
fn sources(setup: &ZoneSetup) -> Vec<(IpNet, Source)> {
    let ZoneSetup { effective, network, local, .. } = setup;
    let own =
        network.prefixes.iter().chain(&effective.zone.guest.downstream).map(|prefix| (prefix.trunc(), Source::Own));
    // The network's own gateway has rows and a reason of its own.
    let elsewhere = |address: &IpAddr| {
        own.clone().any(|(prefix, _)| prefix.contains(address)) && network.addresses().all(|own| own != *address)
    };
    let of_gateway =
        local.iter().filter(|address| elsewhere(address)).map(|address| (IpNet::from(*address), Source::Foreign));
    own.clone().chain(of_gateway).collect()
}

fn gate_config(zone: &ZoneConfig, gateway_mac: [u8; 6]) -> GateConfig {
    let ZoneConfig { guest, session, budgets, .. } = zone;
    let https = match guest.https {
        Https::Reset => HttpsPolicy::Reset,
        Https::Alert => HttpsPolicy::Alert,
        Https::Drop => HttpsPolicy::Drop,
    };
    let strictness = match guest.anti_spoofing {
        AntiSpoofing::Off => Strictness::Off,
        AntiSpoofing::Learn => Strictness::Learn,
        AntiSpoofing::Strict => Strictness::Strict,
    };
    let config = GateConfig::new(gateway_mac)
        .with_https(https)
        .with_strictness(strictness)
        .with_source_check(matches!(guest.sources, SourceCheck::Network))
        .with_shadow(guest.shadow)
        .with_accounting(session.accounting)
        .with_rate_burst_ns(session.rate_burst.ns());
    Class::ALL.into_iter().fold(config, |config, class| config.with_limit(class, limit(budgets, class)))
}

fn limit(budgets: &Budgets, class: Class) -> Limit {
    let Budgets { requests, dns_queries, dns_bytes, link, replies, services } = budgets;
    let bucket = match class {
        Class::Requests => requests.get(),
        Class::DnsQueries => dns_queries.get(),
        Class::DnsBytes => dns_bytes.get(),
        Class::Link => link.get(),
        Class::Replies => replies.get(),
        Class::Services => services.get(),
    };
    bucket.map_or(Limit::NONE, |Bucket { per_second, burst }| Limit::new(per_second, burst))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn told(rest: &str) -> GateConfig {
        let config = Config::parse(&format!("[guest]\ninterface = \"eth1\"\n{rest}"), Path::new("test")).unwrap();
        gate_config(&config.zones()[0], MAC)
    }

    #[test]
    fn an_empty_configuration_means_the_gates_own_defaults() {
        assert_eq!(told(""), GateConfig::new(MAC).with_source_check(true));
    }

    #[test]
    fn each_key_becomes_what_it_says() {
        let base = GateConfig::new(MAC).with_source_check(true);
        let table = [
            ("https = \"alert\"\n", base.with_https(HttpsPolicy::Alert)),
            ("https = \"drop\"\n", base.with_https(HttpsPolicy::Drop)),
            ("anti_spoofing = \"off\"\n", base.with_strictness(Strictness::Off)),
            ("anti_spoofing = \"strict\"\n", base.with_strictness(Strictness::Strict)),
            ("sources = \"off\"\n", base.with_source_check(false)),
            ("shadow = true\n", base.with_shadow(true)),
            ("[session]\nrate_burst = \"20ms\"\n", base.with_rate_burst_ns(20_000_000)),
            ("[session]\naccounting = false\n", base.with_accounting(false)),
            ("[budgets]\nrequests = \"1/s burst 2\"\n", base.with_limit(Class::Requests, Limit::new(1, 2))),
            ("[budgets]\ndns_queries = \"1/s burst 2\"\n", base.with_limit(Class::DnsQueries, Limit::new(1, 2))),
            ("[budgets]\ndns_bytes = \"1kB/s burst 2kB\"\n", base.with_limit(Class::DnsBytes, Limit::new(1000, 2000))),
            ("[budgets]\nlink = \"off\"\n", base.with_limit(Class::Link, Limit::NONE)),
            ("[budgets]\nreplies = \"1/s burst 2\"\n", base.with_limit(Class::Replies, Limit::new(1, 2))),
            ("[budgets]\nservices = \"1kB/s burst 2kB\"\n", base.with_limit(Class::Services, Limit::new(1000, 2000))),
        ];
        for (text, expected) in table {
            assert_eq!(told(text), expected, "{text}");
        }
    }
}
