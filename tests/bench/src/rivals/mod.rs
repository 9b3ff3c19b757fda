//! What an operator would otherwise use, set up at its best.

pub mod nginx;
