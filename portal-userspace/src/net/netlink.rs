//! One question to rtnetlink, with its answers.

use std::{io, time::Duration};

use futures::{Stream, TryStreamExt as _};
use rtnetlink::Handle;

/// The kernel answers from memory: longer than this is a fault.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the kernel's tables could not be read.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// There is no such interface.
    #[error("there is no interface `{name}` in this network namespace; there are: {}", present.join(", "))]
    NoSuchInterface {
        /// What was asked for.
        name: String,
        /// The interfaces there are.
        present: Vec<String>,
    },
    /// The interface has no Ethernet address.
    #[error(
        "interface `{name}` has no Ethernet (MAC) address: Portal needs an Ethernet interface, such as a NIC, a bridge port or a veth"
    )]
    NotEthernet {
        /// The interface.
        name: String,
    },
    /// There is no interface for this VLAN.
    #[error(
        "there is no interface for VLAN {id} on `{interface}`: add one (`ip link add link {interface} name {interface}.{id} type vlan id {id}`), or \
         name the one with the gateway's addresses there by the network's `gateway` key"
    )]
    NoSuchVlan {
        /// Where it was looked for.
        interface: String,
        /// The VLAN id.
        id: u16,
    },
    /// No netlink socket could be opened.
    #[error("cannot open a netlink socket: {0}; a sandbox may forbid AF_NETLINK (RestrictAddressFamilies= of systemd)")]
    Socket(#[from] io::Error),
    /// The kernel refused.
    #[error("the kernel refused a netlink request: {0}")]
    Refused(rtnetlink::Error),
    /// No answer in time.
    #[error("the kernel did not answer a netlink request within 5 s")]
    TimedOut,
}

impl NetError {
    /// The kernel's error number, positive.
    pub(super) fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused(rtnetlink::Error::NetlinkError(e)) => Some(e.raw_code().abs()),
            _ => None,
        }
    }
}

impl From<rtnetlink::Error> for NetError {
    fn from(e: rtnetlink::Error) -> Self {
        Self::Refused(e)
    }
}

/// Opens a socket, asks, and collects the answers.
///
/// A socket of its own for each question: one that is broken (ENOBUFS) or full of another's late answers can't exist.
pub(super) async fn ask<T, S>(question: impl FnOnce(Handle) -> S) -> Result<Vec<T>, NetError>
where
    S: Stream<Item = Result<T, rtnetlink::Error>>,
{
    let (connection, handle, _unsolicited) = rtnetlink::new_connection()?;
    let answers = question(handle).try_collect();
    // The connection ends by itself only when every handle is gone: whoever is first ends both.
    let both = async {
        tokio::select! {
            answers = answers => answers.map_err(NetError::from),
            () = connection => Err(NetError::Refused(rtnetlink::Error::RequestFailed)),
        }
    };
    tokio::time::timeout(PATIENCE, both).await.map_err(|_| NetError::TimedOut)?
}
