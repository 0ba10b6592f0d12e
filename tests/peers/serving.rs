//! What a node serves, to whom, and whom it hangs up on for asking.

use std::fs::File;

use bitcoin::BlockHash;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash as _;
use bitcoin::p2p::message_blockdata::{GetBlocksMessage, Inventory};
use cofferdam_tests::process::wait_for;
use serde_json::Value;

use super::fixture::{Logged, Peer};
use super::relay::{ADDRESS, inventory, requested, settle, was_sent};

fn hash(text: &Value) -> BlockHash {
    text.as_str().expect("a hash").parse().expect("a hash")
}

/// Mines blocks.
fn mine(node: &Logged, count: u32) -> Vec<BlockHash> {
    let hashes = node.node.rpc("generatetoaddress", &[&count.to_string(), ADDRESS]);
    hashes.as_array().expect("a list").iter().map(hash).collect()
}

#[test]
fn filters_are_served_and_who_asks_for_what_is_not_is_dropped() {
    let node = Logged::start(&["-blockfilterindex", "-peerblockfilters"]);
    let blocks = mine(&node, 1001);
    let at = |height: usize| blocks[height - 1];
    wait_for("the index", || {
        let info = node.node.rpc("getindexinfo", &[]);
        (info["basic block filter index"]["best_block_height"] == 1001).then_some(())
    });
    let filter = |height: usize| node.node.rpc("getblockfilter", &[&at(height).to_string()]);
    let header = |height: usize| hash(&filter(height)["header"]).to_byte_array();
    let mut peer = Peer::ready(&node);
    peer.send("getcfcheckpt", &serialize(&(0_u8, at(1001))));
    let (_, payload) = peer.expect("cfcheckpt");
    let expected = [&[0][..], &at(1001).to_byte_array(), &[1], &header(1000)].concat();
    assert_eq!(payload, expected);
    peer.send("getcfheaders", &serialize(&(0_u8, 2_u32, at(1001))));
    let (_, payload) = peer.expect("cfheaders");
    let expected = [&[0][..], &at(1001).to_byte_array(), &header(1), &[0xfd, 0xe8, 0x03]].concat();
    assert_eq!(payload[..expected.len()], expected);
    assert_eq!(payload.len(), expected.len() + 1000 * 32);
    peer.send("getcfilters", &serialize(&(0_u8, 1000_u32, at(1001))));
    for height in [1000, 1001] {
        let (_, payload) = peer.expect("cfilter");
        let (kind, block, bytes): (u8, BlockHash, Vec<u8>) = deserialize(&payload).expect("one");
        assert_eq!((kind, block), (0, at(height)));
        let hex = bitcoin::hex::DisplayHex::to_lower_hex_string(&bytes[..]);
        assert_eq!(filter(height)["filter"], hex);
    }
    let unknown = BlockHash::from_byte_array([7; 32]);
    for (number, (command, payload, line)) in [
        ("getcfilters", serialize(&(255_u8, 1_u32, at(1))), "unsupported block filter type: 255"),
        (
            "getcfilters",
            serialize(&(0_u8, 1_u32, at(1001))),
            "too many cfilters/cfheaders: 1001 / 1000",
        ),
        (
            "getcfheaders",
            serialize(&(0_u8, 1_u32, unknown)),
            "invalid block hash: 0707070707070707",
        ),
        ("getcfcheckpt", serialize(&(0_u8, unknown)), "invalid block hash: 0707070707070707"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut peer = Peer::ready(&node);
        peer.send(command, &payload);
        peer.wait_for_end();
        let line = node.line(&format!("peer requested {line}"));
        assert!(line.contains(", disconnecting peer="), "{number}: {line}");
    }
    let mut peer = Peer::ready(&node);
    peer.send("getcfheaders", &serialize(&(0_u8, 1000_u32, at(999))));
    peer.wait_for_end();
    node.logged("peer sent invalid getcfilters/getcfheaders with start height 1000 and stop height 999, disconnecting peer=5");
}

#[test]
fn filters_of_blocks_that_are_no_longer_in_the_chain_are_served_for_a_month() {
    let day = 24 * 60 * 60;
    let start = 1_800_000_000_u32;
    let node = Logged::start(&["-blockfilterindex", "-peerblockfilters", "-peertimeout=999999999"]);
    let set_day = |number: u32| node.call("setmocktime", &[&(start + number * day).to_string()]);
    set_day(0);
    let stale = mine(&node, 1)[0];
    wait_for("the index", || node.node.try_rpc("getblockfilter", &[&stale.to_string()]).ok());
    node.call("invalidateblock", &[&stale.to_string()]);
    set_day(29);
    mine(&node, 2);
    node.call("reconsiderblock", &[&stale.to_string()]);
    let request = serialize(&(0_u8, 1_u32, stale));
    let mut peer = Peer::ready(&node);
    peer.send("getcfilters", &request);
    peer.expect("cfilter");
    set_day(31);
    mine(&node, 1);
    peer.send("getcfilters", &request);
    peer.wait_for_end();
    node.logged(&format!("peer requested invalid block hash: {stale}, disconnecting peer=0"));
}

#[test]
fn old_blocks_are_not_served_beyond_the_target_but_to_who_has_permission() {
    let start = 1_800_000_000_u32;
    let args = ["-maxuploadtarget=1", "-peertimeout=999999999"];
    let times = [start, start + 8 * 24 * 60 * 60].map(|time| time.to_string());
    let node = Logged::start(&args);
    node.call("setmocktime", &[&times[0]]);
    let old = mine(&node, 1)[0];
    node.call("setmocktime", &[&times[1]]);
    let new = mine(&node, 11)[10];
    let mut peer = Peer::ready(&node);
    peer.send("getdata", &inventory(&[Inventory::WitnessBlock(new)]));
    assert!(was_sent(&settle(&mut peer), "block"), "new ones are");
    // Of a block so deep all is sent to who asks for some of its transactions.
    let whole = inventory(&[Inventory::WitnessBlock(old)]);
    let in_part = [&old.to_byte_array()[..], &[1, 0]].concat();
    peer.send("getdata", &whole);
    peer.wait_for_end();
    node.logged("historical block serving limit reached, disconnecting peer=0");
    let mut peer = Peer::ready(&node);
    peer.send("getblocktxn", &in_part);
    peer.wait_for_end();
    node.logged("historical block serving limit reached, disconnecting peer=1");
    let info = node.node.rpc("getnettotals", &[]);
    assert_eq!(info["uploadtarget"]["serve_historical_blocks"], false);
    let mut node = node;
    for permission in ["noban", "download"] {
        let list = format!("-whitelist={permission}@127.0.0.1");
        let time = format!("-mocktime={}", times[1]);
        node = node.restart(&[&args[..], &[&list, &time]].concat());
        let mut peer = Peer::ready(&node);
        for (command, payload) in [("getdata", &whole), ("getblocktxn", &in_part)] {
            peer.send(command, payload);
            assert!(was_sent(&settle(&mut peer), "block"), "{permission}, {command}");
        }
    }
}

/// Whoever asks for a block that is gone is hung up on: none may be named.
#[test]
fn headers_of_a_chain_below_the_minimum_work_are_not_told() {
    let node = Logged::start(&["-minimumchainwork=0x10"]);
    // Seven headers of work two each, the genesis block's included.
    let _ = mine(&node, 6);
    let mut peer = Peer::ready(&node);
    let mut ask = |count: usize| {
        let nobody = BlockHash::all_zeros();
        let parts = [serialize(&70_016_u32), serialize(&vec![nobody]), serialize(&nobody)];
        peer.send("getheaders", &parts.concat());
        let told = peer.expect("headers").1;
        assert_eq!(usize::from(told[0]), count);
    };
    ask(0);
    node.logged("because active chain has too little work; sending empty response");
    let _ = mine(&node, 1);
    ask(7);
}

#[test]
fn a_node_that_prunes_names_only_blocks_that_it_will_still_have() {
    let node = Logged::start(&["-fastprune", "-prune=1"]);
    let blocks = mine(&node, 800);
    let pruned = node.node.rpc("pruneblockchain", &["800"]).as_u64().expect("a height");
    assert!(pruned > 0);
    let mut peer = Peer::ready(&node);
    let mut ask = |from: usize| {
        let (known, none) = (blocks[from - 1], BlockHash::all_zeros());
        peer.send("getblocks", &serialize(&GetBlocksMessage::new(vec![known], none)));
        let sent = settle(&mut peer);
        let list = sent.iter().find(|(command, _)| command == "inv");
        list.map_or_else(Vec::new, |(_, payload)| requested(payload))
    };
    // 288 blocks are kept; the last six of these may go within an hour.
    let last_named: Vec<Inventory> =
        blocks[800 - 282..].iter().map(|hash| Inventory::Block(*hash)).collect();
    assert_eq!(ask(800 - 282), last_named);
    for (from, next) in [(1, 2), (800 - 283, 800 - 282)] {
        assert!(ask(from).is_empty(), "{from}");
        let hash = blocks[next - 1];
        node.logged(&format!(" getblocks stopping, pruned or too old block at {next} {hash}"));
    }
}

/// Whoever asks again costs no work of the chain's thread, and no disk.
#[test]
fn the_tip_is_read_once_for_all_who_want_it_compact_or_in_part() {
    for is_announced in [true, false] {
        let node = Logged::start(&[]);
        let known = mine(&node, 1)[0];
        let mut peer = Peer::ready(&node);
        peer.send("sendcmpct", &[u8::from(is_announced), 2, 0, 0, 0, 0, 0, 0, 0]);
        let locator = GetBlocksMessage::new(vec![known], BlockHash::all_zeros());
        peer.send("getheaders", &serialize(&locator));
        peer.settle();
        let tip = mine(&node, 1)[0];
        let coinbase = [&tip.to_byte_array()[..], &[1, 0]].concat();
        if is_announced {
            peer.expect("cmpctblock");
        } else {
            peer.send("getblocktxn", &coinbase);
            peer.expect("blocktxn");
        }
        let file = File::options().write(true).open(node.file("blocks/blk00000.dat"));
        file.and_then(|file| file.set_len(0)).expect("a block file");
        for (item, command) in [
            (Inventory::CompactBlock(tip), "cmpctblock"),
            (Inventory::WitnessBlock(tip), "block"),
            (Inventory::Block(tip), "block"),
        ] {
            peer.send("getdata", &inventory(&[item]));
            peer.expect(command);
        }
        peer.send("getblocktxn", &coinbase);
        peer.expect("blocktxn");
    }
}
