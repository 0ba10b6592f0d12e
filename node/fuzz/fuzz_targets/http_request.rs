//! Any path and body as a request to a running node: RPC and REST.
//!
//! `cofferdam_node::fuzz` has the promises; how to run is in `../README.md`.

#![no_main]

use std::sync::LazyLock;

use cofferdam_node::fuzz::{LiveNode, http_request};

/// In a directory of its own, which stays.
static NODE: LazyLock<LiveNode> = LazyLock::new(|| {
    let name = format!("cofferdam-fuzz-{}", std::process::id());
    LiveNode::start(&std::env::temp_dir().join(name)).expect("a node")
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = http_request(&NODE, data);
});
