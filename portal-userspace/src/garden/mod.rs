//! The walled garden: what strangers may reach, by prefix and by name, in user space.
//!
//! `rules` is what an operator writes. A prefix becomes rows of the kernel's prefix table. For a name, the kernel's egress
//! program holds the answers that a resolver sends to a stranger and gives them to `relay`; `answer` reads them, `table` finds
//! the rules, `learned` opens the addresses in the kernel's table for a time, and then the frame is sent on: no guest can be
//! faster than what it has just learned.
//!
//! What it does not do, and so stays closed: answers over TCP (to which a truncated answer leads), over TLS or HTTPS, in IP
//! fragments, and in frames longer than a record of the ring.
//!
//! What an operator should know:
//! - An address is opened, not a name: whatever else is served on that address and port, as on a content network, is open too.
//! - Whoever answers for a name decides which addresses are opened under it; private and the gateway's own never are.
//! - Answers are believed because they come from the resolver's address. A resolver on the gateway itself is safest: one
//!   elsewhere can be impersonated by who can send packets with its source address to the gateway.
//! - Rules added at run time live as long as the daemon.

pub mod address;
pub mod answer;
pub mod counters;
pub mod datagram;
pub mod held;
pub mod learned;
pub mod name;
pub mod packet_socket;
pub mod ports;
pub mod prefix;
pub mod relay;
pub mod rules;
pub mod table;
pub mod view;
pub mod worker;

#[cfg(test)]
mod learning_tests;
#[cfg(test)]
mod relay_tests;
