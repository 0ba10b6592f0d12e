//! The coins of real blocks in the store: made, read and spent, in memory and below it.
//!
//! The coins are those that the blocks of `tests/data` spend, by the bytes that they have in the
//! store; a read is that of the pipeline, all coins of a block at once. `COFFERDAM_ROUNDS` is the
//! number of rounds (7).
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::sync::Arc;

use bitcoin::hashes::Hash as _;
use bitcoin::{Amount, OutPoint, TxOut, Txid};
use cofferdam_benches::report::{Sample, Spent, Table, alternate, from_env};
use cofferdam_benches::{random_key, single_blocks, spent_outputs};
use cofferdam_ibd::coin::outpoint_key;
use cofferdam_ibd::{COINS, Coin, TREES};
use cofferdam_storage::{
    BackendKind, BackendOptions, Batch, BlockBatch, Database, NoAttachments, ReadAhead,
    StdFileSystem, Tip, WalBuffered, WalOptions,
};

type Key = [u8; 36];
type Store = WalBuffered<Box<dyn Database>>;

/// The coins that one block spends.
struct Block {
    keys: Vec<Key>,
    made: Batch,
    spent: Batch,
}

fn blocks() -> Vec<Block> {
    let mut number = 0;
    let mut blocks = Vec::new();
    for (name, _) in single_blocks(90_000) {
        let Some(outputs) = spent_outputs(&name) else { continue };
        let (mut keys, mut made, mut spent) = (Vec::new(), Batch::new(), Batch::new());
        for (satoshis, script_pubkey) in outputs {
            number += 1;
            let id = random_key(number);
            let id = id.first_chunk().expect("36 bytes");
            let key = outpoint_key(&OutPoint::new(Txid::from_byte_array(*id), 0));
            let output = TxOut { value: Amount::from_sat(satoshis), script_pubkey };
            let coin = Coin { height: 500_000, coinbase: false, output };
            made.put_new(COINS, &key, &coin.encode());
            spent.delete(COINS, &key);
            keys.push(key);
        }
        blocks.push(Block { keys, made, spent });
    }
    blocks
}

fn open(kind: BackendKind, dir: &std::path::Path) -> Store {
    let (log, database) = (dir.join("log"), dir.join("db"));
    std::fs::create_dir_all(&log).expect("room");
    std::fs::create_dir_all(&database).expect("room");
    let backend = kind.open(&database, TREES, &BackendOptions::default()).expect("opens");
    let options = WalOptions::default();
    let opened =
        WalBuffered::open(options, Arc::new(StdFileSystem), &log, backend, Arc::new(NoAttachments));
    opened.expect("opens").0
}

fn commit<'a>(store: &Store, batches: impl Iterator<Item = &'a Batch>) {
    for batch in batches {
        let height = store.tip().map_or(0, |tip| tip.height + 1);
        let prev_hash = store.tip().map_or([0; 32], |tip| tip.hash);
        let mut hash = [1; 32];
        hash.iter_mut().zip(height.to_le_bytes()).for_each(|(to, from)| *to = from);
        let tip = Tip { height, hash };
        store.commit(BlockBatch { tip, prev_hash, batch: batch.clone() }).expect("works");
    }
}

fn read(store: &Store, blocks: &[Block], ahead: &[ReadAhead]) {
    let none = ReadAhead::default();
    let mut found = 0;
    for (at, block) in blocks.iter().enumerate() {
        let ahead = ahead.get(at).unwrap_or(&none);
        let visit = |_: usize, value: Option<&[u8]>| found += usize::from(value.is_some());
        store.read_many(COINS, &block.keys, ahead, visit).expect("works");
    }
    assert_eq!(found, blocks.iter().map(|block| block.keys.len()).sum());
}

/// Nanoseconds of the thread's CPU time per coin: made, read in memory, read below, read ahead, read
/// with what was read ahead, spent.
fn measure(kind: BackendKind, blocks: &[Block]) -> Vec<f64> {
    let dir = tempfile::tempdir().expect("room");
    let store = open(kind, dir.path());
    let coins: usize = blocks.iter().map(|block| block.keys.len()).sum();
    let mut times = Vec::new();
    let mut time = |work: &mut dyn FnMut()| {
        let ((), spent) = Spent::on(work);
        times.push(spent.wall * 1e9 / coins as f64);
    };
    time(&mut || commit(&store, blocks.iter().map(|block| &block.made)));
    time(&mut || read(&store, blocks, &[]));
    store.checkpoint().expect("works");
    time(&mut || read(&store, blocks, &[]));
    let (reader, mut ahead) = (store.read_handle(), Vec::new());
    let read_ahead =
        |block: &Block| reader.read_ahead(COINS, &block.keys, usize::MAX).expect("works");
    time(&mut || ahead = blocks.iter().map(read_ahead).collect());
    time(&mut || read(&store, blocks, &ahead));
    time(&mut || commit(&store, blocks.iter().map(|block| &block.spent)));
    times
}

fn main() {
    let blocks = blocks();
    let kinds = [BackendKind::Memory, BackendKind::Rocksdb];
    let samples =
        alternate(from_env("COFFERDAM_ROUNDS", 7), &kinds, |kind| measure(*kind, &blocks));
    let coins: usize = blocks.iter().map(|block| block.keys.len()).sum();
    println!("{coins} coins of {} blocks; ns a coin, by the clock\n", blocks.len());
    let mut table = Table::new(&[
        "engine",
        "made",
        "read in memory",
        "read below",
        "read ahead",
        "read after that",
        "spent",
    ]);
    for (kind, rounds) in kinds.iter().zip(samples) {
        let parts = rounds.first().map_or(0, Vec::len);
        let median = |part: usize| {
            let times = rounds.iter().filter_map(|round| round.get(part).copied());
            format!("{:.0}", Sample::new(times.collect()).median())
        };
        table.row(std::iter::once(kind.to_string()).chain((0..parts).map(median)));
    }
    println!("{table}");
}
