//! Portal's user space: the library behind `portald` and `portalctl`.

pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod daemon;
pub mod datapath;
pub mod garden;
pub mod net;
pub mod observe;
pub mod private;
pub mod responder;
pub mod session;
pub mod web;
