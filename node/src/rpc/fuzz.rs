//! What fuzzers call of RPC: bodies of calls, descriptors, addresses, and requests to a running node.

use std::cell::Cell;

use bitcoin::{Address, Network, ScriptBuf};
use serde_json::Value;

use super::call::Args;
use super::descriptor::{Descriptor, infer};
use super::envelope::answer;
use super::{RpcError, TABLES, address, code, method};
use crate::fuzz::LiveNode;

/// Methods that end the node, wait for something, take long or go beyond it (as in Bitcoin Core's
/// `test/fuzz/rpc.cpp`): the fuzzer does not call them.
const NOT_CALLED: [&str; 14] = [
    "addconnection",
    "addnode",
    "dumptxoutset",
    "generatetoaddress",
    "generatetodescriptor",
    "getblocktemplate",
    "importmempool",
    "loadtxoutset",
    "savemempool",
    "setban",
    "stop",
    "waitforblock",
    "waitforblockheight",
    "waitfornewblock",
];

/// Returns the methods that the fuzzer calls.
pub(crate) fn called() -> impl Iterator<Item = &'static str> {
    let methods = TABLES.iter().copied().flatten();
    methods.map(|method| method.name).filter(|name| !NOT_CALLED.contains(name))
}

/// Answers any bytes as a request, binding its arguments to the method it names. Returns whether a
/// method was reached.
///
/// # Panics
///
/// Panics if the reply is not what clients can read: JSON with a status of Core's, or nothing.
#[must_use]
pub fn rpc_request(data: &[u8]) -> bool {
    let reached = Cell::new(false);
    let reply = answer(data, None, |name, params, _| {
        let not_found = || RpcError::new(code::METHOD_NOT_FOUND, "Method not found");
        let method = method(name).ok_or_else(not_found)?;
        reached.set(true);
        let args = Args::bind(method, params)?;
        assert!(args.len() <= method.params.len(), "no more arguments than parameters");
        Ok(Value::Array(args.values().to_vec()))
    });
    assert!([200, 204, 400, 404, 500].contains(&reply.status), "{}", reply.status);
    assert_eq!(reply.body.is_empty(), reply.status == 204, "only a notification has no reply");
    if !reply.body.is_empty() {
        assert!(serde_json::from_str::<Value>(&reply.body).is_ok(), "a reply that is not JSON");
    }
    reached.get()
}

/// Reads a descriptor; each of its scripts has one of its own, which stands for that script alone.
/// Returns whether it was read.
///
/// # Panics
///
/// Panics if that is another script's.
#[must_use]
pub fn descriptor(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(descriptor) = Descriptor::parse(text, Network::Regtest) else { return false };
    for index in [0, 7] {
        for derived in descriptor.derive(index).unwrap_or_default() {
            check_same(&derived.descriptor, &derived.script);
        }
    }
    true
}

/// Describes a script without its keys. Returns whether that says more than its bytes.
///
/// # Panics
///
/// Panics if what is said is another script's.
#[must_use]
pub fn script(data: &[u8]) -> bool {
    let script = ScriptBuf::from(data.to_vec());
    let text = infer(&script, Network::Regtest);
    check_same(&text, &script);
    !text.starts_with("raw(")
}

fn check_same(text: &str, script: &ScriptBuf) {
    let parsed = match Descriptor::parse(text, Network::Regtest) {
        Ok(parsed) => parsed,
        // As in Core, these are told of keys off the curve, of more keys than may be told, and of nothing.
        Err(_) if ["pk(", "multi(", "raw()"].iter().any(|name| text.starts_with(name)) => return,
        Err(error) => panic!("{text}: {error}"),
    };
    let again = parsed.derive(0).unwrap_or_default();
    let scripts: Vec<&ScriptBuf> = again.iter().map(|derived| &derived.script).collect();
    assert_eq!(scripts, [script], "{text}");
}

/// Reads an address. Returns whether it is one.
///
/// # Panics
///
/// Panics if the address of its script is another one's.
#[must_use]
pub fn address_text(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(script) = address::decode(text, Network::Regtest) else { return false };
    if let Ok(again) = Address::from_script(&script, Network::Regtest) {
        let again = again.to_string();
        assert!(text.eq_ignore_ascii_case(&again), "{text} became {again}");
    }
    true
}

/// Sends a request to a running node: a path up to the first line's end, then a body. Returns whether
/// it was answered with success.
///
/// # Panics
///
/// Panics if there is no answer, or one that no client can read.
#[must_use]
pub fn http_request(node: &LiveNode, data: &[u8]) -> bool {
    let Some(at) = data.iter().position(|byte| *byte == b'\n') else { return false };
    let (path, body) = data.split_at(at);
    let body = body.get(1..).unwrap_or_default();
    // What is no path is hyper's to refuse.
    let is_path = path.starts_with(b"/") && path.iter().all(u8::is_ascii_graphic);
    let Some(path) = std::str::from_utf8(path).ok().filter(|_| is_path) else { return false };
    let (status, reply) = node.request(path, body);
    assert!([200, 204, 400, 403, 404, 405, 413, 500, 503].contains(&status), "{status}");
    // A call that did not end well is answered, but without a text.
    assert!(status != 500 || !reply.is_empty(), "a call panicked");
    if path == "/" && !reply.is_empty() {
        assert!(serde_json::from_slice::<Value>(&reply).is_ok(), "a reply that is not JSON");
    }
    status == 200
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_fuzzer_does_not_call_is_a_method() {
        for name in NOT_CALLED {
            assert!(method(name).is_some(), "{name}");
        }
    }
}
