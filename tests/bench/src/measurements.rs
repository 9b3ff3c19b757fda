//! The list of measurements, in the order of the table.

use crate::{Measurement, bulk, exchange};

/// All of them.
pub const ALL: &[Measurement] = &[
    Measurement { name: "exchange", about: "whole HTTP exchanges with strangers, against nginx", run: exchange::run },
    Measurement { name: "bulk", about: "a million sessions into the kernel at once", run: bulk::run },
];
