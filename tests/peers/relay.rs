//! Headers, blocks and addresses that flow over a connection, as Bitcoin Core's tests ask for them.

use std::path::Path;

use bitcoin::Block;
use bitcoin::BlockHash;
use bitcoin::Network;
use bitcoin::bip152::HeaderAndShortIds;
use bitcoin::block::Header;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash as _;
use bitcoin::hex::FromHex as _;
use bitcoin::p2p::message_blockdata::Inventory;
use cofferdam_tests::daemon::Daemon;
use cofferdam_tests::process::{free_port, wait_for};
use serde_json::{Value, json};

use super::fixture::{BINARY, Logged, Peer, version};

/// Headers of a full message.
const HEADERS_MAX: usize = 2000;

pub(crate) const ADDRESS: &str = "mjTkW3DjgyZck4KbiRusZsqTgaYTxdSz6z";

/// A chain of blocks that another node mined, the genesis block left out.
pub(crate) fn mined(count: u64) -> Vec<Block> {
    mined_for(ADDRESS, count)
}

pub(crate) fn mined_for(address: &str, count: u64) -> Vec<Block> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = Daemon::start(Path::new(BINARY), dir.path(), &["-connect=0"]);
    let hashes = node.rpc("generatetoaddress", json!([count, address]));
    let block = |hash: &Value| {
        let hex = node.rpc("getblock", json!([hash, 0]));
        let bytes = Vec::from_hex(hex.as_str().expect("hex")).expect("hex");
        deserialize(&bytes).expect("a block")
    };
    let blocks = hashes.as_array().expect("a list").iter().map(block).collect();
    node.stop();
    blocks
}

pub(crate) fn headers(blocks: &[Block]) -> Vec<u8> {
    let mut payload = serialize(&bitcoin::VarInt::from(blocks.len()));
    for block in blocks {
        payload.extend(serialize(&block.header));
        payload.push(0);
    }
    payload
}

pub(crate) fn inventory(items: &[Inventory]) -> Vec<u8> {
    serialize(&items.to_vec())
}

pub(crate) fn requested(payload: &[u8]) -> Vec<Inventory> {
    deserialize(payload).expect("a list")
}

/// Reads up to the pong of a ping, and returns what came before it.
pub(crate) fn settle(peer: &mut Peer) -> Vec<(String, Vec<u8>)> {
    peer.send("ping", &99_u64.to_le_bytes());
    let mut before = Vec::new();
    loop {
        let (command, payload) = peer.read().expect("the connection stays open");
        if command == "pong" && payload == 99_u64.to_le_bytes() {
            return before;
        }
        before.push((command, payload));
    }
}

pub(crate) fn was_sent(messages: &[(String, Vec<u8>)], wanted: &str) -> bool {
    messages.iter().any(|(command, _)| command == wanted)
}

#[test]
fn one_peer_is_asked_for_all_headers_and_one_more_for_each_new_block() {
    let node = Logged::start(&[]);
    let mut first = Peer::ready(&node);
    first.expect("getheaders");
    node.logged("initial getheaders (0) to peer=0");
    first.send("headers", &[0]);
    let mut others = [Peer::ready(&node), Peer::ready(&node)];
    for peer in &mut others {
        assert!(!was_sent(&settle(peer), "getheaders"));
    }
    for round in 1..=2_u8 {
        let block = inventory(&[Inventory::Block(BlockHash::from_byte_array([round; 32]))]);
        first.send("inv", &block);
        assert!(was_sent(&settle(&mut first), "getheaders"), "round {round}");
        first.send("headers", &[0]);
        let asked = others.each_mut().map(|peer| {
            peer.send("inv", &block);
            let asked = was_sent(&settle(peer), "getheaders");
            if asked {
                peer.send("headers", &[0]);
            }
            asked
        });
        let expected = if round == 1 { [true, false] } else { [false, true] };
        assert_eq!(asked, expected, "round {round}");
    }
}

/// Starts a node whose leader does not answer for its headers until they are overdue; returns it, the
/// leader, and an outbound peer that was not asked meanwhile.
fn overdue_leader(args: &[&str]) -> (Logged, Peer, Peer) {
    let node = Logged::start(&[&["-mocktime=1700000000", "-peertimeout=999999999"], args].concat());
    let mut leader = Peer::ready(&node);
    leader.expect("getheaders");
    let mut other = node.connects("outbound-full-relay");
    other.expect("version");
    other.send("version", &version(70_016, 9));
    other.send("verack", &[]);
    assert!(!was_sent(&settle(&mut other), "getheaders"));
    // 15 minutes, and a millisecond for each of 672,000 headers.
    node.call("setmocktime", &["1700001600"]);
    (node, leader, other)
}

#[test]
fn a_leader_that_says_nothing_gives_way_when_its_time_is_over() {
    let (node, mut leader, mut other) = overdue_leader(&[]);
    node.logged("Timeout downloading headers, disconnecting peer=0");
    leader.wait_for_end();
    other.expect("getheaders");
}

#[test]
fn a_leader_with_permission_may_take_its_time() {
    let (node, mut leader, mut other) = overdue_leader(&["-whitelist=127.0.0.1"]);
    node.logged("Timeout downloading headers from noban peer, not disconnecting peer=0");
    other.expect("getheaders");
    leader.settle();
}

#[test]
fn headers_of_too_little_work_are_kept_only_of_who_has_permission() {
    let blocks = mined(15);
    // The work of sixteen blocks, the first one with it.
    let work = "-minimumchainwork=0x20";
    let node = Logged::start(&[work]);
    let mut peer = Peer::ready(&node);
    let known = |node: &Logged| node.node.rpc("getblockchaininfo", &[])["headers"].as_u64();
    peer.send("headers", &headers(&blocks[..14]));
    peer.settle();
    assert!(node.line("Ignoring low-work chain (height=14)").contains(" [net] Ignoring"));
    assert_eq!(known(&node), Some(0));
    peer.send("headers", &headers(&blocks));
    peer.settle();
    node.logged("Synchronizing blockheaders, height: 15 (~");
    let node = Logged::start(&[work, "-whitelist=noban@127.0.0.1"]);
    let mut peer = Peer::ready(&node);
    peer.send("headers", &headers(&blocks[..14]));
    peer.settle();
    node.logged("Synchronizing blockheaders, height: 14 (~");
}

/// Blocks without transactions, of as little work as the network allows.
fn made_up(count: usize) -> Vec<Block> {
    let mut header = genesis_block(Network::Regtest).header;
    let next = |_| {
        header.prev_blockhash = header.block_hash();
        header.time += 600;
        while header.validate_pow(header.target()).is_err() {
            header.nonce += 1;
        }
        Block { header, txdata: Vec::new() }
    };
    (0..count).map(next).collect()
}

#[test]
fn a_leader_whose_chain_ends_with_too_little_work_gives_way() {
    // Nobody has headers of that much work.
    let node = Logged::start(&["-mocktime=1700000000", "-minimumchainwork=0x10000"]);
    let mut poor = Peer::ready(&node);
    poor.expect("getheaders");
    let mut other = Peer::ready(&node);
    assert!(!was_sent(&settle(&mut other), "getheaders"));
    let blocks = made_up(HEADERS_MAX + 1);
    poor.send("headers", &headers(&blocks[..HEADERS_MAX]));
    poor.expect("getheaders");
    poor.send("headers", &headers(&blocks[HEADERS_MAX..]));
    poor.settle();
    assert!(!was_sent(&settle(&mut other), "getheaders"), "it might announce something yet");
    node.call("setmocktime", &["1700000011"]);
    other.expect("getheaders");
}

#[test]
fn a_stalled_window_costs_the_staller_its_connection() {
    let blocks = mined(1025);
    let node = Logged::start(&["-mocktime=1800000000"]);
    let mut peers = [Peer::ready(&node), Peer::ready(&node)];
    let mut owed = Vec::new();
    // The first one keeps the first block back, and sends all others.
    let at =
        |hash: &BlockHash| blocks.iter().find(|block| block.block_hash() == *hash).expect("asked");
    for (number, peer) in peers.iter_mut().enumerate() {
        peer.send("headers", &headers(&blocks[..1024]));
        loop {
            let asked: Vec<Inventory> = settle(peer)
                .iter()
                .filter(|(command, _)| command == "getdata")
                .flat_map(|(_, payload)| requested(payload))
                .collect();
            if asked.is_empty() {
                break;
            }
            for item in asked {
                let Inventory::WitnessBlock(hash) = item else { panic!("{item:?}") };
                if number == 0 && hash == blocks[0].block_hash() {
                    owed.push(hash);
                } else {
                    peer.send("block", &serialize(at(&hash)));
                }
            }
        }
    }
    assert_eq!(owed.len(), 1);
    node.call("setmocktime", &["1800000003"]);
    peers.iter_mut().for_each(|peer| drop(settle(peer)));
    // One block more than the window holds.
    for peer in peers.iter_mut().rev() {
        peer.send("headers", &headers(&blocks[1024..]));
    }
    node.logged("Stall started peer=0");
    node.call("setmocktime", &["1800000006"]);
    node.logged("Peer is stalling block download, disconnecting peer=0");
    peers[0].wait_for_end();
    let (_, payload) = peers[1].expect("getdata");
    assert_eq!(requested(&payload), [Inventory::WitnessBlock(owed[0])]);
    peers[1].send("block", &serialize(&blocks[0]));
    node.logged("Decreased stalling timeout to 2 seconds");
    wait_for("the chain", || (node.node.height() >= 1024).then_some(()));
}

#[test]
fn unasked_blocks_are_taken_only_if_their_chain_is_worth_it() {
    let blocks = mined(5);
    let node = Logged::start(&["-minimumchainwork=0x9"]);
    let mut peer = Peer::ready(&node);
    let hash = blocks[0].block_hash();
    peer.send("block", &serialize(&blocks[0]));
    peer.settle();
    let line = "missing anti-dos proof-of-work validation";
    node.logged(&format!("AcceptBlockHeader: not adding new block header {hash}, {line}"));
    assert!(node.node.try_rpc("getblockheader", &[&hash.to_string()]).is_err());
    // With the headers of the rest its chain is worth it, and it is asked for.
    peer.send("headers", &headers(&blocks));
    let (_, payload) = peer.expect("getdata");
    assert_eq!(requested(&payload).len(), 5);
    // A block whose parent nobody knows is its sender's fault.
    let mut stray = blocks[4].clone();
    stray.header.prev_blockhash = BlockHash::from_byte_array([7; 32]);
    while stray.header.validate_pow(stray.header.target()).is_err() {
        stray.header.nonce += 1;
    }
    peer.send("block", &serialize(&stray));
    peer.wait_for_end();
    // What is not what its header says says nothing of the block.
    let mut mutant = blocks[0].clone();
    mutant.txdata[0].version = bitcoin::transaction::Version::ONE;
    let mut peer = Peer::ready(&node);
    peer.send("block", &serialize(&mutant));
    peer.wait_for_end();
    node.logged("Block mutated: bad-txnmrklroot, hashMerkleRoot mismatch");
    node.logged("prev-blk-not-found");
}

#[test]
fn a_user_fetches_a_block_from_a_peer_of_his_choice() {
    let blocks = mined(2);
    let node = Logged::start(&["-minimumchainwork=0xff"]);
    let mut peer = Peer::ready(&node);
    let hash = blocks[0].block_hash().to_string();
    let refused = |args: &[&str]| node.node.try_rpc("getblockfrompeer", args).expect_err("refused");
    assert!(refused(&["1234", "0"]).contains("blockhash must be of length 64 (not 4, for '1234')"));
    assert!(refused(&[&hash, "0"]).contains("Block header missing"));
    let header = bitcoin::hex::DisplayHex::to_lower_hex_string(&serialize(&blocks[0].header)[..]);
    node.call("submitheader", &[&header]);
    assert!(refused(&[&hash, "7"]).contains("Peer does not exist"));
    for time in ["the first time", "again"] {
        assert_eq!(node.node.rpc("getblockfrompeer", &[&hash, "0"]), json!({}), "{time}");
        let (_, payload) = peer.expect("getdata");
        assert_eq!(requested(&payload), [Inventory::WitnessBlock(blocks[0].block_hash())]);
    }
    assert_eq!(node.peer()["inflight"].as_array().map(Vec::len), Some(1));
    peer.send("block", &serialize(&blocks[0]));
    peer.settle();
    assert!(refused(&[&hash, "0"]).contains("Block already downloaded"));
    let mut old = Peer::connect(&node);
    old.send("version", &version(70_016, 1));
    old.expect("verack");
    old.send("verack", &[]);
    old.settle();
    let header = bitcoin::hex::DisplayHex::to_lower_hex_string(&serialize(&blocks[1].header)[..]);
    node.call("submitheader", &[&header]);
    assert!(refused(&[&blocks[1].block_hash().to_string(), "1"]).contains("Pre-SegWit peer"));
}

#[test]
fn no_block_is_fetched_from_a_peer_while_block_files_are_loaded() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let pipe = dir.path().join("blocks.dat");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
    assert!(made.success());
    let node = Logged::start(&[&format!("-loadblock={}", pipe.display())]);
    let block = &mined(1)[0];
    let (hash, header) = (block.block_hash().to_string(), serialize(&block.header));
    node.call("submitheader", &[&bitcoin::hex::DisplayHex::to_lower_hex_string(&header[..])]);
    let refused = || node.node.try_rpc("getblockfrompeer", &[&hash, "0"]).expect_err("refused");
    assert!(refused().contains("Loading blocks ..."), "{}", refused());
    // The file is opened once somebody opens its other end, and it is empty.
    drop(std::fs::OpenOptions::new().write(true).open(&pipe).expect("the other end"));
    wait_for("the load", || refused().contains("Peer does not exist").then_some(()));
}

#[test]
fn new_blocks_are_announced_in_the_form_that_a_peer_asked_for() {
    let node = Logged::start(&[]);
    node.call("generatetoaddress", &["1", ADDRESS]);
    let mut peer = Peer::ready(&node);
    let tip = |node: &Logged| node.node.rpc("getbestblockhash", &[]);
    // By inventory at first.
    node.call("generatetoaddress", &["1", ADDRESS]);
    let (_, payload) = peer.expect("inv");
    let Inventory::Block(hash) = requested(&payload)[0] else { panic!("no block") };
    assert_eq!(tip(&node), hash.to_string());
    // Then by headers, once the node knows what the peer has.
    peer.send("sendheaders", &[]);
    let mut locator = 70_016_u32.to_le_bytes().to_vec();
    locator.extend([1]);
    locator.extend(hash.to_byte_array());
    locator.extend([0; 32]);
    peer.send("getheaders", &locator);
    peer.expect("headers");
    node.call("generatetoaddress", &["1", ADDRESS]);
    let (_, payload) = peer.expect("headers");
    let header: Header = deserialize(&payload[1..81]).expect("a header");
    assert_eq!(tip(&node), header.block_hash().to_string());
    // And by compact blocks, which have all of a block without transactions.
    peer.send("sendcmpct", &[1, 2, 0, 0, 0, 0, 0, 0, 0]);
    peer.settle();
    assert_eq!(node.peer()["bip152_hb_from"], true);
    node.call("generatetoaddress", &["1", ADDRESS]);
    let (_, payload) = peer.expect("cmpctblock");
    let compact: HeaderAndShortIds = deserialize(&payload).expect("a compact block");
    assert_eq!(tip(&node), compact.header.block_hash().to_string());
    assert_eq!((compact.short_ids.len(), compact.prefilled_txs.len()), (0, 1));
    // Its transactions are had one by one, and places beyond the last one are refused.
    let mut request = compact.header.block_hash().to_byte_array().to_vec();
    request.extend([1, 0]);
    peer.send("getblocktxn", &request);
    let (_, payload) = peer.expect("blocktxn");
    assert_eq!(payload[..32], compact.header.block_hash().to_byte_array());
    assert_eq!(payload[32], 1);
    request[33] = 1;
    peer.send("getblocktxn", &request);
    peer.wait_for_end();
    node.logged("getblocktxn with out-of-bounds tx indices");
}

#[test]
fn addresses_are_kept_and_told_on_at_a_bounded_rate() {
    let node = Logged::start(&["-mocktime=1800000000"]);
    let mut source = Peer::ready(&node);
    // Addresses of IPv4 as addrv2 has them, each of a network of its own.
    let told = |count: u8| {
        let mut payload = vec![count];
        for number in 0..count {
            payload.extend(1_800_000_000_u32.to_le_bytes());
            payload.extend([9, 1, 4, 20 + number, 123, 123, 123, 0x20, 0x8d]);
        }
        payload
    };
    source.send("addrv2", &told(10));
    source.settle();
    node.logged("Received addr: 10 addresses (1 processed, 9 rate-limited) from peer=0");
    node.logged("Added 1 addresses (of 1) from 127.0.0.1: 0 tried, 1 new");
    let peer = node.peer();
    assert_eq!((&peer["addr_processed"], &peer["addr_rate_limited"]), (&1.into(), &9.into()));
    // A minute and a half later nine more.
    node.call("setmocktime", &["1800000090"]);
    source.send("addrv2", &told(10));
    source.settle();
    node.logged("(9 processed, 1 rate-limited)");
    let known = node.node.rpc("getnodeaddresses", &["0"]);
    let known = known.as_array().expect("a list");
    // Some may share a place in the tables, which one of them gets.
    assert!(known.len() >= 6, "{known:?}");
    assert_eq!((&known[0]["port"], &known[0]["network"]), (&8333.into(), &"ipv4".into()));
    assert_eq!(node.peer()["addr_relay_enabled"], true);
    assert_eq!(node.node.rpc("getaddrmaninfo", &[])["all_networks"]["tried"], 0);
    let raw = node.node.rpc("getrawaddrman", &[]);
    assert_eq!(raw["tried"], json!({}));
    let new = raw["new"].as_object().expect("a table");
    assert_eq!(new.len(), known.len());
    let (place, entry) = new.iter().next().expect("an entry");
    assert!(place.split_once('/').is_some_and(|(bucket, _)| bucket.parse::<u16>().is_ok()));
    assert_eq!(entry["source_network"], "not_publicly_routable");
    // What cannot be read costs nothing; what is too much costs the connection.
    source.send("addrv2", &[]);
    let mut long = vec![1, 0, 0, 0, 0, 0, 1, 0xfd, 1, 2];
    long.extend([0; 515]);
    source.send("addrv2", &long);
    source.settle();
    node.logged("ProcessMessages(addrv2, 0 bytes): Exception");
    node.logged("Address too long: 513 > 512");
    let mut many = vec![0xfd, 0xf2, 3];
    many.extend(vec![1; 30 * 1010]);
    source.send("addr", &many);
    source.wait_for_end();
    node.logged("addr message size = 1010");
    // They are there after a restart.
    let node = node.restart(&[]);
    assert!(node.node.rpc("getaddrmaninfo", &[])["all_networks"]["new"].as_u64() >= Some(6));
}

#[test]
fn a_peer_that_exchanges_addresses_is_told_ours_once_a_day() {
    let node = Logged::start(&["-externalip=2.3.4.5"]);
    let own = json!([{"address": "2.3.4.5", "port": node.node.p2p_port, "score": 4}]);
    assert_eq!(node.node.rpc("getnetworkinfo", &[])["localaddresses"], own);
    // Not while the chain is downloaded.
    node.call("generatetoaddress", &["1", ADDRESS]);
    let mut peer = Peer::ready(&node);
    peer.send("getaddr", &[]);
    let (_, payload) = peer.expect("addr");
    assert_eq!((payload.len(), payload[0]), (31, 1));
    assert_eq!(payload[25..29], [2, 3, 4, 5]);
    assert_eq!(payload[29..31], node.node.p2p_port.to_be_bytes());
    node.logged("Advertising address 2.3.4.5:");
    assert!(!was_sent(&settle(&mut peer), "addr"));
}

#[test]
fn nobody_is_told_through_the_onion_service_where_the_node_is() {
    let door = free_port();
    let bind = format!("-bind=127.0.0.1:{door}=onion");
    let node = Logged::start(&["-externalip=2.3.4.5", &bind]);
    node.call("generatetoaddress", &["1", ADDRESS]);
    let stream = std::net::TcpStream::connect(("127.0.0.1", door)).expect("the node listens");
    let mut hidden = Peer::new(stream).shake_hands(&[]);
    hidden.send("getaddr", &[]);
    hidden.settle();
    // Who comes later is told later.
    let mut open = Peer::ready(&node);
    open.send("getaddr", &[]);
    open.expect("addr");
    assert!(!was_sent(&settle(&mut hidden), "addr"));
    let told = node.log().lines().filter(|line| line.contains("Advertising address")).count();
    assert_eq!(told, 1);
}

#[test]
fn addresses_of_tor_go_only_to_who_understands_them() {
    let node = Logged::start(&["-mocktime=1800000000"]);
    let mut source = Peer::ready(&node);
    let mut new = Peer::connect(&node).shake_hands(&["sendaddrv2"]);
    let mut old = Peer::ready(&node);
    for peer in [&mut new, &mut old] {
        peer.send("getaddr", &[]);
        peer.settle();
    }
    let mut told = vec![1];
    told.extend(1_800_000_000_u32.to_le_bytes());
    told.extend([9, 4, 32]);
    told.extend([7; 32]);
    told.extend([0x20, 0x8d]);
    source.send("addrv2", &told);
    source.settle();
    node.call("setmocktime", &["1800000550"]);
    assert_eq!(new.expect("addrv2").1, told);
    // The older connection is looked after first.
    assert!(!was_sent(&settle(&mut old), "addr"));
}

#[test]
fn an_announced_fork_is_fetched_though_its_peer_keeps_a_longer_one_back() {
    let kept = mined(3);
    let fork = mined_for("msX6jQXvxiNhx3Q62PKeLPrhrqZQdSimTg", 2);
    let node = Logged::start(&[]);
    node.call("generatetoaddress", &["1", "mnonCMyH9TmAsSj3M59DsbH8H63U3RKoFP"]);
    let mut peer = Peer::ready(&node);
    peer.send("headers", &headers(&kept));
    let (_, payload) = peer.expect("getdata");
    assert_eq!(requested(&payload).len(), 3);
    peer.send("headers", &headers(&fork));
    let (_, payload) = peer.expect("getdata");
    let asked = fork.iter().map(|block| Inventory::WitnessBlock(block.block_hash()));
    assert_eq!(requested(&payload), asked.collect::<Vec<_>>());
    fork.iter().for_each(|block| peer.send("block", &serialize(block)));
    wait_for("the fork", || (node.node.height() == 2).then_some(()));
}
