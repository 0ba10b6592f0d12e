//! Does the help say what is answered? Its result sections, read and held against answers.

use std::cell::RefCell;
use std::path::Path;

use cofferdam_tests::process::Node;
use cofferdam_tests::rpc_docs::ResultDocs;
use serde_json::{Value, json};

use super::BINARY;
use super::http_client::{cookie, post};

const KEY: &str = "cVpF924EspNh8KjYsfhgY96mmxvT6DgdWiTYMtMjuM74hJaU5psW";
const ADDRESS: &str = "mjTkW3DjgyZck4KbiRusZsqTgaYTxdSz6z";
const DESCRIPTOR: &str = "addr(mjTkW3DjgyZck4KbiRusZsqTgaYTxdSz6z)";
const PUBLIC_KEY: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

/// A caller that checks every answer against the help of the method.
struct Caller<'a> {
    node: &'a Node,
    login: String,
    complaints: RefCell<Vec<String>>,
}

impl<'a> Caller<'a> {
    fn new(node: &'a Node, dir: &Path) -> Self {
        Self { node, login: cookie(dir), complaints: RefCell::default() }
    }

    fn plain(&self, method: &str, params: &Value) -> Value {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let mut reply = post(self.node, &self.login, &body.to_string()).json();
        assert!(reply.get("error").is_none(), "{method} {params}: {reply}");
        reply["result"].take()
    }

    fn get(&self, method: &str, params: &Value) -> Value {
        let answer = self.plain(method, params);
        let help = self.plain("help", &json!([method]));
        let docs = ResultDocs::read(help.as_str().expect("a text"));
        let checked = docs.and_then(|docs| docs.check(&answer));
        if let Err(complaint) = checked {
            self.complaints.borrow_mut().push(format!("{method} {params}: {complaint}"));
        }
        answer
    }

    fn text(&self, method: &str, params: &Value) -> String {
        self.get(method, params).as_str().expect("a text").to_owned()
    }
}

/// Sends a transaction; returns its number, and that of the coinbase it spends.
fn pay(caller: &Caller<'_>, height: u32) -> (String, String) {
    let hash = caller.text("getblockhash", &json!([height]));
    let coinbase = caller.get("getblock", &json!([hash]))["tx"][0].clone();
    let inputs = json!([{"txid": coinbase, "vout": 0}]);
    let raw = caller.text("createrawtransaction", &json!([inputs, [{ADDRESS: 49.999}]]));
    let signed = caller.get("signrawtransactionwithkey", &json!([raw, [KEY]]));
    let _ = caller.get("testmempoolaccept", &json!([[signed["hex"]]]));
    let txid = caller.text("sendrawtransaction", &json!([signed["hex"]]));
    (txid, coinbase.as_str().expect("a text").to_owned())
}

fn check_the_chain(caller: &Caller<'_>, tip: &str, paid: &str, coinbase: &str) {
    for params in [json!([tip, false]), json!([tip])] {
        let _ = caller.get("getblockheader", &params);
    }
    for verbosity in 0..=3 {
        let _ = caller.get("getblock", &json!([tip, verbosity]));
        if verbosity < 3 {
            let _ = caller.get("getrawtransaction", &json!([paid, verbosity, tip]));
        }
    }
    for method in [
        "getbestblockhash",
        "getblockchaininfo",
        "getblockcount",
        "getchainstates",
        "getchaintips",
        "getchaintxstats",
        "getdeploymentinfo",
        "getdifficulty",
        "getindexinfo",
        "verifychain",
    ] {
        let _ = caller.get(method, &json!([]));
    }
    let _ = caller.get("getblockstats", &json!([tip]));
    let _ = caller.get("getblockfilter", &json!([tip]));
    let _ = caller.get("gettxout", &json!([paid, 0]));
    assert_eq!(caller.get("gettxout", &json!([coinbase, 0])), Value::Null);
    for kind in ["none", "muhash", "hash_serialized_3"] {
        let _ = caller.get("gettxoutsetinfo", &json!([kind]));
    }
    let _ = caller.get("gettxoutsetinfo", &json!(["muhash", 50]));
    let proof = caller.text("gettxoutproof", &json!([[paid]]));
    let _ = caller.get("verifytxoutproof", &json!([proof]));
    for action in ["start", "status", "abort"] {
        let _ = caller.get("scantxoutset", &json!([action, [DESCRIPTOR]]));
        let _ = caller.get("scanblocks", &json!([action, [DESCRIPTOR]]));
    }
    let _ = caller.get("getdescriptoractivity", &json!([[tip], [DESCRIPTOR]]));
    let _ = caller.get("dumptxoutset", &json!(["coins.dat", "latest"]));
    let _ = caller.get("waitfornewblock", &json!([1]));
    let _ = caller.get("waitforblockheight", &json!([1]));
    let _ = caller.get("preciousblock", &json!([tip]));
}

fn check_the_queue(caller: &Caller<'_>, waiting: &str, from: &str) {
    for params in [json!([]), json!([true]), json!([false, true])] {
        let _ = caller.get("getrawmempool", &params);
    }
    for verbose in [false, true] {
        let _ = caller.get("getmempoolancestors", &json!([waiting, verbose]));
        let _ = caller.get("getmempooldescendants", &json!([waiting, verbose]));
    }
    for method in ["getmempoolentry", "getmempoolcluster"] {
        let _ = caller.get(method, &json!([waiting]));
    }
    for method in ["getmempoolinfo", "getmempoolfeeratediagram", "getorphantxs", "savemempool"] {
        let _ = caller.get(method, &json!([]));
    }
    let _ = caller.get("prioritisetransaction", &json!([waiting, 0, 1000]));
    let _ = caller.get("getprioritisedtransactions", &json!([]));
    let spent = caller.get("gettxspendingprevout", &json!([[{"txid": from, "vout": 0}]]));
    assert_eq!(spent[0]["spendingtxid"], waiting);
    let raw = caller.text("getrawtransaction", &json!([waiting]));
    let _ = caller.get("getrawtransaction", &json!([waiting, 2]));
    let _ = caller.get("decoderawtransaction", &json!([raw]));
    let _ = caller.get("submitpackage", &json!([[raw]]));
    let template = caller.get("getblocktemplate", &json!([{"rules": ["segwit"]}]));
    assert_eq!(template["transactions"][0]["txid"], waiting);
}

fn check_the_node(caller: &Caller<'_>) {
    for method in [
        "getaddednodeinfo",
        "getaddrmaninfo",
        "getconnectioncount",
        "getmininginfo",
        "getmemoryinfo",
        "getnettotals",
        "getnetworkhashps",
        "getnetworkinfo",
        "getrawaddrman",
        "getrpcinfo",
        "getsyncstatus",
        "help",
        "listbanned",
        "logging",
        "ping",
        "syncwithvalidationinterfacequeue",
        "uptime",
    ] {
        let _ = caller.get(method, &json!([]));
    }
    let _ = caller.get("addpeeraddress", &json!(["1.2.3.4", 8333]));
    let _ = caller.get("getnodeaddresses", &json!([]));
    let _ = caller.get("getrawaddrman", &json!([]));
    let _ = caller.get("setban", &json!(["5.6.7.8", "add"]));
    assert_eq!(caller.get("listbanned", &json!([])).as_array().map(Vec::len), Some(1));
    let _ = caller.get("addnode", &json!(["127.0.0.1:1", "add"]));
    let _ = caller.get("getaddednodeinfo", &json!([]));
    let _ = caller.get("setnetworkactive", &json!([true]));
    let _ = caller.get("estimatesmartfee", &json!([6]));
    let _ = caller.get("estimaterawfee", &json!([6]));
    for address in [ADDRESS, "nonsense"] {
        let _ = caller.get("validateaddress", &json!([address]));
    }
    let _ = caller.get("createmultisig", &json!([1, [PUBLIC_KEY]]));
    let key = format!("wpkh({PUBLIC_KEY})");
    let about = caller.get("getdescriptorinfo", &json!([key]));
    let _ = caller.get("deriveaddresses", &json!([about["descriptor"]]));
    for script in [format!("21{PUBLIC_KEY}ac"), "6a00".to_owned(), String::new()] {
        let _ = caller.get("decodescript", &json!([script]));
    }
    let signature = caller.text("signmessagewithprivkey", &json!([KEY, "text"]));
    let _ = caller.get("verifymessage", &json!([ADDRESS, signature, "text"]));
}

#[test]
fn answers_have_the_fields_that_the_help_names_and_no_others() {
    let dir = tempfile::tempdir().expect("temporary");
    let node = Node::start(
        BINARY,
        dir.path(),
        &["-connect=0", "-txindex", "-blockfilterindex", "-coinstatsindex"],
    );
    let caller = Caller::new(&node, dir.path());
    let _ = caller.get("generatetoaddress", &json!([110, ADDRESS]));
    let (paid, coinbase) = pay(&caller, 1);
    let tip = caller.get("generatetodescriptor", &json!([1, DESCRIPTOR]))[0].clone();
    let tip = tip.as_str().expect("a text");
    check_the_chain(&caller, tip, &paid, &coinbase);
    let (waiting, from) = pay(&caller, 2);
    check_the_queue(&caller, &waiting, &from);
    check_the_node(&caller);
    for submit in [false, true] {
        let _ = caller.get("generateblock", &json!([ADDRESS, [], submit]));
    }
    let block = caller.get("generateblock", &json!([ADDRESS, [], false]));
    let _ = caller.get("submitblock", &json!([block["hex"]]));
    let _ = caller.get("submitblock", &json!([block["hex"]]));
    let complaints = caller.complaints.take();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    node.stop();
}

#[test]
fn every_help_is_of_cores_form() {
    let dir = tempfile::tempdir().expect("temporary");
    let node = Node::start(BINARY, dir.path(), &["-connect=0"]);
    let caller = Caller::new(&node, dir.path());
    let list = caller.text("help", &json!([]));
    let listed = list.lines().filter(|line| !line.is_empty() && !line.starts_with("=="));
    let hidden =
        ["generatetoaddress", "generateblock", "setmocktime", "invalidateblock", "addconnection"];
    let mut count = 0;
    for name in listed.map(|line| line.split(' ').next().expect("a name")).chain(hidden) {
        let help = caller.text("help", &json!([name]));
        assert!(help.starts_with(name), "{help}");
        let docs = ResultDocs::read(&help);
        assert!(docs.is_ok(), "{docs:?}\n{help}");
        count += 1;
    }
    assert!(count > 80, "only {count} methods");
    node.stop();
}
