//! Asking the gate: frames from descriptions and files, what it would do with them, what happened, and what goes past.

pub mod build;
pub mod decode;
pub mod input;
