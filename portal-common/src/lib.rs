//! Portal's decision, once.
//!
//! Everything here is a pure function from a frame, the tables and a clock to a verdict with its reason. There is no I/O
//! and no map: the same source is compiled for the kernel (`portal-ebpf`), for the daemon and for the host's tests.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]
#[cfg(all(feature = "host", not(test)))]
extern crate std;

pub mod answer;
pub mod bucket;
pub mod budget;
pub mod checksum;
pub mod cookie;
pub mod decide;
pub mod event;
pub mod family;
pub mod flag;
pub mod frame;
#[cfg(any(test, feature = "host"))]
pub mod host;
pub mod meter;
pub mod multilinear;
mod protocol;
pub mod reason;
pub mod siphash;
pub mod tables;
#[cfg(feature = "user")]
mod user;
pub mod word;

pub use family::Family;
pub use reason::Reason;
