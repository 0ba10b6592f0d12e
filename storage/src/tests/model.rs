//! Random operations on every engine, bare and under the log, give what a map in memory gives.
//!
//! Everything is checked after every step, so the step that a failure names is the first that goes
//! wrong: the same seed with that many steps is the smallest run that shows it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{META, Store, TREES};
use crate::testing::{Model, Random, SimFileSystem, effort};
use crate::{
    BackendKind, BackendOptions, Batch, BlockBatch, Count, Database, Durability, Error, FileSystem,
    KeyRange, LogWriter, Lsn, MemoryDatabase, NoAttachments, Recovery, SegmentFiles, StdFileSystem,
    Tip, Tree, WalBuffered, WalOptions,
};

const UNKNOWN: Tree = Tree { id: 77, name: "unknown" };

/// Few keys, so that they meet: empty, prefixes of each other, at the end of their ranges.
const KEYS: [&[u8]; 21] = [
    b"",
    b"\0",
    b"\0\0",
    b"a",
    b"a\0",
    b"a\xff",
    b"a\xff\xff",
    b"ab",
    b"abc",
    b"abd",
    b"b",
    b"ba",
    b"c",
    b"d",
    b"key",
    b"key1",
    b"key2",
    b"z",
    b"\xfe",
    b"\xff",
    b"\xff\xff",
];

const MODES: [Durability; 5] = [
    Durability::Strict,
    Durability::Batched { blocks: 1, interval_ms: 1 },
    Durability::Relaxed { interval_ms: 1 },
    Durability::Relaxed { interval_ms: 3_600_000 },
    Durability::Async,
];

/// How the log is run; none for the bare engine.
fn option_sets() -> Vec<(&'static str, Option<WalOptions>)> {
    let base = WalOptions { segment_bytes: 6000, verify_freshness: true, ..WalOptions::default() };
    let set = |name, options| (name, Some(options));
    vec![
        ("bare", None),
        set("strict", WalOptions { durability: Durability::Strict, ..base.clone() }),
        set("flush at every block", WalOptions { flush_every_blocks: Some(1), ..base.clone() }),
        set("flush at some blocks", WalOptions { flush_every_blocks: Some(5), ..base.clone() }),
        set("flush by time", WalOptions { flush_every: Some(Duration::ZERO), ..base.clone() }),
        set("small memory", WalOptions { memtable_bytes: 4000, ..base.clone() }),
        set("small log", WalOptions { log_bytes_max: 500, segment_bytes: 1, ..base.clone() }),
        set("async", WalOptions { durability: Durability::Async, ..base.clone() }),
        set("compressed", WalOptions { compress_bytes_min: Some(0), ..base.clone() }),
        set("recycled", WalOptions { segment_files: SegmentFiles::Recycled, ..base.clone() }),
        set("thread", WalOptions { writer: LogWriter::Thread { bytes_min: 0 }, ..base.clone() }),
        set("mapped", WalOptions { writer: LogWriter::Mapped, ..base.clone() }),
        set("put_new is believed", WalOptions { verify_freshness: false, ..base }),
    ]
}

enum Subject {
    Bare(Box<dyn Database>),
    Buffered(Store),
    Closed,
}

/// Where a store is, closed or open.
struct Place {
    kind: BackendKind,
    dir: PathBuf,
    fs: Arc<dyn FileSystem>,
    /// What the memory engine keeps while the store is closed.
    memory: Arc<MemoryDatabase>,
    options: Option<WalOptions>,
}

impl Place {
    fn backend(&self) -> Box<dyn Database> {
        if self.kind == BackendKind::Memory {
            return Box::new(Arc::clone(&self.memory));
        }
        let options = BackendOptions { cache_bytes: 1 << 20 };
        self.kind.open(&self.dir.join("db"), &TREES, &options).unwrap()
    }

    fn open(&self) -> (Subject, Option<Recovery>) {
        let Some(options) = self.options.clone() else {
            return (Subject::Bare(self.backend()), None);
        };
        let (fs, attachments) = (Arc::clone(&self.fs), Arc::new(NoAttachments));
        let dir = self.dir.join("log");
        let opened = WalBuffered::open(options, fs, &dir, self.backend(), attachments);
        let (store, recovery) = opened.unwrap_or_else(|e| panic!("{}", e.chain()));
        (Subject::Buffered(store), Some(recovery))
    }
}

/// The state after a batch, and the tip.
type After = (Model, Option<Tip>);

struct Run {
    place: Place,
    subject: Subject,
    random: Random,
    label: String,
    /// The state after each batch that a kill may bring back, the newest one last.
    history: BTreeMap<Lsn, After>,
    /// Batches up to this one were promised to survive a kill.
    kept: Lsn,
    mode: Durability,
    staged: Vec<BlockBatch>,
}

impl Run {
    fn new(place: Place, seed: u64) -> Self {
        let (subject, _) = place.open();
        let mode = place.options.as_ref().map_or(Durability::Strict, |options| options.durability);
        let history = BTreeMap::from([(0, After::default())]);
        let (random, label) = (Random::new(seed), String::new());
        Self { place, subject, random, label, history, kept: 0, mode, staged: Vec::new() }
    }

    fn database(&self) -> &dyn Database {
        match &self.subject {
            Subject::Bare(database) => &**database,
            Subject::Buffered(store) => store,
            Subject::Closed => panic!("{}: closed", self.label),
        }
    }

    fn store(&self) -> &Store {
        match &self.subject {
            Subject::Buffered(store) => store,
            _ => panic!("{}: no log", self.label),
        }
    }

    fn lsn(&self) -> Lsn {
        *self.history.last_key_value().unwrap().0
    }

    fn committed(&self) -> &After {
        self.history.last_key_value().unwrap().1
    }

    /// What reads see: the committed state and what is staged on top.
    fn visible(&self) -> Model {
        let mut model = self.committed().0.clone();
        self.staged.iter().for_each(|block| model.apply(&block.batch));
        model
    }

    fn newest_tip(&self) -> Option<Tip> {
        self.staged.last().map(|block| block.tip).or(self.committed().1)
    }

    fn tree(&mut self) -> Tree {
        TREES[self.random.below(TREES.len())]
    }

    fn key(&mut self) -> &'static [u8] {
        KEYS[self.random.below(KEYS.len())]
    }

    fn value(&mut self) -> Vec<u8> {
        let most = if self.random.one_in(20) { 3000 } else { 40 };
        let len = self.random.below(most);
        self.random.bytes(len)
    }

    /// Some writes; `put_new` only of keys that are absent where it stands.
    fn batch(&mut self) -> Batch {
        let (mut batch, mut model) = (Batch::new(), self.visible());
        for _ in 0..self.random.below(9) {
            let (tree, key, value) = (self.tree(), self.key(), self.value());
            let mut one = Batch::new();
            match self.random.below(3) {
                0 => one.delete(tree, key),
                1 if model.get(tree.id, key).is_none() => one.put_new(tree, key, &value),
                _ => one.put(tree, key, &value),
            }
            model.apply(&one);
            one.ops().for_each(|op| batch.push_op(op));
        }
        batch
    }

    fn block(&mut self) -> BlockBatch {
        let prev = self.newest_tip();
        let batch = self.batch();
        let hash = self.random.bytes(32).try_into().unwrap();
        // A step back now and then.
        let step = if self.random.one_in(6) { -1 } else { 1 };
        let height = prev.map_or(0, |tip| tip.height.saturating_add_signed(step));
        let prev_hash = prev.map_or([0; 32], |tip| tip.hash);
        BlockBatch { tip: Tip { height, hash }, prev_hash, batch }
    }

    /// A batch was committed and acknowledged.
    fn committed_batch(&mut self, batch: &Batch, tip: Option<Tip>) {
        let (mut model, before) = self.committed().clone();
        model.apply(batch);
        let lsn = self.lsn() + 1;
        self.history.insert(lsn, (model, tip.or(before)));
        if self.mode != Durability::Async {
            self.keep_all();
        }
    }

    /// No kill can bring anything back but the newest state.
    fn keep_all(&mut self) {
        self.kept = self.lsn();
        let kept = self.kept;
        self.history.retain(|lsn, _| *lsn >= kept);
    }

    fn expect_misuse<T: std::fmt::Debug>(&self, result: crate::Result<T>) {
        assert!(matches!(result, Err(Error::Misuse { .. })), "{}: {result:?}", self.label);
    }

    fn apply(&mut self) {
        let batch = self.batch();
        let applied = self.database().apply(&batch);
        if self.staged.is_empty() {
            applied.unwrap();
            self.committed_batch(&batch, None);
        } else {
            self.expect_misuse(applied);
        }
    }

    fn ingest(&mut self) {
        let tree = self.tree();
        let count = self.random.below(12);
        let entries: BTreeMap<Vec<u8>, Vec<u8>> =
            (0..count).map(|_| (self.key().to_vec(), self.value())).collect();
        let mut batch = Batch::new();
        entries.iter().for_each(|(key, value)| batch.put(tree, key, value));
        let ingested = self.database().ingest_sorted(tree, &mut entries.into_iter());
        if self.staged.is_empty() {
            ingested.unwrap();
            self.committed_batch(&batch, None);
        } else {
            self.expect_misuse(ingested);
        }
    }

    fn clear(&mut self) {
        let tree = self.tree();
        let cleared = self.database().clear(tree);
        if !self.staged.is_empty() {
            self.expect_misuse(cleared);
            return;
        }
        cleared.unwrap();
        let (lsn, (model, tip)) = self.history.pop_last().unwrap();
        self.history.insert(lsn, (model.without(tree.id), tip));
        self.keep_all();
    }

    fn stage(&mut self) {
        let block = self.block();
        self.store().stage(block.clone()).unwrap();
        self.staged.push(block);
    }

    fn commit_staged(&mut self) {
        let committed = self.store().commit_staged();
        if self.staged.is_empty() {
            self.expect_misuse(committed);
            return;
        }
        assert_eq!(committed.unwrap(), self.lsn() + 1, "{}", self.label);
        let block = self.staged.remove(0);
        self.committed_batch(&block.batch, Some(block.tip));
    }

    fn commit(&mut self) {
        let block = self.block();
        let committed = self.store().commit(block.clone());
        if self.staged.is_empty() {
            assert_eq!(committed.unwrap(), self.lsn() + 1, "{}", self.label);
            self.committed_batch(&block.batch, Some(block.tip));
        } else {
            self.expect_misuse(committed);
        }
    }

    /// Calls that must be refused and change nothing.
    fn refused(&mut self) {
        let mut block = self.block();
        block.prev_hash[0] ^= 1;
        self.expect_misuse(self.store().stage(block.clone()));
        block.prev_hash[0] ^= 1;
        block.batch.put(UNKNOWN, b"k", b"v");
        let unknown = self.store().stage(block.clone());
        assert!(matches!(unknown, Err(Error::UnknownTree { id: 77 })), "{}", self.label);
        let (tree, model) = (self.tree(), self.visible());
        let verified = self.place.options.as_ref().is_some_and(|options| options.verify_freshness);
        if let Some(key) = model.keys(tree.id).next()
            && verified
        {
            block.batch = Batch::new();
            block.batch.put(META, b"never", b"seen");
            block.batch.put_new(tree, key, b"not fresh");
            let result = self.store().stage(block);
            assert!(matches!(result, Err(Error::NotFresh { .. })), "{}", self.label);
        }
    }

    fn reopen(&mut self) {
        self.subject = Subject::Closed;
        let (subject, recovery) = self.place.open();
        self.subject = subject;
        self.staged.clear();
        if let Some(recovery) = recovery {
            let label = self.label.clone();
            let j = recovery.to_lsn;
            assert!(self.kept <= j && j <= self.lsn(), "{label}: {recovery:?}, {} kept", self.kept);
            assert_eq!(recovery.torn, None, "{label}");
            self.history.retain(|lsn, _| *lsn <= j);
            self.keep_all();
            assert_eq!(recovery.tip, self.committed().1, "{label}");
            // Opening goes back to the mode in the options.
            self.mode = self.place.options.as_ref().unwrap().durability;
        }
    }

    fn shut_down(&mut self) {
        match std::mem::replace(&mut self.subject, Subject::Closed) {
            Subject::Buffered(store) => store.shutdown().unwrap(),
            Subject::Bare(database) => database.flush().unwrap(),
            Subject::Closed => {}
        }
        self.keep_all();
        self.reopen();
        if let Subject::Buffered(store) = &self.subject {
            assert_eq!(store.stats().log_bytes, 4096, "{}: an empty log", self.label);
        }
    }

    fn kill(&mut self) {
        match &self.subject {
            Subject::Buffered(store) => self.kept = self.kept.max(store.durable_lsn()),
            // What an engine loses with its process is its own affair.
            _ => self.database().flush().unwrap(),
        }
        self.reopen();
    }

    fn step(&mut self) {
        let buffered = matches!(self.subject, Subject::Buffered(_));
        match self.random.below(if buffered { 40 } else { 12 }) {
            0..=4 => self.apply(),
            5 => self.ingest(),
            6 if self.random.one_in(3) => self.clear(),
            7 if self.random.one_in(3) => self.shut_down(),
            8 if self.random.one_in(2) => self.kill(),
            6..=9 => self.apply(),
            10 | 11 => self.database().flush().map(|()| self.keep_all()).unwrap(),
            12..=18 => self.stage(),
            19..=25 => self.commit_staged(),
            26 | 27 => {
                let count = std::mem::take(&mut self.staged).len();
                assert_eq!(self.store().abort_staged(), count, "{}", self.label);
            }
            28..=33 => self.commit(),
            34 => self.store().checkpoint().map(|()| self.keep_all()).unwrap(),
            35 | 36 => self.store().sync().map(|()| self.keep_all()).unwrap(),
            37 => {
                self.mode = MODES[self.random.below(MODES.len())];
                self.store().set_durability(self.mode);
            }
            _ => self.refused(),
        }
    }

    /// Compares everything that can be read.
    fn check(&mut self) {
        let model = self.visible();
        let tree = self.tree();
        self.check_points(&model, tree);
        self.check_ranges(&model, tree);
        for tree in TREES {
            let count = u64::try_from(model.keys(tree.id).count()).unwrap();
            if let Count::Exact(found) = self.database().len(tree).unwrap() {
                assert_eq!(found, count, "{}: {tree:?}", self.label);
            }
        }
        if let Subject::Buffered(store) = &self.subject {
            let label = &self.label;
            assert_eq!(store.tip(), self.committed().1, "{label}: tip");
            let stats = store.stats();
            assert_eq!(stats.lsn, self.lsn(), "{label}");
            assert!(stats.applied_lsn <= stats.durable_lsn, "{label}: {stats:?}");
            let (before, tip) = (store.durable_lsn(), store.durable_tip());
            if store.durable_lsn() == before
                && let Some((_, expected)) = self.history.get(&before)
            {
                assert_eq!(tip, *expected, "{label}: durable tip");
            }
        }
    }

    fn check_points(&self, model: &Model, tree: Tree) {
        let mut keys = KEYS;
        keys.sort_unstable();
        let found = self.database().multi_get(tree, &keys).unwrap();
        for (key, value) in keys.into_iter().zip(found) {
            let (label, expected) = (&self.label, model.get(tree.id, key).cloned());
            assert_eq!(value, expected, "{label}: multi_get {tree:?} {key:?}");
            let get = self.database().get(tree, key).unwrap();
            assert_eq!(get, expected, "{label}: get {tree:?} {key:?}");
            let contains = self.database().contains_key(tree, key).unwrap();
            assert_eq!(contains, expected.is_some(), "{label}: contains {tree:?} {key:?}");
        }
    }

    fn check_ranges(&mut self, model: &Model, tree: Tree) {
        let mut bound = || {
            let key = self.key().to_vec();
            match self.random.below(3) {
                0 => Bound::Included(key),
                1 => Bound::Excluded(key),
                _ => Bound::Unbounded,
            }
        };
        let bounds = KeyRange::from_bounds(bound(), bound());
        let prefix = self.key();
        for (range, entries) in [
            (bounds.clone(), self.database().range(tree, bounds)),
            (KeyRange::prefix(prefix), self.database().prefix(tree, prefix)),
            (KeyRange::all(), self.database().range(tree, KeyRange::all())),
        ] {
            let found: Vec<_> = entries.unwrap().map(|entry| entry.unwrap()).collect();
            let inside = model.keys(tree.id).filter(|key| range.contains(key));
            let expected: Vec<_> = inside
                .map(|key| (key.to_vec(), model.get(tree.id, key).unwrap().clone()))
                .collect();
            assert_eq!(found, expected, "{}: {tree:?} {range:?}", self.label);
        }
    }
}

/// Runs an engine with all option sets.
fn run(kind: BackendKind, seeds: u64, steps: usize) {
    let (started, mut count) = (Instant::now(), 0);
    for (name, options) in option_sets() {
        for seed in 0..seeds {
            let dir = tempfile::tempdir().unwrap();
            // The simulated one is the faster one; an engine needs the real one anyway.
            let (fs, dir): (Arc<dyn FileSystem>, &Path) = match kind {
                BackendKind::Memory => (Arc::new(SimFileSystem::new()), Path::new("data")),
                _ => (Arc::new(StdFileSystem), dir.path()),
            };
            let memory = Arc::new(MemoryDatabase::new(&TREES));
            let options = options.clone();
            let place = Place { kind, dir: dir.to_path_buf(), fs, memory, options };
            let mut run = Run::new(place, seed);
            for step in 0..steps {
                run.label = format!("{kind}, {name}, seed {seed}, step {step}");
                run.step();
                run.check();
                count += 1;
            }
        }
    }
    println!("{kind}: {count} steps in {:?}", started.elapsed());
}

#[test]
fn the_memory_engine_is_the_model_bare_and_under_the_log() {
    let (seeds, steps) = effort().pick((3, 300), (60, 1500), (1000, 3000));
    run(BackendKind::Memory, seeds, steps);
}

#[test]
fn engines_on_disk_are_the_model_bare_and_under_the_log() {
    let (seeds, steps) = effort().pick((1, 80), (3, 400), (100, 2000));
    for kind in BackendKind::available() {
        if kind != BackendKind::Memory {
            run(kind, seeds, steps);
        }
    }
}
