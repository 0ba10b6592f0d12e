//! Peers that the node chose: which of them it gives up, and what it keeps of them.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use bitcoin::Block;
use bitcoin::BlockHash;
use bitcoin::consensus::serialize;
use bitcoin::p2p::message_blockdata::Inventory;
use cofferdam_tests::process::{run, said, wait_for};

use super::fixture::{BINARY, Logged, Peer, version};
use super::relay::{ADDRESS, headers, inventory, mined, settle, was_sent};

/// A peer that the node chose, and which serves blocks.
pub(crate) fn chosen(node: &Logged) -> Peer {
    let mut peer = node.connects("outbound-full-relay");
    peer.expect("version");
    peer.send("version", &version(70_016, 9));
    peer.expect("verack");
    peer.send("verack", &[]);
    peer
}

/// Sets the node's clock to that many seconds after the last of these blocks.
pub(crate) fn set_time(node: &Logged, blocks: &[Block], after: u32) {
    let last = blocks.last().map_or(0, |block| block.header.time);
    node.call("setmocktime", &[&(last + after).to_string()]);
}

/// A node with these blocks, whose clock stands still.
fn with_blocks(blocks: &[Block]) -> Logged {
    let node = Logged::start(&["-peertimeout=999999999"]);
    set_time(&node, blocks, 1);
    let mut source = Peer::ready(&node);
    for block in blocks {
        source.send("block", &serialize(block));
    }
    source.settle();
    node.call("disconnectnode", &["", "0"]);
    source.wait_for_end();
    node.wait_for_peers(0);
    node
}

#[test]
fn a_chosen_peer_that_falls_behind_is_asked_once_and_replaced() {
    let blocks = mined(3);
    let node = with_blocks(&blocks);
    let mut behind = chosen(&node);
    behind.expect("getheaders");
    behind.send("headers", &headers(&blocks[..2]));
    behind.settle();
    set_time(&node, &blocks, 1300);
    behind.expect("getheaders");
    node.logged("to verify chain work (current best known block:");
    // Who reaches what was the tip then may stay.
    behind.send("headers", &headers(&blocks));
    behind.settle();
    node.logged("Protecting outbound peer=1 from eviction");
    let mut silent = chosen(&node);
    silent.expect("getheaders");
    set_time(&node, &blocks, 2600);
    silent.expect("getheaders");
    set_time(&node, &blocks, 2800);
    silent.wait_for_end();
    node.logged("Outbound peer has old chain, best known block = <none>, disconnecting peer=2");
    behind.settle();
}

#[test]
fn a_node_that_prunes_does_not_tell_how_far_back_it_goes() {
    let node = Logged::start(&["-prune=550"]);
    let hashes = node.node.rpc("generatetoaddress", &["292", ADDRESS]);
    let hash = |index: usize| -> BlockHash {
        hashes[index].as_str().expect("a hash").parse().expect("a hash")
    };
    let mut peer = Peer::ready(&node);
    peer.send("getdata", &inventory(&[Inventory::WitnessBlock(hash(1))]));
    assert!(was_sent(&settle(&mut peer), "block"));
    peer.send("getdata", &inventory(&[Inventory::WitnessBlock(hash(0))]));
    peer.wait_for_end();
    node.logged("Ignore block request below NODE_NETWORK_LIMITED threshold, disconnecting peer=0");
}

#[test]
fn peers_for_blocks_alone_are_connected_to_again_after_a_restart() {
    let node = Logged::automatic(&["-dnsseed=0"]);
    let mut peer = node.connects("block-relay-only");
    peer.expect("version");
    peer.send("version", &version(70_016, 9));
    peer.expect("verack");
    peer.send("verack", &[]);
    peer.settle();
    let peer = node.peer();
    let address = peer["addr"].as_str().expect("an address");
    let node = node.restart(&["-dnsseed=0"]);
    node.logged("1 block-relay-only anchors will be tried for connections.");
    node.logged(&format!("Trying to make an anchor connection to {address}"));
    // It was not there: it is no anchor any more.
    let node = node.restart(&["-dnsseed=0"]);
    node.logged("0 block-relay-only anchors will be tried for connections.");
}

#[test]
fn a_peer_of_addnode_takes_no_automatic_place() {
    // A proxy that is none lets no connection out.
    let args = ["-dnsseed=0", "-fixedseeds=0", "-proxy=127.0.0.1:1", "-addnode=1.2.3.4:18444"];
    let node = Logged::automatic(&args);
    node.call("addpeeraddress", &["1.2.3.4", "18444"]);
    node.logged("connection (manual) to 1.2.3.4:18444");
    // Each attempt is logged before the next: a few to the only other address.
    node.call("addpeeraddress", &["5.6.7.8", "18444"]);
    let automatic = "connection (outbound-full-relay) to ";
    wait_for("attempts", || (node.log().matches(automatic).count() >= 6).then_some(()));
    let other = format!("{automatic}5.6.7.8:18444");
    let log = node.log();
    assert_eq!(log.matches(automatic).count(), log.matches(&other).count());
    node.node.stop();
}

#[test]
fn a_start_that_ends_since_it_cannot_listen_takes_no_anchors() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let anchors = dir.path().join("regtest/anchors.dat");
    std::fs::create_dir(dir.path().join("regtest")).expect("a folder");
    std::fs::write(&anchors, "kept").expect("written");
    let taken = TcpListener::bind("127.0.0.1:0").expect("binds");
    let bind = format!("-bind={}", taken.local_addr().expect("bound"));
    let output = run(BINARY, dir.path(), &["-regtest", "-backend=sled", "-server=0", &bind]);
    assert!(said(&output).contains("Unable to bind to 127.0.0.1:"), "{}", said(&output));
    assert_eq!(std::fs::read(&anchors).expect("still there"), b"kept");
}

#[test]
fn seeds_are_asked_at_once_only_by_who_knows_nobody() {
    let node = Logged::automatic(&["-dnsseed=1", "-seednode=0.0.0.1"]);
    node.logged("Empty addrman, adding seednode (0.0.0.1) to addrfetch");
    let node = node.restart(&["-dnsseed=1"]);
    node.logged("Loading addresses from DNS seed dummySeed.invalid.");
    node.call("addpeeraddress", &["192.0.0.8", "8333"]);
    let node = node.restart(&["-dnsseed=1"]);
    node.logged("Waiting 11 seconds before querying DNS seeds.");
}

#[test]
fn fixed_seeds_are_used_at_once_by_who_asks_nobody_and_else_after_a_minute() {
    let node = Logged::automatic(&["-dnsseed=0", "-fixedseeds=0"]);
    node.logged("Fixed seeds are disabled");
    let node = node.restart(&["-dnsseed=0"]);
    node.logged("Adding fixed seeds as -dnsseed=0 (or IPv4/IPv6 connections are disabled via -onlynet) and neither -addnode nor -seednode are provided");
    // Regtest has none.
    node.logged("Added 0 fixed seeds from reachable networks.");
    let start = 1_700_000_000_u32;
    let mock = format!("-mocktime={start}");
    let node = node.restart(&["-dnsseed=0", "-addnode=127.0.0.1:1", &mock]);
    node.logged("opencon thread start");
    node.call("setmocktime", &[&(start + 65).to_string()]);
    node.logged("Adding fixed seeds as 60 seconds have passed and addrman is empty");
}

#[test]
fn a_network_that_is_off_at_the_start_has_no_peers_until_it_is_switched_on() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let option = format!("-addnode={}", listener.local_addr().expect("bound"));
    let node = Logged::start(&["-networkactive=0", &option]);
    node.logged("SetNetworkActive: false");
    Peer::connect(&node).wait_for_end();
    node.logged("dropped: not accepting new connections");
    let info = node.node.rpc("getnetworkinfo", &[]);
    assert_eq!((&info["networkactive"], &info["connections"]), (&false.into(), &0.into()));
    listener.set_nonblocking(true).expect("a socket");
    assert!(listener.accept().is_err(), "the node connected all the same");
    listener.set_nonblocking(false).expect("a socket");
    node.call("setnetworkactive", &["true"]);
    let _peer = listener.accept().expect("the node");
    drop(Peer::ready(&node));
}

#[test]
fn an_added_peer_is_known_by_its_address_however_it_is_written() {
    let node = Logged::start(&["-networkactive=0", "-addnode=1.2.3.4"]);
    node.call("addnode", &["127.0.0.1:7", "add"]);
    for name in ["127.0.0.1:7", "127.1:7", "[::ffff:127.0.0.1]:7", "1.2.3.4:18444", "1.2.3.4"] {
        let error = node.node.try_rpc("addnode", &[name, "add"]).expect_err("added again");
        assert!(error.contains("Error: Node already added"), "{name}: {error}");
    }
    let error = node.node.try_rpc("addnode", &["127.1:7", "remove"]).expect_err("another name");
    assert!(error.contains("It has not been added previously"), "{error}");
    node.call("addnode", &["127.1:8", "add"]);
}

/// What a proxy without a user is asked for, and the connection to it.
fn proxied(proxy: &TcpListener) -> (Vec<u8>, TcpStream) {
    let (mut stream, _) = proxy.accept().expect("a connection");
    (answered(&mut stream), stream)
}

/// What a proxy without a user is asked for on a connection.
fn answered(stream: &mut TcpStream) -> Vec<u8> {
    // With a name and a password of its own, if the proxy likes.
    let mut methods = [0; 4];
    stream.read_exact(&mut methods).expect("asked");
    assert_eq!(methods, [5, 2, 0, 2]);
    stream.write_all(&[5, 0]).expect("answered");
    let mut head = [0; 5];
    stream.read_exact(&mut head).expect("asked");
    assert_eq!(head[..4], [5, 1, 0, 3]);
    let mut host = vec![0; usize::from(head[4]) + 2];
    stream.read_exact(&mut host).expect("asked");
    stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).expect("answered");
    host
}

#[test]
fn a_connection_that_was_under_way_when_the_network_went_off_ends() {
    let proxy = TcpListener::bind("127.0.0.1:0").expect("binds");
    let option = format!("-proxy={}", proxy.local_addr().expect("bound"));
    let node = Logged::start(&[&option, "-v2transport=0"]);
    std::thread::scope(|scope| {
        // The call returns when the proxy has answered.
        scope.spawn(|| node.call("addnode", &["node.noumenon:8333", "onetry"]));
        let (mut stream, _) = proxy.accept().expect("a connection");
        node.call("setnetworkactive", &["false"]);
        answered(&mut stream);
        assert_eq!(stream.read(&mut [0]).expect("a socket"), 0, "the node talks");
    });
    node.wait_for_peers(0);
}

/// Every address is of system 20,000: the program has one step, in which the lowest bit of each byte
/// comes first.
const ASMAP: [u8; 3] = [0xe4, 0xf0, 0x01];

#[test]
fn peers_are_told_with_their_autonomous_systems() {
    let proxy = TcpListener::bind("127.0.0.1:0").expect("binds");
    let (dir, option) = (
        tempfile::tempdir().expect("a temporary directory"),
        format!("-proxy={}", proxy.local_addr().expect("bound")),
    );
    let map = dir.path().join("asmap");
    std::fs::write(&map, ASMAP).expect("room");
    let node = Logged::start(&[&option, "-v2transport=0", &format!("-asmap={}", map.display())]);
    let system = |name: &str| {
        let stream = std::thread::scope(|scope| {
            let asked = scope.spawn(|| proxied(&proxy));
            node.call("addnode", &[name, "onetry"]);
            asked.join().expect("a proxy").1
        });
        node.wait_for_peers(1);
        let peer = node.peer();
        drop(stream);
        node.wait_for_peers(0);
        peer.get("mapped_as").cloned()
    };
    assert_eq!(system("15.61.23.23:1234"), Some(20_000.into()));
    // Of what the proxy connects to nothing is known but the name.
    assert_eq!(system("node.noumenon:8333"), None);
    let _near = node.connects("outbound-full-relay");
    assert_eq!(node.peer().get("mapped_as"), None);
}

#[test]
fn connections_go_through_the_proxy_and_names_are_left_to_it() {
    let proxy = TcpListener::bind("127.0.0.1:0").expect("binds");
    let option = format!("-proxy={}", proxy.local_addr().expect("bound"));
    let node = Logged::start(&[&option, "-v2transport=0"]);
    for name in ["node.noumenon:8333", "15.61.23.23:1234"] {
        // The call returns when the proxy has answered.
        let (asked, stream) = std::thread::scope(|scope| {
            let asked = scope.spawn(|| proxied(&proxy));
            node.call("addnode", &[name, "onetry"]);
            asked.join().expect("a proxy")
        });
        let (host, port) = name.rsplit_once(':').expect("a port");
        let port = port.parse::<u16>().expect("a number").to_be_bytes();
        assert_eq!(asked, [host.as_bytes(), &port].concat());
        node.wait_for_peers(1);
        assert_eq!(node.peer()["addr"], name);
        drop(stream);
        node.wait_for_peers(0);
    }
    let info = node.node.rpc("getnetworkinfo", &[]);
    assert_eq!(info["networks"][0]["proxy"], option["-proxy=".len()..]);
    node.call("addnode", &["abc.b32.i2p:0", "onetry"]);
    node.logged("no proxy for abc.b32.i2p");
    // What is on this machine is not the proxy's to reach.
    let _near = node.connects("outbound-full-relay");
}
