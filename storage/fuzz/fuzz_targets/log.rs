//! A log directory of any content is opened, or refused for a named reason and left as it was.
//!
//! `cofferdam_storage::testing::fuzz::log` has the promises; how to run is in `../README.md`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    cofferdam_storage::testing::fuzz::log(data);
});
