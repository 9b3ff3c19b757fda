//! Whether the interface still is what it was when the gate was put there.
//!
//! An interface that is deleted and created again has the old name and no gate. Nothing but the kernel's notice tells, and a look now and
//! then. The remedy for every change is a new start, which takes over without a gap, or guards the new interface.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Error, anyhow};
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tracing::{info, warn};

use crate::{
    config::{Effective, ZoneConfig},
    net::{Changes, Interface, NetError},
};

/// How often is looked without a notice: a notice can be lost.
const REGULARLY: Duration = Duration::from_secs(5);
/// How long addresses and MACs must be other ones before it counts: a network manager takes away and gives back.
const SETTLED: Duration = Duration::from_secs(2);
/// After a notice: changes come in bursts, and a look costs a few questions to the kernel.
const PAUSE: Duration = Duration::from_millis(50);

/// The interface as it was when the gate was put there.
pub(super) struct Watch {
    /// The configuration as written: what follows from the interface follows anew at each look.
    pub(super) zone: ZoneConfig,
    pub(super) interface: Interface,
    pub(super) effective: Effective,
    /// The gate's program.
    pub(super) program_id: u32,
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

impl Watch {
    /// Watches until the daemon must end; why it must.
    pub(super) async fn until_lost(self) -> Error {
        // Before the first look, so that nothing changes unnoticed between the two.
        let mut changes = subscribe();
        let mut regularly = interval(REGULARLY);
        regularly.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changed_since: Option<Instant> = None;
        let mut up = self.interface.up;
        loop {
            match Interface::by_name(&self.interface.name).await {
                Err(e @ NetError::NoSuchInterface { .. }) => {
                    return anyhow!(e).context(format!("the guest interface {} is gone", self.interface.name));
                }
                // The kernel is asked again soon.
                Err(e) => {
                    warn!(error = %e, "cannot look at the guest interface");
                    changed_since = None;
                }
                Ok(now) => {
                    match self.judge(&now) {
                        Finding::Sound | Finding::Down => changed_since = None,
                        Finding::Lost(cause) => return anyhow!(cause),
                        Finding::Changed(cause) => {
                            let since = *changed_since.get_or_insert_with(Instant::now);
                            if since.elapsed() >= SETTLED {
                                return anyhow!(cause);
                            }
                        }
                    }
                    if now.up != up {
                        up = now.up;
                        let interface = &now.name;
                        if up {
                            info!(interface, "the interface is up again");
                        } else {
                            warn!(interface, "the interface is down; bring it up with `ip link set {interface} up`");
                        }
                    }
                }
            }
            let settled = changed_since.map(|since| since + SETTLED);
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

    fn judge(&self, now: &Interface) -> Finding {
        let was = &self.interface;
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
        if !now.up {
            return Finding::Down;
        }
        let takes_over = format!("the gate goes on as it was; {again}, which takes the change over without a gap");
        if now.gateway_mac() != was.gateway_mac() {
            return Finding::Changed(format!(
                "the MAC address that guests of {name} send to has changed, so that the gate answers nobody; {takes_over}"
            ));
        }
        if now.neighbour_index() != was.neighbour_index() {
            return Finding::Changed(format!("{name} is a port of another bridge, or of none any more; {takes_over}"));
        }
        if now.rx_queues != was.rx_queues {
            return Finding::Changed(format!(
                "{name} has {} receive queues and no longer {}; {takes_over}",
                now.rx_queues, was.rx_queues
            ));
        }
        // A link-local address more is not worth an end: it comes with the carrier, and at most it is a resolver nobody was told of.
        let mut without_more = now.clone();
        without_more.v6_link_local.retain(|address| was.v6_link_local.contains(address));
        match self.zone.resolve(&without_more) {
            Err(e) => Finding::Changed(format!("{e}; {takes_over}")),
            Ok(effective) if relied_on(&effective) != relied_on(&self.effective) => Finding::Changed(format!(
                "the addresses of {name}, from which the defaults of `portal.listen`, `portal.url` or `dns.resolvers` follow, have changed; {takes_over}"
            )),
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

/// What the login page and the gate were told. The kernel may list the same addresses in another order.
fn relied_on(effective: &Effective) -> (Vec<SocketAddr>, Vec<SocketAddr>, Vec<IpAddr>, [&str; 2]) {
    let Effective { zone: _, listen, services, url_v4, url_v6, resolvers } = effective;
    let (mut listen, mut services, mut resolvers) = (listen.clone(), services.clone(), resolvers.clone());
    listen.sort_unstable();
    services.sort_unstable();
    resolvers.sort_unstable();
    (listen, services, resolvers, [url_v4.as_str(), url_v6.as_str()])
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::net::{AttachedXdp, Master, XdpMode};

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

    fn watch(rest: &str) -> Watch {
        let config = Config::parse(&format!("[guest]\ninterface = \"eth1\"\n{rest}"), Path::new("test")).unwrap();
        let zone = config.zones().remove(0);
        let effective = zone.resolve(&guest()).unwrap();
        Watch { zone, interface: guest(), effective, program_id: PROGRAM }
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
        let table: [(&str, &str, Interface, &str); 16] = [
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
            ("an address more that nothing follows from", fixed, with(&|i| i.v4.reverse()), "sound"),
            ("a link-local address more", own, with(&|i| i.v6_link_local.push("fe80::2".parse().unwrap())), "sound"),
            ("a link-local resolver less", own, with(&|i| i.v6_link_local.clear()), "changed: addresses"),
            ("no address at all", own, with(&|i| (i.v4, i.v6) = (vec![], vec![])), "changed: ip address add"),
        ];
        for (sentence, config, now, expected) in table {
            let (kind, text) = match watch(config).judge(&now) {
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
