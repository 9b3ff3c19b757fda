//! The kernel's neighbour table: which station says that it has which address. It is for people to look at; nothing is decided by it.

use std::net::IpAddr;

use futures::future::BoxFuture;
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};

use super::{
    Mac,
    netlink::{NetError, ask},
};

/// A station on the guest network and one of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// The station.
    pub mac: Mac,
    /// The address.
    pub address: IpAddr,
}

/// Who has which address. The daemon's is [`KernelNeighbours`].
pub trait Neighbours: Send + Sync + 'static {
    /// Every station and address.
    fn all(&self) -> BoxFuture<'_, Result<Vec<Neighbour>, NetError>>;
}

/// The kernel's neighbour table for one interface.
#[derive(Clone, Copy, Debug)]
pub struct KernelNeighbours {
    /// The interface that has the addresses: [`super::Interface::neighbour_index`].
    pub interface_index: u32,
}

impl Neighbours for KernelNeighbours {
    fn all(&self) -> BoxFuture<'_, Result<Vec<Neighbour>, NetError>> {
        Box::pin(neighbours(self.interface_index))
    }
}

/// Every usable neighbour on this interface, both families, sorted by station.
pub async fn neighbours(interface_index: u32) -> Result<Vec<Neighbour>, NetError> {
    let mut found: Vec<Neighbour> = ask(|h| h.neighbours().get().execute())
        .await?
        .iter()
        .filter(|message| message.header.ifindex == interface_index)
        .filter_map(neighbour)
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// The station and its address, where the kernel has resolved it.
fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    match message.header.state {
        NeighbourState::Reachable
        | NeighbourState::Stale
        | NeighbourState::Delay
        | NeighbourState::Probe
        | NeighbourState::Permanent => {}
        // Not resolved (incomplete, failed, none), or an entry that never is (noarp: multicast).
        _ => return None,
    }
    let address = message.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => Some(IpAddr::V4(*a)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => Some(IpAddr::V6(*a)),
        _ => None,
    })?;
    let mac = message.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::LinkLayerAddress(bytes) => Mac::new(bytes.as_slice().try_into().ok()?).ok(),
        _ => None,
    })?;
    Some(Neighbour { mac, address })
}
