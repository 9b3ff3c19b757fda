//! The kernel's neighbour table: which station has which address.

use std::net::{IpAddr, SocketAddr};

use futures::{StreamExt as _, future::BoxFuture, stream};
use rtnetlink::{
    packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    },
};

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
    /// The station behind a socket's peer address; None where there is no such neighbour on the guest network.
    fn mac_of(&self, peer: SocketAddr) -> BoxFuture<'_, Result<Option<Mac>, NetError>>;

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
    fn mac_of(&self, peer: SocketAddr) -> BoxFuture<'_, Result<Option<Mac>, NetError>> {
        Box::pin(async move {
            // A link-local address means something only with its interface (RFC 4007 section 6).
            if let SocketAddr::V6(v6) = peer
                && v6.ip().is_unicast_link_local()
                && v6.scope_id() != self.interface_index
            {
                return Ok(None);
            }
            mac_of(peer.ip().to_canonical(), self.interface_index).await
        })
    }

    fn all(&self) -> BoxFuture<'_, Result<Vec<Neighbour>, NetError>> {
        Box::pin(neighbours(self.interface_index))
    }
}

/// The MAC address of the neighbour with this address on this interface: one targeted request (Linux 5.0), no dump.
pub async fn mac_of(address: IpAddr, interface_index: u32) -> Result<Option<Mac>, NetError> {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = interface_index;
    let (family, destination) = match address {
        IpAddr::V4(a) => (AddressFamily::Inet, NeighbourAddress::Inet(a)),
        IpAddr::V6(a) => (AddressFamily::Inet6, NeighbourAddress::Inet6(a)),
    };
    message.header.family = family;
    message.attributes.push(NeighbourAttribute::Destination(destination));
    let answers = ask(|mut handle| {
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNeighbour(message));
        request.header.flags = NLM_F_REQUEST;
        match handle.request(request) {
            Ok(answers) => answers.map(neighbour_message).left_stream(),
            Err(e) => stream::iter([Err(e)]).right_stream(),
        }
    })
    .await;
    match answers {
        Ok(messages) => Ok(messages.iter().find_map(neighbour).filter(|n| n.address == address).map(|n| n.mac)),
        // ENODEV: the interface is gone, and its neighbours with it.
        Err(e) if matches!(e.errno(), Some(libc::ENOENT | libc::ENODEV)) => Ok(None),
        Err(e) => Err(e),
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

fn neighbour_message(message: NetlinkMessage<RouteNetlinkMessage>) -> Result<NeighbourMessage, rtnetlink::Error> {
    match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(neighbour)) => Ok(neighbour),
        NetlinkPayload::Error(e) => Err(rtnetlink::Error::NetlinkError(e)),
        _ => Err(rtnetlink::Error::UnexpectedMessage(message)),
    }
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
