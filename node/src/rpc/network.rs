//! Methods about peers.

use bitcoin::Amount;
use serde_json::{Map, Value, json};

use super::call::{Args, optional, optional_text, text};
use super::{Context, Method, RpcError, RpcResult, code, tx_json};
use crate::p2p::{PROTOCOL_VERSION, Peer, PeerState, SERVICES};

/// The version of the program in the digits of `getnetworkinfo`.
const CLIENT_VERSION: u32 = 100;

pub(super) const METHODS: &[Method] = &[
    Method {
        name: "addnode",
        params: &[text("node"), text("command"), optional("v2transport")],
        help: "Attempts to add or remove a node from the addnode list, or tries a connection once: command is add, remove or onetry.",
        run: add_node,
    },
    Method {
        name: "disconnectnode",
        params: &[optional_text("address"), optional("nodeid")],
        help: "Immediately disconnects from the specified peer node, by address or by id.",
        run: disconnect_node,
    },
    Method {
        name: "getconnectioncount",
        params: &[],
        help: "Returns the number of connections to other nodes.",
        run: |context, _| Ok(json!(context.peers.peers().len())),
    },
    Method {
        name: "getnettotals",
        params: &[],
        help: "Returns information about network traffic of the present connections.",
        run: get_net_totals,
    },
    Method {
        name: "getnetworkinfo",
        params: &[],
        help: "Returns an object containing various state info regarding P2P networking.",
        run: get_network_info,
    },
    Method {
        name: "getpeerinfo",
        params: &[],
        help: "Returns data about each connected network peer as a json array of objects.",
        run: |context, _| {
            let peers = context.peers.peers();
            let infos: Result<Vec<Value>, RpcError> =
                peers.iter().map(|peer| peer_info(context, peer)).collect();
            Ok(Value::Array(infos?))
        },
    },
    Method {
        name: "ping",
        params: &[],
        help: "Requests that a ping be sent to all other nodes, to measure ping time.",
        run: |context, _| {
            context.peers.ping_all();
            Ok(Value::Null)
        },
    },
];

fn add_node(context: &Context, args: &Args) -> RpcResult {
    let (node, command) = (args.text(0)?, args.text(1)?);
    if args.optional_flag(2)? == Some(true) {
        let message = "Error: v2transport requested but not enabled (see -v2transport)";
        return Err(RpcError::new(code::INVALID_PARAMETER, message));
    }
    match command {
        "onetry" => {
            let dialed = context.peers.connect_once(node);
            dialed.map_err(|error| RpcError::new(code::MISC_ERROR, format!("{error:#}")))?;
        }
        "add" if !context.peers.add_wanted(node) => {
            return Err(RpcError::new(
                code::CLIENT_NODE_ALREADY_ADDED,
                "Error: Node already added",
            ));
        }
        "remove" if !context.peers.remove_wanted(node) => {
            let message = "Error: Node could not be removed. It has not been added previously.";
            return Err(RpcError::new(code::CLIENT_NODE_NOT_ADDED, message));
        }
        "add" | "remove" => {}
        _ => {
            return Err(RpcError::new(code::MISC_ERROR, "command must be add, remove or onetry"));
        }
    }
    Ok(Value::Null)
}

fn disconnect_node(context: &Context, args: &Args) -> RpcResult {
    let address = args.optional_text(0)?.filter(|address| !address.is_empty());
    let id = args.optional_integer(1)?;
    let is_meant = |peer: &Peer| match (address, id) {
        (Some(address), _) => peer.name == address || peer.address.to_string() == address,
        (None, Some(id)) => i64::try_from(peer.id) == Ok(id),
        (None, None) => false,
    };
    if address.is_some() == id.is_some() {
        let message = "Only one of address and nodeid should be provided.";
        return Err(RpcError::new(code::INVALID_PARAMS, message));
    }
    let peers: Vec<_> = context.peers.peers().into_iter().filter(|peer| is_meant(peer)).collect();
    if peers.is_empty() {
        return Err(RpcError::new(
            code::CLIENT_NODE_NOT_CONNECTED,
            "Node not found in connected nodes",
        ));
    }
    for peer in peers {
        peer.disconnect("disconnectnode");
    }
    Ok(Value::Null)
}

fn get_net_totals(context: &Context, _: &Args) -> RpcResult {
    let (mut received, mut sent) = (0_u64, 0_u64);
    for peer in context.peers.peers() {
        let state = peer.state();
        received = received.saturating_add(state.received.bytes);
        sent = sent.saturating_add(state.sent.bytes);
    }
    let milliseconds = u64::try_from(context.clock.now().as_millis()).unwrap_or(u64::MAX);
    Ok(json!({"totalbytesrecv": received, "totalbytessent": sent, "timemillis": milliseconds}))
}

fn get_network_info(context: &Context, _: &Args) -> RpcResult {
    let peers = context.peers.peers();
    let inbound = peers.iter().filter(|peer| peer.is_inbound()).count();
    let network = |name: &str| json!({"name": name, "limited": false, "reachable": true, "proxy": "", "proxy_randomize_credentials": false});
    let fee_rate = tx_json::amount(Amount::from_sat(100));
    Ok(json!({
        "version": CLIENT_VERSION,
        "subversion": context.user_agent,
        "protocolversion": PROTOCOL_VERSION,
        "localservices": format!("{SERVICES:016x}"),
        "localservicesnames": service_names(SERVICES),
        "localrelay": false,
        "timeoffset": 0,
        "networkactive": true,
        "connections": peers.len(),
        "connections_in": inbound,
        "connections_out": peers.len() - inbound,
        "networks": [network("ipv4"), network("ipv6")],
        "relayfee": fee_rate,
        "incrementalfee": fee_rate,
        "localaddresses": [],
        "warnings": [],
    }))
}

fn peer_info(context: &Context, peer: &Peer) -> RpcResult {
    let state: PeerState = peer.state().clone();
    let known = state.best_known;
    let synced_headers = context
        .chain
        .query(move |chain| known.map_or(-1, |at| i64::from(chain.headers().entry(at).height)))?;
    let owed = context.peers.in_flight(peer.id)?;
    let version = state.version.as_ref();
    let services = version.map_or(0, |version| version.services);
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    put("id", json!(peer.id));
    put("addr", json!(peer.name));
    if let Some(bind) = peer.bind {
        put("addrbind", json!(bind.to_string()));
    }
    put("network", json!(network_name(peer)));
    put("services", json!(format!("{services:016x}")));
    put("servicesnames", json!(service_names(services)));
    put("relaytxes", json!(version.is_some_and(|version| version.relay)));
    put("last_inv_sequence", json!(0));
    put("inv_to_send", json!(0));
    put_traffic(&mut fields, peer, &state);
    let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    put("version", json!(version.map_or(0, |version| version.version)));
    put("subver", json!(version.map_or("", |version| version.user_agent.as_str())));
    put("inbound", json!(peer.is_inbound()));
    put("bip152_hb_to", json!(false));
    put("bip152_hb_from", json!(false));
    let presynced = peer.gate().sync().map_or(-1, |sync| i64::from(sync.presync_height()));
    put("presynced_headers", json!(presynced));
    put("synced_headers", json!(synced_headers));
    put("synced_blocks", json!(state.common_height.map_or(-1, i64::from)));
    put("inflight", json!(owed));
    put("addr_relay_enabled", json!(false));
    put("addr_processed", json!(0));
    put("addr_rate_limited", json!(0));
    put("permissions", json!([]));
    put("minfeefilter", tx_json::amount(Amount::ZERO));
    put("bytessent_per_msg", json!(state.sent.by_type));
    put("bytesrecv_per_msg", json!(state.received.by_type));
    put("connection_type", json!(peer.kind.name()));
    put("transport_protocol_type", json!("v1"));
    put("session_id", json!(""));
    Ok(Value::Object(fields))
}

/// Adds times and amounts of what went to and fro.
fn put_traffic(fields: &mut Map<String, Value>, peer: &Peer, state: &PeerState) {
    let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    put("lastsend", json!(state.sent.last.as_secs()));
    put("lastrecv", json!(state.received.last.as_secs()));
    put("last_transaction", json!(0));
    put("last_block", json!(state.last_block.as_secs()));
    put("bytessent", json!(state.sent.bytes));
    put("bytesrecv", json!(state.received.bytes));
    put("conntime", json!(peer.connected_at.as_secs()));
    let version = state.version.as_ref();
    let theirs = version.map_or(0, |version| version.time);
    let ours = i64::try_from(peer.connected_at.as_secs()).unwrap_or(i64::MAX);
    put("timeoffset", json!(if version.is_some() { theirs.saturating_sub(ours) } else { 0 }));
    let waiting = state.ping.waiting.map(|(_, sent)| sent.elapsed());
    for (name, time) in
        [("pingtime", state.ping.last), ("minping", state.ping.min), ("pingwait", waiting)]
    {
        if let Some(time) = time {
            put(name, tx_json::float(time.as_secs_f64()));
        }
    }
}

fn network_name(peer: &Peer) -> &'static str {
    let ip = peer.address.ip();
    if ip.is_loopback() {
        "not_publicly_routable"
    } else if ip.is_ipv4() {
        "ipv4"
    } else {
        "ipv6"
    }
}

fn service_names(services: u64) -> Vec<&'static str> {
    const NAMES: [(u64, &str); 6] = [
        (1, "NETWORK"),
        (4, "BLOOM"),
        (8, "WITNESS"),
        (64, "COMPACT_FILTERS"),
        (1024, "NETWORK_LIMITED"),
        (2048, "P2P_V2"),
    ];
    NAMES.iter().filter(|(bit, _)| services & bit != 0).map(|(_, name)| *name).collect()
}
