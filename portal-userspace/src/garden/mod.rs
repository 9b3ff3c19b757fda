//! The walled garden: what strangers may reach, by prefix and by name.
pub mod name;
pub mod ports;
pub mod prefix;
pub mod rules;
pub mod answer;
