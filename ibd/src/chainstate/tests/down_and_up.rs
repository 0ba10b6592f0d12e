//! Down and up: what connecting did, disconnecting takes back, to the byte.

use cofferdam_storage::testing::{Random, effort};

use super::*;
use crate::testing::ModelChain;

/// Connects a chain block by block, disconnects it to the genesis block, connects it again: at
/// every height (every `stride`th where that would take long) the coins are the same bytes each
/// time, and at the end the index too.
fn check(network: Network, blocks: Vec<Vec<u8>>, stride: u32) {
    let dir = tempfile::tempdir().expect("temporary");
    let mut chainstate = open(ChainParams::new(network), dir.path());
    let is_looked_at = |height: u32| height.is_multiple_of(stride);
    let genesis = chainstate.tip().hash;
    let mut up = vec![Some(digest(&chainstate, COINS))];
    for raw in blocks {
        let accepted = chainstate.accept_block(raw, NOW).expect("works");
        if accepted == BlockAccepted::Duplicate(BlockRef { height: 0, hash: genesis }) {
            continue;
        }
        assert!(matches!(accepted, BlockAccepted::Stored(_)), "{accepted:?}");
        let advance = advance(&mut chainstate);
        assert_eq!(advance.connected, 1, "{advance:?}");
        let height = chainstate.tip().height;
        up.push(is_looked_at(height).then(|| digest(&chainstate, COINS)));
    }
    let (coins, index) = (digest(&chainstate, COINS), digest(&chainstate, HEADERS));
    while chainstate.tip().height > 0 {
        chainstate.disconnect_tip().expect("works");
        let height = chainstate.tip().height;
        let down = is_looked_at(height).then(|| digest(&chainstate, COINS));
        assert_eq!(down, up[height as usize], "{network}: down to {height}");
    }
    assert_eq!(advance(&mut chainstate).connected as usize, up.len() - 1);
    assert_eq!(digest(&chainstate, COINS), coins);
    assert_eq!(digest(&chainstate, HEADERS), index);
    let looked_at = up.iter().flatten().count();
    println!("{network}: {} blocks, the coins compared at {looked_at} heights", up.len());
}

#[test]
fn mainnet_down_and_up_leaves_the_same_bytes() {
    check(Network::Mainnet, blocks("mainnet/chain-0-4521.blkdat"), effort().pick(200, 1, 1));
}

#[test]
fn mainnets_alternate_chain_down_and_up_leaves_the_same_bytes() {
    check(Network::Mainnet, blocks("mainnet/alt-chain-1-2016.blkdat"), effort().pick(100, 1, 1));
}

#[test]
fn testnet3_down_and_up_leaves_the_same_bytes() {
    check(Network::Testnet3, blocks("testnet3/chain-0-400.blkdat"), 1);
}

#[test]
fn signet_down_and_up_leaves_the_same_bytes() {
    check(Network::Signet, blocks("signet/chain-0-120.blkdat"), 1);
}

#[test]
fn regtest_down_and_up_leaves_the_same_bytes() {
    check(Network::Regtest, blocks("regtest/chain-a-0-150.blkdat"), 1);
}

#[test]
fn both_branches_of_regtest_down_and_up_leave_the_same_bytes() {
    let mut branch = blocks("regtest/reorg-branch-a-1-10.blkdat");
    check(Network::Regtest, branch.clone(), 1);
    branch.truncate(5);
    branch.extend(blocks("regtest/reorg-branch-b-6-16.blkdat"));
    check(Network::Regtest, branch, 1);
}

/// Blocks that spend what they made themselves, outputs that are no coins, witnesses.
#[test]
fn generated_chains_down_and_up_leave_the_same_bytes() {
    for seed in 0..effort().pick(2, 20, 1000) {
        let mut random = Random::new(seed);
        let (mut chain, mut made) = ModelChain::funded(20);
        for _ in 0..40 {
            let block = chain.random_block(&mut random, 12);
            chain.connect(&block);
            made.push(block);
        }
        println!("seed {seed}");
        let raw = made.iter().map(bitcoin::consensus::serialize).collect();
        check(Network::Regtest, raw, 1);
    }
}
