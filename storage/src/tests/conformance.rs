//! Every backend, bare and under the write-ahead log, keeps the contract of `Database`.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::testing::{SimDatabase, SimFileSystem, conformance};
use crate::{
    BackendKind, BackendOptions, Batch, Count, Database, Durability, Entries, FileSystem, KeyRange,
    LsmDatabase, MemoryDatabase, NoAttachments, Op, Result, StdFileSystem, Tree, WalBuffered,
    WalOptions,
};

fn small_cache() -> BackendOptions {
    BackendOptions { cache_bytes: 1 << 20 }
}

/// Flushes often, so that the generations mix.
fn buffered(fs: Arc<dyn FileSystem>, dir: &Path, backend: Box<dyn Database>) -> Box<dyn Database> {
    let options = WalOptions {
        durability: Durability::Relaxed { interval_ms: 5 },
        memtable_bytes: 64 << 10,
        flush_every_blocks: Some(3),
        segment_bytes: 64 << 10,
        verify_freshness: true,
        ..WalOptions::default()
    };
    let (store, _) = WalBuffered::open(options, fs, dir, backend, Arc::new(NoAttachments)).unwrap();
    Box::new(store)
}

#[test]
fn every_backend_bare() {
    for kind in BackendKind::available() {
        let dir = tempfile::tempdir().unwrap();
        let number = AtomicU32::new(0);
        conformance::run(&|| {
            let path = dir.path().join(number.fetch_add(1, Ordering::Relaxed).to_string());
            kind.open(&path, &conformance::TREES, &small_cache()).unwrap()
        });
    }
}

#[test]
fn every_backend_under_the_log() {
    for kind in BackendKind::available() {
        let dir = tempfile::tempdir().unwrap();
        let number = AtomicU32::new(0);
        conformance::run(&|| {
            let path = dir.path().join(number.fetch_add(1, Ordering::Relaxed).to_string());
            let backend = kind.open(&path.join("db"), &conformance::TREES, &small_cache()).unwrap();
            buffered(Arc::new(StdFileSystem), &path.join("log"), backend)
        });
    }
}

#[test]
fn what_is_flushed_is_there_after_reopening() {
    for kind in BackendKind::available() {
        if kind == BackendKind::Memory {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            kind.open(&dir.path().join(name), &conformance::TREES, &small_cache()).unwrap()
        };
        conformance::run_persistent(&|| open("bare"));
        conformance::run_persistent(&|| {
            buffered(Arc::new(StdFileSystem), &dir.path().join("log"), open("buffered"))
        });
    }
}

#[test]
fn an_open_backend_is_locked() {
    for kind in BackendKind::available() {
        if kind == BackendKind::Memory {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let open = || kind.open(dir.path(), &conformance::TREES, &small_cache());
        let held = open().unwrap();
        assert!(matches!(open(), Err(crate::Error::Locked { .. })), "{kind}");
        drop(held);
        open().unwrap();
    }
}

#[test]
fn the_simulated_database() {
    let open = |fs: &SimFileSystem| {
        SimDatabase::open(Arc::new(fs.clone()), Path::new("db"), &conformance::TREES).unwrap()
    };
    conformance::run(&|| Box::new(open(&SimFileSystem::new())));
    let fs = SimFileSystem::new();
    conformance::run_persistent(&|| Box::new(open(&fs)));
}

#[test]
fn memory_is_what_every_build_has() {
    assert!(BackendKind::available().contains(&BackendKind::Memory));
    conformance::run(&|| Box::new(MemoryDatabase::new(&conformance::TREES)));
}

fn open_simulated(fs: Arc<dyn FileSystem>) -> Result<Box<dyn Database>> {
    let database = SimDatabase::open(fs, Path::new("db"), &conformance::TREES)?;
    Ok(Box::new(database))
}

#[test]
fn power_cuts_take_no_flushed_batch_and_no_part_of_one() {
    let bare = conformance::run_crash(&open_simulated);
    let under_the_log = |fs: Arc<dyn FileSystem>, backend: Box<dyn Database>| {
        let options = WalOptions {
            durability: Durability::Async,
            segment_bytes: 6000,
            ..WalOptions::default()
        };
        let log = Path::new("log");
        let (store, _) = WalBuffered::open(options, fs, log, backend, Arc::new(NoAttachments))?;
        Ok(Box::new(store) as Box<dyn Database>)
    };
    let buffered =
        conformance::run_crash(&|fs| under_the_log(Arc::clone(&fs), open_simulated(fs)?));
    // This one takes a write-back in one step.
    let lsm = conformance::run_crash(&|fs| {
        let backend = LsmDatabase::open(Arc::clone(&fs), Path::new("db"), &conformance::TREES)?;
        under_the_log(fs, Box::new(backend))
    });
    println!("{bare} crash states bare, {buffered} under the log, {lsm} with the engine lsm");
}

/// A promise that is not kept.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Flaw {
    None,
    /// A batch is applied in two parts.
    TwoParts,
    /// The order of an iteration is by length first.
    ByLength,
    /// Bounds at the end of a range are always excluded.
    EndExcluded,
    /// Keys asked for twice are answered once.
    AnswersOnce,
    /// The length counts operations.
    CountsOps,
    /// Clearing leaves the last entry.
    ClearsAllButOne,
    /// `put_new` never overwrites, not even within a batch after a delete.
    DeletesLast,
    /// Trees that were not opened are empty.
    UnknownIsEmpty,
    /// Empty values are no values.
    EmptyIsAbsent,
    /// An ingestion ends with the first batch.
    IngestsOneBatch,
    /// `flush` does nothing.
    FlushesNothing,
}

/// A database with a flaw.
#[derive(Debug)]
struct Flawed<D> {
    inner: D,
    flaw: Flaw,
    ops: AtomicU32,
}

impl<D: Database> Database for Flawed<D> {
    fn trees(&self) -> &[Tree] {
        self.inner.trees()
    }
    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.inner.get(tree, key) {
            Err(_) if self.flaw == Flaw::UnknownIsEmpty => Ok(None),
            Ok(Some(value)) if self.flaw == Flaw::EmptyIsAbsent && value.is_empty() => Ok(None),
            answer => answer,
        }
    }
    fn multi_get(&self, tree: Tree, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>> {
        let mut keys = keys.to_vec();
        if self.flaw == Flaw::AnswersOnce {
            keys.dedup();
        }
        keys.iter().map(|key| self.get(tree, key)).collect()
    }
    fn range(&self, tree: Tree, range: KeyRange) -> Result<Entries<'_>> {
        let range = match (self.flaw, range.end()) {
            (Flaw::EndExcluded, Bound::Included(end)) => {
                KeyRange::from_bounds(range.start().clone(), Bound::Excluded(end.clone()))
            }
            _ => range,
        };
        let mut entries: Vec<_> = self.inner.range(tree, range)?.collect::<Result<_>>()?;
        if self.flaw == Flaw::ByLength {
            entries.sort_by_key(|(key, _)| key.len());
        }
        Ok(Box::new(entries.into_iter().map(Ok)))
    }
    fn len(&self, tree: Tree) -> Result<Count> {
        let counted = self.inner.len(tree)?;
        let ops = u64::from(self.ops.load(Ordering::Relaxed));
        Ok(if self.flaw == Flaw::CountsOps { Count::Exact(ops) } else { counted })
    }
    fn clear(&self, tree: Tree) -> Result<()> {
        let last = self.range(tree, KeyRange::all())?.last().transpose()?;
        self.inner.clear(tree)?;
        let mut batch = Batch::new();
        if let Some((key, value)) = last.filter(|_| self.flaw == Flaw::ClearsAllButOne) {
            batch.put(tree, &key, &value);
        }
        self.inner.apply(&batch)
    }
    fn apply(&self, batch: &Batch) -> Result<()> {
        self.ops.fetch_add(u32::try_from(batch.len()).unwrap(), Ordering::Relaxed);
        let mut ops: Vec<Op<'_>> = batch.ops().collect();
        if self.flaw == Flaw::DeletesLast {
            ops.sort_by_key(|op| op.value().is_none());
        }
        let parts = if self.flaw == Flaw::TwoParts { 2 } else { 1 };
        for part in ops.chunks(ops.len().div_ceil(parts).max(1)) {
            let mut batch = Batch::new();
            part.iter().for_each(|op| batch.push_op(*op));
            self.inner.apply(&batch)?;
            // Time for others to look.
            if parts > 1 {
                std::thread::sleep(std::time::Duration::from_micros(50));
            }
        }
        Ok(())
    }
    fn ingest_sorted(
        &self,
        tree: Tree,
        entries: &mut dyn Iterator<Item = crate::Entry>,
    ) -> Result<()> {
        let batch =
            if self.flaw == Flaw::IngestsOneBatch { self.batch_ops_max() } else { usize::MAX };
        self.inner.ingest_sorted(tree, &mut entries.take(batch))
    }
    fn flush(&self) -> Result<()> {
        if self.flaw == Flaw::FlushesNothing { Ok(()) } else { self.inner.flush() }
    }
}

/// Whether the kit objects.
fn fails(run: impl FnOnce()) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err()
}

#[test]
fn the_kit_finds_a_promise_that_is_not_kept() {
    let flawed = |flaw| -> Box<dyn Database> {
        let inner = MemoryDatabase::new(&conformance::TREES);
        Box::new(Flawed { inner, flaw, ops: AtomicU32::new(0) })
    };
    conformance::run(&|| flawed(Flaw::None));
    for flaw in [
        Flaw::TwoParts,
        Flaw::ByLength,
        Flaw::EndExcluded,
        Flaw::AnswersOnce,
        Flaw::CountsOps,
        Flaw::ClearsAllButOne,
        Flaw::DeletesLast,
        Flaw::UnknownIsEmpty,
        Flaw::EmptyIsAbsent,
        Flaw::IngestsOneBatch,
    ] {
        assert!(fails(|| conformance::run(&|| flawed(flaw))), "{flaw:?} is not found");
    }
}

#[test]
fn the_kit_finds_a_crash_that_loses_something() {
    let crash = |flaw| {
        conformance::run_crash(&|fs| {
            let inner = open_simulated(fs)?;
            Ok(Box::new(Flawed { inner, flaw, ops: AtomicU32::new(0) }))
        })
    };
    assert!(crash(Flaw::None) > 100);
    for flaw in [Flaw::TwoParts, Flaw::FlushesNothing] {
        assert!(fails(|| assert!(crash(flaw) > 0)), "{flaw:?} is not found");
    }
}
