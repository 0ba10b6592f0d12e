//! Who may connect, and who may stay.

use crate::fixture::{Logged, Peer};

#[test]
fn a_banned_peer_is_refused_also_after_a_restart_unless_it_has_permission() {
    let node = Logged::start(&["-v2transport=0"]);
    let anew = "Recreating the banlist database";
    node.logged(anew);
    let mut peer = Peer::ready(&node);
    node.call("setban", &["127.0.0.0/24", "add", "1000"]);
    peer.wait_for_end();
    let again = node.node.try_rpc("setban", &["127.0.0.1", "add"]).expect_err("banned");
    assert!(again.contains("Error: IP/Subnet already banned"), "{again}");
    let invalid = node.node.try_rpc("setban", &["127.0.0.1/42", "add"]).expect_err("no address");
    assert!(invalid.contains("Error: Invalid IP/Subnet"), "{invalid}");
    let ban = node.node.rpc("listbanned", &[])[0].take();
    assert_eq!((&ban["address"], &ban["ban_duration"]), (&"127.0.0.0/24".into(), &1000.into()));
    let node = node.restart(&["-v2transport=0"]);
    Peer::connect(&node).wait_for_end();
    node.logged("dropped (banned)");
    let node = node.restart(&["-v2transport=0", "-whitelist=127.0.0.1"]);
    let peer = Peer::ready(&node);
    let permissions = serde_json::json!(["noban", "relay", "mempool", "download"]);
    assert_eq!(node.peer()["permissions"], permissions);
    drop(peer);
    node.call("setban", &["127.0.0.0/24", "remove"]);
    let node = node.restart(&["-v2transport=0", "-bantime=1234"]);
    let _peer = Peer::ready(&node);
    assert_eq!(node.peer()["permissions"], serde_json::json!([]));
    node.call("setban", &["1.2.3.4", "add"]);
    assert_eq!(node.node.rpc("listbanned", &[])[0]["ban_duration"], 1234);
    assert_eq!(node.log().matches(anew).count(), 1);
    node.node.stop();
}

#[test]
fn a_banned_address_is_neither_connected_to_nor_told_of() {
    // A proxy that is none lets no connection out.
    let args = ["-dnsseed=0", "-v2transport=0", "-whitelist=addr@127.0.0.1", "-proxy=127.0.0.1:1"];
    let node = Logged::automatic(&args);
    for first in 1..=9 {
        node.call("setban", &[&format!("{first}.2.3.4"), "add"]);
    }
    let mut peer = Peer::ready(&node);
    let mut told = vec![10];
    for first in (1..=9).chain([11]) {
        told.extend(1_700_000_000_u32.to_le_bytes());
        told.extend([9, 1, 4, first, 2, 3, 4, 0x48, 0x0c]);
        node.call("addpeeraddress", &[&format!("{first}.2.3.4"), "18444"]);
    }
    peer.send("addrv2", &told);
    peer.settle();
    node.logged("Received addr: 10 addresses (1 processed, 0 rate-limited) from peer=0");
    let line = node.line("connection (outbound-full-relay) to ");
    assert!(line.contains(" to 11.2.3.4:18444"), "{line}");
    node.node.stop();
}

#[test]
fn addresses_of_networks_that_are_not_connected_to_are_not_kept() {
    let args =
        ["-v2transport=0", "-whitelist=addr@127.0.0.1", "-onlynet=ipv6", "-mocktime=1800000000"];
    let node = Logged::start(&args);
    let mut peer = Peer::ready(&node);
    let mut told = vec![2];
    for (net, ip) in
        [(1, &[8, 2, 3, 4][..]), (2, &[0x20, 1, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])]
    {
        told.extend(1_800_000_000_u32.to_le_bytes());
        told.extend([9, net, u8::try_from(ip.len()).expect("short")]);
        told.extend(ip);
        told.extend([0x20, 0x8d]);
    }
    peer.send("addrv2", &told);
    peer.settle();
    node.logged("Added 1 addresses (of 1) from 127.0.0.1: 0 tried, 1 new");
    node.node.stop();
}

#[test]
fn a_peer_with_permission_is_not_punished() {
    let node = Logged::start(&["-v2transport=0", "-whitelist=noban@127.0.0.1"]);
    let mut peer = Peer::ready(&node);
    peer.send("inv", &[&[0xfd, 0x51, 0xc3][..], &[0; 50_001 * 36]].concat());
    peer.settle();
    node.logged("Misbehaving: peer=0: inv message size = 50001");
    node.logged("Not punishing noban peer 0!");
    node.node.stop();
}

#[test]
fn a_full_node_keeps_those_it_has_and_the_door_for_new_ones() {
    // Three places for inbound peers besides the eleven for outbound ones.
    let node = Logged::start(&["-v2transport=0", "-maxconnections=14"]);
    let peers: Vec<Peer> = (0..3).map(|_| Peer::ready(&node)).collect();
    Peer::connect(&node).wait_for_end();
    node.logged("failed to find an eviction candidate - connection dropped (full)");
    assert_eq!(node.node.rpc("getconnectioncount", &[]), 3);
    drop(peers);
    node.wait_for_peers(0);
    let _peer = Peer::ready(&node);
    node.node.stop();
}
