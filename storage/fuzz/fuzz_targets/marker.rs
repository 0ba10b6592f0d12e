//! The clean-shutdown marker, as it is and with its checksum put right.
//!
//! `cofferdam_storage::testing::fuzz::marker` has the promises; how to run is in `../README.md`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    cofferdam_storage::testing::fuzz::marker(data);
});
