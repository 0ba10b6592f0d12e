//! What Bitcoin Core's functional test framework does around each of its tests: it keeps a chain,
//! gives every node a copy, starts and connects the nodes, and stops them.

use cofferdam_tests::core_chain::{ADDRESSES, BLOCK_1, HASH_SERIALIZED_3, HASHES, MUHASH};
use serde_json::{Value, json};

use crate::directories::{copy_all, keep_three_directories};
use crate::driven::{Driven, sync_all};
use crate::temporary;

#[test]
fn two_nodes_meet_and_have_the_same_tip() {
    for v2 in [false, true] {
        let tmpdir = temporary();
        let nodes = [0, 1].map(|number| Driven::start(tmpdir.path(), number, v2));
        nodes[1].connect(&nodes[0]);
        let mined = nodes[0].mine(101, ADDRESSES[0]);
        sync_all(&nodes);
        assert_eq!(nodes[1].best(), mined[100]);
        for (node, other, inbound) in [(0, 1, true), (1, 0, false)] {
            let peer = nodes[node].peer(&nodes[other], inbound).expect("still connected");
            assert_eq!(peer["transport_protocol_type"], if v2 { "v2" } else { "v1" });
        }
        let mined = nodes[1].mine(1, ADDRESSES[1]);
        sync_all(&nodes);
        assert_eq!(nodes[0].best(), mined[0]);
        for node in nodes {
            node.stop();
        }
    }
}

/// Sets the time of the genesis block.
fn set_first_time(node: &Driven) {
    let header = node.rpc("getblockheader", json!([node.best()]));
    let _ = node.rpc("setmocktime", json!([header["time"]]));
}

/// Looks whether the node has the chain that a real `bitcoind` mines.
fn check_chain(node: &Driven) {
    assert_eq!(node.rpc("getblockchaininfo", json!([]))["blocks"], 199);
    for (height, hash) in HASHES {
        assert_eq!(node.rpc("getblockhash", json!([height])), hash, "at height {height}");
    }
    assert_eq!(node.rpc("getblock", json!([HASHES[0].1, 0])), BLOCK_1);
    let info = |kind: &str| node.rpc("gettxoutsetinfo", json!([kind]));
    let (serialized, mu) = (info("hash_serialized_3"), info("muhash"));
    assert_eq!([&serialized["height"], &serialized["txouts"]], [&json!(199); 2]);
    assert_eq!(serialized["total_amount"].to_string(), "8700.00000000");
    assert_eq!(serialized["hash_serialized_3"], HASH_SERIALIZED_3);
    assert_eq!(mu["muhash"], MUHASH);
}

#[test]
fn the_kept_chain_is_that_of_core_and_a_copy_goes_on_with_it() {
    let (cache, tmpdir) = (temporary(), temporary());
    let node = Driven::start(cache.path(), 0, true);
    set_first_time(&node);
    for (turn, address) in ADDRESSES.iter().cycle().take(8).enumerate() {
        let _ = node.mine(if turn == 7 { 24 } else { 25 }, address);
    }
    check_chain(&node);
    node.stop();
    let kept = cache.path().join("node0");
    keep_three_directories(&kept);

    let nodes = [0, 1].map(|number| {
        copy_all(&kept, &tmpdir.path().join(format!("node{number}")));
        Driven::start(tmpdir.path(), number, true)
    });
    check_chain(&nodes[1]);
    // Of now, so that no node takes itself to be behind.
    let mined = nodes[0].mine(1, ADDRESSES[0]);
    let block = nodes[0].rpc("getblock", json!({"blockhash": mined[0], "verbosity": 0}));
    for (node, answer) in nodes.iter().zip([json!("duplicate"), Value::Null]) {
        assert_eq!(node.rpc("submitblock", json!([block])), answer);
        let info = node.rpc("getblockchaininfo", json!([]));
        assert_eq!(
            (&info["blocks"], &info["initialblockdownload"]),
            (&json!(200), &json!(false)),
            "{info}"
        );
    }
    for node in nodes {
        node.stop();
    }
}

#[test]
fn every_method_that_mines_mines_the_blocks_of_core() {
    let tmpdir = temporary();
    let node = Driven::start(tmpdir.path(), 0, true);
    set_first_time(&node);
    let args = json!({"output": ADDRESSES[0], "transactions": [], "submit": false});
    let block = node.rpc("generateblock", args);
    assert_eq!(block, json!({"hash": HASHES[0].1, "hex": BLOCK_1}));
    assert_eq!(node.rpc("getblockcount", json!([])), 0, "it was not taken");
    let descriptor = format!("addr({})", ADDRESSES[0]);
    let args = json!({"num_blocks": 1, "descriptor": descriptor});
    assert_eq!(node.rpc("generatetodescriptor", args), json!([HASHES[0].1]));
    let args = json!({"output": descriptor, "transactions": []});
    assert_eq!(node.rpc("generateblock", args), json!({"hash": HASHES[1].1}));
    node.stop();
}
