//! Compressed records, preallocated and recycled segments, writing threads: the same states.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::{LOG_DIR, TREES, Workload, open_over, options};
use crate::testing::{CrashModel, SimFileSystem};
use crate::wal::format::{RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, segment_name};
use crate::{
    Durability, Error, FileSystem, LogWriter, MemoryDatabase, NoAttachments, ReplayHook,
    SPARE_SEGMENTS_MAX, SegmentFiles, StdFileSystem, WalBuffered, WalOptions,
};

fn combinations() -> impl Iterator<Item = WalOptions> {
    let files = [SegmentFiles::Growing, SegmentFiles::Preallocated, SegmentFiles::Recycled];
    let writers = [LogWriter::Direct, LogWriter::Thread { bytes_min: 0 }, LogWriter::Mapped];
    let modes = [Durability::Relaxed { interval_ms: 1 }, Durability::Async];
    files.into_iter().flat_map(move |segment_files| {
        writers.into_iter().flat_map(move |writer| {
            modes.into_iter().flat_map(move |durability| {
                [None, Some(300)].map(|compress_bytes_min| WalOptions {
                    segment_files,
                    writer,
                    compress_bytes_min,
                    ..options(durability)
                })
            })
        })
    })
}

/// On a real file system, through many segments, with and without a write-back in between, by
/// every way to end: each combination gives the same state, and no torn tail that was none.
#[test]
fn every_combination_replays_to_the_same_state() {
    let work = Workload::new(91, 60);
    for options in combinations() {
        let label = format!("{options:?}");
        let dir = tempfile::tempdir().unwrap();
        let backend: Arc<dyn crate::Database> = Arc::new(MemoryDatabase::new(&TREES));
        let open = || {
            let backend: Box<dyn crate::Database> = Box::new(Arc::clone(&backend));
            let (fs, attached) = (Arc::new(StdFileSystem), Arc::new(NoAttachments));
            WalBuffered::open(options.clone(), fs, dir.path(), backend, attached)
                .unwrap_or_else(|error| panic!("{label}: {}", error.chain()))
        };
        let mut done = 0;
        for (part, end) in [25, 40, 60].into_iter().enumerate() {
            let (store, recovery) = open();
            assert_eq!((recovery.torn, recovery.to_lsn), (None, done), "{label}");
            for (index, block) in
                work.blocks[usize::try_from(done).unwrap()..end].iter().enumerate()
            {
                store.commit(block.clone()).unwrap();
                if index == 17 {
                    store.checkpoint().unwrap();
                }
            }
            // In async mode what is in the buffer goes with the process.
            store.sync().unwrap();
            done = u64::try_from(end).unwrap();
            work.check(&store, end, &label);
            if part == 1 {
                store.shutdown().unwrap();
                let names = StdFileSystem.list(dir.path()).unwrap();
                assert_eq!(names, ["clean", "lock"], "{label}");
            }
        }
        let (store, recovery) = open();
        assert!(!recovery.clean && recovery.torn.is_none(), "{label}");
        work.check(&store, 60, &label);
    }
}

#[test]
fn files_of_old_segments_are_used_again() {
    let fs = SimFileSystem::new();
    let recycled =
        WalOptions { segment_files: SegmentFiles::Recycled, ..options(Durability::Strict) };
    let backend = Arc::new(MemoryDatabase::new(&TREES));
    let (store, _) = open_over(&fs, recycled.clone(), Box::new(Arc::clone(&backend))).unwrap();
    let work = Workload::new(92, 80);
    let mut most_spares = 0;
    for (index, block) in work.blocks.iter().enumerate() {
        store.commit(block.clone()).unwrap();
        if index % 20 == 19 {
            store.checkpoint().unwrap();
        }
        let names = fs.list(Path::new(LOG_DIR)).unwrap();
        let spares = names.iter().filter(|name| name.starts_with("spare-")).count();
        assert!(spares <= SPARE_SEGMENTS_MAX, "{names:?}");
        most_spares = most_spares.max(spares);
    }
    assert_eq!(most_spares, SPARE_SEGMENTS_MAX);
    drop(store);
    let (_, recovery) = open_over(&fs.copy(), recycled, Box::new(backend)).unwrap();
    assert_eq!(recovery.torn, None, "old records are no torn ones");
    // Another, empty database in place of the one that held the checkpoints.
    let error = open_over(&fs, options(Durability::Strict), Box::new(MemoryDatabase::new(&TREES)));
    let error = error.unwrap_err().chain();
    assert!(error.contains("has lost some"), "{error}");
}

/// A log in preallocated files with the last segment's bytes.
fn roomy_log(batches: usize) -> (SimFileSystem, Workload, Vec<u8>, Vec<usize>) {
    let fs = SimFileSystem::new();
    let options = WalOptions {
        segment_files: SegmentFiles::Preallocated,
        segment_bytes: 64 << 10,
        ..options(Durability::Strict)
    };
    let (store, _) = open_over(&fs, options, Box::new(MemoryDatabase::new(&TREES))).unwrap();
    let work = Workload::new(93, batches);
    let mut ends = vec![SEGMENT_HEADER_BYTES];
    for block in &work.blocks {
        store.commit(block.clone()).unwrap();
        ends.push(usize::try_from(store.stats().log_bytes).unwrap());
    }
    drop(store);
    let bytes = fs.read(&Path::new(LOG_DIR).join(segment_name(1))).unwrap();
    assert_eq!(bytes.len(), 64 << 10);
    (fs, work, bytes, ends)
}

/// In room behind the records nothing is torn unless something was written there.
#[test]
fn the_tail_of_a_roomy_segment_is_judged_by_what_is_recognised() {
    let (fs, work, bytes, ends) = roomy_log(6);
    let open = |bytes: &[u8]| {
        let fs = fs.copy();
        fs.plant(&Path::new(LOG_DIR).join(segment_name(1)), bytes);
        let memory = Box::new(MemoryDatabase::new(&TREES));
        open_over(&fs, options(Durability::Strict), memory)
    };
    let (store, recovery) = open(&bytes).unwrap();
    assert_eq!((recovery.to_lsn, recovery.torn), (6, None));
    work.check(&store, 6, "whole");

    let mut torn_payload = bytes.clone();
    torn_payload[ends[5] + RECORD_HEADER_BYTES..ends[6]].fill(0);
    let (store, recovery) = open(&torn_payload).unwrap();
    let torn = recovery.torn.unwrap();
    assert_eq!((torn.bytes, torn.records), (u64::try_from(ends[6] - ends[5]).unwrap(), 1));
    work.check(&store, 5, "payload torn");

    let mut torn_header = bytes.clone();
    torn_header[ends[5] + 3..ends[6]].fill(0xa5);
    let torn = open(&torn_header).unwrap().1.torn.unwrap();
    assert_eq!((torn.bytes, torn.records), (25, 0));

    let mut gone = bytes.clone();
    gone[ends[5]..].fill(0);
    let (store, recovery) = open(&gone).unwrap();
    assert_eq!((recovery.to_lsn, recovery.torn), (5, None), "as if never written");
    work.check(&store, 5, "record gone");

    for n in 0..5 {
        let mut hole = bytes.clone();
        hole[ends[n]..ends[n + 1]].fill(0);
        assert!(matches!(open(&hole), Err(Error::Corrupt { .. })), "record {} zeroed", n + 1);
        let mut cut = bytes.clone();
        cut[ends[n]..ends[5]].fill(0);
        assert!(matches!(open(&cut), Err(Error::Corrupt { .. })), "from record {} on", n + 1);
    }
}

/// The rest of a segment that is as long as it was allocated may be shorter than a header.
#[test]
fn a_roomy_segment_may_be_full() {
    let (fs, work, bytes, ends) = roomy_log(6);
    for left in 0..RECORD_HEADER_BYTES {
        let fs = fs.copy();
        fs.plant(&Path::new(LOG_DIR).join(segment_name(1)), &bytes[..ends[6] + left]);
        let memory = Box::new(MemoryDatabase::new(&TREES));
        let (store, recovery) = open_over(&fs, options(Durability::Strict), memory).unwrap();
        assert_eq!((recovery.to_lsn, recovery.torn), (6, None), "{left} bytes left");
        work.check(&store, 6, "full");
    }
}

#[test]
fn a_replay_reports_progress_and_can_be_interrupted() {
    let fs = SimFileSystem::new();
    let large = WalOptions { segment_bytes: 9 << 20, ..options(Durability::Async) };
    let (store, _) = open_over(&fs, large, Box::new(MemoryDatabase::new(&TREES))).unwrap();
    for n in 0..25_u8 {
        let mut batch = crate::Batch::new();
        batch.put(super::COINS, &[n], &vec![n; 1 << 20]);
        crate::Database::apply(&store, &batch).unwrap();
    }
    store.sync().unwrap();
    drop(store);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let allowed = Arc::new(AtomicU64::new(2));
    let hook = {
        let (seen, allowed) = (Arc::clone(&seen), Arc::clone(&allowed));
        ReplayHook::new(move |progress| {
            seen.lock().unwrap().push(progress);
            let left = allowed.load(Ordering::Relaxed);
            allowed.store(left.saturating_sub(1), Ordering::Relaxed);
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    };
    let hooked = WalOptions { replay_hook: Some(hook), ..options(Durability::Async) };
    let open = || open_over(&fs, hooked.clone(), Box::new(MemoryDatabase::new(&TREES)));
    assert!(matches!(open(), Err(Error::Interrupted)));
    assert_eq!(seen.lock().unwrap().len(), 3);
    allowed.store(100, Ordering::Relaxed);
    let cut = fs.after_crash(CrashModel::SyncedOnly, 0);
    let (_, recovery) = open().unwrap();
    assert_eq!(recovery.to_lsn, 25);
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|progress| progress.done_bytes <= progress.total_bytes), "{seen:?}");
    assert!(seen.last().unwrap().lsn > 20, "{seen:?}");
    let memory = Box::new(MemoryDatabase::new(&TREES));
    assert_eq!(open_over(&cut, options(Durability::Async), memory).unwrap().1.to_lsn, 25);
}
