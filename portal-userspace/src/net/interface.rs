//! The guest interface: what must be known before the gate is put there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rtnetlink::packet_route::{
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkMessage, LinkXdp},
};
use serde::{Deserialize, Serialize};
use xdp::nic::NicIndex;

use super::{
    netlink::{NetError, ask},
    offload,
};

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its own MAC address.
    pub mac: [u8; 6],
    /// The bridge (or bond) that it is a port of.
    pub master: Option<Master>,
    /// Largest packet without the Ethernet header, in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Receive queues in use, at least 1.
    pub rx_queues: u32,
    /// IPv4 addresses, of the master where there is one.
    pub v4: Vec<Ipv4Addr>,
    /// Global and unique-local IPv6 addresses, of the master where there is one; no temporary ones (RFC 8981): they go again.
    pub v6: Vec<Ipv6Addr>,
    /// Link-local IPv6 addresses, of the master where there is one.
    pub v6_link_local: Vec<Ipv6Addr>,
    /// The prefixes of all its addresses but link-local ones, sorted: who is on this link has an address of these.
    pub prefixes: Vec<IpNet>,
    /// Whether the driver takes VLAN tags off before XDP sees a frame.
    pub strips_vlan_tags: bool,
    /// Whether the driver hands XDP frames that lie in several buffers.
    pub takes_frames_in_parts: bool,
    /// XDP programs that are attached, at most one of each mode.
    pub xdp: Vec<AttachedXdp>,
}

/// The bridge (or bond) that an interface is a port of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Master {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its MAC address: what guests send to.
    pub mac: [u8; 6],
}

/// Where in the kernel an XDP program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver, before the kernel allocates anything for the packet.
    #[default]
    Native,
    /// In the network stack: works with every driver, slower.
    Generic,
}

impl XdpMode {
    /// The name, as the configuration and the control API write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

impl std::fmt::Display for XdpMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// An XDP program that is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachedXdp {
    /// The program's id, as `bpftool prog show id` takes it.
    pub program_id: u32,
    /// Where it runs; None: in the network card itself.
    pub mode: Option<XdpMode>,
}

impl Interface {
    /// Asks the kernel for the interface with this name.
    pub async fn by_name(name: &str) -> Result<Self, NetError> {
        let question = name.to_owned();
        let found = match ask(|h| h.link().get().match_name(question).execute()).await {
            Ok(links) => links.into_iter().next(),
            // EINVAL: a name that no interface can have.
            Err(e) if matches!(e.errno(), Some(libc::ENODEV | libc::EINVAL | libc::ERANGE)) => None,
            Err(e) => return Err(e),
        };
        let Some(link) = found else {
            let all = ask(|h| h.link().get().execute()).await?;
            let present = all.iter().map(link_name).collect();
            return Err(NetError::NoSuchInterface { name: name.to_owned(), present });
        };
        let mut interface = Self::from_link(&link)?;
        if let Some(index) = link.attributes.iter().find_map(|a| match a {
            LinkAttribute::Controller(index) => Some(*index),
            _ => None,
        }) {
            let master = ask(|h| h.link().get().match_index(index).execute()).await?.into_iter().next();
            interface.master = master.and_then(|m| Some(Master { name: link_name(&m), index, mac: link_mac(&m)? }));
        }
        interface.read_addresses().await?;
        Ok(interface)
    }

    /// The MAC address that guests send to: the bridge's where the interface is a port of one.
    pub fn gateway_mac(&self) -> [u8; 6] {
        self.master.as_ref().map_or(self.mac, |m| m.mac)
    }

    /// The index of the interface that has the addresses and the neighbours: the bridge's where there is one.
    pub fn neighbour_index(&self) -> u32 {
        self.master.as_ref().map_or(self.index, |m| m.index)
    }

    /// The name of that interface.
    pub fn neighbour_name(&self) -> &str {
        self.master.as_ref().map_or(&self.name, |m| &m.name)
    }

    /// The IPv4 addresses, then the global and unique-local IPv6 addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.v4.iter().copied().map(IpAddr::V4).chain(self.v6.iter().copied().map(IpAddr::V6))
    }

    fn from_link(link: &LinkMessage) -> Result<Self, NetError> {
        let name = link_name(link);
        let Some(mac) = link_mac(link) else { return Err(NetError::NotEthernet { name }) };
        let mut interface = Self {
            index: link.header.index,
            up: link.header.flags.contains(LinkFlags::Up),
            mac,
            name,
            rx_queues: 1,
            ..Self::default()
        };
        let mut allocated = 1;
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
                LinkAttribute::NumRxQueues(queues) => allocated = (*queues).max(1),
                LinkAttribute::Xdp(xdp) => interface.xdp = attached(xdp),
                _ => {}
            }
        }
        // IFLA_NUM_RX_QUEUES counts what is allocated; ethtool's channels are what is in use. Drivers without channels,
        // and a /sys of another namespace (the crate's fallback), leave the former.
        let in_use = NicIndex::new(interface.index).queue_counts().map_or(0, |q| q.rx_count());
        interface.rx_queues = if in_use == 0 { allocated } else { in_use.min(allocated) };
        interface.strips_vlan_tags = offload::strips_vlan_tags(&interface.name);
        interface.takes_frames_in_parts = offload::takes_frames_in_parts(interface.index);
        Ok(interface)
    }

    async fn read_addresses(&mut self) -> Result<(), NetError> {
        let index = self.neighbour_index();
        for message in ask(|h| h.address().get().set_link_index_filter(index).execute()).await? {
            // The kernel has one flag for "secondary" (IPv4) and "temporary" (IPv6).
            let temporary = message.header.flags.contains(AddressHeaderFlags::Secondary);
            let failed = message.header.flags.contains(AddressHeaderFlags::Dadfailed)
                || message
                    .attributes
                    .iter()
                    .any(|a| matches!(a, AddressAttribute::Flags(flags) if flags.contains(AddressFlags::Dadfailed)));
            let address = local_address(&message);
            if let Some(prefix) = address.filter(|_| !failed).and_then(|address| link_prefix(address, &message)) {
                self.prefixes.push(prefix);
            }
            match address {
                // Another station has it.
                Some(_) if failed => {}
                Some(IpAddr::V4(a)) => self.v4.push(a),
                Some(IpAddr::V6(a)) if a.is_unicast_link_local() => self.v6_link_local.push(a),
                Some(IpAddr::V6(_)) if temporary => {}
                Some(IpAddr::V6(a)) => self.v6.push(a),
                None => {}
            }
        }
        self.prefixes.sort_unstable();
        self.prefixes.dedup();
        Ok(())
    }
}

/// The prefix of the link that an address is on; None for what is the link's own.
fn link_prefix(address: IpAddr, message: &AddressMessage) -> Option<IpNet> {
    match address {
        IpAddr::V6(address) if address.is_unicast_link_local() => None,
        address => IpNet::new(address, message.header.prefix_len).ok().map(|prefix| prefix.trunc()),
    }
}

/// Every address of this machine in this network namespace, of all interfaces.
pub async fn local_addresses() -> Result<Vec<IpAddr>, NetError> {
    let messages = ask(|h| h.address().get().execute()).await?;
    Ok(messages.iter().filter_map(local_address).collect())
}

fn local_address(message: &AddressMessage) -> Option<IpAddr> {
    // IFA_ADDRESS is the peer's where there is an IFA_LOCAL.
    let local = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

fn attached(xdp: &[LinkXdp]) -> Vec<AttachedXdp> {
    let of = |program_id, mode| (program_id != 0).then_some(AttachedXdp { program_id, mode });
    xdp.iter()
        .filter_map(|attribute| match attribute {
            LinkXdp::DrvProgId(id) => of(*id, Some(XdpMode::Native)),
            LinkXdp::SkbProgId(id) => of(*id, Some(XdpMode::Generic)),
            LinkXdp::HwProgId(id) => of(*id, None),
            _ => None,
        })
        .collect()
}

pub(super) fn link_name(link: &LinkMessage) -> String {
    let name = link.attributes.iter().find_map(|a| match a {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    name.unwrap_or_else(|| format!("#{}", link.header.index))
}

fn link_mac(link: &LinkMessage) -> Option<[u8; 6]> {
    let mac: [u8; 6] = link.attributes.iter().find_map(|a| match a {
        LinkAttribute::Address(bytes) => bytes.as_slice().try_into().ok(),
        _ => None,
    })?;
    // The loopback interface has six zero bytes.
    (mac != [0; 6]).then_some(mac)
}
