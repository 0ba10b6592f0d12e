//! Every call of every kind fails, once and for ever, with every error a file system knows, in
//! every mode, while the store runs and while it recovers: nothing is acknowledged and nothing is
//! written after it, reads go on, and once the disk is well again all that was promised is there.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{COINS, LOG_DIR, Store, Workload, block, open_all, options};
use crate::testing::{CallFault, CrashModel, Effort, SimFileSystem, effort};
use crate::{
    Batch, BlockBatch, Database, Durability, Error, FileSystem, LogWriter, Result, SegmentFiles,
    WalOptions,
};

/// Every kind of call, by the verb of its error.
const ACTIONS: [&str; 14] = [
    "create",
    "create directory",
    "fsync",
    "list",
    "lock",
    "look up",
    "open",
    "read",
    "remove",
    "rename",
    "resize",
    "stat",
    "sync directory",
    "write",
];

/// EIO, ENOSPC, EDQUOT, EROFS, EMFILE, EINTR as Linux numbers them.
const ERRNOS: [i32; 6] = [5, 28, 122, 30, 24, 4];

const MODELS: [CrashModel; 3] = [CrashModel::Kill, CrashModel::SyncedOnly, CrashModel::Subset];

const BATCHES: usize = 20;

/// The modes, with and without write-backs in the background.
fn modes() -> [WalOptions; 8] {
    let make = |mode, flush_every_blocks| WalOptions { flush_every_blocks, ..options(mode) };
    [
        make(Durability::Strict, None),
        make(Durability::Strict, Some(4)),
        make(Durability::Batched { blocks: 1, interval_ms: 1 }, Some(7)),
        make(Durability::Relaxed { interval_ms: 1 }, Some(5)),
        make(Durability::Relaxed { interval_ms: 3_600_000 }, None),
        make(Durability::Async, None),
        WalOptions {
            segment_files: SegmentFiles::Recycled,
            writer: LogWriter::Thread { bytes_min: 0 },
            compress_bytes_min: Some(50),
            ..make(Durability::Strict, None)
        },
        WalOptions {
            segment_files: SegmentFiles::Preallocated,
            ..make(Durability::Relaxed { interval_ms: 1 }, Some(5))
        },
    ]
}

/// How far a run got.
#[derive(Debug, Default)]
struct Reached {
    /// Batches whose commit was called.
    attempted: usize,
    /// Batches whose commit returned.
    acknowledged: usize,
    /// Batches that were reported to survive a power cut.
    durable: usize,
    error: Option<Error>,
}

impl Reached {
    /// How many batches must be there after a crash.
    fn promised(&self, mode: Durability, model: CrashModel) -> usize {
        // What was once reported durable is promised in every mode.
        let acknowledged = self.acknowledged.max(self.durable);
        match (mode, model) {
            (Durability::Strict | Durability::Batched { .. }, _)
            | (Durability::Relaxed { .. }, CrashModel::Kill) => acknowledged,
            _ => self.durable,
        }
    }
}

/// Commits, pairs of staged batches, syncs, checkpoints, a shutdown; until an error.
fn run(fs: &SimFileSystem, work: &Workload, options: &WalOptions) -> Reached {
    let mut reached = Reached::default();
    let (store, _, files) = match open_all(fs, options.clone()) {
        Ok(opened) => opened,
        Err(error) => return Reached { error: Some(error), ..reached },
    };
    let mut next = 0;
    while next < work.blocks.len() {
        let count = if next % 4 == 1 { 2.min(work.blocks.len() - next) } else { 1 };
        // A failure to append attached data is the caller's: the store has not seen it.
        let blocks =
            work.blocks[next..next + count].iter().map(|block| files.attach(block.clone()));
        let blocks: Vec<BlockBatch> = match blocks.collect() {
            Ok(blocks) => blocks,
            Err(error) => return Reached { error: Some(error), ..reached },
        };
        let done = advance(&store, blocks, &mut reached).and_then(|()| match next % 9 {
            4 => store.sync(),
            8 => store.checkpoint(),
            _ => Ok(()),
        });
        reached.durable = reached.durable.max(usize::try_from(store.durable_lsn()).unwrap());
        if let Err(error) = done {
            check_poisoned(fs, &store, work, &error);
            return Reached { error: Some(error), ..reached };
        }
        next += count;
    }
    match store.shutdown() {
        Ok(()) => reached.durable = work.blocks.len(),
        Err(error) => reached.error = Some(error),
    }
    reached
}

/// Commits one batch, or stages some and commits them one by one.
fn advance(store: &Store, blocks: Vec<BlockBatch>, reached: &mut Reached) -> Result<()> {
    let count = blocks.len();
    if let [block] = blocks.as_slice() {
        reached.attempted += 1;
        store.commit(block.clone())?;
        reached.acknowledged += 1;
        return Ok(());
    }
    blocks.into_iter().try_for_each(|block| store.stage(block))?;
    for _ in 0..count {
        reached.attempted += 1;
        store.commit_staged()?;
        reached.acknowledged += 1;
    }
    Ok(())
}

/// The newest segment and its size: what a log has that is written to no more.
fn log_end(fs: &SimFileSystem) -> Option<(String, usize)> {
    let fs = fs.copy();
    let names = fs.list(Path::new(LOG_DIR)).unwrap();
    let last = names.into_iter().filter(|name| name.starts_with("wal-")).max()?;
    let bytes = fs.read(&Path::new(LOG_DIR).join(&last)).unwrap().len();
    Some((last, bytes))
}

/// After a failure: everything that writes is refused, and reads go on.
fn check_poisoned(fs: &SimFileSystem, store: &Store, work: &Workload, error: &Error) {
    let end = log_end(fs);
    store.abort_staged();
    let lsn = store.stats().lsn;
    let next = block(store, &[], |batch| batch.put(COINS, b"after", b"failure"));
    let refused = [
        ("commit", store.commit(next.clone()).map(|_| ())),
        ("stage", store.stage(next)),
        ("apply", store.apply(&Batch::new())),
        ("sync", store.sync()),
        ("checkpoint", store.checkpoint()),
        ("clear", store.clear(COINS)),
    ];
    for (what, result) in refused {
        assert!(matches!(result, Err(Error::Poisoned { .. })), "{what} after {error:?}");
    }
    assert_eq!(log_end(fs), end, "the log was written after {error:?}");
    assert_eq!(store.stats().lsn, lsn, "committed after {error:?}");
    work.check(store, usize::try_from(lsn).unwrap(), "reads go on");
}

/// The disk is well again: opens what the process, or the power cut after it, has left.
fn check_healed(
    fs: &SimFileSystem,
    (work, options): (&Workload, &WalOptions),
    reached: &Reached,
    label: &str,
) {
    for model in MODELS {
        let after = fs.after_crash(model, 9);
        let promised = reached.promised(options.durability, model);
        let label = format!("{label}, {model:?}, {reached:?}");
        let opened = open_all(&after, options.clone());
        let (store, recovery, _) = opened.unwrap_or_else(|e| panic!("{label}: {}", e.chain()));
        let j = usize::try_from(recovery.to_lsn).unwrap();
        assert!((promised..=reached.attempted).contains(&j), "{label}: {j} of {promised}");
        work.check(&store, j, &label);
        if model == CrashModel::Kill {
            // What a failed fsync has dropped is still in the page cache, and looks durable.
            let cut = after.after_crash(CrashModel::SyncedOnly, 0);
            let opened = open_all(&cut, options.clone());
            let (store, recovery, _) =
                opened.unwrap_or_else(|e| panic!("{label}, then a power cut: {}", e.chain()));
            assert_eq!(usize::try_from(recovery.to_lsn).unwrap(), j, "{label}, then a power cut");
            work.check(&store, j, &label);
        }
    }
}

/// An error of the disk is not "corrupt", and says what was being done.
fn check_typed(error: Option<&Error>, fault: CallFault, label: &str) {
    match error {
        None | Some(Error::Io { .. } | Error::Poisoned { .. }) => {}
        Some(Error::Full { .. }) => {
            assert!([Some(28), Some(122)].contains(&fault.errno), "{label}: {error:?}");
        }
        Some(other) => panic!("{label}: {}", other.chain()),
    }
}

/// Every fault of a kind of call, in order of how many calls succeed before it, until there is no
/// such call any more. Returns the number of runs in which a call has failed.
fn every_fault(stride: usize, mut run: impl FnMut(CallFault) -> ControlFlow<()>) -> usize {
    let mut runs = 0;
    let errno_stride = if stride == 1 { 1 } else { 3 };
    for action in ACTIONS {
        for sticky in [false, true] {
            let short = (action == "write").then_some(None);
            let errnos = ERRNOS.map(Some).into_iter().chain(short);
            for (skip, errno) in errnos.enumerate().step_by(errno_stride) {
                for after in (0..).skip(skip % stride).step_by(stride) {
                    if run(CallFault { action, after, errno, sticky }).is_break() {
                        break;
                    }
                    runs += 1;
                }
            }
        }
    }
    runs
}

/// Fails calls of a run, every `stride`-th of each kind. Returns the number of runs, and of those
/// in which somebody got an error.
fn fail_runs(work: &Workload, options: &WalOptions, stride: usize) -> (usize, usize) {
    let mut noticed = 0;
    let runs = every_fault(stride, |fault| {
        let fs = SimFileSystem::new();
        fs.inject_call(fault);
        let reached = run(&fs, work, options);
        let label = format!("{:?}: {fault:?}", options.durability);
        check_typed(reached.error.as_ref(), fault, &label);
        noticed += usize::from(reached.error.is_some());
        check_healed(&fs, (work, options), &reached, &label);
        if fs.failed_calls() == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    (runs, noticed)
}

/// As `fail_runs`, but of the opening of what a crash at some part of the run has left.
fn fail_recoveries(
    (work, options): (&Workload, &WalOptions),
    (part, model): (u64, CrashModel),
    seed: u64,
    stride: usize,
) -> (usize, usize) {
    let whole = SimFileSystem::new();
    run(&whole, work, options);
    let crashed = SimFileSystem::new();
    crashed.crash_at(whole.ops() * part / 4 + seed);
    let mut reached = run(&crashed, work, options);
    let promised = reached.promised(options.durability, model);
    // From here on the weaker promise counts, whatever comes next.
    (reached.acknowledged, reached.durable) = (promised, reached.durable.min(promised));
    let mut noticed = 0;
    let runs = every_fault(stride, |fault| {
        let fs = crashed.after_crash(model, seed);
        fs.inject_call(fault);
        let label = format!("{:?} {model:?}: {fault:?}", options.durability);
        let error = open_all(&fs, options.clone()).err();
        check_typed(error.as_ref(), fault, &label);
        noticed += usize::from(error.is_some());
        check_healed(&fs, (work, options), &reached, &label);
        if fs.failed_calls() == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    (runs, noticed)
}

fn report((runs, noticed): (usize, usize), started: Instant) {
    println!("{runs} runs, {noticed} with an error, {:?}", started.elapsed());
    assert!(noticed * 10 > runs * 9, "only {noticed} of {runs} runs had an error");
}

fn add(sum: (usize, usize), more: (usize, usize)) -> (usize, usize) {
    (sum.0 + more.0, sum.1 + more.1)
}

#[test]
fn every_call_fails_while_the_store_runs() {
    let (started, work) = (Instant::now(), Workload::new(61, BATCHES));
    let stride = effort().pick(41, 1, 1);
    let runs = modes().into_iter().map(|options| fail_runs(&work, &options, stride));
    report(runs.fold((0, 0), add), started);
}

#[test]
fn every_call_fails_while_the_store_recovers() {
    let (started, work) = (Instant::now(), Workload::new(62, BATCHES));
    let stride = effort().pick(47, 1, 1);
    let both = effort() == Effort::Long;
    let mut sum = (0, 0);
    for (seed, options) in (0..).zip(modes()) {
        let crashes = [(2, CrashModel::Kill), (3, CrashModel::Subset)];
        for crash in crashes.into_iter().filter(|(part, _)| both || part % 2 == seed % 2) {
            sum = add(sum, fail_recoveries((&work, &options), crash, seed, stride));
        }
    }
    report(sum, started);
}

/// An fsync that failed once would succeed the second time, and what it dropped be lost: the power
/// goes as soon as one has failed, whatever was said of it.
fn fail_an_fsync_then_cut(work: &Workload) -> u64 {
    for after in 0.. {
        let fs = SimFileSystem::new();
        fs.inject_call(CallFault { action: "fsync", after, errno: Some(5), sticky: false });
        let Ok((store, _, files)) = open_all(&fs, options(Durability::Strict)) else { continue };
        let mut acknowledged = 0;
        for block in &work.blocks {
            let done = store.commit(files.attach(block.clone()).unwrap());
            acknowledged += usize::from(done.is_ok());
            if done.is_err() || fs.failed_calls() > 0 {
                break;
            }
        }
        if fs.failed_calls() == 0 {
            return after;
        }
        let cut = fs.after_crash(CrashModel::SyncedOnly, 0);
        let (_, recovery, _) = open_all(&cut, options(Durability::Strict)).unwrap();
        let found = usize::try_from(recovery.to_lsn).unwrap();
        assert!(found >= acknowledged, "fsync {after}: {found} of {acknowledged}");
    }
    unreachable!("the number of fsyncs is bounded")
}

#[test]
fn nothing_is_acknowledged_after_a_failed_fsync() {
    let fsyncs = fail_an_fsync_then_cut(&Workload::new(61, BATCHES));
    println!("{fsyncs} fsyncs");
    assert!(fsyncs > 40);
}

/// A sample of all this: panics if a promise is not kept.
pub(super) fn detect() {
    let work = Workload::new(61, BATCHES);
    let [strict, flushing, ..] = modes();
    fail_runs(&work, &strict, 53);
    fail_runs(&work, &flushing, 97);
    fail_recoveries((&work, &strict), (2, CrashModel::Kill), 0, 53);
    fail_an_fsync_then_cut(&work);
}

/// The log's writing thread may be behind when the fsync of the block files fails.
#[test]
fn nothing_is_written_once_a_failure_was_told() {
    let (fs, work) = (SimFileSystem::new(), Workload::new(63, BATCHES));
    let options =
        WalOptions { writer: LogWriter::Thread { bytes_min: 0 }, ..options(Durability::Strict) };
    let (store, _, files) = open_all(&fs, options).unwrap();
    let block = files.attach(work.blocks[0].clone()).unwrap();
    fs.slow_writes(Duration::from_millis(20));
    fs.inject_call(CallFault { action: "fsync", after: 0, errno: Some(5), sticky: false });
    let error = store.commit(block).unwrap_err();
    assert!(
        matches!(&error, Error::Io { path, .. } if path.ends_with("blk00000.dat")),
        "{error:?}"
    );
    let end = log_end(&fs);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(log_end(&fs), end, "the log was written after {error:?}");
    check_poisoned(&fs, &store, &work, &error);
}
