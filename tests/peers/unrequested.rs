//! Blocks that nobody asked for, step by step as Bitcoin Core's `p2p_unrequested_blocks.py` goes.

use bitcoin::Block;
use bitcoin::consensus::serialize;
use bitcoin::p2p::message_blockdata::Inventory;
use cofferdam_tests::process::wait_for;

use super::fixture::{Logged, Peer};
use super::relay::{headers, inventory, mined, mined_for, requested, settle};

/// Another address than that of [`mined`]: another chain.
const ELSEWHERE: &str = "mpQ8rokAhp1TAtJQR6F6TaUmjAWkAWYYBq";

/// How far above the tip such a block may be.
const AHEAD_MAX: usize = 288;

fn height(node: &Logged) -> u64 {
    node.node.height()
}

fn send(peer: &mut Peer, blocks: &[Block]) {
    for block in blocks {
        peer.send("block", &serialize(block));
    }
    let _ = settle(peer);
}

fn status(node: &Logged, block: &Block) -> String {
    let (tips, hash) = (node.node.rpc("getchaintips", &[]), block.block_hash().to_string());
    let tips = tips.as_array().expect("a list");
    let tip = tips.iter().find(|tip| tip["hash"] == hash).expect("a tip");
    tip["status"].as_str().expect("a text").to_owned()
}

/// What a call for a block's content is refused with; none if it is stored.
fn refusal(node: &Logged, block: &Block) -> Option<String> {
    node.node.try_rpc("getblock", &[&block.block_hash().to_string()]).err()
}

#[test]
fn a_block_that_nobody_asked_for_is_stored_if_it_may_be_of_use() {
    let (main, fork) = (mined(2), mined_for(ELSEWHERE, 3 + 288));
    let node = Logged::start(&[]);
    let mut peer = Peer::ready(&node);
    send(&mut peer, &main);
    assert_eq!(height(&node), 2, "blocks on the tip are connected");

    send(&mut peer, &fork[..1]);
    assert_eq!(status(&node, &fork[0]), "headers-only", "less work than the tip has");
    let text = "Block not available (not fully downloaded)";
    assert!(refusal(&node, &fork[0]).is_some_and(|said| said.contains(text)));

    send(&mut peer, &fork[1..2]);
    assert_eq!(status(&node, &fork[1]), "headers-only", "its parent is not there");
    assert_eq!(refusal(&node, &fork[1]), None, "as much work as the tip has");
    send(&mut peer, &fork[2..3]);
    assert_eq!(refusal(&node, &fork[2]), None, "more work than the tip has");
    assert_eq!(height(&node), 2);

    peer.send("block", &serialize(&fork[4]));
    peer.wait_for_end();
    assert!(refusal(&node, &fork[4]).is_some_and(|said| said.contains("Block not found")));
    let mut peer = Peer::ready(&node);
    peer.send("headers", &headers(&fork[3..4]));
    send(&mut peer, &fork[4..5]);
    assert_eq!(refusal(&node, &fork[4]), None, "its header has a chain now");

    send(&mut peer, &fork[3..]);
    let (far, near) = fork.split_last().expect("many");
    assert_eq!(near.len(), 2 + AHEAD_MAX);
    assert!(near[1..].iter().all(|block| refusal(&node, block).is_none()));
    assert!(refusal(&node, far).is_some_and(|said| said.contains(text)), "too far ahead");
    assert_eq!(height(&node), 2);

    // It has a child with more work now. Who was asked for it is gone.
    drop(peer);
    node.wait_for_peers(0);
    let mut peer = Peer::ready(&node);
    send(&mut peer, &fork[..1]);
    assert_eq!(height(&node), 2);
}

#[test]
fn a_block_that_was_left_out_is_asked_for_and_taken_then() {
    let (main, fork) = (mined(2), mined_for(ELSEWHERE, 3));
    let node = Logged::start(&[]);
    let mut peer = Peer::ready(&node);
    send(&mut peer, &main);
    send(&mut peer, &fork);
    assert_eq!(height(&node), 2);
    let missing = fork[0].block_hash();
    peer.send("inv", &inventory(&[Inventory::Block(fork[2].block_hash())]));
    let asked = requested(&peer.expect("getdata").1);
    assert_eq!(asked, [Inventory::WitnessBlock(missing)]);
    send(&mut peer, &fork[..1]);
    wait_for("the fork", || (height(&node) == 3).then_some(()));
    assert_eq!(status(&node, &main[1]), "valid-fork");
}

#[test]
fn a_block_below_the_minimum_work_is_left_out() {
    let blocks = mined(1);
    let node = Logged::start(&["-minimumchainwork=0x10"]);
    let mut peer = Peer::ready(&node);
    send(&mut peer, &blocks);
    assert_eq!(height(&node), 0);
    // Nor is its header kept.
    let tips = node.node.rpc("getchaintips", &[]);
    assert_eq!(tips.as_array().map(Vec::len), Some(1), "{tips}");
}

#[test]
fn who_sends_headers_upon_a_block_that_is_not_valid_is_disconnected() {
    let (main, fork) = (mined(1), mined_for(ELSEWHERE, 3));
    let node = Logged::start(&[]);
    let mut peer = Peer::ready(&node);
    send(&mut peer, &main);
    // Its coinbase claims a coin too much.
    let mut bad = fork[1].clone();
    bad.header.prev_blockhash = main[0].block_hash();
    bad.txdata[0].output[0].value += bitcoin::Amount::ONE_BTC;
    bad.header.merkle_root = bad.compute_merkle_root().expect("a transaction");
    mine(&mut bad);
    let mut above = fork[2].clone();
    above.header.prev_blockhash = bad.block_hash();
    mine(&mut above);
    peer.send("block", &serialize(&bad));
    peer.wait_for_end();
    node.logged("bad-cb-amount");
    assert_eq!(status(&node, &bad), "invalid");
    let mut other = Peer::ready(&node);
    other.send("headers", &headers(&[above]));
    other.wait_for_end();
    node.logged("bad-prevblk");
    assert_eq!(height(&node), 1);
}

/// Finds the proof of work of regtest.
fn mine(block: &mut Block) {
    while block.header.validate_pow(block.header.target()).is_err() {
        block.header.nonce += 1;
    }
}
