//! Blocks of a download that more than one peer has to do with.

use bitcoin::consensus::serialize;
use cofferdam_tests::process::wait_for;

use super::fixture::{Logged, Peer, frame};
use super::outbound::{chosen, set_time};
use super::relay::{headers, mined, requested, settle, was_sent};

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

#[test]
fn in_the_first_download_who_connected_to_us_is_asked_for_what_is_late_only() {
    let blocks = mined(20);
    let node = Logged::start(&["-peertimeout=999999999"]);
    // Two days after the last block.
    set_time(&node, &blocks, 172_800);
    let mut silent = chosen(&node);
    silent.expect("getheaders");
    silent.send("headers", &headers(&blocks));
    assert_eq!(requested(&silent.expect("getdata").1).len(), 16);
    let mut spared = Peer::ready(&node);
    spared.send("headers", &headers(&blocks));
    assert!(!was_sent(&settle(&mut spared), "getdata"), "the last four are left to the other");
    set_time(&node, &blocks, 172_819);
    assert!(!was_sent(&settle(&mut spared), "getdata"), "nothing is late");
    set_time(&node, &blocks, 172_820);
    assert_eq!(requested(&spared.expect("getdata").1).len(), 16);
    for block in &blocks[..16] {
        spared.send("block", &serialize(block));
    }
    // Nobody is spared any more for the one that was silent.
    assert_eq!(requested(&spared.expect("getdata").1).len(), 4);
    for block in &blocks[16..] {
        spared.send("block", &serialize(block));
    }
    wait_for_height(&node, 20);
}

#[test]
fn a_block_that_is_on_its_way_is_asked_of_nobody_else() {
    let blocks = mined(20);
    let node = Logged::start(&["-peertimeout=999999999"]);
    set_time(&node, &blocks, 172_800);
    let mut slow = chosen(&node);
    slow.expect("getheaders");
    slow.send("headers", &headers(&blocks));
    assert_eq!(requested(&slow.expect("getdata").1).len(), 16);
    let mut spared = Peer::ready(&node);
    spared.send("headers", &headers(&blocks));
    spared.settle();
    set_time(&node, &blocks, 172_819);
    slow.send_raw(&frame("block", &[0; 1_000_000])[..500_000]);
    wait_for("half of a block", || {
        let peers = node.node.rpc("getpeerinfo", &[]);
        peers[0]["bytesrecv"].as_u64().filter(|bytes| *bytes >= 500_000)
    });
    set_time(&node, &blocks, 172_820);
    assert!(!was_sent(&settle(&mut spared), "getdata"), "it comes");
    // And then no more of it.
    set_time(&node, &blocks, 172_831);
    assert_eq!(requested(&spared.expect("getdata").1).len(), 16);
}

#[test]
fn in_the_first_download_who_connected_to_us_is_asked_if_nobody_owes_anything() {
    let blocks = mined(20);
    let node = Logged::start(&["-peertimeout=999999999"]);
    set_time(&node, &blocks, 172_800);
    let mut ignorant = chosen(&node);
    ignorant.expect("getheaders");
    ignorant.send("headers", &headers(&[]));
    let mut other = Peer::ready(&node);
    other.send("headers", &headers(&blocks));
    assert_eq!(requested(&other.expect("getdata").1).len(), 16);
    for block in &blocks[..15] {
        other.send("block", &serialize(block));
    }
    assert!(!was_sent(&settle(&mut other), "getdata"), "one block is in flight");
    other.send("block", &serialize(&blocks[15]));
    assert_eq!(requested(&other.expect("getdata").1).len(), 4);
}
