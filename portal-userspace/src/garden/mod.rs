//! The walled garden: what strangers may reach, by prefix and by name, in user space.
//!
//! `rules` is what an operator writes. A prefix becomes rows of the kernel's prefix table. For a name, the kernel's egress
//! program holds the answers that a resolver sends to a stranger and gives them to `relay`; `answer` reads them, `table` finds
//! the rules, `learned` opens the addresses in the kernel's table for a time, and then the frame is sent on: no guest can be
//! faster than what it has just learned.

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
