//! Do `invalidateblock`, `reconsiderblock` and `preciousblock` do what `bitcoind`'s do, and does
//! `kill -9` amid the first leave a chain that ends in a valid block?
#![expect(clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::time::Duration;

use cofferdam_storage::testing::{Random, effort};
use cofferdam_tests::process::Node;
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_cofferdam-under-test");
const METHODS: [&str; 3] = ["invalidateblock", "reconsiderblock", "preciousblock"];

/// Mines blocks that pay to `OP_n`; returns their hashes.
fn mine(node: &Node, count: u32, n: u8) -> Vec<String> {
    let script = format!("raw({:x})", 0x50 + n);
    let mined = node.rpc("generatetodescriptor", &[&count.to_string(), &script]);
    let hashes = mined.as_array().expect("hashes").iter();
    hashes.map(|hash| hash.as_str().expect("a hash").to_owned()).collect()
}

fn best(node: &Node) -> Value {
    node.rpc("getbestblockhash", &[])
}

/// Returns the status of each chain tip, by hash.
fn status(node: &Node, hash: &str) -> Value {
    let tips = node.rpc("getchaintips", &[]);
    let tips = tips.as_array().expect("tips");
    tips.iter().find(|tip| tip["hash"] == hash).map_or(Value::Null, |tip| tip["status"].clone())
}

fn check_errors(node: &Node) {
    for method in METHODS {
        let refused = |args: &[&str], text: &str| {
            let error = node.try_rpc(method, args).expect_err("refused");
            assert!(error.contains(text), "{method}: {error}");
        };
        let unknown = "00".repeat(32);
        refused(&[&unknown], "Block not found");
        refused(&[&unknown], "-5");
        refused(&["zz"], "blockhash must be of length 64 (not 2, for 'zz')");
        refused(&[], &format!("{method} \"blockhash\""));
    }
}

#[test]
fn a_user_decides_about_blocks_as_in_bitcoind() {
    let dir = tempfile::tempdir().expect("temporary");
    let start = || Node::start(BINARY, dir.path(), &["-backend=rocksdb", "-connect=0"]);
    let node = start();
    let a = mine(&node, 5, 1);
    let state = node.state();
    check_errors(&node);

    assert_eq!(node.rpc("invalidateblock", &[&a[2]]), Value::Null);
    assert_eq!(best(&node), a[1]);
    assert_eq!(status(&node, &a[4]), "invalid");
    assert_eq!(node.rpc("getblockchaininfo", &[])["headers"], 2);
    let genesis = node.rpc("getblockhash", &["0"]);
    let genesis = genesis.as_str().expect("a hash");
    assert_eq!(node.rpc("invalidateblock", &[genesis]), Value::Null);
    assert_eq!(node.height(), 2, "the genesis block cannot be invalidated");

    // It outlives the node, and so does what was built instead.
    node.stop();
    let node = start();
    assert_eq!((best(&node), status(&node, &a[4])), (json!(a[1]), json!("invalid")));
    let b = mine(&node, 3, 2);
    assert_eq!(best(&node), b[2]);

    // Of equal work, the one known at the start was there first.
    assert_eq!(node.rpc("reconsiderblock", &[&a[3]]), Value::Null);
    assert_eq!((best(&node), status(&node, &b[2])), (json!(a[4]), json!("valid-fork")));
    assert_eq!(node.state(), state);
    assert_eq!(node.rpc("preciousblock", &[&b[1]]), Value::Null);
    assert_eq!(best(&node), a[4], "less work than the tip");
    for tip in [&b[2], &a[4], &b[2]] {
        assert_eq!(node.rpc("preciousblock", &[tip]), Value::Null);
        assert_eq!(best(&node), **tip);
    }
    // An ancestor of both is marked: both branches go.
    let _ = node.rpc("invalidateblock", &[&a[0]]);
    assert_eq!(best(&node), genesis);
    let _ = node.rpc("reconsiderblock", &[&a[4]]);
    assert_eq!((best(&node), status(&node, &b[2])), (json!(a[4]), json!("invalid")));
    assert_eq!(node.state(), state);
    node.stop();
}

/// Returns height and hash of the UTXO set.
fn coins(node: &Node) -> (u64, String) {
    let info = node.rpc("gettxoutsetinfo", &["muhash"]);
    let height = info["height"].as_u64().expect("a number");
    (height, info["muhash"].as_str().expect("a hash").to_owned())
}

/// Checks that what a killed `invalidateblock` left is the chain up to some height, with the coins of
/// that height, and that all disconnected blocks are marked and no other; returns the height.
fn check_survivor(node: &Node, blocks: &[String], states: &[String], invalid: usize) -> usize {
    let (height, hash) = coins(node);
    let height = usize::try_from(height).expect("small");
    assert_eq!(hash, states[height], "the coins at height {height}");
    let tips = node.rpc("getchaintips", &[]);
    let statuses: Vec<&Value> =
        tips.as_array().expect("tips").iter().map(|tip| &tip["status"]).collect();
    if height == blocks.len() {
        assert_eq!(statuses, ["active"]);
    } else {
        assert!(height >= invalid, "{height} is below the block before the invalid one");
        assert_eq!(statuses, ["invalid", "active"]);
    }
    height
}

#[test]
fn a_kill_amid_invalidation_leaves_a_valid_tip_and_the_next_call_ends_it() {
    const BLOCKS: u32 = 150;
    const INVALID: usize = 4;
    let seed = 1;
    let mut random = Random::new(seed);
    let dir = tempfile::tempdir().expect("temporary");
    let options = ["-backend=rocksdb", "-connect=0", "-durability=strict"];
    let start = || Node::start(BINARY, dir.path(), &options);
    let mut node = start();
    let mut states = vec![coins(&node).1];
    let mut blocks = Vec::new();
    for _ in 0..BLOCKS {
        blocks.extend(mine(&node, 1, 1));
        states.push(coins(&node).1);
    }
    let wanted = effort().pick(2, 10, 50);
    let mut heights = Vec::new();
    // How many came after the first block was disconnected and before the last.
    let mut amid = 0;
    for _ in 0..10 * wanted {
        if amid == wanted {
            break;
        }
        let after = Duration::from_millis(random.below(250) as u64);
        // The block's own height is one more than its place in the list.
        node.kill_amid("invalidateblock", &[&blocks[INVALID]], after);
        node = start();
        let height = check_survivor(&node, &blocks, &states, INVALID);
        heights.push(height);
        amid += usize::from(height > INVALID && height < blocks.len());
        let _ = node.rpc("invalidateblock", &[&blocks[INVALID]]);
        assert_eq!(coins(&node), (INVALID as u64, states[INVALID].clone()));
        let _ = node.rpc("reconsiderblock", &[&blocks[INVALID]]);
        assert_eq!(coins(&node).1, states[blocks.len()], "seed {seed}, killed at {heights:?}");
    }
    println!("seed {seed}: killed at heights {heights:?}");
    assert!(amid > 0, "no kill came amid the call");
    node.stop();
}
