//! Blocks of a download that more than one peer has to do with.

use bitcoin::consensus::serialize;
use cofferdam_tests::process::wait_for;

use super::fixture::{Logged, Peer};
use super::relay::{headers, mined, requested};

/// The work of 20 blocks of regtest and the genesis block.
const MINIMUM_WORK: &str = "-minimumchainwork=0x2a";

fn wait_for_height(node: &Logged, height: u64) {
    wait_for("the height", || (node.node.height() == height).then_some(()));
}

#[test]
fn a_block_that_one_peer_owes_is_taken_from_another_if_it_is_that_block() {
    let blocks = mined(20);
    let node = Logged::start(&[MINIMUM_WORK]);
    let mut owner = Peer::ready(&node);
    owner.send("headers", &headers(&blocks));
    assert_eq!(requested(&owner.expect("getdata").1).len(), 16);
    // Unasked, a block below the minimum work is left out.
    let mut other = Peer::ready(&node);
    other.send("block", &serialize(&blocks[0]));
    wait_for_height(&node, 1);
    let mut mutated = blocks[1].clone();
    mutated.txdata.push(mutated.txdata[0].clone());
    other.send("block", &serialize(&mutated));
    other.wait_for_end();
    node.wait_for_peers(1);
    assert_eq!(node.peer()["inflight"].as_array().map(Vec::len), Some(15), "one came");
    // The copy of who was asked does no harm, and is not waited for.
    for block in &blocks[..16] {
        owner.send("block", &serialize(block));
    }
    wait_for_height(&node, 16);
}
