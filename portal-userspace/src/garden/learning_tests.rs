//! What answers open, for how long, and what closes it again.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use portal_common::tables::Zone;
use proptest::prelude::*;

use super::{
    address::Permitted,
    answer::tests::{Row, fixture, message},
    counters::Count,
    learned::{LearnedKey, LearnedSink, Limits, RuleId},
    ports::Service,
    rules::{GardenRow, GardenRule, Target},
    table::{Garden, GardenError, Policy, PrefixSink, ZoneGarden},
};

/// The kernel's tables, as they are seen from user space: bounded, and refusing when they are told to.
#[derive(Debug, Default)]
pub(super) struct Tables {
    rows: BTreeSet<(Zone, GardenRow)>,
    learned: BTreeMap<LearnedKey, u64>,
    refuse_writes: bool,
    refuse_removals: bool,
    room: Option<usize>,
}

impl LearnedSink for Tables {
    fn insert(&mut self, key: LearnedKey, expires_ns: u64) -> anyhow::Result<()> {
        anyhow::ensure!(!self.refuse_writes, "no room");
        self.learned.insert(key, expires_ns);
        Ok(())
    }

    fn remove(&mut self, key: LearnedKey) -> anyhow::Result<()> {
        anyhow::ensure!(!self.refuse_removals, "not now");
        self.learned.remove(&key);
        Ok(())
    }
}

impl PrefixSink for Tables {
    fn insert_prefix(&mut self, zone: Zone, row: GardenRow) -> anyhow::Result<()> {
        anyhow::ensure!(self.room.is_none_or(|room| self.rows.len() < room), "no room");
        self.rows.insert((zone, row));
        Ok(())
    }

    fn remove_prefix(&mut self, zone: Zone, row: GardenRow) -> anyhow::Result<()> {
        anyhow::ensure!(!self.refuse_removals, "not now");
        self.rows.remove(&(zone, row));
        Ok(())
    }
}

const ZONE: Zone = Zone::new(3);
const SECOND: u64 = 1_000_000_000;
/// Any instant, not the clock's beginning.
const NOW: u64 = 1000 * SECOND;

fn resolver() -> IpAddr {
    "192.0.2.1".parse().unwrap()
}

fn rule(text: &str) -> GardenRule {
    let mut words = text.split(' ');
    let to = words.next().unwrap().parse().unwrap();
    let ports: Vec<_> = words.map(|word| word.parse().unwrap()).collect();
    GardenRule { to, ports: if ports.is_empty() { super::ports::Ports::default() } else { ports.try_into().unwrap() } }
}

fn settings(rules: &[&str]) -> ZoneGarden {
    let rules = rules.iter().map(|text| rule(text)).collect();
    ZoneGarden { name: "guests".into(), rules, resolvers: vec![resolver()] }
}

fn policy() -> Policy {
    Policy { permitted: Permitted { own: vec![resolver()], private: false }, ..Policy::default() }
}

fn garden_with(policy: Policy, rules: &[&str]) -> Garden<Tables> {
    let mut garden = Garden::new(policy, Tables::default());
    garden.set_zone(ZONE, settings(rules)).unwrap();
    garden
}

fn garden(rules: &[&str]) -> Garden<Tables> {
    garden_with(policy(), rules)
}

fn learn(garden: &mut Garden<Tables>, message: &[u8], now_ns: u64) {
    garden.learn(ZONE, resolver(), message, now_ns);
}

/// What is open, as `address:port/protocol seconds`.
fn open(garden: &Garden<Tables>, now_ns: u64) -> Vec<String> {
    let rows = garden.sink().learned.iter().filter(|(_, expires_ns)| **expires_ns > now_ns);
    rows.map(|(key, expires_ns)| {
        let LearnedKey { zone, address, service: Service { protocol, port } } = key;
        assert_eq!(*zone, ZONE);
        format!("{address}:{port}/{protocol} {}", (expires_ns - now_ns) / SECOND)
    })
    .collect()
}

#[test]
fn what_an_answer_opens() {
    let (pay, ttl45) = ("203.0.113.7:443/6 330", "203.0.113.7:443/6 90");
    let table: [(&str, &[&str], &str, &[&str]); 16] = [
        ("the name itself", &["pay.example 443/tcp"], "pay-a", &[pay]),
        ("in another case", &["pay.example 443/tcp"], "pay-case-edns", &[pay]),
        ("over IPv6", &["pay.example 443/tcp"], "pay-aaaa", &["2001:db8::7:443/6 330"]),
        ("the web if no port is named", &["pay.example"], "pay-a", &["203.0.113.7:80/6 330", "203.0.113.7:443/6 330"]),
        ("every port", &["pay.example any"], "pay-a", &["203.0.113.7:0/6 330", "203.0.113.7:0/17 330"]),
        ("a wildcard is not its own name", &["*.pay.example"], "pay-a", &[]),
        ("a wildcard, for the shortest time on the chain", &["*.pay.example 443/tcp"], "www-a", &[ttl45]),
        ("the question's alias, for the shortest time", &["shop.example 443/tcp"], "shop-a", &[ttl45]),
        ("a name in the middle of the chain", &["www.pay.example 443/tcp"], "shop-a", &[ttl45]),
        ("the chain's last name, for its own time", &["pay.example 443/tcp"], "shop-a", &[pay]),
        ("over IPv6 too", &["pay.example 443/tcp"], "alias-aaaa", &["2001:db8::7:443/6 330"]),
        ("another name", &["pay.test"], "pay-a", &[]),
        (
            "several addresses",
            &["multi.example 443/tcp"],
            "multi-a",
            &["198.51.100.1:443/6 150", "198.51.100.2:443/6 150", "198.51.100.3:443/6 150"],
        ),
        ("a private address", &["private.example"], "private-a", &[]),
        ("an unspecified address", &["nothing.example"], "nothing-a", &[]),
        ("an unspecified IPv6 address", &["nothing.example"], "nothing-aaaa", &[]),
    ];
    for (sentence, rules, name, expected) in table {
        let mut garden = garden(rules);
        learn(&mut garden, &fixture(name), NOW);
        assert_eq!(open(&garden, NOW), expected, "{sentence}");
    }
}

#[test]
fn two_rules_for_one_answer_each_open_their_ports() {
    let mut garden = garden(&["pay.example 443/tcp", "*.pay.example 853/tcp", "other.example"]);
    learn(&mut garden, &fixture("shop-a"), NOW);
    assert_eq!(open(&garden, NOW), ["203.0.113.7:443/6 330", "203.0.113.7:853/6 90"]);
    assert_eq!(garden.counters().get(Count::Learned), 2);
    assert_eq!(garden.counters().get(Count::Refreshed), 0);
}

#[test]
fn aliases_open_nothing_where_that_is_switched_off() {
    for (name, rows) in [("shop-a", 0), ("pay-a", 1)] {
        let mut garden = garden_with(Policy { aliases: false, ..policy() }, &["pay.example 443/tcp"]);
        learn(&mut garden, &fixture(name), NOW);
        assert_eq!(open(&garden, NOW).len(), rows, "{name}");
    }
}

#[test]
fn only_a_resolver_of_the_zone_teaches() {
    let mut garden = garden(&["pay.example"]);
    let stranger = "198.51.100.66".parse().unwrap();
    assert!(garden.learn(ZONE, stranger, &fixture("pay-a"), NOW).is_none());
    assert!(garden.learn(Zone::new(4), resolver(), &fixture("pay-a"), NOW).is_none());
    assert_eq!(open(&garden, NOW), Vec::<String>::new());
    assert_eq!(garden.counters().get(Count::NotFromResolver), 1);
}

#[test]
fn private_addresses_where_the_operator_wants_them() {
    let permitted = Permitted { private: true, ..policy().permitted };
    let mut garden = garden_with(Policy { permitted, ..policy() }, &["private.example 443/tcp"]);
    learn(&mut garden, &fixture("private-a"), NOW);
    assert_eq!(open(&garden, NOW), ["192.168.1.9:443/6 150"]);
}

fn answer(ttl: u32) -> Vec<u8> {
    message("pay.example", &[("pay.example", 1, ttl, &[203, 0, 113, 7])])
}

#[test]
fn how_long_an_address_is_open() {
    let table = [
        ("no time at all", 0, 90),
        ("less than a minute", 59, 90),
        ("a minute", 60, 90),
        ("five minutes", 300, 330),
        ("an hour", 3600, 3630),
        ("a day", 86400, 3630),
        ("a negative time", u32::MAX, 90),
    ];
    for (sentence, ttl, expected) in table {
        let mut garden = garden(&["pay.example 443/tcp"]);
        learn(&mut garden, &answer(ttl), NOW);
        assert_eq!(open(&garden, NOW), [format!("203.0.113.7:443/6 {expected}")], "{sentence}");
    }
}

#[test]
fn another_answer_prolongs_and_never_shortens() {
    let mut garden = garden(&["pay.example 443/tcp"]);
    learn(&mut garden, &answer(300), NOW);
    learn(&mut garden, &answer(60), NOW + 10 * SECOND);
    assert_eq!(open(&garden, NOW), ["203.0.113.7:443/6 330"]);
    learn(&mut garden, &answer(300), NOW + 100 * SECOND);
    assert_eq!(open(&garden, NOW), ["203.0.113.7:443/6 430"]);
    assert_eq!((garden.counters().get(Count::Learned), garden.counters().get(Count::Refreshed)), (1, 2));
}

#[test]
fn a_destination_in_use_stays_open_up_to_the_longest_time() {
    let mut garden = garden(&["pay.example 443/tcp"]);
    learn(&mut garden, &answer(60), NOW);
    let key = *garden.sink().learned.keys().next().unwrap();
    let mut now = NOW;
    for _ in 0..200 {
        now += 30 * SECOND;
        garden.extend(key, now);
        garden.sweep(now);
    }
    assert_eq!(garden.counters().get(Count::Expired), 1);
    assert_eq!(open(&garden, now), Vec::<String>::new());

    learn(&mut garden, &answer(60), NOW);
    for second in (0..3600).step_by(30) {
        garden.extend(key, NOW + second * SECOND);
    }
    assert_eq!(open(&garden, NOW), ["203.0.113.7:443/6 3630"], "an hour after the last answer, and the grace");
    garden.extend(key, NOW + 3631 * SECOND);
    assert_eq!(open(&garden, NOW), ["203.0.113.7:443/6 3630"], "what is closed stays closed");
    garden.extend(LearnedKey { zone: Zone::new(9), ..key }, NOW);
    assert_eq!(open(&garden, NOW), ["203.0.113.7:443/6 3630"], "what was never open is not opened");
}

#[test]
fn a_full_table_refuses_what_is_new_and_keeps_what_is_open() {
    let limits = Limits { per_answer: 3, per_rule: 4, total: 6, ..Limits::default() };
    let mut garden = garden_with(Policy { limits, ..policy() }, &["pay.example 443/tcp", "b.example 443/tcp"]);
    let addresses: Vec<[u8; 4]> = (1..=9).map(|i| [203, 0, 113, i]).collect();
    let say = |garden: &mut Garden<Tables>, name: &str, range: std::ops::Range<usize>, now| {
        let rows: Vec<Row<'_>> = addresses[range].iter().map(|a| (name, 1, 60, &a[..])).collect();
        let lesson = garden.learn(ZONE, resolver(), &message(name, &rows), now).unwrap();
        (lesson.learned, lesson.refreshed, lesson.refused)
    };
    assert_eq!(say(&mut garden, "pay.example", 0..4, NOW), (3, 0, 1), "no more from one answer");
    assert_eq!(say(&mut garden, "pay.example", 2..5, NOW), (1, 1, 1), "no more for one rule");
    assert_eq!(say(&mut garden, "b.example", 5..8, NOW), (2, 0, 1), "no more in all");
    assert_eq!(say(&mut garden, "pay.example", 0..2, NOW + 10 * SECOND), (0, 2, 0), "what is open is refreshed");
    assert_eq!(garden.sink().learned.len(), 6);
    let counters = garden.counters();
    let counts = [Count::RefusedAnswerFull, Count::RefusedRuleFull, Count::RefusedTableFull].map(|c| counters.get(c));
    assert_eq!(counts, [1, 1, 1]);
    assert_eq!(say(&mut garden, "b.example", 5..8, NOW + 200 * SECOND), (3, 0, 0), "what has expired makes room");
    assert_eq!(garden.counters().get(Count::Expired), 4, "the other two are open again");
}

#[test]
fn removing_a_rule_closes_what_it_alone_taught() {
    let mut garden = garden(&["pay.example 443/tcp 80/tcp"]);
    garden.add(ZONE, rule("*.pay.example 443/tcp 853/tcp")).unwrap();
    learn(&mut garden, &fixture("www-a"), NOW);
    let all = ["203.0.113.7:80/6 330", "203.0.113.7:443/6 330", "203.0.113.7:853/6 90"];
    assert_eq!(open(&garden, NOW), all);
    let target: Target = "*.pay.example".parse().unwrap();
    garden.remove(ZONE, &target).unwrap();
    assert_eq!(open(&garden, NOW), all[..2]);
    assert_eq!(garden.counters().get(Count::Removed), 1);
    assert!(matches!(garden.remove(ZONE, &target), Err(GardenError::NotFound(_))));
    let configured = "pay.example".parse().unwrap();
    assert!(matches!(garden.remove(ZONE, &configured), Err(GardenError::Configured(_))));
    assert!(matches!(garden.remove(Zone::new(9), &configured), Err(GardenError::UnknownZone(9))));

    garden.set_zone(ZONE, settings(&["pay.example 443/tcp"])).unwrap();
    assert_eq!(open(&garden, NOW), all[1..2], "a reload with a port less");
    garden.set_zone(ZONE, settings(&["pay.example 443/tcp"])).unwrap();
    assert_eq!(open(&garden, NOW), all[1..2], "a reload without a change");
    garden.remove_zone(ZONE).unwrap();
    assert_eq!(open(&garden, NOW), Vec::<String>::new());
    assert!(!garden.has_names(ZONE));
}

#[test]
fn a_rule_that_goes_leaves_the_shorter_time_of_another() {
    let mut garden = garden(&["www.pay.example 443/tcp"]);
    garden.add(ZONE, rule("pay.example 443/tcp")).unwrap();
    learn(&mut garden, &fixture("www-a"), NOW);
    assert_eq!(open(&garden, NOW), ["203.0.113.7:443/6 330"]);
    garden.remove(ZONE, &"pay.example".parse().unwrap()).unwrap();
    assert_eq!(open(&garden, NOW), ["203.0.113.7:443/6 90"]);
}

#[test]
fn prefixes_of_several_rules_are_one_row() {
    let mut garden = garden(&["203.0.113.0/24 443/tcp", "2001:db8::/32 53/udp"]);
    assert_eq!(garden.sink().rows.len(), 2);
    garden.add(ZONE, rule("203.0.113.0/24 443/tcp 80/tcp")).unwrap();
    assert_eq!(garden.sink().rows.len(), 3);
    garden.add(ZONE, rule("203.0.113.0/24 8443/tcp")).unwrap();
    assert_eq!(garden.sink().rows.len(), 4, "ports are added to a rule of the same source");
    assert_eq!(garden.rules(ZONE).unwrap().len(), 3);
    garden.remove(ZONE, &"203.0.113.0/24".parse().unwrap()).unwrap();
    assert_eq!(garden.sink().rows.len(), 2, "the configuration's row stays");
    assert!(!garden.has_names(ZONE));
}

#[test]
fn a_change_that_the_kernel_refuses_changes_nothing() {
    let mut garden = garden(&["203.0.113.0/24 443/tcp"]);
    let before = garden.sink().rows.clone();
    garden.sink.room = Some(2);
    let refused = garden.add(ZONE, rule("198.51.100.0/24 1/tcp 2/tcp 3/tcp"));
    assert!(matches!(refused, Err(GardenError::Kernel(_))), "{refused:?}");
    assert_eq!((&garden.sink().rows, garden.rules(ZONE).unwrap().len()), (&before, 1));
    garden.sink.refuse_removals = true;
    let refused = garden.set_zone(ZONE, settings(&["198.51.100.0/24 1/tcp"]));
    assert!(matches!(refused, Err(GardenError::Kernel(_))), "{refused:?}");
    garden.sink.refuse_removals = false;
    assert_eq!(garden.rules(ZONE).unwrap()[0].rule.to_string(), "203.0.113.0/24 443/tcp");
    garden.sink.room = Some(0);
    let other = Zone::new(7);
    assert!(garden.set_zone(other, settings(&["203.0.113.0/24"])).is_err());
    assert!(matches!(garden.rules(other), Err(GardenError::UnknownZone(7))));
}

#[test]
fn what_the_kernel_does_not_take_or_give_up_is_told_apart() {
    let mut garden = garden(&[]);
    garden.add(ZONE, rule("pay.example 443/tcp")).unwrap();
    garden.sink.refuse_writes = true;
    learn(&mut garden, &answer(60), NOW);
    assert_eq!((garden.counters().get(Count::RefusedByKernel), garden.learned().len()), (1, 0));
    garden.sink.refuse_writes = false;
    learn(&mut garden, &answer(60), NOW);
    garden.sink.refuse_removals = true;
    garden.remove(ZONE, &"pay.example".parse().unwrap()).unwrap();
    assert_eq!(open(&garden, NOW).len(), 1);
    assert!(garden.counters().get(Count::NotRemoved) > 0);
    garden.sink.refuse_removals = false;
    garden.sweep(NOW);
    assert_eq!((garden.learned().len(), open(&garden, NOW).len()), (0, 0), "it is tried again");
}

#[test]
fn what_an_earlier_daemon_left() {
    let mut garden = garden(&["pay.example 443/tcp", "203.0.113.0/24 443/tcp"]);
    garden.add(ZONE, rule("*.pay.example 80/tcp")).unwrap();
    let key = |zone, address: &str, port| LearnedKey {
        zone,
        address: address.parse().unwrap(),
        service: Service { protocol: 6, port },
    };
    let left = [
        (key(ZONE, "198.51.100.1", 443), NOW + 100 * SECOND),
        (key(ZONE, "198.51.100.2", 80), NOW + 100 * SECOND),
        (key(ZONE, "198.51.100.3", 443), u64::MAX),
        (key(ZONE, "198.51.100.4", 443), NOW),
        (key(ZONE, "198.51.100.5", 8443), NOW + 100 * SECOND),
        (key(ZONE, "10.0.0.1", 443), NOW + 100 * SECOND),
        (key(Zone::new(4), "198.51.100.6", 443), NOW + 100 * SECOND),
    ];
    garden.sink.learned.extend(left);
    let stale = rule("192.0.2.0/24").rows().next().unwrap();
    garden.sink.rows.insert((ZONE, stale));
    let rows: Vec<_> = garden.sink.rows.iter().copied().collect();
    garden.adopt(rows, left, NOW).unwrap();
    assert_eq!(
        open(&garden, NOW),
        ["198.51.100.1:443/6 100", "198.51.100.2:80/6 100", "198.51.100.3:443/6 3630"],
        "what a rule could have taught, and no longer than it could have"
    );
    assert_eq!(garden.sink().learned.len(), 3);
    assert_eq!(garden.sink().rows.len(), 1);
    assert_eq!((garden.counters().get(Count::Adopted), garden.counters().get(Count::NotAdopted)), (3, 4));
    garden.remove(ZONE, &"*.pay.example".parse().unwrap()).unwrap();
    assert_eq!(open(&garden, NOW).len(), 2, "a rule that goes may have taught what has its ports");
    assert_eq!(garden.learned().of(RuleId::EARLIER, NOW).count(), 2);
    garden.sweep(NOW + 100 * SECOND);
    assert_eq!(open(&garden, NOW + 100 * SECOND), ["198.51.100.3:443/6 3530"]);
}

/// A step of a day at the gateway.
#[derive(Clone, Debug)]
enum Step {
    Answer { name: usize, addresses: Vec<u8>, ttl: u32 },
    Add(usize),
    Remove(usize),
    Wait(u64),
    Sweep,
    Use(prop::sample::Index),
    Writes(bool),
    Removals(bool),
}

const NAMES: [&str; 3] = ["pay.example", "www.pay.example", "b.example"];
const RULES: [&str; 4] = ["pay.example 443/tcp", "*.pay.example 443/tcp 53/udp", "b.example any", "*.example.com"];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..NAMES.len(), proptest::collection::vec(any::<u8>(), 0..6), 0u32..5000)
            .prop_map(|(name, addresses, ttl)| Step::Answer { name, addresses, ttl }),
        2 => (0..RULES.len()).prop_map(Step::Add),
        1 => (0..RULES.len()).prop_map(Step::Remove),
        3 => (0..2000u64).prop_map(Step::Wait),
        1 => Just(Step::Sweep),
        2 => any::<prop::sample::Index>().prop_map(Step::Use),
        1 => any::<bool>().prop_map(Step::Writes),
        1 => any::<bool>().prop_map(Step::Removals),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_kernel_has_what_we_say_and_no_more(steps in proptest::collection::vec(step(), 1..120)) {
        let limits = Limits { per_answer: 4, per_rule: 10, total: 16, ..Limits::default() };
        let mut garden = garden_with(Policy { limits, ..policy() }, &[]);
        let mut now = NOW;
        for step in steps {
            match &step {
                Step::Answer { name, addresses, ttl } => {
                    let addresses: Vec<_> = addresses.iter().map(|last| [203, 0, 113, *last]).collect();
                    let rows: Vec<Row<'_>> = addresses.iter().map(|a| (NAMES[*name], 1, *ttl, &a[..])).collect();
                    learn(&mut garden, &message(NAMES[*name], &rows), now);
                }
                Step::Add(i) => garden.add(ZONE, rule(RULES[*i])).unwrap(),
                Step::Remove(i) => drop(garden.remove(ZONE, &rule(RULES[*i]).to)),
                Step::Wait(seconds) => now += seconds * SECOND,
                Step::Sweep => garden.sweep(now),
                Step::Use(index) => {
                    let keys: Vec<_> = garden.learned().keys().into_iter().collect();
                    if !keys.is_empty() {
                        garden.extend(*index.get(&keys), now);
                    }
                }
                Step::Writes(possible) => garden.sink.refuse_writes = !possible,
                Step::Removals(possible) => garden.sink.refuse_removals = !possible,
            }
            let kernel: Vec<_> = garden.sink().learned.keys().copied().collect();
            let ours: Vec<_> = garden.learned().keys().into_iter().collect();
            prop_assert_eq!(kernel, ours, "after {:?}", &step);
            prop_assert!(garden.learned().len() <= limits.total);
            let latest = now + u64::try_from((limits.longest + limits.grace).as_nanos()).unwrap();
            prop_assert!(garden.sink().learned.values().all(|expires_ns| *expires_ns <= latest));
            for active in garden.rules(ZONE).unwrap() {
                let services = active.rule.ports.services();
                let taught: Vec<_> = garden.learned().of(active.id, now).collect();
                prop_assert!(taught.len() <= limits.per_rule);
                for (key, until_ns) in taught {
                    prop_assert!(services.contains(&key.service));
                    prop_assert!(garden.sink().learned[&key] >= until_ns);
                }
            }
        }
        garden.sink.refuse_writes = false;
        garden.sink.refuse_removals = false;
        for text in RULES {
            drop(garden.remove(ZONE, &rule(text).to));
        }
        garden.sweep(now);
        prop_assert!(garden.sink().learned.is_empty(), "without rules nothing is open");
    }
}

#[test]
fn learning_is_faster_than_a_client() {
    let mut garden = garden(&["*.pay.example", "pay.example"]);
    let message = fixture("shop-a");
    // Of this thread alone: what else the machine does meanwhile costs it nothing.
    let on_cpu = || Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime)).unwrap();
    let start = on_cpu();
    for i in 0..1000 {
        learn(&mut garden, &message, NOW + i);
    }
    let each = on_cpu().saturating_sub(start) / 1000;
    eprintln!("learning from an answer with two aliases: {each:?} without optimisation");
    assert!(each < Duration::from_millis(2), "{each:?}");
}
