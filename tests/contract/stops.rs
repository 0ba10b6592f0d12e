//! How a node ends that cannot go on.

use std::fs;

use cofferdam_tests::process::said;

use crate::{mine, refusal, start, temporary, text};

#[test]
fn a_block_that_cannot_be_taken_back_ends_the_node_and_the_next_start() {
    let dirs = [temporary(), temporary()];
    let node = start(dirs[0].path(), &[]);
    let _ = mine(&node, 3);
    fs::remove_file(dirs[0].path().join("regtest/blocks/rev00000.dat")).expect("there");
    let other = start(dirs[1].path(), &[]);
    let _ = other.rpc("generatetodescriptor", &["4", "raw(52)"]);
    let _ = node.rpc("addnode", &[&format!("127.0.0.1:{}", other.p2p_port), "onetry"]);
    let output = node.wait_for_end();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let heard = String::from_utf8(output.stderr).expect("UTF-8");
    let fatal =
        "A fatal internal error occurred, see debug.log for details: Failed to disconnect block.";
    assert_eq!(heard.trim(), format!("Error: {fatal}"));
    assert!(text(&dirs[0].path().join("regtest/debug.log")).contains("Failed to disconnect block"));
    let heard = refusal(dirs[0].path(), &["-connect=0"]);
    assert!(heard.starts_with("Error: Corrupted block database detected: "), "{heard}");
    other.stop();
}
