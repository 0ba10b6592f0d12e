//! Bytes that are no message, and messages that are too long.

use cofferdam_tests::process::wait_for;

use crate::fixture::{Logged, Peer, frame};

#[test]
fn damaged_messages_are_skipped_and_counted_and_foreign_ones_end_it() {
    let node = Logged::start(&["-v2transport=0"]);
    let mut peer = Peer::ready(&node);
    let mut damaged = frame("badmsg", b"\x01d");
    damaged[20..24].fill(0xff);
    peer.send_raw(&damaged);
    peer.send_raw(&frame("bad\u{1}", b"\x01d"));
    peer.settle();
    node.logged("Header error: Wrong checksum (badmsg, 2 bytes), expected 78df0a04 was ffffffff");
    node.logged("Header error: Invalid message type (bad, 2 bytes)");
    assert_eq!(node.peer()["bytesrecv_per_msg"]["*other*"], 52);
    let mut large = frame("badmsg", &[]);
    large[16..20].copy_from_slice(&4_000_001_u32.to_le_bytes());
    peer.send_raw(&large);
    peer.wait_for_end();
    node.logged("Header error: Size too large (badmsg, 4000001 bytes)");
    let mut peer = Peer::ready(&node);
    let mut foreign = frame("badmsg", &[]);
    foreign[..4].fill(0xff);
    peer.send_raw(&foreign);
    peer.wait_for_end();
    node.logged("Header error: Wrong MessageStart ffffffff received");
    node.node.stop();
}

#[test]
fn what_cannot_be_read_is_logged_and_what_is_too_long_is_misbehaviour() {
    let node = Logged::start(&["-v2transport=0"]);
    // Transactions are read once the chain is there.
    node.call("generatetodescriptor", &["1", "raw(51)"]);
    let mut peer = Peer::ready(&node);
    peer.send("getheaders", &[1, 2, 3]);
    peer.settle();
    let fault = |what: &str| {
        format!("Exception '{what}: iostream error' (NSt8ios_base7failureB5cxx11E) caught")
    };
    let end = fault("DataStream::read(): end of data");
    node.logged(&format!("ProcessMessages(getheaders, 3 bytes): {end}"));
    peer.send("block", &[0; 79]);
    peer.send("ping", &[1; 7]);
    peer.send("block", &[&[0; 80][..], &[0xfd, 1, 0]].concat());
    peer.send("tx", &[1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0]);
    peer.send("headers", &[0xfe, 1, 0, 0, 2]);
    peer.send("inv", &[0xfd, 0x51, 0xc3]);
    peer.settle();
    node.logged(&format!("ProcessMessages(block, 79 bytes): {end}"));
    node.logged(&format!("ProcessMessages(ping, 7 bytes): {end}"));
    let text = fault("non-canonical ReadCompactSize()");
    node.logged(&format!("ProcessMessages(block, 83 bytes): {text}"));
    let text = fault("Unknown transaction optional data");
    node.logged(&format!("ProcessMessages(tx, 12 bytes): {text}"));
    let text = fault("ReadCompactSize(): size too large");
    node.logged(&format!("ProcessMessages(headers, 5 bytes): {text}"));
    node.logged(&format!("ProcessMessages(inv, 3 bytes): {end}"));
    peer.send("unheard", &[0; 3]);
    peer.settle();
    node.logged("Unknown message type \"unheard\" from peer=0");
    peer.send("inv", &[&[0xfd, 0x51, 0xc3][..], &[0; 50_001 * 36]].concat());
    peer.wait_for_end();
    node.logged("Misbehaving: peer=0: inv message size = 50001");
    node.node.stop();
}

#[test]
fn transactions_end_the_connection_where_none_are_wanted() {
    let node = Logged::start(&["-v2transport=0", "-blocksonly"]);
    let violation = "in violation of protocol, disconnecting peer=";
    let mut peer = Peer::ready(&node);
    peer.send("tx", &[0]);
    peer.wait_for_end();
    node.logged(&format!("transaction sent {violation}0"));
    let mut peer = Peer::ready(&node);
    let item = |kind: u8| [&[1, kind, 0, 0, 0][..], &[7; 32]].concat();
    // By the hash with the witness, which this peer has not said that it knows.
    peer.send("inv", &item(5));
    peer.settle();
    peer.send("inv", &item(1));
    peer.wait_for_end();
    node.logged(&format!("transaction ({}) inv sent {violation}1", "07".repeat(32)));
    node.node.stop();
}

#[test]
fn two_nodes_that_send_much_at_once_do_not_wait_for_each_other() {
    let nodes = [Logged::start(&["-v2transport=0"]), Logged::start(&["-v2transport=0"])];
    let address = format!("127.0.0.1:{}", nodes[1].node.p2p_port);
    nodes[0].call("addnode", &[&address, "onetry"]);
    nodes.iter().for_each(|node| node.wait_for_peers(1));
    // The longest that an argument of a command may be on Linux, some times over.
    let much = "00".repeat(60_000);
    std::thread::scope(|scope| {
        for node in &nodes {
            let much = &much;
            scope.spawn(move || {
                for _ in 0..30 {
                    node.call("sendmsgtopeer", &["0", "unknown", much]);
                }
            });
        }
    });
    nodes[0].call("generatetodescriptor", &["1", "raw(51)"]);
    wait_for("the block", || (nodes[1].node.height() == 1).then_some(()));
    for node in nodes {
        node.node.stop();
    }
}

#[test]
fn messages_that_use_the_memory_up_cost_who_holds_much_and_not_who_was_first() {
    let node = Logged::start(&[]);
    let ping = frame("ping", &77_u64.to_le_bytes());
    let (begun, rest) = ping.split_at(28);
    let mut honest = Peer::ready(&node);
    let received = || node.peer()["bytesrecv"].as_u64().expect("a number");
    honest.settle();
    let before = received();
    honest.send_raw(begun);
    wait_for("half a message", || (received() == before + 28).then_some(()));
    let block = frame("block", &vec![0; 4_000_000]);
    let mut hogs: Vec<Peer> = (0..17).map(|_| Peer::ready(&node)).collect();
    for hog in &mut hogs {
        hog.send_raw(&block[..3_999_000]);
    }
    let line = node.line("receive memory is exhausted and this message began first");
    assert!(!line.ends_with("peer=0"), "{line}");
    honest.send_raw(rest);
    assert_eq!(honest.expect("pong").1, 77_u64.to_le_bytes());
    node.node.stop();
}
