//! Messages that made other nodes spend memory, time or disk without bound.

use bitcoin::hashes::Hash as _;
use bitcoin::p2p::message::NetworkMessage;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{Amount, BlockHash, Txid, Wtxid};
use cofferdam_ibd::testing::ModelChain;
use cofferdam_tests::process::{Node, wait_for};

use super::peer::{BINARY, Peer};

/// Items of the largest `inv` and `getdata`.
const ITEMS_MAX: u32 = 50_000;
/// What a peer that is remembered nothing of may add to a process, in KiB: what the allocator keeps
/// of the largest messages.
const GROWTH_MAX_KIB: u64 = 32 << 10;

fn start(args: &[&str]) -> (Node, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("temporary");
    let all = [&["-backend=sled"], args].concat();
    (Node::start(BINARY, dir.path(), &all), dir)
}

/// A hash of its own for each number.
fn bytes(number: u32) -> [u8; 32] {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// The memory of a process, in KiB.
fn memory(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux has it");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

/// Counts the messages of a type that the node sends until it has handled all that was sent before.
fn count(peer: &mut Peer, wanted: &str) -> usize {
    peer.send(NetworkMessage::Ping(79));
    let mut count = 0;
    loop {
        match peer.receive().expect("the connection stays open") {
            NetworkMessage::Pong(79) => return count,
            message => count += usize::from(message.cmd() == wanted),
        }
    }
}

/// Bitcoin Core asked for headers once for each block of an `inv`: 50 megabytes for a message.
#[test]
fn cve_2024_52915_an_inv_of_50_000_blocks_is_answered_by_one_getheaders() {
    let (node, _dir) = start(&[]);
    let mut peer = Peer::connect(&node);
    for round in 0..3 {
        // The first request is never answered, so no other may follow.
        let hash = |number| BlockHash::from_byte_array(bytes(round * ITEMS_MAX + number));
        let items = (0..ITEMS_MAX).map(hash).map(Inventory::Block).collect();
        peer.send(NetworkMessage::Inv(items));
    }
    assert!(count(&mut peer, "getheaders") <= 1);
    node.stop();
}

/// Bitcoin Core went round in circles over an item that it did not know.
#[test]
fn cve_2024_52920_unknown_items_of_a_getdata_are_passed_over() {
    let (node, _dir) = start(&[]);
    let mut peer = Peer::connect(&node);
    let genesis = bitcoin::constants::genesis_block(bitcoin::Network::Regtest).block_hash();
    let kinds = [0, 3, 6, 0x4000_0003, u32::MAX];
    let mut items: Vec<Inventory> = kinds
        .into_iter()
        .cycle()
        .zip(1..ITEMS_MAX)
        .map(|(inv_type, number)| Inventory::Unknown { inv_type, hash: bytes(number) })
        .collect();
    items.push(Inventory::WitnessBlock(genesis));
    peer.send(NetworkMessage::GetData(items));
    let found = peer.wait_for(|message| match message {
        NetworkMessage::Block(block) => Some(block.block_hash()),
        _ => None,
    });
    assert_eq!(found, genesis);
    peer.settle();
    node.stop();
}

/// Bitcoin Core's clock followed its peers', and overflowed over one at the end of time.
#[test]
fn cve_2024_52912_clocks_of_peers_at_the_ends_of_time_change_nothing() {
    let (node, _dir) = start(&[]);
    let times = [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX];
    let mut peers: Vec<Peer> = times.map(|time| Peer::connect_at(&node, time)).into();
    let info = node.rpc("getpeerinfo", &[]);
    let offsets = info.as_array().expect("a list").iter().map(|peer| peer["timeoffset"].as_i64());
    for (time, offset) in times.into_iter().zip(offsets) {
        let offset = offset.expect("a number");
        assert!((time < 0) == (offset < 0) || time == 0, "{time}: {offset}");
    }
    // The rules about a block's time go by the node's own clock.
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    let _ = node.rpc("generatetodescriptor", &["1", "raw(51)"]);
    let hash = node.rpc("getbestblockhash", &[]);
    let header = node.rpc("getblockheader", &[hash.as_str().expect("a hash")]);
    assert!(header["time"].as_u64().is_some_and(|time| time.abs_diff(now) < 3600), "{header}");
    peers.iter_mut().for_each(Peer::settle);
    node.stop();
}

/// Bitcoin Core kept what peers announced, and asked for it later: a queue without a bound. Here
/// nothing is kept of announced transactions, and one hash of announced blocks.
#[test]
fn cve_2018_17145_announcements_are_not_remembered() {
    let (node, _dir) = start(&[]);
    // Transactions are looked at once the chain is there.
    let _ = node.rpc("generatetodescriptor", &["1", "raw(51)"]);
    let mut peer = Peer::connect(&node);
    let mut announce = |round: u32| {
        let hash = |number| bytes(round * ITEMS_MAX + number);
        let item = |number| match (number + round) % 3 {
            0 => Inventory::Transaction(Txid::from_byte_array(hash(number))),
            1 => Inventory::WTx(Wtxid::from_byte_array(hash(number))),
            _ => Inventory::Block(BlockHash::from_byte_array(hash(number))),
        };
        peer.send(NetworkMessage::Inv((0..ITEMS_MAX).map(item).collect()));
        peer.settle();
    };
    announce(0);
    let before = memory(&node);
    (1..20).for_each(&mut announce);
    let growth = memory(&node).saturating_sub(before);
    assert!(growth < GROWTH_MAX_KIB, "{growth} KiB for a million announcements");
    assert_eq!(count(&mut peer, "getdata"), 0);
    node.stop();
}

/// Bitcoin Core wrote a line or more for each invalid block, whoever sent it. Here as there, by now, a
/// place of the code may write a megabyte in an hour.
#[test]
fn cve_2025_54605_invalid_blocks_do_not_fill_the_log() {
    /// Enough for a megabyte and a half.
    const BLOCKS: u64 = 7500;
    let (node, dir) = start(&["-whitelist=noban@127.0.0.1"]);
    let mut model = ModelChain::new();
    let first = model.block(0, Vec::new());
    model.connect(&first);
    let mut peer = Peer::connect(&node);
    peer.send(NetworkMessage::Block(first));
    wait_for("the first block", || (node.height() == 1).then_some(()));
    let mut invalid = |number| {
        let mut block = model.block(number, Vec::new());
        block.txdata[0].output[0].value += Amount::ONE_SAT;
        model.seal(&mut block);
        let hash = block.block_hash();
        peer.send(NetworkMessage::Block(block));
        hash.to_string()
    };
    let hashes: Vec<String> = (0..BLOCKS).map(&mut invalid).collect();
    peer.settle();
    let log = std::fs::read_to_string(dir.path().join("regtest/debug.log")).expect("a log");
    let lines = log.lines().filter(|line| line.contains("Block validation error: "));
    let bytes: usize = lines.map(|line| line.len() + 1).sum();
    assert!((1 << 19..(1 << 20) + 1000).contains(&bytes), "{bytes} bytes");
    // All of them were looked at.
    let tips = node.rpc("getchaintips", &[]);
    let tips = tips.as_array().expect("a list");
    let last = hashes.last().expect("blocks").as_str();
    assert!(tips.iter().any(|tip| tip["hash"] == last && tip["status"] == "invalid"));
    node.stop();
}
