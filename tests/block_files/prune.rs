//! `-prune` and `pruneblockchain`.

use cofferdam_tests::process::Node;
use serde_json::{Value, json};

use super::{ADDRESS, log, mine, numbers, start};

fn hash_at(node: &Node, height: u32) -> String {
    let hash = node.rpc("getblockhash", &[&height.to_string()]);
    hash.as_str().expect("a hash").to_owned()
}

fn refusal(node: &Node, height: &str) -> String {
    node.try_rpc("pruneblockchain", &[height]).expect_err("refused").trim().to_owned()
}

#[test]
fn whole_files_go_when_asked_for_and_only_far_below_the_tip() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = start(dir.path(), &["-fastprune", "-prune=1"]);
    mine(&node, 50);
    assert!(refusal(&node, "10").contains("Blockchain is too short for pruning."));
    mine(&node, 750);
    assert!(refusal(&node, "-10").contains("Negative block height."));
    assert!(
        refusal(&node, "801").contains("Blockchain is shorter than the attempted prune height.")
    );
    let late = "Could not find block with at least the specified timestamp.";
    assert!(refusal(&node, "2000000000").contains(late));
    let info = node.rpc("getblockchaininfo", &[]);
    assert_eq!((&info["pruned"], &info["pruneheight"]), (&json!(true), &json!(0)));
    assert_eq!(info["automatic_pruning"], json!(false));
    let services = node.rpc("getnetworkinfo", &[])["localservicesnames"].clone();
    assert_eq!(services, json!(["WITNESS", "NETWORK_LIMITED", "P2P_V2"]));

    // A file with a block from far ahead would stay for long.
    let next = node.rpc("generateblock", &[ADDRESS, "[]", "false"]);
    let next = ["hash", "hex"].map(|name| next[name].as_str().expect("hex"));
    let _ = node.rpc("submitheader", &[&next[1][..160]]);
    let error = node.try_rpc("getblockfrompeer", &[next[0], "0"]).expect_err("refused");
    assert!(error.contains("In prune mode, only blocks that the node has already synced previously can be fetched from a peer"), "{error}");

    let (first, header) = (hash_at(&node, 1), node.rpc("getblockheader", &[&hash_at(&node, 1)]));
    let pruned = node.rpc("pruneblockchain", &["800"]).as_u64().expect("a height");
    assert!((200..=512).contains(&pruned), "288 blocks are kept: {pruned}");
    assert_eq!(node.rpc("getblockchaininfo", &[])["pruneheight"], json!(pruned + 1));
    assert_eq!(numbers(dir.path(), "blk"), numbers(dir.path(), "rev"), "whole pairs");
    assert!(!numbers(dir.path(), "blk").contains(&0));
    let error = node.try_rpc("getblock", &[&first]).expect_err("pruned");
    assert!(error.contains("Block not available (pruned data)"), "{error}");
    let error = node.try_rpc("getblockfrompeer", &[&first, "0"]).expect_err("nobody is there");
    assert!(error.contains("Peer does not exist"), "{error}");
    assert_eq!(node.rpc("getblockheader", &[&first])["nTx"], header["nTx"]);
    assert_eq!(node.rpc("verifychain", &["0", "0"]), json!(false));
    let line = format!("Block verification stopping at height {pruned} (no data)");
    assert!(log(dir.path()).contains(&line), "{line}");
    let above = u32::try_from(pruned).expect("small") + 1;
    assert_eq!(node.rpc("getblock", &[&hash_at(&node, above)])["height"], json!(above));
    let state = node.state();
    node.stop();

    // A file that a crash left behind goes, and the chain goes on.
    let left = dir.path().join("regtest/blocks/blk00000.dat");
    std::fs::write(&left, b"left over").expect("room");
    let node = start(dir.path(), &["-fastprune", "-prune=1"]);
    assert!(!left.exists());
    assert_eq!(node.state(), state);
    mine(&node, 10);
    node.stop();
}

#[test]
fn an_index_that_has_read_the_blocks_holds_no_file_back() {
    let pruned = |args: &[&str]| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let usual = ["-fastprune", "-prune=1", "-debug=prune"];
        let node = start(dir.path(), &[&usual, args].concat());
        mine(&node, 700);
        cofferdam_tests::process::wait_for("the index", || {
            let info = node.rpc("getindexinfo", &[]);
            let all = info.as_object().expect("an object");
            all.values().all(|index| index["best_block_height"] == 700).then_some(())
        });
        // At once: the rows may not be durable yet.
        let pruned = node.rpc("pruneblockchain", &["700"]);
        if args.is_empty() {
            node.stop();
            return pruned;
        }
        let line = "basic block filter index limited pruning to height 689\n";
        assert!(log(dir.path()).contains(line), "{line}");
        // Blocks that it may have to take back are kept as well.
        let _ = node.rpc("invalidateblock", &[&hash_at(&node, 690)]);
        let line = "basic block filter index prune lock moved back to 689\n";
        cofferdam_tests::process::wait_for(line, || log(dir.path()).contains(line).then_some(()));
        node.stop();
        pruned
    };
    assert_eq!(pruned(&["-blockfilterindex"]), pruned(&[]));
}

/// What a power cut leaves that takes the chain's last block and not the index's.
#[test]
fn an_index_that_has_a_block_more_than_a_pruned_chain_goes_back() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = ["-fastprune", "-prune=1", "-blockfilterindex"];
    let has = |node: &Node, height: u32| {
        cofferdam_tests::process::wait_for("the index", || {
            let info = node.rpc("getindexinfo", &[]);
            let info = &info["basic block filter index"];
            (info["synced"] == true && info["best_block_height"] == height).then_some(())
        });
    };
    let node = start(dir.path(), &options);
    mine(&node, 700);
    has(&node, 700);
    assert_ne!(node.rpc("pruneblockchain", &["400"]), Value::from(-1));
    node.stop();
    let copy = |from: &str, to: &str| {
        let (from, to) = (dir.path().join(from), dir.path().join(to));
        let status = std::process::Command::new("cp").arg("-r").args([from, to]).status();
        assert!(status.expect("cp").success());
    };
    copy("regtest", "before");
    let node = start(dir.path(), &options);
    mine(&node, 1);
    has(&node, 701);
    node.stop();
    for name in ["chainstate", "blocks"] {
        std::fs::remove_dir_all(dir.path().join("regtest").join(name)).expect("there");
        copy(&format!("before/{name}"), &format!("regtest/{name}"));
    }
    let node = start(dir.path(), &options);
    has(&node, 700);
    // Another block than the one that is lost.
    let _ = node.rpc("generatetodescriptor", &["1", "raw(51)"]);
    has(&node, 701);
    let _ = node.rpc("getblockfilter", &[&hash_at(&node, 701)]);
    node.stop();
}

/// As with `bitcoind`: the call ends where blocks are gone, and the node lives on.
#[test]
fn invalidating_a_pruned_block_goes_as_far_as_blocks_are_there() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = start(dir.path(), &["-fastprune", "-prune=1"]);
    mine(&node, 800);
    let (old, tip) = (hash_at(&node, 100), hash_at(&node, 800));
    let pruned = node.rpc("pruneblockchain", &["400"]);
    assert_eq!(node.rpc("invalidateblock", &[&old]), Value::Null);
    assert!(log(dir.path()).contains("DisconnectTip(): Failed to read block"));
    assert_eq!(node.rpc("getblockcount", &[]), pruned);
    node.stop();
    let node = start(dir.path(), &["-fastprune", "-prune=1"]);
    assert_eq!(node.rpc("getblockcount", &[]), pruned);
    assert_eq!(node.rpc("reconsiderblock", &[&tip]), Value::Null);
    assert_eq!(node.rpc("getblockcount", &[]), json!(800));
    node.stop();
}

#[test]
fn a_pruned_chain_is_not_opened_as_a_whole_one() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = start(dir.path(), &["-fastprune", "-prune=1"]);
    mine(&node, 700);
    assert_ne!(node.rpc("pruneblockchain", &["400"]), Value::from(-1));
    node.stop();
    let output = cofferdam_tests::process::run(
        super::BINARY,
        dir.path(),
        &["-regtest", "-connect=0", "-fastprune"],
    );
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(text.starts_with("You need to rebuild the database using -reindex"), "{text}");
    // Nor is it indexed as if it were one.
    for (option, name) in
        [("-blockfilterindex", "basic block filter index"), ("-coinstatsindex", "coinstatsindex")]
    {
        let args = ["-regtest", "-connect=0", "-fastprune", "-prune=1", option];
        let output = cofferdam_tests::process::run(super::BINARY, dir.path(), &args);
        let text = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(
            text.trim(),
            format!(
                "Error: {name} best block of the index goes beyond pruned data (including undo data). Please disable the index or reindex (which will download the whole blockchain again)\nError: A fatal internal error occurred, see debug.log for details: Failed to start indexes, shutting down…"
            )
        );
        assert_eq!(output.status.code(), Some(1));
    }
    // Built anew it begins with what is there: nothing, as the first file is gone.
    let node = start(dir.path(), &["-fastprune", "-prune=1", "-reindex"]);
    assert_eq!(node.height(), 0);
    node.stop();
    assert_eq!((numbers(dir.path(), "blk"), numbers(dir.path(), "rev")), (vec![0], vec![0]));
}

#[test]
fn a_node_that_does_not_prune_refuses_to() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = start(dir.path(), &[]);
    assert!(refusal(&node, "1").contains("Cannot prune blocks because node is not in prune mode."));
    assert_eq!(node.rpc("getblockchaininfo", &[])["pruned"], json!(false));
    node.stop();
}
