//! What another node copies to keep its coins in this store: one life of it, a crash, and the next.
//!
//! ```text
//! cargo run --release -p cofferdam-storage --example embed
//! cargo run --release -p cofferdam-storage --features sled --example embed sled /tmp/coins
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cofferdam_storage::{
    BackendOptions, Batch, BlockBatch, Database, Durability, NoAttachments, Recovery,
    StdFileSystem, Tip, Tree, WalBuffered, WalOptions,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Store = WalBuffered<Box<dyn Database>>;

// An id never changes its meaning; 0 is the store's own.
const COINS: Tree = Tree { id: 1, name: "coins" };
const UNDO: Tree = Tree { id: 2, name: "undo" };

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let engine = words.next().unwrap_or_else(|| "memory".to_owned());
    let dir = words.next().map_or_else(|| std::env::temp_dir().join("embed"), PathBuf::from);
    run(&engine, &dir)
}

/// Opens the engine of that name under a log and a buffer. The same call begins a store, opens
/// one that was shut down, and recovers one that was not.
fn open(engine: &str, dir: &Path) -> Result<(Store, Recovery)> {
    let options = BackendOptions { cache_bytes: 32 << 20 };
    let backend = engine.parse::<cofferdam_storage::BackendKind>()?;
    let backend = backend.open(&dir.join(engine), &[COINS, UNDO], &options)?;
    let options = WalOptions {
        // A commit returns when its record is in the page cache; an fsync follows within 100 ms.
        durability: Durability::Relaxed { interval_ms: 100 },
        memtable_bytes: 64 << 20,
        ..WalOptions::default()
    };
    // A node that keeps blocks in files of its own passes what fsyncs them: the log never becomes
    // durable before what it refers to.
    let attachments = Arc::new(NoAttachments);
    Ok(WalBuffered::open(options, Arc::new(StdFileSystem), &dir.join("log"), backend, attachments)?)
}

/// A block that spends one coin and makes one, on top of `parent`. What it takes away goes into
/// `UNDO` in the same batch: there is no moment at which only one of both is there.
fn block(parent: Option<Tip>, name: u8, spends: Option<(&[u8], &[u8])>) -> BlockBatch {
    let mut batch = Batch::new();
    if let Some((outpoint, coin)) = spends {
        batch.delete(COINS, outpoint);
        batch.put(UNDO, &[name], &[outpoint, coin].concat());
    }
    // `put_new` asserts that the key is absent. In return a coin that is spent before it was ever
    // written back never reaches the engine.
    batch.put_new(COINS, &[b'c', name], b"coin");
    let height = parent.map_or(0, |parent| parent.height + 1);
    let prev_hash = parent.map_or([0; 32], |parent| parent.hash);
    BlockBatch { tip: Tip { height, hash: [name; 32] }, prev_hash, batch }
}

/// Undoes `block`: a step back is a batch like any other, whose tip is the parent.
fn undo(store: &Store, block: &BlockBatch, parent: Tip) -> Result<BlockBatch> {
    let [name, ..] = block.tip.hash;
    let mut batch = Batch::new();
    batch.delete(COINS, &[b'c', name]);
    if let Some(taken) = store.get(UNDO, &[name])? {
        let (outpoint, coin) = taken.split_at_checked(2).ok_or("undo data is too short")?;
        batch.put_new(COINS, outpoint, coin);
        batch.delete(UNDO, &[name]);
    }
    Ok(BlockBatch { tip: parent, prev_hash: block.tip.hash, batch })
}

/// The whole life of a store in `dir`.
pub(crate) fn run(engine: &str, dir: &Path) -> Result<()> {
    let (store, recovery) = open(engine, dir)?;
    println!("opened {engine}: {recovery:?}");
    if store.tip().is_some() {
        return Err(format!("{} has a chain already: name an empty one", dir.display()).into());
    }

    // Commit: visible and logged, whole or not at all.
    store.commit(block(None, b'a', None))?;
    let a = store.tip().ok_or("a tip")?;

    // Stage: visible at once, committed later or never. A pipeline checks scripts in between.
    store.stage(block(Some(a), b'x', Some((b"ca", b"coin"))))?;
    assert!(!store.contains_key(COINS, b"ca")?);
    println!("a block was invalid: {} staged batch taken back", store.abort_staged());
    assert!(store.contains_key(COINS, b"ca")?);

    let b = block(Some(a), b'b', Some((b"ca", b"coin")));
    store.stage(b.clone())?;
    store.commit_staged()?;

    // Reorganisation: a step back to `a`, then another block on top of it.
    store.commit(undo(&store, &b, a)?)?;
    assert_eq!(store.get(COINS, b"ca")?, Some(b"coin".to_vec()));
    store.commit(block(Some(a), b'd', Some((b"ca", b"coin"))))?;

    // Reading ahead: take the epoch *before* the read. A value may be used later if the epoch has
    // not moved and no batch since has changed its key; else it is read again.
    let (epoch, ahead) = (store.epoch(), store.get(COINS, b"cd")?);
    let next = block(store.tip(), b'e', Some((b"cd", b"coin")));
    let is_changed = next.batch.ops().any(|op| op.tree_id() == COINS.id && op.key() == b"cd");
    store.commit(next)?;
    let is_stale = is_changed || store.epoch() != epoch;
    let now = if is_stale { store.get(COINS, b"cd")? } else { ahead };
    assert_eq!(now, None);
    store.sync()?; // durable from here on, in any mode

    // A crash: dropped without `shutdown`. Nothing reached the engine, all is in the log.
    let tip = store.tip();
    drop(store);
    let (store, recovery) = open(engine, dir)?;
    println!("replayed {} records, cut off: {:?}", recovery.records, recovery.torn);
    assert_eq!((recovery.records, recovery.tip, store.tip()), (5, tip, tip));
    assert_eq!(store.get(COINS, b"ce")?, Some(b"coin".to_vec()));

    // A checkpoint writes all to the engine and empties the log; the store does it by itself when
    // its buffer is full. It retires what was in memory, so the epoch moves.
    let epoch = store.epoch();
    store.checkpoint()?;
    assert_ne!(store.epoch(), epoch);
    let stats = store.stats();
    println!("{} operations for {} batches reached the engine", stats.flushed_ops, stats.lsn);
    store.shutdown()?; // the next opening has nothing to do
    Ok(())
}
