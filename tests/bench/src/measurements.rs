//! The list of measurements, in the order of the table.

use crate::Measurement;

/// All of them.
pub const ALL: &[Measurement] = &[];
