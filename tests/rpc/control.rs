//! Methods about the node itself and about addresses, and how arguments are bound (Bitcoin Core's
//! `rpc_help.py`, `rpc_named_arguments.py`, `rpc_misc.py`, `rpc_deriveaddresses.py` and others).

use cofferdam_tests::process::Node;
use serde_json::{Value, json};

use super::BINARY;
use super::http_client::{cookie, post};

struct Caller<'a>(&'a Node, String);

impl Caller<'_> {
    fn call(&self, method: &str, params: &Value) -> Result<Value, (i64, String)> {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let mut reply = post(self.0, &self.1, &body.to_string()).json();
        match reply.get("error") {
            None => Ok(reply["result"].take()),
            Some(error) => {
                let message = error["message"].as_str().expect("a text").to_owned();
                Err((error["code"].as_i64().expect("a code"), message))
            }
        }
    }

    fn get(&self, method: &str, params: &Value) -> Value {
        self.call(method, params).unwrap_or_else(|error| panic!("{method}: {error:?}"))
    }

    fn refused(&self, method: &str, params: &Value, code: i64, part: &str) {
        let (found, text) = self.call(method, params).expect_err("refused");
        assert!(found == code && text.contains(part), "{method} {params}: {found} {text}");
    }
}

fn check_arguments(caller: &Caller<'_>) {
    assert_eq!(caller.get("echo", &json!({})), json!([]));
    assert_eq!(caller.get("echo", &json!({"arg1": 1})), json!([null, 1]));
    assert_eq!(caller.get("echo", &json!({"args": [0], "arg2": 2})), json!([0, null, 2]));
    let nulls = json!([null, null, null, null, null, null, null, null, null, null]);
    assert_eq!(caller.get("echo", &json!({"arg9": null})), nulls);
    let twice = "Parameter arg1 specified twice both as positional and named argument";
    caller.refused("echo", &json!({"args": [0, null, 2], "arg1": 1}), -8, twice);
    caller.refused("help", &json!({"random": "x"}), -8, "Unknown named parameter random");
    caller.refused("help", &json!(["foo", "bar"]), -1, "help ( \"command\" )\n\nList all commands");
    let wrong =
        "\"Position 1 (command)\": \"JSON value of type number is not of expected type string\"";
    caller.refused("help", &json!([0]), -3, wrong);
    caller.refused(
        "setmocktime",
        &json!([-1]),
        -8,
        "Mocktime must be in the range [0, 4294967295], not -1.",
    );
    caller.refused(
        "mockscheduler",
        &json!([3601]),
        -1,
        "delta_time must be between 1 and 3600 seconds",
    );
    caller.refused("getmemoryinfo", &json!(["foobar"]), -8, "unknown mode foobar");
}

fn check_the_node(caller: &Caller<'_>) {
    let info = caller.get("getrpcinfo", &json!([]));
    assert_eq!(info["active_commands"].as_array().map(Vec::len), Some(1));
    assert_eq!(info["active_commands"][0]["method"], "getrpcinfo");
    assert!(info["logpath"].as_str().is_some_and(|path| path.ends_with("regtest/debug.log")));
    assert_eq!(caller.get("help", &json!(["foo"])), "help: unknown command: foo");
    let help = caller.get("help", &json!([]));
    let titles = help.as_str().expect("a text").lines().filter_map(|line| line.strip_prefix("== "));
    let titles: Vec<&str> = titles.collect();
    assert_eq!(titles[..2], ["Blockchain ==", "Control =="]);
    let help = caller.get("help", &json!(["getblockchaininfo"]));
    assert!(help.as_str().is_some_and(|text| text.starts_with("getblockchaininfo\n")));
    assert_eq!(caller.get("echoipc", &json!(["hello"])), "hello");
    assert_eq!(caller.get("mockscheduler", &json!([3600])), Value::Null);
    let estimate = json!({"errors": ["Insufficient data or no feerate found"], "blocks": 0});
    assert_eq!(caller.get("estimatesmartfee", &json!([6])), estimate);
    caller.refused(
        "estimatesmartfee",
        &json!([0]),
        -8,
        "Invalid conf_target, must be between 1 and 1008",
    );
    caller.refused("estimatesmartfee", &json!([1, "foo"]), -8, "Invalid estimate_mode parameter");
}

fn check_addresses(caller: &Caller<'_>) {
    // Of Bitcoin Core's rpc_deriveaddresses.py.
    let descriptor = "wpkh(tprv8ZgxMBicQKsPd7Uf69XL1XwhmjHopUGep8GuEiJDZmbQz6o58LninorQAfcKZWARbtRtfnLcJ5MQ2AtHcQJCCRUcMRvmDUjyEmNUWwx8UbK/1/1/0)#t6wfjs64";
    let address = "bcrt1qjqmxmkpmxt80xz4y3746zgt0q3u3ferr34acd5";
    assert_eq!(caller.get("deriveaddresses", &json!([descriptor])), json!([address]));
    let bare = descriptor.split('#').next().expect("a text");
    caller.refused("deriveaddresses", &json!([bare]), -5, "Missing checksum");
    caller.refused(
        "deriveaddresses",
        &json!([descriptor, [0, 2]]),
        -8,
        "Range should not be specified for an un-ranged descriptor",
    );
    let info = caller.get("getdescriptorinfo", &json!([bare]));
    assert_eq!((&info["hasprivatekeys"], &info["issolvable"]), (&json!(true), &json!(true)));
    assert!(info["descriptor"].as_str().is_some_and(|text| text.starts_with("wpkh(tpub")));
    let info = caller.get("validateaddress", &json!([address]));
    assert_eq!((&info["isvalid"], &info["witness_version"]), (&json!(true), &json!(0)));
    let info = caller.get("validateaddress", &json!(["bcrt1q"]));
    assert_eq!(
        info,
        json!({"isvalid": false, "error_locations": [4], "error": "Invalid separator position"})
    );
    let key = "03789ed0bb717d88f7d321a368d905e7430207ebbd82bd342cf11ae157a7ace5fd";
    let made = caller.get("createmultisig", &json!([1, [key], "p2sh-segwit"]));
    assert_eq!(made["redeemScript"], format!("5121{key}51ae"));
    caller.refused(
        "createmultisig",
        &json!([2, [key]]),
        -8,
        "not enough keys supplied (got 1 keys, but need at least 2 to redeem)",
    );
    caller.refused(
        "createmultisig",
        &json!([1, ["02"]]),
        -5,
        "must have a length of either 33 or 65 bytes",
    );
    let privkey = "cUeKHd5orzT3mz8P9pxyREHfsWtVfgsfDjiZZBcjUBAaGk1BTj7N";
    let signature = caller.get("signmessagewithprivkey", &json!([privkey, "message"]));
    let signed = "mpLQjfK79b7CCV4VMJWEWAj5Mpx8Up5zxB";
    assert_eq!(caller.get("verifymessage", &json!([signed, signature, "message"])), true);
    assert_eq!(caller.get("verifymessage", &json!([signed, signature, "other"])), false);
    caller.refused("verifymessage", &json!(["x", signature, "message"]), -5, "Invalid address");
    caller.refused("signmessagewithprivkey", &json!(["x", "message"]), -5, "Invalid private key");
}

#[test]
fn calls_that_need_no_chain_are_answered() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(BINARY, dir.path(), &[]);
    let caller = Caller(&node, cookie(dir.path()));
    check_arguments(&caller);
    check_the_node(&caller);
    check_addresses(&caller);
    node.stop();
}
