//! A row of the block index: what is accepted is encoded to the same bytes.
//!
//! `cofferdam_ibd::testing::fuzz::header_row` has the promises; how to run is in `../README.md`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    cofferdam_ibd::testing::fuzz::header_row(data);
});
