//! Commands that are run when something happens, and `-daemon`.

use std::fs;
use std::path::Path;

use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::{Amount, Block};
use cofferdam_tests::process::{Node, free_port, run, said, wait_for};
use serde_json::{Value, json};

use crate::{BINARY, mine, start, temporary, text};

/// What is said of a chain that is not valid and much longer.
const INVALID_CHAIN: &str = "Warning: Found invalid chain more than 6 blocks longer than our best chain. This could be due to database corruption or consensus incompatibility with peers.";

/// Returns the names in a directory, in order.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a directory");
    let name = |entry: fs::DirEntry| entry.file_name().into_string().expect("UTF-8");
    let mut names: Vec<String> = entries.map(|entry| name(entry.expect("readable"))).collect();
    names.sort();
    names
}

#[test]
fn start_blocks_and_stop_run_commands() {
    let (dir, told) = (temporary(), temporary());
    let path = |name: &str| told.path().join(name);
    fs::create_dir(path("blocks")).expect("room");
    let args = [
        format!("-startupnotify=echo started >> {}", path("start").display()),
        format!("-blocknotify=echo > {}/%s", path("blocks").display()),
        format!("-shutdownnotify=echo stopped >> {}", path("stop").display()),
    ];
    let node = start(dir.path(), &args.each_ref().map(String::as_str));
    wait_for("the command of the start", || (text(&path("start")) == "started\n").then_some(()));
    // The first one ends initial block download.
    let _ = mine(&node, 1);
    wait_for("its command", || (names(&path("blocks")).len() == 1).then_some(()));
    let mut blocks = mine(&node, 10);
    wait_for("a command for each block", || (names(&path("blocks")).len() == 11).then_some(()));
    blocks.sort();
    let told = names(&path("blocks"));
    assert!(blocks.iter().all(|block| told.contains(block)), "{told:?}");
    assert_eq!(text(&path("stop")), "");
    node.stop();
    assert_eq!(text(&path("stop")), "stopped\n", "the stop waits for its command");
}

/// Finds a nonce for the header.
pub(crate) fn solve(block: &mut Block) {
    while block.header.validate_pow(block.header.target()).is_err() {
        block.header.nonce += 1;
    }
}

/// Blocks of another chain of which the first pays itself too much.
fn invalid_chain(miner: &Node, from: u64, count: u64) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for height in from..from + count {
        let hash = miner.rpc("getblockhash", &[&height.to_string()]);
        let hex = miner.rpc("getblock", &[hash.as_str().expect("a hash"), "0"]);
        let mut block: Block = deserialize_hex(hex.as_str().expect("hex")).expect("a block");
        match blocks.last() {
            Some(parent) => block.header.prev_blockhash = parent.block_hash(),
            None => {
                block.txdata[0].output[0].value = Amount::from_sat(5_000_000_001);
                block.header.merkle_root = block.compute_merkle_root().expect("a coinbase");
            }
        }
        solve(&mut block);
        blocks.push(block);
    }
    blocks
}

fn network_warnings(node: &Node) -> Value {
    node.rpc("getnetworkinfo", &[])["warnings"].clone()
}

#[test]
fn an_invalid_chain_that_is_much_longer_raises_an_alert() {
    let (dirs, told) = ([temporary(), temporary()], temporary());
    let alerts = told.path().join("alerts");
    let miner = start(dirs[0].path(), &[]);
    let option = format!("-alertnotify=echo %s >> {}", alerts.display());
    let node = start(dirs[1].path(), &[&option]);
    let _ = mine(&miner, 11);
    for height in 1..=3 {
        let hash = miner.rpc("getblockhash", &[&height.to_string()]);
        let hex = miner.rpc("getblock", &[hash.as_str().expect("a hash"), "0"]);
        let _ = node.rpc("submitblock", &[hex.as_str().expect("hex")]);
    }
    assert_eq!(node.height(), 3);
    let blocks = invalid_chain(&miner, 4, 8);
    for block in &blocks {
        let _ = node.rpc("submitheader", &[&serialize_hex(&block.header)]);
    }
    assert_eq!(network_warnings(&node), json!([]));
    for block in blocks.iter().rev() {
        let _ = node.rpc("submitblock", &[&serialize_hex(block)]);
    }
    wait_for("an alert", || (text(&alerts) == format!("{INVALID_CHAIN}\n")).then_some(()));
    assert_eq!(network_warnings(&node), json!([INVALID_CHAIN]));
    // After a restart again with the first block, until the node's own chain is as long.
    node.stop();
    let node = start(dirs[1].path(), &[]);
    assert_eq!(network_warnings(&node), json!([]));
    let _ = mine(&node, 1);
    assert_eq!(network_warnings(&node), json!([INVALID_CHAIN]));
    let _ = mine(&node, 1);
    assert_eq!(network_warnings(&node), json!([]));
    node.stop();
    miner.stop();
}

#[test]
fn blocks_that_a_user_invalidates_count_as_an_invalid_chain_until_he_reconsiders() {
    let dir = temporary();
    let node = start(dir.path(), &[]);
    let blocks = mine(&node, 10);
    let _ = node.rpc("invalidateblock", &[&blocks[9]]);
    assert_eq!(network_warnings(&node), json!([]), "one block longer");
    let _ = node.rpc("invalidateblock", &[&blocks[2]]);
    assert_eq!(network_warnings(&node), json!([INVALID_CHAIN]), "eight blocks longer");
    let _ = node.rpc("reconsiderblock", &[&blocks[2]]);
    assert_eq!(node.height(), 10);
    assert_eq!(network_warnings(&node), json!([]));
    node.stop();
}

#[test]
fn rules_that_miners_signal_for_and_that_are_unknown_raise_an_alert_for_good() {
    const WARNING: &str = "Unknown new rules activated (versionbit 4)";
    let (dir, told) = (temporary(), temporary());
    let alerts = told.path().join("alerts");
    let option = format!("-alertnotify=echo %s >> {}", alerts.display());
    let log = || text(&dir.path().join("regtest/debug.log"));
    let warnings = |node: &Node, method: &str| node.rpc(method, &[])["warnings"].clone();
    let node = start(dir.path(), &[&option, "-blockversion=536870928"]);
    // The first period counts for nothing, the second one locks the rule in.
    let _ = mine(&node, 143 + 143);
    assert!(!log().contains(WARNING));
    let _ = mine(&node, 1);
    assert!(log().contains(&format!("height=287 warning='{WARNING}'")));
    let _ = mine(&node, 143);
    assert_eq!(warnings(&node, "getnetworkinfo"), json!([]));
    let _ = mine(&node, 1);
    for method in ["getnetworkinfo", "getmininginfo", "getblockchaininfo"] {
        assert_eq!(warnings(&node, method), json!([WARNING]), "{method}");
    }
    wait_for("an alert", || (text(&alerts) == format!("{WARNING}\n")).then_some(()));
    // One alert a run, and after a restart again with the first block.
    let _ = mine(&node, 1);
    node.stop();
    assert_eq!(text(&alerts), format!("{WARNING}\n"));
    let node = start(dir.path(), &[]);
    assert_eq!(warnings(&node, "getnetworkinfo"), json!([]));
    let _ = mine(&node, 1);
    assert_eq!(warnings(&node, "getnetworkinfo"), json!([WARNING]));
    node.stop();
}

#[test]
fn a_daemon_is_ready_when_the_command_returns_or_says_that_it_is_not() {
    let dir = temporary();
    let rpc = format!("-rpcport={}", free_port());
    let args = ["-regtest", "-backend=sled", "-listen=0", &rpc];
    let with = |more: &[&str]| run(BINARY, dir.path(), &[&args[..], more].concat());
    let output = with(&["-daemonwait"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(output.stdout, b"Cofferdam starting\n");
    // It leads a session of its own, which no terminal belongs to: fields 6 and 7 of proc(5)'s stat.
    let pid = text(&dir.path().join("regtest/bitcoind.pid")).trim().to_owned();
    let stat = text(Path::new(&format!("/proc/{pid}/stat")));
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
    assert_eq!(fields[4..6], [pid.as_str(), "0"], "{stat}");
    for option in ["-daemon", "-daemonwait"] {
        let second = with(&[option]);
        assert_eq!(second.status.code(), Some(1), "the directory is locked: {}", said(&second));
        assert!(second.stdout.is_empty(), "nothing was started: {}", said(&second));
        let text = String::from_utf8_lossy(&second.stderr);
        assert!(text.starts_with("Error: Cannot obtain a lock on directory"), "{text}");
    }
    assert!(with(&["rpc", "getblockcount"]).status.success());
    assert!(with(&["rpc", "stop"]).status.success());
    let pid = dir.path().join("regtest/bitcoind.pid");
    wait_for("the end of the daemon", || (!pid.exists()).then_some(()));
    // Its locks are the last that it gives back.
    let failed = wait_for("the locks", || {
        let output = with(&["-daemonwait", "-pid=no/such"]);
        (!said(&output).contains("Cannot obtain a lock")).then_some(output)
    });
    assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
    assert!(said(&failed).contains("Error during initialization - check debug.log for details"));
    let output = with(&["-daemonwait", "-nopid"]);
    assert!(output.status.success() && !pid.exists(), "{}", said(&output));
    assert!(with(&["rpc", "stop"]).status.success());
    let cookie = dir.path().join("regtest/.cookie");
    wait_for("the end of the daemon", || (!cookie.exists()).then_some(()));
}
