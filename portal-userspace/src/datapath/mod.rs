//! The kernel's side of Portal: loading and attaching the gate, and its maps with their types.

pub mod attachment;
pub mod counters;
mod explain;
pub mod gate;
pub mod object;
pub mod pins;
pub mod secrets;
pub mod sessions;
