//! A segment's header page, as it is and with its checksum put right.
//!
//! `cofferdam_storage::testing::fuzz::segment_header` has the promises; how to run is in `../README.md`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    cofferdam_storage::testing::fuzz::segment_header(data);
});
