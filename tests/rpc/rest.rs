//! REST (Bitcoin Core's `interface_rest.py`, as far as there are no transactions).

use cofferdam_tests::process::Node;
use serde_json::{Value, json};

use super::BINARY;
use super::http_client::get;

const ADDRESS: &str = "mjTkW3DjgyZck4KbiRusZsqTgaYTxdSz6z";
const OTHER: &str = "mnonCMyH9TmAsSj3M59DsbH8H63U3RKoFP";
const UNKNOWN: &str = "0000000000000000000000000000000000000000000000000000000000000000";

fn check_blocks(node: &Node, hash: &str) {
    let block = get(node, &format!("/rest/block/{hash}.json"));
    assert_eq!(block.json(), node.rpc("getblock", &[hash, "3"]));
    let short = get(node, &format!("/rest/block/notxdetails/{hash}.json"));
    assert_eq!(short.json(), node.rpc("getblock", &[hash, "1"]));
    let bytes = get(node, &format!("/rest/block/{hash}.bin")).body;
    let hex = get(node, &format!("/rest/block/{hash}.hex"));
    assert_eq!(hex.text(), node.rpc("getblock", &[hash, "0"]));
    assert_eq!(hex.text().len(), 2 * bytes.len());
    assert_eq!(get(node, &format!("/rest/headers/{hash}.bin?count=1")).body, bytes[..80]);
    let part = get(node, &format!("/rest/blockpart/{hash}.bin?offset=4&size=32"));
    assert_eq!(part.body, bytes[4..36]);
    // What is escaped is put back.
    let headers = get(node, &format!("/rest/headers/{hash}.json?coun%74=%33")).json();
    assert_eq!(headers.as_array().map(Vec::len), Some(3));
    assert_eq!(headers[0], node.rpc("getblockheader", &[hash]));
    assert_eq!(
        get(node, &format!("/rest/headers/2/{hash}.json")).json().as_array().map(Vec::len),
        Some(2)
    );
    assert_eq!(get(node, &format!("/rest/headers/{UNKNOWN}.json")).json(), json!([]));
    assert_eq!(get(node, &format!("/rest/spenttxouts/{hash}.json")).json(), json!([[]]));
    assert_eq!(get(node, &format!("/rest/spenttxouts/{hash}.bin")).body, [1, 0]);
}

/// Blocks of which is not known what they spent, and the one that spent nothing.
fn check_spent(node: &Node) {
    let spent = |hash: &str| get(node, &format!("/rest/spenttxouts/{hash}.json"));
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    assert_eq!(spent(&text(&node.rpc("getblockhash", &["0"]))).json(), json!([[]]));
    let rival = node.rpc("generateblock", &[ADDRESS, "[]", "false"]);
    let _ = node.rpc("generatetoaddress", &["1", OTHER]);
    let (hash, hex) = (text(&rival["hash"]), text(&rival["hex"]));
    for (method, data, answer) in
        [("submitheader", &hex[..160], Value::Null), ("submitblock", &hex, json!("inconclusive"))]
    {
        assert_eq!(node.rpc(method, &[data]), answer);
        let reply = spent(&hash);
        assert_eq!((reply.status, reply.text()), (404, &*format!("{hash} undo not available")));
    }
    let reply = spent(UNKNOWN);
    assert_eq!((reply.status, reply.text()), (404, &*format!("{UNKNOWN} not found")));
}

fn check_coins(node: &Node, hash: &str) {
    let txid = node.rpc("getblock", &[hash])["tx"][0].as_str().expect("a txid").to_owned();
    let tip = node.rpc("getbestblockhash", &[]);
    let found = get(node, &format!("/rest/getutxos/{txid}-0/{txid}-9.json")).json();
    assert_eq!((&found["chainHeight"], &found["chaintipHash"]), (&json!(5), &tip));
    assert_eq!((&found["bitmap"], &found["utxos"][0]["height"]), (&json!("10"), &json!(1)));
    assert_eq!(found["utxos"][0]["value"].to_string(), "50.00000000");
    assert_eq!(found["utxos"].as_array().map(Vec::len), Some(1));
    let bytes = get(node, &format!("/rest/getutxos/{txid}-0/{txid}-9.bin")).body;
    assert_eq!((&bytes[..4], &bytes[36..39]), (&[5, 0, 0, 0][..], &[1, 1, 1][..]));
    let many: Vec<String> = (0..20).map(|n| format!("{txid}-{n}")).collect();
    let reply = get(node, &format!("/rest/getutxos/checkmempool/{}.json", many.join("/")));
    assert_eq!(reply.text(), "Error: max outpoints exceeded (max: 15, tried: 20)");
}

#[test]
fn a_block_that_cannot_be_read_is_an_error_of_the_server() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(BINARY, dir.path(), &["-rest"]);
    let blocks = node.rpc("generatetoaddress", &["2", ADDRESS]);
    let hash = blocks[0].as_str().expect("a hash");
    let part = format!("/rest/blockpart/{hash}.hex?offset=100000&size=1");
    let answer = |path: &str| {
        let reply = get(&node, path);
        (reply.status, reply.text().to_owned())
    };
    let text = format!("Bad block part offset/size 100000/1 for {hash}");
    assert_eq!(answer(&part), (400, text));
    let file = dir.path().join("regtest/blocks/blk00000.dat");
    let file = std::fs::File::options().write(true).open(file).expect("there");
    file.set_len(0).expect("cut");
    for path in [
        format!("/rest/block/{hash}.json"),
        format!("/rest/block/{hash}.bin"),
        format!("/rest/block/notxdetails/{hash}.json"),
        part,
    ] {
        assert_eq!(answer(&path), (500, format!("I/O error reading {hash}")), "{path}");
    }
}

#[test]
fn coins_are_told_while_blocks_are_connected() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(BINARY, dir.path(), &["-rest"]);
    let hash = node.rpc("generatetoaddress", &["1", ADDRESS])[0].clone();
    let txid = node.rpc("getblock", &[hash.as_str().expect("a hash")])["tx"][0].clone();
    let txid = txid.as_str().expect("a txid");
    let outpoints: Vec<String> = (0..15).map(|n| format!("{txid}-{n}")).collect();
    let path = format!("/rest/getutxos/checkmempool/{}.json", outpoints.join("/"));
    std::thread::scope(|scope| {
        let mining = scope.spawn(|| node.rpc("generatetoaddress", &["500", ADDRESS]));
        while !mining.is_finished() {
            let reply = get(&node, &path);
            assert_eq!(reply.status, 200, "{}", reply.text());
            let found = reply.json();
            let confirmed = found["chainHeight"].as_u64() >= found["utxos"][0]["height"].as_u64();
            assert!(confirmed && found["bitmap"] == "100000000000000", "{found}");
        }
    });
    node.stop();
}

#[test]
fn rest_says_what_the_methods_say_and_explains_its_refusals() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(BINARY, dir.path(), &["-rest"]);
    let blocks = node.rpc("generatetoaddress", &["5", ADDRESS]);
    let hash = blocks[0].as_str().expect("a hash");
    check_blocks(&node, hash);
    check_coins(&node, hash);
    check_spent(&node);
    assert_eq!(get(&node, "/rest/blockhashbyheight/1.json").json(), json!({"blockhash": hash}));
    assert_eq!(get(&node, "/rest/blockhashbyheight/1.hex").text(), hash);
    let info = get(&node, "/rest/chaininfo.json").json();
    assert_eq!(info["bestblockhash"], node.rpc("getbestblockhash", &[]));
    assert_eq!(get(&node, "/rest/mempool/info.json").json(), node.rpc("getmempoolinfo", &[]));
    assert_eq!(get(&node, "/rest/mempool/contents.json?verbose=false").json(), json!([]));
    let deployments = get(&node, &format!("/rest/deploymentinfo/{hash}.json")).json();
    assert_eq!(deployments, node.rpc("getdeploymentinfo", &[hash]));
    let missing = format!("{UNKNOWN} not found");
    for (path, status, text) in [
        ("/rest/block/abc.json".to_owned(), 400, "Invalid hash: abc"),
        (format!("/rest/block/{UNKNOWN}.json"), 404, missing.as_str()),
        (format!("/rest/tx/{UNKNOWN}.json"), 404, &missing),
        (
            format!("/rest/block/{hash}"),
            404,
            "output format not found (available: .bin, .hex, .json)",
        ),
        ("/rest/chaininfo.bin".into(), 404, "output format not found (available: json)"),
        ("/rest/blockhashbyheight/abc.json".into(), 400, "Invalid height: abc"),
        ("/rest/blockhashbyheight/-1.json".into(), 400, "Invalid height: -1"),
        ("/rest/blockhashbyheight/+1.json".into(), 400, "Invalid height: +1"),
        ("/rest/blockhashbyheight/1000000.json".into(), 404, "Block height out of range"),
        (
            format!("/rest/headers/{hash}.json?count=5a"),
            400,
            "Header count is invalid or out of acceptable range (1-2000): 5a",
        ),
        (
            format!("/rest/headers/{hash}.json?count=2001"),
            400,
            "Header count is invalid or out of acceptable range (1-2000): 2001",
        ),
        ("/rest/getutxos.json".into(), 400, "Error: empty request"),
        ("/rest/getutxos/checkmempool.json".into(), 400, "Error: empty request"),
        (format!("/rest/blockpart/{hash}.bin?offset=0"), 400, "Block part size missing or invalid"),
        (
            format!("/rest/blockpart/{hash}.bin?offset=+0&size=1"),
            400,
            "Block part offset missing or invalid",
        ),
        (
            "/rest/mempool/x.json".into(),
            400,
            "Invalid URI format. Expected /rest/mempool/<info|contents>.json",
        ),
        (
            format!("/rest/blockfilter/basic/{hash}.json"),
            400,
            "Index is not enabled for filtertype basic",
        ),
    ] {
        let reply = get(&node, &path);
        assert_eq!((reply.status, reply.text()), (status, text), "{path}");
    }
    node.stop();
}
