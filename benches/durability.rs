//! What each durability mode costs: commits a second, latencies, fsyncs.
//!
//! Loads: one thread that commits block batches of main chain shape; one thread, and eight, that
//! apply plain batches of 20 operations. Each runs for `COFFERDAM_BENCH_MS` (1,500) milliseconds
//! on a new store over a sink.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use cofferdam_benches::coin_load::CoinLoad;
use cofferdam_benches::counting::CountingFileSystem;
use cofferdam_benches::null::SinkDatabase;
use cofferdam_benches::report::{Sample, Table, from_env};
use cofferdam_benches::{batch, random_key};
use cofferdam_storage::{Database, Durability, NoAttachments, WalBuffered, WalOptions};

const MODES: [(&str, Durability); 4] = [
    ("strict", Durability::Strict),
    ("batched, 8 or 5 ms", Durability::Batched { blocks: 8, interval_ms: 5 }),
    ("relaxed, 100 ms", Durability::Relaxed { interval_ms: 100 }),
    ("async", Durability::Async),
];
const OPS: u64 = 20;
/// More blocks than are committed in the time, or nearly.
const BLOCKS: usize = 1_000;

type Store = WalBuffered<SinkDatabase>;

fn main() {
    let millis = from_env("COFFERDAM_BENCH_MS", 1_500);
    let time = Duration::from_millis(u64::try_from(millis).expect("a short time"));
    let load = CoinLoad::generate(1, BLOCKS);
    let blocks = format!("1 thread, blocks of {} KB", load.bytes / load.blocks.len() as u64 / 1000);
    let mut table = Table::new(&[
        "mode and load",
        "commits/s",
        "p50 ms",
        "p99 ms",
        "max ms",
        "fsyncs",
        "commits an fsync",
    ]);
    for (mode, durability) in MODES {
        let mut row = |load: &str, run: &dyn Fn(&Store) -> Vec<f64>| {
            let dir = tempfile::tempdir().expect("room");
            let fs = CountingFileSystem::default();
            let options =
                WalOptions { durability, memtable_bytes: 2 << 30, ..WalOptions::default() };
            let (log, none) = (Arc::new(fs.clone()), Arc::new(NoAttachments));
            let opened = WalBuffered::open(options, log, dir.path(), SinkDatabase, none);
            let (store, _) = opened.expect("opens");
            let (before, started) = (fs.syncs(), Instant::now());
            let latencies = run(&store);
            let (syncs, elapsed) = (fs.syncs() - before, started.elapsed());
            let commits = latencies.len() as f64;
            let latency = Sample::new(latencies);
            let ms = |q: f64| format!("{:.3}", latency.quantile(q) * 1e3);
            let an_fsync = commits / syncs as f64;
            table.row([
                format!("{mode}: {load}"),
                format!("{:.0}", commits / elapsed.as_secs_f64()),
                ms(0.5),
                ms(0.99),
                ms(1.0),
                format!("{syncs}"),
                if syncs == 0 { String::new() } else { format!("{an_fsync:.1}") },
            ]);
        };
        row(&blocks, &|store| commit_blocks(store, &load, time));
        row("1 thread, 20 operations", &|store| apply(store, 0, time));
        row("8 threads, 20 operations", &|store| {
            thread::scope(|scope| {
                let threads: Vec<_> =
                    (0..8).map(|number| scope.spawn(move || apply(store, number, time))).collect();
                threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
            })
        });
    }
    println!("{table}");
}

/// The seconds of each commit.
fn commit_blocks(store: &Store, load: &CoinLoad, time: Duration) -> Vec<f64> {
    let end = Instant::now() + time;
    let commit = |block| {
        let started = Instant::now();
        store.commit(block).expect("room");
        started.elapsed().as_secs_f64()
    };
    load.blocks.iter().take_while(|_| Instant::now() < end).cloned().map(commit).collect()
}

/// The seconds of each commit.
fn apply(store: &Store, number: u64, time: Duration) -> Vec<f64> {
    let end = Instant::now() + time;
    let commit = |n: u64| {
        let first = (number << 40) + n * OPS;
        let batch = batch(first..first + OPS, random_key);
        let started = Instant::now();
        store.apply(&batch).expect("room");
        started.elapsed().as_secs_f64()
    };
    (0..).take_while(|_| Instant::now() < end).map(commit).collect()
}
