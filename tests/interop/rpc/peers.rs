//! Peers are described as Bitcoin Core describes them: the same fields of the same kinds.

use std::collections::BTreeMap;

use cofferdam_tests::daemon::{Daemon, wait_until};
use serde_json::{Value, json};

use crate::pair::{Pair, Who};

/// Fields that have to be the same at both, as both have the same chain and dial each other.
const SAME: &[&str] = &[
    "network",
    "inbound",
    "connection_type",
    "permissions",
    "inflight",
    "startingheight",
    "presynced_headers",
];

/// Fields of Core's that we do not have, and why.
const MISSING: &[(&str, &str)] = &[];

/// What a node says of the peer that dialled it, or that it dialled.
fn peer(node: &Daemon, inbound: bool) -> Value {
    wait_until("a ping that was answered", || {
        let peers = node.rpc("getpeerinfo", json!([]));
        let peer = peers.as_array().expect("a list").iter().find(|peer| peer["inbound"] == inbound);
        // A ping that is on its way has a field of its own.
        let is_settled =
            |peer: &&Value| peer.get("pingtime").is_some() && peer.get("pingwait").is_none();
        peer.filter(is_settled).cloned()
    })
}

/// Each field with the kind of its value.
fn fields(peer: &Value) -> BTreeMap<&str, &'static str> {
    let kind = |value: &Value| match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fields = peer.as_object().expect("an object").iter();
    let fields = fields.map(|(name, value)| (name.as_str(), kind(value)));
    fields.filter(|(name, _)| !MISSING.iter().any(|(missing, _)| missing == name)).collect()
}

#[test]
fn peers_have_the_fields_that_core_gives_them() {
    let Some(pair) = Pair::new() else { return };
    let (ours, core) = (pair.start(Who::Ours, &[]), pair.start(Who::Core, &[]));
    let _ = core.mine(20);
    ours.connect(&core);
    ours.follow(&core);
    core.connect(&ours);
    let _ = core.rpc("ping", json!([]));
    let _ = ours.rpc("ping", json!([]));
    for inbound in [false, true] {
        let (mine, theirs) = (peer(&ours, inbound), peer(&core, inbound));
        assert_eq!(fields(&mine), fields(&theirs), "inbound: {inbound}\n{mine}\n{theirs}");
        for name in SAME {
            assert_eq!(mine[name], theirs[name], "{name}, inbound: {inbound}");
        }
    }
}
