//! Any bytes as a block, as they are and with merkle root and work put right.
//!
//! `cofferdam_ibd::testing::fuzz::block` has the promises; how to run is in `../README.md`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    cofferdam_ibd::testing::fuzz::block(data);
});
