//! Compact blocks: put together from what waits in the queue, and asked of several peers.

use bitcoin::bip152::{BlockTransactions, BlockTransactionsRequest, HeaderAndShortIds};
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hex::{DisplayHex as _, FromHex as _};
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::script::Builder;
use bitcoin::{
    Amount, Block, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, absolute, transaction,
};
use cofferdam_tests::data;
use serde_json::json;

use super::fixture::{Logged, Peer};
use super::relay::{ADDRESS, headers, requested, settle, was_sent};

/// An output that anyone may spend: the script `OP_TRUE`.
const ANYONE: &str = "raw(51)";

/// The next block, not connected yet.
fn next_block(node: &Logged, txs: &[Transaction]) -> Block {
    let txs: Vec<String> = txs.iter().map(|tx| serialize(tx).to_lower_hex_string()).collect();
    let raw = node.node.rpc("generateblock", &[ADDRESS, &json!(txs).to_string(), "false"]);
    let bytes = Vec::from_hex(raw["hex"].as_str().expect("hex")).expect("hex");
    deserialize(&bytes).expect("a block")
}

/// A block on top of the next one, which the node need not have.
fn block_after(node: &Logged, next: &Block, txs: &[Transaction]) -> Block {
    let height = node.node.rpc("getblockcount", &[]).as_i64().expect("a height") + 2;
    let mut block = next_block(node, txs);
    block.header.prev_blockhash = next.block_hash();
    block.txdata[0].input[0].script_sig =
        Builder::new().push_int(height).push_int(1).push_int(1).into_script();
    block.header.merkle_root = block.compute_merkle_root().expect("a coinbase");
    while block.header.validate_pow(block.header.target()).is_err() {
        block.header.nonce += 1;
    }
    block
}

/// Transactions that each spend an old coinbase of the node's.
fn spends(node: &Logged, count: u32) -> Vec<Transaction> {
    node.call("generatetodescriptor", &[&(count + 100).to_string(), ANYONE]);
    let spend = |height: u32| {
        let hash = node.node.rpc("getblockhash", &[&height.to_string()]);
        let block = node.node.rpc("getblock", &[hash.as_str().expect("a hash")]);
        let txid = block["tx"][0].as_str().expect("an id").parse().expect("an id");
        let input = TxIn { previous_output: OutPoint::new(txid, 0), ..TxIn::default() };
        Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: vec![input],
            output: vec![TxOut {
                value: Amount::from_sat(4_999_999_000),
                script_pubkey: ScriptBuf::from_bytes(vec![0x51; 24]),
            }],
        }
    };
    (1..=count).map(spend).collect()
}

/// A peer that sends compact blocks, and asks for them unasked or not.
fn sender(node: &Logged) -> Peer {
    let mut peer = Peer::ready(node);
    peer.send("sendcmpct", &[0, 2, 0, 0, 0, 0, 0, 0, 0]);
    peer.settle();
    peer
}

/// Makes a peer one that is asked to announce by compact blocks, since it sent the last block.
fn make_announcer(node: &Logged, peer: &mut Peer) {
    peer.send("block", &serialize(&next_block(node, &[])));
    let (_, payload) = peer.expect("sendcmpct");
    assert_eq!(payload[0], 1);
}

fn compact(block: &Block) -> Vec<u8> {
    serialize(&HeaderAndShortIds::from_block(block, 5, 2, &[]).expect("a block"))
}

fn answer(block: &Block, transactions: &[Transaction]) -> Vec<u8> {
    let transactions = transactions.to_vec();
    serialize(&BlockTransactions { block_hash: block.block_hash(), transactions })
}

fn wanted(payload: &[u8]) -> Vec<u64> {
    deserialize::<BlockTransactionsRequest>(payload).expect("a request").indexes
}

fn is_tip(node: &Logged, block: &Block) -> bool {
    node.node.rpc("getbestblockhash", &[]) == block.block_hash().to_string()
}

#[test]
fn transactions_that_wait_in_the_queue_are_not_asked_for() {
    let node = Logged::start(&[]);
    let txs = spends(&node, 4);
    let mut peer = sender(&node);
    make_announcer(&node, &mut peer);
    let queue = |tx: &Transaction| {
        node.call("sendrawtransaction", &[&serialize(tx).to_lower_hex_string()]);
    };
    queue(&txs[0]);
    let block = next_block(&node, &txs[..2]);
    peer.send("cmpctblock", &compact(&block));
    let (_, payload) = peer.expect("getblocktxn");
    assert_eq!(wanted(&payload), [2], "only what is not there");
    peer.send("blocktxn", &answer(&block, &txs[1..2]));
    peer.settle();
    assert!(is_tip(&node, &block));
    // With all of them there nothing is asked for.
    txs[2..].iter().for_each(queue);
    let block = next_block(&node, &txs[2..]);
    peer.send("cmpctblock", &compact(&block));
    assert!(!was_sent(&settle(&mut peer), "getblocktxn"));
    assert!(is_tip(&node, &block));
    assert_eq!(node.node.rpc("getrawmempool", &[]), json!([]));
}

/// Two miners in a row are faster than an answer is; none of the two questions may be forgotten.
#[test]
fn two_compact_blocks_wait_for_their_transactions_and_the_answers_come_in_any_order() {
    let node = Logged::start(&[]);
    let txs = spends(&node, 4);
    let mut peer = sender(&node);
    make_announcer(&node, &mut peer);
    for (txs, is_child_first) in [(&txs[..2], false), (&txs[2..], true)] {
        let (of_first, of_second) = txs.split_at(1);
        let first = next_block(&node, of_first);
        let second = block_after(&node, &first, of_second);
        for block in [&first, &second] {
            peer.send("cmpctblock", &compact(block));
            peer.expect("getblocktxn");
        }
        let mut answers = [answer(&first, of_first), answer(&second, of_second)];
        if is_child_first {
            answers.reverse();
        }
        for answer in answers {
            peer.send("blocktxn", &answer);
        }
        peer.settle();
        assert!(is_tip(&node, &second), "child first: {is_child_first}");
        assert_eq!(node.peer()["inflight"], json!([]));
    }
}

#[test]
fn of_many_compact_blocks_at_once_the_last_one_is_asked_for_whole() {
    let node = Logged::start(&[]);
    let txs = spends(&node, 5);
    let mut peer = sender(&node);
    make_announcer(&node, &mut peer);
    let rivals: Vec<Block> = txs.chunks(1).map(|txs| next_block(&node, txs)).collect();
    for block in &rivals[..4] {
        peer.send("cmpctblock", &compact(block));
        peer.expect("getblocktxn");
    }
    peer.send("cmpctblock", &compact(&rivals[4]));
    let sent = settle(&mut peer);
    assert!(!was_sent(&sent, "getblocktxn"));
    let (_, payload) = sent.iter().find(|(command, _)| command == "getdata").expect("asked for");
    assert_eq!(requested(payload), [Inventory::WitnessBlock(rivals[4].block_hash())]);
    // With an answer there is room again.
    peer.send("blocktxn", &answer(&rivals[0], &txs[..1]));
    peer.settle();
    assert!(is_tip(&node, &rivals[0]));
    let next = next_block(&node, &txs[1..2]);
    peer.send("cmpctblock", &compact(&next));
    let (_, payload) = peer.expect("getblocktxn");
    assert_eq!(wanted(&payload), [1]);
}

/// In Bitcoin Core one peer that announced a block and kept it back delayed it by ten minutes.
#[test]
fn cve_2024_52922_a_peer_that_keeps_transactions_back_does_not_hold_a_block_up() {
    let node = Logged::start(&[]);
    let txs = spends(&node, 1);
    let mut peers = [sender(&node), sender(&node), sender(&node)];
    for peer in &mut peers {
        make_announcer(&node, peer);
    }
    let block = next_block(&node, &txs);
    // Two of those who came are asked; the third place is kept for one that we chose.
    for (peer, is_asked) in peers.iter_mut().zip([true, true, false]) {
        peer.send("cmpctblock", &compact(&block));
        assert_eq!(was_sent(&settle(peer), "getblocktxn"), is_asked);
    }
    peers[1].send("blocktxn", &answer(&block, &txs));
    peers[1].settle();
    assert!(is_tip(&node, &block));
    // What comes too late changes nothing.
    peers[0].send("blocktxn", &answer(&block, &txs));
    peers[0].settle();
    node.logged("sent us block transactions for block we weren't expecting");
}

/// Bitcoin Core put a block together twice from two answers to one question, and ended over it.
#[test]
fn cve_2024_35202_wrong_transactions_are_forgiven_once() {
    let node = Logged::start(&[]);
    let txs = spends(&node, 2);
    let mut peer = sender(&node);
    make_announcer(&node, &mut peer);
    let block = next_block(&node, &txs);
    peer.send("cmpctblock", &compact(&block));
    peer.expect("getblocktxn");
    let swapped = answer(&block, &[txs[1].clone(), txs[0].clone()]);
    peer.send("blocktxn", &swapped);
    let (_, payload) = peer.expect("getdata");
    assert_eq!(requested(&payload), [Inventory::WitnessBlock(block.block_hash())]);
    assert!(!is_tip(&node, &block));
    peer.send("blocktxn", &swapped);
    peer.wait_for_end();
    node.logged("previous compact block reconstruction attempt failed");
    let mut other = Peer::ready(&node);
    other.send("block", &serialize(&block));
    other.settle();
    assert!(is_tip(&node, &block));
}

#[test]
fn a_compact_block_is_put_together_and_its_sender_becomes_an_announcer() {
    let node = Logged::start(&[]);
    node.call("generatetoaddress", &["1", ADDRESS]);
    let mut peer = Peer::ready(&node);
    peer.send("sendcmpct", &[0, 2, 0, 0, 0, 0, 0, 0, 0]);
    // A block that the peer sends whole makes it one that announces.
    let block = next_block(&node, &[]);
    peer.send("headers", &headers(std::slice::from_ref(&block)));
    let (_, payload) = peer.expect("getdata");
    assert_eq!(requested(&payload), [Inventory::CompactBlock(block.block_hash())]);
    peer.send("block", &serialize(&block));
    let (_, payload) = peer.expect("sendcmpct");
    assert_eq!(payload[0], 1);
    assert_eq!(node.peer()["bip152_hb_to"], true);
    // The next one comes unasked, and has all that it needs.
    let block = next_block(&node, &[]);
    let compact = HeaderAndShortIds::from_block(&block, 5, 2, &[]).expect("a block");
    peer.send("cmpctblock", &serialize(&compact));
    peer.settle();
    assert_eq!(node.node.rpc("getbestblockhash", &[]), block.block_hash().to_string());
}

#[test]
fn a_node_of_blocks_only_takes_no_compact_blocks_and_serves_them() {
    let node = Logged::start(&["-blocksonly"]);
    node.call("generatetoaddress", &["1", ADDRESS]);
    let mut peer = sender(&node);
    let first = next_block(&node, &[]);
    peer.send("block", &serialize(&first));
    assert!(!was_sent(&settle(&mut peer), "sendcmpct"), "nobody is asked to announce by them");
    assert!(is_tip(&node, &first));
    let second = next_block(&node, &[]);
    peer.send("headers", &headers(std::slice::from_ref(&second)));
    let (_, payload) = peer.expect("getdata");
    assert_eq!(requested(&payload), [Inventory::WitnessBlock(second.block_hash())]);
    peer.send("cmpctblock", &compact(&second));
    peer.settle();
    assert!(!is_tip(&node, &second));
    node.logged("sent us a compact block even though we are blocksonly!");
    peer.send("getdata", &serialize(&vec![Inventory::CompactBlock(first.block_hash())]));
    let (_, payload) = peer.expect("cmpctblock");
    let served: HeaderAndShortIds = deserialize(&payload).expect("a compact block");
    assert_eq!(served.header, first.header);
}

/// Where no transactions of peers are taken, a compact block would have to be fetched whole, and of
/// several peers.
#[test]
fn where_no_transactions_wait_nobody_announces_by_compact_blocks() {
    let raw = data::blocks("signet/chain-0-120.blkdat");
    let block = |height: usize| deserialize::<Block>(&raw[height]).expect("a block");
    let (first, second) = (block(1), block(2));
    // These blocks are from 2020, and the sync is over all the same.
    let node = Logged::on_signet(&["-minimumchainwork=0", "-maxtipage=9999999999"]);
    let mut peer = sender(&node);
    peer.send("headers", &headers(std::slice::from_ref(&first)));
    let (_, payload) = peer.expect("getdata");
    assert_eq!(requested(&payload), [Inventory::WitnessBlock(first.block_hash())]);
    peer.send("block", &raw[1]);
    assert!(!was_sent(&settle(&mut peer), "sendcmpct"));
    assert!(is_tip(&node, &first));
    peer.send("cmpctblock", &compact(&second));
    peer.settle();
    assert!(!is_tip(&node, &second));
    node.logged("sent us a compact block even though we are blocksonly!");
}
