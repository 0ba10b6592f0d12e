//! Do directories that every version of the format has written still open to the same state?
//!
//! `fixtures/vN/NAME` is what version N has left: `log/`, and where an engine was below it, `db/`.
//! A new version writes its own beside the old ones, which stay as they are:
//!
//! ```text
//! cargo test --release --workspace --all-features --test fixtures -- --ignored
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cofferdam_storage::testing::{Model, Random, assert_same};
use cofferdam_storage::{
    BackendKind, BackendOptions, Batch, BlockBatch, Count, Database, DatabaseState, Durability,
    Entries, Error, KeyRange, NoAttachments, ReadOnlyFileSystem, Recovery, Result, StdFileSystem,
    Tip, Torn, Tree, Verdict, WalBuffered, WalOptions, inspect_log,
};

const COINS: Tree = Tree { id: 1, name: "coins" };
const META: Tree = Tree { id: 2, name: "meta" };
const TREES: [Tree; 2] = [COINS, META];

/// All contents follow from it, and from the order in which `Random` is asked.
const SEED: u64 = 0x000f_1c70;
const BATCHES: usize = 40;
/// So many were in the database before a write-back was interrupted.
const HALF: usize = 25;
/// What the generator adds to a log as a torn write would.
const TORN: [u8; 10] = [0xa5; 10];

/// How a directory was left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Left {
    /// Killed, with a torn tail; the engine kept nothing.
    Unclean,
    /// Shut down.
    Clean,
    /// Killed within a write-back.
    Interrupted,
}

/// Every fixture: directory, engine, how it was left.
const FIXTURES: [(&str, BackendKind, Left); 7] = [
    ("unclean", BackendKind::Memory, Left::Unclean),
    ("clean-rocksdb", BackendKind::Rocksdb, Left::Clean),
    ("clean-sled", BackendKind::Sled, Left::Clean),
    ("clean-lsm", BackendKind::Lsm, Left::Clean),
    ("interrupted-rocksdb", BackendKind::Rocksdb, Left::Interrupted),
    ("interrupted-sled", BackendKind::Sled, Left::Interrupted),
    ("interrupted-lsm", BackendKind::Lsm, Left::Interrupted),
];
/// The version of the log when there was no engine `lsm` yet.
const BEFORE_LSM: &str = "v1";

/// One batch.
enum Step {
    Block(BlockBatch),
    Plain(Batch),
}

/// The batches, and the state and the tip after all of them.
fn workload() -> (Vec<Step>, Model, Option<Tip>) {
    let mut random = Random::new(SEED);
    let (mut steps, mut model, mut tip) = (Vec::new(), Model::default(), None::<Tip>);
    for index in 0..BATCHES {
        let mut batch = Batch::new();
        let keys: Vec<Vec<u8>> = model.keys(COINS.id).map(<[u8]>::to_vec).collect();
        for key in keys {
            if random.one_in(5) {
                batch.delete(COINS, &key);
            }
        }
        for _ in 0..random.below(8) {
            let (key, len) = (random.bytes(36), random.below(60));
            batch.put_new(COINS, &key, &random.bytes(len));
        }
        if index % 10 == 7 {
            // Longer than a page, and well compressible.
            batch.put(META, b"long", &vec![u8::try_from(index).expect("small"); 5000]);
        }
        batch.put(META, b"step", &index.to_le_bytes());
        model.apply(&batch);
        if index % 6 == 5 {
            steps.push(Step::Plain(batch));
            continue;
        }
        let prev_hash = tip.map_or([0; 32], |tip| tip.hash);
        let hash = random.bytes(32).try_into().expect("32 bytes");
        let next = Tip { height: tip.map_or(0, |tip| tip.height + 1), hash };
        tip = Some(next);
        steps.push(Step::Block(BlockBatch { tip: next, prev_hash, batch }));
    }
    (steps, model, tip)
}

type Store = WalBuffered<Box<dyn Database>>;

fn open_over(backend: Box<dyn Database>, dir: &Path) -> Result<(Store, Recovery)> {
    // Small segments, so that there are several; strict, so that every run writes the same records.
    let options = WalOptions {
        durability: Durability::Strict,
        segment_bytes: 10_000,
        ..WalOptions::default()
    };
    let fs = Arc::new(StdFileSystem);
    WalBuffered::open(options, fs, &dir.join("log"), backend, Arc::new(NoAttachments))
}

fn engine(kind: BackendKind, dir: &Path) -> Box<dyn Database> {
    kind.open(&dir.join("db"), &TREES, &BackendOptions::default()).expect("the engine opens")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn as_u64(number: usize) -> u64 {
    u64::try_from(number).expect("small")
}

/// The fixtures that are there, of every version.
fn found() -> Vec<(PathBuf, BackendKind, Left)> {
    let versions =
        fs::read_dir(root()).expect("the fixtures").map(|entry| entry.expect("readable"));
    let mut versions: Vec<PathBuf> = versions.map(|entry| entry.path()).collect();
    versions.sort();
    let before = root().join(BEFORE_LSM);
    versions
        .iter()
        .flat_map(|version| FIXTURES.map(|(name, kind, left)| (version.join(name), kind, left)))
        .filter(|(dir, kind, _)| *kind != BackendKind::Lsm || !dir.starts_with(&before))
        .collect()
}

#[test]
fn every_version_opens_to_the_same_state() {
    let available = BackendKind::available();
    let mut opened = 0;
    for (dir, kind, left) in found() {
        assert!(dir.join("README.md").is_file(), "{} is missing", dir.display());
        if !available.contains(&kind) {
            println!("not opened, since {kind} is not in this build: {}", dir.display());
            continue;
        }
        let copy = tempfile::tempdir().expect("a temporary directory");
        copy_dir(&dir, copy.path());
        check(copy.path(), kind, left, &dir.display().to_string());
        opened += 1;
    }
    assert!(opened > 0);
}

fn check(dir: &Path, kind: BackendKind, left: Left, label: &str) {
    let (_, model, tip) = workload();
    let (all, half) = (as_u64(BATCHES), as_u64(HALF));
    let backend = engine(kind, dir);
    let state = DatabaseState::read(&*backend).expect("state rows");
    let expected = match left {
        Left::Unclean => (0, 0),
        Left::Clean => (all, all),
        Left::Interrupted => (half, all),
    };
    assert_eq!((state.applied_lsn, state.writing_lsn), expected, "{label}");

    let report = inspect_log(&ReadOnlyFileSystem, &dir.join("log"), Some(&state));
    let report = report.unwrap_or_else(|error| panic!("{label}: {}", error.chain()));
    let is_torn = matches!(&report.verdict, Verdict::Torn(_));
    assert_eq!(is_torn, left == Left::Unclean, "{label}: {report:?}");
    assert!(!matches!(report.verdict, Verdict::Corrupt(_)), "{label}: {report:?}");
    assert_eq!(report.marker, (left == Left::Clean).then_some(all), "{label}");

    let opened = open_over(backend, dir);
    let (store, recovery) = opened.unwrap_or_else(|error| panic!("{label}: {}", error.chain()));
    let torn = Torn { bytes: as_u64(TORN.len()), records: 0 };
    assert_eq!(recovery.clean, left == Left::Clean, "{label}");
    assert_eq!((recovery.from_lsn, recovery.to_lsn), (state.applied_lsn, all), "{label}");
    assert_eq!(recovery.records, all - state.applied_lsn, "{label}");
    assert_eq!(recovery.torn, is_torn.then_some(torn), "{label}");
    assert_eq!((recovery.tip, store.tip()), (tip, tip), "{label}");
    assert_same(&store, &model, label);

    // It can be written to, closed and opened again.
    let mut batch = Batch::new();
    batch.put(META, b"more", b"now");
    store.apply(&batch).expect("applied");
    store.shutdown().expect("closed");
    if kind != BackendKind::Memory {
        let (store, recovery) = open_over(engine(kind, dir), dir).expect("opens again");
        assert!(recovery.clean, "{label}");
        let mut model = model;
        model.apply(&batch);
        assert_same(&store, &model, label);
    }
}

#[test]
#[ignore = "writes the fixtures of the present version of the format, once"]
fn write_the_fixtures() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let mut version = None;
    for (name, kind, left) in FIXTURES {
        assert!(BackendKind::available().contains(&kind), "{kind} is not in this build");
        let dir = scratch.path().join(name);
        make(&dir, kind, left);
        let report = inspect_log(&ReadOnlyFileSystem, &dir.join("log"), None).expect("a log");
        version = report
            .segments
            .first()
            .and_then(|segment| segment.head)
            .map_or(version, |head| Some(head.version));
        tidy(&dir);
        check(&copy_of(&dir, scratch.path()), kind, left, name);
        fs::write(dir.join("README.md"), readme(kind, left, version)).expect("room");
        let to = root().join(format!("v{}", version.expect("the first one has segments")));
        assert!(!to.join(name).exists(), "{} is there: fixtures are kept", to.display());
        copy_dir(&dir, &to.join(name));
    }
}

fn make(dir: &Path, kind: BackendKind, left: Left) {
    let (steps, _, _) = workload();
    let batches_left = Arc::new(AtomicUsize::new(usize::MAX));
    let backend =
        Interrupting { inner: engine(kind, dir), batches_left: Arc::clone(&batches_left) };
    let (store, _) = open_over(Box::new(backend), dir).expect("opens");
    for (index, step) in steps.into_iter().enumerate() {
        if left == Left::Interrupted && index == HALF {
            store.checkpoint().expect("written back");
        }
        match step {
            Step::Block(block) => store.commit(block).map(drop),
            Step::Plain(batch) => store.apply(&batch),
        }
        .expect("committed");
    }
    match left {
        Left::Clean => store.shutdown().expect("closed"),
        Left::Interrupted => {
            batches_left.store(3, Ordering::Relaxed);
            store.checkpoint().expect_err("interrupted");
        }
        Left::Unclean => {
            drop(store);
            let names = fs::read_dir(dir.join("log")).expect("a log");
            let mut paths: Vec<PathBuf> =
                names.map(|entry| entry.expect("readable").path()).collect();
            paths.sort();
            let last = paths.iter().rfind(|path| path.extension().is_some_and(|e| e == "log"));
            let last = last.expect("a segment");
            let bytes = fs::read(last).expect("readable");
            fs::write(last, [&bytes[..], &TORN].concat()).expect("room");
        }
    }
}

fn readme(kind: BackendKind, left: Left, version: Option<u32>) -> String {
    let how = match left {
        Left::Unclean => {
            "committed in strict mode over an engine that keeps nothing, and dropped; then ten \
             bytes a5 were added to the last segment as a torn tail"
        }
        Left::Clean => "committed and shut down",
        Left::Interrupted => {
            "the first 25 checkpointed, all committed; a second checkpoint was made to fail after \
             three batches of at most eight operations"
        }
    };
    format!(
        "# Fixture: {left:?}, engine {kind}, format version {}\n\n\
         Made by `write_the_fixtures` in `storage/tests/fixtures.rs`, whose first lines have the \
         command.\nThe batches follow from the seed {SEED:#x}, {BATCHES} of them: {how}.\n\
         Left out: lock files, the engine's own text logs, empty directories. Never to be \
         regenerated: it shows that\nthis version still opens.\n",
        version.expect("known")
    )
}

/// Removes what carries nothing: locks, text logs, and directories that git does not keep.
fn tidy(dir: &Path) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("readable").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("UTF-8");
        if path.is_dir() {
            tidy(&path);
            // Fails if there is something in it.
            let _ = fs::remove_dir(&path);
        } else if name == "lock" || name == "LOCK" || name == "LOG" || name.starts_with("LOG.old") {
            fs::remove_file(&path).expect("removed");
        }
    }
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("room");
    for entry in fs::read_dir(from).expect("a directory") {
        let path = entry.expect("readable").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_dir(&path, &to);
        } else {
            fs::copy(&path, &to).expect("room");
        }
    }
}

fn copy_of(dir: &Path, scratch: &Path) -> PathBuf {
    let copy = scratch.join("copies").join(dir.file_name().expect("a name"));
    copy_dir(dir, &copy);
    copy
}

/// An engine that takes small batches, and from some moment on no more of them.
#[derive(Debug)]
struct Interrupting {
    inner: Box<dyn Database>,
    batches_left: Arc<AtomicUsize>,
}

impl Database for Interrupting {
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
        let take_one = |left: usize| left.checked_sub(1);
        let taken = self.batches_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_one);
        if taken.is_err() {
            // What was taken before is there after the interruption.
            self.inner.flush()?;
            return Err(Error::misuse("interrupted by the generator of fixtures"));
        }
        self.inner.apply(batch)
    }

    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }

    fn batch_ops_max(&self) -> usize {
        12
    }
}
