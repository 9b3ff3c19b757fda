//! What the load lab's programs share with user space.
#![cfg_attr(not(test), no_std)]

pub mod crowd;
#[cfg(feature = "user")]
mod user;
