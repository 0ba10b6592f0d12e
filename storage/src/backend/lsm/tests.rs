//! The engine on disks that fail: every crash, every failing call, every wrong bit; and against a
//! plain map.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::testing::{
    CallFault, CrashPoint, Effort, Limits, Model, Random, SimFileSystem, assert_same, conformance,
    effort,
};

const A: Tree = Tree { id: 1, name: "a" };
const B: Tree = Tree { id: 2, name: "b" };
const DIR: &str = "db";
const MERGED: &str = "merged.run";

fn open(fs: &SimFileSystem) -> Result<LsmDatabase> {
    LsmDatabase::open(Arc::new(fs.clone()), Path::new(DIR), &[A, B])
}

#[test]
fn the_contract_is_kept_on_a_simulated_disk() {
    conformance::run(&|| {
        let fs = Arc::new(SimFileSystem::new());
        Box::new(LsmDatabase::open(fs, Path::new(DIR), &conformance::TREES).unwrap())
    });
    let fs = Arc::new(SimFileSystem::new());
    conformance::run_persistent(&|| {
        let fs: Arc<SimFileSystem> = Arc::clone(&fs);
        Box::new(LsmDatabase::open(fs, Path::new(DIR), &conformance::TREES).unwrap())
    });
}

#[test]
fn power_cuts_take_no_flushed_batch_and_no_part_of_one() {
    let states = conformance::run_crash(&|fs| {
        Ok(Box::new(LsmDatabase::open(fs, Path::new(DIR), &conformance::TREES)?))
    });
    assert!(states > 100, "{states}");
}

/// A key among few, some of which share their first eight bytes.
fn key(random: &mut Random) -> Vec<u8> {
    let n = u8::try_from(random.below(60)).unwrap();
    match n % 3 {
        0 => vec![n],
        1 => [&b"the same front"[..], &[n]].concat(),
        _ => [[n; 32].as_slice(), &[0, 0, 0, n]].concat(),
    }
}

fn random_batch(random: &mut Random, ops: usize) -> Batch {
    let mut batch = Batch::new();
    for _ in 0..ops {
        let tree = if random.below(3) == 0 { B } else { A };
        let key = key(random);
        if random.below(3) == 0 {
            batch.delete(tree, &key);
        } else {
            let long = if random.below(40) == 0 { 5000 } else { 50 };
            let value = vec![u8::try_from(random.below(256)).unwrap(); random.below(long)];
            batch.put(tree, &key, &value);
        }
    }
    batch
}

/// The last operation of each key, in order.
fn sorted(batch: &Batch) -> Vec<Op<'_>> {
    let mut last = BTreeMap::new();
    for op in batch.ops() {
        last.insert((op.tree_id(), op.key()), op);
    }
    last.into_values().collect()
}

fn apply_sorted(database: &LsmDatabase, batch: &Batch) -> Result<()> {
    let ops = sorted(batch);
    assert!(database.apply_sorted(&mut ops.iter().map(|op| Ok(*op)), ops.len())?);
    Ok(())
}

#[test]
fn any_history_reads_as_a_plain_map() {
    for seed in 0..effort().pick(20, 200, 5000) {
        let mut random = Random::new(seed);
        let fs = SimFileSystem::new();
        let (mut database, mut model) = (open(&fs).unwrap(), Model::default());
        for step in 0..120 {
            let ops = 1 + random.below(40);
            let batch = random_batch(&mut random, ops);
            match random.below(12) {
                0..4 => {
                    database.apply(&batch).unwrap();
                    model.apply(&batch);
                }
                4..8 => {
                    apply_sorted(&database, &batch).unwrap();
                    model.apply(&batch);
                }
                8 => database.flush().unwrap(),
                9 => database.compact().unwrap(),
                10 if random.below(4) == 0 => {
                    database.clear(A).unwrap();
                    model = model.without(A.id);
                }
                _ => {
                    database.flush().unwrap();
                    drop(database);
                    database = open(&fs).unwrap();
                }
            }
            assert_same(&database, &model, &format!("seed {seed}, step {step}"));
            let keys: Vec<Vec<u8>> = (0..20).map(|_| key(&mut random)).collect();
            let refs: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            let found = database.multi_get(A, &refs).unwrap();
            let expected: Vec<_> = keys.iter().map(|key| model.get(A.id, key).cloned()).collect();
            assert_eq!(found, expected, "seed {seed}, step {step}");
        }
    }
}

/// What a history did, in steps; after each one the database is durably in that state.
fn history(fs: &SimFileSystem, steps: usize, mut after: impl FnMut(usize, &Model)) -> Result<()> {
    let mut random = Random::new(3);
    let database = open(fs)?;
    let mut model = Model::default();
    for step in 0..steps {
        let batch = random_batch(&mut random, 4);
        match step % 11 {
            3 | 6 => {
                apply_sorted(&database, &batch)?;
                model.apply(&batch);
            }
            10 => {
                database.clear(B)?;
                model = model.without(B.id);
            }
            _ => {
                database.apply(&batch)?;
                database.flush()?;
                model.apply(&batch);
            }
        }
        // The thread does this, too: whoever is first.
        database.compact()?;
        after(step, &model);
    }
    Ok(())
}

const STEPS: usize = 24;

/// Power is cut at every operation, merges and clearings included, and every subset of what was
/// not durable is left: the state is that after the step under way, or after the one before.
#[test]
fn every_crash_leaves_the_state_after_a_step() {
    let fs = SimFileSystem::new();
    let mut states = vec![Model::default()];
    open(&fs).unwrap();
    fs.record();
    history(&fs, STEPS, |step, model| {
        states.push(model.clone());
        fs.mark(u64::try_from(step + 1).unwrap());
    })
    .unwrap();
    let limits = Limits {
        exhaustive_units: effort().pick(4, 8, 12),
        sampled: effort().pick(4, 16, 64),
        torn_stride: effort().pick(97, 7, 1),
        torn_edge: 8,
    };
    let (mut points, mut done, mut checked) = (fs.recording().points(), 0, 0);
    while let Some(point) = points.advance() {
        if let CrashPoint::Mark(mark) = point {
            done = usize::try_from(mark).unwrap();
            continue;
        }
        for survival in points.survivals(&limits, true, points.ops()) {
            let label = format!("operation {}, {survival}", points.ops());
            let crashed = points.image(&survival);
            let database = open(&crashed).unwrap_or_else(|e| panic!("{label}: {}", e.chain()));
            let read = Model::read(&database).expect("readable");
            let next = (done + 1).min(STEPS);
            assert!(read == states[done] || read == states[next], "{label}: after step {done}");
            checked += 1;
        }
    }
    assert!(checked > 1000, "{checked}");
    println!("{checked} crash states of {} operations", points.ops());
}

/// Each call of each kind fails, once or for ever: the error is told, and what was there stays.
#[test]
fn a_failing_call_is_told_and_costs_nothing_that_was_durable() {
    let actions =
        ["create", "fsync", "rename", "sync directory", "write", "read", "open", "remove"];
    let mut told = 0;
    for action in actions {
        for forever in [false, true] {
            for nth in 0..effort().pick(12, 60, 200) {
                let fs = SimFileSystem::new();
                let mut states = vec![Model::default()];
                fs.inject_call(CallFault { action, after: nth, errno: Some(5), sticky: forever });
                let result = history(&fs, STEPS, |_, model| states.push(model.clone()));
                told += usize::from(result.is_err());
                let after = fs.after_crash(crate::testing::CrashModel::SyncedOnly, nth);
                let database = open(&after).unwrap();
                let read = Model::read(&database).expect("readable");
                let done = states.len() - 1;
                let mut next = Vec::new();
                let _ = history(&SimFileSystem::new(), STEPS, |_, model| next.push(model.clone()));
                let is_next = next.get(done).is_some_and(|next| *next == read);
                assert!(read == states[done] || is_next, "{action} {nth}: after step {done}");
            }
        }
    }
    assert!(told > 50, "{told}");
}

/// A database with one wrong bit answers right or not at all.
#[test]
fn a_wrong_bit_is_never_an_answer() {
    let fs = SimFileSystem::new();
    let mut model = Model::default();
    let database = open(&fs).unwrap();
    let mut random = Random::new(9);
    for _ in 0..2 {
        let batch = random_batch(&mut random, 12);
        apply_sorted(&database, &batch).unwrap();
        model.apply(&batch);
    }
    drop(database);
    let stride = effort().pick(7, 1, 1);
    let mut refused = 0;
    for name in fs.list(Path::new(DIR)).unwrap().into_iter().filter(|name| name != LOCK_NAME) {
        let path = Path::new(DIR).join(name);
        let bytes = fs.read(&path).unwrap();
        for bit in (0..bytes.len() * 8).step_by(stride) {
            let damaged = fs.copy();
            let mut wrong = bytes.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            damaged.plant(&path, &wrong);
            let read = open(&damaged).and_then(|database| Model::read(&database));
            match read {
                Ok(read) => assert_eq!(read, model, "{} bit {bit}", path.display()),
                Err(Error::Corrupt { .. }) => refused += 1,
                Err(error) => panic!("{} bit {bit}: {}", path.display(), error.chain()),
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn what_is_left_of_runs_that_do_not_count_is_removed_at_opening() {
    let fs = SimFileSystem::new();
    let batch = random_batch(&mut Random::new(1), 9);
    apply_sorted(&open(&fs).unwrap(), &batch).unwrap();
    fs.plant(&Path::new(DIR).join("00000077.run"), b"half a run");
    let before = fs.list(Path::new(DIR)).unwrap().len();
    let _database = open(&fs).unwrap();
    assert_eq!(fs.list(Path::new(DIR)).unwrap().len(), before - 1);
}

#[test]
fn a_missing_list_is_corruption_and_not_an_empty_database() {
    let fs = SimFileSystem::new();
    apply_sorted(&open(&fs).unwrap(), &random_batch(&mut Random::new(1), 9)).unwrap();
    fs.remove(&Path::new(DIR).join(manifest::NAME)).unwrap();
    assert!(matches!(open(&fs), Err(Error::Corrupt { .. })));
}

/// Writes so many runs of one size, for which a rule asks for a merge; returns what they hold.
fn write_runs(database: &LsmDatabase, count: usize) -> Model {
    let mut model = Model::default();
    for round in 0..count {
        let mut batch = Batch::new();
        for n in 0..30 {
            batch.put(A, &[n], &round.to_le_bytes());
        }
        apply_sorted(database, &batch).unwrap();
        model.apply(&batch);
    }
    model
}

fn count_runs(database: &LsmDatabase) -> usize {
    read(&database.store.state).runs.len()
}

/// Returns when the merging thread has made one run of all.
fn wait_for_one_run(database: &LsmDatabase) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while count_runs(database) > 1 {
        assert!(Instant::now() < deadline, "{} runs", count_runs(database));
        std::thread::yield_now();
    }
}

#[test]
fn nothing_is_merged_while_the_disk_has_no_room_for_it() {
    let fs = SimFileSystem::new();
    fs.set_free_bytes(Some(100));
    let database = open(&fs).unwrap();
    let model = write_runs(&database, 2 * compaction::WIDTH);
    database.compact().unwrap();
    assert_eq!(count_runs(&database), 2 * compaction::WIDTH);
    fs.set_free_bytes(Some(1 << 30));
    database.compact().unwrap();
    assert_eq!(count_runs(&database), 1);
    assert_same(&database, &model, "merged");
}

#[test]
fn what_sessions_before_left_unmerged_is_merged_after_opening() {
    let fs = SimFileSystem::new();
    fs.set_free_bytes(Some(0));
    let database = open(&fs).unwrap();
    let model = write_runs(&database, compaction::WIDTH);
    drop(database);
    fs.set_free_bytes(None);
    let database = open(&fs).unwrap();
    wait_for_one_run(&database);
    assert_same(&database, &model, "merged");
}

#[test]
fn a_merge_ends_before_the_disk_is_full() {
    let fs = SimFileSystem::new();
    let database = open(&fs).unwrap();
    let mut batch = Batch::new();
    for n in 0..5000_u32 {
        batch.put(A, &n.to_be_bytes(), b"v");
    }
    apply_sorted(&database, &batch).unwrap();
    fs.set_free_bytes(Some(999));
    let runs = Arc::clone(&read(&database.store.state).runs);
    let error = merged(&database, &runs, 1000).unwrap_err();
    assert!(matches!(error, Error::NoSpace { free_bytes: 999, .. }), "{}", error.chain());
    fs.remove(&Path::new(DIR).join(MERGED)).unwrap();
    fs.set_free_bytes(Some(1000));
    merged(&database, &runs, 1000).unwrap();
}

/// The merge of runs as far as its file.
fn merged(database: &LsmDatabase, inputs: &[Member], keep_bytes: u64) -> Result<Option<Run>> {
    let store = &database.store;
    let job = compaction::MergeJob {
        fs: &*store.fs,
        path: &Path::new(DIR).join(MERGED),
        number: 99,
        seed: store.seed,
        inputs,
        with_oldest: true,
        keep_bytes,
        stop: &store.wakeup.stop,
    };
    job.run()
}

#[test]
fn a_merge_that_met_a_full_disk_is_put_off_and_no_failure() {
    let path = Path::new(DIR);
    let full = Error::io("write", path, ErrorKind::StorageFull.into());
    assert_eq!(store::wanted_after(&full, 1000), Some(1001));
    let ended = Error::NoSpace { path: path.into(), free_bytes: 1, wanted_bytes: 5000 };
    assert_eq!(store::wanted_after(&ended, 1000), Some(5000));
    let broken = Error::io("write", path, ErrorKind::Other.into());
    assert_eq!(store::wanted_after(&broken, 1000), None);
}

#[test]
fn a_merge_changes_nothing_once_a_list_could_not_be_written() {
    let fs = SimFileSystem::new();
    let database = open(&fs).unwrap();
    let mut random = Random::new(4);
    for _ in 0..2 {
        apply_sorted(&database, &random_batch(&mut random, 9)).unwrap();
    }
    let runs = Arc::clone(&read(&database.store.state).runs);
    let run = merged(&database, &runs, 0).unwrap();
    fs.inject_call(CallFault { action: "rename", after: 0, errno: Some(5), sticky: false });
    apply_sorted(&database, &random_batch(&mut random, 9)).unwrap_err();
    let list = fs.read(&Path::new(DIR).join(manifest::NAME)).unwrap();
    let error = database.store.replace(0..2, &runs, run).unwrap_err();
    assert!(matches!(error, Error::Poisoned { .. }), "{}", error.chain());
    assert_eq!(fs.read(&Path::new(DIR).join(manifest::NAME)).unwrap(), list);
    assert!(runs.iter().all(|member| fs.exists(&member.run.path).unwrap()));
    assert!(!fs.exists(&Path::new(DIR).join(MERGED)).unwrap());
}

#[test]
fn what_a_clearing_makes_due_is_merged_without_another_write() {
    let database = open(&SimFileSystem::new()).unwrap();
    write_runs(&database, compaction::WIDTH / 2);
    // One that is not of their size: it keeps those before it and those after it apart.
    let mut batch = Batch::new();
    for n in 0..30 {
        batch.put(B, &[n], &[n; 1000]);
    }
    apply_sorted(&database, &batch).unwrap();
    let model = write_runs(&database, compaction::WIDTH / 2);
    assert_eq!(count_runs(&database), compaction::WIDTH + 1);
    database.clear(B).unwrap();
    wait_for_one_run(&database);
    assert_same(&database, &model, "merged");
}

#[test]
fn the_bytes_of_a_tree_that_was_cleared_are_told_from_the_others() {
    let fs = SimFileSystem::new();
    let database = open(&fs).unwrap();
    let mut batch = Batch::new();
    for n in 0..30 {
        batch.put(A, &[n], &[n]);
        batch.put(B, &[n], &[n; 1000]);
    }
    apply_sorted(&database, &batch).unwrap();
    let sizes = || compaction::sizes(&read(&database.store.state).runs);
    let before = sizes()[0];
    database.clear(B).unwrap();
    let after = sizes()[0];
    assert_eq!((before.hidden_bytes, before.puts), (0, 60));
    assert_eq!((after.bytes, after.puts), (before.bytes, 30));
    assert!((30_000..before.bytes - 60).contains(&after.hidden_bytes), "{after:?}");
}

#[test]
fn writes_end_with_the_name_of_a_run_that_cannot_be_merged_and_reads_go_on() {
    let fs = SimFileSystem::new();
    fs.set_free_bytes(Some(0));
    let database = open(&fs).unwrap();
    let model = write_runs(&database, compaction::WIDTH);
    let path = read(&database.store.state).runs[2].run.path.clone();
    drop(database);
    let mut bytes = fs.read(&path).unwrap();
    bytes[0] ^= 1;
    fs.plant(&path, &bytes);
    fs.set_free_bytes(None);
    let database = open(&fs).unwrap();
    // The thread has found it already, or does it now.
    database.compact().unwrap_err();
    let error = apply_sorted(&database, &random_batch(&mut Random::new(1), 9)).unwrap_err();
    assert!(matches!(error, Error::Poisoned { .. }), "{}", error.chain());
    let cause = format!("corrupt storage: {}: wrong checksum of a block", path.display());
    assert!(error.chain().contains(&cause), "{}", error.chain());
    // All keys are in the newest run.
    for n in 0..30 {
        assert_eq!(database.get(A, &[n]).unwrap().as_ref(), model.get(A.id, &[n]));
    }
}

#[test]
fn keys_that_do_not_ascend_are_refused_and_nothing_is_applied() {
    let database = open(&SimFileSystem::new()).unwrap();
    let ops = [b"b", b"a"].map(|key| Ok(Op::Put { tree_id: A.id, key, value: b"v" }));
    let error = database.apply_sorted(&mut ops.into_iter(), 2).unwrap_err();
    assert!(matches!(error, Error::Misuse { .. }), "{}", error.chain());
    assert_eq!(Model::read(&database).unwrap(), Model::default());
}

#[test]
fn many_batches_without_a_flush_do_not_stay_in_memory() {
    let database = open(&SimFileSystem::new()).unwrap();
    let value = vec![1; 1 << 20];
    for n in 0..70_u8 {
        let mut batch = Batch::new();
        batch.put(A, &[n], &value);
        database.apply(&batch).unwrap();
    }
    assert!(read(&database.store.state).pending_bytes <= store::PENDING_BYTES_MAX);
    assert!((0..70_u8).all(|n| database.get(A, &[n]).unwrap().is_some()));
    if effort() > Effort::Quick {
        database.compact().unwrap();
    }
}
