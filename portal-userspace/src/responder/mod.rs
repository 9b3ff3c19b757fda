//! The responder: answers the plain-HTTP requests and the TLS handshakes that the gate redirects to `AF_XDP` sockets.
//!
//! A frame goes through [`segment`] (what it is), [`reassembly`] (is the request complete), [`request`] (is it valid HTTP) or [`tls`],
//! [`probes`] (which answer) and [`answers`] (its bytes). [`exchange`] joins them and does no I/O; it can be tested and
//! fuzzed as it is, and [`rehearsal`] asks it what it would do. [`socket`] and [`worker`] put it on the wire. [`learning`] teaches the gate what is
//! answered again and again.

pub mod answers;
pub mod exchange;
pub mod learning;
pub mod policies;
pub mod probes;
pub mod reassembly;
pub mod rehearsal;
pub mod request;
pub mod segment;
pub mod socket;
pub mod tls;
pub mod worker;

#[cfg(test)]
mod heap_tests;
#[cfg(test)]
mod veth_tests;

pub use exchange::{Silence, Snapshot};
pub use policies::{Policies, Policy, SharedPolicies};
pub use rehearsal::{Rehearsed, rehearse};
pub use socket::SocketOptions;
pub use worker::{Queues, Responder, Shared, SharedKeys, SharedSockets};
