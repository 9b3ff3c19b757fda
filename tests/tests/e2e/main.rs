//! End to end: the real daemon in the lab, asked by real clients.

mod the_lab;
