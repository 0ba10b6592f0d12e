//! Any bytes as what a peer sends, plain or encrypted.
//!
//! `cofferdam_node::fuzz` has the promises; how to run is in `../README.md`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = cofferdam_node::fuzz::p2p_stream(data);
});
