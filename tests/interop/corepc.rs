//! The crate `corepc-node` starts and drives the node as it does `bitcoind`, and its types take the
//! answers: they are strict about fields, as those of many programs are.

use std::str::FromStr as _;

use bitcoin::{Address, BlockHash, Txid};
use cofferdam_tests::daemon::{ADDRESS, wait_until};
use corepc_node::{Conf, Node, P2P};

use crate::COFFERDAM;

const BLOCKS: usize = 120;

fn conf(p2p: P2P) -> Conf<'static> {
    let mut conf = Conf::default();
    // There is no wallet to create.
    conf.wallet = None;
    conf.p2p = p2p;
    conf
}

fn start(p2p: P2P) -> Node {
    Node::with_conf(COFFERDAM, &conf(p2p)).expect("corepc-node starts it")
}

fn mine(node: &Node, blocks: usize) -> Vec<BlockHash> {
    let address = Address::from_str(ADDRESS).expect("an address").assume_checked();
    let mined = node.client.generate_to_address(blocks, &address).expect("it mines");
    mined.into_model().expect("hashes").0
}

#[test]
fn corepc_node_starts_and_stops_it() {
    let mut node = start(P2P::No);
    let info = node.client.get_blockchain_info().expect("answered").into_model().expect("fits");
    assert_eq!((info.blocks, info.chain), (0, bitcoin::Network::Regtest));
    assert_eq!(mine(&node, 3).len(), 3);
    assert_eq!(node.client.get_block_count().expect("answered").0, 3);
    assert!(node.stop().expect("it ends").success());
}

#[test]
fn its_data_directory_can_be_used_again() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut conf = conf(P2P::No);
    conf.staticdir = Some(dir.path().to_owned());
    let mut node = Node::with_conf(COFFERDAM, &conf).expect("corepc-node starts it");
    let mined = mine(&node, 5);
    assert!(node.stop().expect("it ends").success());
    let node = Node::with_conf(COFFERDAM, &conf).expect("corepc-node starts it again");
    let best = node.client.get_best_block_hash().expect("answered").block_hash().expect("a hash");
    assert_eq!(Some(&best), mined.last());
}

#[test]
fn two_of_them_connect_and_sync() {
    let miner = start(P2P::Yes);
    let mined = mine(&miner, BLOCKS);
    let follower = start(miner.p2p_connect(true).expect("it listens"));
    let best = || follower.client.best_block_hash().expect("answered");
    wait_until("the miner's tip", || (Some(&best()) == mined.last()).then_some(()));
    assert_eq!(follower.client.get_peer_info().expect("answered").0.len(), 1);
    assert_eq!(miner.client.get_connection_count().expect("answered").0, 1);
}

/// Each answer goes through the type that the crate has for Bitcoin Core 30. (Not the block with its
/// transactions: the crate flattens a struct, and serde cannot do that with `arbitrary_precision`.)
#[test]
fn its_types_take_the_answers_about_the_chain() {
    let node = start(P2P::Yes);
    let mined = mine(&node, BLOCKS);
    let (client, tip) = (&node.client, mined[BLOCKS - 1]);
    let header = client.get_block_header_verbose(&tip).expect("a header").into_model();
    assert_eq!(header.expect("it fits").height, 120);
    let _ = client.get_block_header(&tip).expect("a header").into_model().expect("it fits");
    let block = client.get_block(tip).expect("a block");
    let verbose = client.get_block_verbose_one(tip).expect("a block").into_model();
    assert_eq!(verbose.expect("it fits").tx, [block.txdata[0].compute_txid()]);
    let tips = client.get_chain_tips().expect("tips").into_model().expect("it fits");
    assert_eq!(tips.0.len(), 1);
    let _ = client.get_deployment_info(&tip).expect("deployments").into_model().expect("it fits");
    assert!(client.get_difficulty().expect("a number").0 > 0.0);
    let txid: Txid = block.txdata[0].compute_txid();
    let out = client.get_tx_out(txid, 0).expect("a coin").into_model().expect("it fits");
    assert!(out.coinbase);
    let set = client.get_tx_out_set_info().expect("the set").into_model().expect("it fits");
    assert_eq!((set.height, set.tx_outs), (120, 120));
}

#[test]
fn its_types_take_the_answers_about_the_node() {
    let node = start(P2P::Yes);
    let client = &node.client;
    let network = client.get_network_info().expect("answered").into_model().expect("it fits");
    assert!(network.network_active);
    let _ = client.get_net_totals().expect("answered");
    let _ = client.get_raw_mempool().expect("answered");
    let rpc = client.get_rpc_info().expect("answered");
    assert!(rpc.log_path.ends_with("debug.log"));
    assert!(client.uptime().expect("answered") < 3_600);
    assert!(client.help().expect("answered").contains("getblockcount"));
}
