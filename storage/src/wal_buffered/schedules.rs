//! The group commit under every schedule: threads are interleaved at each lock, wait and file
//! operation, at random and by priorities (`--cfg shuttle`, a step of `scripts/test`).
//!
//! A thread that waits for ever is found too: no wait but that of the fsync thread ends by itself
//! (see `crate::lock::wait_polling`).

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner};

use crate::backend::MemoryDatabase;
use crate::batch::Batch;
use crate::database::{Database, Tree};
use crate::error::{Error, Result};
use crate::lock::lock;
use crate::sync::{Mutex, thread};
use crate::testing::{CrashModel, Fault, SimFileSystem, effort};
use crate::wal::{Evidence, Opening, Place, open_log};
use crate::wal_buffered::{
    BlockBatch, Durability, Lsn, NoAttachments, Tip, WalBuffered, WalOptions,
};

const TREE: Tree = Tree { id: 1, name: "a" };
const COMMITTERS: u8 = 3;
const COMMITS: u8 = 2;

/// Another one walks through other schedules.
const SEED: u64 = 7;

type Store = WalBuffered<Arc<MemoryDatabase>>;

const BATCHED: Durability = Durability::Batched { blocks: 2, interval_ms: 5 };
const RELAXED: Durability = Durability::Relaxed { interval_ms: 5 };

/// Runs a scenario under many schedules. A failure prints the schedule, which `shuttle::replay`
/// takes.
fn explore(scenario: fn()) {
    let schedules = effort().pick(1000, 3000, 200_000);
    run(RandomScheduler::new_from_seed(SEED, schedules), scenario);
    run(PctScheduler::new_from_seed(SEED, 3, schedules / 2), scenario);
}

fn run(scheduler: impl Scheduler + 'static, scenario: fn()) {
    let mut config = Config::new();
    // Segment headers are built on the stack, a page each.
    config.stack_size = 1 << 18;
    Runner::new(scheduler, config).run(scenario);
}

/// A store on a simulated disk, and what its threads have seen.
struct Bench {
    fs: SimFileSystem,
    backend: Arc<MemoryDatabase>,
    store: Store,
    /// What was acknowledged and promised to survive a power cut.
    promised: Mutex<Vec<[u8; 2]>>,
}

impl Bench {
    fn new(options: WalOptions) -> Self {
        let fs = SimFileSystem::new();
        let backend = Arc::new(MemoryDatabase::new(&[TREE]));
        let store = open(&fs, &backend, options).expect("an empty disk");
        Self { fs, backend, store, promised: Mutex::new(Vec::new()) }
    }

    fn mode(durability: Durability) -> Self {
        Self::new(WalOptions { durability, ..WalOptions::default() })
    }

    fn commit(&self, key: [u8; 2]) -> Result<()> {
        let mut batch = Batch::new();
        batch.put(TREE, &key, b"");
        self.store.apply(&batch)
    }

    /// Commits what is promised when it returns; a power cut right then must leave it.
    fn commit_promised(&self, key: [u8; 2]) -> Result<()> {
        self.commit(key)?;
        assert!(self.logged().1.contains(&key), "{key:?} was acknowledged before it was durable");
        lock(&self.promised).push(key);
        Ok(())
    }

    /// One of several committers; ends at the first failure, which must be the end for it.
    fn committer(&self, committer: u8) {
        for number in 0..COMMITS {
            if self.commit_promised([committer, number]).is_err() {
                let next = self.commit([committer, number + 100]);
                assert!(matches!(next, Err(Error::Poisoned { .. })), "{next:?}");
                return;
            }
        }
    }

    /// The last record, and the keys, that a power cut now would leave in the log.
    fn logged(&self) -> (Lsn, Vec<[u8; 2]>) {
        let fs = Arc::new(self.fs.after_crash(CrashModel::SyncedOnly, 0));
        let dir = Path::new("log").to_path_buf();
        let place = Place::new(fs, dir, &WalOptions::default()).expect("no thread to start");
        let (evidence, attachments) = (Evidence::default(), &NoAttachments);
        let opening = Opening { place: &place, evidence, attachments, hook: None };
        let mut keys = Vec::new();
        let opened = open_log(opening, &mut |_, payload| {
            let ops = payload.as_change().batch().ops();
            keys.extend(ops.filter_map(|op| <[u8; 2]>::try_from(op.key()).ok()));
            Ok(())
        });
        (opened.unwrap_or_else(|e| panic!("a power cut: {}", e.chain())).end, keys)
    }

    /// What is durable only grows, and a power cut leaves it.
    fn watch(&self) {
        let mut seen = 0;
        for _ in 0..3 {
            let durable = self.store.durable_lsn();
            assert!(durable >= seen, "durable went back from {seen} to {durable}");
            seen = durable;
            assert!(self.logged().0 >= durable, "{durable} was reported durable");
        }
    }

    /// Cuts the power, after all threads have ended, and looks for all that was promised.
    fn check_after_power_cut(self) {
        let Self { fs, backend, store, promised } = self;
        let durable = store.durable_lsn();
        // Joins the threads, and so finds those that do not end.
        drop(store);
        let cut = fs.after_crash(CrashModel::SyncedOnly, 0);
        let store = open(&cut, &backend, WalOptions::default()).expect("a power cut");
        assert!(store.stats().lsn >= durable);
        for key in lock(&promised).iter() {
            assert!(store.contains_key(TREE, key).expect("readable"), "{key:?} is lost");
        }
    }
}

fn open(fs: &SimFileSystem, backend: &Arc<MemoryDatabase>, options: WalOptions) -> Result<Store> {
    let (fs, backend) = (Arc::new(fs.clone()), Arc::clone(backend));
    let log = Path::new("log");
    WalBuffered::open(options, fs, log, backend, Arc::new(NoAttachments)).map(|(store, _)| store)
}

/// Threads that do the same, by number, and another one. The thread that waits for them must not
/// wait for anything else, says shuttle.
fn in_threads(each: impl Fn(u8) + Send + Sync, other: impl FnOnce() + Send) {
    let each = &each;
    thread::scope(|scope| {
        for committer in 0..COMMITTERS {
            scope.spawn(move || each(committer));
        }
        scope.spawn(other);
    });
}

fn commits_are_durable_when_acknowledged(mode: Durability) {
    let bench = Bench::mode(mode);
    in_threads(|committer| bench.committer(committer), || bench.watch());
    assert_eq!(lock(&bench.promised).len(), usize::from(COMMITTERS * COMMITS));
    bench.check_after_power_cut();
}

#[test]
fn strict_commits_are_durable_when_acknowledged() {
    explore(|| commits_are_durable_when_acknowledged(Durability::Strict));
}

#[test]
fn batched_commits_are_durable_when_acknowledged() {
    explore(|| commits_are_durable_when_acknowledged(BATCHED));
}

/// Some fsync fails, or write, or naming of a segment.
fn nothing_is_acknowledged_after_a_failure(mode: Durability) {
    let bench = Bench::mode(mode);
    let at = bench.fs.ops() + thread_rng().gen_range(0..14);
    bench.fs.inject(Fault { at, kind: ErrorKind::Other, sticky: false });
    let sync = || {
        if bench.store.sync().is_err() {
            let after = bench.store.sync();
            assert!(matches!(after, Err(Error::Poisoned { .. })), "{after:?}");
        }
    };
    in_threads(|committer| bench.committer(committer), sync);
    if bench.fs.ops() > at {
        assert!(bench.commit([99, 99]).is_err(), "the failure was forgotten");
    }
    bench.check_after_power_cut();
}

#[test]
fn after_a_failure_no_strict_commit_is_acknowledged() {
    explore(|| nothing_is_acknowledged_after_a_failure(Durability::Strict));
}

#[test]
fn after_a_failure_no_batched_commit_is_acknowledged() {
    explore(|| nothing_is_acknowledged_after_a_failure(BATCHED));
}

/// In modes that promise less, what was committed before a `sync` began is durable after it.
#[test]
fn sync_covers_every_commit_before_it() {
    explore(|| {
        let mode = if thread_rng().gen_bool(0.5) { RELAXED } else { Durability::Async };
        let bench = Bench::mode(mode);
        let commit_and_sync = |committer| {
            bench.commit([committer, 0]).expect("a commit");
            bench.store.sync().expect("a sync");
            assert!(bench.logged().1.contains(&[committer, 0]), "sync did not cover it");
            lock(&bench.promised).push([committer, 0]);
            bench.commit([committer, 1]).expect("a commit");
        };
        in_threads(commit_and_sync, || bench.watch());
        bench.check_after_power_cut();
    });
}

/// A record may become durable before its commit has noted it as pending.
#[test]
fn the_durable_tip_is_that_of_the_durable_batch() {
    explore(|| {
        let bench = Bench::mode(RELAXED);
        let commit_or_sync = |committer| {
            if committer > 0 {
                return bench.store.sync().expect("a sync");
            }
            for height in 0..2 {
                let prev_hash = bench.store.tip().map_or([0; 32], |tip| tip.hash);
                let tip = Tip { height, hash: [7; 32] };
                let block = BlockBatch { tip, prev_hash, batch: Batch::new() };
                bench.store.commit(block).expect("a commit");
            }
        };
        in_threads(commit_or_sync, || bench.watch());
        bench.store.sync().expect("a sync");
        assert_eq!(bench.store.durable_lsn(), 2);
        assert_eq!(bench.store.durable_tip(), bench.store.tip(), "the tip stayed behind");
        bench.check_after_power_cut();
    });
}

/// A relaxed commit becomes durable without anybody asking.
#[test]
fn the_fsync_thread_finds_what_nobody_syncs() {
    explore(|| {
        let bench = Bench::mode(RELAXED);
        in_threads(|committer| bench.commit([committer, 0]).expect("a commit"), || {});
        while bench.store.durable_lsn() < Lsn::from(COMMITTERS) {
            thread::yield_now();
        }
        assert_eq!(bench.logged().0, Lsn::from(COMMITTERS));
        bench.check_after_power_cut();
    });
}

/// Modes change while commits wait. Nobody waits for ever, and the last word is strict.
#[test]
fn modes_change_under_waiting_commits() {
    explore(|| {
        let bench = Bench::mode(BATCHED);
        let commit = |committer| {
            for number in 0..COMMITS {
                bench.commit([committer, number]).expect("a commit");
            }
        };
        let change = || {
            for _ in 0..3 {
                let modes = [Durability::Strict, BATCHED, RELAXED, Durability::Async];
                bench.store.set_durability(modes[thread_rng().gen_range(0..modes.len())]);
            }
            bench.store.set_durability(Durability::Strict);
            bench.commit_promised([50, 50]).expect("a commit");
        };
        in_threads(commit, change);
        // What was committed in weaker modes is swept up.
        let all = Lsn::from(COMMITTERS * COMMITS) + 1;
        while bench.store.durable_lsn() < all {
            thread::yield_now();
        }
        bench.check_after_power_cut();
    });
}

/// Generations are written back, segments rolled and removed, checkpoints taken meanwhile.
#[test]
fn flushes_and_checkpoints_lose_nothing() {
    explore(|| {
        let durability = if thread_rng().gen_bool(0.5) { Durability::Strict } else { BATCHED };
        let bench = Bench::new(WalOptions {
            durability,
            flush_every_blocks: Some(2),
            segment_bytes: 4096 + 60,
            ..WalOptions::default()
        });
        let commit = |committer| {
            for number in 0..COMMITS {
                bench.commit([committer, number]).expect("a commit");
                lock(&bench.promised).push([committer, number]);
            }
        };
        in_threads(commit, || bench.store.checkpoint().expect("a checkpoint"));
        bench.check_after_power_cut();
    });
}

/// As above, with a failure somewhere: whoever waits for a write-back is told.
#[test]
fn a_failure_ends_every_wait() {
    explore(|| {
        let bench = Bench::new(WalOptions {
            durability: BATCHED,
            flush_every_blocks: Some(2),
            memtable_bytes: 1,
            segment_bytes: 4096 + 60,
            ..WalOptions::default()
        });
        let at = bench.fs.ops() + thread_rng().gen_range(0..24);
        bench.fs.inject(Fault { at, kind: ErrorKind::Other, sticky: false });
        let commit = |committer| {
            for number in 0..COMMITS {
                if bench.commit([committer, number]).is_err() {
                    return;
                }
                lock(&bench.promised).push([committer, number]);
            }
        };
        in_threads(commit, || drop(bench.store.checkpoint()));
        bench.check_after_power_cut();
    });
}
