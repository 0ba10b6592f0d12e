//! Readers on several threads see whole batches only, while batches are staged, taken back,
//! committed and written back in parts.

use std::fmt::{self, Debug, Formatter};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::{COINS, META, TREES, block, commit};
use crate::testing::{Random, SimFileSystem, effort};
use crate::{
    Attachments, BackendKind, BackendOptions, Batch, BlockBatch, Count, Database, Durability,
    Entries, FileSystem, KeyRange, MemoryDatabase, NoAttachments, Result, StdFileSystem, Tip, Tree,
    WalBuffered, WalOptions,
};

type Store = super::Store;

/// A memory database that takes few operations in a batch, and calls back within reads: after the
/// first key of a `multi_get`, and before a range is looked up.
struct Hooked {
    inner: MemoryDatabase,
    hook: Mutex<Option<Box<dyn FnMut() + Send>>>,
}

impl Hooked {
    fn new() -> Arc<Self> {
        Arc::new(Self { inner: MemoryDatabase::new(&TREES), hook: Mutex::new(None) })
    }

    /// Calls back in the next `times` reads.
    fn call(&self, mut times: usize, mut then: impl FnMut() + Send + 'static) {
        *self.hook.lock().unwrap() = Some(Box::new(move || {
            if times > 0 {
                times -= 1;
                then();
            }
        }));
    }

    fn called(&self) {
        // Out of the lock, since what is called may read.
        let hook = self.hook.lock().unwrap().take();
        if let Some(mut hook) = hook {
            hook();
            *self.hook.lock().unwrap() = Some(hook);
        }
    }
}

impl Debug for Hooked {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Database for Hooked {
    fn trees(&self) -> &[Tree] {
        self.inner.trees()
    }
    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.inner.get(tree, key)
    }
    fn multi_get(&self, tree: Tree, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>> {
        let mut values = Vec::new();
        for key in keys {
            values.push(self.get(tree, key)?);
            if values.len() == 1 {
                self.called();
            }
        }
        Ok(values)
    }
    fn range(&self, tree: Tree, range: KeyRange) -> Result<Entries<'_>> {
        self.called();
        self.inner.range(tree, range)
    }
    fn len(&self, tree: Tree) -> Result<Count> {
        self.inner.len(tree)
    }
    fn clear(&self, tree: Tree) -> Result<()> {
        self.inner.clear(tree)
    }
    fn apply(&self, batch: &Batch) -> Result<()> {
        self.inner.apply(batch)
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
    /// Three, and the state rows.
    fn batch_ops_max(&self) -> usize {
        8
    }
}

fn open(
    fs: Arc<dyn FileSystem>,
    dir: &Path,
    options: WalOptions,
    backend: Box<dyn Database>,
) -> Arc<Store> {
    let (store, _) = WalBuffered::open(options, fs, dir, backend, Arc::new(NoAttachments)).unwrap();
    Arc::new(store)
}

fn options(flush_every_blocks: Option<u32>) -> WalOptions {
    let durability = Durability::Async;
    WalOptions { durability, flush_every_blocks, segment_bytes: 20_000, ..WalOptions::default() }
}

fn open_hooked() -> (Arc<Store>, Arc<Hooked>) {
    let hooked = Hooked::new();
    let backend: Box<dyn Database> = Box::new(Arc::clone(&hooked));
    let fs = Arc::new(SimFileSystem::new());
    (open(fs, Path::new("log"), options(None), backend), hooked)
}

const KEYS: [&[u8]; 3] = [b"a", b"b", b"c"];

fn put(store: &Store, keys: &[&[u8]], value: u8) {
    commit(store, |batch| keys.iter().for_each(|key| batch.put(COINS, key, &[value])));
}

type Read = fn(&Store) -> Vec<u8>;

fn read_many(store: &Store) -> Vec<u8> {
    store.multi_get(COINS, &KEYS).unwrap().into_iter().map(|value| value.unwrap()[0]).collect()
}

fn read_range(store: &Store) -> Vec<u8> {
    store.range(COINS, KeyRange::all()).unwrap().map(|entry| entry.unwrap().1[0]).collect()
}

/// One key is answered by memory and the others by the backend, which a later batch reaches in
/// between: the values of two batches at once were never there.
#[test]
fn a_write_back_within_a_read_of_several_keys_does_not_mix_two_batches() {
    for (name, read) in [("multi_get", read_many as Read), ("range", read_range)] {
        // Overtaken once, and so often that the reader has to keep commits out.
        for times in [1, 2, 3] {
            let (store, hooked) = open_hooked();
            put(&store, &KEYS, 1);
            store.checkpoint().unwrap();
            put(&store, &KEYS[..1], 2);
            let (writer, mut value) = (Arc::clone(&store), 3);
            hooked.call(times, move || {
                put(&writer, &KEYS, value);
                writer.checkpoint().unwrap();
                put(&writer, &KEYS[..1], value + 1);
                value += 2;
            });
            let values = read(&store);
            let whole = values[1] == values[2] && values[0] == values[1] + 1;
            assert!(whole, "{name}, overtaken {times} times: {values:?}");
            hooked.hook.lock().unwrap().take();
        }
    }
}

/// A reader that was overtaken again and again keeps commits out, for one read.
#[test]
fn a_reader_that_keeps_commits_out_sees_none_and_lets_them_in_again() {
    for read in [read_many as Read, read_range] {
        let (store, hooked) = open_hooked();
        put(&store, &KEYS, 0);
        store.checkpoint().unwrap();
        let (writer, calls) = (Arc::clone(&store), Arc::new(AtomicU64::new(0)));
        let (counter, late) = (Arc::clone(&calls), Arc::new(Mutex::new(None)));
        let handle = Arc::clone(&late);
        hooked.call(usize::MAX, move || {
            let value = u8::try_from(counter.fetch_add(1, Ordering::Relaxed)).unwrap() + 1;
            let writer = Arc::clone(&writer);
            let work = move || {
                put(&writer, &KEYS, value);
                writer.checkpoint().unwrap();
            };
            let thread = thread::Builder::new().name("late".to_owned()).spawn(work).unwrap();
            if value <= 3 {
                thread.join().unwrap();
            } else {
                *handle.lock().unwrap() = Some(thread);
            }
        });
        assert_eq!(read(&store), [3, 3, 3]);
        assert_eq!(calls.load(Ordering::Relaxed), 4, "three tries, and the last one");
        hooked.hook.lock().unwrap().take();
        late.lock().unwrap().take().unwrap().join().unwrap();
        assert_eq!(read(&store), [4, 4, 4]);
    }
}

/// How many keys a block may change. The key of index `i` changes with every `i + 1`-th height.
const PERIODS: u32 = 24;

fn key(index: u32) -> [u8; 4] {
    index.to_be_bytes()
}

/// The value of a key at a height.
fn value_at(index: u32, height: u32) -> u32 {
    height - height % (index + 1)
}

/// What leads from one height to another, in two trees.
fn changes(from: Option<u32>, to: u32) -> Batch {
    let mut batch = Batch::new();
    for tree in [COINS, META] {
        for index in 0..PERIODS {
            let value = value_at(index, to);
            if from.map(|from| value_at(index, from)) != Some(value) {
                batch.put(tree, &key(index), &value.to_le_bytes());
            }
        }
    }
    batch
}

/// Fails unless the values are those of one height. Returns it.
fn check_whole(values: &[u32], label: &str) -> u32 {
    let height = values[0];
    for (index, value) in (0..).zip(values) {
        assert_eq!(*value, value_at(index, height), "{label}: {values:?}");
    }
    height
}

fn number(value: Vec<u8>) -> u32 {
    u32::from_le_bytes(value.try_into().unwrap())
}

/// What the threads share.
struct Shared {
    store: Arc<Store>,
    done: AtomicBool,
    /// Moves before a step back and after it.
    steps_back: AtomicU64,
    reads: AtomicU64,
    /// Whether iterators of the engine are snapshots, so that a range is of one height.
    snapshots: bool,
    label: String,
}

impl Shared {
    fn read(&self, seed: u64) {
        let mut random = Random::new(seed);
        let keys: Vec<[u8; 4]> = (0..PERIODS).map(key).collect();
        let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
        let (store, label) = (&self.store, &self.label);
        let (mut epoch, mut durable) = (0, 0);
        let mut last = (self.steps_back.load(Ordering::SeqCst), 0);
        while !self.done.load(Ordering::Relaxed) {
            let tree = if random.one_in(2) { COINS } else { META };
            if random.one_in(3) {
                let entries = store.range(tree, KeyRange::all()).unwrap();
                let values: Vec<u32> = entries.map(|entry| number(entry.unwrap().1)).collect();
                assert_eq!(values.len(), keys.len(), "{label}: a key is missing");
                if self.snapshots {
                    check_whole(&values, &format!("{label}: range"));
                }
            } else {
                let values = store.multi_get(tree, &keys).unwrap();
                let values: Vec<u32> = values.into_iter().map(|v| number(v.unwrap())).collect();
                check_whole(&values, &format!("{label}: multi_get"));
            }
            let now = store.epoch();
            assert!(now >= epoch, "{label}: the epoch went from {epoch} to {now}");
            epoch = now;
            let now = store.durable_lsn();
            assert!(now >= durable, "{label}: durable went from {durable} to {now}");
            durable = now;
            let before = self.steps_back.load(Ordering::SeqCst);
            let height = store.tip().unwrap().height;
            let steps_back = self.steps_back.load(Ordering::SeqCst);
            // An odd number: a step back had begun when the tip was read last.
            let stepped_back = steps_back > last.0 || last.0 % 2 == 1;
            assert!(height >= last.1 || stepped_back, "{label}: {height} after {}", last.1);
            last = (before, height);
            self.reads.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Stages, takes back, commits, steps back, checkpoints.
    fn write(&self, seed: u64, blocks: u32) {
        let mut random = Random::new(seed);
        let mut height = 0;
        for _ in 0..blocks {
            let back = height > 0 && random.one_in(10);
            if back {
                self.steps_back.fetch_add(1, Ordering::SeqCst);
            }
            let next = if back { height - 1 } else { height + 1 };
            let block = self.block(Some(height), next);
            if random.one_in(2) {
                self.store.commit(block).unwrap();
            } else {
                self.store.stage(block.clone()).unwrap();
                if random.one_in(3) {
                    self.store.abort_staged();
                    self.store.stage(block).unwrap();
                }
                self.store.commit_staged().unwrap();
            }
            if back {
                self.steps_back.fetch_add(1, Ordering::SeqCst);
            }
            height = next;
            match random.below(40) {
                0 => self.store.checkpoint().unwrap(),
                1 => self.store.sync().unwrap(),
                _ => {}
            }
        }
        self.done.store(true, Ordering::Relaxed);
    }

    fn block(&self, from: Option<u32>, to: u32) -> BlockBatch {
        let mut next = block(&self.store, &[], |batch| *batch = changes(from, to));
        next.tip = Tip { height: to, ..next.tip };
        next
    }
}

/// Lets readers and a writer loose. Returns the number of reads and of write-backs.
fn stress(store: Arc<Store>, snapshots: bool, blocks: u32, label: String) -> (u64, u64) {
    let (done, steps_back, reads) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let shared = Shared { store, done, steps_back, reads, snapshots, label };
    shared.store.commit(shared.block(None, 0)).unwrap();
    thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|seed| {
                let shared = &shared;
                scope.spawn(move || shared.read(seed))
            })
            .collect();
        // A reader that fails ends the writer's run too, through the scope.
        shared.write(9, blocks);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
    (shared.reads.into_inner(), shared.store.stats().flushes)
}

#[test]
fn readers_see_whole_batches_only() {
    let blocks = effort().pick(4000, 100_000, 1_000_000);
    for flush_every in [None, Some(1), Some(3)] {
        let started = Instant::now();
        let backend: Box<dyn Database> = Box::new(Hooked::new());
        let fs = Arc::new(SimFileSystem::new());
        let store = open(fs, Path::new("log"), options(flush_every), backend);
        let label = format!("memory, flush every {flush_every:?}");
        let (reads, flushes) = stress(store, true, blocks, label.clone());
        println!("{label}: {reads} reads, {flushes} write-backs, {:?}", started.elapsed());
        assert!(reads > 0 && flushes > 0);
    }
}

#[test]
fn readers_see_whole_batches_only_on_every_engine() {
    let blocks = effort().pick(500, 10_000, 100_000);
    for kind in BackendKind::available() {
        let started = Instant::now();
        let dir = tempfile::tempdir().unwrap();
        let engine = BackendOptions { cache_bytes: 1 << 20 };
        let backend = kind.open(&dir.path().join("db"), &TREES, &engine).unwrap();
        let fs = Arc::new(StdFileSystem);
        let store = open(fs, &dir.path().join("log"), options(Some(2)), backend);
        let snapshots = kind != BackendKind::Sled;
        let (reads, flushes) = stress(store, snapshots, blocks, kind.to_string());
        println!("{kind}: {reads} reads, {flushes} write-backs, {:?}", started.elapsed());
        assert!(reads > 0 && flushes > 0);
    }
}

/// A record that an fsync covers just while it is being appended is durable with its tip, and
/// leaves the thread that syncs in the background nothing to do.
#[test]
fn the_durable_tip_is_that_of_the_durable_record_at_every_moment() {
    let blocks = effort().pick(50_000, 100_000, 1_000_000);
    let fs = Arc::new(SimFileSystem::new());
    let relaxed = Durability::Relaxed { interval_ms: 3_600_000 };
    let options = WalOptions { durability: relaxed, ..options(None) };
    let backend: Box<dyn Database> = Box::new(MemoryDatabase::new(&TREES));
    let store = open(fs, Path::new("log"), options, backend);
    let done = AtomicBool::new(false);
    let check = || {
        let (lsn, tip) = (store.durable_lsn(), store.durable_tip());
        if store.durable_lsn() == lsn {
            // The heights are made so that they are the numbers of the records.
            assert_eq!(tip.map_or(0, |tip| u64::from(tip.height) + 1), lsn);
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                store.sync().unwrap();
                check();
            }
        });
        for _ in 0..blocks {
            commit(&store, |batch| batch.put(COINS, b"k", b"v"));
        }
        done.store(true, Ordering::Relaxed);
    });
    store.sync().unwrap();
    check();
}

/// Attachments that wait, while they are synced, until another thread has staged a block.
#[derive(Debug, Default)]
struct StageWhenSynced {
    next: Mutex<Option<(Arc<Store>, BlockBatch)>>,
    staged: AtomicBool,
}

impl Attachments for StageWhenSynced {
    fn sync(&self) -> Result<()> {
        let Some((store, block)) = self.next.lock().unwrap().take() else { return Ok(()) };
        let (done, staged) = sync_channel(1);
        let stage = move || done.send(store.stage(block).is_ok());
        thread::Builder::new().name("stage".to_owned()).spawn(stage).unwrap();
        let staged = staged.recv_timeout(Duration::from_secs(10)) == Ok(true);
        self.staged.store(staged, Ordering::Relaxed);
        Ok(())
    }
    fn intact(&self, _: &BlockBatch) -> Result<bool> {
        Ok(true)
    }
    fn rewrite(&self, _: &BlockBatch) -> Result<()> {
        Ok(())
    }
}

#[test]
fn a_block_is_staged_while_a_segment_is_begun() {
    let attachments = Arc::new(StageWhenSynced::default());
    let options = WalOptions { segment_bytes: 1, ..options(None) };
    let backend: Box<dyn Database> = Box::new(MemoryDatabase::new(&TREES));
    let (fs, attached) = (Arc::new(SimFileSystem::new()), Arc::clone(&attachments));
    let opened = WalBuffered::open(options, fs, Path::new("log"), backend, attached);
    let store = Arc::new(opened.unwrap().0);
    put(&store, &KEYS, 1);
    let next = block(&store, &[], |batch| batch.put(COINS, b"a", b"2"));
    store.stage(next.clone()).unwrap();
    let after = block(&store, &[next], |batch| batch.put(COINS, b"a", b"3"));
    *attachments.next.lock().unwrap() = Some((Arc::clone(&store), after));
    store.commit_staged().unwrap();
    assert!(attachments.staged.load(Ordering::Relaxed), "staging waited for the log's files");
    store.commit_staged().unwrap();
    assert_eq!(store.get(COINS, b"a").unwrap(), Some(b"3".to_vec()));
}
