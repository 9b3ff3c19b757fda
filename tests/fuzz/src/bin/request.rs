//! libFuzzer over [`portal_fuzz::request`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portal_fuzz::request::run(data));
