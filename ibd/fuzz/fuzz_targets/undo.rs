//! Undo data: what is accepted is encoded and accepted as the same.
//!
//! `cofferdam_ibd::testing::fuzz::undo` has the promises; how to run is in `../README.md`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    cofferdam_ibd::testing::fuzz::undo(data);
});
