//! Does a node store nothing of a chain with too little work, and all of one that has enough?

use cofferdam_tests::process::{Node, wait_for};

const BINARY: &str = env!("CARGO_BIN_EXE_cofferdam-under-test");
const ADDRESS: &str = "mjTkW3DjgyZck4KbiRusZsqTgaYTxdSz6z";
/// The work of 2,700 blocks of regtest and the genesis block.
const MINIMUM_WORK: &str = "-minimumchainwork=0x151a";

#[test]
fn cve_2019_25220_a_node_follows_a_chain_once_it_has_the_minimum_work() {
    let dirs = [tempfile::tempdir(), tempfile::tempdir()].map(|dir| dir.expect("temporary"));
    let miner = Node::start(BINARY, dirs[0].path(), &["-backend=rocksdb"]);
    // More than a message of 2,000, so that the peer has to be asked for more.
    let _ = miner.rpc("generatetoaddress", &["2600", ADDRESS]);
    let connect = format!("-connect=127.0.0.1:{}", miner.p2p_port);
    let options = ["-backend=rocksdb", &connect, MINIMUM_WORK, "-debug=net"];
    let follower = Node::start(BINARY, dirs[1].path(), &options);
    let log = dirs[1].path().join("regtest").join("debug.log");
    let told = |text: &str| std::fs::read_to_string(&log).expect("a log").contains(text);
    wait_for("a look at the chain", || {
        told("Pre-synchronizing blockheaders, height: 2000").then_some(())
    });
    let presynced = || follower.rpc("getpeerinfo", &[])[0]["presynced_headers"].as_i64();
    wait_for("the end of the chain", || (presynced() == Some(-1)).then_some(()));
    let info = follower.rpc("getblockchaininfo", &[]);
    assert_eq!((info["headers"].as_u64(), info["blocks"].as_u64()), (Some(0), Some(0)));

    // With the 2,700th block the chain is worth its download.
    let _ = miner.rpc("generatetoaddress", &["100", ADDRESS]);
    wait_for("2,700 blocks", || (follower.height() == 2700).then_some(()));
    assert_eq!(follower.state(), miner.state());
    follower.stop();
    miner.stop();
}
