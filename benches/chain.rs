//! The first 4,522 blocks of the main chain into an empty chainstate, all scripts verified: accept,
//! connect, log, flush. Small blocks: this measures the cost of a block, not that of a byte.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cofferdam_benches::blocks;
use cofferdam_ibd::{AssumeValid, ChainParams, Chainstate, ChainstateOptions, Network, TREES};
use cofferdam_storage::{BackendKind, BackendOptions, StdFileSystem};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// 2026-01-01.
const NOW: u32 = 1_767_225_600;

fn open(kind: BackendKind, dir: &std::path::Path) -> Chainstate {
    let database = kind.open(&dir.join("db"), TREES, &BackendOptions::default()).expect("opens");
    let options = ChainstateOptions {
        threads: 2,
        assume_valid: AssumeValid::Off,
        ..ChainstateOptions::new(ChainParams::new(Network::Mainnet), dir)
    };
    Chainstate::open(options, Arc::new(StdFileSystem), database).expect("opens").0
}

fn import(criterion: &mut Criterion) {
    let blocks = blocks("mainnet/chain-0-4521.blkdat");
    let bytes: usize = blocks.iter().map(Vec::len).sum();
    let mut group = criterion.benchmark_group("chain");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(bytes as u64));
    for kind in BackendKind::available() {
        group.bench_function(BenchmarkId::new("import", kind), |bencher| {
            let fresh = || {
                let dir = tempfile::tempdir().expect("room");
                std::fs::create_dir_all(dir.path().join("db")).expect("room");
                (open(kind, dir.path()), dir, blocks.clone())
            };
            bencher.iter_batched(
                fresh,
                |(mut chainstate, dir, blocks)| {
                    for raw in blocks {
                        let _ = chainstate.accept_block(raw, NOW).expect("works");
                    }
                    let hour = Instant::now() + Duration::from_secs(3600);
                    assert!(chainstate.advance(hour).expect("works").done);
                    assert_eq!(chainstate.tip().height, 4521);
                    chainstate.shutdown().expect("closes");
                    dir
                },
                BatchSize::PerIteration,
            );
        });
    }
}

criterion_group!(benches, import);
criterion_main!(benches);
