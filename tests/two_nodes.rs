//! Do two nodes agree: one mines and serves, the other syncs and follows, both survive restarts?
#![expect(clippy::indexing_slicing, reason = "a test fails by a panic")]

use cofferdam_tests::process::{Node, wait_for};

const BINARY: &str = env!("CARGO_BIN_EXE_cofferdam-under-test");
const ADDRESS: &str = "mjTkW3DjgyZck4KbiRusZsqTgaYTxdSz6z";

fn check(backend: &str) {
    let dirs = [tempfile::tempdir(), tempfile::tempdir()].map(|dir| dir.expect("temporary"));
    let engine = format!("-backend={backend}");
    let miner = Node::start(BINARY, dirs[0].path(), &[&engine]);
    let mined = miner.rpc("generatetoaddress", &["1000", ADDRESS]);
    assert_eq!(mined.as_array().expect("hashes").len(), 1000);

    let connect = format!("-connect=127.0.0.1:{}", miner.p2p_port);
    let follower = Node::start(BINARY, dirs[1].path(), &[&engine, &connect]);
    wait_for("1,000 blocks", || (follower.height() == 1000).then_some(()));
    assert_eq!(follower.state(), miner.state());
    assert_eq!(follower.rpc("getconnectioncount", &[]), 1);

    for height in 1001..=1010 {
        let descriptor = if height % 2 == 0 { "raw(51)" } else { &format!("addr({ADDRESS})") };
        let _ = miner.rpc("generatetodescriptor", &["1", descriptor]);
        wait_for("the next block", || (follower.height() == height).then_some(()));
    }
    let state = miner.state();
    assert_eq!(follower.state(), state);
    let info = follower.rpc("getblockchaininfo", &[]);
    assert_eq!((info["blocks"].as_u64(), info["headers"].as_u64()), (Some(1010), Some(1010)));

    follower.signal("TERM");
    miner.stop();
    let miner = Node::start(BINARY, dirs[0].path(), &[&engine]);
    let follower = Node::start(BINARY, dirs[1].path(), &[&engine, "-connect=0"]);
    assert_eq!(miner.state(), state);
    assert_eq!(follower.state(), state);

    // They find each other again, and go on.
    let _ = follower.rpc("addnode", &[&format!("127.0.0.1:{}", miner.p2p_port), "onetry"]);
    wait_for("a connection", || (follower.rpc("getconnectioncount", &[]) == 1).then_some(()));
    let _ = miner.rpc("generatetoaddress", &["1", ADDRESS]);
    wait_for("one block more", || (follower.height() == 1011).then_some(()));
    miner.stop();
    follower.signal("INT");
}

#[test]
fn second_node_syncs_and_follows_on_lsm() {
    check("lsm");
}

#[test]
fn second_node_syncs_and_follows_on_rocksdb() {
    check("rocksdb");
}

#[test]
fn second_node_syncs_and_follows_on_sled() {
    check("sled");
}
