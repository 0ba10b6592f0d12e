//! Any sequence of blocks, faults, restarts and power cuts, against a map of the coins.
//!
//! `cofferdam_ibd::testing::fuzz::chain` has the promises; how to run is in `../README.md`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    cofferdam_ibd::testing::fuzz::chain(data);
});
