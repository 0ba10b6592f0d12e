//! Transactions that wait for a block: made, signed, sent, mined and taken back over RPC, as
//! regtest suites do.

use cofferdam_tests::process::{Node, wait_for};
use serde_json::{Value, json};

use super::BINARY;

/// A key of Bitcoin Core's functional tests, its address, and another address.
const KEY: &str = "cVpF924EspNh8KjYsfhgY96mmxvT6DgdWiTYMtMjuM74hJaU5psW";
const ADDRESS: &str = "mjTkW3DjgyZck4KbiRusZsqTgaYTxdSz6z";
const OTHER: &str = "mnonCMyH9TmAsSj3M59DsbH8H63U3RKoFP";

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

/// A node with coins that can be spent.
fn funded(dir: &std::path::Path, args: &[&str]) -> Node {
    let node = Node::start(BINARY, dir, args);
    let mined = node.rpc("generatetoaddress", &["110", ADDRESS]);
    assert_eq!(mined.as_array().map(Vec::len), Some(110));
    node
}

/// The coinbase of a height.
fn coinbase(node: &Node, height: u32) -> String {
    let hash = node.rpc("getblockhash", &[&height.to_string()]);
    text(&node.rpc("getblock", &[text(&hash)])["tx"][0]).to_owned()
}

/// Spends an output of [`ADDRESS`] whole into another of it and one of [`OTHER`].
fn signed(node: &Node, txid: &str, amounts: [&str; 2]) -> String {
    let inputs = json!([{"txid": txid, "vout": 0}]).to_string();
    let outputs = format!("[{{\"{ADDRESS}\": {}}}, {{\"{OTHER}\": {}}}]", amounts[0], amounts[1]);
    let raw = node.rpc("createrawtransaction", &[&inputs, &outputs]);
    let keys = json!([KEY]).to_string();
    let signed = node.rpc("signrawtransactionwithkey", &[text(&raw), &keys]);
    assert_eq!(signed["complete"], true, "{signed}");
    text(&signed["hex"]).to_owned()
}

fn send(node: &Node, hex: &str) -> String {
    text(&node.rpc("sendrawtransaction", &[hex])).to_owned()
}

fn waiting(node: &Node) -> Vec<String> {
    let txids = node.rpc("getrawmempool", &[]);
    txids.as_array().expect("an array").iter().map(|txid| text(txid).to_owned()).collect()
}

#[track_caller]
fn refused(node: &Node, method: &str, args: &[&str], words: &str) {
    let error = node.try_rpc(method, args).expect_err("refused");
    assert!(error.contains(words), "{error}");
}

#[test]
fn a_transaction_is_sent_looked_at_mined_and_taken_back() {
    let dir = tempfile::tempdir().expect("temporary");
    let node = funded(dir.path(), &[]);
    let first = signed(&node, &coinbase(&node, 1), ["30", "19.9999"]);
    let tested = node.rpc("testmempoolaccept", &[&json!([first]).to_string()]);
    assert_eq!(tested[0]["allowed"], true, "{tested}");
    assert_eq!(tested[0]["fees"]["base"].to_string(), "0.00010000");
    assert_eq!(waiting(&node), Vec::<String>::new());

    // The count of what came and went begins at one.
    assert_eq!(node.rpc("getrawmempool", &["false", "true"])["mempool_sequence"], 1);
    let parent = send(&node, &first);
    // What is there already is no error, as in Core.
    assert_eq!(send(&node, &first), parent);
    let child = send(&node, &signed(&node, &parent, ["10", "19.999"]));
    assert_eq!(waiting(&node), [parent.clone(), child.clone()]);
    let entry = node.rpc("getmempoolentry", &[&child]);
    assert_eq!((&entry["ancestorcount"], &entry["depends"]), (&json!(2), &json!([parent])));
    assert_eq!(entry["fees"]["ancestor"].to_string(), "0.00110000");
    // The child pays for its parent, so they go together.
    let cluster = node.rpc("getmempoolcluster", &[&child]);
    let chunk = &cluster["chunks"][0];
    assert_eq!(cluster["txcount"], 2);
    assert_eq!(chunk["txs"], json!([parent, child]));
    assert_eq!(chunk["chunkfee"].to_string(), "0.00110000");
    assert_eq!(chunk["chunkweight"], entry["chunkweight"]);
    assert_eq!(cluster["clusterweight"], entry["chunkweight"]);
    let diagram = node.rpc("getmempoolfeeratediagram", &[]);
    assert_eq!(diagram[0].to_string(), r#"{"weight":0,"fee":0.00000000}"#);
    assert_eq!(diagram[1]["weight"], entry["chunkweight"]);
    assert_eq!((diagram[1]["fee"].to_string(), &diagram[2]), ("0.00110000".into(), &Value::Null));
    assert_eq!(node.rpc("getmempoolinfo", &[])["size"], 2);
    assert_eq!(node.rpc("getmempooldescendants", &[&parent]), json!([child]));
    assert_eq!(node.rpc("gettxout", &[&parent, "0"]), Value::Null, "spent in the queue");
    assert_eq!(node.rpc("gettxout", &[&child, "0"])["confirmations"], 0);
    let outputs = json!([{"txid": parent, "vout": 0}]).to_string();
    assert_eq!(node.rpc("gettxspendingprevout", &[&outputs])[0]["spendingtxid"], child);

    let watched = json!([format!("addr({OTHER})")]).to_string();
    let activity = node.rpc("getdescriptoractivity", &["[]", &watched]);
    let received = activity["activity"].as_array().expect("an array");
    assert_eq!(received.len(), 2, "{activity}");
    assert_eq!((&received[1]["txid"], &received[1]["height"]), (&json!(child), &Value::Null));
    let none = node.rpc("getdescriptoractivity", &["[]", &watched, "false"]);
    assert_eq!(none["activity"], json!([]));

    let template = node.rpc("getblocktemplate", &[r#"{"rules": ["segwit"]}"#]);
    assert_eq!(template["transactions"][1]["depends"], json!([1]));
    assert_eq!(template["coinbasevalue"], 5_000_110_000_u64);

    let block = node.rpc("generatetoaddress", &["1", OTHER])[0].clone();
    assert_eq!(waiting(&node), Vec::<String>::new());
    let mined = node.rpc("getblock", &[text(&block), "2"]);
    assert_eq!((&mined["tx"][1]["txid"], &mined["tx"][2]["txid"]), (&json!(parent), &json!(child)));
    assert_eq!(mined["tx"][0]["vout"][0]["value"].to_string(), "50.00110000");
    let shown = node.rpc("getrawtransaction", &[&parent, "1", text(&block)]);
    assert_eq!((&shown["in_active_chain"], &shown["confirmations"]), (&json!(true), &json!(1)));
    refused(&node, "sendrawtransaction", &[&first], "Transaction outputs already in utxo set");
    refused(&node, "getrawtransaction", &[&parent], "No such mempool transaction");

    let _ = node.rpc("invalidateblock", &[text(&block)]);
    assert_eq!(waiting(&node), [parent, child]);
    let _ = node.rpc("reconsiderblock", &[text(&block)]);
    assert_eq!(waiting(&node), Vec::<String>::new());
    node.stop();
}

#[test]
fn what_is_refused_is_refused_in_core_s_words() {
    let dir = tempfile::tempdir().expect("temporary");
    let node = funded(dir.path(), &[]);
    let spent = coinbase(&node, 2);
    let dear = signed(&node, &spent, ["30", "19"]);
    refused(&node, "sendrawtransaction", &[&dear], "Fee exceeds maximum configured by user");
    let tested = node.rpc("testmempoolaccept", &[&json!([dear]).to_string()]);
    assert_eq!(tested[0]["reject-reason"], "max-fee-exceeded");
    refused(&node, "sendrawtransaction", &[&dear, "1"], "larger than or equal to 1BTC/kvB");
    assert_eq!(node.rpc("sendrawtransaction", &[&dear, "0"]), tested[0]["txid"]);
    let rival = signed_again(&node, &spent);
    refused(&node, "sendrawtransaction", &[&rival], "txn-mempool-conflict");
    refused(&node, "sendrawtransaction", &["00"], "TX decode failed");

    let unknown = json!([{"txid": "11".repeat(32), "vout": 0}]).to_string();
    let raw = node.rpc("createrawtransaction", &[&unknown, &json!({OTHER: 1}).to_string()]);
    refused(&node, "sendrawtransaction", &[text(&raw)], "bad-txns-inputs-missingorspent");
    let tested = node.rpc("testmempoolaccept", &[&json!([raw]).to_string()]);
    assert_eq!(tested[0]["reject-reason"], "missing-inputs");
    let inputs = json!([{"txid": coinbase(&node, 3), "vout": 0}]).to_string();
    let burn = node.rpc("createrawtransaction", &[&inputs, r#"{"data": "aaaaaaaaaaaaaaaaaaaa"}"#]);
    let unsigned = node.rpc("testmempoolaccept", &[&json!([burn]).to_string(), "0"]);
    let reason = text(&unsigned[0]["reject-reason"]);
    assert!(reason.starts_with("mempool-script-verify-flag-failed ("), "{reason}");
    let late = json!([{"txid": coinbase(&node, 105), "vout": 0}]).to_string();
    let raw = node.rpc("createrawtransaction", &[&late, &json!({OTHER: 1}).to_string()]);
    let tested = node.rpc("testmempoolaccept", &[&json!([raw]).to_string(), "0"]);
    assert_eq!(tested[0]["reject-reason"], "bad-txns-premature-spend-of-coinbase");
    node.stop();
}

#[test]
fn transactions_that_are_asked_about_together_are_judged_together() {
    let dir = tempfile::tempdir().expect("temporary");
    let node = funded(dir.path(), &[]);
    let ask = |txs: &[&str]| node.rpc("testmempoolaccept", &[&json!(txs).to_string()]);
    let good = signed(&node, &coinbase(&node, 1), ["30", "19.9999"]);
    let another = signed(&node, &coinbase(&node, 3), ["30", "19.9999"]);
    let unsigned = |txid: &str| {
        let inputs = json!([{"txid": txid, "vout": 0}]).to_string();
        text(&node.rpc("createrawtransaction", &[&inputs, &json!({OTHER: 49.99}).to_string()]))
            .to_owned()
    };
    let (lost, bad) = (unsigned(&"11".repeat(32)), unsigned(&coinbase(&node, 2)));
    // Of all that precedes scripts the first fault is told alone, and before that of any script.
    for first in [&good, &bad] {
        let tested = ask(&[first, &lost, &another]);
        assert_eq!(tested[1]["reject-reason"], "missing-inputs", "{tested}");
        for other in [0, 2] {
            let fields = tested[other].as_object().map(serde_json::Map::len);
            assert_eq!(fields, Some(2), "{tested}");
        }
    }
    let tested = ask(&[&good, &bad]);
    assert_eq!((&tested[0]["allowed"], &tested[1]["allowed"]), (&json!(true), &json!(false)));
    let txid = text(&tested[0]["txid"]);
    let rate = |tested: &Value| tested["fees"]["effective-feerate"].to_string();
    let (before, vsize) = (rate(&tested[0]), tested[0]["vsize"].as_u64().expect("a size"));
    assert_eq!(before, format!("0.{:08}", 10_000_000 / vsize));
    // A fee that is pretended counts as if it were paid.
    assert_eq!(node.rpc("prioritisetransaction", &[txid, "0", "-10001"]), true);
    let tested = ask(&[&good]);
    assert_eq!(tested[0]["fees"]["base"].to_string(), "0.00010000");
    assert_eq!(rate(&tested[0]), "-0.00000005");
    assert_eq!(node.rpc("prioritisetransaction", &[txid, "0", "100000001"]), true);
    let dear = node.rpc("submitpackage", &[&json!([good]).to_string()]);
    let result = &dear["tx-results"][text(&tested[0]["wtxid"])];
    assert_eq!(
        (&result["error"], &dear["package_msg"]),
        (&json!("max feerate exceeded"), &json!("transaction failed"))
    );
    assert_eq!(node.rpc("prioritisetransaction", &[txid, "0", "-90000000"]), true);
    let taken = node.rpc("submitpackage", &[&json!([good]).to_string(), "0"]);
    let result = &taken["tx-results"][text(&tested[0]["wtxid"])];
    assert_eq!(rate(result), format!("0.{:08}", 10_000_000_000 / vsize), "{taken}");
    node.stop();
}

fn signed_again(node: &Node, txid: &str) -> String {
    // The queue spends the coin: the signer has to be told of it.
    let inputs = json!([{"txid": txid, "vout": 0}]).to_string();
    let raw = node.rpc("createrawtransaction", &[&inputs, &json!({OTHER: 49.99}).to_string()]);
    let script = node.rpc("decodescript", &["51"]);
    assert_eq!(script["type"], "nonstandard");
    text(&raw).to_owned()
}

#[test]
fn generateblock_takes_what_it_is_given_and_nothing_else() {
    let dir = tempfile::tempdir().expect("temporary");
    let node = funded(dir.path(), &[]);
    let queued = send(&node, &signed(&node, &coinbase(&node, 1), ["30", "19.9999"]));
    let raw = signed(&node, &coinbase(&node, 2), ["30", "19.9999"]);
    let made = node.rpc("generateblock", &[ADDRESS, &json!([raw]).to_string(), "false"]);
    let before = node.height();
    assert_eq!(node.rpc("submitblock", &[text(&made["hex"])]), Value::Null);
    let block = node.rpc("getblock", &[text(&made["hash"]), "2"]);
    assert_eq!((node.height(), block["tx"].as_array().map(Vec::len)), (before + 1, Some(2)));
    assert_eq!(block["tx"][0]["vout"][0]["value"].to_string(), "50.00000000", "without fees");
    assert_eq!(waiting(&node), std::slice::from_ref(&queued));
    let made =
        node.rpc("generateblock", &[&format!("addr({OTHER})"), &json!([queued]).to_string()]);
    assert_eq!(node.rpc("getbestblockhash", &[]), made["hash"]);
    assert_eq!(waiting(&node), Vec::<String>::new());
    let twice = json!([raw]).to_string();
    refused(&node, "generateblock", &[ADDRESS, &twice], "TestBlockValidity failed: bad-txns-");
    refused(&node, "generateblock", &[ADDRESS, &json!([queued]).to_string()], "not in mempool.");
    refused(&node, "generateblock", &["1234", "[]"], "Invalid address or descriptor");
    refused(&node, "generate", &[], "has been replaced by the -generate cli option");
    node.stop();
}

#[test]
fn what_waits_and_what_is_pretended_outlives_a_restart() {
    let dir = tempfile::tempdir().expect("temporary");
    let node = funded(dir.path(), &[]);
    let hex = signed(&node, &coinbase(&node, 1), ["30", "19.9999"]);
    let txid = send(&node, &hex);
    assert_eq!(node.rpc("prioritisetransaction", &[&txid, "0", "-777"]), true);
    node.stop();
    let node = Node::start(BINARY, dir.path(), &[]);
    wait_for("the queue", || (node.rpc("getmempoolinfo", &[])["loaded"] == true).then_some(()));
    assert_eq!(waiting(&node), std::slice::from_ref(&txid));
    let deltas = node.rpc("getprioritisedtransactions", &[]);
    assert_eq!(deltas[&txid]["modified_fee"], 10_000 - 777, "{deltas}");
    node.stop();
    let node = Node::start(BINARY, dir.path(), &["-persistmempool=0"]);
    assert_eq!(waiting(&node), Vec::<String>::new());
    let file = dir.path().join("regtest/mempool.dat");
    let _ = node.rpc("generatetoaddress", &["1", ADDRESS]);
    assert_eq!(node.rpc("importmempool", &[file.to_str().expect("UTF-8")]), json!({}));
    // Which has no end.
    refused(&node, "importmempool", &["/dev/zero"], "Unable to import mempool file");
    assert_eq!(waiting(&node), [txid]);
    node.stop();
}

#[test]
fn fees_that_are_pretended_without_bound_are_told() {
    let dir = tempfile::tempdir().expect("temporary");
    let node = funded(dir.path(), &[]);
    let parent = send(&node, &signed(&node, &coinbase(&node, 1), ["30", "19.9999"]));
    let child = send(&node, &signed(&node, &parent, ["10", "19.9999"]));
    for delta in ["9000000000000000000", "-9000000000000000000"] {
        for txid in [&parent, &child] {
            assert_eq!(node.rpc("prioritisetransaction", &[txid, "0", delta]), true);
        }
        let entry = node.rpc("getmempoolentry", &[&child]);
        assert_eq!(entry["ancestorcount"], 2, "{entry}");
        let entries = node.rpc("getrawmempool", &["true"]);
        assert_eq!(entries[&parent]["descendantcount"], 2, "{entries}");
        assert_eq!(node.rpc("getmempoolcluster", &[&child])["txcount"], 2);
        let _ = node.rpc("getmempoolfeeratediagram", &[]);
    }
    node.stop();
}

#[test]
fn a_proposal_is_judged_and_not_stored() {
    let dir = tempfile::tempdir().expect("temporary");
    let node = funded(dir.path(), &["-blockversion=1337"]);
    let made = node.rpc("generateblock", &[ADDRESS, "[]", "false"]);
    let propose = |hex: &str| {
        let request = json!({"mode": "proposal", "data": hex, "rules": ["segwit"]}).to_string();
        node.rpc("getblocktemplate", &[&request])
    };
    let hex = text(&made["hex"]);
    assert!(hex.starts_with("39050000"), "version 1337");
    assert_eq!(propose(hex), Value::Null);
    assert_eq!(node.height(), 110);
    // Another time than the header's work was for, and another root.
    let wrong_root = format!("{}{}{}", &hex[..72], "00".repeat(32), &hex[136..]);
    assert_eq!(propose(&wrong_root), "bad-txnmrklroot");
    let orphan = format!("{}{}{}", &hex[..8], "11".repeat(32), &hex[72..]);
    assert_eq!(propose(&orphan), "inconclusive-not-best-prevblk");
    // Said before anything else, though bits and work are wrong too.
    let lone = format!("{}{}", &orphan[..144], "ffff001d00000000");
    refused(&node, "submitheader", &[&lone], "Must submit previous header");
    assert_eq!(node.rpc("submitblock", &[hex]), Value::Null);
    assert_eq!(propose(hex), "duplicate");
    refused(&node, "getblocktemplate", &["{}"], "must be called with the segwit rule set");
    let info = node.rpc("getmininginfo", &[]);
    assert_eq!((&info["next"]["height"], &info["pooledtx"]), (&json!(112), &json!(0)));
    assert_eq!(info["blockmintxfee"].to_string(), "0.00000001");
    node.stop();
}

#[test]
fn an_input_that_satisfies_its_script_is_signed_no_more() {
    let dir = tempfile::tempdir().expect("temporary");
    let node = Node::start(BINARY, dir.path(), &[]);
    // The witness program of OP_TRUE: no key makes such a witness.
    let program = "00204ae81572f06e1b88fd5ced7a1a000945432e83e1551e6f721ee9c00b8cc33260";
    let _ = node.rpc("generatetodescriptor", &["101", &format!("raw({program})")]);
    let inputs = json!([{"txid": coinbase(&node, 1), "vout": 0}]).to_string();
    let raw = node.rpc("createrawtransaction", &[&inputs, &json!({OTHER: 49.9999}).to_string()]);
    let raw = text(&raw);
    let (version, rest) = raw.split_at(8);
    let (body, lock_time) = rest.split_at(rest.len() - 8);
    let hex = format!("{version}0001{body}010151{lock_time}");
    let signed = node.rpc("signrawtransactionwithkey", &[&hex, "[]"]);
    assert_eq!(signed, json!({"hex": hex, "complete": true}));
    for variants in [json!([raw, hex]), json!([hex, raw])] {
        let combined = node.rpc("combinerawtransaction", &[&variants.to_string()]);
        assert_eq!(text(&combined), hex);
    }
    send(&node, &hex);
    node.stop();
}

/// A transaction of one output that spends two others, of which it tells the scripts.
fn spending_two(node: &Node, scripts: [&str; 2]) -> (String, Value) {
    let txids = [1, 2].map(|number| format!("{number:064x}"));
    let inputs: Value = txids.iter().map(|txid| json!({"txid": txid, "vout": 0})).collect();
    let outputs = json!({OTHER: 1}).to_string();
    let raw = node.rpc("createrawtransaction", &[&inputs.to_string(), &outputs]);
    let told = txids.iter().zip(scripts);
    let told = told.map(|(txid, script)| json!({"txid": txid, "vout": 0, "scriptPubKey": script}));
    (text(&raw).to_owned(), told.collect())
}

/// The script that an address stands for, and the witness program of the same key.
fn scripts_of(node: &Node, address: &str) -> [String; 2] {
    let script = text(&node.rpc("validateaddress", &[address])["scriptPubKey"]).to_owned();
    let program = format!("0014{}", &script[6..46]);
    [script, program]
}

#[test]
fn an_input_without_its_single_output_is_not_signed() {
    let dir = tempfile::tempdir().expect("temporary");
    let node = Node::start(BINARY, dir.path(), &[]);
    let [legacy, _] = scripts_of(&node, ADDRESS);
    let (raw, told) = spending_two(&node, [&legacy, &legacy]);
    let (keys, told) = (json!([KEY]).to_string(), told.to_string());
    for kind in ["SINGLE", "SINGLE|ANYONECANPAY"] {
        let signed = node.rpc("signrawtransactionwithkey", &[&raw, &keys, &told, kind]);
        assert_eq!(signed["complete"], false, "{signed}");
        let errors = signed["errors"].as_array().expect("an array");
        let [error] = errors.as_slice() else { panic!("{signed}") };
        assert_eq!(
            (&error["txid"], &error["scriptSig"]),
            (&json!(format!("{:064x}", 2)), &json!(""))
        );
        let words = "Unable to sign input, invalid stack size (possibly missing key)";
        assert_eq!(error["error"], words);
    }
    let all = node.rpc("signrawtransactionwithkey", &[&raw, &keys, &told, "ALL"]);
    assert_eq!(all["complete"], true, "{all}");
    node.stop();
}

#[test]
fn the_amount_of_a_witness_program_is_needed_by_who_signs_for_it() {
    let dir = tempfile::tempdir().expect("temporary");
    let node = Node::start(BINARY, dir.path(), &[]);
    let ([legacy, ours], [_, other]) = (scripts_of(&node, ADDRESS), scripts_of(&node, OTHER));
    let keys = json!([KEY]).to_string();
    let (raw, told) = spending_two(&node, [&legacy, &other]);
    let signed = node.rpc("signrawtransactionwithkey", &[&raw, &keys, &told.to_string()]);
    let errors = signed["errors"].as_array().expect("an array");
    let [error] = errors.as_slice() else { panic!("{signed}") };
    assert_eq!(error["txid"], format!("{:064x}", 2));
    assert_eq!(error["error"], "Witness program was passed an empty witness");
    let (raw, told) = spending_two(&node, [&legacy, &ours]);
    let args = [raw.as_str(), &keys, &told.to_string()];
    refused(&node, "signrawtransactionwithkey", &args, "Missing amount for CTxOut(");
    node.stop();
}
