//! Does a node build its chain anew from block files, take over those of others, prune its own, and show
//! how far it is?
#![expect(clippy::indexing_slicing, reason = "a test fails by a panic")]

mod prune;
mod prune_target;
mod rebuild;
mod shown;
mod status_page;
mod take_over;

use std::path::{Path, PathBuf};

use cofferdam_tests::process::{Node, wait_for};

const BINARY: &str = env!("CARGO_BIN_EXE_cofferdam-under-test");
const ADDRESS: &str = "mjTkW3DjgyZck4KbiRusZsqTgaYTxdSz6z";

/// Starts a node without peers and waits until it has imported what it has to.
fn start(dir: &Path, args: &[&str]) -> Node {
    let node = Node::start(BINARY, dir, &[&["-connect=0"], args].concat());
    wait_for("the end of the import", || {
        (node.rpc("getmempoolinfo", &[])["loaded"] == true).then_some(())
    });
    node
}

fn mine(node: &Node, blocks: u32) {
    let mined = node.rpc("generatetoaddress", &[&blocks.to_string(), ADDRESS]);
    assert_eq!(mined.as_array().map(Vec::len), Some(blocks as usize));
}

fn blocks_dir(dir: &Path) -> PathBuf {
    dir.join("regtest/blocks")
}

/// The numbers of the files with a prefix.
fn numbers(dir: &Path, prefix: &str) -> Vec<u32> {
    let names = std::fs::read_dir(blocks_dir(dir))
        .expect("readable")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"));
    let number = |name: String| name.strip_prefix(prefix)?.strip_suffix(".dat")?.parse().ok();
    let mut numbers: Vec<u32> = names.filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

fn log(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("regtest/debug.log")).expect("readable")
}
