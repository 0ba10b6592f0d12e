//! `getpeerinfo`: what is known of one connection.

use bitcoin::Amount;
use serde_json::{Map, Value, json};

use super::{Context, RpcResult, tx_json};
use crate::config::Net;
use crate::p2p::{Kind, Peer, PeerState, seconds};

/// Returns what `getpeerinfo` tells of a peer.
pub(super) fn peer_info(context: &Context, peer: &Peer) -> RpcResult {
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
    if let Some(ours) = version.and_then(|version| version.receiver) {
        put("addrlocal", json!(ours.to_string()));
    }
    put("network", json!(network_name(context, peer)));
    if let Some(system) = context.peers.system(&context.peers.host(peer.address.ip())) {
        put("mapped_as", json!(system));
    }
    put("services", json!(format!("{services:016x}")));
    put("servicesnames", json!(service_names(services)));
    let is_silent = matches!(peer.kind, Kind::BlockRelayOnly | Kind::Feeler);
    put("relaytxes", json!(version.is_some_and(|version| version.relay) && !is_silent));
    put("last_inv_sequence", json!(0));
    put("inv_to_send", json!(0));
    put_traffic(&mut fields, context, peer, &state);
    let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    put("version", json!(version.map_or(0, |version| version.version)));
    put("subver", json!(version.map_or("", |version| version.user_agent.as_str())));
    put("inbound", json!(peer.is_inbound()));
    put("bip152_hb_to", json!(peer.link().announces_compact));
    put("bip152_hb_from", json!(state.wants_compact_unasked));
    let presynced = peer.gate().sync().map_or(-1, |sync| i64::from(sync.presync_height()));
    put("presynced_headers", json!(presynced));
    put("synced_headers", json!(synced_headers));
    put("synced_blocks", json!(state.common_height.map_or(-1, i64::from)));
    put("inflight", json!(owed));
    put("addr_relay_enabled", json!(peer.link().addresses.enabled));
    put("addr_processed", json!(peer.link().addresses.processed));
    put("addr_rate_limited", json!(peer.link().addresses.rate_limited));
    put("permissions", json!(peer.permissions.names()));
    put("minfeefilter", tx_json::amount(Amount::from_sat(state.fee_filter)));
    put("bytessent_per_msg", json!(state.sent.by_type));
    put("bytesrecv_per_msg", json!(state.received.by_type));
    put("connection_type", json!(peer.kind.name()));
    let transport = peer.transport().clone();
    put("transport_protocol_type", json!(transport.name));
    put("session_id", json!(transport.session_id));
    Ok(Value::Object(fields))
}

/// Adds times and amounts of what went to and fro.
fn put_traffic(fields: &mut Map<String, Value>, context: &Context, peer: &Peer, state: &PeerState) {
    let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    put("lastsend", json!(state.sent.last.as_secs()));
    put("lastrecv", json!(state.received.last.as_secs()));
    put("last_transaction", json!(0));
    put("last_block", json!(state.last_block.as_secs()));
    put("bytessent", json!(state.sent.bytes));
    put("bytesrecv", json!(state.received.bytes));
    put("conntime", json!(seconds(peer.connected_at)));
    put("timeoffset", json!(state.time_offset));
    let ping = &state.ping;
    let waiting = ping.waiting(context.clock.now());
    let last = ping.last.filter(|time| !time.is_zero());
    let waiting = waiting.filter(|time| !time.is_zero());
    for (name, time) in [("pingtime", last), ("minping", ping.min), ("pingwait", waiting)] {
        if let Some(time) = time {
            put(name, tx_json::float(time.as_secs_f64()));
        }
    }
}

fn network_name(context: &Context, peer: &Peer) -> &'static str {
    if peer.through_onion {
        return "onion";
    }
    let net = context.peers.proxies().net_of(peer.address.ip());
    net.map_or("not_publicly_routable", Net::name)
}

/// Returns the names of services; a bit without a name is told by its number.
pub(super) fn service_names(services: u64) -> Vec<String> {
    let bits = (0..u64::BITS).filter(|bit| services >> bit & 1 == 1);
    let name = |bit| match bit {
        0 => "NETWORK".into(),
        2 => "BLOOM".into(),
        3 => "WITNESS".into(),
        6 => "COMPACT_FILTERS".into(),
        10 => "NETWORK_LIMITED".into(),
        11 => "P2P_V2".into(),
        other => format!("UNKNOWN[2^{other}]"),
    };
    bits.map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_without_a_name_are_told_by_their_bit() {
        assert_eq!(service_names(0x409), ["NETWORK", "WITNESS", "NETWORK_LIMITED"]);
        assert_eq!(service_names(1 << 4 | 1 << 63), ["UNKNOWN[2^4]", "UNKNOWN[2^63]"]);
    }
}
