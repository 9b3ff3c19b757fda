//! The real clients that ask for pages.

pub mod browser;
pub mod dns;
pub mod flood;
pub mod http;
pub mod iodine;
pub mod iperf;
pub mod load;
pub mod network_manager;
pub mod stream;
pub mod webdriver;
pub mod wrk;
