//! Being told by the kernel when interfaces and their addresses change.

use futures::{StreamExt as _, channel::mpsc::UnboundedReceiver};
use rtnetlink::{
    Handle, MulticastGroup, new_multicast_connection, packet_core::NetlinkMessage, packet_route::RouteNetlinkMessage,
    sys::SocketAddr,
};
use tokio::task::JoinHandle;

use super::netlink::NetError;

/// A subscription to changes of interfaces and addresses in this network namespace.
///
/// It tells that something changed, not what: a message can be lost (ENOBUFS), so whoever is told asks the kernel again.
pub(crate) struct Changes {
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    connection: JoinHandle<()>,
    // The connection ends when its last handle is gone.
    _handle: Handle,
}

impl Changes {
    /// Subscribes. What changes after this returns is told.
    pub(crate) fn subscribe() -> Result<Self, NetError> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let (connection, handle, messages) = new_multicast_connection(&groups)?;
        Ok(Self { messages, connection: tokio::spawn(connection), _handle: handle })
    }

    /// Waits until something has changed; false when the subscription has ended, and a new one is needed.
    pub(crate) async fn next(&mut self) -> bool {
        if self.messages.next().await.is_none() {
            return false;
        }
        // A burst is one change: the kernel is asked once for all of it.
        while self.messages.try_recv().is_ok() {}
        true
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
