//! Any bytes as the body of a JSON-RPC call: parsed, bound to a method, answered.
//!
//! `cofferdam_node::fuzz` has the promises; how to run is in `../README.md`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = cofferdam_node::fuzz::rpc_request(data);
});
