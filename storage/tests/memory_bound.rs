//! Does a buffered store keep within the memory it was given, counted byte by byte?
//!
//! This program's allocator counts. The engine below stores nothing, so all that is counted
//! belongs to the store and, for one batch, to the load.
#![cfg(feature = "testing")]

use std::alloc::System;
use std::io::{IsTerminal as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use cap::Cap;
use cofferdam_storage::testing::{Random, effort};
use cofferdam_storage::{
    Batch, BlockBatch, Count, Database, Durability, Entries, KeyRange, NoAttachments, Result,
    STATE_TREE, StdFileSystem, Tip, Tree, WalBuffered, WalOptions,
};

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

const COINS: Tree = Tree { id: 1, name: "coins" };
const SEED: u64 = 0x0c0f_3e31;
/// After how many batches the coins of one batch are spent, in turn: most die in memory, some as
/// tombstones, one in eight stays.
const LIVES: [u64; 8] = [1, 1, 2, 10, 40, 200, 1_000, u64::MAX];
const BATCH_COINS: usize = 2_000;
/// Write-backs per measurement.
const FLUSHES: u64 = 3;
/// A load whose heap has not changed for so long is waiting, if the machine is not very slow.
const STILL: Duration = Duration::from_millis(300);

/// What a store needs beside its memtable: the load's batch, twice as large as its contents, and
/// the log's copy of it.
const BATCH_BYTES: usize = 4 * BATCH_COINS * 2 * (36 + 100 + 8);
/// A write-back's batch: 8 MiB, and room for the operation with which it becomes too long.
const WRITE_BACK_BYTES: usize = (8 << 20) + (64 << 10);
/// Threads, the rest.
const FIXED_BYTES: usize = 256 << 10;

/// An engine that takes everything and has nothing. It begins with a generation only when the load
/// waits for it, so that the next generation is full before the frozen one is written.
#[derive(Debug, Default)]
struct Sink {
    begun: AtomicBool,
}

impl Database for Sink {
    fn trees(&self) -> &[Tree] {
        &[STATE_TREE, COINS]
    }

    fn get(&self, _: Tree, _: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn range(&self, _: Tree, _: KeyRange) -> Result<Entries<'_>> {
        Ok(Box::new(std::iter::empty()))
    }

    fn len(&self, _: Tree) -> Result<Count> {
        Ok(Count::Exact(0))
    }

    fn clear(&self, _: Tree) -> Result<()> {
        Ok(())
    }

    fn apply(&self, batch: &Batch) -> Result<()> {
        // Who waits allocates nothing.
        let mut before = usize::MAX;
        while !self.begun.load(Ordering::Relaxed) {
            let now = HEAP.allocated();
            self.begun.store(now == before, Ordering::Relaxed);
            before = now;
            thread::sleep(STILL);
        }
        // A generation's last batch says how far the engine is.
        let is_last = batch.ops().any(|op| op.tree_id() == STATE_TREE.id && op.key() == b"applied");
        self.begun.store(!is_last, Ordering::Relaxed);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

fn key(batch: u64, coin: usize) -> Vec<u8> {
    let coin = u64::try_from(coin).expect("small");
    let mut random = Random::new(Random::new(SEED ^ (batch << 20) ^ coin).next());
    random.bytes(36)
}

fn batch(number: u64, value_bytes_max: usize) -> Batch {
    let mut random = Random::new(SEED ^ number);
    let mut batch = Batch::new();
    for (coin, life) in LIVES.into_iter().cycle().take(BATCH_COINS).enumerate() {
        let len = random.below(value_bytes_max + 1);
        batch.put_new(COINS, &key(number, coin), &random.bytes(len));
        if let Some(born) = number.checked_sub(life) {
            batch.delete(COINS, &key(born, coin));
        }
    }
    batch
}

/// What a run has measured, in bytes.
#[derive(Debug)]
struct Measured {
    /// The peak of the heap.
    peak: usize,
    /// What the store itself accounted for, at most.
    accounted: u64,
}

/// Fills and empties a store several times.
fn measure(memtable_bytes: usize, value_bytes_max: usize) -> Measured {
    let before = HEAP.allocated();
    let dir = tempfile::tempdir().expect("a directory");
    // The load never waits for a disk, so when it waits it is for memory.
    let durability = Durability::Async;
    let segment_bytes = u64::MAX;
    let options = WalOptions { memtable_bytes, durability, segment_bytes, ..WalOptions::default() };
    let fs = Arc::new(StdFileSystem);
    let opened =
        WalBuffered::open(options, fs, dir.path(), Sink::default(), Arc::new(NoAttachments));
    let (store, _) = opened.expect("the store opens");
    let (mut number, mut prev_hash, mut accounted) = (0, [0; 32], 0);
    let mut stats = store.stats();
    while stats.flushes < FLUSHES {
        let tip = Tip { height: u32::try_from(number).expect("few"), hash: [1; 32] };
        let batch = batch(number, value_bytes_max);
        store.commit(BlockBatch { tip, prev_hash, batch }).expect("it commits");
        (number, prev_hash) = (number + 1, tip.hash);
        stats = store.stats();
        accounted = accounted.max(stats.active_bytes + stats.frozen_bytes);
    }
    let full = u64::try_from(memtable_bytes).expect("64 bits") / 10 * 8;
    assert!(accounted > full, "the generations were never full at once: {accounted}, {stats:?}");
    Measured { peak: HEAP.max_allocated() - before, accounted }
}

/// Not a test: the process that is measured. The peak is one over the life of a process.
#[test]
#[ignore = "it is started by the other test"]
fn worker() {
    let mut line = String::new();
    if !std::io::stdin().is_terminal() {
        std::io::stdin().read_line(&mut line).expect("a line");
    }
    let Some((memtable_mib, value_bytes_max)) = line.trim_end().split_once(' ') else { return };
    let memtable_bytes = memtable_mib.parse::<usize>().expect("a number") << 20;
    let Measured { peak, accounted } =
        measure(memtable_bytes, value_bytes_max.parse().expect("a number"));
    let rest = BATCH_BYTES + WRITE_BACK_BYTES + FIXED_BYTES;
    println!(
        "memtable {memtable_mib} MiB, values of {value_bytes_max} bytes at most: accounted for \
         {} KiB, peak {} KiB, allowed {} KiB + {} KiB",
        accounted >> 10,
        peak >> 10,
        memtable_bytes >> 10,
        rest >> 10,
    );
    assert!(usize::try_from(accounted).is_ok_and(|accounted| accounted <= memtable_bytes));
    assert!(peak <= memtable_bytes + rest);
}

#[test]
fn the_heap_keeps_within_the_memtable_and_a_known_rest() {
    // With values of no bytes, the lookup table of a generation of 12 or 48 MiB doubles when the
    // generation is almost full.
    let memtables: &[usize] = effort().pick(&[24], &[24, 96], &[24, 60, 96, 250, 450]);
    let mut failed = Vec::new();
    for memtable_mib in memtables {
        for value_bytes_max in [100, 0] {
            let program = std::env::current_exe().expect("a program");
            let mut worker = Command::new(program)
                .args(["--ignored", "--exact", "worker", "--nocapture"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("the program starts again");
            let mut orders = worker.stdin.take().expect("piped");
            writeln!(orders, "{memtable_mib} {value_bytes_max}").expect("it listens");
            let output = worker.wait_with_output().expect("a child");
            let said = String::from_utf8_lossy(&output.stdout);
            said.lines().filter(|line| line.contains("KiB")).for_each(|line| println!("{line}"));
            if !output.status.success() {
                failed.push((memtable_mib, value_bytes_max));
            }
        }
    }
    assert!(failed.is_empty(), "MiB and bytes of values: {failed:?}");
}
