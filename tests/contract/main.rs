//! Does the program behave as drivers of `bitcoind` expect: how it is started and configured, what
//! it writes where, what it says, and how it ends?
#![expect(clippy::indexing_slicing, reason = "a test fails by a panic")]

mod directories;
mod driven;
mod framework;
mod logs;
mod notifications;
mod options;
mod stops;

use std::path::Path;

use cofferdam_tests::process::{Node, run, said};

const BINARY: &str = env!("CARGO_BIN_EXE_cofferdam-under-test");

/// Starts a node that looks for no peers.
fn start(dir: &Path, args: &[&str]) -> Node {
    let mut all = vec!["-backend=sled", "-connect=0"];
    all.extend(args);
    Node::start(BINARY, dir, &all)
}

/// Runs the program where it has to refuse to start; returns what it says.
fn refusal(dir: &Path, args: &[&str]) -> String {
    let mut all = vec!["-regtest", "-backend=sled", "-listen=0", "-server=0"];
    all.extend(args);
    let output = run(BINARY, dir, &all);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {}", said(&output));
    String::from_utf8(output.stderr).expect("UTF-8").trim().to_owned()
}

/// Mines blocks.
fn mine(node: &Node, count: u32) -> Vec<String> {
    let mined = node.rpc("generatetodescriptor", &[&count.to_string(), "raw(51)"]);
    let hashes = mined.as_array().expect("hashes").iter();
    hashes.map(|hash| hash.as_str().expect("a hash").to_owned()).collect()
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("temporary")
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
