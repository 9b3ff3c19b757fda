//! Asking the gate: frames from descriptions and files, what it would do with them, what happened, and what goes past.

pub mod build;
pub mod capture;
pub mod decode;
pub mod events;
pub mod explain;
pub mod hub;
pub mod input;
pub mod kernel;
pub mod pcapng;

#[cfg(test)]
mod gate_tests;
