//! Any bytes as a block and as a transaction, read beside the `bitcoin` crate.
//!
//! `cofferdam_ibd::testing::fuzz::parse` has the promises; how to run is in `../README.md`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    cofferdam_ibd::testing::fuzz::parse(data);
});
