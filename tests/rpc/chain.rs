//! What is said of a mined chain, its blocks, its coins and its indexes, on regtest.

use std::io::Read as _;
use std::path::Path;

use bitcoin::Block;
use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use cofferdam_tests::process::{Node, said, wait_for};
use serde_json::{Value, json};

use super::BINARY;

/// The genesis block's time, at which `bitcoind` mines the same chain.
const GENESIS_TIME: &str = "1296688602";
/// What the test framework of Bitcoin Core mines to first, and the master key of its test of scans.
const ADDRESS: &str = "mjTkW3DjgyZck4KbiRusZsqTgaYTxdSz6z";
const MASTER: &str = "tprv8ZgxMBicQKsPd7Uf69XL1XwhmjHopUGep8GuEiJDZmbQz6o58LninorQAfcKZWARbtRtfnLcJ5MQ2AtHcQJCCRUcMRvmDUjyEmNUWwx8UbK";

fn mined(dir: &Path, blocks: u32, args: &[&str]) -> Node {
    let node = Node::start(BINARY, dir, args);
    let _ = node.rpc("setmocktime", &[GENESIS_TIME]);
    let _ = node.rpc("generatetoaddress", &[&blocks.to_string(), ADDRESS]);
    node
}

fn refused(node: &Node, method: &str, args: &[&str], message: &str) {
    let error = node.try_rpc(method, args).expect_err("refused");
    assert!(error.contains(message), "{method} {args:?}: {error}");
}

fn text_of(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

#[test]
fn a_dumped_set_is_core_s_file_also_of_a_block_below_the_tip() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = mined(dir.path(), 100, &[]);
    let latest = node.rpc("dumptxoutset", &["latest.dat", "latest"]);
    assert_eq!((&latest["coins_written"], &latest["base_height"]), (&json!(100), &json!(100)));
    assert_eq!(latest["nchaintx"], 101);
    assert_eq!(latest["base_hash"], node.rpc("getbestblockhash", &[]));
    let set = node.rpc("gettxoutsetinfo", &[]);
    assert_eq!(latest["txoutset_hash"], set["hash_serialized_3"]);
    let file = std::fs::read(text(&latest["path"])).expect("readable");
    // Magic, version, network, block, number of coins; then a transaction with one coin, output 0.
    assert_eq!(file[..11], *b"utxo\xff\x02\x00\xfa\xbf\xb5\xda");
    assert_eq!(file[43..51], 100_u64.to_le_bytes());
    assert_eq!((file[83], file[84]), (1, 0));
    // Coinbases of one script: code of height and coinbase, amount, and the hash of the key.
    assert_eq!(file.len(), 51 + 100 * (32 + 2 + 1 + 1 + 21) + 37);

    let _ = node.rpc("generatetoaddress", &["20", ADDRESS]);
    let options = json!({"rollback": 100}).to_string();
    let back = node.rpc("dumptxoutset", &["back.dat", "rollback", &options]);
    assert_eq!(back["txoutset_hash"], latest["txoutset_hash"]);
    let again = std::fs::read(text(&back["path"])).expect("readable");
    assert!(again == file, "other bytes");

    refused(&node, "dumptxoutset", &["back.dat", "latest"], "back.dat already exists. If you are");
    let elsewhere = "nowhere/path";
    refused(&node, "dumptxoutset", &[elsewhere, "latest"], "nowhere/path.incomplete for writing.");
    let bogus =
        "Invalid snapshot type \"bogus\" specified. Please specify \"rollback\" or \"latest\"";
    refused(&node, "dumptxoutset", &["x.dat", "bogus"], bogus);
    node.stop();
}

#[test]
fn a_set_that_is_dumped_into_a_pipe_is_that_of_a_file() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = mined(dir.path(), 120, &[]);
    let options = json!({"rollback": 100}).to_string();
    let pipe = dir.path().join("pipe");
    for (number, options) in ["{}", &options].into_iter().enumerate() {
        let kind = if number == 0 { "latest" } else { "rollback" };
        let file = node.rpc("dumptxoutset", &[&format!("{number}.dat"), kind, options]);
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
        assert!(made.success());
        let (dumped, read) = std::thread::scope(|scope| {
            let reading = scope.spawn(|| std::fs::read(&pipe).expect("readable"));
            let dumped = node.try_rpc("dumptxoutset", &[text_of(&pipe), kind, options]);
            if dumped.is_err() {
                // Nobody else opens it, and the reader waits for that.
                let _ = std::fs::OpenOptions::new().write(true).open(&pipe);
            }
            (dumped, reading.join().expect("read"))
        });
        let dumped = dumped.expect("written into the pipe");
        assert!(read == std::fs::read(text(&file["path"])).expect("readable"), "other bytes");
        assert_eq!(dumped["path"], text_of(&pipe));
        for field in ["coins_written", "base_hash", "txoutset_hash", "nchaintx"] {
            assert_eq!(dumped[field], file[field], "{field}");
        }
        // It is there for the next one, and nothing else.
        assert!(!dir.path().join("pipe.incomplete").exists());
        std::fs::remove_file(&pipe).expect("still there");
    }
    node.stop();
}

#[test]
fn who_does_not_read_a_dumped_set_does_not_keep_the_node() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    // sled's iterations are of no single moment: the chain waits. More coins than a pipe takes.
    let node = mined(dir.path(), 1500, &["-backend=sled"]);
    let pipe = dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
    assert!(made.success());
    std::thread::scope(|scope| {
        // For both directions: that does not wait for the other side.
        let mut reader =
            std::fs::OpenOptions::new().read(true).write(true).open(&pipe).expect("open");
        let dumping = scope.spawn(|| node.try_rpc("dumptxoutset", &[text_of(&pipe), "latest"]));
        reader.read_exact(&mut [0]).expect("the first byte");
        node.try_rpc("stop", &[]).expect("stopped");
        assert!(dumping.join().expect("called").is_err());
    });
    let ended = node.wait_for_end();
    assert!(ended.status.success(), "{}", said(&ended));
}

#[test]
fn scans_find_the_coins_of_descriptors() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = mined(dir.path(), 3, &[]);
    // Children 1/1/0 and 1/1/1500 of the master key.
    for address in ["mtfUoUax9L4tzXARpw1oTGxWyoogp52KhJ", "mpQ8rokAhp1TAtJQR6F6TaUmjAWkAWYYBq"] {
        let _ = node.rpc("generatetoaddress", &["1", address]);
    }
    let scan = |objects: Value| node.rpc("scantxoutset", &["start", &objects.to_string()]);
    let all = scan(json!([]));
    let set = node.rpc("gettxoutsetinfo", &[]);
    assert_eq!((&all["txouts"], &all["bestblock"]), (&set["txouts"], &set["bestblock"]));
    assert_eq!((&all["success"], &all["unspents"]), (&json!(true), &json!([])));
    let own = scan(json!([format!("addr({ADDRESS})")]));
    assert_eq!(own["unspents"].as_array().map(Vec::len), Some(3));
    assert_eq!(own["total_amount"].to_string(), "150.00000000");
    let first = own["unspents"]
        .as_array()
        .and_then(|all| all.iter().find(|coin| coin["height"] == 1).cloned());
    let first = first.expect("the first block's");
    assert_eq!((&first["confirmations"], &first["coinbase"]), (&json!(5), &json!(true)));
    assert_eq!(first["blockhash"], node.rpc("getblockhash", &["1"]));
    let ranged = |range: u32| {
        let object = json!([{"desc": format!("combo({MASTER}/1/1/*)"), "range": range}]);
        scan(object)["unspents"].as_array().map(Vec::len)
    };
    assert_eq!((ranged(1499), ranged(1500)), (Some(1), Some(2)));
    let named = scan(json!([format!("combo({MASTER}/1/1/0)")]));
    let expected = "pkh([0c5f9a1e/1/1/0]03e1c5b6e650966971d7e71ef2674f80222752740fc1dfd63bbbd220d2da9bd0fb)#cxmct4w8";
    assert_eq!(named["unspents"][0]["desc"], expected);
    assert_eq!(node.rpc("scantxoutset", &["status"]), Value::Null);
    assert_eq!(node.rpc("scantxoutset", &["abort"]), json!(false));
    refused(&node, "scantxoutset", &["start"], "scanobjects argument is required for the start");
    refused(&node, "scantxoutset", &["start", r#"[{"desc":"x","range":-1}]"#], "End of range is");
    node.stop();
}

#[test]
fn statistics_and_proofs_are_those_of_the_blocks() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = mined(dir.path(), 30, &[]);
    let block = node.rpc("getblock", &[text(&node.rpc("getblockhash", &["7"]))]);
    let stats = node.rpc("getblockstats", &["7"]);
    assert_eq!(stats.as_object().map(serde_json::Map::len), Some(31));
    assert_eq!((&stats["txs"], &stats["ins"], &stats["outs"]), (&json!(1), &json!(0), &json!(2)));
    assert_eq!(stats["subsidy"], 5_000_000_000_u64);
    assert_eq!((&stats["utxo_increase"], &stats["utxo_increase_actual"]), (&json!(2), &json!(1)));
    let chosen = node.rpc("getblockstats", &[text(&block["hash"]), r#"["txs"]"#]);
    assert_eq!(chosen, json!({"txs": 1}));
    refused(&node, "getblockstats", &["-1"], "Target block height -1 is negative");
    refused(&node, "getblockstats", &["31"], "Target block height 31 after current tip 30");
    refused(&node, "getblockstats", &["1", r#"["x"]"#], "Invalid selected statistic 'x'");

    let txid = text(&block["tx"][0]);
    let proof = node.rpc("gettxoutproof", &[&json!([txid]).to_string()]);
    assert_eq!(node.rpc("verifytxoutproof", &[text(&proof)]), json!([txid]));
    refused(&node, "gettxoutproof", &["[]"], "Parameter 'txids' cannot be empty");

    let window = node.rpc("getchaintxstats", &["10"]);
    assert_eq!((&window["txcount"], &window["window_tx_count"]), (&json!(31), &json!(10)));
    refused(&node, "getchaintxstats", &["30"], "Invalid block count: should be between 0 and");
    for level in ["0", "1", "2", "3", "4"] {
        assert_eq!(node.rpc("verifychain", &[level, "0"]), json!(true));
    }
    let states = node.rpc("getchainstates", &[]);
    assert_eq!((&states["headers"], &states["chainstates"][0]["blocks"]), (&json!(30), &json!(30)));
    // A byte of a block file that is not as it was is found by the lowest level.
    let blocks = dir.path().join("regtest").join("blocks").join("blk00000.dat");
    let mut bytes = std::fs::read(&blocks).expect("readable");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&blocks, &bytes).expect("writable");
    assert_eq!(node.rpc("verifychain", &["0", "1"]), json!(false));
    refused(&node, "getblockstats", &["30"], "Block not found on disk");
    bytes[last] ^= 1;
    std::fs::write(&blocks, &bytes).expect("writable");
    // So is a file that was taken away, block or undo data.
    let hash = node.rpc("getbestblockhash", &[]);
    for (name, message) in [
        ("blk00000.dat", "Block not found on disk"),
        ("rev00000.dat", "Undo data expected but can't be read."),
    ] {
        let (file, away) = (blocks.with_file_name(name), blocks.with_file_name("away"));
        std::fs::rename(&file, &away).expect("movable");
        refused(&node, "getblock", &[text(&hash), "2"], message);
        std::fs::rename(&away, &file).expect("movable");
        let _ = node.rpc("getblock", &[text(&hash), "2"]);
    }
    node.stop();
}

fn all_synced(node: &Node, height: u64) -> Option<()> {
    let info = node.rpc("getindexinfo", &[]);
    let done = |index: &Value| index["synced"] == true && index["best_block_height"] == height;
    let all = info.as_object().is_some_and(|all| all.len() == 3 && all.values().all(done));
    all.then_some(())
}

/// Indexes begin late, follow a reorganisation, and survive `kill -9`; filters of blocks that were
/// disconnected stay.
#[test]
fn indexes_catch_up_reorganise_and_survive_a_kill() {
    const OPTIONS: [&str; 3] = ["-txindex", "-blockfilterindex", "-coinstatsindex"];
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = mined(dir.path(), 20, &[]);
    refused(&node, "getblockfilter", &[text(&node.rpc("getbestblockhash", &[]))], "Index is not");
    node.stop();

    let node = Node::start(BINARY, dir.path(), &OPTIONS);
    wait_for("the indexes", || all_synced(&node, 20));
    let stale = node.rpc("getbestblockhash", &[]);
    let stale = text(&stale);
    let filter = node.rpc("getblockfilter", &[stale, "basic"]);
    let muhash = node.rpc("gettxoutsetinfo", &["muhash", "19"])["muhash"].clone();
    let at_stale = node.rpc("gettxoutsetinfo", &["muhash", stale]);
    let _ = node.rpc("invalidateblock", &[stale]);
    let _ = node.rpc("generatetoaddress", &["5", ADDRESS]);
    wait_for("the indexes after a reorganisation", || all_synced(&node, 24));
    assert_eq!(node.rpc("getblockfilter", &[stale]), filter);
    assert_eq!(node.rpc("gettxoutsetinfo", &["muhash", "19"])["muhash"], muhash);
    // What is known of a disconnected block stays known.
    assert_eq!(node.rpc("gettxoutsetinfo", &["muhash", stale]), at_stale);
    let info = node.rpc("gettxoutsetinfo", &["none", "0"]);
    assert_eq!(info["block_info"]["unspendables"]["genesis_block"].to_string(), "50.00000000");
    let found =
        node.rpc("scanblocks", &["start", &json!([format!("addr({ADDRESS})")]).to_string()]);
    assert_eq!(found["relevant_blocks"].as_array().map(Vec::len), Some(24));
    let headers: Vec<Value> = (0..=24).map(|height| header(&node, height)).collect();
    drop(node);

    // As a kill left them.
    let node = Node::start(BINARY, dir.path(), &OPTIONS);
    wait_for("the indexes after a kill", || all_synced(&node, 24));
    let again: Vec<Value> = (0..=24).map(|height| header(&node, height)).collect();
    assert_eq!(again, headers);
    node.stop();
}

#[test]
fn statistics_of_a_block_that_is_not_there_are_not_waited_for() {
    let dir = tempfile::tempdir().expect("temporary");
    let node = mined(dir.path(), 5, &["-coinstatsindex"]);
    let next = node.rpc("generateblock", &[ADDRESS, "[]", "false"]);
    assert_eq!(node.rpc("submitheader", &[&text(&next["hex"])[..160]]), Value::Null);
    let hash = text(&next["hash"]);
    refused(&node, "gettxoutsetinfo", &["muhash", hash], "Unable to read UTXO set");
    node.stop();
}

fn header(node: &Node, height: u32) -> Value {
    let hash = node.rpc("getblockhash", &[&height.to_string()]);
    node.rpc("getblockfilter", &[text(&hash)])["header"].clone()
}

#[test]
fn a_header_tells_how_many_transactions_its_block_has_as_soon_as_the_block_is_there() {
    let dir = tempfile::tempdir().expect("temporary");
    let node = mined(dir.path(), 5, &[]);
    let rival = node.rpc("generateblock", &[ADDRESS, "[]", "false"]);
    let _ = node.rpc("setmocktime", &["1296690000"]);
    let _ = node.rpc("generatetoaddress", &["1", ADDRESS]);
    let (hash, hex) = (text(&rival["hash"]), text(&rival["hex"]));
    assert_eq!(node.rpc("submitheader", &[&hex[..160]]), Value::Null);
    let transactions = || node.rpc("getblockheader", &[hash])["nTx"].clone();
    assert_eq!([transactions(), transactions()], [0, 0]);
    assert_eq!(node.rpc("submitblock", &[hex]), "inconclusive");
    assert_eq!(transactions(), 1);
    node.stop();
}

#[test]
fn a_submitted_block_may_leave_out_the_reserved_value_of_its_coinbase() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = mined(dir.path(), 1, &[]);
    let made = node.rpc("generateblock", &[ADDRESS, "[]", "false"]);
    let mut block: Block = deserialize_hex(text(&made["hex"])).expect("a block");
    block.txdata[0].input[0].witness.clear();
    let stripped = serialize_hex(&block);
    assert!(stripped.len() < text(&made["hex"]).len());
    // As Core does for miners that do not send it.
    assert_eq!(node.rpc("submitblock", &[&stripped]), Value::Null);
    let stored = node.rpc("getblock", &[text(&made["hash"]), "0"]);
    assert_eq!(stored, made["hex"]);
    node.stop();
}
