//! Tests of the chainstate in which no script runs: they need no interpreter of scripts.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bitcoin::consensus::serialize;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxOut};
use cofferdam_storage::testing::{CallFault, Fault, SimDatabase, SimFileSystem};
use cofferdam_storage::{Durability, FileSystem, LogRecords};

use super::*;
use crate::headers::HeaderStatus;
use crate::mining;
use crate::params::Network;
use crate::pipeline::IN_FLIGHT_SPENT_MAX;
use crate::script::{PreparedTransaction, ScriptFlags};
use crate::tables::TREES;
use crate::testing::{ModelChain, OpTrueVerifier, transfer};
use crate::wire::{OutputRef, TxRef};

/// A time after every block: 2026-01-01.
const NOW: u32 = 1_767_225_600;

/// Opens a chain of regtest on a simulated disk; each block has a file of its own.
fn open(fs: &SimFileSystem) -> Chainstate {
    open_with(fs, 1, Arc::new(OpTrueVerifier))
}

fn open_with(fs: &SimFileSystem, threads: usize, verifier: Arc<dyn ScriptVerifier>) -> Chainstate {
    let fs: Arc<dyn FileSystem> = Arc::new(fs.clone());
    let backend = SimDatabase::open(Arc::clone(&fs), Path::new("chain/db"), TREES).expect("opens");
    let options = ChainstateOptions {
        threads,
        assume_valid: AssumeValid::Off,
        blocks_dir: "blocks".into(),
        file_size: FileSize::Bytes(300),
        wal: WalOptions { durability: Durability::Strict, ..WalOptions::default() },
        ..ChainstateOptions::new(ChainParams::new(Network::Regtest), "chain")
    };
    let opened = Chainstate::open_with(options, &fs, Box::new(backend), verifier);
    opened.expect("opens").0
}

fn next_block(chain: &Chainstate) -> Vec<u8> {
    let mut block = mining::assemble_block(chain, &ScriptBuf::new(), NOW);
    assert!(mining::solve(&mut block, chain.params(), &mut 1_000_000));
    serialize(&block)
}

fn far_off() -> Instant {
    Instant::now() + Duration::from_secs(600)
}

fn mine(chain: &mut Chainstate, count: u32) {
    for _ in 0..count {
        let accepted = chain.accept_block(next_block(chain), NOW).expect("works");
        assert!(matches!(accepted, BlockAccepted::Stored(_)), "{accepted:?}");
        assert_eq!(chain.advance(far_off()).expect("works").connected, 1);
    }
}

fn at(chain: &Chainstate, height: u32) -> HeaderRef {
    chain.headers.ancestor(chain.headers.best(), height).expect("so high")
}

fn failed(chain: &Chainstate) -> Vec<u32> {
    let entries = chain.headers.iter().map(|at| chain.headers.entry(at));
    entries.filter(|e| e.status.has(HeaderStatus::FAILED)).map(|e| e.height).collect()
}

#[test]
fn blocks_above_pruned_ones_are_invalidated_and_the_rest_of_the_chain_lives_on() {
    let fs = SimFileSystem::new();
    let mut chain = open(&fs);
    mine(&mut chain, 6);
    let files = chain.finished_block_files().expect("readable");
    let old = files.iter().filter(|file| file.last_height <= 3).map(|file| file.number);
    chain.prune_files(&old.collect()).expect("works");
    assert_eq!(chain.prune_height(), Some(3));

    let second = at(&chain, 2);
    let done = chain.invalidate_block(second, far_off()).expect("no failure of the machine");
    assert_eq!(done, Invalidation { disconnected: 3, done: true });
    let look = |chain: &Chainstate| {
        let best = chain.headers.entry(chain.headers.best()).height;
        (chain.tip().height, best, failed(chain))
    };
    assert_eq!(look(&chain), (3, 3, vec![4, 5, 6]));
    chain.shutdown().expect("closes");
    let mut chain = open(&fs);
    assert_eq!(look(&chain), (3, 3, vec![4, 5, 6]));
    let advance = chain.advance(far_off()).expect("works");
    assert_eq!((advance.connected, advance.disconnected, advance.done), (0, 0, true));
}

#[test]
fn from_the_height_of_a_pause_on_blocks_are_connected_one_by_one() {
    let mut chain = open(&SimFileSystem::new());
    mine(&mut chain, 6);
    let first = at(&chain, 1);
    assert!(chain.invalidate_block(first, far_off()).expect("works").done);
    chain.reconsider_block(first).expect("works");
    chain.pause_from(3);
    for (connected, height, done) in [(3, 3, false), (1, 4, false), (1, 5, false)] {
        let advance = chain.advance(far_off()).expect("works");
        assert_eq!(
            (advance.connected, chain.tip().height, advance.done),
            (connected, height, done)
        );
    }
}

/// Adds headers above the tip, whose blocks are not there.
fn add_headers(chain: &mut Chainstate, count: u32) {
    let mut parent = chain.tip;
    for nonce in 0..count {
        let above = chain.headers.entry(parent);
        let mut header = above.header;
        (header.prev_blockhash, header.nonce) = (above.hash, nonce);
        parent = chain.headers.insert(&header, header.block_hash(), parent).expect("room");
        chain.dirty.insert(parent);
    }
}

/// What a crash would leave of the log: its records have some thousand rows at most.
fn check_records(fs: &SimFileSystem) {
    let mut records = LogRecords::open(fs, Path::new("chain/chainstate/log"), 1).expect("a log");
    let most = records.try_fold(0, |most, record| Ok::<_, Error>(record?.batch.len().max(most)));
    let most = most.expect("readable");
    assert!((ROWS_MAX..ROWS_MAX + 10).contains(&most), "{most}");
}

#[test]
fn more_rows_than_a_record_may_have_are_written_in_pieces() {
    const HEADERS: u32 = 50_000;
    let fs = SimFileSystem::new();
    let mut chain = open(&fs);
    mine(&mut chain, 2);
    add_headers(&mut chain, HEADERS);
    chain.sync().expect("works");
    let first = at(&chain, 1);
    let done = chain.invalidate_block(first, far_off()).expect("works");
    assert_eq!(done, Invalidation { disconnected: 2, done: true });
    drop(chain);
    check_records(&fs);
    let mut chain = open(&fs);
    assert_eq!((chain.tip().height, failed(&chain).len()), (0, 50_002));
    let first = chain.headers.iter().nth(1).expect("there");
    chain.reconsider_block(first).expect("works");
    assert_eq!(chain.advance(far_off()).expect("works").connected, 2);
    // As a block that breaks a rule has its descendants marked: another one can follow the tip.
    let third = chain.headers.iter().nth(3).expect("there");
    chain.mark_failed(third);
    assert_eq!(chain.dirty.len(), 50_000);
    mine(&mut chain, 1);
    assert_eq!((chain.dirty.len(), failed(&chain).len()), (0, 50_000));
}

#[test]
fn a_crash_between_pieces_leaves_all_descendants_marked_or_none() {
    const PIECES: u32 = 2;
    let fs = SimFileSystem::new();
    let mut chain = open(&fs);
    mine(&mut chain, 1);
    let many = u32::try_from(ROWS_MAX).expect("small") * PIECES;
    add_headers(&mut chain, many);
    chain.sync().expect("works");
    drop(chain);
    let all = many as usize;
    let (mut before, mut after, mut ops) = (0, 0, 0);
    loop {
        let disk = fs.copy();
        let mut chain = open(&disk);
        let first = at(&chain, 1);
        disk.inject(Fault { at: disk.ops() + ops, kind: ErrorKind::Other, sticky: true });
        let marked = chain.invalidate_block(first, far_off());
        let whole = marked.is_ok() && chain.reconsider_block(first).is_ok();
        drop(chain);
        let chain = open(&disk.copy());
        let found = failed(&chain).len();
        // The headers come first, then their block with the batch that disconnects it.
        let legal = if marked.is_ok() { [0, all + 1, all + 1] } else { [0, all, all + 1] };
        assert!(legal.contains(&found), "{found} after {ops} operations");
        (before, after) = (before + u32::from(found == 0), after + u32::from(found > 0));
        if whole {
            assert_eq!(found, 0);
            break;
        }
        ops += 1;
    }
    assert!(before >= 2 && after > 2 * PIECES, "{before} and {after} of {ops}");
}

#[test]
fn block_and_undo_files_wait_for_room_on_a_disk_of_their_own() {
    let fs = SimFileSystem::new();
    let mut chain = open(&fs);
    let disk = Path::new("blocks");
    let set_free_bytes = |chain: &Chainstate, bytes: u64| {
        assert_eq!(chain.files.dir(), disk);
        fs.set_free_bytes_in(disk, WalOptions::default().reserve_bytes + bytes);
    };
    let is_full = |error: Error| {
        let storage = matches!(&error, Error::Storage(cofferdam_storage::Error::NoSpace { path, .. })
            if path == disk);
        assert!(storage, "{error:?}");
    };
    let block = next_block(&chain);
    set_free_bytes(&chain, 100);
    is_full(chain.accept_block(block.clone(), NOW).expect_err("no room"));
    set_free_bytes(&chain, 1000);
    let accepted = chain.accept_block(block, NOW).expect("works");
    assert!(matches!(accepted, BlockAccepted::Stored(_)), "{accepted:?}");
    set_free_bytes(&chain, 0);
    is_full(chain.advance(far_off()).expect_err("no room"));
    assert_eq!(chain.tip().height, 0);
    set_free_bytes(&chain, 1000);
    assert_eq!(chain.advance(far_off()).expect("works").connected, 1);
}

#[test]
fn what_was_loaded_before_a_pause_is_not_loaded_again() {
    let mut model = open(&SimFileSystem::new());
    let fs = SimFileSystem::new();
    let mut chain = open(&fs);
    for _ in 0..6 {
        let block = next_block(&model);
        for chain in [&mut model, &mut chain] {
            let accepted = chain.accept_block(block.clone(), NOW).expect("works");
            assert!(matches!(accepted, BlockAccepted::Stored(_)), "{accepted:?}");
        }
        assert_eq!(model.advance(far_off()).expect("works").connected, 1);
    }
    // As many blocks as there are come from their files, as after a long wait.
    chain.recent = RecentBlocks::default();
    assert_eq!(chain.advance(Instant::now()).expect("works").connected, 1);
    // The only thread has done all that it was told to.
    chain.pool.install(|| ());
    let fault = CallFault { action: "read", after: 0, errno: Some(5), sticky: true };
    fs.inject_call(fault);
    for _ in 0..5 {
        assert_eq!(chain.advance(Instant::now()).expect("not read again").connected, 1);
    }
    assert_eq!(chain.tip(), model.tip());
    chain.shutdown().expect("closes");
}

/// Takes a while for every transaction, and counts those with many bytes of coins that it has at a time.
#[derive(Debug, Default)]
struct Slow {
    large: Arc<AtomicUsize>,
    most: AtomicUsize,
}

#[derive(Debug)]
struct SlowTransaction {
    inputs: usize,
    /// What to count down at the end.
    large: Option<Arc<AtomicUsize>>,
}

impl ScriptVerifier for Slow {
    fn prepare<'a>(
        &self,
        _: TxRef<'a>,
        spent: &'a [OutputRef<'a>],
        _: ScriptFlags,
    ) -> Result<Box<dyn PreparedTransaction + 'a>> {
        let bytes: usize = spent.iter().map(|output| output.script.len()).sum();
        let is_large = bytes >= IN_FLIGHT_SPENT_MAX;
        if is_large {
            self.most.fetch_max(self.large.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        }
        std::thread::sleep(Duration::from_millis(10));
        let large = is_large.then(|| Arc::clone(&self.large));
        Ok(Box::new(SlowTransaction { inputs: spent.len(), large }))
    }
}

impl PreparedTransaction for SlowTransaction {
    fn input_count(&self) -> usize {
        self.inputs
    }

    fn verify_input(&self, _: usize) -> bool {
        true
    }
}

impl Drop for SlowTransaction {
    fn drop(&mut self) {
        if let Some(large) = &self.large {
            large.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Blocks that spend little, and behind them some that spend more than may be in flight: one of these at
/// a time has its scripts run, however many are loaded.
#[test]
fn blocks_that_spend_the_longest_scripts_are_not_in_flight_together() {
    let fs = SimFileSystem::new();
    let verifier = Arc::new(Slow::default());
    let mut chain = open_with(&fs, 4, Arc::<Slow>::clone(&verifier));
    let (mut model, mut blocks) = ModelChain::funded(30);
    let coins = model.spendable(true);
    let (little, much) = coins.split_at(8);
    let long = || ScriptBuf::from_bytes(vec![0x61; 9000]);
    let value = |coin: &(OutPoint, TxOut)| coin.1.value / 10;
    let mut add = |txs: Vec<Transaction>| {
        let block = model.block(1, txs);
        model.connect(&block);
        blocks.push(block);
    };
    let ten = |coin: &(OutPoint, TxOut)| {
        let output = TxOut { value: value(coin), script_pubkey: long() };
        transfer(std::slice::from_ref(coin), vec![output; 10])
    };
    let made: Vec<Transaction> = much.iter().take(8).map(ten).collect();
    add(made.clone());
    let to = |value| vec![TxOut { value, script_pubkey: ScriptBuf::new() }];
    for coin in little {
        add(vec![transfer(std::slice::from_ref(coin), to(value(coin)))]);
    }
    for tx in &made {
        let txid = tx.compute_txid();
        let from = (0..).map(|vout| OutPoint::new(txid, vout)).zip(tx.output.clone());
        add(vec![transfer(&from.collect::<Vec<_>>(), to(Amount::ZERO))]);
    }
    for block in &blocks {
        let accepted = chain.accept_block(serialize(block), NOW).expect("works");
        assert!(matches!(accepted, BlockAccepted::Stored(_)), "{accepted:?}");
    }
    let advance = chain.advance(far_off()).expect("works");
    assert_eq!((advance.connected as usize, advance.invalid), (blocks.len(), vec![]));
    assert_eq!(verifier.most.load(Ordering::SeqCst), 1);
}
