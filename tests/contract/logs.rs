//! `debug.log`.

use std::fs;
use std::process::Command;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::transaction::Version;
use bitcoin::{Amount, Block, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use cofferdam_tests::process::{Node, wait_for};
use serde_json::Value;

use crate::notifications::solve;
use crate::{BINARY, mine, refusal, start, temporary, text};

#[test]
fn the_log_is_where_the_options_say() {
    let dir = temporary();
    let chain = dir.path().join("regtest");
    let (relative, absolute) = (chain.join("sub/foo.log"), dir.path().join("bar.log"));
    let refused = refusal(dir.path(), &["-debuglogfile=sub/foo.log"]);
    assert_eq!(refused, format!("Error: Could not open debug log file {}", relative.display()));
    fs::create_dir(chain.join("sub")).expect("room");
    start(dir.path(), &["-debuglogfile=sub/foo.log"]).stop();
    assert!(text(&relative).contains("Shutdown done"));
    start(dir.path(), &[&format!("-debuglogfile={}", absolute.display())]).stop();
    assert!(text(&absolute).contains("Shutdown done"));
    start(dir.path(), &["-nodebuglogfile"]).stop();
    assert!(!chain.join("debug.log").exists());
    start(dir.path(), &["-debuglogfile=/dev/null"]).stop();
}

#[test]
fn lines_have_the_prefixes_that_were_asked_for() {
    let dir = temporary();
    let log = dir.path().join("regtest/debug.log");
    let args = ["-debug", "-debugexclude=net", "-logtimestamps=0", "-logthreadnames"];
    start(dir.path(), &args).stop();
    let lines = text(&log);
    assert!(lines.contains("[main] init message: Done loading\n"), "{lines}");
    assert!(lines.contains("[rpc] ThreadRPCServer method=stop user=__cookie__ id="), "{lines}");
    assert!(!lines.contains("[net"), "{lines}");

    fs::remove_file(&log).expect("there");
    start(dir.path(), &["-logtimemicros", "-logsourcelocations", "-loglevelalways"]).stop();
    let lines = text(&log);
    let line = lines.lines().find(|line| line.contains("Done loading")).expect("a line");
    let (time, rest) = line.split_once(' ').expect("a time");
    assert_eq!((time.len(), &time[10..11], &time[19..20]), (27, "T", "."), "{line}");
    assert!(rest.starts_with("[node/src/rpc/warm_up.rs:"), "{line}");
    assert!(
        rest.ends_with("] [cofferdam_node::rpc::warm_up] [all:info] init message: Done loading")
    );
}

#[test]
fn a_line_is_written_before_the_reply_that_follows_it() {
    let dir = temporary();
    let node = start(dir.path(), &["-debug=rpc"]);
    let log = dir.path().join("regtest/debug.log");
    for _ in 0..10 {
        let before = text(&log).matches("method=getbestblockhash").count();
        let _ = node.rpc("getbestblockhash", &[]);
        assert_eq!(text(&log).matches("method=getbestblockhash").count(), before + 1);
    }
    node.stop();
}

#[test]
fn calls_are_logged_with_addresses_where_the_user_wants_them() {
    let dir = temporary();
    let log = dir.path().join("regtest/debug.log");
    for (option, between) in [("-logips", " peeraddr=127.0.0.1:"), ("-logips=0", " id=")] {
        let node = start(dir.path(), &["-debug=rpc", option]);
        let before = text(&log).len();
        for method in ["getblockcount", "getpeerinfo"] {
            let _ = node.rpc(method, &[]);
            let call = format!("ThreadRPCServer method={method} user=__cookie__{between}");
            assert!(text(&log)[before..].contains(&call), "{option}: {}", text(&log));
        }
        node.stop();
    }
}

#[test]
fn what_is_wrong_with_a_submitted_block_or_header_is_told_as_by_core() {
    let dir = temporary();
    let node = start(dir.path(), &["-debug=validation"]);
    let log = || text(&dir.path().join("regtest/debug.log"));
    let genesis = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
    let parent = genesis.block_hash();
    let mut block = genesis;
    block.header.prev_blockhash = parent;
    // Its coinbase is not of that height, and its header is as old as its parent.
    solve(&mut block);
    let (hash, hex) = (block.block_hash(), serialize_hex(&block));
    let header = serialize_hex(&block.header);
    let error = node.try_rpc("submitheader", &[&header]).expect_err("too old");
    assert!(error.contains("time-too-old"), "{error}");
    let fault = format!("{hash}, time-too-old, block's timestamp is too early");
    let check = "AcceptBlockHeader: Consensus::ContextualCheckBlockHeader:";
    assert!(log().contains(&format!("{check} {fault}")), "{}", log());
    assert_eq!(node.rpc("submitblock", &[&hex]), "time-too-old");
    let fault = "time-too-old, block's timestamp is too early";
    assert!(log().contains(&format!("ProcessNewBlock: AcceptBlock FAILED ({fault})")));
    block.header.time += 1;
    block.header.version = bitcoin::block::Version::from_consensus(0x2000_0000);
    solve(&mut block);
    assert_eq!(node.rpc("submitblock", &[&serialize_hex(&block)]), "bad-cb-height");
    let fault = "bad-cb-height, block height mismatch in coinbase";
    let lines = [
        format!("[error] AcceptBlock: {fault}\n"),
        format!("[error] ProcessNewBlock: AcceptBlock FAILED ({fault})\n"),
    ];
    let at = lines.map(|line| log().find(&line).unwrap_or_else(|| panic!("{line}{}", log())));
    assert!(at[0] < at[1], "{}", log());
    node.stop();
}

#[test]
fn a_block_with_a_bad_script_is_told_as_by_core() {
    let dir = temporary();
    let node = start(dir.path(), &[]);
    let first = mine(&node, 101).swap_remove(0);
    let hex = node.rpc("getblock", &[&first, "0"]);
    let first: Block = deserialize_hex(hex.as_str().expect("hex")).expect("a block");
    let next = node.rpc("generateblock", &["raw(51)", "[]", "false"]);
    let mut block: Block = deserialize_hex(next["hex"].as_str().expect("hex")).expect("a block");
    // Without witnesses there need not be a commitment to them.
    block.txdata[0].output.truncate(1);
    block.txdata[0].input[0].witness.clear();
    let coin = OutPoint::new(first.txdata[0].compute_txid(), 0);
    block.txdata.push(Transaction {
        version: Version::ONE,
        lock_time: LockTime::ZERO,
        // The script of the coin is true whatever comes before, unless that is no push.
        input: vec![TxIn {
            previous_output: coin,
            script_sig: ScriptBuf::from_bytes(vec![0x6a]),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new() }],
    });
    block.header.merkle_root = block.compute_merkle_root().expect("there are transactions");
    solve(&mut block);
    let fault = "block-script-verify-flag-failed";
    let said = node.rpc("submitblock", &[&serialize_hex(&block)]);
    assert!(said.as_str().expect("a reason").starts_with(fault), "{said}");
    let log = text(&dir.path().join("regtest/debug.log"));
    assert!(log.contains(&format!("Block validation error: {fault}")), "{log}");
    assert_eq!(node.height(), 101);
    node.stop();
}

#[test]
fn categories_are_changed_while_the_node_runs() {
    let dir = temporary();
    // What stands before the 0 counts for nothing, not even as an error.
    let node = start(dir.path(), &["-debug=http", "-debug=abc", "-debug=0", "-debug=net"]);
    let of = |status: &Value| ["net", "rpc", "http"].map(|name| status[name] == true);
    let status = node.rpc("logging", &[]);
    assert_eq!(of(&status), [true, false, false]);
    assert!(status.get("abc").is_none() && status.get("validation").is_some());
    let status = node.rpc("logging", &["[\"rpc\",\"http\"]", "[\"net\",\"http\"]"]);
    assert_eq!(of(&status), [false, true, false]);
    assert_eq!(of(&node.rpc("logging", &[])), [false, true, false]);
    let error = node.try_rpc("logging", &["[\"abc\"]"]).expect_err("refused");
    assert!(error.contains("unknown logging category abc") && error.contains("-8"), "{error}");
    assert!(text(&dir.path().join("regtest/debug.log")).contains("[rpc] "));
    node.stop();
}

#[test]
fn a_log_that_was_moved_away_is_begun_again_on_sighup() {
    let dir = temporary();
    let (log, old) = (dir.path().join("regtest/debug.log"), dir.path().join("old.log"));
    let node = start(dir.path(), &[]);
    fs::rename(&log, &old).expect("there");
    let status = Command::new("kill").args(["-HUP", &node.pid().to_string()]).status();
    assert!(status.expect("kill").success());
    wait_for("a new log", || log.exists().then_some(()));
    node.stop();
    assert!(text(&old).contains("Done loading") && text(&log).contains("Shutdown done"));
}

/// Drivers of a private signet find its magic bytes there.
#[test]
fn a_signet_says_its_magic_bytes() {
    let dir = temporary();
    let options = ["-signetchallenge=51", "-connect=0", "-dnsseed=0"];
    Node::start_on("signet", BINARY, dir.path(), &options).stop();
    let log = text(&dir.path().join("signet/debug.log"));
    assert!(log.contains("Signet derived magic (message start): 54d26fbd"), "{log}");
}
