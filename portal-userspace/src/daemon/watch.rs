//! Whether the interface still is what it was when the gate was put there.
//!
//! An interface that is deleted and created again has the old name and no gate. Nothing but the kernel's notice tells, and a look now and
//! then. The remedy for every change is a new start, which takes over without a gap, or guards the new interface.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Error, anyhow};
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tracing::{info, warn};

use super::zones::{RunningZone, ZoneManager, ZoneSetup, interfaces};
use crate::{
    config::Effective,
    net::{Changes, Interface, NetError},
};

/// How often is looked without a notice: a notice can be lost.
const REGULARLY: Duration = Duration::from_secs(5);
/// How long addresses and MACs must be other ones before it counts: a network manager takes away and gives back.
const SETTLED: Duration = Duration::from_secs(2);
/// After a notice: changes come in bursts, and a look costs a few questions to the kernel.
const PAUSE: Duration = Duration::from_millis(50);

/// A guest network as it was when the gate was told of it.
struct Watch<'s> {
    setup: &'s ZoneSetup,
    /// The gate's program.
    program_id: u32,
}

/// What a look finds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Finding {
    /// All is as it was.
    Sound,
    /// The interface is down: whatever its addresses are, they come again.
    Down,
    /// Something that the gate or the login page relies on is another one.
    Changed(String),
    /// The gate is not there any more.
    Lost(String),
}

/// What is remembered of a network between two looks.
struct Memory {
    changed_since: Option<Instant>,
    up: bool,
}

/// Watches the networks until the daemon must end; why it must.
///
/// It ends for one as for all: the others stay guarded, and the next start takes them over without a gap.
pub(super) async fn until_lost(manager: &ZoneManager) -> Error {
    // Before the first look, so that nothing changes unnoticed between the two.
    let mut changes = subscribe();
    let mut regularly = interval(REGULARLY);
    regularly.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut memories: HashMap<String, Memory> = HashMap::new();
    loop {
        let zones = manager.running();
        memories.retain(|name, _| zones.iter().any(|zone| zone.name() == name));
        for zone in &zones {
            let memory = memories
                .entry(zone.name().to_owned())
                .or_insert_with(|| Memory { changed_since: None, up: zone.setup().port.up });
            if let Some(cause) = look(zone, manager.program_id(), memory).await
                // Not one that was detached meanwhile.
                && manager.zone(zone.name()).is_some_and(|now| std::sync::Arc::ptr_eq(&now, zone))
            {
                return cause;
            }
        }
        let settled = memories.values().filter_map(|memory| memory.changed_since).min().map(|since| since + SETTLED);
        let told = async {
            match &mut changes {
                Some(changes) => changes.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            alive = told => {
                if !alive {
                    changes = None;
                }
                tokio::time::sleep(PAUSE).await;
            }
            _ = regularly.tick() => if changes.is_none() {
                changes = subscribe();
            },
            () = sleep_until(settled.unwrap_or_else(Instant::now).into()), if settled.is_some() => {}
        }
    }
}

/// Looks at one network; why the daemon must end, if it must.
async fn look(zone: &RunningZone, program_id: u32, memory: &mut Memory) -> Option<Error> {
    let watch = Watch { setup: zone.setup(), program_id };
    let (port, network) = match interfaces(&watch.setup.written).await {
        Ok(found) => found,
        Err(e @ (NetError::NoSuchInterface { .. } | NetError::NoSuchVlan { .. })) => {
            let interface = &watch.setup.port.name;
            return Some(
                anyhow!(e).context(format!("an interface of the network `{}` on {interface} is gone", zone.name())),
            );
        }
        // The kernel is asked again soon.
        Err(e) => {
            warn!(zone = zone.name(), error = %e, "cannot look at a guest interface");
            memory.changed_since = None;
            return None;
        }
    };
    match watch.judge(&port, &network) {
        Finding::Sound | Finding::Down => memory.changed_since = None,
        Finding::Lost(cause) => return Some(anyhow!(cause)),
        Finding::Changed(cause) => {
            let since = *memory.changed_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= SETTLED {
                return Some(anyhow!(cause));
            }
        }
    }
    if port.up != memory.up {
        memory.up = port.up;
        let interface = &port.name;
        if port.up {
            info!(interface, "the interface is up again");
        } else {
            warn!(interface, "the interface is down; bring it up with `ip link set {interface} up`");
        }
    }
    None
}

impl Watch<'_> {
    fn judge(&self, now: &Interface, network: &Interface) -> Finding {
        let ZoneSetup { port: was, network: was_network, .. } = self.setup;
        let name = &was.name;
        let again = "start portald again (a supervisor such as systemd with Restart=on-failure does)";
        if now.index != was.index {
            return Finding::Lost(format!(
                "{name} was deleted and created again (index {}, now {}): the gate went with it, and the guest network is OPEN until \
                 portald guards the new interface; {again}",
                was.index, now.index
            ));
        }
        if now.xdp.iter().all(|xdp| xdp.program_id != self.program_id) {
            return Finding::Lost(format!(
                "the gate (program {}) is not attached to {name} any more, and the guest network may be OPEN; somebody has detached or \
                 replaced it (`ip link show {name}`, `bpftool link show`); {again}",
                self.program_id
            ));
        }
        if !now.up || !network.up {
            return Finding::Down;
        }
        let takes_over = format!("the gate goes on as it was; {again}, which takes the change over without a gap");
        if network.gateway_mac() != was_network.gateway_mac() {
            return Finding::Changed(format!(
                "the MAC address that guests of {name} send to has changed, so that the gate answers nobody; {takes_over}"
            ));
        }
        if network.neighbour_index() != was_network.neighbour_index() {
            return Finding::Changed(format!(
                "the gateway's addresses for {name} are on another interface: it is a port of another bridge, or of none any more; {takes_over}"
            ));
        }
        if now.rx_queues != was.rx_queues {
            return Finding::Changed(format!(
                "{name} has {} receive queues and no longer {}; {takes_over}",
                now.rx_queues, was.rx_queues
            ));
        }
        // A link-local address more is not worth an end: it comes with the carrier, and at most it is a resolver nobody was told of.
        let mut without_more = network.clone();
        without_more.v6_link_local.retain(|address| was_network.v6_link_local.contains(address));
        match self.setup.written.resolve(&without_more) {
            Err(e) => Finding::Changed(format!("{e}; {takes_over}")),
            Ok(effective) if told(&effective, &without_more) != told(&self.setup.effective, was_network) => {
                Finding::Changed(format!(
                    "the addresses of {}, which the gate was told, and from which the defaults of `portal.listen`, `portal.url` or `dns.resolvers` follow, have \
                 changed; {takes_over}",
                    network.neighbour_name()
                ))
            }
            Ok(_) => Finding::Sound,
        }
    }
}

/// Subscribes; without a subscription there still is the regular look.
fn subscribe() -> Option<Changes> {
    Changes::subscribe()
        .inspect_err(|e| warn!(error = %e, "the kernel does not tell about changes of interfaces: they are looked for every 5 s"))
        .ok()
}

/// What the login page and the gate were told.
#[derive(PartialEq, Eq)]
struct Told<'e> {
    listen: Vec<SocketAddr>,
    services: Vec<SocketAddr>,
    resolvers: Vec<IpAddr>,
    /// The gateway's own addresses.
    own: Vec<IpAddr>,
    urls: [&'e str; 2],
}

fn told<'e>(effective: &'e Effective, network: &Interface) -> Told<'e> {
    let Effective { zone: _, listen, services, url_v4, url_v6, resolvers } = effective;
    let link_local = network.v6_link_local.iter().copied().map(IpAddr::V6);
    let mut told = Told {
        listen: listen.clone(),
        services: services.clone(),
        resolvers: resolvers.clone(),
        own: network.addresses().chain(link_local).collect(),
        urls: [url_v4.as_str(), url_v6.as_str()],
    };
    // The kernel may list the same addresses in another order.
    told.listen.sort_unstable();
    told.services.sort_unstable();
    told.resolvers.sort_unstable();
    told.own.sort_unstable();
    told
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::net::{AttachedXdp, Master, XdpMode};
    use crate::{
        config::Config,
        responder::{Policy, answers::Answers, probes::Probes},
    };

    const PROGRAM: u32 = 42;

    fn guest() -> Interface {
        Interface {
            name: "eth1".into(),
            index: 7,
            mac: [2, 0, 0, 0, 0, 1],
            up: true,
            mtu: 1500,
            rx_queues: 2,
            v4: vec!["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()],
            v6: vec!["2001:db8::1".parse().unwrap()],
            v6_link_local: vec!["fe80::1".parse().unwrap()],
            xdp: vec![AttachedXdp { program_id: PROGRAM, mode: Some(XdpMode::Native) }],
            ..Interface::default()
        }
    }

    fn test_answers() -> std::sync::Arc<Policy> {
        let answers = Answers::new("http://192.0.2.1:8080/", "http://192.0.2.1:8080/").unwrap();
        std::sync::Arc::new(Policy { answers, probes: Probes::new([]) })
    }

    fn setup(rest: &str) -> ZoneSetup {
        let config = Config::parse(&format!("[guest]\ninterface = \"eth1\"\n{rest}"), Path::new("test")).unwrap();
        let written = config.zones().remove(0);
        let effective = written.resolve(&guest()).unwrap();
        ZoneSetup { written, effective, port: guest(), network: guest(), local: Vec::new(), answers: test_answers() }
    }

    #[test]
    fn what_a_look_finds() {
        let with = |change: &dyn Fn(&mut Interface)| {
            let mut interface = guest();
            change(&mut interface);
            interface
        };
        let master = || Some(Master { name: "br0".into(), index: 9, mac: [2, 0, 0, 0, 0, 1] });
        let own = "";
        let fixed = "[portal]\nlisten = [\"192.0.2.1:80\"]\n[dns]\nresolvers = [\"192.0.2.1\"]\n";
        let table: [(&str, &str, Interface, &str); 18] = [
            ("nothing new", own, guest(), "sound"),
            ("created again", own, with(&|i| i.index = 8), "lost: created again (index 7, now 8)"),
            ("no program", own, with(&|i| i.xdp.clear()), "lost: not attached"),
            ("another's program", own, with(&|i| i.xdp[0].program_id = 43), "lost: not attached"),
            ("no program, and down", own, with(&|i| (i.up, i.xdp) = (false, vec![])), "lost: not attached"),
            ("down, and without IPv6 for so long", own, with(&|i| (i.up, i.v6) = (false, vec![])), "down"),
            ("another MAC", own, with(&|i| i.mac[5] = 2), "changed: MAC"),
            ("a port of a bridge with the same MAC", own, with(&|i| i.master = master()), "changed: bridge"),
            ("more queues", own, with(&|i| i.rx_queues = 4), "changed: 4 receive queues"),
            ("another MTU", own, with(&|i| i.mtu = 1400), "sound"),
            ("an address less", own, with(&|i| i.v4.truncate(1)), "changed: addresses"),
            ("an address more", own, with(&|i| i.v6.push("2001:db8::2".parse().unwrap())), "changed: addresses"),
            ("the same addresses in another order", fixed, with(&|i| i.v4.reverse()), "sound"),
            (
                "an address more that only the gate was told",
                fixed,
                with(&|i| i.v4.push("192.0.2.9".parse().unwrap())),
                "changed: addresses",
            ),
            ("an address less that only the gate was told", fixed, with(&|i| i.v6.clear()), "changed: addresses"),
            ("a link-local address more", own, with(&|i| i.v6_link_local.push("fe80::2".parse().unwrap())), "sound"),
            ("a link-local resolver less", own, with(&|i| i.v6_link_local.clear()), "changed: addresses"),
            ("no address at all", own, with(&|i| (i.v4, i.v6) = (vec![], vec![])), "changed: ip address add"),
        ];
        for (sentence, config, now, expected) in table {
            let setup = setup(config);
            let (kind, text) = match (Watch { setup: &setup, program_id: PROGRAM }).judge(&now, &now) {
                Finding::Sound => ("sound", String::new()),
                Finding::Down => ("down", String::new()),
                Finding::Changed(cause) => ("changed", cause),
                Finding::Lost(cause) => ("lost", cause),
            };
            let (expected_kind, part) = expected.split_once(": ").unwrap_or((expected, ""));
            assert_eq!(kind, expected_kind, "{sentence}: {text}");
            assert!(text.contains(part), "{sentence}: no «{part}» in: {text}");
            assert!(text.is_empty() || text.contains("start portald again"), "{sentence}: no remedy in: {text}");
        }
    }
}
