//! Damage to a log is found: what comes back is the state after whole batches, with an exact
//! report of a torn tail, or "corrupt"; never anything else.

use std::path::{Path, PathBuf};

use super::{LOG_DIR, Store, Workload, open_log_only, open_over, options};
use crate::testing::{CrashModel, SimFileSystem};
use crate::wal::format::{
    RECORD_HEADER_BYTES, RecordHeader, RecordKind, SEGMENT_HEADER_BYTES, SegmentHeader,
    segment_name,
};
use crate::{Database, Durability, Error, MemoryDatabase, Recovery, Result, Torn, WalOptions};

const BATCHES: usize = 6;

/// A log of some batches, none of which is in a database.
struct Sample {
    work: Workload,
    fs: SimFileSystem,
    /// The file and the offset at which each record ends; the first is the end of the header.
    ends: Vec<(PathBuf, usize)>,
}

fn segment(number: u64) -> PathBuf {
    Path::new(LOG_DIR).join(segment_name(number))
}

impl Sample {
    fn new(durability: Durability, segment_bytes: u64) -> Self {
        let work = Workload::new(21, BATCHES);
        let fs = SimFileSystem::new();
        let options = WalOptions { segment_bytes, ..options(durability) };
        let (store, _) =
            open_over(&fs, options, Box::new(MemoryDatabase::new(&super::TREES))).unwrap();
        let mut ends = vec![(segment(1), SEGMENT_HEADER_BYTES)];
        for block in &work.blocks {
            store.commit(block.clone()).unwrap();
            let last = store.stats().segments;
            let bytes = fs.read(&segment(last)).unwrap().len();
            ends.push((segment(last), bytes));
        }
        drop(store);
        Self { work, fs: fs.copy(), ends }
    }

    fn last_segment(&self) -> (PathBuf, Vec<u8>) {
        let path = self.ends.last().unwrap().0.clone();
        let bytes = self.fs.read(&path).unwrap();
        (path, bytes)
    }

    /// Opens the log with other bytes in one file.
    fn open_with(&self, path: &Path, bytes: &[u8]) -> Result<(Store, Recovery)> {
        let fs = self.fs.copy();
        fs.plant(path, bytes);
        open_log_only(&fs, Durability::Strict)
    }

    /// Checks that the state is the one after `j` batches and that just this was cut off.
    fn expect(&self, opened: Result<(Store, Recovery)>, j: usize, torn: Option<Torn>, label: &str) {
        let (store, recovery) = opened.unwrap_or_else(|e| panic!("{label}: {}", e.chain()));
        assert_eq!(recovery.to_lsn, u64::try_from(j).unwrap(), "{label}");
        assert_eq!(recovery.torn, torn, "{label}");
        self.work.check(&store, j, label);
    }
}

fn expect_corrupt(opened: Result<(Store, Recovery)>, label: &str) {
    match opened {
        Err(Error::Corrupt { .. }) => {}
        Err(other) => panic!("{label}: {}", other.chain()),
        Ok((_, recovery)) => panic!("{label}: {recovery:?}"),
    }
}

fn torn(bytes: usize, records: u64) -> Option<Torn> {
    Some(Torn { bytes: u64::try_from(bytes).unwrap(), records })
}

#[test]
fn every_truncation_is_a_torn_tail_of_exact_size() {
    let sample = Sample::new(Durability::Strict, 1 << 20);
    let (path, bytes) = sample.last_segment();
    for len in 0..=bytes.len() {
        let opened = sample.open_with(&path, &bytes[..len]);
        let label = format!("cut to {len}");
        if len < SEGMENT_HEADER_BYTES {
            expect_corrupt(opened, &label);
            continue;
        }
        let whole = sample.ends.iter().rposition(|(_, end)| *end <= len).unwrap();
        let rest = len - sample.ends[whole].1;
        let header_left = u64::from(rest >= RECORD_HEADER_BYTES);
        sample.expect(opened, whole, (rest > 0).then_some(()).and(torn(rest, header_left)), &label);
    }
}

/// In strict mode each record says that the one before it is durable. Rot in the last record of
/// an unclean log looks as a torn write would: documented in `FORMAT.md`.
#[test]
fn every_bit_flip_is_corruption_or_a_torn_last_record() {
    let sample = Sample::new(Durability::Strict, 1 << 20);
    let (path, bytes) = sample.last_segment();
    let last_begins = sample.ends[BATCHES - 1].1;
    for at in 0..bytes.len() {
        // The padding of the header page is all alike.
        let bits = if (64..4088).contains(&at) { 3..4 } else { 0..8 };
        for bit in bits {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            let opened = sample.open_with(&path, &bytes);
            let label = format!("bit {bit} of byte {at}");
            if at < last_begins {
                expect_corrupt(opened, &label);
            } else {
                let in_header = at < last_begins + RECORD_HEADER_BYTES;
                let cut = torn(bytes.len() - last_begins, u64::from(!in_header));
                sample.expect(opened, BATCHES - 1, cut, &label);
            }
        }
    }
}

#[test]
fn damage_before_the_last_segment_is_corruption_whatever_the_mode() {
    let sample = Sample::new(Durability::Async, 4300);
    let segments = sample.ends.last().unwrap().0.clone();
    assert_ne!(segments, segment(1), "the log has several segments");
    for (index, (path, end)) in sample.ends.iter().enumerate() {
        if *path == segments || index == 0 {
            continue;
        }
        let bytes = sample.fs.read(path).unwrap();
        for at in SEGMENT_HEADER_BYTES..*end {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            expect_corrupt(sample.open_with(path, &bytes), &format!("{path:?} byte {at}"));
            expect_corrupt(sample.open_with(path, &bytes[..at]), &format!("{path:?} cut to {at}"));
        }
    }
}

/// Records that were never promised: a damaged one and all behind it are cut off and counted.
#[test]
fn an_unpromised_tail_is_cut_at_the_first_damage_and_counted() {
    let work = Workload::new(21, BATCHES);
    let fs = SimFileSystem::new();
    let (store, _) = open_log_only(&fs, Durability::Relaxed { interval_ms: 3_600_000 }).unwrap();
    let path = segment(1);
    let mut ends = vec![SEGMENT_HEADER_BYTES];
    for block in &work.blocks {
        store.commit(block.clone()).unwrap();
        ends.push(fs.read(&path).unwrap().len());
    }
    drop(store);
    let sample = Sample { work, fs: fs.copy(), ends: Vec::new() };
    let bytes = fs.read(&path).unwrap();
    for damaged in 0..BATCHES {
        let mut payload = bytes.clone();
        payload[ends[damaged] + RECORD_HEADER_BYTES + 5] ^= 1;
        let cut = bytes.len() - ends[damaged];
        let records = u64::try_from(BATCHES - damaged).unwrap();
        let label = format!("record {}", damaged + 1);
        sample.expect(sample.open_with(&path, &payload), damaged, torn(cut, records), &label);
        let mut header = bytes.clone();
        header[ends[damaged]] ^= 1;
        sample.expect(sample.open_with(&path, &header), damaged, torn(cut, records - 1), &label);
    }
}

#[test]
fn bytes_behind_the_last_record_are_never_replayed() {
    let sample = Sample::new(Durability::Strict, 1 << 20);
    let other = Sample::new(Durability::Strict, 1 << 20);
    let (path, bytes) = sample.last_segment();
    let record = |of: &Sample, n: usize| {
        let bytes = of.last_segment().1;
        bytes[of.ends[n - 1].1..of.ends[n].1].to_vec()
    };
    let generation = {
        let page = bytes.first_chunk().unwrap();
        SegmentHeader::decode(page).unwrap().0.generation
    };
    let next = u64::try_from(BATCHES + 1).unwrap();
    let long = RecordHeader {
        length: 50 << 20,
        lsn: next,
        durable_lsn: 0,
        kind: RecordKind::Plain,
        packed: false,
        compressed: false,
    };
    let cases: [(&str, Vec<u8>, u64); 6] = [
        ("zeros, as of a file that was extended", vec![0; 1000], 0),
        ("garbage", vec![0xa5; 1000], 0),
        ("the last record again", record(&sample, BATCHES), 0),
        ("an earlier record again", record(&sample, 2), 0),
        ("a record of another log", record(&other, BATCHES), 0),
        ("a header whose length reaches beyond the file", long.encode(generation).to_vec(), 1),
    ];
    for (label, tail, records) in cases {
        let longer = [bytes.clone(), tail.clone()].concat();
        let opened = sample.open_with(&path, &longer);
        sample.expect(opened, BATCHES, torn(tail.len(), records), label);
    }
}

/// No length in a damaged header makes the reader ask for more than the largest real record.
#[test]
fn a_damaged_length_cannot_drive_an_allocation() {
    let sample = Sample::new(Durability::Strict, 1 << 20);
    let (path, bytes) = sample.last_segment();
    for n in 0..BATCHES {
        let fs = sample.fs.copy();
        let mut bytes = bytes.clone();
        bytes[sample.ends[n].1..][..4].copy_from_slice(&[0xff, 0xff, 0xff, 0x03]);
        fs.plant(&path, &bytes);
        drop(open_log_only(&fs, Durability::Strict));
        assert!(fs.largest_read() <= 64 << 10, "{} bytes", fs.largest_read());
    }
}

#[test]
fn the_log_is_read_in_a_stream() {
    let fs = SimFileSystem::new();
    let work = Workload::new(5, 400);
    let (store, _) = open_log_only(&fs, Durability::Async).unwrap();
    for block in &work.blocks {
        store.commit(block.clone()).unwrap();
    }
    store.sync().unwrap();
    let log_bytes = store.stats().log_bytes;
    drop(store);
    let fs = fs.after_crash(CrashModel::SyncedOnly, 0);
    let (store, recovery) = open_log_only(&fs, Durability::Async).unwrap();
    assert_eq!((recovery.records, recovery.torn), (400, None));
    work.check(&store, 400, "replayed");
    let largest = u64::try_from(fs.largest_read()).unwrap();
    assert!(largest * 10 < log_bytes, "{largest} of {log_bytes} bytes at once");
}

#[test]
fn missing_swapped_and_renamed_segments_are_corruption() {
    let sample = Sample::new(Durability::Strict, 4300);
    let count = sample.fs_segments();
    assert!(count >= 3, "{count} segments");
    let read = |number| sample.fs.read(&segment(number)).unwrap();
    for number in 1..count {
        let fs = sample.fs.copy();
        crate::FileSystem::remove(&fs, &segment(number)).unwrap();
        expect_corrupt(open_log_only(&fs, Durability::Strict), &format!("{number} is missing"));
        let fs = sample.fs.copy();
        fs.plant(&segment(number), &read(number + 1));
        fs.plant(&segment(number + 1), &read(number));
        expect_corrupt(open_log_only(&fs, Durability::Strict), &format!("{number} is swapped"));
    }
    let fs = sample.fs.copy();
    fs.plant(&segment(count + 2), &read(count));
    expect_corrupt(open_log_only(&fs, Durability::Strict), "a copy under another number");
}

#[test]
fn a_segment_of_another_log_does_not_continue_this_one() {
    let sample = Sample::new(Durability::Strict, 4300);
    let other = Sample::new(Durability::Strict, 4300);
    let last = sample.fs_segments();
    let foreign = other.fs.read(&segment(last)).unwrap();
    expect_corrupt(sample.open_with(&segment(last), &foreign), "the last segment");
}

impl Sample {
    fn fs_segments(&self) -> u64 {
        let names = crate::FileSystem::list(&self.fs, Path::new(LOG_DIR)).unwrap();
        u64::try_from(names.iter().filter(|name| name.starts_with("wal-")).count()).unwrap()
    }
}

/// After a tail was cut off, its numbers are given to other batches. Its bytes never come back.
#[test]
fn a_tail_that_was_cut_off_does_not_come_back() {
    let (one, two) = (Workload::new(1, 8), Workload::new(2, 8));
    let fs = SimFileSystem::new();
    let (store, _) = open_log_only(&fs, Durability::Relaxed { interval_ms: 3_600_000 }).unwrap();
    for block in &one.blocks {
        store.commit(block.clone()).unwrap();
    }
    drop(store);
    // The first record is damaged: all eight are cut off, and lie there still.
    let mut bytes = fs.read(&segment(1)).unwrap();
    bytes[SEGMENT_HEADER_BYTES + 40] ^= 1;
    let fs = fs.copy();
    fs.plant(&segment(1), &bytes);
    let (store, recovery) = open_log_only(&fs, Durability::Strict).unwrap();
    assert_eq!((recovery.to_lsn, recovery.torn.unwrap().records), (0, 8));
    for block in &two.blocks {
        store.commit(block.clone()).unwrap();
    }
    drop(store);
    for model in [CrashModel::Kill, CrashModel::SyncedOnly] {
        let (store, recovery) =
            open_log_only(&fs.after_crash(model, 0), Durability::Strict).unwrap();
        assert_eq!((recovery.to_lsn, recovery.torn), (8, None));
        two.check(&store, 8, "the batches that took the numbers");
    }
}

#[test]
fn a_marker_that_does_not_fit_the_database_is_corruption() {
    let fs = SimFileSystem::new();
    let work = Workload::new(3, 4);
    let (store, _) = open_log_only(&fs, Durability::Strict).unwrap();
    for block in &work.blocks {
        store.commit(block.clone()).unwrap();
    }
    store.shutdown().unwrap();
    // The database was in memory: it is gone, and the marker knows that it was not empty.
    expect_corrupt(open_log_only(&fs.copy(), Durability::Strict), "an emptied database");
    let marker = Path::new(LOG_DIR).join("clean");
    let mut bytes = fs.read(&marker).unwrap();
    bytes[13] ^= 1;
    fs.plant(&marker, &bytes);
    expect_corrupt(open_log_only(&fs.copy(), Durability::Strict), "a damaged marker");
}

#[test]
fn a_log_that_was_removed_is_missed() {
    let fs = SimFileSystem::new();
    let work = Workload::new(3, 4);
    let backend = std::sync::Arc::new(MemoryDatabase::new(&super::TREES));
    let open = |fs: &SimFileSystem| {
        let backend: Box<dyn Database> = Box::new(std::sync::Arc::clone(&backend));
        open_over(fs, options(Durability::Strict), backend)
    };
    let (store, _) = open(&fs).unwrap();
    store.commit(work.blocks[0].clone()).unwrap();
    store.checkpoint().unwrap();
    store.commit(work.blocks[1].clone()).unwrap();
    drop(store);
    expect_corrupt(open(&SimFileSystem::new()), "an emptied log directory");
    let (store, _) = open(&fs).unwrap();
    work.check(&store, 2, "with its log");
}

/// A write-back has begun, so the log was durable up to its last batch: rot there is corruption
/// even if no record says so, since the database holds parts of these batches.
#[test]
fn an_interrupted_write_back_is_evidence_that_its_batches_were_durable() {
    let work = Workload::new(21, BATCHES);
    let run = |fs: &SimFileSystem| {
        let (store, _, files) = super::open_all(fs, options(Durability::Async)).unwrap();
        for block in &work.blocks {
            store.commit(files.attach(block.clone()).unwrap()).unwrap();
        }
        let before = fs.ops();
        let _ = store.checkpoint();
        before..fs.ops()
    };
    let mut found = 0;
    for op in run(&SimFileSystem::new()) {
        let fs = SimFileSystem::new();
        fs.crash_at(op);
        run(&fs);
        let after = fs.after_crash(CrashModel::Kill, 0);
        let database = crate::testing::SimDatabase::open(
            std::sync::Arc::new(after.copy()),
            Path::new("data/db"),
            &super::TREES,
        );
        let row = |key: &[u8]| database.as_ref().unwrap().get(crate::STATE_TREE, key).unwrap();
        if row(b"writing").is_none() || row(b"applied").is_some() {
            continue;
        }
        found += 1;
        let (path, bytes) = (segment(1), after.read(&segment(1)).unwrap());
        for at in SEGMENT_HEADER_BYTES..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            let fs = after.copy();
            fs.plant(&path, &bytes);
            let opened = super::open_all(&fs, options(Durability::Async));
            expect_corrupt(opened.map(|(store, recovery, _)| (store, recovery)), "rot");
        }
    }
    assert!(found > 0, "no crash fell between two batches of the write-back");
}
