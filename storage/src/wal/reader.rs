//! `SegmentReader`: the records of one segment, one at a time, and why there are no more.

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::file_system::{File, FileSystem};
use crate::mutation::{Mutation, mutated};
use crate::wal::format::{
    RECORD_HEADER_BYTES, RECORD_TRAILER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader,
    record_crc,
};
use crate::wal_buffered::Lsn;

/// How much of a damaged tail is held in memory while it is searched.
const SCAN_BYTES: usize = 64 << 10;

/// What came next in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A valid record; its payload is in [`SegmentReader::payload`].
    Record(RecordHeader),
    /// The file ends where a record ends; or, in a file with room, zeros say that none follows.
    End,
    /// The bytes that follow are not the next record.
    Bad,
}

/// What is behind the point where the records end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tail {
    /// Its size in bytes.
    pub(crate) bytes: u64,
    /// Record headers of this generation in it, with numbers that come next.
    pub(crate) records: u64,
    /// The highest durable LSN that these headers state.
    pub(crate) durable_lsn: Lsn,
}

/// Reads one segment from its beginning. Holds one record in memory at a time.
#[derive(Debug)]
pub(crate) struct SegmentReader {
    file: Arc<dyn File>,
    header: SegmentHeader,
    file_bytes: u64,
    offset: u64,
    chain: u32,
    next_lsn: Lsn,
    /// Header, payload and CRC of the last record; reused.
    buffer: Vec<u8>,
}

impl SegmentReader {
    /// Opens a segment. Its header page was durable before the file got its name, so anything but
    /// a valid one is corruption.
    pub(crate) fn open(fs: &dyn FileSystem, path: &Path, number: u64) -> Result<Self> {
        let file = fs.open(path)?;
        let file_bytes = file.len()?;
        let mut page = [0; SEGMENT_HEADER_BYTES];
        let read = file.read_at(0, &mut page)?;
        let at = |what: &str| Error::corrupt(format!("{}: {what}", path.display()));
        if read < SEGMENT_HEADER_BYTES {
            return Err(at("the segment is shorter than its header"));
        }
        let (header, chain) = SegmentHeader::decode(&page).map_err(|error| match error {
            Error::Corrupt { what } => at(&what),
            other => other,
        })?;
        if header.number != number {
            return Err(at(&format!("the segment's header has the number {}", header.number)));
        }
        let (offset, next_lsn) = (as_u64(SEGMENT_HEADER_BYTES), header.base_lsn);
        Ok(Self { file, header, file_bytes, offset, chain, next_lsn, buffer: Vec::new() })
    }

    /// The segment's header.
    pub(crate) const fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// The size of the segment's file.
    pub(crate) const fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Where the next record begins.
    pub(crate) const fn offset(&self) -> u64 {
        self.offset
    }

    /// The chain value after the last record.
    pub(crate) const fn chain(&self) -> u32 {
        self.chain
    }

    /// The number that the next record must have.
    pub(crate) const fn next_lsn(&self) -> Lsn {
        self.next_lsn
    }

    /// The payload of the record that [`SegmentReader::step`] returned last.
    pub(crate) fn payload(&self) -> &[u8] {
        let end = self.buffer.len().saturating_sub(RECORD_TRAILER_BYTES);
        self.buffer.get(RECORD_HEADER_BYTES..end).unwrap_or_default()
    }

    /// Reads the next record.
    ///
    /// Memory for it is taken only once its header's CRC is right and its length is within both
    /// the file and the bound of the format: no damaged length can drive an allocation.
    pub(crate) fn step(&mut self) -> Result<Step> {
        let left = self.file_bytes.saturating_sub(self.offset);
        if left == 0 {
            return Ok(Step::End);
        }
        let mut head = [0; RECORD_HEADER_BYTES];
        let read = self.file.read_at(self.offset, &mut head)?;
        if self.header.roomy && head == [0; RECORD_HEADER_BYTES] {
            return Ok(Step::End);
        }
        if read < RECORD_HEADER_BYTES {
            return Ok(Step::Bad);
        }
        let Some(header) = RecordHeader::decode(&head, self.header.generation) else {
            return Ok(Step::Bad);
        };
        let rest = header.payload_len() + RECORD_TRAILER_BYTES;
        let size = as_u64(RECORD_HEADER_BYTES + rest);
        if header.lsn != self.next_lsn || size > left {
            return Ok(Step::Bad);
        }
        self.buffer.clear();
        self.buffer.extend_from_slice(&head);
        self.buffer.resize(RECORD_HEADER_BYTES + rest, 0);
        let body = self.buffer.get_mut(RECORD_HEADER_BYTES..).unwrap_or_default();
        let body_at = self.offset + as_u64(RECORD_HEADER_BYTES);
        if self.file.read_at(body_at, body)? < rest {
            return Ok(Step::Bad);
        }
        let Some((covered, stored)) = self.buffer.split_last_chunk::<RECORD_TRAILER_BYTES>() else {
            return Ok(Step::Bad);
        };
        let crc = record_crc(self.chain, self.header.generation, covered);
        if crc != u32::from_le_bytes(*stored) && !mutated(Mutation::RecordUnchecked) {
            return Ok(Step::Bad);
        }
        self.offset += size;
        self.chain = crc;
        self.next_lsn += 1;
        Ok(Step::Record(header))
    }

    /// Searches what follows for record headers of this segment's generation, at every byte.
    ///
    /// A header whose CRC is right proves that its record was written here, and so that the LSN
    /// it states as durable was; a torn write cannot forge one. (By chance a header would pass
    /// once in 2^32 positions, and its LSN would then have to be one of the next few too.)
    ///
    /// In a file with room the size of the tail is up to the end of the last record recognised, or
    /// one header if there is none and what follows is `bad`: behind that may be anything.
    pub(crate) fn tail(&self, bad: bool) -> Result<Tail> {
        let bytes = self.file_bytes.saturating_sub(self.offset);
        let at_least = if bad { bytes.min(as_u64(RECORD_HEADER_BYTES)) } else { 0 };
        let mut tail = Tail { bytes: at_least, ..Tail::default() };
        // No more records than that fit into the tail.
        let lsn_end = self.next_lsn.saturating_add(bytes / as_u64(RECORD_HEADER_BYTES) + 1);
        let mut window = vec![0; SCAN_BYTES];
        let mut at = self.offset;
        while at < self.file_bytes {
            let read = self.file.read_at(at, &mut window)?;
            let filled = window.get(..read).unwrap_or_default();
            for (index, candidate) in filled.windows(RECORD_HEADER_BYTES).enumerate() {
                let Some(candidate) = candidate.first_chunk() else {
                    continue;
                };
                // The cheap question first: rooms of many megabytes are searched.
                let lsn = RecordHeader::lsn_of(candidate);
                if !(self.next_lsn..lsn_end).contains(&lsn) {
                    continue;
                }
                if let Some(header) = RecordHeader::decode(candidate, self.header.generation) {
                    let record = RECORD_HEADER_BYTES + header.payload_len() + RECORD_TRAILER_BYTES;
                    let end = at.saturating_add(as_u64(index + record)).min(self.file_bytes);
                    tail.bytes = tail.bytes.max(end.saturating_sub(self.offset));
                    tail.records += 1;
                    tail.durable_lsn = tail.durable_lsn.max(header.durable_lsn);
                }
            }
            if read < SCAN_BYTES {
                break;
            }
            // The last positions have been seen only in part: see them again.
            at += as_u64(SCAN_BYTES - (RECORD_HEADER_BYTES - 1));
        }
        if !self.header.roomy {
            tail.bytes = bytes;
        }
        Ok(tail)
    }
}

/// A length in memory as a length in a file.
fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
