//! portalctl
fn main() {}
