//! A coin and its key: what is accepted is encoded to the same bytes.
//!
//! `cofferdam_ibd::testing::fuzz::coin` has the promises; how to run is in `../README.md`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    cofferdam_ibd::testing::fuzz::coin(data);
});
