//! Over the real kernel: interfaces in a network namespace, and pins on a BPF file system of the test's own.

use std::{path::Path, sync::RwLock};

use super::*;
use crate::{
    config::Config,
    daemon::garden::WalledGarden,
    net::testing::{in_namespace, ip},
};

/// A BPF file system, unmounted when this is dropped.
struct BpfFs(tempfile::TempDir);

impl BpfFs {
    fn mount() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mounted = portal_tools::command("mount").args(["-t", "bpf", "bpf"]).arg(directory.path()).status().unwrap();
        assert!(mounted.success(), "mounting needs root");
        Self(directory)
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        let _: std::io::Result<_> = portal_tools::command("umount").arg(self.0.path()).status();
    }
}

const CONFIG: &str = "[guest]\ninterface = \"one\"\n[limits]\nclients = 16\n[[garden]]\nto = \"*.pay.example\"\n\
                      [[zone]]\nname = \"tagged\"\ninterface = \"one\"\nvlan = 10\ngateway = \"net10\"\n\
                      [[zone]]\nname = \"two\"\ninterface = \"two\"\n[zone.portal]\nsession = \"1h\"\n";

fn interfaces_of_the_test() {
    for (name, address) in
        [("one", "192.0.2.1/24"), ("two", "198.51.100.1/24"), ("net10", "203.0.113.1/24"), ("net11", "10.11.0.1/24")]
    {
        ip(&format!("link add {name} type veth peer name {name}p"));
        ip(&format!("link set {name}p up"));
        ip(&format!("address add {address} dev {name}"));
        ip(&format!("link set {name} up"));
        let untagged = portal_tools::command("ethtool").args(["-K", name, "rxvlan", "off"]).output().unwrap();
        assert!(untagged.status.success());
    }
}

#[test]
fn in_shadow_mode_what_has_no_zone_passes_and_what_was_enforced_never_does() {
    in_namespace(|| async {
        interfaces_of_the_test();
        let bpf = BpfFs::mount();
        let directory = tempfile::tempdir().unwrap();
        let config_path = directory.path().join("portal.toml");
        let shadow = |names: &[&str]| {
            let section = |name: &str, rest: &str| {
                let head = if name == "guest" { "[guest]" } else { "[[zone]]" };
                let shadow = if names.contains(&name) { "shadow = true" } else { "" };
                format!("{head}\nname = \"{name}\"\ninterface = \"one\"\n{shadow}\n{rest}\n")
            };
            let others = ["net10", "net11"]
                .map(|gateway| format!("vlan = {}\ngateway = \"{gateway}\"", gateway.trim_start_matches("net")));
            let zones = section("guest", "") + &section("ten", &others[0]) + &section("eleven", &others[1]);
            std::fs::write(&config_path, zones + "[limits]\nclients = 16\n").unwrap();
        };
        let index = Interface::by_name("one").await.unwrap().index;
        let pins = bpf.0.path().join("portal");
        let rest_name = |manager: &ZoneManager| {
            let rest = manager.tables().rest(index)?;
            manager.running().iter().find(|zone| zone.number == rest).map(|zone| zone.name().to_owned())
        };

        shadow(&["guest", "ten"]);
        let manager = started(&pins, &config_path, &["guest", "ten", "eleven"]).await.unwrap();
        assert_eq!(rest_name(&manager), None, "one is enforced");
        manager.detach("eleven", false).await.unwrap();
        assert_eq!(rest_name(&manager), None, "it was enforced, and is not open now");
        manager.detach("ten", false).await.unwrap();
        manager.attach("ten").await.unwrap();
        assert_eq!(rest_name(&manager), None, "nor when another comes");
        shadow(&["guest", "ten", "eleven"]);
        manager.attach("eleven").await.unwrap();
        assert_eq!(rest_name(&manager).as_deref(), Some("guest"), "now nothing is");
        manager.stop().await;
        drop(manager);

        let manager = started(&pins, &config_path, &["guest", "ten", "eleven"]).await.unwrap();
        assert_eq!(rest_name(&manager).as_deref(), Some("guest"), "the next daemon");
        manager.detach("guest", false).await.unwrap();
        assert_eq!(rest_name(&manager).as_deref(), Some("ten"), "the next in line");
        shadow(&["ten", "eleven"]);
        manager.attach("guest").await.unwrap();
        assert_eq!(rest_name(&manager), None, "one is enforced again");
        manager.stop().await;
        drop(manager);

        shadow(&["guest", "ten", "eleven"]);
        let manager = started(&pins, &config_path, &["guest", "ten", "eleven"]).await.unwrap();
        assert_eq!(rest_name(&manager).as_deref(), Some("guest"));
        manager.stop().await;
        drop(manager);
        shadow(&[]);
        let manager = started(&pins, &config_path, &["guest", "ten", "eleven"]).await.unwrap();
        assert_eq!(manager.tables().rest(index), None, "the next daemon enforces");
        manager.stop().await;
    });
}

/// A daemon that has just started, with these networks of the configuration.
async fn started(pins: &Path, config_path: &Path, names: &[&str]) -> Result<ZoneManager> {
    let config = Config::load(config_path)?;
    let pins = Arc::new(Pins::lock(pins)?);
    let (gate, maps) = Gate::load(&pins, 16)?;
    let store = Arc::new(SessionStore::over(maps.sessions, maps.owners)?);
    let tables = Arc::new(Mutex::new(maps.zones));
    let manager = ZoneManager::new(Parts {
        config_path: config_path.to_owned(),
        limits: config.limits,
        store,
        connections: maps.connections,
        sockets: Arc::new(Mutex::new(maps.sockets)),
        keys: Arc::new(RwLock::new(maps.secrets.keys())),
        garden: Arc::new(WalledGarden::start(maps.garden, Arc::clone(&tables), maps.answers, Box::new(|_, _| ()))?),
        tables,
        names: maps.names,
        known: maps.known,
        gate,
        pins,
    })?;
    let mut bound = Vec::new();
    for setup in ZoneSetup::all(&config).await? {
        if names.contains(&setup.name()) {
            bound.push(setup.bind(false).await?);
        }
    }
    manager.guard(bound)?;
    Ok(manager)
}

async fn has_gate(interface: &str) -> bool {
    !Interface::by_name(interface).await.unwrap().xdp.is_empty()
}

#[test]
fn networks_come_and_go_at_run_time_and_the_others_stay_guarded() {
    in_namespace(|| async {
        interfaces_of_the_test();
        let bpf = BpfFs::mount();
        let directory = tempfile::tempdir().unwrap();
        let config_path = directory.path().join("portal.toml");
        std::fs::write(&config_path, CONFIG).unwrap();
        let pins = bpf.0.path().join("portal");
        let manager = started(&pins, &config_path, &["guest", "tagged"]).await.unwrap();
        let attached = async |manager: &ZoneManager| {
            let list = manager.list().await;
            list.into_iter().map(|zone| (zone.name, zone.attached)).collect::<Vec<_>>()
        };
        let state = |list: &[(&str, bool)]| list.iter().map(|(n, a)| ((*n).to_owned(), *a)).collect::<Vec<_>>();
        assert_eq!(attached(&manager).await, state(&[("guest", true), ("tagged", true), ("two", false)]));
        assert!(has_gate("one").await && !has_gate("two").await);

        // A network in a VLAN goes: the gate stays, and its frames are nobody's.
        let mac = "02:00:5e:10:00:01".parse().unwrap();
        manager.zone("tagged").unwrap().sessions.allow(mac, None).unwrap();
        let number = manager.zone("tagged").unwrap().number;
        assert!(manager.tables().config(number).unwrap().has_names());
        manager.set_capturing(number, true).unwrap();
        manager.detach("tagged", false).await.unwrap();
        assert!(has_gate("one").await);
        assert!(!manager.tables().config(number).unwrap().is_ready());
        assert!(matches!(manager.detach("tagged", false).await, Err(ZoneError::Detached(_))));
        // It comes back under its number, and its clients are still in.
        let view = manager.attach("tagged").await.unwrap();
        assert_eq!((view.number, view.vlan.as_deref(), view.attached), (Some(number.number()), Some("10"), true));
        manager.zone("tagged").unwrap().sessions.show(mac).unwrap();
        assert!(manager.tables().config(number).unwrap().is_capturing(), "a capture goes on");
        manager.detach("tagged", false).await.unwrap();
        manager.set_capturing(number, false).expect("a capture may end while its network is not guarded");
        manager.attach("tagged").await.unwrap();
        assert!(!manager.tables().config(number).unwrap().is_capturing());
        assert!(matches!(manager.attach("tagged").await, Err(ZoneError::Attached(_))));
        assert!(matches!(manager.attach("none").await, Err(ZoneError::Unknown { .. })));

        // A new interface gets a gate of its own, and loses it only where that is said.
        let view = manager.attach("two").await.unwrap();
        assert_eq!((view.interface.as_str(), view.queues), ("two", Some(1)));
        assert!(has_gate("two").await);
        assert!(matches!(manager.detach("two", false).await, Err(ZoneError::WouldOpen { .. })));
        assert!(has_gate("two").await);
        manager.detach("two", true).await.unwrap();
        assert!(!has_gate("two").await && has_gate("one").await);
        manager.attach("two").await.unwrap();

        // What is refused changes nothing.
        let other = std::net::TcpListener::bind("198.51.100.1:8081").unwrap();
        manager.detach("two", true).await.unwrap();
        std::fs::write(&config_path, CONFIG.replace("session = \"1h\"", "listen = [\"198.51.100.1:8081\"]")).unwrap();
        let refused = manager.attach("two").await.unwrap_err();
        assert!(refused.to_string().contains("8081"), "{refused}");
        assert!(!has_gate("two").await);
        drop(other);
        manager.attach("two").await.unwrap();
        assert_eq!(attached(&manager).await, state(&[("guest", true), ("tagged", true), ("two", true)]));

        // The next daemon takes over what it has, and forgets a network that the configuration no longer has.
        manager.stop().await;
        drop(manager);
        assert!(has_gate("one").await && has_gate("two").await);
        let without = CONFIG.replace("name = \"tagged\"", "name = \"renamed\"");
        std::fs::write(&config_path, without).unwrap();
        let manager = started(&pins, &config_path, &["guest", "renamed", "two"]).await.unwrap();
        assert!(manager.zone("renamed").unwrap().sessions.show(mac).is_err(), "another network's session");
        assert_eq!(manager.sessions().count().unwrap(), 0);
        manager.stop().await;
    });
}
