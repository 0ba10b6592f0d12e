//! `-prune=550` as it is meant: a node that syncs more than that from a peer, and stays below it.

use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::Duration;

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash as _;
use bitcoin::script::Builder;
use bitcoin::transaction::Version as TxVersion;
use bitcoin::{
    Amount, Block, BlockHash, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Witness,
};
use cofferdam_tests::process::{Node, wait_at_most, wait_for};
use serde_json::json;

use super::{BINARY, blocks_dir, log, mine, numbers, start};

const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];
const TARGET: u64 = 550 << 20;
/// What may be stored before the node looks again, which leaves 17 MiB free for that.
const BETWEEN_LOOKS: u64 = 32 << 20;
/// How long 2 GB may take to be written beside other tests.
const PATIENCE: Duration = Duration::from_secs(600);
/// Files go by themselves above height 1,000 only.
const SMALL_BLOCKS: u32 = 600;
const BLOCKS: u32 = 1300;
/// An output that can never be spent: a block of nearly 1 MB without a witness.
const FILLER_LEN: usize = 950_000;

/// A block with nothing but its coinbase, which pays nobody (`mine_large_blocks` in Bitcoin Core's
/// `feature_pruning.py`).
fn block(height: u32, parent: BlockHash, filler: usize) -> Block {
    let mut script = vec![0x6a];
    script.resize(filler, 0x51);
    let coinbase = Transaction {
        version: TxVersion::ONE,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: Builder::new().push_int(i64::from(height)).push_int(0).into_script(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(script) }],
    };
    let genesis = bitcoin::constants::genesis_block(Network::Regtest).header;
    let mut header = Header {
        version: Version::from_consensus(0x2000_0000),
        prev_blockhash: parent,
        merkle_root: TxMerkleNode::from_byte_array(coinbase.compute_txid().to_byte_array()),
        time: genesis.time + height,
        bits: genesis.bits,
        nonce: 0,
    };
    while header.validate_pow(header.target()).is_err() {
        header.nonce += 1;
    }
    Block { header, txdata: vec![coinbase] }
}

/// Writes 665 MB of blocks, as another node's block file.
fn write_chain(path: &Path) {
    let mut file = BufWriter::new(std::fs::File::create(path).expect("room"));
    let mut parent = bitcoin::constants::genesis_block(Network::Regtest).block_hash();
    for height in 1..=BLOCKS {
        let filler = if height <= SMALL_BLOCKS { 1 } else { FILLER_LEN };
        let block = block(height, parent, filler);
        parent = block.block_hash();
        let raw = serialize(&block);
        let length = u32::try_from(raw.len()).expect("small");
        file.write_all(&MAGIC).expect("room");
        file.write_all(&length.to_le_bytes()).expect("room");
        file.write_all(&raw).expect("room");
    }
    file.flush().expect("room");
}

/// Bytes of block and undo files.
fn used(dir: &Path) -> u64 {
    let files = std::fs::read_dir(blocks_dir(dir)).expect("readable");
    // One that goes meanwhile has none.
    files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum()
}

#[test]
fn a_node_that_syncs_more_than_its_target_stays_below_it() {
    let dirs = [tempfile::tempdir(), tempfile::tempdir()].map(|dir| dir.expect("temporary"));
    let (file, pruned) = (dirs[0].path().join("chain.dat"), dirs[1].path());
    write_chain(&file);
    let load = format!("-loadblock={}", file.display());
    let peer = Node::start(BINARY, dirs[0].path(), &["-connect=0", &load]);
    wait_at_most(PATIENCE, "the import", || {
        (peer.rpc("getmempoolinfo", &[])["loaded"] == true).then_some(())
    });
    std::fs::remove_file(&file).expect("removable");
    assert_eq!(peer.height(), u64::from(BLOCKS));
    assert!(used(dirs[0].path()) > TARGET, "else there is nothing to remove");

    let connect = format!("-connect=127.0.0.1:{}", peer.p2p_port);
    let options = ["-prune=550", "-debug=prune", &connect];
    let node = Node::start(BINARY, pruned, &options);
    let mut most = 0;
    wait_at_most(PATIENCE, "the whole chain", || {
        most = most.max(used(pruned));
        (node.height() == u64::from(BLOCKS)).then_some(())
    });
    assert_eq!(node.state(), peer.state());
    assert!(most <= TARGET + BETWEEN_LOOKS, "{most} bytes of blocks at a time");
    assert!(used(pruned) <= TARGET, "{} bytes of blocks", used(pruned));
    let info = node.rpc("getblockchaininfo", &[]);
    assert_eq!(
        (&info["automatic_pruning"], &info["prune_target_size"]),
        (&json!(true), &json!(TARGET))
    );
    let height = info["pruneheight"].as_u64().expect("a height");
    assert!((1..=u64::from(BLOCKS) - 288).contains(&height), "{height}");
    assert!(!numbers(pruned, "blk").contains(&0));
    assert_eq!(numbers(pruned, "blk"), numbers(pruned, "rev"), "whole pairs");
    assert!(log(pruned).contains("Prune: UnlinkPrunedFiles deleted blk/rev (00000)"));

    // It follows its peer, and opens what is left without being told anything.
    mine(&peer, 2);
    wait_for("two more blocks", || (node.state() == peer.state()).then_some(()));
    let state = node.state();
    node.stop();
    let node = start(pruned, &["-prune=550"]);
    assert_eq!(node.state(), state);
    assert_eq!(node.rpc("getblockchaininfo", &[])["pruneheight"], json!(height));
    let _ = node.rpc("invalidateblock", &[state[1].trim_matches('"')]);
    assert_eq!(node.height(), u64::from(BLOCKS) + 1, "what was not pruned can be undone");
    node.stop();
    peer.stop();
}
