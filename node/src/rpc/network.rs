//! Methods about connections: made, ended, counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bitcoin::Amount;
use bitcoin::hex::FromHex as _;
use serde_json::{Value, json};

use super::call::{Args, json as value, optional, optional_text, text};
use super::peer_info::{peer_info, service_names};
use super::{Context, Method, RpcError, RpcResult, code, tx_json};
use crate::config::{Net, ProxyConfig};
use crate::p2p::{Kind, PROTOCOL_VERSION, Peer, TIMEFRAME};

/// The version of the program in the digits of `getnetworkinfo`.
const CLIENT_VERSION: u32 = 100;

/// How sure it is that an address of the user's is ours (Bitcoin Core's `LOCAL_MANUAL`).
const SCORE_OF_NAMED: u32 = 4;

/// Longest type of a message.
const MESSAGE_TYPE_LENGTH_MAX: usize = 12;

pub(super) const METHODS: &[Method] = &[
    Method {
        name: "addconnection",
        params: &[text("address"), text("connection_type"), value("v2transport")],
        run: add_connection,
    },
    Method {
        name: "addnode",
        params: &[text("node"), text("command"), optional("v2transport")],
        run: add_node,
    },
    Method {
        name: "disconnectnode",
        params: &[optional_text("address"), optional("nodeid")],
        run: disconnect_node,
    },
    Method { name: "getaddednodeinfo", params: &[optional_text("node")], run: get_added_node_info },
    Method {
        name: "getconnectioncount",
        params: &[],
        run: |context, _| Ok(json!(context.peers.peers().len())),
    },
    Method { name: "getnettotals", params: &[], run: get_net_totals },
    Method { name: "getnetworkinfo", params: &[], run: get_network_info },
    Method {
        name: "getpeerinfo",
        params: &[],
        run: |context, _| {
            let peers = context.peers.peers();
            let connected = peers.iter().filter(|peer| !peer.is_closing());
            let infos: Result<Vec<Value>, RpcError> =
                connected.map(|peer| peer_info(context, peer)).collect();
            Ok(Value::Array(infos?))
        },
    },
    Method {
        name: "ping",
        params: &[],
        run: |context, _| {
            context.peers.ping_all();
            Ok(Value::Null)
        },
    },
    Method {
        name: "sendmsgtopeer",
        params: &[value("peer_id"), text("msg_type"), text("msg")],
        run: send_message,
    },
    Method {
        name: "setnetworkactive",
        params: &[value("state")],
        run: |context, args| {
            let state = args.optional_flag(0)?.unwrap_or(true);
            context.peers.set_active(state);
            Ok(json!(context.peers.is_active()))
        },
    },
];

fn add_connection(context: &Context, args: &Args) -> RpcResult {
    if context.chain.params().network != cofferdam_ibd::params::Network::Regtest {
        let message = "addconnection is for regression testing (-regtest mode) only.";
        return Err(RpcError::new(code::MISC_ERROR, message));
    }
    let (address, name) = (args.text(0)?, args.text(1)?.trim());
    let kinds = [Kind::OutboundFullRelay, Kind::BlockRelayOnly, Kind::AddrFetch, Kind::Feeler];
    let kind = kinds
        .into_iter()
        .find(|kind| kind.name() == name)
        .ok_or_else(|| RpcError::new(code::INVALID_PARAMETER, super::call::help(args.method())))?;
    let v2 = args.optional_flag(2)?.unwrap_or(false);
    if v2 && !context.peers.offers_v2() {
        let message =
            "Error: Adding v2transport connections requires -v2transport init flag to be set.";
        return Err(RpcError::new(code::INVALID_PARAMETER, message));
    }
    if !context.peers.add_connection(address, kind, v2) {
        let message = "Error: Already at capacity for specified connection type.";
        return Err(RpcError::new(code::CLIENT_NODE_CAPACITY_REACHED, message));
    }
    Ok(json!({"address": address, "connection_type": name}))
}

fn add_node(context: &Context, args: &Args) -> RpcResult {
    let (node, command) = (args.text(0)?, args.text(1)?);
    if !matches!(command, "onetry" | "add" | "remove") {
        return Err(RpcError::new(code::MISC_ERROR, super::call::help(args.method())));
    }
    let offered = context.peers.offers_v2();
    let v2 = args.optional_flag(2)?.unwrap_or(offered);
    if v2 && !offered {
        let message = "Error: v2transport requested but not enabled (see -v2transport)";
        return Err(RpcError::new(code::INVALID_PARAMETER, message));
    }
    match command {
        "onetry" => context.peers.connect_once(node, Kind::Manual, v2),
        "add" if !context.peers.add_wanted(node, v2) => {
            let message = "Error: Node already added";
            return Err(RpcError::new(code::CLIENT_NODE_ALREADY_ADDED, message));
        }
        "remove" if !context.peers.remove_wanted(node) => {
            let message = "Error: Node could not be removed. It has not been added previously.";
            return Err(RpcError::new(code::CLIENT_NODE_NOT_ADDED, message));
        }
        _ => {}
    }
    Ok(Value::Null)
}

fn disconnect_node(context: &Context, args: &Args) -> RpcResult {
    let address = args.optional_text(0)?;
    let id: Option<i64> = args.optional_integer(1)?;
    let (reason, peer) = match (address, id) {
        (Some(address), None) => {
            let is_it = |peer: &&Arc<Peer>| peer.name == address;
            ("disconnect by address match", context.peers.peers().iter().find(is_it).cloned())
        }
        (None | Some(""), Some(id)) => {
            let id = u64::try_from(id).ok();
            ("disconnect by id", id.and_then(|id| context.peers.peer(id)))
        }
        _ => {
            let message = "Only one of address and nodeid should be provided.";
            return Err(RpcError::new(code::INVALID_PARAMS, message));
        }
    };
    let Some(peer) = peer else {
        let message = "Node not found in connected nodes";
        return Err(RpcError::new(code::CLIENT_NODE_NOT_CONNECTED, message));
    };
    peer.disconnect(reason);
    Ok(Value::Null)
}

fn get_added_node_info(context: &Context, args: &Args) -> RpcResult {
    let mut added = context.peers.added();
    if let Some(node) = args.optional_text(0)? {
        added.retain(|entry| entry.name == node);
        if added.is_empty() {
            let message = "Error: Node has not been added.";
            return Err(RpcError::new(code::CLIENT_NODE_NOT_ADDED, message));
        }
    }
    let infos = added.into_iter().map(|entry| {
        let addresses: Vec<Value> = entry
            .peer
            .iter()
            .map(|peer| {
                let direction = if peer.is_inbound() { "inbound" } else { "outbound" };
                json!({"address": peer.address.to_string(), "connected": direction})
            })
            .collect();
        let (name, connected) = (entry.name, entry.peer.is_some());
        json!({"addednode": name, "connected": connected, "addresses": addresses})
    });
    Ok(infos.collect())
}

fn get_net_totals(context: &Context, _: &Args) -> RpcResult {
    let (totals, now) = (context.peers.totals(), context.clock.now());
    let upload = &totals.upload;
    Ok(json!({
        "totalbytesrecv": totals.received.load(Ordering::Relaxed),
        "totalbytessent": upload.total(),
        "timemillis": u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        "uploadtarget": {
            "timeframe": TIMEFRAME.as_secs(),
            "target": upload.target(),
            "target_reached": upload.is_reached(),
            "serve_historical_blocks": !upload.is_reached_for_history(now),
            "bytes_left_in_cycle": upload.bytes_left(),
            "time_left_in_cycle": upload.time_left(now).as_secs(),
        },
    }))
}

/// Describes how a network is reached.
fn network(proxies: &ProxyConfig, net: Net) -> Value {
    let reachable = proxies.reaches(net);
    let proxy = proxies.of(net);
    json!({
        "name": net.name(),
        "limited": !reachable,
        "reachable": reachable,
        "proxy": proxy.map(|proxy| proxy.to_string()).unwrap_or_default(),
        "proxy_randomize_credentials": proxy.is_some() && proxies.randomize,
    })
}

fn get_network_info(context: &Context, _: &Args) -> RpcResult {
    let peers = context.peers.peers();
    let inbound = peers.iter().filter(|peer| peer.is_inbound()).count();
    let networks = Net::ALL.map(|net| network(context.peers.proxies(), net));
    let services = context.peers.services();
    let fee_rate = tx_json::amount(Amount::from_sat(100));
    let described = |address: &SocketAddr| json!({"address": address.ip().to_string(), "port": address.port(), "score": SCORE_OF_NAMED});
    let own: Vec<Value> = context.peers.own_addresses().iter().map(described).collect();
    Ok(json!({
        "version": CLIENT_VERSION,
        "subversion": context.user_agent,
        "protocolversion": PROTOCOL_VERSION,
        "localservices": format!("{services:016x}"),
        "localservicesnames": service_names(services),
        "localrelay": context.peers.relays_transactions(),
        "timeoffset": context.peers.time_offset(),
        "networkactive": context.peers.is_active(),
        "connections": peers.len(),
        "connections_in": inbound,
        "connections_out": peers.len() - inbound,
        "networks": networks,
        "relayfee": fee_rate,
        "incrementalfee": fee_rate,
        "localaddresses": own,
        "warnings": context.warnings.texts(),
    }))
}

fn send_message(context: &Context, args: &Args) -> RpcResult {
    let (id, command) = (args.integer::<i64>(0)?, args.text(1)?);
    if command.len() > MESSAGE_TYPE_LENGTH_MAX {
        let message = format!("Error: msg_type too long, max length is {MESSAGE_TYPE_LENGTH_MAX}");
        return Err(RpcError::new(code::INVALID_PARAMETER, message));
    }
    let payload = Vec::from_hex(args.text(2)?)
        .map_err(|_| RpcError::new(code::INVALID_PARAMETER, "Error parsing input for msg"))?;
    let peer = u64::try_from(id).ok().and_then(|id| context.peers.peer(id));
    let peer = peer
        .ok_or_else(|| RpcError::new(code::MISC_ERROR, "Error: Could not send message to peer"))?;
    peer.send_bytes(command.to_owned().into(), payload);
    Ok(json!({}))
}
