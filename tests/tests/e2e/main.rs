//! End to end: the real daemon in the lab, asked by real clients. Needs root.

mod accounting;
mod alert;
mod bad_input;
mod changed_interface;
mod clients;
mod command_line;
mod control_socket;
mod crafted;
mod deleted_interface;
mod demo;
mod expect;
mod flood;
mod half_close;
mod idle;
mod leaks;
mod load;
mod modes;
mod more_of_the_lab;
mod outage;
mod sessions;
mod shutdown;
mod takeover;
mod the_lab;
mod tunnel;
mod turn;
mod watch;
