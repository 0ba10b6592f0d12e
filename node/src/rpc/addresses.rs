//! Calls about the addresses of nodes.

use serde_json::{Map, Value, json};

use super::call::{Args, json as required, optional, optional_text, text};
use super::{Context, Method, RpcError, RpcResult, code};
use crate::config::Net;
use crate::p2p::{AddressCounts, AddressEntry, Host, NodeAddr};

/// What a node is taken to offer that a user adds: blocks with their witnesses.
const USUAL_SERVICES: u64 = 1 | 8;

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
    let parse = |name: &str| {
        let net = Net::parse(&name.to_ascii_lowercase());
        let message = format!("Network not recognized: {name}");
        net.ok_or_else(|| RpcError::new(code::INVALID_PARAMETER, message))
    };
    let network = network.map(parse).transpose()?;
    let found = context.peers.sample_addresses(count, network);
    let describe = |entry: &AddressEntry| {
        json!({
            "time": entry.time,
            "services": entry.services,
            "address": entry.address.host.to_string(),
            "port": entry.address.port,
            "network": entry.address.host.net_name(),
        })
    };
    Ok(found.iter().map(describe).collect())
}

fn get_raw_addrman(context: &Context, _: &Args) -> RpcResult {
    let table = |tried: bool| -> Map<String, Value> {
        let places = context.peers.with_addresses(|manager| manager.places(tried));
        let describe = |((bucket, position), entry): ((u32, u32), AddressEntry)| {
            let mut fields = json!({
                "address": entry.address.host.to_string(),
                "port": entry.address.port,
                "services": entry.services,
                "time": entry.time,
                "network": entry.address.host.net_name(),
                "source": entry.source.to_string(),
                "source_network": entry.source.net_name(),
            });
            for (name, host) in
                [("mapped_as", entry.address.host), ("source_mapped_as", entry.source)]
            {
                if let (Some(system), Some(fields)) =
                    (context.peers.system(&host), fields.as_object_mut())
                {
                    fields.insert(name.into(), system.into());
                }
            }
            (format!("{bucket}/{position}"), fields)
        };
        places.into_iter().map(describe).collect()
    };
    Ok(json!({"new": table(false), "tried": table(true)}))
}

fn add_peer_address(context: &Context, args: &Args) -> RpcResult {
    /// Bitcoin Core's `RPC_CLIENT_INVALID_IP_OR_SUBNET`.
    const INVALID_IP: i32 = -30;
    let host: Host =
        args.text(0)?.parse().map_err(|_| RpcError::new(INVALID_IP, "Invalid IP address"))?;
    let host = host.ip().map_or(host, |ip| context.peers.host(ip));
    let port = args.integer(1)?;
    let tried = args.optional_flag(2)?.unwrap_or(false);
    let (address, now) = (NodeAddr { host, port }, context.clock.now().as_secs());
    let (added, moved) = context.peers.with_addresses(|manager| {
        let added = manager.add((address, USUAL_SERVICES, now), host, 0, now);
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
    let counts = |net| context.peers.with_addresses(|manager| manager.counts(net));
    let show = |counts: AddressCounts| json!({"new": counts.new, "tried": counts.tried, "total": counts.new + counts.tried});
    let mut fields = Map::new();
    for net in Net::ALL {
        fields.insert(net.name().into(), show(counts(Some(net))));
    }
    fields.insert("all_networks".into(), show(counts(None)));
    Ok(Value::Object(fields))
}
