//! What happens when time passes; the node's clock is moved, so nobody waits.

use cofferdam_tests::process::wait_for;

use crate::fixture::{Logged, Peer, version};

const START: u64 = 1_800_000_000;

fn set_time(node: &Logged, after: u64) {
    node.call("setmocktime", &[&(START + after).to_string()]);
}

#[test]
fn who_says_too_little_in_the_first_seconds_is_dropped() {
    let time = format!("-mocktime={START}");
    let node = Logged::start(&["-v2transport=0", "-peertimeout=3", &time]);
    let mut half = Peer::connect(&node);
    half.send("version", &version(70_016, 9));
    half.expect("verack");
    let mut unknown = Peer::connect(&node);
    unknown.send("ping", &[0; 8]);
    node.logged("Message \"ping\" from peer=1");
    let mut mute = Peer::connect(&node);
    node.logged("Added connection peer=2");
    set_time(&node, 2);
    assert_eq!(node.node.rpc("getconnectioncount", &[]), 3);
    set_time(&node, 4);
    for peer in [&mut half, &mut unknown, &mut mute] {
        peer.wait_for_end();
    }
    node.logged("version handshake timeout, disconnecting peer=0");
    let start = "socket no message in first 3 seconds";
    node.logged(&format!("{start}, never sent to peer, disconnecting peer=1"));
    node.logged(&format!(
        "{start}, never received from peer, never sent to peer, disconnecting peer=2"
    ));
    node.logged("Cleared nodestate for peer=2");
    node.node.stop();
}

#[test]
fn pings_are_answered_in_time_or_the_connection_ends() {
    let time = format!("-mocktime={START}");
    let node = Logged::start(&["-v2transport=0", "-peertimeout=1", &time]);
    let mut peer = Peer::ready(&node);
    set_time(&node, 3);
    assert_eq!(node.peer()["pingwait"].as_f64(), Some(3.0));
    peer.send("pong", &[]);
    peer.settle();
    node.logged("pong peer=0: Short payload");
    assert!(node.peer()["pingwait"].is_null());
    set_time(&node, 200);
    let (_, nonce) = peer.expect("ping");
    set_time(&node, 229);
    peer.send("pong", &nonce);
    peer.settle();
    let info = node.peer();
    assert_eq!((info["pingtime"].as_f64(), info["minping"].as_f64()), (Some(29.0), Some(29.0)));
    node.call("ping", &[]);
    peer.expect("ping");
    // Other messages do not stand in for the pong.
    set_time(&node, 229 + 600);
    peer.settle();
    set_time(&node, 229 + 1201);
    peer.wait_for_end();
    node.logged("ping timeout: 1201.000000s, disconnecting peer=0");
    node.node.stop();
}

#[test]
fn bytes_of_half_a_message_are_counted() {
    let node = Logged::start(&["-v2transport=0"]);
    let mut peer = Peer::ready(&node);
    peer.settle();
    let total = |node: &Logged| node.node.rpc("getnettotals", &[])["totalbytesrecv"].as_u64();
    let before = total(&node).expect("a number");
    let ping = crate::fixture::frame("ping", &[9; 8]);
    peer.send_raw(&ping[..12]);
    wait_for("12 bytes more", || (total(&node) == Some(before + 12)).then_some(()));
    peer.send_raw(&ping[12..]);
    peer.expect("pong");
    node.node.stop();
}
