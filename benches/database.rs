//! Each backend bare and buffered, with LevelDB's names for the workloads:
//!
//! - `fillseq`, `fillrandom`: 10,000 puts in batches of 1,000, in order and not, then durable;
//! - `fillsync`: 20 batches of 10 puts, each durable before the next;
//! - `readrandom`, `readmissing`: single reads among 10,000 keys, of keys that are there or not;
//! - `readhot`: single reads of 100 keys among these;
//! - `open`: of 10,000 keys after a shutdown.
//!
//! *Buffered* is below a `WalBuffered`: durable is then what the log holds, and reads find the
//! keys in memory, but those that are missing are looked for in the engine too.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cofferdam_benches::{TREE, batch, open, random_key, sequential_key};
use cofferdam_storage::{
    BackendKind, Database, Durability, NoAttachments, StdFileSystem, WalBuffered, WalOptions,
};
use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};

const KEYS: u64 = 10_000;
const HOT_KEYS: u64 = 100;
const BATCH: usize = 1_000;

/// What is measured: an engine with or without a buffer.
#[derive(Debug, Clone, Copy)]
struct Subject {
    kind: BackendKind,
    buffered: bool,
}

enum Store {
    Bare(Box<dyn Database>),
    Buffered(WalBuffered<Box<dyn Database>>),
}

impl Subject {
    fn all() -> impl Iterator<Item = Self> {
        let of = |kind| [false, true].map(|buffered| Self { kind, buffered });
        BackendKind::available().into_iter().flat_map(of)
    }

    fn id(self, workload: &str) -> BenchmarkId {
        let buffered = if self.buffered { "-buffered" } else { "" };
        BenchmarkId::new(workload, format!("{}{buffered}", self.kind))
    }

    fn open(self, dir: &Path, durability: Durability) -> Store {
        let path = dir.join("db");
        std::fs::create_dir_all(&path).expect("room");
        let database = open(self.kind, &path);
        if !self.buffered {
            return Store::Bare(database);
        }
        let options = WalOptions { durability, ..WalOptions::default() };
        let (fs, none) = (Arc::new(StdFileSystem), Arc::new(NoAttachments));
        let opened = WalBuffered::open(options, fs, &dir.join("log"), database, none);
        Store::Buffered(opened.expect("opens").0)
    }
}

impl Store {
    fn database(&self) -> &dyn Database {
        match self {
            Self::Bare(database) => database.as_ref(),
            Self::Buffered(store) => store,
        }
    }

    /// Returns when all that was applied survives a power cut.
    fn make_durable(&self) {
        match self {
            Self::Bare(database) => database.flush(),
            Self::Buffered(store) => store.sync(),
        }
        .expect("a disk");
    }

    fn fill(&self, key: fn(u64) -> [u8; 36]) {
        for start in (0..KEYS).step_by(BATCH) {
            self.database().apply(&batch(start..start + BATCH as u64, key)).expect("room");
        }
        self.make_durable();
    }
}

fn group(criterion: &mut Criterion) -> BenchmarkGroup<'_, WallTime> {
    let mut group = criterion.benchmark_group("database");
    group.sample_size(10);
    group.warm_up_time(Duration::from_millis(500));
    group.measurement_time(Duration::from_secs(2));
    group
}

fn fills(criterion: &mut Criterion) {
    let mut group = group(criterion);
    for subject in Subject::all() {
        for (name, key) in [("fillseq", sequential_key as fn(u64) -> _), ("fillrandom", random_key)]
        {
            group.throughput(Throughput::Elements(KEYS));
            group.bench_function(subject.id(name), |bencher| {
                let fresh = || {
                    let dir = tempfile::tempdir().expect("room");
                    (subject.open(dir.path(), Durability::default()), dir)
                };
                let fill = |(store, dir): (Store, tempfile::TempDir)| {
                    store.fill(key);
                    (store, dir)
                };
                bencher.iter_batched(fresh, fill, BatchSize::PerIteration);
            });
        }
        group.throughput(Throughput::Elements(20));
        group.bench_function(subject.id("fillsync"), |bencher| {
            let dir = tempfile::tempdir().expect("room");
            let store = subject.open(dir.path(), Durability::Strict);
            let mut next = 0;
            bencher.iter(|| {
                for _ in 0..20 {
                    store.database().apply(&batch(next..next + 10, random_key)).expect("room");
                    store.make_durable();
                    next += 10;
                }
            });
        });
    }
}

fn reads(criterion: &mut Criterion) {
    let mut group = group(criterion);
    for subject in Subject::all() {
        let dir = tempfile::tempdir().expect("room");
        let store = subject.open(dir.path(), Durability::default());
        store.fill(random_key);
        for (name, first, count) in
            [("readrandom", 0, KEYS), ("readmissing", KEYS, KEYS), ("readhot", 0, HOT_KEYS)]
        {
            let mut n = 0;
            group.throughput(Throughput::Elements(1));
            group.bench_function(subject.id(name), |bencher| {
                bencher.iter(|| {
                    n = (n + 7_919) % count;
                    let found = store.database().get(TREE, &random_key(n + first));
                    assert_eq!(found.expect("readable").is_some(), first == 0);
                });
            });
        }
    }
}

fn opens(criterion: &mut Criterion) {
    let mut group = group(criterion);
    // What is in memory is gone after a shutdown.
    for subject in Subject::all().filter(|subject| subject.kind != BackendKind::Memory) {
        let dir = tempfile::tempdir().expect("room");
        let open = || subject.open(dir.path(), Durability::default());
        let close = |store| match store {
            Store::Bare(database) => database.flush().expect("a disk"),
            Store::Buffered(store) => store.shutdown().expect("closes"),
        };
        let store = open();
        store.fill(random_key);
        close(store);
        group.throughput(Throughput::Elements(1));
        group.bench_function(subject.id("open"), |bencher| {
            bencher.iter_custom(|count| {
                let one = || {
                    let started = std::time::Instant::now();
                    let store = open();
                    let time = started.elapsed();
                    close(store);
                    time
                };
                (0..count).map(|_| one()).sum()
            });
        });
    }
}

criterion_group!(benches, fills, reads, opens);
criterion_main!(benches);
