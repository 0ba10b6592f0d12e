//! Does `getdeploymentinfo` say of every rule change what `bitcoind` says?
#![expect(clippy::indexing_slicing, reason = "a test fails by a panic")]

use cofferdam_tests::process::{Node, run, said};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_cofferdam-under-test");
const MINER: &str = "raw(51)";

fn mine(node: &Node, count: u32) {
    let _ = node.rpc("generatetodescriptor", &[&count.to_string(), MINER]);
}

fn deployment(node: &Node, name: &str) -> Value {
    node.rpc("getdeploymentinfo", &[])["deployments"][name].clone()
}

/// As in Core's `rpc_blockchain.py`, which mines 200 blocks.
fn check_at_200(node: &Node) {
    let info = node.rpc("getdeploymentinfo", &[]);
    assert_eq!(info["hash"], node.rpc("getbestblockhash", &[]));
    assert_eq!(info["height"], 200);
    let flags = [
        "CHECKLOCKTIMEVERIFY",
        "CHECKSEQUENCEVERIFY",
        "DERSIG",
        "NULLDUMMY",
        "P2SH",
        "TAPROOT",
        "WITNESS",
    ];
    assert_eq!(info["script_flags"], json!(flags));
    let expected = json!({
        "bip34": {"type": "buried", "active": true, "height": 2},
        "bip66": {"type": "buried", "active": true, "height": 3},
        "bip65": {"type": "buried", "active": true, "height": 4},
        "csv": {"type": "buried", "active": true, "height": 5},
        "segwit": {"type": "buried", "active": true, "height": 6},
        "testdummy": {
            "type": "bip9",
            "active": false,
            "bip9": {
                "bit": 28,
                "start_time": 0,
                "timeout": i64::MAX,
                "min_activation_height": 0,
                "status": "started",
                "since": 144,
                "status_next": "started",
                "statistics": {
                    "period": 144,
                    "elapsed": 57,
                    "count": 57,
                    "threshold": 108,
                    "possible": true,
                },
                "signalling": "#".repeat(57),
            },
        },
    });
    assert_eq!(info["deployments"], expected);
}

#[test]
fn deployments_pass_through_the_states_of_bitcoind() {
    let dir = tempfile::tempdir().expect("temporary");
    let heights = ["bip34@2", "dersig@3", "cltv@4", "csv@5", "segwit@6"];
    let heights = heights.map(|text| format!("-testactivationheight={text}"));
    let mut options = vec!["-backend=rocksdb", "-connect=0"];
    options.extend(heights.iter().map(String::as_str));
    let node = Node::start(BINARY, dir.path(), &options);
    assert_eq!(deployment(&node, "segwit")["active"], false);
    assert_eq!(deployment(&node, "testdummy")["bip9"]["status"], "defined");
    assert_eq!(
        node.rpc("getdeploymentinfo", &[])["script_flags"],
        json!(["P2SH", "TAPROOT", "WITNESS"])
    );
    mine(&node, 200);
    check_at_200(&node);
    let at_143 = node.rpc("getblockhash", &["143"]);
    let at_143 = node.rpc("getdeploymentinfo", &[at_143.as_str().expect("a hash")]);
    assert_eq!(at_143["deployments"]["testdummy"]["bip9"]["status_next"], "started");
    mine(&node, 88);
    let testdummy = deployment(&node, "testdummy");
    assert_eq!(
        (&testdummy["bip9"]["status"], &testdummy["active"]),
        (&json!("locked_in"), &json!(false))
    );
    assert_eq!(testdummy["bip9"]["statistics"]["threshold"], Value::Null);
    mine(&node, 143);
    let testdummy = deployment(&node, "testdummy");
    assert_eq!((&testdummy["height"], &testdummy["active"]), (&json!(432), &json!(true)));
    assert_eq!(testdummy["bip9"]["status_next"], "active");
    mine(&node, 1);
    let testdummy = deployment(&node, "testdummy");
    assert_eq!(
        (&testdummy["bip9"]["since"], &testdummy["bip9"]["bit"]),
        (&json!(432), &Value::Null)
    );
    let error = node.try_rpc("getdeploymentinfo", &[&"00".repeat(32)]).expect_err("refused");
    assert!(error.contains("Block not found"), "{error}");
    node.stop();

    // The same chain under rules that were never active: known to the name, and not listed.
    options.push("-vbparams=testdummy:-2:0");
    let node = Node::start(BINARY, dir.path(), &options);
    assert_eq!(deployment(&node, "testdummy"), Value::Null);
    node.stop();
}

#[test]
fn options_that_move_rules_are_refused_in_cores_words() {
    let dir = tempfile::tempdir().expect("temporary");
    let refused = |args: &[&str], text: &str| {
        let output = run(BINARY, dir.path(), args);
        assert!(!output.status.success());
        assert!(said(&output).contains(text), "{args:?}: {}", said(&output));
    };
    refused(
        &["-regtest", "-testactivationheight=taproot@1"],
        "Invalid name (taproot@1) for -testactivationheight=name@height.",
    );
    refused(&["-regtest", "-vbparams=testdummy:a:1"], "Invalid nStartTime (a)");
    for network in ["-testnet", "-testnet4", "-signet"] {
        refused(&[network, "-vbparams=testdummy:0:a"], "Invalid nTimeout (a)");
    }
    refused(&["-vbparams=testdummy:0:1"], "The -vbparams option may not be used on mainnet.");
}

#[test]
fn rules_are_moved_on_the_other_networks_for_tests_too() {
    let dir = tempfile::tempdir().expect("temporary");
    let options =
        ["-connect=0", "-vbparams=testdummy:0:999999999999:7", "-testactivationheight=csv@9"];
    let node = Node::start_on("signet", BINARY, dir.path(), &options);
    assert_eq!(deployment(&node, "testdummy")["bip9"]["min_activation_height"], 7);
    assert_eq!(deployment(&node, "csv")["height"], 9);
    node.stop();
}
