//! Any bytes as the second transaction of a block.
//!
//! `cofferdam_ibd::testing::fuzz::transaction` has the promises; how to run is in `../README.md`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    cofferdam_ibd::testing::fuzz::transaction(data);
});
