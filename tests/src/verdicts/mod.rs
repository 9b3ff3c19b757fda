//! The verdict table: which frame gets which verdict, for which reason and with which reply; and what is in the tables meanwhile.
//!
//! The tests of the gate run every row in the kernel, on the host and over a wire, and make `docs/verdicts.md` of them.

pub mod frames;
mod rows;
pub mod setting;

pub use rows::{OutboundRow, Reply, Row, outbound_rows, rows, rows_without_responder};
