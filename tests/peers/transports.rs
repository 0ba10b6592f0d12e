//! The encrypted transport between nodes, and with those that do not know it.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use cofferdam_tests::process::wait_for;

use crate::fixture::{Logged, Peer};

fn connect(from: &Logged, to: &Logged, v2: &str) {
    let address = format!("127.0.0.1:{}", to.node.p2p_port);
    from.call("addnode", &[&address, "onetry", v2]);
}

fn transport(node: &Logged) -> Option<String> {
    let peers = node.node.rpc("getpeerinfo", &[]);
    peers[0]["transport_protocol_type"].as_str().map(str::to_owned)
}

#[test]
fn two_nodes_encrypt_and_agree_on_a_session() {
    let nodes = [Logged::start(&[]), Logged::start(&[])];
    connect(&nodes[0], &nodes[1], "true");
    nodes[0].logged("start sending v2 handshake to peer=0");
    for node in &nodes {
        wait_for("v2", || (transport(node).as_deref() == Some("v2")).then_some(()));
    }
    let sessions = nodes.each_ref().map(|node| node.peer()["session_id"].to_string());
    assert_eq!(sessions[0], sessions[1]);
    assert_eq!(sessions[0].len(), 64 + 2);
    nodes[0].call("generatetodescriptor", &["200", "raw(51)"]);
    wait_for("the blocks", || (nodes[1].node.height() == 200).then_some(()));
    let info = nodes[0].node.rpc("getnetworkinfo", &[]);
    assert_eq!(info["localservices"], "0000000000000c09");
    for node in nodes {
        node.node.stop();
    }
}

#[test]
fn a_plain_node_is_asked_in_plain_and_asks_in_plain() {
    let encrypted = Logged::start(&[]);
    let plain = Logged::start(&["-v2transport=0"]);
    connect(&encrypted, &plain, "true");
    encrypted.logged("retrying with v1 transport protocol for peer=0");
    wait_for("v1", || (transport(&encrypted).as_deref() == Some("v1")).then_some(()));
    encrypted.call("generatetodescriptor", &["5", "raw(51)"]);
    wait_for("the blocks", || (plain.node.height() == 5).then_some(()));
    let refused = plain.node.try_rpc("addnode", &["127.0.0.1:1", "onetry", "true"]);
    assert!(refused.expect_err("plain").contains("v2transport requested but not enabled"));
    plain.node.stop();
    encrypted.wait_for_peers(0);
    let mut peer = Peer::ready(&encrypted);
    peer.settle();
    assert_eq!(transport(&encrypted).as_deref(), Some("v1"));
    encrypted.node.stop();
}

/// Passes on what two sockets say; on demand the last byte of what the first one says is another.
fn pass_on(from: &TcpStream, to: &TcpStream, damage: &'static AtomicBool) {
    let pass = |mut from: TcpStream, mut to: TcpStream, damages: bool| {
        let work = move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                if damages && damage.swap(false, Ordering::SeqCst) {
                    bytes[count - 1] ^= 1;
                }
                if to.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
            // The other side is told, if it is still there.
            let _ = to.shutdown(Shutdown::Both);
        };
        std::thread::Builder::new().name("between".into()).spawn(work).expect("a thread")
    };
    let copy = |stream: &TcpStream| stream.try_clone().expect("a socket");
    drop(pass(copy(from), copy(to), true));
    drop(pass(copy(to), copy(from), false));
}

#[test]
fn a_packet_that_was_tampered_with_ends_the_connection() {
    static DAMAGE: AtomicBool = AtomicBool::new(false);
    let nodes = [Logged::start(&[]), Logged::start(&[])];
    let between = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = between.local_addr().expect("bound").to_string();
    let asked = std::thread::scope(|scope| {
        let asked = scope.spawn(|| between.accept().expect("the node").0);
        nodes[0].call("addnode", &[&address, "onetry", "true"]);
        asked.join().expect("a connection")
    });
    let onward = TcpStream::connect(("127.0.0.1", nodes[1].node.p2p_port)).expect("it listens");
    pass_on(&asked, &onward, &DAMAGE);
    wait_for("v2", || (transport(&nodes[1]).as_deref() == Some("v2")).then_some(()));
    DAMAGE.store(true, Ordering::SeqCst);
    nodes[0].call("ping", &[]);
    nodes[1].logged("V2 transport error: packet decryption failure (");
    nodes[1].wait_for_peers(0);
    for node in nodes {
        node.node.stop();
    }
}

#[test]
fn garbage_without_an_end_and_a_foreign_network_end_the_connection() {
    let node = Logged::start(&[]);
    let mut peer = Peer::connect(&node);
    peer.send_raw(&[0; 64 + 4095 + 16]);
    node.logged("V2 transport error: missing garbage terminator, peer=0");
    node.wait_for_peers(0);
    let mut peer = Peer::connect(&node);
    peer.send_raw(b"\x0a\x03\xcf\x40version\0\0\0\0\0somepayload");
    node.logged("V2 transport error: V1 peer with wrong MessageStart 0a03cf40, peer=1");
    node.wait_for_peers(0);
    node.node.stop();
}
