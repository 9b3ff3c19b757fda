//! The garden of all zones: the rules, what they open, and what is learned from an answer.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use portal_common::tables::Zone;
use tracing::{info, warn};

use super::{
    address::Permitted,
    answer::{Answer, Unusable},
    counters::{Count, Counters},
    learned::{Learned, LearnedKey, LearnedSink, Limits, Outcome, RuleId},
    name::{AskedName, NamePattern},
    ports::Service,
    rules::{GardenRow, GardenRule, Target},
};

/// The most rules of a zone.
pub const MOST_RULES: usize = 1024;

/// The kernel's table of prefixes.
pub trait PrefixSink {
    /// Writes a row; no error if it is there.
    fn insert_prefix(&mut self, zone: Zone, row: GardenRow) -> anyhow::Result<()>;
    /// Takes a row out; no error if there is none.
    fn remove_prefix(&mut self, zone: Zone, row: GardenRow) -> anyhow::Result<()>;
}

/// Where a rule comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The configuration.
    Config,
    /// `portalctl garden add`: it lives as long as the daemon.
    Runtime,
}

/// A rule that is in force.
#[derive(Clone, Debug)]
pub struct ActiveRule {
    /// Its number, never used again.
    pub id: RuleId,
    /// Where it comes from.
    pub source: Source,
    /// What it says.
    pub rule: GardenRule,
}

/// What a zone's garden is made of.
#[derive(Clone, Debug, Default)]
pub struct ZoneGarden {
    /// The zone's name, for people.
    pub name: String,
    /// The rules of the configuration.
    pub rules: Vec<GardenRule>,
    /// The resolvers that the zone's guests may ask: only their answers teach.
    pub resolvers: Vec<IpAddr>,
}

/// What is learned, and from what.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Which addresses are opened.
    pub permitted: Permitted,
    /// Whether a name of the garden that the question is only an alias of opens its addresses too.
    ///
    /// The guest asked for `shop.example`, the resolver followed its alias to `pay.example`, and `pay.example` is in the
    /// garden: its addresses are what the guest would have got by asking for `pay.example` itself. That holds as long as the
    /// resolver looks an alias's target up itself and does not take it from whoever runs the alias (RFC 5452 section 6, as
    /// BIND, Unbound and every large public resolver do). Switch it off for one that does not.
    pub aliases: bool,
    /// How long and how much.
    pub limits: Limits,
}

impl Default for Policy {
    fn default() -> Self {
        Self { permitted: Permitted::default(), aliases: true, limits: Limits::default() }
    }
}

/// Why a change was refused.
#[derive(Debug, thiserror::Error)]
pub enum GardenError {
    /// There is no zone with this number.
    #[error("zone {0} has no garden")]
    UnknownZone(u16),
    /// There is no zone with this name.
    #[error("there is no zone `{0}`")]
    NoSuchZone(String),
    /// There are several zones, and none was named.
    #[error("there are several zones: {0}")]
    WhichZone(String),
    /// The zone has as many rules as it may.
    #[error("the zone has {MOST_RULES} rules already")]
    TooMany,
    /// The rule would have too many ports, or keep none.
    #[error("{0}")]
    Ports(String),
    /// There is no such rule.
    #[error("no rule for {0} was added at run time")]
    NotFound(Target),
    /// The rule stands in the configuration.
    #[error("the rule for {0} stands in the configuration")]
    Configured(Target),
    /// The kernel's table did not take it.
    #[error("the kernel's table did not take the change: {0:#}")]
    Kernel(anyhow::Error),
}

impl GardenError {
    /// The stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownZone(_) | Self::NoSuchZone(_) => "unknown_zone",
            Self::WhichZone(_) => "which_zone",
            Self::TooMany => "garden_full",
            Self::Ports(_) => "bad_ports",
            Self::NotFound(_) => "no_such_rule",
            Self::Configured(_) => "rule_is_configured",
            Self::Kernel(_) => "kernel_refused",
        }
    }

    /// What to do.
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::UnknownZone(_) | Self::NoSuchZone(_) => "`portalctl status` lists the zones",
            Self::WhichZone(_) => "name one of them with `--zone`",
            Self::TooMany => "remove rules that are not needed, or join them into shorter prefixes or wildcards",
            Self::Ports(_) => "remove the rule and add it with other ports",
            Self::NotFound(_) => "`portalctl garden list` shows the rules and where they come from",
            Self::Configured(_) => "remove it from the configuration file and reload",
            Self::Kernel(_) => "the table may be full: remove rules that are not needed; nothing was changed",
        }
    }
}

/// What was made of a message.
#[derive(Clone, Copy, Debug)]
pub struct Lesson {
    /// The name nearest to the question that a rule matched.
    pub name: AskedName,
    /// Rows opened.
    pub learned: u32,
    /// Rows that stay open longer.
    pub refreshed: u32,
    /// Rows, or addresses, that were refused.
    pub refused: u32,
}

#[derive(Debug, Default)]
struct Active {
    name: String,
    resolvers: Vec<IpAddr>,
    rules: Vec<ActiveRule>,
    rows: BTreeSet<GardenRow>,
    /// From a name to the rules that have it, with the services that they open.
    exact: HashMap<String, Vec<(RuleId, Vec<Service>)>>,
    /// Likewise for the names below it.
    below: HashMap<String, Vec<(RuleId, Vec<Service>)>>,
}

impl Active {
    /// The rules for a name.
    fn matching(&self, name: &AskedName) -> impl Iterator<Item = &(RuleId, Vec<Service>)> {
        let exact = self.exact.get(name.as_str());
        let below = name.parents().filter_map(|parent| self.below.get(parent));
        exact.into_iter().chain(below).flatten()
    }

    fn index(&mut self) {
        self.exact.clear();
        self.below.clear();
        for ActiveRule { id, rule, .. } in &self.rules {
            if let Some(name) = name(rule) {
                let map = if name.is_wildcard() { &mut self.below } else { &mut self.exact };
                let services = rule.ports.services().into_iter().collect();
                map.entry(name.name().to_owned()).or_default().push((*id, services));
            }
        }
    }

    fn names(&self) -> impl Iterator<Item = &ActiveRule> {
        self.rules.iter().filter(|active| name(&active.rule).is_some())
    }
}

fn name(rule: &GardenRule) -> Option<&NamePattern> {
    match &rule.to {
        Target::Name(name) => Some(name),
        Target::Prefix(_) => None,
    }
}

/// The garden of all zones, over the kernel's tables `S`.
#[derive(Debug)]
pub struct Garden<S> {
    pub(super) sink: S,
    policy: Policy,
    zones: BTreeMap<Zone, Active>,
    learned: Learned,
    counters: Counters,
    last_id: u32,
}

impl<S: PrefixSink + LearnedSink> Garden<S> {
    /// A garden without zones.
    pub fn new(policy: Policy, sink: S) -> Self {
        let learned = Learned::new(policy.limits);
        Self {
            sink,
            policy,
            zones: BTreeMap::new(),
            learned,
            counters: Counters::default(),
            last_id: RuleId::EARLIER.0,
        }
    }

    /// Sets a zone up, or anew after its configuration changed. Rules added at run time stay, and so does what unchanged rules
    /// have learned. After an error nothing has changed.
    pub fn set_zone(&mut self, zone: Zone, settings: ZoneGarden) -> Result<(), GardenError> {
        let ZoneGarden { name, rules, resolvers } = settings;
        let mut configured: Vec<ActiveRule> = Vec::new();
        let old = self.zones.get(&zone).map(|active| active.rules.clone()).unwrap_or_default();
        for rule in rules {
            // Two tables for one target are one rule with both tables' ports.
            if let Some(same) = configured.iter_mut().find(|active| active.rule.to == rule.to) {
                same.rule.ports = same.rule.ports.and(&rule.ports).map_err(GardenError::Ports)?;
                continue;
            }
            let known = old.iter().find(|active| active.source == Source::Config && active.rule.to == rule.to);
            let id = known.map_or_else(|| self.next_id(), |active| active.id);
            configured.push(ActiveRule { id, source: Source::Config, rule });
        }
        configured.extend(old.into_iter().filter(|active| active.source == Source::Runtime));
        let is_new = !self.zones.contains_key(&zone);
        if let Err(error) = self.apply(zone, configured) {
            if is_new {
                self.zones.remove(&zone);
            }
            return Err(error);
        }
        let active = self.zones.entry(zone).or_default();
        active.name = name;
        active.resolvers = resolvers;
        Ok(())
    }

    /// Closes a zone's garden.
    pub fn remove_zone(&mut self, zone: Zone) -> Result<(), GardenError> {
        if self.zones.contains_key(&zone) {
            self.apply(zone, Vec::new())?;
            self.zones.remove(&zone);
        }
        Ok(())
    }

    /// Sets the gateway's own addresses, which are never opened.
    pub fn set_own(&mut self, own: Vec<IpAddr>) {
        self.policy.permitted.own = own;
    }

    /// Takes over what an earlier daemon has left in the kernel's tables, after every zone has been set up: what the rules still
    /// permit stays, and all else is taken out.
    pub fn adopt(
        &mut self,
        rows: impl IntoIterator<Item = (Zone, GardenRow)>,
        learned: impl IntoIterator<Item = (LearnedKey, u64)>,
        now_ns: u64,
    ) -> Result<(), GardenError> {
        for (zone, row) in rows {
            if !self.zones.get(&zone).is_some_and(|active| active.rows.contains(&row)) {
                self.sink.remove_prefix(zone, row).map_err(GardenError::Kernel)?;
            }
        }
        for (key, expires_ns) in learned {
            let taught = self
                .zones
                .get(&key.zone)
                .is_some_and(|active| active.names().any(|rule| rule.rule.ports.services().contains(&key.service)));
            let permitted = taught && self.policy.permitted.refusal(key.address).is_none();
            self.learned.adopt(key, expires_ns, permitted, now_ns, &mut self.sink, &mut self.counters);
        }
        Ok(())
    }

    /// Adds a rule at run time; the ports of one that is there for this target are added to.
    pub fn add(&mut self, zone: Zone, rule: GardenRule) -> Result<(), GardenError> {
        let mut rules = self.rules(zone)?.to_vec();
        match rules.iter_mut().find(|active| active.source == Source::Runtime && active.rule.to == rule.to) {
            Some(same) => same.rule.ports = same.rule.ports.and(&rule.ports).map_err(GardenError::Ports)?,
            None => rules.push(ActiveRule { id: self.next_id(), source: Source::Runtime, rule }),
        }
        self.apply(zone, rules)
    }

    /// Removes a rule that was added at run time, with all it has learned.
    pub fn remove(&mut self, zone: Zone, to: &Target) -> Result<(), GardenError> {
        let mut rules = self.rules(zone)?.to_vec();
        let of = |source| move |active: &ActiveRule| active.source == source && active.rule.to == *to;
        let Some(at) = rules.iter().position(of(Source::Runtime)) else {
            let configured = rules.iter().any(of(Source::Config));
            return Err(if configured { GardenError::Configured } else { GardenError::NotFound }(to.clone()));
        };
        rules.remove(at);
        self.apply(zone, rules)
    }

    /// Learns from the DNS message that `from` sends to a stranger of this zone; None if there is nothing in it for the garden.
    pub fn learn(&mut self, zone: Zone, from: IpAddr, message: &[u8], now_ns: u64) -> Option<Lesson> {
        let Self { sink, policy, zones, learned, counters, .. } = self;
        let active = zones.get(&zone)?;
        if !active.resolvers.contains(&from) {
            counters.add(Count::NotFromResolver);
            return None;
        }
        counters.add(Count::Answers);
        let answer = match Answer::parse(message) {
            Ok(answer) => answer,
            Err(unusable) => {
                counters.add(unusable.into());
                return None;
            }
        };
        let most = if policy.aliases { usize::MAX } else { 1 };
        let mut lesson: Option<Lesson> = None;
        let mut taught = Vec::new();
        // From the end of the chain: there a rule that several of its names match has the longest time to live.
        for (name, aliases_ttl) in answer.names(most).rev() {
            for (rule, services) in active.matching(&name) {
                let lesson = lesson.get_or_insert(Lesson { name, learned: 0, refreshed: 0, refused: 0 });
                lesson.name = name;
                if taught.contains(rule) {
                    continue;
                }
                taught.push(*rule);
                for (i, (address, ttl)) in answer.addresses().enumerate() {
                    let refusal = if i >= policy.limits.per_answer {
                        Some(Count::RefusedAnswerFull)
                    } else {
                        policy.permitted.refusal(address)
                    };
                    if let Some(count) = refusal {
                        counters.add(count);
                        lesson.refused += 1;
                        continue;
                    }
                    for service in services {
                        let key = LearnedKey { zone, address, service: *service };
                        match learned.learn(key, *rule, ttl.min(aliases_ttl), now_ns, sink, counters) {
                            Outcome::Learned(_) => lesson.learned += 1,
                            Outcome::Refreshed(_) => lesson.refreshed += 1,
                            Outcome::Refused(_) => lesson.refused += 1,
                        }
                    }
                }
            }
        }
        counters.add(if lesson.is_some() { Count::Matched } else { Count::Unmatched });
        lesson
    }

    /// Keeps a destination open that a guest is using now, within bounds: see [`Learned::extend`].
    pub fn extend(&mut self, key: LearnedKey, now_ns: u64) {
        self.learned.extend(key, now_ns, &mut self.sink, &mut self.counters);
    }

    /// Takes out what has expired; to be called about once a second.
    pub fn sweep(&mut self, now_ns: u64) {
        self.learned.sweep(now_ns, &mut self.sink, &mut self.counters);
    }

    /// Brings the kernel's tables and what has been learned in line with new rules for a zone. After an error nothing has
    /// changed.
    fn apply(&mut self, zone: Zone, rules: Vec<ActiveRule>) -> Result<(), GardenError> {
        if rules.len() > MOST_RULES {
            return Err(GardenError::TooMany);
        }
        let Self { sink, zones, learned, counters, .. } = self;
        let active = zones.entry(zone).or_default();
        let rows: BTreeSet<_> = rules.iter().flat_map(|active| active.rule.rows()).collect();
        let mut written = Vec::new();
        for row in rows.difference(&active.rows) {
            if let Err(error) = sink.insert_prefix(zone, *row) {
                for row in written {
                    if let Err(error) = sink.remove_prefix(zone, row) {
                        warn!("a garden row that was just written stays: {error:#}");
                    }
                }
                return Err(GardenError::Kernel(error));
            }
            written.push(*row);
        }
        for row in active.rows.difference(&rows) {
            if let Err(error) = sink.remove_prefix(zone, *row) {
                // The old rules stay in force; what was added or taken out so far is put right.
                for row in &written {
                    if let Err(error) = sink.remove_prefix(zone, *row) {
                        warn!("a garden row that was just written stays: {error:#}");
                    }
                }
                for row in active.rows.difference(&rows) {
                    if let Err(error) = sink.insert_prefix(zone, *row) {
                        warn!("a garden row is missing: {error:#}");
                    }
                }
                return Err(GardenError::Kernel(error));
            }
        }
        let old = std::mem::replace(&mut active.rules, rules);
        active.rows = rows;
        active.index();
        for before in old.iter().filter(|active| name(&active.rule).is_some()) {
            let after = active.rules.iter().find(|active| active.id == before.id);
            let kept = after.map(|active| active.rule.ports.services()).unwrap_or_default();
            let gone: BTreeSet<_> = before.rule.ports.services().difference(&kept).copied().collect();
            if gone.is_empty() {
                continue;
            }
            learned.forget(before.id, |key| !gone.contains(&key.service), sink, counters);
            // Which rule of an earlier daemon taught a row is not known: it may have been this one.
            learned.forget(RuleId::EARLIER, |key| key.zone != zone || !gone.contains(&key.service), sink, counters);
        }
        info!(zone = zone.number(), rules = active.rules.len(), rows = active.rows.len(), "walled garden set");
        Ok(())
    }

    fn next_id(&mut self) -> RuleId {
        self.last_id += 1;
        RuleId(self.last_id)
    }

    /// The rules of a zone.
    pub fn rules(&self, zone: Zone) -> Result<&[ActiveRule], GardenError> {
        self.zones.get(&zone).map(|active| &active.rules[..]).ok_or(GardenError::UnknownZone(zone.number()))
    }

    /// Whether a zone has rules by name: the kernel need hold answers only there. It may change with every change of rules.
    pub fn has_names(&self, zone: Zone) -> bool {
        self.zones.get(&zone).is_some_and(|active| active.names().next().is_some())
    }

    /// The zones with their names, by number.
    pub fn zones(&self) -> impl Iterator<Item = (Zone, &str)> {
        self.zones.iter().map(|(zone, active)| (*zone, &active.name[..]))
    }

    /// The zone with this name; without a name, the only one there is.
    pub fn zone_named(&self, name: Option<&str>) -> Result<Zone, GardenError> {
        let mut zones = self.zones();
        if let Some(name) = name {
            let zone = zones.find(|(_, other)| *other == name);
            return zone.map(|(zone, _)| zone).ok_or_else(|| GardenError::NoSuchZone(name.to_owned()));
        }
        match (zones.next(), zones.next()) {
            (Some((zone, _)), None) => Ok(zone),
            (None, _) => Err(GardenError::UnknownZone(0)),
            (Some(_), Some(_)) => {
                Err(GardenError::WhichZone(self.zones().map(|(_, name)| name).collect::<Vec<_>>().join(", ")))
            }
        }
    }

    /// What has been learned.
    pub const fn learned(&self) -> &Learned {
        &self.learned
    }

    /// What has been counted.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Counts something that happened to a held frame.
    pub const fn count(&mut self, count: Count) {
        self.counters.add(count);
    }

    /// The kernel's tables.
    pub const fn sink(&self) -> &S {
        &self.sink
    }
}

impl From<Unusable> for Count {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Malformed => Self::Malformed,
            Unusable::NotAnAnswer => Self::NotAnAnswer,
            Unusable::Failed => Self::Failed,
            Unusable::Truncated => Self::Truncated,
            Unusable::Questions => Self::Questions,
            Unusable::OtherType => Self::OtherType,
            Unusable::Endless => Self::Endless,
        }
    }
}
