//! Calls about the addresses of nodes.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Map, Value, json};

use super::call::{Args, json as required, optional, optional_text, text};
use super::{Context, Method, RpcError, RpcResult, code};
use crate::p2p::Family;

/// What a node is taken to offer that a user adds: blocks with their witnesses.
const USUAL_SERVICES: u64 = 1 | 8;

/// Networks that Bitcoin Core knows.
const NETWORKS: [&str; 5] = ["ipv4", "ipv6", "onion", "i2p", "cjdns"];

pub(super) const METHODS: &[Method] = &[
    Method {
        name: "addpeeraddress",
        params: &[text("address"), required("port"), optional("tried")],
        run: add_peer_address,
    },
    Method { name: "getaddrmaninfo", params: &[], run: get_addrman_info },
    Method {
        name: "getnodeaddresses",
        params: &[optional("count"), optional_text("network")],
        run: get_node_addresses,
    },
    Method { name: "getrawaddrman", params: &[], run: get_raw_addrman },
];

fn get_node_addresses(context: &Context, args: &Args) -> RpcResult {
    let count = args.optional_integer::<i32>(0)?.unwrap_or(1);
    let count = usize::try_from(count)
        .map_err(|_| RpcError::new(code::INVALID_PARAMETER, "Address count out of range"))?;
    let network = args.optional_text(1)?;
    if let Some(name) = network.filter(|name| !NETWORKS.contains(name)) {
        let message = format!("Network not recognized: {name}");
        return Err(RpcError::new(code::INVALID_PARAMETER, message));
    }
    let family = match network {
        None => None,
        Some("ipv4") => Some(Family::Ipv4),
        Some("ipv6") => Some(Family::Ipv6),
        Some(_) => return Ok(json!([])),
    };
    let found = context.peers.sample_addresses(count, family);
    let describe = |entry: &crate::p2p::AddressEntry| {
        json!({
            "time": entry.time,
            "services": entry.services,
            "address": entry.address.ip().to_string(),
            "port": entry.address.port(),
            "network": network_name(entry.address.ip()),
        })
    };
    Ok(found.iter().map(describe).collect())
}

fn get_raw_addrman(context: &Context, _: &Args) -> RpcResult {
    let table = |tried: bool| -> Map<String, Value> {
        let places = context.peers.with_addresses(|manager| manager.places(tried));
        let describe = |((bucket, position), entry): ((u64, u64), crate::p2p::AddressEntry)| {
            let fields = json!({
                "address": entry.address.ip().to_string(),
                "port": entry.address.port(),
                "services": entry.services,
                "time": entry.time,
                "network": network_name(entry.address.ip()),
                "source": entry.source.to_string(),
                "source_network": network_name(entry.source),
            });
            (format!("{bucket}/{position}"), fields)
        };
        places.into_iter().map(describe).collect()
    };
    Ok(json!({"new": table(false), "tried": table(true)}))
}

/// Returns the name of an address's network; addresses of no use outside have a name of their own.
fn network_name(ip: IpAddr) -> &'static str {
    match ip {
        _ if !crate::p2p::is_routable(ip) => "not_publicly_routable",
        IpAddr::V4(_) => "ipv4",
        IpAddr::V6(_) => "ipv6",
    }
}

fn add_peer_address(context: &Context, args: &Args) -> RpcResult {
    /// Bitcoin Core's `RPC_CLIENT_INVALID_IP_OR_SUBNET`.
    const INVALID_IP: i32 = -30;
    let ip: IpAddr = args
        .text(0)?
        .trim_matches(['[', ']'])
        .parse()
        .map_err(|_| RpcError::new(INVALID_IP, "Invalid IP address"))?;
    let port = args.integer(1)?;
    let tried = args.optional_flag(2)?.unwrap_or(false);
    let (address, now) = (SocketAddr::new(ip, port), context.clock.now().as_secs());
    let (added, moved) = context.peers.with_addresses(|manager| {
        let added = manager.add((address, USUAL_SERVICES, now), ip, 0, now);
        let moved = added && tried && manager.good(address, now);
        (added, moved)
    });
    Ok(match (added, tried, moved) {
        (false, ..) => json!({"error": "failed-adding-to-new", "success": false}),
        (true, true, false) => json!({"error": "failed-adding-to-tried", "success": false}),
        _ => json!({"success": true}),
    })
}

fn get_addrman_info(context: &Context, _: &Args) -> RpcResult {
    let counts = |family| context.peers.with_addresses(|manager| manager.counts(family));
    let show = |counts: crate::p2p::AddressCounts| json!({"new": counts.new, "tried": counts.tried, "total": counts.new + counts.tried});
    let mut fields = Map::new();
    for name in NETWORKS {
        let counts = match name {
            "ipv4" => counts(Some(Family::Ipv4)),
            "ipv6" => counts(Some(Family::Ipv6)),
            _ => crate::p2p::AddressCounts::default(),
        };
        fields.insert(name.into(), show(counts));
    }
    fields.insert("all_networks".into(), show(counts(None)));
    Ok(Value::Object(fields))
}
