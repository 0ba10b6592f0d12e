//! Asked on the first 4,522 blocks of the main chain; the expected values are facts of that chain
//! (block 170 has the first payment: 10 of 50 BTC, no fee) and of Bitcoin Core's interface.

use cofferdam_tests::data;
use cofferdam_tests::process::{Node, run, said, wait_for};
use serde_json::{Value, json};

use super::BINARY;

const BLOCK_170: &str = "00000000d1145790a8694403d4063f323d499e655c83426834d4ce2f8dd4a2ee";
const BLOCK_UNKNOWN: &str = "00000000000000000000000000000000000000000000000000000000000000ab";
const PAYMENT: &str = "f4184fc596403b9d638783cf57adfe4c75c605f6356fbc91338530e9831e9e16";
const SPENT_COINBASE: &str = "0437cd7f8525ceed2324359c2d0ba26006d92d856a9c20fa0241106ee5a597c9";

fn check_blocks(node: &Node) {
    assert_eq!(node.rpc("getblockhash", &["170"]), json!(BLOCK_170));
    let header = node.rpc("getblockheader", &[BLOCK_170]);
    assert_eq!(header["height"], 170);
    assert_eq!(header["confirmations"], 4521 - 170 + 1);
    assert_eq!(header["time"], 1_231_731_025);
    assert_eq!(header["bits"], "1d00ffff");
    assert_eq!(header["difficulty"].to_string(), "1");
    assert_eq!(header["chainwork"], data::states("mainnet/chain-0-4521.blkdat")[2].chain_work);
    assert_eq!(header["nTx"], 2);
    let raw = node.rpc("getblockheader", &[BLOCK_170, "false"]);
    assert_eq!(raw.as_str().map(str::len), Some(160));

    let block = node.rpc("getblock", &[BLOCK_170]);
    assert_eq!((&block["size"], &block["weight"]), (&json!(490), &json!(1960)));
    assert_eq!(block["tx"][1], PAYMENT);
    let payment = &node.rpc("getblock", &[BLOCK_170, "2"])["tx"][1];
    assert_eq!(payment["vin"][0]["txid"], SPENT_COINBASE);
    assert_eq!(payment["vout"][0]["value"].to_string(), "10.00000000");
    assert_eq!(payment["vout"][1]["value"].to_string(), "40.00000000");
    assert_eq!(payment["vout"][0]["scriptPubKey"]["type"], "pubkey");
    assert_eq!(payment["fee"].to_string(), "0.00000000");
    assert_eq!(payment["vin"][0]["prevout"], Value::Null);
    let payment = &node.rpc("getblock", &[BLOCK_170, "3"])["tx"][1];
    let spent = &payment["vin"][0]["prevout"];
    assert_eq!((&spent["generated"], &spent["height"]), (&json!(true), &json!(9)));
    assert_eq!(spent["value"].to_string(), "50.00000000");
    let hex = node.rpc("getblock", &[BLOCK_170, "0"]);
    assert_eq!(hex.as_str().map(str::len), Some(2 * 490));
}

fn check_coins(node: &Node) {
    // The 10 BTC to Hal Finney are unspent to this day; the coinbase is gone.
    let coin = node.rpc("gettxout", &[PAYMENT, "0"]);
    assert_eq!(coin["value"].to_string(), "10.00000000");
    assert_eq!((&coin["coinbase"], &coin["confirmations"]), (&json!(false), &json!(4352)));
    assert_eq!(node.rpc("gettxout", &[SPENT_COINBASE, "0"]), Value::Null);

    let info = node.rpc("gettxoutsetinfo", &[]);
    let expected = data::states("mainnet/chain-0-4521.blkdat").pop().expect("a tip");
    assert_eq!(info["height"], 4521);
    assert_eq!(info["bestblock"], expected.block_hash);
    assert_eq!(info["txouts"], expected.utxo_count);
    assert_eq!(info["bogosize"], expected.bogosize);
    assert_eq!(info["hash_serialized_3"], expected.hash_serialized_3);
    assert_eq!(info["total_amount"].to_string(), "226050.00000000");
}

fn check_the_rest(node: &Node) {
    let info = node.rpc("getblockchaininfo", &[]);
    assert_eq!((&info["chain"], &info["blocks"]), (&json!("main"), &json!(4521)));
    assert_eq!(info["initialblockdownload"], true);
    assert_eq!(info["pruned"], false);
    assert_eq!(node.rpc("getbestblockhash", &[]), info["bestblockhash"]);
    assert_eq!(node.rpc("getconnectioncount", &[]), 0);
    assert_eq!(node.rpc("getpeerinfo", &[]), json!([]));
    assert!(node.rpc("uptime", &[]).as_u64().is_some());
    assert!(node.rpc("help", &[]).to_string().contains("gettxoutsetinfo"));
    let refused = |method: &str, args: &[&str], message: &str| {
        let error = node.try_rpc(method, args).expect_err("refused");
        assert!(error.contains(message), "{method}: {error}");
    };
    refused("getblockhash", &["4522"], "Block height out of range");
    refused("getblock", &[&"00".repeat(32)], "Block not found");
    refused("nosuchmethod", &[], "Method not found");
    refused("submitblock", &["00"], "Block decode failed");
    refused("gettxout", &["xyz", "0"], "must be of length 64");
    // A block that is there, and one that changes a byte of it.
    let hex = node.rpc("getblock", &[BLOCK_170, "0"]);
    let hex = hex.as_str().expect("hex");
    assert_eq!(node.rpc("submitblock", &[hex]), "duplicate");
    let last = hex.len() - 9;
    let flipped = format!(
        "{}{}{}",
        &hex[..last],
        if &hex[last..=last] == "0" { 1 } else { 0 },
        &hex[last + 1..]
    );
    assert_eq!(node.rpc("submitblock", &[&flipped]), "bad-txnmrklroot");
    // As in Core, what follows a block is not looked at.
    assert_eq!(node.rpc("submitblock", &[&format!("{hex}00")]), "duplicate");
}

#[test]
fn answers_are_those_of_bitcoind() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = data::path("mainnet/chain-0-4521.blkdat");
    let imported =
        run(BINARY, dir.path(), &["-backend=rocksdb", "import", file.to_str().expect("UTF-8")]);
    assert!(imported.status.success(), "{}", said(&imported));
    let node = Node::start_on("main", BINARY, dir.path(), &["-backend=rocksdb"]);
    check_blocks(&node);
    check_coins(&node);
    check_the_rest(&node);
    node.stop();
    check_kept_statistics(dir.path());
}

/// With `-coinstatsindex` the set's hash is known at every height, also for the blocks that were
/// connected without it.
fn check_kept_statistics(dir: &std::path::Path) {
    let options = ["-backend=rocksdb", "-coinstatsindex"];
    let node = Node::start_on("main", BINARY, dir, &options);
    wait_for("the statistics", || {
        node.try_rpc("gettxoutsetinfo", &["muhash", "4521"]).ok().map(|_| ())
    });
    for state in data::states("mainnet/chain-0-4521.blkdat") {
        let hash = state.block_hash.as_str();
        for block in [hash, &state.height.to_string()] {
            let info = node.rpc("gettxoutsetinfo", &["muhash", block]);
            assert_eq!((&info["height"], &info["bestblock"]), (&json!(state.height), &json!(hash)));
            assert_eq!(
                (&info["muhash"], &info["txouts"]),
                (&json!(state.muhash), &json!(state.utxo_count))
            );
            assert_eq!(info["bogosize"], state.bogosize);
            let amount = info["total_amount"].to_string().replace('.', "");
            assert_eq!(amount.parse(), Ok(state.total_amount));
        }
    }
    // Asked not to use what is kept: a scan.
    let scanned = node.rpc("gettxoutsetinfo", &["muhash", "null", "false"]);
    assert!(scanned["transactions"].as_u64().is_some());
    assert_eq!(scanned["muhash"], node.rpc("gettxoutsetinfo", &["muhash"])["muhash"]);
    for (args, message) in [
        (["hash_serialized_3", "170"], "cannot be queried for a specific block"),
        (["muhash", "4522"], "after current tip"),
        (["muhash", BLOCK_UNKNOWN], "Block not found"),
    ] {
        let error = node.try_rpc("gettxoutsetinfo", &args).expect_err("refused");
        assert!(error.contains(message), "{error}");
    }
    node.stop();
}
