//! A crash at every operation, in every model, loses nothing that was promised and leaves no
//! state in between; also a crash within the recovery from a crash.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Workload, open_all, options};
use crate::testing::{CrashModel, Random, SimFileSystem};
use crate::{Durability, WalOptions};

/// The models, each with a number of seeds.
const MODELS: [(CrashModel, u64); 4] = [
    (CrashModel::Kill, 1),
    (CrashModel::SyncedOnly, 1),
    (CrashModel::Prefix, 2),
    (CrashModel::Subset, 3),
];

/// How far a run got before its crash.
#[derive(Debug, Clone, Copy, Default)]
struct Reached {
    /// Batches whose commit was called.
    attempted: usize,
    /// Batches whose commit returned.
    acknowledged: usize,
    /// Batches that were reported to survive a power cut.
    durable: usize,
}

impl Reached {
    /// How many batches must be there after a crash.
    fn promised(&self, mode: Durability, model: CrashModel) -> usize {
        match (mode, model) {
            (Durability::Strict | Durability::Batched { .. }, _) => self.acknowledged,
            (Durability::Relaxed { .. }, CrashModel::Kill) => self.acknowledged,
            _ => self.durable,
        }
    }
}

/// Runs the workload from batch `from` on until it is done or the machine crashes: commits, pairs
/// of staged batches, staged batches taken back, checkpoints, syncs, and a shutdown at the end.
fn run(fs: &SimFileSystem, work: &Workload, options: &WalOptions, from: usize) -> Reached {
    let mut reached = Reached { attempted: from, acknowledged: from, durable: from };
    let Ok((store, recovery, files)) = open_all(fs, options.clone()) else {
        return reached;
    };
    assert_eq!(usize::try_from(recovery.to_lsn).unwrap(), from);
    let strict = options.durability == Durability::Strict;
    let mut next = from;
    while next < work.blocks.len() {
        let count = if next % 5 == 1 { 2.min(work.blocks.len() - next) } else { 1 };
        for block in &work.blocks[next..next + count] {
            let Ok(block) = files.attach(block.clone()) else {
                return reached;
            };
            if store.stage(block).is_err() {
                return reached;
            }
        }
        if next % 7 == 3 {
            assert_eq!(store.abort_staged(), count);
            work.check(&store, next, "after taking back");
            for block in &work.blocks[next..next + count] {
                let Ok(block) = files.attach(block.clone()) else {
                    return reached;
                };
                if store.stage(block).is_err() {
                    return reached;
                }
            }
        }
        for _ in 0..count {
            reached.attempted += 1;
            if store.commit_staged().is_err() {
                return reached;
            }
            reached.acknowledged += 1;
            let durable = usize::try_from(store.durable_lsn()).unwrap();
            assert!(!strict || durable == reached.acknowledged);
            reached.durable = reached.durable.max(durable);
        }
        next += count;
        let done = match next % 11 {
            4 => store.sync(),
            9 => store.checkpoint(),
            _ => Ok(()),
        };
        if done.is_err() {
            return reached;
        }
        reached.durable = reached.durable.max(usize::try_from(store.durable_lsn()).unwrap());
    }
    if store.shutdown().is_ok() {
        reached.durable = work.blocks.len();
    }
    reached
}

/// Opens what a crash has left, checks it, and runs the rest of the workload.
fn check_after(
    fs: &SimFileSystem,
    work: &Workload,
    options: &WalOptions,
    (reached, promised): (Reached, usize),
    label: &str,
) {
    let from = {
        let (store, recovery, _) =
            open_all(fs, options.clone()).unwrap_or_else(|e| panic!("{label}: {}", e.chain()));
        let from = usize::try_from(recovery.to_lsn).unwrap();
        assert!(from >= promised, "{label}: {from} batches of {promised} promised, {reached:?}");
        assert!(from <= reached.attempted, "{label}: {from} batches, {reached:?}");
        work.check(&store, from, label);
        assert_eq!(store.durable_lsn(), recovery.to_lsn, "{label}");
        // What has been opened is durable: a power cut right now takes nothing.
        let cut = fs.after_crash(CrashModel::SyncedOnly, 0);
        let opened = open_all(&cut, options.clone());
        let (again, second, _) = opened.unwrap_or_else(|e| panic!("{label}: {}", e.chain()));
        assert_eq!(second.to_lsn, recovery.to_lsn, "{label}: a power cut after opening");
        work.check(&again, from, label);
        from
    };
    run(fs, work, options, from);
    let (store, recovery, _) = open_all(fs, options.clone()).unwrap();
    assert!(recovery.clean && recovery.records == 0, "{label}: {recovery:?}");
    work.check(&store, work.blocks.len(), &format!("{label}: continued"));
}

/// Crashes at every `stride`-th operation. Returns the number of states checked.
fn crash_everywhere(seed: u64, options: &WalOptions, stride: usize) -> usize {
    let work = Workload::new(seed, 30);
    let whole = SimFileSystem::new();
    run(&whole, &work, options, 0);
    let ops = whole.ops();
    assert!(ops > 100, "the workload has only {ops} operations");
    let states = AtomicUsize::new(0);
    for op in (0..ops).step_by(stride) {
        let fs = SimFileSystem::new();
        fs.crash_at(op);
        let reached = run(&fs, &work, options, 0);
        for (model, seeds) in MODELS {
            for seed in 0..seeds {
                let after = fs.after_crash(model, op * 100 + seed);
                let promised = reached.promised(options.durability, model);
                let label = format!("{:?} op {op} {model:?} {seed}", options.durability);
                check_after(&after, &work, options, (reached, promised), &label);
                states.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    states.into_inner()
}

fn small(durability: Durability, flush_every_blocks: Option<u32>) -> WalOptions {
    WalOptions { flush_every_blocks, ..options(durability) }
}

#[test]
fn strict_keeps_every_acknowledged_batch() {
    let states = crash_everywhere(1, &small(Durability::Strict, None), 1);
    println!("{states} crash states");
}

#[test]
fn strict_with_a_flush_in_the_background() {
    let states = crash_everywhere(2, &small(Durability::Strict, Some(4)), 2);
    println!("{states} crash states");
}

#[test]
fn asynchronous_keeps_what_it_reported_durable() {
    let states = crash_everywhere(3, &small(Durability::Async, None), 1);
    println!("{states} crash states");
}

#[test]
fn relaxed_keeps_everything_through_a_kill() {
    let mode = Durability::Relaxed { interval_ms: 1 };
    let states = crash_everywhere(4, &small(mode, Some(6)), 2);
    println!("{states} crash states");
}

#[test]
fn batched_keeps_every_acknowledged_batch() {
    let mode = Durability::Batched { blocks: 1, interval_ms: 1 };
    let states = crash_everywhere(5, &small(mode, Some(6)), 5);
    println!("{states} crash states");
}

#[test]
fn replay_that_has_to_write_back_is_safe_too() {
    let tiny = WalOptions { memtable_bytes: 1, ..small(Durability::Strict, None) };
    let states = crash_everywhere(6, &tiny, 7);
    println!("{states} crash states");
}

/// Crashes, then crashes at every operation of the opening, then opens.
#[test]
fn a_crash_within_recovery_changes_nothing() {
    let mut random = Random::new(77);
    let mut states = 0;
    for (round, durability) in
        [Durability::Strict, Durability::Async, Durability::Relaxed { interval_ms: 1 }]
            .into_iter()
            .cycle()
            .take(30)
            .enumerate()
    {
        let seed = random.next();
        let work = Workload::new(seed, 20);
        let flush_every = random.one_in(2).then_some(3);
        let budget = if random.one_in(3) { 1 } else { 1 << 20 };
        let options = WalOptions { memtable_bytes: budget, ..small(durability, flush_every) };
        let whole = SimFileSystem::new();
        run(&whole, &work, &options, 0);
        let fs = SimFileSystem::new();
        fs.crash_at(random.next() % whole.ops());
        let reached = run(&fs, &work, &options, 0);
        let (model, _) = MODELS[random.below(MODELS.len())];
        let image_seed = random.next();
        for op in 0.. {
            let second = fs.after_crash(model, image_seed);
            second.crash_at(op);
            drop(open_all(&second, options.clone()));
            let (again, _) = MODELS[random.below(MODELS.len())];
            // What the weaker of both crashes leaves.
            let promised =
                reached.promised(durability, model).min(reached.promised(durability, again));
            let third = second.after_crash(again, random.next());
            let label = format!("round {round} {model:?}, then op {op} of recovery {again:?}");
            check_after(&third, &work, &options, (reached, promised), &label);
            states += 1;
            if !second.has_crashed() {
                break;
            }
        }
    }
    println!("{states} crash states");
}
