//! What is said before two are ready, by each kind of connection.

use serde_json::json;

use crate::fixture::{Logged, Peer, version};

#[test]
fn nothing_is_said_to_a_stranger_and_then_all_in_cores_order() {
    let node = Logged::start(&["-v2transport=0"]);
    let mut peer = Peer::connect(&node);
    peer.send("ping", &[0; 8]);
    node.logged("non-version message before version handshake. Message \"ping\" from peer=0");
    peer.send("version", &version(70_016, 9));
    let (before, _) = peer.expect("verack");
    assert_eq!(before, ["version", "wtxidrelay", "sendaddrv2"]);
    peer.send("ping", &[0; 8]);
    node.logged("Unsupported message \"ping\" prior to verack from peer=0");
    peer.send("version", &version(70_016, 9));
    node.logged("redundant version message from peer=0");
    peer.send("verack", &[]);
    assert_eq!(peer.expect("ping").0, ["sendcmpct"]);
    peer.send("verack", &[]);
    peer.settle();
    node.logged("ignoring redundant verack message from peer=0");
    peer.send("sendaddrv2", &[]);
    peer.wait_for_end();
    node.logged("sendaddrv2 received after verack, disconnecting peer=0");
    node.node.stop();
}

#[test]
fn each_kind_of_connection_ends_where_its_use_does() {
    let node = Logged::start(&["-v2transport=0"]);
    for kind in ["outbound-full-relay", "block-relay-only", "addr-fetch"] {
        let mut peer = node.connects(kind);
        assert_eq!(peer.read().map(|(command, _)| command).as_deref(), Some("version"));
        peer.send("version", &version(70_016, 8));
        peer.wait_for_end();
        node.logged("does not offer the expected services (00000008 offered, 00000009 expected)");
        node.wait_for_peers(0);
        let mut peer = node.connects(kind);
        peer.send("version", &version(70_016, 9));
        peer.expect("verack");
        assert_eq!(node.peer()["connection_type"], kind);
        peer.send("verack", &[]);
        let asks = peer.expect("ping").0.contains(&String::from("getaddr"));
        assert_eq!(asks, kind != "block-relay-only");
        drop(peer);
        node.wait_for_peers(0);
    }
    let mut peer = node.connects("feeler");
    let (_, hello) = peer.read().expect("its version");
    assert_eq!(hello.last(), Some(&0), "a feeler wants no transactions");
    peer.send("version", &version(70_016, 0));
    peer.wait_for_end();
    node.logged("feeler connection completed, disconnecting peer=");
    let own = format!("127.0.0.1:{}", node.node.p2p_port);
    node.call("addconnection", &[&own, "outbound-full-relay", "false"]);
    node.logged("connected to self at 127.0.0.1:");
    node.wait_for_peers(0);
    node.node.stop();
}

#[test]
fn a_peer_of_an_obsolete_version_is_refused() {
    let node = Logged::start(&["-v2transport=0"]);
    let mut peer = Peer::connect(&node);
    peer.send("version", &version(31_799, 9));
    peer.wait_for_end();
    node.logged("peer using obsolete version 31799, disconnecting peer=0");
    node.node.stop();
}

#[test]
fn places_for_outbound_connections_are_limited_by_kind() {
    let node = Logged::start(&["-v2transport=0"]);
    let mut peers = Vec::new();
    for (kind, places) in [("outbound-full-relay", 8), ("block-relay-only", 2)] {
        peers.extend((0..places).map(|_| node.connects(kind)));
        let more = node.node.try_rpc("addconnection", &["127.0.0.1:1", kind, "false"]);
        let text = "Already at capacity for specified connection type";
        assert!(more.expect_err("full").contains(text), "{kind}");
    }
    peers.extend([Peer::ready(&node), Peer::ready(&node)]);
    let info = node.node.rpc("getnetworkinfo", &[]);
    let counts =
        ["connections", "connections_in", "connections_out"].map(|name| info[name].clone());
    assert_eq!(counts, [12, 2, 10], "{info}");
    node.call("setnetworkactive", &["false"]);
    node.wait_for_peers(0);
    node.logged("SetNetworkActive: false");
    node.node.stop();
}

#[test]
fn the_addresses_of_peers_are_in_the_log_for_those_who_want_them() {
    for (args, has_address) in [(&["-logips"][..], true), (&[], false)] {
        let node = Logged::start(args);
        let peer = Peer::ready(&node);
        let address = node.peer()["addr"].as_str().expect("an address").to_owned();
        drop(peer);
        let told =
            if has_address { format!("peer=0, peeraddr={address}") } else { "peer=0".into() };
        for line in ["receive version message: ", "New inbound peer connected: ", "disconnecting "]
        {
            let found = node.line(line);
            assert!(found.contains(&told), "{found}");
            assert_eq!(found.contains(&address), has_address, "{found}");
        }
        node.node.stop();
    }
}

#[test]
fn a_clock_that_is_off_is_warned_of_until_new_peers_say_otherwise() {
    const NOW: i64 = 1_800_000_000;
    let node = Logged::start(&["-v2transport=0", &format!("-mocktime={NOW}")]);
    let said = |offset: i64| {
        let mut said = version(70_016, 9);
        said[12..20].copy_from_slice(&(NOW + offset).to_le_bytes());
        said
    };
    let warnings = |method: &str| node.node.rpc(method, &[])["warnings"].clone();
    let probe = |offset: i64| {
        let mut peer = node.connects("feeler");
        peer.expect("version");
        peer.send("version", &said(offset));
        peer.wait_for_end();
    };
    // Who comes may say anything.
    for _ in 0..5 {
        let mut peer = Peer::connect(&node);
        peer.send("version", &said(3600));
        peer.expect("verack");
    }
    for _ in 0..4 {
        probe(601);
    }
    assert_eq!(warnings("getnetworkinfo"), json!([]));
    probe(601);
    for method in ["getnetworkinfo", "getblockchaininfo", "getmininginfo"] {
        let text = warnings(method)[0].to_string();
        assert!(text.contains("more than 10 minutes out of sync with the network"), "{text}");
    }
    // Those who said so have gone.
    assert_eq!(node.node.rpc("getnetworkinfo", &[])["timeoffset"], 601);
    for _ in 0..6 {
        probe(600);
    }
    assert_eq!(warnings("getnetworkinfo"), json!([]));
    assert_eq!(node.node.rpc("getnetworkinfo", &[])["timeoffset"], 600);
}
