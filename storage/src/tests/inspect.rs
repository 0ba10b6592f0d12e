//! Looking at a log says of every damage what opening it would say, and changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{LOG_DIR, Workload, commit, open_log_only, open_over, options};
use crate::testing::{CrashModel, SimDatabase, SimFileSystem, effort};
use crate::wal::format::{RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, segment_name};
use crate::{
    Batch, Database, DatabaseState, Durability, Error, FileSystem, LogRecords, LogReport,
    MemoryDatabase, NoAttachments, ReadOnlyFileSystem, Result, STATE_TREE, SegmentEnd,
    StdFileSystem, Tip, TreeOps, Verdict, WalBuffered, WalOptions, inspect_log,
};

const BATCHES: usize = 6;
const NEVER: Durability = Durability::Relaxed { interval_ms: 3_600_000 };

fn segment(number: u64) -> PathBuf {
    Path::new(LOG_DIR).join(segment_name(number))
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

/// A log of some batches in segments of that size, as a killed process leaves it.
fn sample(durability: Durability, segment_bytes: u64) -> SimFileSystem {
    let fs = SimFileSystem::new();
    let options = WalOptions { segment_bytes, ..options(durability) };
    let (store, _) = open_over(&fs, options, Box::new(MemoryDatabase::new(&super::TREES))).unwrap();
    for block in &Workload::new(21, BATCHES).blocks {
        store.commit(block.clone()).unwrap();
    }
    drop(store);
    fs.copy()
}

fn inspect(fs: &SimFileSystem, state: Option<&DatabaseState>) -> LogReport {
    let (ops, names) = (fs.ops(), fs.list(Path::new(LOG_DIR)).unwrap());
    let report = inspect_log(fs, Path::new(LOG_DIR), state).unwrap();
    let records = LogRecords::open(fs, Path::new(LOG_DIR), 0).unwrap();
    let counted: u64 = report.segments.iter().map(|segment| segment.records).sum();
    assert_eq!(records.filter(Result::is_ok).count() as u64, counted);
    assert_eq!(fs.ops(), ops, "an inspection changes nothing");
    assert_eq!(fs.list(Path::new(LOG_DIR)).unwrap(), names);
    assert!(fs.largest_read() <= 64 << 10, "{} bytes at once", fs.largest_read());
    report
}

/// What an inspection said, against what an opening then did.
fn agree(report: &LogReport, opened: Result<crate::Recovery>, label: &str) {
    match (&report.verdict, opened) {
        (Verdict::Corrupt(_), Err(Error::Corrupt { .. } | Error::Version { .. })) => {}
        (Verdict::Valid, Ok(recovery)) => {
            assert_eq!((recovery.torn, recovery.to_lsn), (None, report.end_lsn), "{label}");
        }
        (Verdict::Torn(tail), Ok(recovery)) => {
            let found = (Some(tail.torn), report.end_lsn);
            assert_eq!((recovery.torn, recovery.to_lsn), found, "{label}");
        }
        (verdict, opened) => panic!("{label}: {verdict:?}, and then {opened:?}"),
    }
}

/// Flips bits and cuts at every byte (of the header page only some) of every segment.
fn check_all_damage(
    fs: &SimFileSystem,
    state: Option<&DatabaseState>,
    open: impl Fn(&SimFileSystem) -> Result<crate::Recovery>,
) -> usize {
    let mut checked = 0;
    let step = effort().pick(3, 1, 1);
    for name in fs.list(Path::new(LOG_DIR)).unwrap() {
        let path = Path::new(LOG_DIR).join(&name);
        let bytes = fs.read(&path).unwrap();
        let header = (0..48).chain([4000, 4093]);
        for at in header.chain((SEGMENT_HEADER_BYTES..bytes.len()).step_by(step)) {
            let Some(byte) = bytes.get(at) else { continue };
            let mut flipped = bytes.clone();
            flipped[at] = byte ^ (1 << (at % 8));
            for (how, damaged) in [("flip", flipped), ("cut", bytes[..at].to_vec())] {
                let damaged_fs = fs.copy();
                damaged_fs.plant(&path, &damaged);
                let report = inspect(&damaged_fs, state);
                agree(&report, open(&damaged_fs), &format!("{how} at byte {at} of {name}"));
                checked += 1;
            }
        }
    }
    checked
}

fn open_recovery(fs: &SimFileSystem) -> Result<crate::Recovery> {
    open_log_only(fs, Durability::Strict).map(|(_, recovery)| recovery)
}

#[test]
fn an_inspection_judges_every_damage_as_an_opening_does() {
    for (mode, segment_bytes) in
        [(Durability::Strict, 1 << 20), (Durability::Strict, 4300), (NEVER, 4300), (NEVER, 1 << 20)]
    {
        let fs = sample(mode, segment_bytes);
        let empty = DatabaseState::default();
        let checked = check_all_damage(&fs, Some(&empty), open_recovery);
        println!("{mode:?}: {checked} damaged logs");
        assert!(checked > 100);
    }
}

/// A write-back was interrupted: what the database says is part of the evidence.
#[test]
fn the_state_of_the_database_counts_as_in_an_opening() {
    let run = |fs: &SimFileSystem| {
        let (store, _, files) = super::open_all(fs, options(Durability::Async)).unwrap();
        for block in &Workload::new(21, BATCHES).blocks {
            store.commit(files.attach(block.clone()).unwrap()).unwrap();
        }
        let before = fs.ops();
        let _ = store.checkpoint();
        before..fs.ops()
    };
    let mut seen = (0, 0);
    for op in run(&SimFileSystem::new()) {
        let fs = SimFileSystem::new();
        fs.crash_at(op);
        run(&fs);
        let after = fs.after_crash(CrashModel::Kill, 0);
        let shared: Arc<dyn FileSystem> = Arc::new(after.copy());
        let database = SimDatabase::open(shared, Path::new("data/db"), &super::TREES).unwrap();
        let state = DatabaseState::read(&database).unwrap();
        seen.0 += usize::from(state.writing_lsn > state.applied_lsn);
        seen.1 += usize::from(state.applied_lsn > 0);
        let open = |fs: &SimFileSystem| {
            super::open_all(fs, options(Durability::Async)).map(|(_, recovery, _)| recovery)
        };
        agree(&inspect(&after, Some(&state)), open(&after.copy()), "undamaged");
        if op % effort().pick(4, 1, 1) == 0 {
            check_all_damage(&after, Some(&state), open);
        }
    }
    println!("{} interrupted write-backs, {} finished ones", seen.0, seen.1);
    assert!(seen.0 > 0 && seen.1 > 0);
}

#[test]
fn a_whole_log_is_described_segment_by_segment() {
    let fs = sample(NEVER, 4300);
    let report = inspect(&fs, None);
    assert_eq!((&report.verdict, report.marker, report.in_use), (&Verdict::Valid, None, false));
    let count = report.segments.len();
    assert!(count >= 3, "{count} segments");
    let mut next_lsn = 1;
    for (at, segment) in report.segments.iter().enumerate() {
        let head = segment.head.unwrap();
        assert_eq!((segment.number, head.base_lsn), (at as u64 + 1, next_lsn));
        assert_eq!(segment.records, segment.last_lsn + 1 - next_lsn);
        assert_eq!(segment.file_bytes, 4096 + segment.record_bytes);
        assert!(segment.durable_lsn + 1 >= next_lsn);
        let sealed = SegmentEnd::Sealed { ignored_bytes: 0 };
        let end = if at + 1 == count { SegmentEnd::Clean } else { sealed };
        assert_eq!(segment.end, end);
        next_lsn = segment.last_lsn + 1;
    }
    assert_eq!(report.segments[0].heights.unwrap().0, 0);
    assert_eq!((report.end_lsn, report.database_lsn_min()), (BATCHES as u64, 0));
}

#[test]
fn each_field_of_a_damaged_record_has_its_own_words() {
    let fs = sample(Durability::Strict, 1 << 20);
    let bytes = fs.read(&segment(1)).unwrap();
    let offset = LogRecords::open(&fs, Path::new(LOG_DIR), 3).unwrap().next().unwrap().unwrap();
    let (begins, lsn) = (offset.offset, Some(3));
    for (field, at, words) in [
        ("length", 0, "the record's header is damaged"),
        ("header CRC", 4, "the record's header is damaged"),
        ("LSN", 8, "the record's header is damaged"),
        ("durable LSN", 16, "the record's header is damaged"),
        ("type", 24, "the record's header is damaged"),
        ("payload", 25, "the record's checksum is wrong"),
    ] {
        let mut flipped = bytes.clone();
        flipped[index(begins) + at] ^= 1;
        let damaged = fs.copy();
        damaged.plant(&segment(1), &flipped);
        let report = inspect(&damaged, None);
        let Verdict::Corrupt(damage) = &report.verdict else { panic!("{field}: {report:?}") };
        assert_eq!((damage.offset, damage.lsn), (begins, lsn), "{field}");
        assert_eq!(damage.path, segment(1));
        assert!(damage.what.starts_with(words), "{field}: {}", damage.what);
        assert!(damage.what.ends_with("all records up to 5 were durable"), "{}", damage.what);
        assert_eq!(report.segments[0].records, 2, "{field}");
        assert!(matches!(report.segments[0].end, SegmentEnd::Corrupt(_)));
    }
    let zeros = index(begins)..index(begins) + RECORD_HEADER_BYTES;
    let mut wiped = bytes;
    wiped[zeros].fill(0);
    fs.plant(&segment(1), &wiped);
    let report = inspect(&fs, None);
    let Verdict::Corrupt(damage) = report.verdict else { panic!("{report:?}") };
    assert!(damage.what.starts_with("there are zeros"), "{}", damage.what);
}

#[test]
fn a_missing_segment_is_named_and_the_others_are_still_described() {
    let fs = sample(NEVER, 4300);
    let last = fs.list(Path::new(LOG_DIR)).unwrap().len() as u64;
    fs.remove(&segment(2)).unwrap();
    let report = inspect(&fs, None);
    let Verdict::Corrupt(damage) = &report.verdict else { panic!("{report:?}") };
    assert_eq!((&damage.path, &*damage.what), (&segment(2), "the segment is missing"));
    assert_eq!(report.segments.len() as u64, last - 1);
    assert!(report.segments.iter().all(|segment| segment.records > 0 || segment.number == last));
    // A database that holds what was in it, and in all before it, misses nothing.
    let head = report.segments[1].head.unwrap();
    let applied_lsn = head.base_lsn - 1;
    let tip = Workload::new(21, BATCHES).tip(index(applied_lsn));
    let state = DatabaseState { applied_lsn, writing_lsn: applied_lsn, tip };
    let report = inspect(&fs, Some(&state));
    assert_eq!(report.verdict, Verdict::Valid);
    assert_eq!(report.segments[0].end, SegmentEnd::LeftOver);
    assert_eq!(report.database_lsn_min(), applied_lsn);
    // One that holds less does.
    let report = inspect(&fs, Some(&DatabaseState { applied_lsn: applied_lsn - 1, ..state }));
    assert!(matches!(report.verdict, Verdict::Corrupt(_)), "{report:?}");
}

#[test]
fn empty_closed_and_foreign_directories_are_told_apart() {
    let fs = SimFileSystem::new();
    fs.create_dir_all(Path::new(LOG_DIR)).unwrap();
    let report = inspect(&fs, None);
    assert_eq!((report.segments.len(), report.verdict), (0, Verdict::Valid));
    let behind = DatabaseState { applied_lsn: 3, ..DatabaseState::default() };
    assert!(matches!(inspect(&fs, Some(&behind)).verdict, Verdict::Corrupt(_)));

    fs.plant(&Path::new(LOG_DIR).join("blk00000.dat"), b"something else");
    let error = inspect_log(&fs, Path::new(LOG_DIR), None).unwrap_err();
    assert!(error.to_string().contains("is not the directory of a log"), "{error}");
    assert!(inspect_log(&ReadOnlyFileSystem, Path::new("/no/such"), None).is_err());

    let closed = SimFileSystem::new();
    let (store, _) = open_log_only(&closed, Durability::Strict).unwrap();
    commit(&store, |batch| batch.put(super::META, b"k", b"v"));
    store.shutdown().unwrap();
    let report = inspect(&closed, None);
    assert_eq!((report.marker, report.end_lsn, report.verdict), (Some(1), 1, Verdict::Valid));
    let state = DatabaseState { applied_lsn: 2, ..DatabaseState::default() };
    assert!(matches!(inspect(&closed, Some(&state)).verdict, Verdict::Corrupt(_)));
}

/// The log of another database: every checksum is right, and it does not follow.
#[test]
fn a_log_that_does_not_follow_its_database_is_corrupt() {
    let fs = SimFileSystem::new();
    let tip = Tip { height: 6, hash: [5; 32] };
    let mut rows = Batch::new();
    rows.put(STATE_TREE, b"tip", &[&tip.height.to_le_bytes()[..], &tip.hash].concat());
    let other = MemoryDatabase::new(&super::TREES);
    other.apply(&rows).unwrap();
    let state = DatabaseState::read(&other).unwrap();
    assert_eq!(state, DatabaseState { tip: Some(tip), ..DatabaseState::default() });
    let (store, _) = open_over(&fs, options(Durability::Strict), Box::new(other)).unwrap();
    commit(&store, |batch| batch.put(super::META, b"k", b"v"));
    drop(store);

    assert_eq!(inspect(&fs, Some(&state)).verdict, Verdict::Valid);
    let report = inspect(&fs, Some(&DatabaseState::default()));
    let Verdict::Corrupt(damage) = &report.verdict else { panic!("{report:?}") };
    assert_eq!((damage.offset, damage.lsn), (SEGMENT_HEADER_BYTES as u64, Some(1)));
    assert!(damage.what.contains("does not follow the tip"), "{}", damage.what);
    agree(&report, open_recovery(&fs.copy()), "a log of another database");
}

#[test]
fn a_marker_that_is_no_marker_is_corrupt() {
    for bytes in [&b""[..], b"CFDAMEND", &[0; 5000]] {
        let fs = sample(Durability::Strict, 1 << 20);
        fs.plant(&Path::new(LOG_DIR).join("clean"), bytes);
        let report = inspect(&fs, None);
        let Verdict::Corrupt(damage) = &report.verdict else { panic!("{report:?}") };
        assert!(damage.path.ends_with("clean"), "{damage:?}");
        assert!(open_recovery(&fs).is_err());
    }
}

#[test]
fn records_come_with_their_writes_from_any_number_on() {
    let fs = sample(NEVER, 4300);
    let work = Workload::new(21, BATCHES);
    for from in 0..=BATCHES + 1 {
        let records: Vec<_> = LogRecords::open(&fs, Path::new(LOG_DIR), from as u64)
            .unwrap()
            .collect::<Result<_>>()
            .unwrap();
        assert_eq!(records.len(), BATCHES.min(BATCHES + 1 - from.max(1)));
        for record in records {
            let block = &work.blocks[index(record.lsn) - 1];
            assert_eq!(record.block, Some((block.tip, block.prev_hash)));
            assert_eq!(record.batch, block.batch);
            let ops: u64 = record
                .ops_by_tree()
                .iter()
                .map(|TreeOps { puts, put_news, deletes, .. }| puts + put_news + deletes)
                .sum();
            assert_eq!(ops, block.batch.len() as u64);
            assert!(record.ops_by_tree().is_sorted_by_key(|tree| tree.tree_id));
        }
    }
}

#[test]
fn a_log_in_use_is_described_and_said_to_be_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let backend = MemoryDatabase::new(&super::TREES);
    let (store, _) = WalBuffered::open(
        options(Durability::Strict),
        Arc::new(StdFileSystem),
        dir.path(),
        backend,
        Arc::new(NoAttachments),
    )
    .unwrap();
    for block in &Workload::new(21, BATCHES).blocks {
        store.commit(block.clone()).unwrap();
    }
    let report = inspect_log(&ReadOnlyFileSystem, dir.path(), None).unwrap();
    assert!(report.in_use);
    assert_eq!((report.end_lsn, report.verdict), (BATCHES as u64, Verdict::Valid));
    drop(store);
    assert!(!inspect_log(&ReadOnlyFileSystem, dir.path(), None).unwrap().in_use);
}
