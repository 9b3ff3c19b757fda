//! What the kernel knows of the network: interfaces and neighbours, over rtnetlink.

mod changes;
mod interface;
mod mac;
mod neighbour;
mod netlink;
mod offload;
mod vlan;

pub(crate) mod client;
pub(crate) mod serve;

pub(crate) use changes::Changes;
pub use interface::{AttachedXdp, Interface, Master, XdpMode, local_addresses};
pub use mac::{Mac, MacError};
pub use neighbour::{KernelNeighbours, Neighbour, Neighbours, neighbours};
pub use netlink::NetError;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
