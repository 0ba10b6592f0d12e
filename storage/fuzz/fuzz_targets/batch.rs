//! A batch: what is accepted is encoded to the same bytes; what was built is accepted.
//!
//! `cofferdam_storage::testing::fuzz::batch` has the promises; how to run is in `../README.md`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    cofferdam_storage::testing::fuzz::batch(data);
});
