//! libFuzzer over [`portal_fuzz::verdict`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portal_fuzz::verdict::run(data));
