//! `DamagedLog`: a log of 256 KiB, where each of its records is, and what must come back once
//! some of its bytes are others.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::image::ImageFs;
use super::{COINS, LOG_DIR, META, TREES, block, open_over, options};
use crate::testing::{Random, SimFileSystem};
use crate::wal::format::{
    Payload, RECORD_HEADER_BYTES, RECORD_TRAILER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES,
    SegmentHeader, segment_name,
};
use crate::wal::{Evidence, Opening, Place, open_log};
use crate::{
    Batch, Database, Durability, Error, FileSystem, Lsn, MemoryDatabase, NoAttachments, Torn,
    WalOptions,
};

/// The size of the whole log, headers included.
pub(super) const LOG_BYTES: usize = 256 << 10;
/// Gives three segments of about the same size.
const SEGMENT_BYTES: u64 = 84 << 10;
/// How many records at the end have no later witness that they were durable.
const UNWITNESSED: usize = 9;

pub(super) fn segment(number: u64) -> PathBuf {
    Path::new(LOG_DIR).join(segment_name(number))
}

/// Where a record is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// The index of its segment.
    pub(super) segment: usize,
    pub(super) begins: usize,
    pub(super) ends: usize,
    durable_lsn: Lsn,
}

/// What opening a damaged log gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The first so many records, each as it was written.
    Records(usize, Option<Torn>),
    Corrupt,
}

/// A log of several segments, none of which is in a database.
#[derive(Debug)]
pub(super) struct DamagedLog {
    /// The bytes of each segment; the first has the number 1.
    pub(super) segments: Vec<Vec<u8>>,
    pub(super) records: Vec<Span>,
    payloads: Vec<Payload>,
    /// What the database says.
    pub(super) evidence: Evidence,
}

impl DamagedLog {
    /// Every record is proven durable: a write-back of all of them had begun.
    pub(super) fn witnessed(seed: u64) -> Self {
        let mut log = Self::new(seed);
        log.evidence.writing = u64::try_from(log.records.len()).unwrap();
        log
    }

    /// The last [`UNWITNESSED`] records were written after the last fsync.
    pub(super) fn unclean(seed: u64) -> Self {
        Self::new(seed)
    }

    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let fs = SimFileSystem::new();
        let mode = Durability::Relaxed { interval_ms: 3_600_000 };
        let options = WalOptions { segment_bytes: SEGMENT_BYTES, ..options(mode) };
        let backend: Box<dyn Database> = Box::new(MemoryDatabase::new(&TREES));
        let (store, _) = open_over(&fs, options, backend).unwrap();
        let mut count = 0;
        // The last records are small, so that their number does not depend on the seed.
        let bytes = || usize::try_from(store.stats().log_bytes).unwrap();
        while bytes() + 9000 < LOG_BYTES {
            add_record(&store, &mut random, 120);
            count += 1;
            if count % 7 == 0 {
                store.sync().unwrap();
            }
        }
        store.sync().unwrap();
        for _ in 1..UNWITNESSED {
            add_record(&store, &mut random, 20);
        }
        let mut last = Batch::new();
        let fixed = RECORD_HEADER_BYTES + 8 + 4 + RECORD_TRAILER_BYTES;
        last.put(META, b"last", &random.bytes(LOG_BYTES - bytes() - fixed));
        store.apply(&last).unwrap();
        assert_eq!(bytes(), LOG_BYTES);
        let segments = (1..=store.stats().segments).map(|n| fs.read(&segment(n)).unwrap());
        Self::parse(segments.collect())
    }

    fn parse(segments: Vec<Vec<u8>>) -> Self {
        let (mut records, mut payloads) = (Vec::new(), Vec::new());
        for (index, bytes) in segments.iter().enumerate() {
            let header = SegmentHeader::decode(bytes.first_chunk().unwrap()).unwrap().0;
            assert_eq!(header.base_lsn, u64::try_from(records.len() + 1).unwrap());
            let mut begins = SEGMENT_HEADER_BYTES;
            while begins < bytes.len() {
                let head = bytes[begins..].first_chunk().unwrap();
                let head = RecordHeader::decode(head, header.generation).unwrap();
                let payload = begins + RECORD_HEADER_BYTES..;
                let payload = &bytes[payload][..head.payload_len()];
                payloads.push(Payload::decode(&head, payload).unwrap());
                let ends = begins + RECORD_HEADER_BYTES + head.payload_len() + RECORD_TRAILER_BYTES;
                let durable_lsn = head.durable_lsn;
                records.push(Span { segment: index, begins, ends, durable_lsn });
                begins = ends;
            }
        }
        Self { segments, records, payloads, evidence: Evidence::default() }
    }

    /// A copy of the files that can be damaged.
    pub(super) fn image(&self) -> Arc<ImageFs> {
        let files = self.segments.iter().enumerate();
        let number = |index: usize| u64::try_from(index + 1).unwrap();
        Arc::new(ImageFs::new(files.map(|(n, bytes)| (segment(number(n)), bytes.as_slice()))))
    }

    /// Opens an image and forgets what the opening has made.
    ///
    /// # Panics
    ///
    /// If a record comes back that is not the one that was written, if an opening that fails has
    /// changed anything, if another error than "corrupt" is reported.
    pub(super) fn open(&self, image: &Arc<ImageFs>) -> Outcome {
        let fs: Arc<dyn FileSystem> = Arc::<ImageFs>::clone(image);
        let place = Place::new(fs, PathBuf::from(LOG_DIR), &WalOptions::default()).unwrap();
        let first = usize::try_from(self.evidence.applied).unwrap();
        let mut next = first;
        let attachments = &NoAttachments;
        let opening = Opening { place: &place, evidence: self.evidence, attachments, hook: None };
        let opened = open_log(opening, &mut |lsn, payload| {
            assert_eq!(lsn, u64::try_from(next + 1).unwrap());
            assert!(payload == self.payloads[next], "record {lsn} is not what was written");
            next += 1;
            Ok(())
        });
        let outcome = match opened {
            Ok(opened) => {
                assert_eq!(opened.records, u64::try_from(next - first).unwrap());
                assert_eq!(opened.end, u64::try_from(next).unwrap());
                Outcome::Records(next, opened.torn)
            }
            Err(Error::Corrupt { .. }) => {
                assert_eq!((next, image.changes()), (first, 0), "replayed or changed something");
                Outcome::Corrupt
            }
            Err(error) => panic!("{}", error.chain()),
        };
        assert!(image.largest_read() <= 64 << 10, "a read of {} bytes", image.largest_read());
        image.put_back();
        outcome
    }

    pub(super) const fn whole(&self) -> Outcome {
        Outcome::Records(self.records.len(), None)
    }

    /// The record that a byte of a segment belongs to; none in its header page.
    pub(super) fn record_at(&self, segment: usize, at: usize) -> Option<usize> {
        let before = |record: &Span| (record.segment, record.ends) <= (segment, at);
        let index = self.records.partition_point(before);
        let found = self.records.get(index)?;
        (found.segment == segment && found.begins <= at).then_some(index)
    }

    /// What must come back if `first` is the first damaged record and no header is intact of
    /// those in `lost`.
    pub(super) fn expected(&self, first: usize, lost: &[usize]) -> Outcome {
        let last_segment = self.segments.len() - 1;
        let place = self.records[first];
        let intact = |index: &usize| !lost.contains(index);
        let told = (0..self.records.len()).filter(intact).map(|n| self.records[n].durable_lsn);
        let base = self.records.iter().filter(|record| record.segment < last_segment).count();
        let durable = told.max().unwrap_or(0).max(u64::try_from(base).unwrap());
        let durable = usize::try_from(durable.max(self.evidence.writing)).unwrap();
        if place.segment < last_segment || first < durable {
            return Outcome::Corrupt;
        }
        let bytes = self.segments[last_segment].len() - place.begins;
        let records = (first..self.records.len()).filter(intact).count();
        let records = u64::try_from(records).unwrap();
        Outcome::Records(first, Some(Torn { bytes: u64::try_from(bytes).unwrap(), records }))
    }

    /// What must come back if the last segment is not there. With it goes all that it says of its
    /// own records, so only the database can miss them.
    pub(super) fn without_last_segment(&self) -> Outcome {
        let last_segment = self.segments.len() - 1;
        let left = self.records.partition_point(|record| record.segment < last_segment);
        let missed = usize::try_from(self.evidence.writing).unwrap() > left;
        if missed { Outcome::Corrupt } else { Outcome::Records(left, None) }
    }

    /// What must come back if one byte is another, exactly.
    pub(super) fn expected_at(&self, segment: usize, at: usize) -> Outcome {
        let Some(record) = self.record_at(segment, at) else {
            return Outcome::Corrupt;
        };
        let in_header = at < self.records[record].begins + RECORD_HEADER_BYTES;
        let lost: &[usize] = if in_header { &[record] } else { &[] };
        self.expected(record, lost)
    }

    /// Checks an opening after any damage to the bytes of one segment, without a change of its
    /// size. Copies of record headers may have come to other places: each tells the truth, and so
    /// may turn a torn tail into corruption.
    pub(super) fn check_changed(&self, image: &Arc<ImageFs>, index: usize, label: &str) {
        let original = &self.segments[index];
        let number = u64::try_from(index + 1).unwrap();
        let changed: Vec<usize> = image.edit(&segment(number), |bytes| {
            assert_eq!(bytes.len(), original.len());
            (0..bytes.len()).filter(|at| bytes[*at] != original[*at]).collect()
        });
        let outcome = self.open(image);
        let Some(first) = changed.first() else {
            assert_eq!(outcome, self.whole(), "{label}: nothing changed");
            return;
        };
        let expected = self.record_at(index, *first).map_or(Outcome::Corrupt, |first| {
            let header = |at: &usize| {
                let record = self.record_at(index, *at).unwrap();
                (*at < self.records[record].begins + RECORD_HEADER_BYTES).then_some(record)
            };
            let mut lost: Vec<usize> = changed.iter().filter_map(header).collect();
            lost.dedup();
            self.expected(first, &lost)
        });
        match (expected, outcome) {
            (_, Outcome::Corrupt) => {}
            (Outcome::Records(j, Some(torn)), Outcome::Records(found, Some(cut))) => {
                assert_eq!((found, cut.bytes), (j, torn.bytes), "{label}");
                assert!(cut.records >= torn.records, "{label}: {cut:?}, not {torn:?}");
            }
            _ => panic!("{label}: {outcome:?}, not {expected:?}"),
        }
    }
}

/// A record of the length of a block's changes, or of a few rows.
fn add_record(store: &super::Store, random: &mut Random, value_bytes_max: usize) {
    let mut batch = Batch::new();
    for _ in 0..random.below(24) {
        let (key, len) = (random.bytes(12), random.below(value_bytes_max));
        if random.one_in(5) {
            batch.delete(COINS, &key);
        } else {
            batch.put(COINS, &key, &random.bytes(len));
        }
    }
    if random.one_in(4) {
        store.apply(&batch).unwrap();
    } else {
        store.commit(block(store, &[], |into| *into = batch)).unwrap();
    }
}
