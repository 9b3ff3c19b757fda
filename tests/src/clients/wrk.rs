//! wrk: load, with every response checked.
