//! The load of initial block download on the buffered store: 36-byte keys, coins that die young,
//! block batches of main chain shape. Prints a Markdown table a part, with the aim of each figure.
//!
//! `cargo bench -p cofferdam-benches --bench utxo_load -- [write] [log] [flush] [recovery] [reads]`
//! runs the parts named, or all. `COFFERDAM_BENCH_BLOCKS` (600) and `COFFERDAM_BENCH_ROUNDS` (5)
//! set the scale. The part `profile` writes into a sink over and over, for a profiler: what is to
//! be looked at runs in the thread `writer`.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cofferdam_benches::coin_load::{CoinLoad, Key};
use cofferdam_benches::null::{NullFileSystem, SinkDatabase};
use cofferdam_benches::report::{
    Sample, Spent, Table, alternate, from_env, per_second, ratios, words,
};
use cofferdam_benches::{TREE, open};
use cofferdam_storage::testing::Random;
use cofferdam_storage::{
    BackendKind, BlockBatch, Database, Durability, FileSystem, LogWriter, NoAttachments, Recovery,
    SegmentFiles, Stats, StdFileSystem, WalBuffered, WalOptions,
};

const SEED: u64 = 1;
/// Small enough for several write-backs in a load that the default would hold whole.
const FLUSHING_MEMTABLE_BYTES: usize = 64 << 20;
/// Holds any load of this size.
const ROOMY_MEMTABLE_BYTES: usize = 2 << 30;
/// How long reads are counted.
const READ_TIME: Duration = Duration::from_millis(400);
/// Keys in a `multi_get`.
const MULTI: usize = 256;

type Store = WalBuffered<Box<dyn Database>>;

/// The engine below the buffer; none is a sink.
type Below = Option<BackendKind>;

const ROCKSDB: Below = Some(BackendKind::Rocksdb);

/// Measures and prints; the number is that of rounds.
type Part = fn(&CoinLoad, usize);

/// How a block is written.
#[derive(Debug, Clone, Copy)]
enum How {
    Commit,
    Stage,
}

fn main() {
    let rounds = from_env("COFFERDAM_BENCH_ROUNDS", 5);
    let load = CoinLoad::generate(SEED, from_env("COFFERDAM_BENCH_BLOCKS", 600));
    println!(
        "{} blocks, {} operations, {} MB of batches, seed {SEED}; {rounds} rounds\n",
        load.blocks.len(),
        load.ops,
        load.bytes / 1_000_000
    );
    let wanted = words();
    let parts: [(&str, Part); 6] = [
        ("write", write),
        ("log", log),
        ("flush", flush),
        ("recovery", recovery),
        ("reads", reads),
        ("profile", profile),
    ];
    for (name, part) in parts {
        let asked = wanted.iter().any(|word| word == name);
        if asked || wanted.is_empty() && name != "profile" {
            println!("### {name}\n");
            part(&load, rounds);
            println!();
        }
    }
}

/// Operations a second into the buffer.
fn write(load: &CoinLoad, rounds: usize) {
    let variants = [
        ("sink, `commit`", None, How::Commit),
        ("sink, `stage` and `commit_staged`", None, How::Stage),
        ("RocksDB flushing, `commit`", ROCKSDB, How::Commit),
        ("RocksDB flushing, `stage` and `commit_staged`", ROCKSDB, How::Stage),
    ];
    let spent = alternate(rounds, &variants, |(_, kind, how)| {
        let bytes = if kind.is_some() { FLUSHING_MEMTABLE_BYTES } else { ROOMY_MEMTABLE_BYTES };
        let home = Home::new(*kind, options(Durability::default(), bytes));
        let store = home.open(Arc::new(StdFileSystem)).0;
        run(&store, load.blocks.clone(), *how)
    });
    let columns = ["relaxed log on disk, below it", "M ops/s", "spread", "aim", "CPU ns/op"];
    let mut table = Table::new(&columns);
    for ((name, ..), spent) in variants.iter().zip(spent) {
        let rate = Sample::new(spent.iter().map(|spent| load.ops as f64 / spent.wall).collect());
        let own = Sample::new(spent.iter().map(|spent| spent.processor).collect());
        table.row([
            (*name).to_owned(),
            format!("{:.2}", rate.median() / 1e6),
            rate.spread(1e-6, 2),
            ">= 1.5".to_owned(),
            format!("{:.0}", own.median() / load.ops as f64 * 1e9),
        ]);
    }
    println!("{table}");
    println!("CPU is that of the writer's thread.");
}

/// What the log costs: the file system by leaving it out, encoding and checksums on their own.
fn log(load: &CoinLoad, rounds: usize) {
    let encode = || {
        let (mut buffer, mut sum) = (Vec::new(), crc32fast::Hasher::new());
        for block in &load.blocks {
            buffer.clear();
            buffer.extend_from_slice(block.batch.as_bytes());
            sum.update(&buffer);
        }
        std::hint::black_box(sum.finalize());
    };
    let log = |null: bool, durability, writer, segment_files| {
        let options = options(durability, ROOMY_MEMTABLE_BYTES);
        let home = Home::new(None, WalOptions { writer, segment_files, ..options });
        let fs: Arc<dyn FileSystem> =
            if null { Arc::new(NullFileSystem) } else { Arc::new(StdFileSystem) };
        let store = home.open(fs).0;
        run(&store, load.blocks.clone(), How::Commit)
    };
    let relaxed = Durability::default();
    let (direct, growing) = (LogWriter::Direct, SegmentFiles::Growing);
    let preallocated = SegmentFiles::Preallocated;
    let variants: [(&str, &dyn Fn() -> Spent, &str); 7] = [
        ("copying and CRC alone", &|| Spent::on(encode).1, ""),
        ("a file system that writes nothing", &|| log(true, relaxed, direct, growing), ""),
        ("relaxed, on disk", &|| log(false, relaxed, direct, growing), "<= 15 %"),
        (
            "the same, writer thread",
            &|| log(false, relaxed, LogWriter::Thread { bytes_min: 0 }, growing),
            "",
        ),
        (
            "the same, writer thread, preallocated",
            &|| log(false, relaxed, LogWriter::Thread { bytes_min: 0 }, preallocated),
            "",
        ),
        ("the same, mapped", &|| log(false, relaxed, LogWriter::Mapped, preallocated), ""),
        ("async, on disk", &|| log(false, Durability::Async, direct, growing), ""),
    ];
    let spent = alternate(rounds, &variants, |(_, measure, _)| measure());
    let [encoding, null, ..] = spent.as_slice() else { unreachable!("a sample a variant") };
    let mut table =
        Table::new(&["log", "time by the clock", "spread", "aim", "CPU time", "spread"]);
    for ((name, _, aim), spent) in variants.iter().zip(&spent).skip(1) {
        let [(clock, clock_spread), (processor, processor_spread)] =
            [|spent: &Spent| spent.wall, |spent: &Spent| spent.processor].map(|of| {
                // Per cent of the time without any log.
                let costs =
                    spent.iter().zip(null).zip(encoding).map(|((spent, null), encoding)| {
                        let bare = of(null) - of(encoding);
                        (of(spent) - bare) / bare
                    });
                let costs = Sample::new(costs.collect());
                (format!("+{:.1} %", costs.median() * 100.0), costs.spread(100.0, 1))
            });
        let (name, aim) = ((*name).to_owned(), (*aim).to_owned());
        table.row([name, clock, clock_spread, aim, processor, processor_spread]);
    }
    println!("{table}");
    println!(
        "In addition to a store without a log, which is taken to be the one on a file system that\n\
         writes nothing, less copying and CRC of the same bytes. CPU is that of the writer's thread."
    );
}

/// How much slower the writer is while a generation is written back.
fn flush(load: &CoinLoad, rounds: usize) {
    let (mut paired, mut within, mut share, mut waits) = (vec![], vec![], vec![], vec![]);
    let mut last = Stats::default();
    for _ in 0..rounds {
        // The same generations end at the same blocks in both.
        let [sink, rocks] = [None, ROCKSDB].map(|kind| {
            let options = options(Durability::default(), FLUSHING_MEMTABLE_BYTES);
            let home = Home::new(kind, options);
            let store = home.open(Arc::new(StdFileSystem)).0;
            let blocks = run_watching_flushes(&store, load.blocks.clone());
            last = store.stats();
            blocks
        });
        // Seconds in the run and in that with a sink, and operations, of blocks in one situation.
        let sum = |wanted: During| {
            let both = rocks.iter().zip(&sink).filter(|(block, _)| block.during == wanted);
            both.fold((0.0, 0.0, 0.0), |(time, in_sink, ops), (block, other)| {
                (time + block.seconds, in_sink + other.seconds, ops + block.ops)
            })
        };
        let (flushing, in_sink, flushing_ops) = sum(During::Flush);
        let (quiet, _, quiet_ops) = sum(During::Quiet);
        let (waiting, ..) = sum(During::Wait);
        paired.push(flushing / in_sink - 1.0);
        within.push((flushing / flushing_ops) / (quiet / quiet_ops) - 1.0);
        share.push(flushing / (flushing + quiet + waiting));
        waits.push(waiting / (flushing + quiet + waiting));
    }
    let mut table = Table::new(&["RocksDB, 64 MiB of memory", "figure", "spread", "aim"]);
    for (name, values, aim) in [
        ("more time while flushing than for the same blocks with a sink below", paired, "<= 20 %"),
        ("more time an operation while flushing than between flushes", within, "<= 20 %"),
        ("part of the time in which a flush was running", share, ""),
        ("part of the time in commits that waited for a flush", waits, ""),
    ] {
        let sample = Sample::new(values);
        let median = format!("{:.1} %", sample.median() * 100.0);
        table.row([name.to_owned(), median, sample.spread(100.0, 1), aim.to_owned()]);
    }
    let counts = format!("{}, {}", last.flushes, last.back_pressure_waits);
    let name = "flushes, commits that waited for one (last round)".to_owned();
    table.row([name, counts, String::new(), String::new()]);
    println!("{table}");
}

/// Replay after a kill, and opening after a shutdown.
fn recovery(load: &CoinLoad, rounds: usize) {
    let kinds = [None, ROCKSDB];
    let mut table = Table::new(&["opening", "figure", "spread", "aim", "a CPU second"]);
    for kind in kinds {
        let (mut replay, mut own, mut clean, mut bytes) = (vec![], vec![], vec![], 0);
        for _ in 0..rounds.min(3) {
            let home = Home::new(kind, options(Durability::default(), ROOMY_MEMTABLE_BYTES));
            let store = home.open(Arc::new(StdFileSystem)).0;
            run(&store, load.blocks.clone(), How::Commit);
            drop(store);
            let (store, found, time) = home.open(Arc::new(StdFileSystem));
            assert_eq!(found.records, load.blocks.len() as u64, "nothing was flushed before");
            bytes = found.bytes;
            replay.push(found.bytes as f64 / time.wall / 1e6);
            own.push(found.bytes as f64 / time.processor / 1e6);
            store.shutdown().expect("closes");
            if kind.is_some() {
                let (_, found, time) = home.open(Arc::new(StdFileSystem));
                assert!(found.clean);
                clean.push(time.wall * 1e3);
            }
        }
        let replay = Sample::new(replay);
        let kind = kind.map_or("sink", BackendKind::name);
        let name = format!("{kind}: replay of {} MB after a kill", bytes / 1_000_000);
        let figure = format!("{:.0} MB/s", replay.median());
        let own = format!("{:.0} MB", Sample::new(own).median());
        table.row([name, figure, replay.spread(1.0, 0), ">= 100 MB/s".to_owned(), own]);
        if !clean.is_empty() {
            let clean = Sample::new(clean);
            let figure = format!("{:.1} ms", clean.median());
            let name = format!("{kind}: after a shutdown");
            table.row([name, figure, clean.spread(1.0, 1), "< 100 ms".to_owned(), String::new()]);
        }
    }
    println!("{table}");
    println!("Engine and log are opened; the log is in the page cache, as after a kill.");
}

/// Reads of buffered keys on one and two threads, alone and beside a writer.
fn reads(load: &CoinLoad, rounds: usize) {
    let half = load.blocks.len() / 2;
    let mut table = Table::new(&[
        "reads of buffered keys",
        "one thread",
        "two threads",
        "ratio",
        "spread",
        "aim",
    ]);
    for (name, multi) in [("`get`", false), ("`multi_get` of 256", true)] {
        for writing in [false, true] {
            let mut written = Vec::new();
            let samples = alternate(rounds, &[1, 2], |threads| {
                let home = Home::new(None, options(Durability::default(), ROOMY_MEMTABLE_BYTES));
                let store = home.open(Arc::new(StdFileSystem)).0;
                let mut blocks = load.blocks.clone();
                let rest = blocks.split_off(half);
                run(&store, blocks, How::Commit);
                // Coins of the first half that are alive at the end are buffered all the time.
                let keys = found_keys(&store, &load.alive);
                let (reads, ops) =
                    read_beside(&store, &keys, (*threads, multi), writing.then_some(rest));
                written.push(ops);
                reads
            });
            let [one, two] = samples.as_slice() else { unreachable!("a sample a variant") };
            let ratio = ratios(two, one);
            let rate =
                |values: &[f64]| format!("{:.2} M/s", Sample::new(values.to_vec()).median() / 1e6);
            let written = Sample::new(written).median() / 1e6;
            let beside =
                if writing { format!(", a writer at {written:.2} M ops/s") } else { String::new() };
            table.row([
                format!("{name}{beside}"),
                rate(one),
                rate(two),
                format!("{:.2}", ratio.median()),
                ratio.spread(1.0, 2),
                if writing { String::new() } else { ">= 1.7".to_owned() },
            ]);
        }
    }
    println!("{table}");
}

/// For a profiler.
fn profile(load: &CoinLoad, rounds: usize) {
    let how = if words().iter().any(|word| word == "stage") { How::Stage } else { How::Commit };
    for _ in 0..rounds {
        let home = Home::new(None, options(Durability::default(), ROOMY_MEMTABLE_BYTES));
        let store = home.open(Arc::new(StdFileSystem)).0;
        let blocks = load.blocks.clone();
        let time = thread::scope(|scope| {
            let writer = thread::Builder::new().name("writer".to_owned());
            let writer = writer.spawn_scoped(scope, || run(&store, blocks, how));
            writer.expect("a thread").join().expect("no panic")
        });
        println!("{:.2} M ops/s", load.ops as f64 / time.wall / 1e6);
    }
}

/// Directories of a store that is opened several times.
struct Home {
    kind: Below,
    options: WalOptions,
    dir: tempfile::TempDir,
}

impl Home {
    fn new(kind: Below, options: WalOptions) -> Self {
        Self { kind, options, dir: tempfile::tempdir().expect("room") }
    }

    /// Opens engine and log; says how long it took.
    fn open(&self, fs: Arc<dyn FileSystem>) -> (Store, Recovery, Spent) {
        let path = self.dir.path();
        let open = || {
            let backend = self.backend(path);
            WalBuffered::open(
                self.options.clone(),
                fs,
                &path.join("log"),
                backend,
                Arc::new(NoAttachments),
            )
            .expect("opens")
        };
        let ((store, recovery), spent) = Spent::on(open);
        (store, recovery, spent)
    }

    fn backend(&self, path: &Path) -> Box<dyn Database> {
        match self.kind {
            None => Box::new(SinkDatabase),
            Some(kind) => {
                let path = path.join("db");
                std::fs::create_dir_all(&path).expect("room");
                open(kind, &path)
            }
        }
    }
}

fn options(durability: Durability, memtable_bytes: usize) -> WalOptions {
    WalOptions { durability, memtable_bytes, ..WalOptions::default() }
}

/// Writes all blocks; a write-back that is still running then is not waited for.
fn run(store: &Store, blocks: Vec<BlockBatch>, how: How) -> Spent {
    let write = |block| match how {
        How::Commit => {
            store.commit(block).expect("room");
        }
        How::Stage => {
            store.stage(block).expect("follows");
            store.commit_staged().expect("room");
        }
    };
    Spent::on(|| blocks.into_iter().for_each(write)).1
}

/// What went on while a block was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum During {
    Quiet,
    Flush,
    /// Memory was used up: the commit waited for a flush.
    Wait,
}

struct Watched {
    seconds: f64,
    ops: f64,
    during: During,
}

fn run_watching_flushes(store: &Store, blocks: Vec<BlockBatch>) -> Vec<Watched> {
    let mut waits = 0;
    let commit = |block: BlockBatch| {
        let ops = block.batch.len() as f64;
        let started = Instant::now();
        store.commit(block).expect("room");
        let seconds = started.elapsed().as_secs_f64();
        let stats = store.stats();
        let waited = stats.back_pressure_waits > waits;
        waits = stats.back_pressure_waits;
        let during = match stats.frozen_bytes {
            _ if waited => During::Wait,
            0 => During::Quiet,
            _ => During::Flush,
        };
        Watched { seconds, ops, during }
    };
    blocks.into_iter().map(commit).collect()
}

fn found_keys(store: &Store, keys: &[Key]) -> Vec<Key> {
    let present = |key: &&Key| store.get(TREE, *key).expect("readable").is_some();
    keys.iter().filter(present).copied().collect()
}

/// Keys read a second by `threads` together, and operations a second of the writer beside them.
fn read_beside(
    store: &Store,
    keys: &[Key],
    (threads, multi): (usize, bool),
    blocks: Option<Vec<BlockBatch>>,
) -> (f64, f64) {
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let (stop, count) = (&stop, &count);
    let started = Instant::now();
    let written = thread::scope(|scope| {
        for number in 0..threads as u64 {
            scope.spawn(move || {
                let read = read_until(stop, (store, keys), (number, multi));
                count.fetch_add(read, Ordering::Relaxed);
            });
        }
        let mut ops = 0;
        for block in blocks.into_iter().flatten() {
            if started.elapsed() >= READ_TIME {
                break;
            }
            ops += block.batch.len() as u64;
            store.commit(block).expect("room");
        }
        let written = per_second(ops, started.elapsed());
        thread::sleep(READ_TIME.saturating_sub(started.elapsed()));
        stop.store(true, Ordering::Relaxed);
        written
    });
    (per_second(count.load(Ordering::Relaxed), started.elapsed()), written)
}

/// Reads random keys until it is told to stop; returns how many.
fn read_until(
    stop: &AtomicBool,
    (store, keys): (&Store, &[Key]),
    (seed, multi): (u64, bool),
) -> u64 {
    let mut random = Random::new(seed);
    let mut read = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut chosen: Vec<&[u8]> =
            (0..MULTI).filter_map(|_| keys.get(random.below(keys.len()))).map(|k| &k[..]).collect();
        if multi {
            chosen.sort_unstable();
            let values = store.multi_get(TREE, &chosen).expect("readable");
            assert_eq!(values.len(), chosen.len());
        } else {
            for key in chosen {
                std::hint::black_box(store.get(TREE, key).expect("readable"));
            }
        }
        read += MULTI as u64;
    }
    read
}
