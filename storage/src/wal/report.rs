//! `LogReport`: what an inspection of a log tells.

use std::path::PathBuf;

use crate::database::Database;
use crate::error::Result;
use crate::wal::format::SegmentHeader;
use crate::wal_buffered::{Lsn, StateRows, Tip, Torn};

/// How far a database is: the rows that a write-back leaves in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DatabaseState {
    /// All batches up to this one are in it.
    pub applied_lsn: Lsn,
    /// Parts of batches up to this one may be.
    pub writing_lsn: Lsn,
    /// The tip after batch `applied_lsn`.
    pub tip: Option<Tip>,
}

impl DatabaseState {
    /// Reads the rows; a database without them is at the beginning.
    ///
    /// # Errors
    ///
    /// If the rows are damaged or of another version, or the engine fails.
    pub fn read(database: &dyn Database) -> Result<Self> {
        let StateRows { applied, writing, tip } = StateRows::read(database)?;
        Ok(Self { applied_lsn: applied, writing_lsn: writing, tip })
    }
}

/// What a log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogReport {
    /// Its directory.
    pub dir: PathBuf,
    /// Somebody has it open.
    pub in_use: bool,
    /// There is a marker of a clean shutdown: the database holds all up to this batch.
    pub marker: Option<Lsn>,
    /// Unfinished files, which the next opening removes.
    pub temporary: Vec<String>,
    /// The segments, oldest first.
    pub segments: Vec<SegmentReport>,
    /// The highest batch that is known to be durable.
    pub durable_lsn: Lsn,
    /// The newest valid record that counts, or the one before the first if there is none.
    pub end_lsn: Lsn,
    /// Whether the log is whole.
    pub verdict: Verdict,
}

impl LogReport {
    /// How much the database must hold for the log to be complete: all up to this batch.
    #[must_use]
    pub fn database_lsn_min(&self) -> Lsn {
        let needed = self.segments.iter().filter(|segment| segment.end != SegmentEnd::LeftOver);
        let first = needed.filter_map(|segment| segment.head).map(|head| head.base_lsn - 1).next();
        self.marker.or(first).unwrap_or(0)
    }
}

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentReport {
    /// The number in its name.
    pub number: u64,
    /// Its file.
    pub path: PathBuf,
    /// The file's size.
    pub file_bytes: u64,
    /// What its first page says; none if that is damaged or of another version.
    pub head: Option<SegmentHead>,
    /// Valid records that count: up to the next segment's first.
    pub records: u64,
    /// Their size.
    pub record_bytes: u64,
    /// The last of them, or the one before the segment's first if there is none.
    pub last_lsn: Lsn,
    /// The heights of the first and the last tip in them.
    pub heights: Option<(u32, u32)>,
    /// The highest batch that they, or headers behind them, say was durable.
    pub durable_lsn: Lsn,
    /// How it ends.
    pub end: SegmentEnd,
}

impl SegmentReport {
    /// Nothing is known but its name.
    pub(crate) const fn new(number: u64, path: PathBuf) -> Self {
        Self {
            number,
            path,
            file_bytes: 0,
            head: None,
            records: 0,
            record_bytes: 0,
            last_lsn: 0,
            heights: None,
            durable_lsn: 0,
            end: SegmentEnd::LeftOver,
        }
    }
}

/// What the first page of a segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHead {
    /// The version of the format.
    pub version: u32,
    /// The number of the first record.
    pub base_lsn: Lsn,
    /// The random number that seeds its checksums.
    pub generation: u64,
    /// The checkpoint mark: what the database durably held when the segment was made.
    pub applied_lsn: Lsn,
    /// Whether the file has room behind its records.
    pub roomy: bool,
}

impl SegmentHead {
    pub(super) const fn new(header: &SegmentHeader, version: u32) -> Self {
        let SegmentHeader { base_lsn, generation, applied_lsn, roomy, .. } = *header;
        Self { version, base_lsn, generation, applied_lsn, roomy }
    }
}

/// How a segment ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SegmentEnd {
    /// With its last record.
    Clean,
    /// Where the next segment takes over; so many bytes behind that point are ignored.
    Sealed {
        /// How many.
        ignored_bytes: u64,
    },
    /// With bytes that were never promised to be durable.
    Torn(TornTail),
    /// With bytes that are not what was durable there.
    Corrupt(Damage),
    /// It is not needed: the database holds all of its records.
    LeftOver,
}

/// What the next opening would cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TornTail {
    /// The segment's number.
    pub segment: u64,
    /// Where the tail begins.
    pub offset: u64,
    /// Its size, and the record headers recognised in it.
    pub torn: Torn,
}

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The damaged or missing file.
    pub path: PathBuf,
    /// Where the first record, or header page, begins that is not valid. A checksum does not say
    /// which of its bytes it is.
    pub offset: u64,
    /// The record that is expected there.
    pub lsn: Option<Lsn>,
    /// What is wrong.
    pub what: String,
}

/// Whether a log is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Valid,
    /// But for a tail that the next opening cuts off: batches that nobody was promised.
    Torn(TornTail),
    /// It is not: opening it fails.
    Corrupt(Damage),
}
