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
    // Of a hundred outputs as many of each kind as of the main chain's.
    let scripts: Vec<&ScriptBuf> =
        txs.iter().flat_map(|tx| &tx.output).map(|output| &output.script_pubkey).collect();
    let check = |name: &str, expected: f64, is_kind: fn(&ScriptBuf) -> bool| {
        let count = scripts.iter().filter(|script| is_kind(script)).count();
        let share = 100.0 * count as f64 / scripts.len() as f64;
        assert!((share - expected).abs() < 1.5, "{name}: {share} of a hundred");
    };
    check("P2PKH", 15.0, |script| script.is_p2pkh());
    check("P2WPKH", 42.0, |script| script.is_p2wpkh());
    check("P2SH-P2WPKH", 9.0, |script| script.is_p2sh());
    check("P2WSH", 6.0, |script| script.is_p2wsh());
    check("P2TR", 28.0, |script| script.is_p2tr());
}

/// The ages at which coins are spent, in blocks of 3,000 outputs, of which 93 in a hundred are spent;
/// below them are as many coins as a chain begins with, older than all that is told apart.
#[test]
fn coins_die_at_the_ages_said_and_some_never() {
    const FIRST: u32 = 1_000;
    const BLOCKS: u32 = 300;
    // Where a coin is tells here when it was made.
    let made_at = |height| Coin {
        outpoint: OutPoint { vout: height, ..OutPoint::null() },
        value: 1,
        kind: Kind::Wpkh,
        key: 0,
    };
    let (mut random, mut coins, mut ages) = (Random::new(5), Coins::default(), Vec::new());
    (0..COINS_AT_FIRST).for_each(|_| coins.add(made_at(0)));
    (0..FIRST).for_each(|_| coins.end_block());
    for height in FIRST..FIRST + BLOCKS {
        for _ in 0..30 {
            for _ in 0..93 {
                let coin = coins.take(&mut random).expect("some are left");
                ages.push((height, height - coin.outpoint.vout));
            }
            (0..100).for_each(|_| coins.add(made_at(height)));
        }
        coins.end_block();
    }
    let is_late = |height: u32| height >= FIRST + BLOCKS / 2;
    let late: Vec<u32> =
        ages.iter().filter(|(height, _)| is_late(*height)).map(|(_, age)| *age).collect();
    let within = |age: u32| {
        100.0 * late.iter().filter(|spent| **spent <= age).count() as f64 / late.len() as f64
    };
    for (age, expected) in [(0, 8.0), (10, 40.0), (110, 65.0)] {
        let share = within(age);
        assert!((share - expected).abs() < 2.0, "{share} of a hundred within {age} blocks");
    }
    // The tail is long, and of the coins that were there at first some are left.
    assert!(late.iter().any(|age| *age > BLOCKS));
    assert!(coins.len() > COINS_AT_FIRST, "{}", coins.len());
}
