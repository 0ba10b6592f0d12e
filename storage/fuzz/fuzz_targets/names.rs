//! Names of files: foreign ones disturb neither the log nor flat files.
//!
//! `cofferdam_storage::testing::fuzz::names` has the promises; how to run is in `../README.md`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    cofferdam_storage::testing::fuzz::names(data);
});
