//! The lab: a gateway, its guests and an internet in network namespaces of one machine, with real services and real clients.
//!
//! Every [`Lab`] has names, addresses and a directory of its own, so that several can run at once, and removes what it made
//! when it is dropped, on SIGINT and SIGTERM, and, after a `kill -9`, when the next lab starts.

pub mod addresses;
pub mod bare;
pub mod capture;
pub mod clients;
pub mod demo;
pub mod lab;
pub mod namespace;
pub mod portald;
pub mod process;
mod removal;
mod services;
mod table;
pub mod verdicts;
pub mod wire;
mod xdp_pass;

pub use lab::{Lab, Options};
pub use namespace::Namespace;
pub use portald::{Portald, Settings};
pub use removal::{announce_and_wait_for_signal, exit, remove_on_signal};
