//! What a buffered store promises when nothing fails, and what it refuses. Several tests bear the
//! name of a defect that stores of this kind have had.

use std::path::Path;
use std::sync::Arc;

use super::{
    BlockFiles, COINS, LOG_DIR, META, Store, TREES, Workload, block, commit, open_all,
    open_log_only, options,
};
use crate::testing::{CallFault, CrashModel, SimFileSystem};
use crate::{
    Attachments, Batch, BlockBatch, Database, Durability, Error, KeyRange, MemoryDatabase,
    PAYLOAD_BYTES_MAX, Result, STATE_TREE, VALUE_BYTES_MAX, WalBuffered, WalOptions,
};

#[test]
fn sync_is_an_fsync() {
    let fs = SimFileSystem::new();
    let (store, _) = open_log_only(&fs, Durability::Async).unwrap();
    let work = Workload::new(41, 5);
    for block in &work.blocks {
        store.commit(block.clone()).unwrap();
    }
    assert_eq!((store.durable_lsn(), store.durable_tip()), (0, None));
    let cut = |fs: &SimFileSystem| fs.after_crash(CrashModel::SyncedOnly, 0);
    assert_eq!(open_log_only(&cut(&fs), Durability::Async).unwrap().1.to_lsn, 0);
    store.sync().unwrap();
    assert_eq!((store.durable_lsn(), store.durable_tip()), (5, work.tip(5)));
    let (after, recovery) = open_log_only(&cut(&fs), Durability::Async).unwrap();
    assert_eq!(recovery.to_lsn, 5);
    work.check(&after, 5, "after a power cut");
}

#[test]
fn a_sync_that_fails_makes_nothing_durable() {
    let fs = SimFileSystem::new();
    let (store, _) = open_log_only(&fs, Durability::Async).unwrap();
    commit(&store, |batch| batch.put(COINS, b"k", b"v"));
    fs.inject_call(CallFault { action: "fsync", after: 0, errno: Some(5), sticky: false });
    store.sync().unwrap_err();
    assert_eq!((store.durable_lsn(), store.durable_tip()), (0, None));
}

#[test]
fn the_relaxed_mode_syncs_by_itself() {
    let fs = SimFileSystem::new();
    let (store, _) = open_log_only(&fs, Durability::Relaxed { interval_ms: 1 }).unwrap();
    commit(&store, |batch| batch.put(COINS, b"k", b"v"));
    while store.durable_lsn() < 1 {
        std::thread::yield_now();
    }
    assert_eq!(store.durable_tip(), store.tip());
}

#[test]
fn the_batched_mode_syncs_a_group_at_once() {
    let fs = SimFileSystem::new();
    let (store, _) = open_log_only(&fs, Durability::Batched { blocks: 1, interval_ms: 0 }).unwrap();
    let before = fs.ops();
    commit(&store, |batch| batch.put(COINS, b"k", b"v"));
    assert_eq!((store.durable_lsn(), fs.ops() - before), (1, 2), "a write and an fsync");
}

#[test]
fn the_mode_can_be_changed_at_run_time() {
    let fs = SimFileSystem::new();
    let (store, _) = open_log_only(&fs, Durability::Async).unwrap();
    commit(&store, |batch| batch.put(COINS, b"k", b"1"));
    assert_eq!(store.durable_lsn(), 0);
    store.set_durability(Durability::Strict);
    commit(&store, |batch| batch.put(COINS, b"k", b"2"));
    assert_eq!(store.durable_lsn(), 2);
}

#[test]
fn a_clean_shutdown_leaves_an_empty_log() {
    let fs = SimFileSystem::new();
    let work = Workload::new(42, 12);
    let (store, recovery, files) = open_all(&fs, options(Durability::Strict)).unwrap();
    assert!(!recovery.clean);
    for block in &work.blocks {
        store.commit(files.attach(block.clone()).unwrap()).unwrap();
    }
    let held = open_all(&fs, options(Durability::Strict));
    assert!(matches!(held, Err(Error::Locked { .. })));
    store.shutdown().unwrap();
    let names = crate::FileSystem::list(&fs, Path::new(LOG_DIR)).unwrap();
    assert_eq!(names, ["clean"]);
    let cut = fs.after_crash(CrashModel::SyncedOnly, 0);
    let (store, recovery, _) = open_all(&cut, options(Durability::Strict)).unwrap();
    assert!(recovery.clean && recovery.records == 0 && recovery.torn.is_none());
    work.check(&store, 12, "reopened");
    drop(store);
    let (_, recovery, _) = open_all(&cut, options(Durability::Strict)).unwrap();
    assert!(!recovery.clean, "it was not shut down this time");
}

/// A marker that came back after a power cut would declare the new records left-overs.
#[test]
fn the_marker_of_the_last_shutdown_does_not_come_back() {
    let fs = SimFileSystem::new();
    let work = Workload::new(45, 2);
    let (store, _, files) = open_all(&fs, options(Durability::Strict)).unwrap();
    store.commit(files.attach(work.blocks[0].clone()).unwrap()).unwrap();
    store.shutdown().unwrap();
    let (store, _, files) = open_all(&fs, options(Durability::Strict)).unwrap();
    store.commit(files.attach(work.blocks[1].clone()).unwrap()).unwrap();
    for model in [CrashModel::Kill, CrashModel::SyncedOnly] {
        let after = fs.after_crash(model, 0);
        let (store, recovery, _) = open_all(&after, options(Durability::Strict)).unwrap();
        assert_eq!((recovery.clean, recovery.to_lsn), (false, 2));
        work.check(&store, 2, "the new record");
    }
}

/// The predecessor kept the height in memory only, and stepped back below zero.
#[test]
fn the_tip_survives_and_steps_back() {
    let fs = SimFileSystem::new();
    let (store, _, _) = open_all(&fs, options(Durability::Strict)).unwrap();
    let genesis = block(&store, &[], |batch| batch.put(META, b"h", b"0"));
    store.commit(genesis.clone()).unwrap();
    let first = block(&store, &[], |batch| batch.put(META, b"h", b"1"));
    store.commit(first.clone()).unwrap();
    let mut back = Batch::new();
    back.put(META, b"h", b"0");
    let back = BlockBatch { tip: genesis.tip, prev_hash: first.tip.hash, batch: back };
    store.commit(back).unwrap();
    assert_eq!(store.tip(), Some(genesis.tip));
    drop(store);
    for _ in 0..2 {
        let (store, recovery, _) = open_all(&fs, options(Durability::Strict)).unwrap();
        assert_eq!((store.tip(), recovery.tip), (Some(genesis.tip), Some(genesis.tip)));
        store.shutdown().unwrap();
    }
}

/// The predecessor flushed in mid-block when a cap of operations was reached.
#[test]
fn a_large_batch_is_whole_or_absent() {
    let fs = SimFileSystem::new();
    let tiny = WalOptions { memtable_bytes: 1, ..options(Durability::Strict) };
    let (store, _, _) = open_all(&fs, tiny.clone()).unwrap();
    let before = fs.ops();
    commit(&store, |batch| {
        for n in 0..500_u16 {
            batch.put_new(COINS, &n.to_be_bytes(), b"coin");
        }
    });
    store.checkpoint().unwrap();
    let ops = fs.ops();
    drop(store);
    for op in (before..ops).step_by(3) {
        let fs = SimFileSystem::new();
        let (store, _, _) = open_all(&fs, tiny.clone()).unwrap();
        fs.crash_at(op);
        let large = block(&store, &[], |batch| {
            for n in 0..500_u16 {
                batch.put_new(COINS, &n.to_be_bytes(), b"coin");
            }
        });
        let _ = store.commit(large).and_then(|_| store.checkpoint());
        drop(store);
        for seed in 0..3 {
            let after = fs.after_crash(CrashModel::Subset, seed);
            let (store, _, _) = open_all(&after, tiny.clone()).unwrap();
            let count = store.range(COINS, KeyRange::all()).unwrap().count();
            let whole = if store.tip().is_some() { 500 } else { 0 };
            assert_eq!(count, whole, "crash at {op}");
        }
    }
}

#[test]
fn a_cleared_tree_stays_empty_after_a_crash() {
    let fs = SimFileSystem::new();
    let (store, _, _) = open_all(&fs, options(Durability::Strict)).unwrap();
    commit(&store, |batch| {
        batch.put(COINS, b"k", b"v");
        batch.put(META, b"k", b"v");
    });
    let epoch = store.epoch();
    store.clear(COINS).unwrap();
    assert!(store.epoch() > epoch);
    assert!(matches!(store.clear(STATE_TREE), Err(Error::UnknownTree { .. })));
    drop(store);
    let (store, _, _) =
        open_all(&fs.after_crash(CrashModel::SyncedOnly, 0), options(Durability::Strict)).unwrap();
    assert_eq!(store.get(COINS, b"k").unwrap(), None);
    assert!(store.get(META, b"k").unwrap().is_some());
}

#[test]
fn misuse_is_refused_and_changes_nothing() {
    let fs = SimFileSystem::new();
    let (store, _) = open_log_only(&fs, Durability::Strict).unwrap();
    commit(&store, |batch| batch.put(COINS, b"present", b"v"));
    let good = block(&store, &[], |batch| batch.put(COINS, b"k", b"v"));
    let stranger = BlockBatch { prev_hash: [0xee; 32], ..good.clone() };
    assert!(matches!(store.stage(stranger.clone()), Err(Error::Misuse { .. })));
    assert!(matches!(store.commit(stranger), Err(Error::Misuse { .. })));
    assert!(matches!(store.commit_staged(), Err(Error::Misuse { .. })));
    let reserved = block(&store, &[], |batch| batch.put(STATE_TREE, b"applied", b"v"));
    assert!(matches!(store.commit(reserved), Err(Error::UnknownTree { id: 0 })));
    assert!(matches!(store.get(STATE_TREE, b"applied"), Err(Error::UnknownTree { id: 0 })));
    let stale = block(&store, &[], |batch| batch.put_new(COINS, b"present", b"v"));
    assert!(matches!(store.stage(stale), Err(Error::NotFresh { tree_id: 1, .. })));
    let twice = block(&store, &[], |batch| {
        batch.put_new(COINS, b"k", b"v");
        batch.put_new(COINS, b"k", b"v");
    });
    assert!(matches!(store.commit(twice), Err(Error::NotFresh { .. })));
    let huge = block(&store, &[], |batch| {
        let value = vec![0; VALUE_BYTES_MAX];
        for _ in 0..PAYLOAD_BYTES_MAX / VALUE_BYTES_MAX {
            batch.put(COINS, b"k", &value);
        }
    });
    assert!(matches!(store.commit(huge), Err(Error::TooLarge { .. })));
    store.stage(good.clone()).unwrap();
    assert!(matches!(store.commit(good), Err(Error::Misuse { .. })));
    assert!(matches!(store.apply(&Batch::new()), Err(Error::Misuse { .. })));
    assert_eq!(store.commit_staged().unwrap(), 2, "only now a second batch is committed");
}

/// What disconnects a block can have far more bytes than any block.
#[test]
fn a_batch_larger_than_any_block_is_logged_and_replayed() {
    let fs = SimFileSystem::new();
    let (store, _) = open_log_only(&fs, Durability::Strict).unwrap();
    let values: Vec<Vec<u8>> = (1..4).map(|byte| vec![byte; 22 << 20]).collect();
    commit(&store, |batch| {
        for (key, value) in (0_u8..).zip(&values) {
            batch.put(COINS, &[key], value);
        }
    });
    commit(&store, |batch| batch.put(COINS, b"next", b"v"));
    drop(store);
    let (store, recovery) = open_log_only(&fs, Durability::Strict).unwrap();
    assert_eq!((recovery.records, recovery.torn), (2, None));
    for (key, value) in (0_u8..).zip(&values) {
        assert!(store.get(COINS, &[key]).unwrap().as_ref() == Some(value), "{key}");
    }
}

/// Says of one height that its data is gone.
#[derive(Debug)]
struct Missing(u32);

impl Attachments for Missing {
    fn sync(&self) -> Result<()> {
        Ok(())
    }
    fn intact(&self, block: &BlockBatch) -> Result<bool> {
        Ok(block.tip.height != self.0)
    }
    fn rewrite(&self, _: &BlockBatch) -> Result<()> {
        Ok(())
    }
}

#[test]
fn a_record_whose_data_is_gone_is_cut_unless_it_was_promised() {
    let fs = SimFileSystem::new();
    let (store, _) = open_log_only(&fs, Durability::Relaxed { interval_ms: 3_600_000 }).unwrap();
    for n in 0..6_u8 {
        commit(&store, |batch| batch.put(COINS, &[n], b""));
        if n == 2 {
            store.sync().unwrap();
        }
    }
    drop(store);
    let open = |height| {
        let backend: Box<dyn Database> = Box::new(MemoryDatabase::new(&TREES));
        let fs = Arc::new(fs.copy());
        let options = options(Durability::Strict);
        WalBuffered::open(options, fs, Path::new(LOG_DIR), backend, Arc::new(Missing(height)))
    };
    // Heights 0 to 2 were synced, and the records of 3 to 5 say so.
    for height in 0..3 {
        assert!(matches!(open(height), Err(Error::Corrupt { .. })), "height {height}");
    }
    for height in 3..6 {
        let (store, recovery) = open(height).unwrap();
        assert_eq!(recovery.to_lsn, u64::from(height), "cut before height {height}");
        assert_eq!(recovery.torn.unwrap().records, u64::from(6 - height));
        assert_eq!(store.tip().unwrap().height, height - 1);
    }
    assert!(open(6).unwrap().1.torn.is_none());
}
/// The file was made by a process that was killed before it synced the directory.
#[test]
fn a_sync_covers_the_names_of_files_that_an_earlier_process_made() {
    let fs = SimFileSystem::new();
    let at = BlockFiles::open(&fs).unwrap().0.append(b"bytes").unwrap();
    let killed = fs.after_crash(CrashModel::Kill, 0);
    BlockFiles::open(&killed).unwrap().0.sync().unwrap();
    let cut = killed.after_crash(CrashModel::SyncedOnly, 0);
    assert_eq!(BlockFiles::open(&cut).unwrap().0.read(at, 5).unwrap(), b"bytes");
}

#[test]
fn attached_data_is_durable_before_its_record() {
    let fs = SimFileSystem::new();
    let (store, _, files) = open_all(&fs, options(Durability::Strict)).unwrap();
    let work = Workload::new(44, 10);
    for block in &work.blocks {
        store.commit(files.attach(block.clone()).unwrap()).unwrap();
        let cut = fs.after_crash(CrashModel::SyncedOnly, 0);
        let files = BlockFiles::open(&cut).unwrap();
        assert!(files.intact(&files_row(&store, block)).unwrap());
    }
}

/// The block as committed, with the row that refers to its bytes.
fn files_row(store: &Store, block: &BlockBatch) -> BlockBatch {
    let mut block = block.clone();
    let key = block.tip.height.to_le_bytes();
    let row = store.get(super::PLACES, &key).unwrap().unwrap();
    block.batch.put(super::PLACES, &key, &row);
    block
}
