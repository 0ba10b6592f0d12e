//! A block of twice as many transactions costs no more allocations: parsing, checks, connecting and
//! the log keep their memory from block to block (alone in its process: the allocator counts for
//! all threads). Scripts are left out: their jobs allocate for each transaction.
#![expect(clippy::indexing_slicing, reason = "a test panics on anything unexpected")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::block::Header;
use bitcoin::{Amount, Block, OutPoint, Transaction, TxOut, consensus};
use cofferdam_ibd::testing::{ModelChain, transfer};
use cofferdam_ibd::{AssumeValid, ChainParams, Chainstate, ChainstateOptions, Network, TREES};
use cofferdam_storage::{BackendKind, BackendOptions, StdFileSystem};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Transactions of a long block; a short one has half of them.
const TXS: usize = 2_000;
/// Long blocks before the first that counts.
const WARM: usize = 12;
/// Pairs of a short and a long block that count.
const PAIRS: usize = 4;
/// Headers above the last block: more than two weeks of work.
const ABOVE: u64 = 2_100;
/// Allocations for each transaction more that are let pass: tables that grow at times.
const PER_TX_MAX: f64 = 0.02;

struct Chain {
    blocks: Vec<Block>,
    /// Those of the blocks, and those above.
    headers: Vec<Header>,
}

/// Spends a coin into one like it.
fn pass_on(coin: &mut (OutPoint, TxOut)) -> Transaction {
    let tx = transfer(std::slice::from_ref(coin), vec![coin.1.clone()]);
    coin.0 = OutPoint::new(tx.compute_txid(), 0);
    tx
}

/// A chain that ends with pairs of a short and a long block; each of their transactions spends one
/// coin of the blocks before into one.
fn chain() -> Chain {
    let (mut model, mut blocks) = ModelChain::funded(2);
    let spendable = model.spendable(true);
    let bare = |(_, output): &&(OutPoint, TxOut)| output.script_pubkey.len() == 1;
    let (from, funds) = spendable.iter().find(bare).expect("a bare coin");
    let value = Amount::from_sat(funds.value.to_sat() / TXS as u64);
    let coin = TxOut { value, script_pubkey: funds.script_pubkey.clone() };
    let fan = transfer(&[(*from, funds.clone())], vec![coin; TXS]);
    let txid = fan.compute_txid();
    let mut coins: Vec<_> =
        (0..).zip(fan.output.clone()).map(|(n, coin)| (OutPoint::new(txid, n), coin)).collect();
    let mut push = |model: &mut ModelChain, txs| {
        let block = model.block(2, txs);
        model.connect(&block);
        blocks.push(block);
    };
    push(&mut model, vec![fan]);
    let pairs = (0..PAIRS).flat_map(|_| [TXS / 2, TXS]);
    for count in std::iter::repeat_n(TXS, WARM).chain(pairs) {
        push(&mut model, coins[..count].iter_mut().map(pass_on).collect());
    }
    let mut headers: Vec<Header> = blocks.iter().map(|block| block.header).collect();
    for number in 0..ABOVE {
        let block = model.block(number, Vec::new());
        model.connect(&block);
        headers.push(block.header);
    }
    Chain { blocks, headers }
}

fn open(chain: &Chain, dir: &Path) -> Chainstate {
    let mut params = ChainParams::new(Network::Regtest);
    // As on the main chain: no output has to be looked up that BIP-0034 makes new.
    params.bip34_hash = Some(chain.headers[params.bip34_height as usize - 1].block_hash());
    let last = chain.headers[chain.blocks.len() - 1].block_hash();
    let options = ChainstateOptions {
        assume_valid: AssumeValid::Block(last),
        threads: 2,
        ..ChainstateOptions::new(params, dir)
    };
    let path = dir.join("db");
    let database =
        BackendKind::Memory.open(&path, TREES, &BackendOptions::default()).expect("opens");
    Chainstate::open(options, Arc::new(StdFileSystem), database).expect("opens").0
}

#[test]
fn a_transaction_more_is_not_an_allocation_more() {
    let chain = chain();
    let dir = tempfile::tempdir().unwrap();
    let mut chainstate = open(&chain, dir.path());
    let now = chain.headers.last().unwrap().time;
    chainstate.accept_headers(&chain.headers, now).unwrap().unwrap();
    let profiler = dhat::Profiler::builder().testing().build();
    let mut counts = Vec::new();
    for block in &chain.blocks {
        let raw = consensus::serialize(block);
        let before = dhat::HeapStats::get().total_blocks;
        let _ = chainstate.accept_block(raw, now).unwrap();
        let advance = chainstate.advance(Instant::now() + Duration::from_secs(600)).unwrap();
        counts.push(dhat::HeapStats::get().total_blocks - before);
        assert!(advance.done && advance.invalid.is_empty(), "{advance:?}");
    }
    drop(profiler);
    assert_eq!(chainstate.tip().height as usize, chain.blocks.len());
    let counted = &counts[counts.len() - 2 * PAIRS..];
    let least = |parity| counted.iter().skip(parity).step_by(2).copied().min().unwrap() as f64;
    let per_tx = (least(1) - least(0)) / (TXS / 2) as f64;
    println!("{} and {TXS} transactions in turn: {counted:?} allocations", TXS / 2);
    assert!(per_tx <= PER_TX_MAX, "{per_tx} allocations for each transaction more");
}
