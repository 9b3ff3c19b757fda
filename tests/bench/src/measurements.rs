//! The list of measurements, in the order of the table.

use crate::{Measurement, exchange};

/// All of them.
pub const ALL: &[Measurement] = &[
    Measurement { name: "exchange", about: "whole HTTP exchanges with strangers, against nginx", run: exchange::run },
];
