//! End to end: the real daemon in the lab, asked by real clients. Needs root.

mod bad_input;
mod clients;
mod crafted;
mod expect;
mod idle;
mod load;
mod modes;
mod outage;
mod sessions;
mod shutdown;
mod the_lab;
