//! The kernel's side of Portal: loading and attaching the gate, and its maps with their types.

pub mod counters;
pub mod gate;
mod object;
pub mod pins;
pub mod secrets;
pub mod sessions;
