//! The generator's wire: a veth whose two ends are polled by a thread each, so that what either costs can be told apart.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};
use portal_lab::{Namespace, process::sh, process::succeed};

use super::cpu::{Cpus, Threads};

/// The gateway's addresses on its wires, and where the clients' begin: room for 16 million of them.
pub mod addresses {
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// The gateway's address on the n-th wire: private, as documentation ranges are too small for a crowd.
    pub const fn gateway_v4(n: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, n << 4, 0, 1)
    }

    /// The gateway's address on the n-th wire.
    pub const fn gateway_v6(n: u8) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0x10, n as u16, 0, 0, 0, 1)
    }

    /// The first client's address on the n-th wire.
    pub const fn client_v4(n: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, n << 4, 1, 0)
    }

    /// The first client's address on the n-th wire.
    pub const fn client_v6(n: u8) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0x10, n as u16, 0, 1, 0, 0)
    }
}

/// How many clients have addresses on a wire.
pub const MOST_CLIENTS: u32 = (1 << 20) - 256;

/// A veth between the clients and the gateway.
#[derive(Debug)]
pub struct Wire {
    /// Which one, from 0.
    pub number: u8,
    /// The gateway's end.
    pub gateway: String,
    /// The clients' end.
    pub clients: String,
}

impl Wire {
    /// Lays the n-th wire, of at most 16, with the gateway's addresses at one end.
    pub fn lay(clients: &Namespace, gateway: &Namespace, number: u8) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // The threads that poll them are found by their names, among all of the machine's.
        let unique = format!("{}x{}", std::process::id() % 1_000_000, COUNT.fetch_add(1, Ordering::Relaxed));
        let wire = Self { number, gateway: format!("gw{unique}"), clients: format!("cl{unique}") };
        let [g0, g1, g2, g3, g4, g5] = wire.gateway_mac();
        sh(&format!(
            "ip link add {} netns {} address {g0:02x}:{g1:02x}:{g2:02x}:{g3:02x}:{g4:02x}:{g5:02x} type veth peer name {} netns {}",
            wire.gateway,
            gateway.name(),
            wire.clients,
            clients.name()
        ))?;
        for (namespace, interface) in [(gateway, &wire.gateway), (clients, &wire.clients)] {
            namespace.ip(&format!("link set {interface} up"))?;
        }
        gateway.ip(&format!("addr add {}/12 dev {}", addresses::gateway_v4(number), wire.gateway))?;
        gateway.ip(&format!("addr add {}/64 dev {} nodad", addresses::gateway_v6(number), wire.gateway))?;
        Ok(wire)
    }

    /// The MAC address of the gateway's end: of the documentation range (RFC 7042 section 2.1.2).
    pub const fn gateway_mac(&self) -> [u8; 6] {
        [0, 0, 0x5e, 0, 0x53, 0xa0 + self.number]
    }

    /// Puts what polls each end on its CPU, once programs are attached to both: before, nothing is polled. Gives back the threads of the gateway's
    /// end and of the clients'.
    pub fn pin(&self, clients: &Namespace, gateway: &Namespace, cpus: Cpus) -> Result<(Threads, Threads)> {
        for (namespace, interface) in [(gateway, &self.gateway), (clients, &self.clients)] {
            // A client's /sys is its namespace's, which a service's is not.
            let script = format!("echo 1 > /sys/class/net/{interface}/threaded");
            succeed(namespace.client("sh").args(["-c", &script])).context("threaded NAPI needs Linux 5.12")?;
        }
        let (gateway, clients) = (Threads::of_interface(&self.gateway)?, Threads::of_interface(&self.clients)?);
        gateway.pin(cpus.gateway)?;
        clients.pin(cpus.generator)?;
        Ok((gateway, clients))
    }
}
