//! A million headers: taken in, and read back when the chain is opened. Prints a Markdown table.
//!
//! `COFFERDAM_BENCH_HEADERS` (1,000,000) and `COFFERDAM_BENCH_ROUNDS` (5) set the scale. The headers
//! are one chain of regtest, mined before time is taken; the store is the real one on `RocksDB`,
//! closed before each opening.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![expect(clippy::expect_used, reason = "benchmarks panic on anything unexpected")]

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::hashes::Hash as _;
use bitcoin::{BlockHash, TxMerkleNode};
use cofferdam_benches::report::{Sample, Spent, Table, from_env};
use cofferdam_ibd::headers::{Extent, HeaderRow, HeaderStatus};
use cofferdam_ibd::pow::check_proof_of_work;
use cofferdam_ibd::{
    AssumeValid, ChainParams, Chainstate, ChainstateOptions, HEADERS, Network, TREES,
};
use cofferdam_storage::{
    BackendKind, BackendOptions, Batch, BlockBatch, Database, FilePosition, NoAttachments,
    StdFileSystem, Tip, WalBuffered, WalOptions,
};

/// Headers of one message.
const MESSAGE: usize = 2000;
/// Rows of one batch of the store.
const BATCH: usize = 10_000;

fn main() {
    let count = from_env("COFFERDAM_BENCH_HEADERS", 1_000_000);
    let rounds = from_env("COFFERDAM_BENCH_ROUNDS", 5);
    let headers = mine(count);
    println!("{count} headers of one chain; {rounds} rounds\n");
    let dir = tempfile::tempdir().expect("temporary");
    let mut table = Table::new(&["RocksDB", "seconds", "spread", "aim", "CPU a header"]);

    let accept = [accept(dir.path(), &headers)];
    let mut row = |what: &str, spent: &[Spent], aim: &str| {
        let taken = Sample::new(spent.iter().map(|spent| spent.wall).collect());
        let processor = Sample::new(spent.iter().map(|spent| spent.processor).collect());
        let each = processor.median() / count as f64 * 1e6;
        table.row([
            what.to_owned(),
            format!("{:.2}", taken.median()),
            taken.spread(1.0, 2),
            aim.to_owned(),
            format!("{each:.2} µs"),
        ]);
    };
    row("`accept_headers`, 2,000 at a time", &accept, "");
    let (taken, ..) = open_often(dir.path(), count, rounds);
    row("open, no block stored", &taken, "< 2");
    store_all(dir.path(), &headers);
    let (taken, tree, process) = open_often(dir.path(), count, rounds);
    row("open, every block stored", &taken, "< 2");
    println!("{table}");
    println!(
        "Memory: {} bytes a header for the tree; {} for all that opening leaves behind, the engine's \
         cache included.",
        tree / count,
        process / count
    );
}

/// Mines a chain on regtest's genesis block, ten minutes a header.
fn mine(count: usize) -> Vec<Header> {
    let params = ChainParams::new(Network::Regtest);
    let mut last = params.genesis.header;
    let mut headers = Vec::with_capacity(count);
    for n in 0..count as u64 {
        let mut root = [0; 32];
        root[..8].copy_from_slice(&n.to_le_bytes());
        last.prev_blockhash = last.block_hash();
        last.version = bitcoin::block::Version::from_consensus(0x2000_0000);
        last.merkle_root = TxMerkleNode::from_byte_array(root);
        last.time += 600;
        while check_proof_of_work(&last, &params).is_err() {
            last.nonce = last.nonce.wrapping_add(1);
        }
        headers.push(last);
    }
    headers
}

fn backend(dir: &Path) -> Box<dyn Database> {
    let path = dir.join("chainstate").join("rocksdb");
    std::fs::create_dir_all(&path).expect("temporary");
    BackendKind::Rocksdb.open(&path, TREES, &BackendOptions::default()).expect("opens")
}

fn open(dir: &Path, backend: Box<dyn Database>) -> Chainstate {
    let options = ChainstateOptions {
        threads: 2,
        assume_valid: AssumeValid::Off,
        ..ChainstateOptions::new(ChainParams::new(Network::Regtest), dir)
    };
    Chainstate::open(options, Arc::new(StdFileSystem), backend).expect("opens").0
}

/// Takes all headers in; returns what that took.
fn accept(dir: &Path, headers: &[Header]) -> Spent {
    let mut chainstate = open(dir, backend(dir));
    let now = headers.last().map_or(0, |last| last.time);
    let ((), spent) = Spent::on(|| {
        for message in headers.chunks(MESSAGE) {
            let accepted = chainstate.accept_headers(message, now).expect("works").expect("valid");
            assert_eq!(accepted.new, message.len());
        }
    });
    chainstate.shutdown().expect("closes");
    spent
}

/// Opens and closes the chain, which has to have `count` headers; returns what each
/// opening took, without the engine's own, and the most bytes of the tree and of the process that one
/// left in memory.
fn open_often(dir: &Path, count: usize, rounds: usize) -> (Vec<Spent>, usize, usize) {
    let mut all_spent = Vec::new();
    let (mut tree, mut process) = (0, 0);
    for _ in 0..rounds {
        let backend = backend(dir);
        let before = resident();
        let (chainstate, spent) = Spent::on(|| open(dir, backend));
        all_spent.push(spent);
        assert_eq!(chainstate.headers().len(), count + 1);
        tree = tree.max(chainstate.headers().memory_bytes());
        process = process.max(resident().saturating_sub(before));
        chainstate.shutdown().expect("closes");
    }
    (all_spent, tree, process)
}

/// Writes the rows anew as if every block had been connected.
fn store_all(dir: &Path, headers: &[Header]) {
    let log = dir.join("chainstate").join("log");
    let options = WalOptions::default();
    let fs = Arc::new(StdFileSystem);
    let (store, _) =
        WalBuffered::open(options, fs, &log, backend(dir), Arc::new(NoAttachments)).expect("opens");
    let extent = |n: u32| Extent {
        position: FilePosition { file: n / 100, offset: 8 },
        length: NonZeroU32::MAX,
        crc32: n,
    };
    let mut prev = ChainParams::new(Network::Regtest).genesis.block_hash();
    let rows: Vec<(u32, &Header)> = (1..).zip(headers).collect();
    for rows in rows.chunks(BATCH) {
        let mut batch = Batch::new();
        let mut tip = (0, prev);
        for &(height, header) in rows {
            let hash = header.block_hash();
            let row = HeaderRow {
                height,
                header: *header,
                status: HeaderStatus::VALID,
                tx_count: 2000,
                block: Some(extent(height)),
                undo: Some(extent(height)),
            };
            batch.put(HEADERS, &HeaderRow::key(height, &hash), &row.encode());
            tip = (height, hash);
        }
        let (height, hash): (u32, BlockHash) = tip;
        let tip = Tip { height, hash: hash.to_byte_array() };
        let prev_hash = prev.to_byte_array();
        store.commit(BlockBatch { tip, prev_hash, batch }).expect("commits");
        prev = hash;
    }
    store.shutdown().expect("closes");
}

/// Bytes of memory that the process has now.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line of it");
    let kilobytes = line.split_whitespace().nth(1).expect("a number");
    kilobytes.parse::<usize>().expect("a number") * 1024
}
