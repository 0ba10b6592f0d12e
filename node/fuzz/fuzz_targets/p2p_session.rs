//! Any messages to a running node, as from a peer.
//!
//! `cofferdam_node::fuzz` has the promises; how to run is in `../README.md`.

#![no_main]

use std::sync::LazyLock;

use cofferdam_node::fuzz::{LiveNode, p2p_session};

/// In a directory of its own, which stays.
static NODE: LazyLock<LiveNode> = LazyLock::new(|| {
    let name = format!("cofferdam-fuzz-{}", std::process::id());
    LiveNode::start(&std::env::temp_dir().join(name)).expect("a node")
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = p2p_session(&NODE, data);
});
