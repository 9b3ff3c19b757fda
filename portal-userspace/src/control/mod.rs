//! The control API: HTTP and JSON on a Unix socket, `/v1`.

pub mod api;
mod client;
mod group;
mod peer;
mod server;
mod socket;

pub use client::{Client, ClientError, Download};
pub use group::Group;
pub use peer::Access;
pub use server::{Control, GardenControl, Guarded, LostInKernel, ResponderCounters, Zones};
pub use socket::{ControlSocket, SocketError};

#[cfg(test)]
mod tests;
