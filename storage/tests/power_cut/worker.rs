//! What a worker process does: write until the power goes, or check what is left.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::chain::{Chain, MARKS, TREES};
use crate::job::{Job, Mode, Role, Store};
use cofferdam_storage::testing::{Model, Random};
use cofferdam_storage::{
    BackendKind, BackendOptions, Batch, BlockBatch, Database, Durability, Error, LogWriter,
    NoAttachments, Recovery, SegmentFiles, StdFileSystem, WalBuffered, WalOptions,
};

/// Lines for the parent begin with this; all others are the test harness's.
pub(crate) const MARK: char = '@';
/// The most commits that wait for one fsync in batched mode.
pub(crate) const GROUP_MAX: usize = 4;
/// Small, so that the engine does not hide behind its cache.
const ENGINE: BackendOptions = BackendOptions { cache_bytes: 4 << 20 };

type Buffered = WalBuffered<Box<dyn Database>>;

pub(crate) fn work(job: &Job) {
    let chain = Chain { seed: job.chain_seed };
    match (job.role, job.store) {
        (Role::Write, Store::Buffered(kind)) => write_buffered(job, kind, chain),
        (Role::Write, Store::Bare(kind)) => write_bare(job, kind, chain),
        (Role::Write, Store::BareSledCrate) => write_sled_crate(job, chain),
        (Role::Check, Store::Buffered(kind)) => check_buffered(job, kind, chain),
        (Role::Check, Store::Bare(kind)) => check_bare(job, kind, chain),
        (Role::Check, Store::BareSledCrate) => check_bare(job, BackendKind::Sled, chain),
    }
}

/// Tells the parent; one write of less than a page, so a kill leaves no part of it.
fn say(what: &str, first: u64, second: u64) {
    println!("{MARK}{what} {first} {second}");
}

fn good<T>(result: Result<T, Error>) -> T {
    result.unwrap_or_else(|error| panic!("{}", error.chain()))
}

/// Options under which much happens in a few milliseconds. Some differ from run to run, so that a
/// directory outlives changes of them.
fn options(mode: Mode, random: &mut Random) -> WalOptions {
    let durability = match mode {
        Mode::Strict => Durability::Strict,
        Mode::Batched => Durability::Batched { blocks: 4, interval_ms: 2 },
        Mode::Relaxed => Durability::Relaxed { interval_ms: 5 },
        Mode::Async => Durability::Async,
    };
    let files = [SegmentFiles::Growing, SegmentFiles::Preallocated, SegmentFiles::Recycled];
    let writers = [LogWriter::Direct, LogWriter::Thread { bytes_min: 0 }, LogWriter::Mapped];
    WalOptions {
        durability,
        memtable_bytes: [64 << 10, 256 << 10, 64 << 20][random.below(3)],
        flush_every_blocks: Some([3, 15, 60][random.below(3)]),
        segment_bytes: [6_000, 40_000, 1 << 20][random.below(3)],
        segment_files: files[random.below(files.len())],
        writer: writers[random.below(writers.len())],
        compress_bytes_min: [None, Some(100)][random.below(2)],
        verify_freshness: true,
        ..WalOptions::default()
    }
}

fn engine_dir(job: &Job) -> PathBuf {
    job.dir.join("engine")
}

fn open_buffered(job: &Job, kind: BackendKind, random: &mut Random) -> (Buffered, Recovery) {
    let backend = good(kind.open(&engine_dir(job), &TREES, &ENGINE));
    let (options, fs) = (options(job.mode, random), Arc::new(StdFileSystem));
    let log = job.dir.join("log");
    good(WalBuffered::open(options, fs, &log, backend, Arc::new(NoAttachments)))
}

fn write_buffered(job: &Job, kind: BackendKind, chain: Chain) {
    let mut random = Random::new(job.run_seed);
    loop {
        let (store, recovery) = open_buffered(job, kind, &mut random);
        let mut number = recovery.to_lsn;
        say("opened", number, number);
        loop {
            number = commit_group(&store, job.mode, chain, number, &mut random);
            match random.below(200) {
                0 => good(store.checkpoint()),
                1..=3 => good(store.sync()),
                4 => break,
                5..=60 => pause(&mut random),
                _ => continue,
            }
            say("ack", number, store.durable_lsn());
        }
        good(store.shutdown());
        say("ack", number, number);
    }
}

fn pause(random: &mut Random) {
    let micros = u64::try_from(random.below(2_000)).expect("small");
    thread::sleep(Duration::from_micros(micros));
}

/// Commits the batches after `number`: one, or as many as wait together in batched mode.
fn commit_group(
    store: &Buffered,
    mode: Mode,
    chain: Chain,
    number: u64,
    random: &mut Random,
) -> u64 {
    let count = if mode == Mode::Batched { 1 + random.below(GROUP_MAX) } else { 1 };
    let mut last = number;
    for _ in 0..count {
        let prev_hash = chain.tip(last).map_or([0; 32], |tip| tip.hash);
        last += 1;
        let (tip, batch) = (chain.tip(last).expect("not the first"), chain.batch(last));
        good(store.stage(BlockBatch { tip, prev_hash, batch }));
    }
    let commit = || {
        let lsn = good(store.commit_staged());
        let all = matches!(mode, Mode::Strict | Mode::Batched);
        say("ack", lsn, if all { lsn } else { store.durable_lsn() });
    };
    if count == 1 {
        commit();
    } else {
        // Each caller waits for its promise, so there has to be one a batch.
        thread::scope(|scope| (0..count).for_each(|_| drop(scope.spawn(commit))));
    }
    last
}

fn check_buffered(job: &Job, kind: BackendKind, chain: Chain) {
    let (store, recovery) = open_buffered(job, kind, &mut Random::new(job.run_seed));
    let lsn = recovery.to_lsn;
    assert_eq!((store.stats().lsn, store.durable_lsn()), (lsn, lsn));
    assert_eq!(store.tip(), chain.tip(lsn));
    compare(&store, &chain.state(1..=lsn));
    say("state", lsn, lsn);
}

/// Iteration gives just the model's rows, and `get` the same ones.
fn compare(database: &dyn Database, model: &Model) {
    let read = good(Model::read(database));
    for tree in TREES {
        let (rows, wanted) = (read.keys(tree.id).count(), model.keys(tree.id).count());
        assert_eq!(rows, wanted, "rows of {}", tree.name);
        for key in model.keys(tree.id).step_by(5) {
            let value = good(database.get(tree, key));
            assert!(value.as_ref() == model.get(tree.id, key), "{}: get {key:02x?}", tree.name);
        }
    }
    assert!(read == *model, "a row differs");
}

fn write_bare(job: &Job, kind: BackendKind, chain: Chain) {
    let database = good(kind.open(&engine_dir(job), &TREES, &ENGINE));
    let marks = good(marks(&*database));
    let apply = |batch: &Batch| good(database.apply(batch));
    write_engine(job, chain, marks.last().copied(), &apply, &|| good(database.flush()));
}

/// Writes as the backend does, and flushes as the crate's documentation says.
fn write_sled_crate(job: &Job, chain: Chain) {
    let config = sled::Config::new().path(engine_dir(job)).flush_every_ms(None);
    let database = config.open().expect("sled opens");
    let last = database.scan_prefix([MARKS.id]).keys().next_back();
    let last = last.map(|key| number_of(&key.expect("sled reads")[1..]));
    let apply = |batch: &Batch| {
        let mut writes = sled::Batch::default();
        for op in batch.ops() {
            let key = [&[op.tree_id()], op.key()].concat();
            match op.value() {
                Some(value) => writes.insert(key, value),
                None => writes.remove(key),
            }
        }
        database.apply_batch(writes).expect("sled writes");
    };
    let flush = || {
        database.flush().expect("sled flushes");
    };
    write_engine(job, chain, last, &apply, &flush);
}

fn write_engine(
    job: &Job,
    chain: Chain,
    last: Option<u64>,
    apply: &dyn Fn(&Batch),
    flush: &dyn Fn(),
) {
    let mut random = Random::new(job.run_seed);
    let mut number = last.unwrap_or(0);
    let mut promised = number;
    say("opened", number, promised);
    loop {
        number += 1;
        apply(&chain.batch(number));
        if random.one_in(4) {
            flush();
            promised = number;
        }
        say("ack", number, promised);
        if random.one_in(4) {
            pause(&mut random);
        }
    }
}

fn number_of(mark: &[u8]) -> u64 {
    u64::from_be_bytes(mark.try_into().expect("a mark is a number"))
}

/// The numbers of the batches that are there.
fn marks(database: &dyn Database) -> Result<Vec<u64>, Error> {
    let entries = database.range(MARKS, cofferdam_storage::KeyRange::all())?;
    entries.map(|entry| Ok(number_of(&entry?.0))).collect()
}

/// Any set of batches may be there, each of them whole; the parent knows which ones must be.
fn check_bare(job: &Job, kind: BackendKind, chain: Chain) {
    let database = good(kind.open(&engine_dir(job), &TREES, &ENGINE));
    let marks = good(marks(&*database));
    compare(&*database, &chain.state(marks.iter().copied()));
    let unbroken = (1..).zip(&marks).take_while(|(number, mark)| number == *mark).count();
    let unbroken = u64::try_from(unbroken).expect("small");
    say("state", unbroken, marks.last().copied().unwrap_or(0));
}
