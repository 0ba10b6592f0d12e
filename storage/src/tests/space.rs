//! A disk that fills up: commits are refused before anything is written, and go on with more room.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{COINS, TREES, block, commit, open_log_only, open_over, options};
use crate::testing::SimFileSystem;
use crate::{
    Database, Durability, Error, MemoryDatabase, NoSpaceHook, SegmentFiles, WalOptions,
    wait_for_free_bytes,
};

const RESERVE_BYTES: u64 = 64 << 20;

#[test]
fn a_commit_that_would_use_the_reserve_is_refused_and_can_be_tried_again() {
    let fs = SimFileSystem::new();
    let (store, _) = open_log_only(&fs, Durability::Strict).unwrap();
    commit(&store, |batch| batch.put(COINS, b"first", &[1; 1000]));
    let next = block(&store, &[], |batch| batch.put(COINS, b"second", b"2"));
    store.stage(next.clone()).unwrap();

    // Not even what is buffered can surely be written back.
    fs.set_free_bytes(Some(RESERVE_BYTES / 2));
    let (ops, stats) = (fs.ops(), store.stats());
    for _ in 0..3 {
        let error = store.commit_staged().unwrap_err();
        let Error::NoSpace { free_bytes, wanted_bytes, .. } = error else {
            panic!("{}", error.chain())
        };
        assert_eq!(free_bytes, RESERVE_BYTES / 2);
        // The reserve, what is buffered, and the batch.
        assert!(wanted_bytes > RESERVE_BYTES + 1000, "{wanted_bytes}");
    }
    // The caller's own files would use it up as well.
    assert!(matches!(store.wait_for_space(1), Err(Error::NoSpace { .. })));
    let batch = next.batch.clone();
    assert!(matches!(store.apply(&batch), Err(Error::Misuse { .. })), "something is staged");
    assert_eq!((fs.ops(), store.stats()), (ops, stats), "nothing was written or counted");
    assert_eq!(store.get(COINS, b"second").unwrap(), Some(b"2".to_vec()), "still staged");
    // What is buffered may be written: that is what the reserve is for.
    assert_eq!(store.abort_staged(), 1);
    store.checkpoint().unwrap();

    fs.set_free_bytes(Some(RESERVE_BYTES + (1 << 20)));
    store.wait_for_space(1000).unwrap();
    assert!(matches!(store.wait_for_space((1 << 20) + 1), Err(Error::NoSpace { .. })));
    store.commit(next).unwrap();
    assert_eq!(store.tip().unwrap().height, 1);
}

#[test]
fn what_is_buffered_is_written_back_before_a_commit_is_refused() {
    let fs = SimFileSystem::new();
    let hook = NoSpaceHook::new(|_| panic!("there is room"));
    let options =
        WalOptions { segment_bytes: 1, no_space_hook: Some(hook), ..options(Durability::Strict) };
    let (store, _) = open_over(&fs, options, Box::new(MemoryDatabase::new(&TREES))).unwrap();
    let fill = |n: u8| {
        commit(&store, |batch| batch.put(COINS, &[n], &[n; 10_000]));
    };
    (0..4).for_each(fill);
    assert_eq!((store.stats().applied_lsn, store.stats().segments), (0, 4));
    fs.set_free_bytes(Some(RESERVE_BYTES + 20_000));
    fill(4);
    assert_eq!((store.stats().applied_lsn, store.stats().segments), (4, 2), "the log is shorter");
    fill(5);
    store.wait_for_space(20_000).unwrap();
    assert_eq!(store.stats().applied_lsn, 6);
    assert!((0..6).all(|n| store.get(COINS, &[n]).unwrap() == Some(vec![n; 10_000])));
}

/// The next segment is allocated whole: without room for it that would fail, and poison the store.
#[test]
fn a_commit_leaves_room_for_a_segment_that_is_allocated_ahead() {
    const SEGMENT_BYTES: u64 = 1 << 20;
    for segment_files in [SegmentFiles::Preallocated, SegmentFiles::Recycled] {
        let fs = SimFileSystem::new();
        let options = WalOptions {
            segment_bytes: SEGMENT_BYTES,
            segment_files,
            ..options(Durability::Strict)
        };
        let (store, _) = open_over(&fs, options, Box::new(MemoryDatabase::new(&TREES))).unwrap();
        fs.set_free_bytes(Some(RESERVE_BYTES + SEGMENT_BYTES + 100));
        store.wait_for_space(100).unwrap();
        let error = store.wait_for_space(101).unwrap_err();
        let Error::NoSpace { wanted_bytes, .. } = error else { panic!("{}", error.chain()) };
        assert_eq!(wanted_bytes, RESERVE_BYTES + SEGMENT_BYTES + 101);
    }
}

#[test]
fn the_disk_of_other_files_has_to_have_room_as_well() {
    let fs = SimFileSystem::new();
    let (store, _) = open_log_only(&fs, Durability::Strict).unwrap();
    let dir = Path::new("elsewhere");
    fs.set_free_bytes_in(dir, RESERVE_BYTES + 500);
    store.wait_for_space(501).unwrap();
    store.wait_for_space_in(dir, 500).unwrap();
    let error = store.wait_for_space_in(dir, 501).unwrap_err();
    let Error::NoSpace { path, free_bytes, wanted_bytes } = error else {
        panic!("{}", error.chain())
    };
    assert_eq!((path.as_path(), free_bytes), (dir, RESERVE_BYTES + 500));
    assert_eq!(wanted_bytes, RESERVE_BYTES + 501);
    // Who has no store may wait too, as long as a hook wants to.
    let asked = AtomicU32::new(0);
    let hook = {
        let fs = fs.clone();
        NoSpaceHook::new(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
            0 => ControlFlow::Continue(()),
            1 => {
                fs.set_free_bytes_in(dir, 1000);
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Break(()),
        })
    };
    fs.set_free_bytes_in(dir, 999);
    wait_for_free_bytes(&fs, dir, 1000, &hook).unwrap();
    assert!(matches!(wait_for_free_bytes(&fs, dir, 1001, &hook), Err(Error::NoSpace { .. })));
}

#[test]
fn a_hook_can_wait_for_room() {
    let fs = SimFileSystem::new();
    let asked = Arc::new(AtomicU32::new(0));
    let hook = {
        let (fs, asked) = (fs.clone(), Arc::clone(&asked));
        NoSpaceHook::new(move |error| {
            assert!(matches!(error, Error::NoSpace { .. }));
            match asked.fetch_add(1, Ordering::Relaxed) {
                2 => fs.set_free_bytes(Some(1 << 40)),
                5 => return ControlFlow::Break(()),
                _ => {}
            }
            ControlFlow::Continue(())
        })
    };
    let options = WalOptions { no_space_hook: Some(hook), ..options(Durability::Strict) };
    let (store, _) = open_over(&fs, options, Box::new(MemoryDatabase::new(&TREES))).unwrap();
    fs.set_free_bytes(Some(1000));
    commit(&store, |batch| batch.put(COINS, b"k", b"v"));
    assert_eq!(asked.load(Ordering::Relaxed), 3);
    fs.set_free_bytes(Some(1000));
    let next = block(&store, &[], |batch| batch.put(COINS, b"k", b"w"));
    assert!(matches!(store.commit(next.clone()), Err(Error::NoSpace { .. })));
    assert_eq!(asked.load(Ordering::Relaxed), 6);
    fs.set_free_bytes(None);
    store.commit(next).unwrap();
}
