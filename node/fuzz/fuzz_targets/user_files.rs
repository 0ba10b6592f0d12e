//! Any bytes as a file that people or other programs write.
//!
//! `cofferdam_node::fuzz` has the promises; how to run is in `../README.md`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = cofferdam_node::fuzz::user_files(data);
});
