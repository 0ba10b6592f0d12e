//! The layers of a buffered store: what reads see, when generations move, what is never written.

use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::{
    COINS, LOG_DIR, Store, TREES, Workload, block, commit, open_all, open_log_only, open_over,
    options,
};
use crate::testing::SimFileSystem;
use crate::{
    Batch, Count, Database, Durability, Entries, KeyRange, MemoryDatabase, ReadAhead, Result, Tree,
    WalOptions,
};

fn keys(store: &Store, range: KeyRange) -> Vec<String> {
    let entries = store.range(COINS, range).unwrap();
    entries.map(|entry| String::from_utf8(entry.unwrap().0).unwrap()).collect()
}

/// A memory database whose batches wait until a gate is opened.
#[derive(Debug)]
struct Gated {
    inner: MemoryDatabase,
    open: Mutex<bool>,
    opened: Condvar,
    gets: AtomicUsize,
}

impl Gated {
    fn new() -> Arc<Self> {
        let inner = MemoryDatabase::new(&TREES);
        let gets = AtomicUsize::new(0);
        Arc::new(Self { inner, open: Mutex::new(false), opened: Condvar::new(), gets })
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

impl Database for Gated {
    fn trees(&self) -> &[Tree] {
        self.inner.trees()
    }
    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.gets.fetch_add(1, Ordering::Relaxed);
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
        drop(self.opened.wait_while(self.open.lock().unwrap(), |open| !*open).unwrap());
        self.inner.apply(batch)
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

fn open_gated(fs: &SimFileSystem, options: WalOptions) -> (Store, Arc<Gated>) {
    let gate = Gated::new();
    let (store, _) = open_over(fs, options, Box::new(Arc::clone(&gate))).unwrap();
    (store, gate)
}

#[test]
fn iteration_and_reads_see_every_layer() {
    let fs = SimFileSystem::new();
    let eager = WalOptions { flush_every_blocks: Some(1), ..options(Durability::Strict) };
    let (store, gate) = open_gated(&fs, eager);
    let mut seed = Batch::new();
    for key in [b"a", b"b", b"c", b"d"] {
        seed.put(COINS, key, b"backend");
    }
    gate.inner.apply(&seed).unwrap();
    // Frozen, and held up at the gate.
    commit(&store, |batch| {
        batch.delete(COINS, b"b");
        batch.put(COINS, b"f", b"frozen");
        batch.put(COINS, b"g", b"frozen");
    });
    // Active, since the frozen generation is in flight.
    commit(&store, |batch| {
        batch.delete(COINS, b"f");
        batch.put(COINS, b"c", b"active");
        batch.put_new(COINS, b"b", b"active");
    });
    let first = block(&store, &[], |batch| batch.delete(COINS, b"a"));
    store.stage(first.clone()).unwrap();
    let second = block(&store, &[first], |batch| batch.put(COINS, b"h", b"staged"));
    store.stage(second).unwrap();

    assert_eq!(keys(&store, KeyRange::all()), ["b", "c", "d", "g", "h"]);
    let from_c = KeyRange::from_bounds(Bound::Excluded(b"c".to_vec()), Bound::Unbounded);
    assert_eq!(keys(&store, from_c), ["d", "g", "h"]);
    let sought: [&[u8]; 8] = [b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h"];
    let expected = [
        None,
        Some("active"),
        Some("active"),
        Some("backend"),
        None,
        None,
        Some("frozen"),
        Some("staged"),
    ];
    let expected = expected.map(|value| value.map(|value| value.as_bytes().to_vec()));
    assert_eq!(store.multi_get(COINS, &sought).unwrap(), expected);
    for (key, value) in sought.iter().zip(&expected) {
        assert_eq!(&store.get(COINS, key).unwrap(), value);
    }

    assert_eq!(store.abort_staged(), 2);
    assert_eq!(keys(&store, KeyRange::all()), ["a", "b", "c", "d", "g"]);
    gate.open();
    store.checkpoint().unwrap();
    assert_eq!(keys(&store, KeyRange::all()), ["a", "b", "c", "d", "g"]);
    assert_eq!(store.stats().entries, 0);
}

#[test]
fn commits_go_on_during_a_flush_until_memory_is_full() {
    let fs = SimFileSystem::new();
    let budget = WalOptions { memtable_bytes: 64 << 10, ..options(Durability::Async) };
    let (store, gate) = open_gated(&fs, budget);
    let mut n: u32 = 0;
    let mut fill = || {
        commit(&store, |batch| {
            batch.put_new(COINS, &n.to_be_bytes(), &[7; 200]);
            n += 1;
        });
    };
    // The first generation is frozen and stuck; the second fills up, and then the writer has to
    // wait; the gate is opened once it does.
    while store.stats().frozen_bytes == 0 {
        fill();
    }
    let mut meanwhile = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while store.stats().back_pressure_waits == 0 {
                std::thread::yield_now();
            }
            let stats = store.stats();
            assert!(stats.active_bytes + stats.frozen_bytes <= 64 << 10, "{stats:?}");
            gate.open();
        });
        while store.stats().back_pressure_waits == 0 {
            assert_eq!(store.stats().flushes, 0);
            fill();
            meanwhile += 1;
        }
    });
    assert!(meanwhile > 30, "{meanwhile} commits during a flush");
    assert_eq!(store.stats().back_pressure_waits, 1);
    store.checkpoint().unwrap();
    assert_eq!(store.range(COINS, KeyRange::all()).unwrap().count(), usize::try_from(n).unwrap());
}

/// While batch 1 is written back, batches 2 to 4 get segments of their own.
#[test]
fn no_segment_is_removed_before_its_last_batch_is_written_back() {
    let fs = SimFileSystem::new();
    let every =
        WalOptions { segment_bytes: 1, flush_every_blocks: Some(1), ..options(Durability::Strict) };
    let (store, gate) = open_gated(&fs, every.clone());
    for n in 0..4 {
        commit(&store, |batch| batch.put_new(COINS, &[n], b"coin"));
    }
    gate.open();
    store.stop_flushing().unwrap();
    assert_eq!((store.stats().applied_lsn, store.stats().segments), (1, 3));
    drop(store);
    let (store, recovery) = open_over(&fs, every, Box::new(gate)).unwrap();
    assert_eq!((recovery.from_lsn, recovery.to_lsn), (1, 4));
    assert_eq!(store.range(COINS, KeyRange::all()).unwrap().count(), 4);
}

#[test]
fn what_is_below_does_not_come_back_with_a_deletion() {
    let fs = SimFileSystem::new();
    let (store, _) = open_log_only(&fs, Durability::Strict).unwrap();
    let writes: [fn(&mut Batch); 3] = [
        |batch| batch.delete(COINS, b"coin"),
        |batch| batch.put(COINS, b"coin", b"other"),
        |batch| {
            batch.delete(COINS, b"coin");
            batch.put_new(COINS, b"coin", b"again");
        },
    ];
    for (case, write) in writes.into_iter().enumerate() {
        commit(&store, |batch| batch.put(COINS, b"coin", b"below"));
        store.checkpoint().unwrap();
        commit(&store, write);
        commit(&store, |batch| batch.delete(COINS, b"coin"));
        assert_eq!(store.get(COINS, b"coin").unwrap(), None, "case {case}, in memory");
        store.checkpoint().unwrap();
        assert_eq!(store.get(COINS, b"coin").unwrap(), None, "case {case}, written back");
    }
}

/// The hazard of reading ahead: once the generation that deleted a key is retired, nothing in
/// memory says that an older value is stale. The epoch does.
#[test]
fn the_epoch_tells_that_a_value_read_ahead_is_stale() {
    let fs = SimFileSystem::new();
    let (store, _) = open_log_only(&fs, Durability::Strict).unwrap();
    commit(&store, |batch| batch.put_new(COINS, b"coin", b"unspent"));
    store.checkpoint().unwrap();
    let epoch = store.epoch();
    let ahead = store.get(COINS, b"coin").unwrap();
    assert!(ahead.is_some());
    commit(&store, |batch| batch.delete(COINS, b"coin"));
    assert_eq!(store.epoch(), epoch, "memory still overrides the value");
    assert_eq!(store.stats().entries, 1);
    store.checkpoint().unwrap();
    assert_eq!(store.stats().entries, 0, "nothing in memory contradicts the value");
    assert_ne!(store.epoch(), epoch, "but the epoch has moved");
    assert_eq!(store.get(COINS, b"coin").unwrap(), None);
}

/// Reading ahead and then many keys at once keeps clear of that hazard, and of those that a batch
/// staged, taken back or frozen in between could make.
#[test]
fn a_value_read_ahead_is_used_only_while_it_is_true() {
    let fs = SimFileSystem::new();
    let (store, _) = open_log_only(&fs, Durability::Strict).unwrap();
    let reader = store.read_handle();
    let keys: [&[u8]; 4] = [b"below", b"spent", b"made", b"none"];
    let check = |ahead: &ReadAhead, expected: [Option<&[u8]>; 4]| {
        let mut found = vec![None; keys.len()];
        let visit = |index: usize, value: Option<&[u8]>| {
            assert!(found[index].replace(value.map(<[u8]>::to_vec)).is_none(), "visited once");
        };
        store.read_many(COINS, &keys, ahead, visit).unwrap();
        let found: Vec<_> = found.into_iter().map(|value| value.expect("visited")).collect();
        assert_eq!(found, expected.map(|value| value.map(<[u8]>::to_vec)));
    };
    commit(&store, |batch| {
        batch.put_new(COINS, b"below", b"1");
        batch.put_new(COINS, b"spent", b"2");
    });
    let early = reader.read_ahead(COINS, &keys, usize::MAX).unwrap();
    check(&early, [Some(b"1"), Some(b"2"), None, None]);
    store.checkpoint().unwrap();
    let ahead = reader.read_ahead(COINS, &keys, usize::MAX).unwrap();
    check(&early, [Some(b"1"), Some(b"2"), None, None]);
    check(&ahead, [Some(b"1"), Some(b"2"), None, None]);

    commit(&store, |batch| {
        batch.delete(COINS, b"spent");
        batch.put_new(COINS, b"made", b"3");
    });
    let later = reader.read_ahead(COINS, &keys, usize::MAX).unwrap();
    check(&ahead, [Some(b"1"), None, Some(b"3"), None]);
    store.checkpoint().unwrap();
    assert_eq!(store.stats().entries, 0, "nothing in memory contradicts what was read");
    for ahead in [early, ahead, later, ReadAhead::default()] {
        check(&ahead, [Some(b"1"), None, Some(b"3"), None]);
    }
}

/// What is written back meanwhile makes a value stale only if it was committed after the read.
#[test]
fn values_read_ahead_outlive_the_write_back_of_what_was_known_then() {
    let fs = SimFileSystem::new();
    let (store, gate) = open_gated(&fs, options(Durability::Strict));
    gate.open();
    let keys: [&[u8]; 2] = [b"below", b"none"];
    let read = |ahead: &ReadAhead| {
        let (before, mut found) = (gate.gets.load(Ordering::Relaxed), [None, None]);
        let visit = |at: usize, value: Option<&[u8]>| found[at] = value.map(<[u8]>::to_vec);
        store.read_many(COINS, &keys, ahead, visit).unwrap();
        (found, gate.gets.load(Ordering::Relaxed) - before)
    };
    commit(&store, |batch| batch.put_new(COINS, b"below", b"1"));
    store.checkpoint().unwrap();
    commit(&store, |batch| batch.put_new(COINS, b"other", b"2"));
    let ahead = store.read_handle().read_ahead(COINS, &keys, usize::MAX).unwrap();
    store.checkpoint().unwrap();
    assert_eq!(read(&ahead), ([Some(b"1".to_vec()), None], 0), "not asked again");
    commit(&store, |batch| batch.delete(COINS, b"below"));
    assert_eq!(read(&ahead), ([None, None], 0), "memory knows");
    store.checkpoint().unwrap();
    assert_eq!(read(&ahead), ([None, None], 2), "asked again");
}

/// What is read ahead has a bound in bytes; the rest is read when it is needed.
#[test]
fn of_many_values_only_so_many_bytes_are_read_ahead() {
    const COUNT: u16 = 10_000;
    let fs = SimFileSystem::new();
    let (store, gate) = open_gated(&fs, options(Durability::Strict));
    gate.open();
    let keys: Vec<[u8; 2]> = (0..COUNT).map(u16::to_be_bytes).collect();
    commit(&store, |batch| {
        for key in &keys {
            batch.put_new(COINS, key, key);
        }
    });
    store.checkpoint().unwrap();
    let reader = store.read_handle();
    for (bytes_max, kept) in [(0, 0), (2, 1), (19_999, 9_999), (usize::MAX, COUNT)] {
        let ahead = reader.read_ahead(COINS, &keys, bytes_max).unwrap();
        assert_eq!(ahead.byte_len(), 2 * usize::from(kept));
        let (before, mut found) = (gate.gets.load(Ordering::Relaxed), 0);
        let visit = |index: usize, value: Option<&[u8]>| {
            assert_eq!(value, Some(&keys[index][..]));
            found += 1;
        };
        store.read_many(COINS, &keys, &ahead, visit).unwrap();
        assert_eq!(found, COUNT);
        assert_eq!(gate.gets.load(Ordering::Relaxed) - before, usize::from(COUNT - kept));
    }
}

fn read_two(store: &Store, keys: [&[u8]; 2]) -> [Option<Vec<u8>>; 2] {
    let mut found = [None, None];
    let visit = |at: usize, value: Option<&[u8]>| found[at] = value.map(<[u8]>::to_vec);
    store.read_many(COINS, &keys, &ReadAhead::default(), visit).unwrap();
    found
}

/// As long as nothing of a tree was written back, what memory does not know is nowhere.
#[test]
fn a_backend_without_entries_is_not_asked_for_any() {
    let fs = SimFileSystem::new();
    let (store, gate) = open_gated(&fs, options(Durability::Strict));
    gate.open();
    let keys: [&[u8]; 2] = [b"made", b"none"];
    let made = || [Some(b"1".to_vec()), None];
    for round in 0..2 {
        let before = gate.gets.load(Ordering::Relaxed);
        assert_eq!(read_two(&store, keys), [None, None], "round {round}");
        commit(&store, |batch| batch.put(COINS, b"made", b"1"));
        assert_eq!(read_two(&store, keys), made(), "round {round}, in memory");
        assert_eq!(gate.gets.load(Ordering::Relaxed), before, "round {round}, not asked");
        store.checkpoint().unwrap();
        assert_eq!(read_two(&store, keys), made(), "round {round}, written back");
        assert_eq!(gate.gets.load(Ordering::Relaxed), before + 2, "round {round}, asked");
        commit(&store, |batch| batch.delete(COINS, b"made"));
        store.checkpoint().unwrap();
        assert_eq!(read_two(&store, keys), [None, None], "round {round}, deleted");
        store.clear(COINS).unwrap();
    }
}

/// Such as what a write-back left that was interrupted, before any was complete.
#[test]
fn what_the_backend_had_before_the_first_write_back_is_read() {
    let fs = SimFileSystem::new();
    let gate = Gated::new();
    let mut seed = Batch::new();
    seed.put(COINS, b"old", b"1");
    gate.inner.apply(&seed).unwrap();
    let backend = Box::new(Arc::clone(&gate));
    let (store, _) = open_over(&fs, options(Durability::Strict), backend).unwrap();
    assert_eq!(store.stats().applied_lsn, 0);
    assert_eq!(read_two(&store, [b"old", b"none"]), [Some(b"1".to_vec()), None]);
    gate.open();
}

#[test]
fn what_is_made_and_spent_in_memory_is_never_written() {
    let fs = SimFileSystem::new();
    let (store, _) = open_log_only(&fs, Durability::Strict).unwrap();
    for n in 0..50_u8 {
        commit(&store, |batch| batch.put_new(COINS, &[n], b"coin"));
    }
    for n in 0..50_u8 {
        commit(&store, |batch| batch.delete(COINS, &[n]));
    }
    assert_eq!(store.stats().entries, 0);
    store.checkpoint().unwrap();
    assert_eq!((store.stats().flushed_ops, store.stats().applied_lsn), (0, 100));
}

#[test]
fn flushes_begin_by_blocks_time_and_log_size() {
    let base = options(Durability::Strict);
    for (label, options) in [
        ("blocks", WalOptions { flush_every_blocks: Some(1), ..base.clone() }),
        ("time", WalOptions { flush_every: Some(Duration::ZERO), ..base.clone() }),
        ("log size", WalOptions { log_bytes_max: 1, ..base.clone() }),
        ("memory", WalOptions { memtable_bytes: 2, ..base }),
    ] {
        let fs = SimFileSystem::new();
        let (store, _) = open_over(&fs, options, Box::new(MemoryDatabase::new(&TREES))).unwrap();
        commit(&store, |batch| batch.put(COINS, b"k", b"v"));
        while store.stats().applied_lsn < 1 {
            std::thread::yield_now();
        }
        assert_eq!(store.stats().lsn, 1, "{label}");
    }
}

#[test]
fn the_log_shrinks_when_it_is_not_needed() {
    let fs = SimFileSystem::new();
    let (store, _, files) = open_all(&fs, options(Durability::Async)).unwrap();
    let work = Workload::new(43, 60);
    for block in &work.blocks {
        store.commit(files.attach(block.clone()).unwrap()).unwrap();
    }
    assert!(store.stats().segments > 3, "{:?}", store.stats());
    store.checkpoint().unwrap();
    assert_eq!((store.stats().segments, store.stats().log_bytes), (1, 4096));
    let names = crate::FileSystem::list(&fs, Path::new(LOG_DIR)).unwrap();
    assert_eq!(names.len(), 1, "{names:?}");
}

/// Deleting and making a key anew within one batch is no misuse.
#[test]
fn freshness_is_judged_where_the_operation_stands() {
    let fs = SimFileSystem::new();
    let (store, _) = open_log_only(&fs, Durability::Strict).unwrap();
    commit(&store, |batch| batch.put_new(COINS, b"k", b"1"));
    store.checkpoint().unwrap();
    commit(&store, |batch| {
        batch.delete(COINS, b"k");
        batch.put_new(COINS, b"k", b"2");
    });
    commit(&store, |batch| batch.delete(COINS, b"k"));
    store.checkpoint().unwrap();
    assert_eq!(store.get(COINS, b"k").unwrap(), None);
}

/// While flushing is stopped the bounds in blocks, time and log are not heeded; memory is.
#[test]
fn flushing_can_be_stopped_and_started() {
    let fs = SimFileSystem::new();
    let eager = WalOptions {
        flush_every_blocks: Some(1),
        memtable_bytes: 128 << 10,
        ..options(Durability::Strict)
    };
    let (store, _) = open_over(&fs, eager, Box::new(MemoryDatabase::new(&TREES))).unwrap();
    store.stop_flushing().unwrap();
    for n in 0..10_u32 {
        commit(&store, |batch| batch.put(COINS, &n.to_le_bytes(), b"v"));
    }
    assert_eq!((store.stats().applied_lsn, store.stats().frozen_bytes), (0, 0));
    let mut n: u32 = 10;
    while store.stats().flushes == 0 {
        commit(&store, |batch| batch.put(COINS, &n.to_le_bytes(), &[1; 500]));
        n += 1;
    }
    assert!(n > 50, "flushed after {n} batches");
    store.stop_flushing().unwrap();
    let applied = store.stats().applied_lsn;
    commit(&store, |batch| batch.put(COINS, b"k", b"v"));
    assert_eq!(store.stats().applied_lsn, applied);
    store.start_flushing();
    commit(&store, |batch| batch.put(COINS, b"k", b"w"));
    // The one before it at least: the commit itself may have come beside that flush.
    let lsn = store.stats().lsn;
    while store.stats().applied_lsn < lsn - 1 {
        std::thread::yield_now();
    }
    // A checkpoint is asked for: it does not need leave.
    store.stop_flushing().unwrap();
    commit(&store, |batch| batch.put(COINS, b"k", b"x"));
    store.checkpoint().unwrap();
    assert_eq!(store.stats().applied_lsn, lsn + 1);
}
