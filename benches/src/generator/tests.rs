//! What the chain of the generator is like: its own tests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::hashes::Hash as _;
use cofferdam_ibd::{
    AssumeValid, BlockAccepted, ChainParams, Chainstate, ChainstateOptions, Network, TREES,
};
use cofferdam_storage::{BackendKind, BackendOptions, StdFileSystem};

use super::*;

fn make(plan: Plan) -> (Vec<Block>, Summary) {
    let mut blocks = Vec::new();
    let summary = generate::<std::convert::Infallible>(plan, &mut |block| {
        blocks.push(block.clone());
        Ok(())
    });
    (blocks, summary.unwrap())
}

/// Every block is valid, and the coins that are left are as many as is said.
fn check_valid(plan: Plan) {
    let (blocks, summary) = make(plan);
    let dir = tempfile::tempdir().unwrap();
    let database = BackendKind::Memory.open(dir.path(), TREES, &BackendOptions::default()).unwrap();
    let options = ChainstateOptions {
        assume_valid: AssumeValid::Off,
        ..ChainstateOptions::new(ChainParams::new(Network::Regtest), dir.path())
    };
    let (mut chainstate, _) = Chainstate::open(options, Arc::new(StdFileSystem), database).unwrap();
    let now = blocks.last().unwrap().header.time;
    for block in &blocks {
        let raw = bitcoin::consensus::serialize(block);
        let accepted = chainstate.accept_block(raw, now).unwrap();
        assert!(!matches!(accepted, BlockAccepted::Rejected(_)), "{accepted:?}");
    }
    let hour = Instant::now() + Duration::from_secs(3600);
    let advance = chainstate.advance(hour).unwrap();
    assert!(advance.done && advance.invalid.is_empty(), "{:?}", advance.invalid);
    assert_eq!(chainstate.tip().height, summary.blocks);
    assert_eq!(summary.full_height, summary.blocks - u32::try_from(EMPTY_ABOVE).unwrap());
    let stats = chainstate.utxo_stats(cofferdam_ibd::UtxoHash::Muhash).unwrap();
    assert_eq!(stats.txouts, summary.unspent);
    chainstate.shutdown().unwrap();
}

#[test]
fn signed_chains_are_valid_with_all_scripts() {
    check_valid(Plan { seed: 7, profile: Profile::Signed, blocks: 2 });
}

/// So many that there are whole blocks of fans, too.
#[test]
fn growing_chains_are_valid_with_all_scripts() {
    check_valid(Plan { seed: 7, profile: Profile::Growing, blocks: 8 });
}

#[test]
fn the_same_plan_makes_the_same_chain_and_another_seed_another() {
    let plan = |seed| Plan { seed, profile: Profile::Signed, blocks: 1 };
    let tip = |seed| make(plan(seed)).0.last().unwrap().block_hash();
    assert_eq!(tip(1), tip(1));
    assert_ne!(tip(1), tip(2));
}

#[test]
fn blocks_are_full_and_transactions_shaped_as_said() {
    let (blocks, summary) = make(Plan { seed: 3, profile: Profile::Signed, blocks: 6 });
    let full = &blocks[(summary.full_height - 6) as usize..summary.full_height as usize];
    for block in full {
        assert!((1_000_000..1_700_000).contains(&block.total_size()), "{}", block.total_size());
        assert!(block.weight().to_wu() <= 4_000_000);
    }
    let txs: Vec<&Transaction> = full.iter().flat_map(|block| &block.txdata[1..]).collect();
    let mean = |count: usize| count as f64 / txs.len() as f64;
    let inputs = mean(txs.iter().map(|tx| tx.input.len()).sum());
    let outputs = mean(txs.iter().map(|tx| tx.output.len()).sum());
    assert!((2.3..2.7).contains(&inputs), "{inputs}");
    assert!((2.5..2.9).contains(&outputs), "{outputs}");
    // Every kind is spent: by signature in a script, in a witness, by key and by script.
    for length in [0, 1, 2, 3, 4] {
        let any = |tx: &&Transaction| tx.input.iter().any(|input| input.witness.len() == length);
        assert!(txs.iter().any(any), "no witness of {length} items");
    }
    assert_ne!(blocks[0].block_hash().to_byte_array(), [0; 32]);
}
