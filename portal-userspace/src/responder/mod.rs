//! The responder: answers the plain-HTTP requests that the gate redirects to AF_XDP sockets.
//!
//! A frame goes through [`segment`] (what it is), [`reassembly`] (is the request complete), [`request`] (is it valid HTTP),
//! [`probes`] (which answer) and [`answers`] (its bytes). [`exchange`] joins them and does no I/O; it can be tested and
//! fuzzed as it is.

pub mod answers;
pub mod exchange;
pub mod probes;
pub mod reassembly;
pub mod request;
pub mod segment;
