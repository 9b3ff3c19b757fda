//! The garden as programs and people see it: `GET`, `POST` and `DELETE /v1/garden`, and `portalctl garden`.
//!
//! The JSON forms are stable, as those of `control::api`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    learned::{LearnedKey, LearnedSink, RuleId},
    ports::{Ports, Service},
    rules::{GardenRule, Target},
    table::{ActiveRule, Garden, GardenError, PrefixSink, Source},
};

/// How many addresses of a rule people are shown; programs get all.
const SHOWN: usize = 8;

/// `GET /v1/garden`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct GardenList {
    /// The rules by zone, the configuration's first.
    pub rules: Vec<RuleView>,
    /// What an earlier daemon learned and is still open: by which rule is not known.
    pub earlier: Vec<LearnedView>,
    /// Destinations (an address and a port) in the kernel's table.
    pub open: usize,
    /// How many it holds.
    pub capacity: usize,
    /// The counters since the daemon started, by name.
    pub counters: BTreeMap<String, u64>,
}

/// A rule that is in force.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct RuleView {
    /// The zone's name.
    pub zone: String,
    /// The prefix, address or name.
    pub to: String,
    /// The ports, as `443/tcp`.
    pub ports: Vec<String>,
    /// `config`, or `runtime`: such a rule lives as long as the daemon.
    pub source: String,
    /// What it has learned and is open now, by address.
    pub learned: Vec<LearnedView>,
}

/// An address that is open for a while.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct LearnedView {
    /// The address.
    pub address: IpAddr,
    /// The ports, as `443/tcp`; `any/tcp`: all.
    pub ports: Vec<String>,
    /// Seconds until it closes, unless another answer names it; of several ports, the longest.
    pub remaining_seconds: u64,
}

/// The body of `POST /v1/garden`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AddRequest {
    /// The zone's name; it may be left out where there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The prefix, address or name.
    pub to: Target,
    /// The ports; left out: 80/tcp and 443/tcp.
    #[serde(default)]
    pub ports: Ports,
}

/// The query of `DELETE /v1/garden`, as `?to=*.pay.example&zone=guests`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveRequest {
    /// The zone's name; it may be left out where there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The prefix, address or name, as it was added.
    pub to: Target,
}

/// The answer to `DELETE /v1/garden`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Removed {
    /// The zone's name.
    pub zone: String,
    /// What the rule was for.
    pub to: String,
}

/// `GET /v1/garden` at this instant of CLOCK_MONOTONIC, nanoseconds.
pub fn list<S: PrefixSink + LearnedSink>(garden: &Garden<S>, now_ns: u64) -> GardenList {
    let mut rules = Vec::new();
    for (zone, name) in garden.zones() {
        let active = garden.rules(zone).unwrap_or_default();
        rules.extend(active.iter().map(|active| rule_view(garden, name, active, now_ns)));
    }
    GardenList {
        rules,
        earlier: learned(garden, RuleId::EARLIER, now_ns),
        open: garden.learned().len(),
        capacity: garden.learned().limits().total,
        counters: garden.counters().by_name(),
    }
}

/// `POST /v1/garden`: the rule as it is now, with the ports that were added before.
pub fn add<S: PrefixSink + LearnedSink>(
    garden: &mut Garden<S>,
    request: AddRequest,
    now_ns: u64,
) -> Result<RuleView, GardenError> {
    let AddRequest { zone, to, ports } = request;
    let zone = garden.zone_named(zone.as_deref())?;
    garden.add(zone, GardenRule { to: to.clone(), ports })?;
    let added = |active: &&ActiveRule| active.source == Source::Runtime && active.rule.to == to;
    let active = garden.rules(zone)?.iter().find(added).expect("it has just been added");
    let name = garden.zones().find(|(other, _)| *other == zone).map_or("", |(_, name)| name);
    Ok(rule_view(garden, name, active, now_ns))
}

/// `DELETE /v1/garden`
pub fn remove<S: PrefixSink + LearnedSink>(
    garden: &mut Garden<S>,
    request: &RemoveRequest,
) -> Result<Removed, GardenError> {
    let zone = garden.zone_named(request.zone.as_deref())?;
    garden.remove(zone, &request.to)?;
    let name = garden.zones().find(|(other, _)| *other == zone).map_or("", |(_, name)| name);
    Ok(Removed { zone: name.to_owned(), to: request.to.to_string() })
}

fn rule_view<S: PrefixSink + LearnedSink>(
    garden: &Garden<S>,
    zone: &str,
    active: &ActiveRule,
    now_ns: u64,
) -> RuleView {
    let ActiveRule { id, source, rule } = active;
    RuleView {
        zone: zone.to_owned(),
        to: rule.to.to_string(),
        ports: rule.ports.iter().map(|port| port.to_string()).collect(),
        source: match source {
            Source::Config => "config",
            Source::Runtime => "runtime",
        }
        .to_owned(),
        learned: learned(garden, *id, now_ns),
    }
}

fn learned<S: PrefixSink + LearnedSink>(garden: &Garden<S>, rule: RuleId, now_ns: u64) -> Vec<LearnedView> {
    let mut addresses: BTreeMap<IpAddr, (BTreeSet<Service>, u64)> = BTreeMap::new();
    for (LearnedKey { address, service, .. }, until_ns) in garden.learned().of(rule, now_ns) {
        let (services, latest) = addresses.entry(address).or_default();
        services.insert(service);
        *latest = until_ns.max(*latest);
    }
    let view = |(address, (services, until_ns)): (_, (BTreeSet<Service>, u64))| LearnedView {
        address,
        ports: services.iter().map(Service::to_string).collect(),
        // Rounded up: what is open is never shown with nothing left.
        remaining_seconds: until_ns.saturating_sub(now_ns).div_ceil(1_000_000_000),
    };
    addresses.into_iter().map(view).collect()
}

/// The head of [`rows`].
pub const HEADER: [&str; 5] = ["TO", "PORTS", "ZONE", "FROM", "OPEN NOW"];

/// What `portalctl garden list` prints, one row for a rule.
pub fn rows(list: &GardenList) -> Vec<[String; 5]> {
    let row = |rule: &RuleView| {
        let RuleView { zone, to, ports, source, learned } = rule;
        let from = if source == "runtime" { "portalctl" } else { source };
        [to.clone(), ports.join("\n"), zone.clone(), from.to_owned(), addresses(to, learned)]
    };
    let mut rows: Vec<_> = list.rules.iter().map(row).collect();
    if !list.earlier.is_empty() {
        let ports: BTreeSet<_> = list.earlier.iter().flat_map(|learned| &learned.ports).map(String::as_str).collect();
        let ports = ports.into_iter().collect::<Vec<_>>().join("\n");
        rows.push(["-".into(), ports, "-".into(), "before".into(), addresses("", &list.earlier)]);
    }
    rows
}

/// What has happened, one row for a counter that is not zero.
pub fn counter_rows(list: &GardenList) -> Vec<[String; 2]> {
    list.counters.iter().filter(|(_, n)| **n > 0).map(|(name, n)| [name.clone(), n.to_string()]).collect()
}

/// What `portalctl garden add` prints.
pub fn added(rule: &RuleView) -> String {
    let RuleView { zone, to, ports, .. } = rule;
    format!(
        "Strangers of {zone} may reach {to} on {} until it is removed or portald ends; [[garden]] in the configuration keeps it.\n",
        ports.join(", ")
    )
}

/// What `portalctl garden remove` prints.
pub fn removed(removed: &Removed) -> String {
    format!("{} is closed to strangers of {}.\n", removed.to, removed.zone)
}

fn addresses(to: &str, learned: &[LearnedView]) -> String {
    // A prefix is open by itself.
    if to.parse().is_ok_and(|target| matches!(target, Target::Prefix(_))) {
        return "always".into();
    }
    if learned.is_empty() {
        return "-".into();
    }
    let mut lines: Vec<_> = learned
        .iter()
        .take(SHOWN)
        .map(|learned| {
            let left = humantime::format_duration(Duration::from_secs(learned.remaining_seconds));
            format!("{}, {left}", learned.address)
        })
        .collect();
    if learned.len() > SHOWN {
        lines.push(format!("and {} more", learned.len() - SHOWN));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use portal_common::tables::Zone;
    use serde_json::json;

    use super::{
        super::{
            answer::tests::{Row, fixture, message},
            learning_tests::Tables,
            table::{Policy, ZoneGarden},
        },
        *,
    };

    const SECOND: u64 = 1_000_000_000;

    fn garden(zones: &[&str]) -> Garden<Tables> {
        let mut garden = Garden::new(Policy::default(), Tables::default());
        for (number, name) in zones.iter().enumerate() {
            let rules = ["to = '203.0.113.0/24'", "to = 'pay.example'\nports = ['443/tcp', '53/any']"];
            let settings = ZoneGarden {
                name: (*name).into(),
                rules: rules.iter().map(|rule| toml::from_str(rule).unwrap()).collect(),
                resolvers: vec![Ipv4Addr::LOCALHOST.into()],
            };
            garden.set_zone(Zone::new(number as u16), settings).unwrap();
        }
        garden
    }

    fn request<T: for<'d> Deserialize<'d>>(json: serde_json::Value) -> Result<T, String> {
        serde_json::from_value(json).map_err(|e| e.to_string())
    }

    #[test]
    fn the_list_has_each_rule_and_what_it_has_learned() {
        let mut garden = garden(&["guests"]);
        add(&mut garden, request(json!({"to": "*.pay.example"})).unwrap(), 0).unwrap();
        garden.learn(Zone::FIRST, Ipv4Addr::LOCALHOST.into(), &fixture("www-a"), SECOND);
        let list = list(&garden, 10 * SECOND + 1);
        let rules = serde_json::to_value(&list.rules).unwrap();
        let learned =
            |ports: &[&str], seconds| json!([{"address": "203.0.113.7", "ports": ports, "remaining_seconds": seconds}]);
        assert_eq!(
            rules,
            json!([
                {"zone": "guests", "to": "203.0.113.0/24", "ports": ["80/tcp", "443/tcp"], "source": "config", "learned": []},
                {"zone": "guests", "to": "pay.example", "ports": ["443/tcp", "53/any"], "source": "config",
                 "learned": learned(&["53/tcp", "443/tcp", "53/udp"], 321)},
                {"zone": "guests", "to": "*.pay.example", "ports": ["80/tcp", "443/tcp"], "source": "runtime",
                 "learned": learned(&["80/tcp", "443/tcp"], 81)},
            ])
        );
        assert_eq!((list.open, list.capacity, list.counters["learned"], list.counters["refreshed"]), (4, 8192, 4, 1));
        let back: GardenList = serde_json::from_str(&serde_json::to_string(&list).unwrap()).unwrap();
        assert_eq!(back, list);
        assert_eq!(
            rows(&list),
            [
                ["203.0.113.0/24", "80/tcp\n443/tcp", "guests", "config", "always"],
                ["pay.example", "443/tcp\n53/any", "guests", "config", "203.0.113.7, 5m 21s"],
                ["*.pay.example", "80/tcp\n443/tcp", "guests", "portalctl", "203.0.113.7, 1m 21s"],
            ]
        );
        let counters: Vec<_> = counter_rows(&list).into_iter().map(|[name, n]| format!("{name} {n}")).collect();
        assert_eq!(counters, ["answers 1", "learned 4", "matched 1", "refreshed 1"]);
    }

    #[test]
    fn a_long_list_of_addresses_is_cut_for_people() {
        let mut garden = garden(&["guests"]);
        let addresses: Vec<_> = (1..=11).map(|last| [203, 0, 113, last]).collect();
        let records: Vec<Row<'_>> = addresses.iter().map(|a| ("pay.example", 1, 60, &a[..])).collect();
        garden.learn(Zone::FIRST, Ipv4Addr::LOCALHOST.into(), &message("pay.example", &records), SECOND);
        let list = list(&garden, SECOND);
        assert_eq!(list.rules[1].learned.len(), 11);
        let shown = rows(&list)[1][4].clone();
        assert_eq!((shown.lines().count(), shown.lines().last()), (9, Some("and 3 more")));
    }

    #[test]
    fn what_an_earlier_daemon_opened_has_a_row() {
        let mut garden = garden(&["guests"]);
        let key = LearnedKey {
            zone: Zone::FIRST,
            address: Ipv4Addr::new(203, 0, 113, 9).into(),
            service: Service { protocol: 6, port: 443 },
        };
        garden.adopt([], [(key, 60 * SECOND)], SECOND).unwrap();
        let list = list(&garden, SECOND);
        assert_eq!(rows(&list)[2], ["-", "443/tcp", "-", "before", "203.0.113.9, 59s"]);
    }

    #[test]
    fn adding_and_removing() {
        let mut garden = garden(&["guests"]);
        let rule = add(&mut garden, request(json!({"to": "*.pay.example", "ports": ["443/tcp"]})).unwrap(), 0).unwrap();
        assert!(added(&rule).starts_with("Strangers of guests may reach *.pay.example on 443/tcp until"));
        let rule = add(&mut garden, request(json!({"to": "*.pay.example", "ports": ["53/udp"]})).unwrap(), 0).unwrap();
        assert_eq!(rule.ports, ["443/tcp", "53/udp"], "ports are added");
        let gone: RemoveRequest = request(json!({"to": "*.Pay.Example.", "zone": "guests"})).unwrap();
        assert_eq!(removed(&remove(&mut garden, &gone).unwrap()), "*.pay.example is closed to strangers of guests.\n");
        let error = remove(&mut garden, &gone).unwrap_err();
        assert_eq!(
            (error.code(), error.to_string().as_str()),
            ("no_such_rule", "no rule for *.pay.example was added at run time")
        );
        let configured = request(json!({"to": "pay.example"})).unwrap();
        assert_eq!(remove(&mut garden, &configured).unwrap_err().code(), "rule_is_configured");
        let table = [
            (json!({"to": "*"}), "would open every name"),
            (json!({"to": "pay.example", "port": "443/tcp"}), "unknown field `port`"),
            (json!({"to": "pay.example", "ports": ["443"]}), "names no protocol"),
        ];
        for (body, expected) in table {
            let error = request::<AddRequest>(body.clone()).unwrap_err();
            assert!(error.contains(expected), "{body}: {error}");
        }
    }

    #[test]
    fn where_there_are_several_zones_one_is_named() {
        let mut garden = garden(&["guests", "staff"]);
        let error = add(&mut garden, request(json!({"to": "a.example"})).unwrap(), 0).unwrap_err();
        assert_eq!(
            (error.code(), error.to_string().as_str()),
            ("which_zone", "there are several zones: guests, staff")
        );
        let rule = add(&mut garden, request(json!({"to": "a.example", "zone": "staff"})).unwrap(), 0).unwrap();
        assert_eq!(rule.zone, "staff");
        let error = add(&mut garden, request(json!({"to": "a.example", "zone": "lobby"})).unwrap(), 0).unwrap_err();
        assert_eq!(error.code(), "unknown_zone");
        let none = super::add(&mut self::garden(&[]), request(json!({"to": "a.example"})).unwrap(), 0);
        assert_eq!(none.unwrap_err().code(), "unknown_zone");
    }
}
