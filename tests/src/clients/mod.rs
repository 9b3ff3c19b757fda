//! The real clients that ask for pages.

pub mod browser;
pub mod http;
pub mod load;
pub mod network_manager;
pub mod wrk;
