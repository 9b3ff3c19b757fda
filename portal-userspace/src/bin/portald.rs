//! portald
fn main() {}
