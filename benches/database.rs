//! Each backend on its own, with LevelDB's names for the workloads:
//!
//! - `fillseq`, `fillrandom`: 10,000 puts in batches of 1,000, in order and not, then a flush;
//! - `fillsync`: 20 batches of 10 puts, each with a flush;
//! - `readrandom`, `readmissing`: single reads among 10,000 keys, of keys that are there or not.

use cofferdam_benches::{TREE, batch, open, random_key, sequential_key};
use cofferdam_storage::{BackendKind, Database};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const KEYS: u64 = 10_000;
const BATCH: usize = 1_000;

fn fill(database: &dyn Database, key: fn(u64) -> [u8; 36]) {
    for start in (0..KEYS).step_by(BATCH) {
        database.apply(&batch(start..start + BATCH as u64, key)).expect("room");
    }
    database.flush().expect("a disk");
}

fn fills(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("database");
    group.sample_size(10);
    for kind in BackendKind::available() {
        for (name, key) in [("fillseq", sequential_key as fn(u64) -> _), ("fillrandom", random_key)]
        {
            group.throughput(Throughput::Elements(KEYS));
            group.bench_function(BenchmarkId::new(name, kind), |bencher| {
                let fresh = || {
                    let dir = tempfile::tempdir().expect("room");
                    (open(kind, dir.path()), dir)
                };
                bencher.iter_batched(
                    fresh,
                    |(database, dir)| {
                        fill(database.as_ref(), key);
                        (database, dir)
                    },
                    BatchSize::PerIteration,
                );
            });
        }
        group.throughput(Throughput::Elements(20));
        group.bench_function(BenchmarkId::new("fillsync", kind), |bencher| {
            let dir = tempfile::tempdir().expect("room");
            let database = open(kind, dir.path());
            let mut next = 0;
            bencher.iter(|| {
                for _ in 0..20 {
                    database.apply(&batch(next..next + 10, random_key)).expect("room");
                    database.flush().expect("a disk");
                    next += 10;
                }
            });
        });
    }
}

fn reads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("database");
    for kind in BackendKind::available() {
        let dir = tempfile::tempdir().expect("room");
        let database = open(kind, dir.path());
        fill(database.as_ref(), random_key);
        for (name, offset) in [("readrandom", 0), ("readmissing", KEYS)] {
            let mut n = 0;
            group.throughput(Throughput::Elements(1));
            group.bench_function(BenchmarkId::new(name, kind), |bencher| {
                bencher.iter(|| {
                    n = (n + 7_919) % KEYS;
                    let found = database.get(TREE, &random_key(n + offset)).expect("readable");
                    assert_eq!(found.is_some(), offset == 0);
                });
            });
        }
    }
}

criterion_group!(benches, fills, reads);
criterion_main!(benches);
