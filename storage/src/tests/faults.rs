//! Failing I/O: after the first failure nothing is acknowledged and nothing is written, reads go
//! on, and opening again gives every acknowledged batch.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{COINS, TREES, Workload, commit, open_all, open_log_only, open_over, options};
use crate::testing::{CallFault, CrashModel, Fault, SimFileSystem};
use crate::{
    Batch, Count, Database, Durability, Entries, Error, KeyRange, MemoryDatabase, Result, Tree,
    WalOptions,
};

fn small(flush_every_blocks: Option<u32>) -> WalOptions {
    WalOptions { flush_every_blocks, ..options(Durability::Strict) }
}

/// Commits until the end or the first error; checks what must hold after an error. Returns the
/// number of acknowledged batches and the error.
fn run(fs: &SimFileSystem, work: &Workload, flush_every: Option<u32>) -> (usize, Option<Error>) {
    let (store, _, files) = match open_all(fs, small(flush_every)) {
        Ok(opened) => opened,
        Err(error) => return (0, Some(error)),
    };
    for (index, block) in work.blocks.iter().enumerate() {
        // A failure to append attached data is the caller's: the store has not seen it.
        let block = match files.attach(block.clone()) {
            Ok(block) => block,
            Err(error) => return (index, Some(error)),
        };
        let committed = store.commit(block);
        let acknowledged = index + usize::from(committed.is_ok());
        let done = committed.and_then(|_| match index % 9 {
            8 => store.checkpoint(),
            _ => Ok(()),
        });
        let Err(error) = done else { continue };
        let ops = fs.ops();
        for block in &work.blocks[index..] {
            assert!(store.commit(block.clone()).is_err(), "acknowledged after {error:?}");
        }
        assert!(matches!(store.sync(), Err(Error::Poisoned { .. })));
        assert!(matches!(store.checkpoint(), Err(Error::Poisoned { .. })));
        // A write-back that was under way depends on nothing that failed: it may end.
        let written = fs.ops() - ops;
        assert!(flush_every.is_some() || written == 0, "written after {error:?}");
        let j = usize::try_from(store.stats().lsn).unwrap();
        work.check(&store, j, "reads go on");
        return (acknowledged, Some(error));
    }
    (work.blocks.len(), store.shutdown().err())
}

fn check_healed(fs: &SimFileSystem, work: &Workload, acknowledged: usize, label: &str) {
    for model in [CrashModel::Kill, CrashModel::SyncedOnly, CrashModel::Subset] {
        let fs = fs.after_crash(model, 9);
        let opened = open_all(&fs, small(None));
        let (store, recovery, _) = opened.unwrap_or_else(|e| panic!("{label}: {}", e.chain()));
        let j = usize::try_from(recovery.to_lsn).unwrap();
        assert!(j >= acknowledged, "{label} {model:?}: {j} of {acknowledged}");
        work.check(&store, j, label);
    }
}

/// The process dies after the failure, the next one opens what the page cache shows, and then the
/// power is cut: what it has opened must not depend on bytes that the failed fsync dropped.
fn check_reopened_then_cut(fs: &SimFileSystem, work: &Workload, acknowledged: usize, label: &str) {
    let killed = fs.after_crash(CrashModel::Kill, 9);
    let opened = open_all(&killed, small(None));
    let (store, recovery, _) = opened.unwrap_or_else(|e| panic!("{label}: {}", e.chain()));
    let j = usize::try_from(recovery.to_lsn).unwrap();
    assert!(j >= acknowledged, "{label}: {j} of {acknowledged}");
    let cut = killed.after_crash(CrashModel::SyncedOnly, 9);
    drop(store);
    let opened = open_all(&cut, small(None));
    let (store, recovery, _) =
        opened.unwrap_or_else(|e| panic!("{label}, opened, then cut: {}", e.chain()));
    assert_eq!(usize::try_from(recovery.to_lsn).unwrap(), j, "{label}: opened was not durable");
    work.check(&store, j, label);
}

fn fail_everywhere(flush_every: Option<u32>) {
    let work = Workload::new(31, 20);
    let whole = SimFileSystem::new();
    assert!(run(&whole, &work, flush_every).1.is_none());
    let mut full = 0;
    for at in 0..whole.ops() {
        for (kind, sticky) in [
            (ErrorKind::Other, false),
            (ErrorKind::StorageFull, false),
            (ErrorKind::StorageFull, true),
        ] {
            let fs = SimFileSystem::new();
            fs.inject(Fault { at, kind, sticky });
            let (acknowledged, error) = run(&fs, &work, flush_every);
            let label = format!("{kind:?} at {at}, sticky {sticky}: {error:?}");
            full += u32::from(matches!(error, Some(Error::Full { .. })));
            check_healed(&fs, &work, acknowledged, &label);
            check_reopened_then_cut(&fs, &work, acknowledged, &label);
        }
    }
    assert!(full > 100, "a full disk is reported as such: {full} times");
}

#[test]
fn every_operation_fails_once_and_for_ever() {
    fail_everywhere(None);
}

#[test]
fn every_operation_fails_during_a_background_flush() {
    fail_everywhere(Some(4));
}

/// That of the names of removed segments as well: who made a segment meanwhile asks again, and the
/// system, which has told of the failure once, answers "done".
#[test]
fn every_failed_fsync_of_the_log_directory_poisons() {
    for after in 0.. {
        let fs = SimFileSystem::new();
        let (store, _) = open_log_only(&fs, Durability::Strict).unwrap();
        commit(&store, |batch| batch.put(COINS, b"k", b"v"));
        fs.inject_call(CallFault {
            action: "sync directory",
            after,
            errno: Some(5),
            sticky: false,
        });
        let checkpointed = store.checkpoint();
        if fs.failed_calls() == 0 {
            assert_eq!(after, 2, "the name of the new segment, and that of the old one");
            break;
        }
        checkpointed.unwrap_err();
        assert!(matches!(store.sync(), Err(Error::Poisoned { .. })), "{after}");
    }
}

#[test]
fn a_segment_that_cannot_be_removed_poisons_nothing() {
    let fs = SimFileSystem::new();
    let (store, _) = open_log_only(&fs, Durability::Strict).unwrap();
    commit(&store, |batch| batch.put(COINS, b"k", b"v"));
    fs.inject_call(CallFault { action: "remove", after: 0, errno: Some(5), sticky: false });
    store.checkpoint().unwrap();
    assert_eq!(fs.failed_calls(), 1);
    commit(&store, |batch| batch.put(COINS, b"k", b"w"));
}

/// A memory database whose writes fail when told to.
#[derive(Debug)]
struct Failing {
    inner: MemoryDatabase,
    fails: AtomicBool,
}

impl Database for Failing {
    fn trees(&self) -> &[Tree] {
        self.inner.trees()
    }
    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.inner.get(tree, key)
    }
    fn range(&self, tree: Tree, range: KeyRange) -> Result<Entries<'_>> {
        self.inner.range(tree, range)
    }
    fn len(&self, tree: Tree) -> Result<Count> {
        self.inner.len(tree)
    }
    fn clear(&self, tree: Tree) -> Result<()> {
        self.inner.clear(tree)
    }
    fn apply(&self, batch: &Batch) -> Result<()> {
        if self.fails.load(Ordering::Relaxed) {
            let source = std::io::Error::other("the engine is broken");
            return Err(Error::backend("failing", "apply", source));
        }
        self.inner.apply(batch)
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// The predecessor drained its buffer before the engine had taken it.
#[test]
fn a_backend_that_fails_loses_nothing_that_is_buffered() {
    let work = Workload::new(32, 10);
    let fs = SimFileSystem::new();
    let backend =
        Arc::new(Failing { inner: MemoryDatabase::new(&TREES), fails: AtomicBool::new(true) });
    let open = || {
        let backend: Box<dyn Database> = Box::new(Arc::clone(&backend));
        open_over(&fs, options(Durability::Strict), backend)
    };
    let (store, _) = open().unwrap();
    for block in &work.blocks {
        store.commit(block.clone()).unwrap();
    }
    let error = store.checkpoint().unwrap_err();
    assert!(matches!(&error, Error::Poisoned { cause } if cause.contains("the engine is broken")));
    work.check(&store, 10, "after the failure");
    assert!(matches!(store.apply(&Batch::new()), Err(Error::Poisoned { .. })));
    drop(store);
    backend.fails.store(false, Ordering::Relaxed);
    let (store, recovery) = open().unwrap();
    assert_eq!(recovery.records, 10);
    work.check(&store, 10, "replayed");
    store.shutdown().unwrap();
    let (store, recovery) = open().unwrap();
    assert!(recovery.clean);
    work.check(&store, 10, "from the backend");
}
