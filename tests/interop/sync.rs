//! One mines, the other follows: from a long chain, and block by block; over both transports.

use cofferdam_tests::daemon::{ADDRESS, Daemon, wait_until};
use serde_json::{Value, json};

use crate::pair::{Pair, Who, connect_to};

/// Blocks of the chain that is there before the follower.
const LONG: u64 = 5_000;
/// Blocks that come one after the other.
const TIPS: u64 = 12;

/// How the one connection that a node has is encrypted.
fn transport(node: &Daemon) -> Value {
    let peers = node.rpc("getpeerinfo", json!([]));
    assert_eq!(peers.as_array().map(Vec::len), Some(1), "{peers}");
    peers[0]["transport_protocol_type"].clone()
}

/// `follower` comes to a chain of `blocks` that `miner` has, dials, and follows from then on.
fn check(miner: Who, blocks: u64, v2: bool) {
    let Some(pair) = Pair::new() else { return };
    let transport_arg = format!("-v2transport={}", u8::from(v2));
    let leader = pair.start(miner, &[&transport_arg]);
    assert_eq!(leader.mine(blocks).as_array().map(Vec::len), usize::try_from(blocks).ok());

    let follower = pair.start(miner.other(), &[&transport_arg, &connect_to(&leader)]);
    follower.follow(&leader);
    assert_eq!(follower.height(), blocks);
    assert_eq!(follower.state(), leader.state());
    let expected = if v2 { "v2" } else { "v1" };
    assert_eq!((transport(&follower), transport(&leader)), (json!(expected), json!(expected)));

    for number in 0..TIPS {
        let descriptor =
            if number % 2 == 0 { "raw(51)".to_owned() } else { format!("addr({ADDRESS})") };
        let _ = leader.rpc("generatetodescriptor", json!([1, descriptor]));
        follower.follow(&leader);
    }
    assert_eq!(follower.state(), leader.state());
    // Both are out of the initial download, and neither holds anything against the other.
    for node in [&follower, &leader] {
        let info = node.rpc("getblockchaininfo", json!([]));
        assert_eq!(info["initialblockdownload"], false);
        assert_eq!(info["headers"], info["blocks"]);
        assert_eq!(node.rpc("getconnectioncount", json!([])), 1);
    }
    follower.stop();
    leader.terminate();
}

#[test]
fn we_follow_core_over_v1() {
    check(Who::Core, 300, false);
}

#[test]
fn core_follows_us_over_v1() {
    check(Who::Ours, 300, false);
}

#[test]
fn we_follow_core_over_v2() {
    check(Who::Core, 300, true);
}

#[test]
fn core_follows_us_over_v2() {
    check(Who::Ours, 300, true);
}

#[test]
fn we_sync_5000_blocks_from_core() {
    check(Who::Core, LONG, true);
}

#[test]
fn core_syncs_5000_blocks_from_us() {
    check(Who::Ours, LONG, true);
}

/// A v2 node dials one that speaks v1 only, both ways: it falls back.
fn check_fallback(dialler: Who) {
    let Some(pair) = Pair::new() else { return };
    let old = pair.start(dialler.other(), &["-v2transport=0"]);
    let new = pair.start(dialler, &["-v2transport=1"]);
    let _ = old.mine(5);
    let address = format!("127.0.0.1:{}", old.p2p_port);
    let _ = new.rpc("addnode", json!([address, "onetry"]));
    new.follow(&old);
    wait_until("the connection over v1", || (transport(&new) == "v1").then_some(()));
    assert_eq!(new.state(), old.state());
}

#[test]
fn we_fall_back_to_v1_with_core() {
    check_fallback(Who::Ours);
}

#[test]
fn core_falls_back_to_v1_with_us() {
    check_fallback(Who::Core);
}

/// Both mine in turns, and neither is left behind.
#[test]
fn both_mine_in_turns() {
    let Some(pair) = Pair::new() else { return };
    let ours = pair.start(Who::Ours, &[]);
    let core = pair.start(Who::Core, &[]);
    ours.connect(&core);
    for round in 0..10 {
        let (miner, other) = if round % 2 == 0 { (&ours, &core) } else { (&core, &ours) };
        let _ = miner.mine(1 + round % 3);
        other.follow(miner);
    }
    assert_eq!(ours.state(), core.state());
    let tip = |node: &Daemon| node.rpc("getblock", json!([node.best(), 0]));
    assert_eq!(tip(&ours), tip(&core));
}
