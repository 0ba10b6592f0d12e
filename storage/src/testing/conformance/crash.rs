//! The clause on crashes: power is cut at every operation of a database's file I/O.

use std::sync::Arc;

use super::{A, B, TREES};
use crate::batch::Batch;
use crate::database::{Database, KeyRange};
use crate::error::Result;
use crate::file_system::FileSystem;
use crate::testing::{CrashModel, Model, SimFileSystem, effort};

/// Opens the database of a file system with [`TREES`](super::TREES).
pub type Open<'a> = dyn Fn(Arc<dyn FileSystem>) -> Result<Box<dyn Database>> + 'a;

/// Batches of one run; `flush` comes after each one whose number is in [`FLUSHED`].
const BATCHES: u8 = 12;
const FLUSHED: [u8; 4] = [0, 4, 5, 9];

/// Checks clause 6 for a database whose file I/O goes through a [`FileSystem`]: after a crash at
/// any operation it can be opened, holds every batch that was flushed, and of each later one all
/// or nothing. Returns the number of crash states that were checked.
///
/// # Panics
///
/// If it does not; the message says at which operation, and what the crash left.
pub fn run_crash(open: &Open<'_>) -> u32 {
    let whole = SimFileSystem::new();
    let reached = write(&whole, open);
    assert_eq!(reached, Reached { attempted: BATCHES, flushed: 10 }, "without a crash");
    let seeds = effort().pick(4, 20, 200);
    let mut states = 0;
    for op in 0..=whole.ops() {
        let fs = SimFileSystem::new();
        fs.crash_at(op);
        let reached = write(&fs, open);
        for model in
            [CrashModel::Kill, CrashModel::SyncedOnly, CrashModel::Prefix, CrashModel::Subset]
        {
            for seed in 0..if model == CrashModel::Subset { seeds } else { 1 } {
                let label = format!("power cut at operation {op}, {model:?} {seed}");
                check(&fs.after_crash(model, seed + op * 1000), open, reached, &label);
                states += 1;
            }
        }
    }
    states
}

/// How far a run got: numbers of batches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Reached {
    attempted: u8,
    flushed: u8,
}

/// A batch over two trees, with a row in each that tells that it is there, a row that every batch
/// overwrites, and one that the next batch deletes.
fn batch(number: u8) -> Batch {
    let mut batch = Batch::new();
    batch.put(A, &[number], &[number; 600]);
    batch.put(A, b"newest", &[number]);
    batch.put(B, &[number], b"");
    batch.put(B, &[b'd', number], b"short-lived");
    if let Some(before) = number.checked_sub(1) {
        batch.delete(B, &[b'd', before]);
    }
    batch
}

/// Applies and flushes until the machine crashes.
fn write(fs: &SimFileSystem, open: &Open<'_>) -> Reached {
    let mut reached = Reached::default();
    let Ok(database) = open(Arc::new(fs.clone())) else {
        return reached;
    };
    for number in 0..BATCHES {
        reached.attempted = number + 1;
        if database.apply(&batch(number)).is_err() {
            return reached;
        }
        if FLUSHED.contains(&number) {
            if database.flush().is_err() {
                return reached;
            }
            reached.flushed = number + 1;
        }
    }
    reached
}

/// Opens what a crash has left.
fn check(fs: &SimFileSystem, open: &Open<'_>, reached: Reached, label: &str) {
    let opened = |fs: &SimFileSystem| {
        open(Arc::new(fs.clone())).unwrap_or_else(|e| panic!("{label}: opening: {}", e.chain()))
    };
    let database = opened(fs);
    let read = Model::read(&*database).expect("readable");
    let mut expected = Model::default();
    for number in 0..BATCHES {
        if read.get(A.id, &[number]).is_some() {
            assert!(number < reached.attempted, "{label}: batch {number} was never applied");
            expected.apply(&batch(number));
        } else {
            assert!(number >= reached.flushed, "{label}: batch {number} was flushed and is lost");
        }
    }
    assert_eq!(read, expected, "{label}: a batch is there in parts");
    // What can be read now was perhaps never durable; a flush covers it all the same.
    database.flush().unwrap_or_else(|e| panic!("{label}: flush: {}", e.chain()));
    let cut = fs.after_crash(CrashModel::SyncedOnly, 0);
    drop(database);
    let again = opened(&cut);
    assert_eq!(Model::read(&*again).expect("readable"), expected, "{label}: flushed after opening");
    for tree in TREES {
        assert!(again.range(tree, KeyRange::all()).is_ok(), "{label}: {tree:?}");
    }
}
