//! Any sequence of operations on a store, with failures and crashes, against a model.
//!
//! `cofferdam_storage::testing::fuzz::store_model` has the promises; how to run is in `../README.md`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    cofferdam_storage::testing::fuzz::store_model(data);
});
