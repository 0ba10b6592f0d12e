//! `Log`: appends records to the last segment, begins segments, forgets segments.
//!
//! It decides nothing about durability: whoever owns it calls `sync_target` and fsyncs.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;

use crate::error::Result;
use crate::file_system::{File, temporary_path};
use crate::mutation::{Mutation, mutated};
use crate::wal::format::{
    BUFFER_KEPT_BYTES, Change, Encoder, Position, RECORD_HEADER_BYTES, SegmentHeader,
};
use crate::wal::place::{NewFile, Place};
use crate::wal_buffered::Lsn;

/// A random number for a new segment. The standard library seeds it from the operating system.
pub(crate) fn random_generation() -> u64 {
    if mutated(Mutation::GenerationConstant) {
        1
    } else {
        RandomState::new().build_hasher().finish()
    }
}

/// The end of a segment that this process writes.
#[derive(Debug)]
pub(crate) struct Appender {
    file: Arc<dyn File>,
    header: SegmentHeader,
    chain: u32,
    next_lsn: Lsn,
    /// Bytes written to the file.
    written: u64,
    /// Encoded records that are not yet written; reused for every record.
    buffer: Vec<u8>,
    encoder: Encoder,
    /// The file holds old records: zeros are written behind the new ones to say where they end.
    reused: bool,
}

impl Appender {
    /// Makes a segment under a temporary name. It does not exist for recovery before
    /// [`Appender::publish`].
    pub(crate) fn create(place: &Place, header: SegmentHeader) -> Result<Self> {
        let page = header.encode();
        let (_, chain) = SegmentHeader::decode(&page)?;
        let NewFile { file, reused } = place.create(header.number)?;
        let encoder = Encoder::new(place.compress_bytes_min);
        let buffer = page.to_vec();
        let next_lsn = header.base_lsn;
        Ok(Self { file, header, chain, next_lsn, written: 0, buffer, encoder, reused })
    }

    /// Makes what was appended durable and then gives the segment its name.
    pub(crate) fn publish(&mut self, place: &Place) -> Result<()> {
        self.write_out()?;
        if !mutated(Mutation::SegmentNotSynced) && !mutated(Mutation::SegmentNamedFirst) {
            self.file.sync_data()?;
        }
        let path = place.segment(self.header.number);
        place.fs.rename(&temporary_path(&path), &path)?;
        if mutated(Mutation::SegmentNamedFirst) {
            self.file.sync_data()?;
        }
        if mutated(Mutation::SegmentNameNotSynced) { Ok(()) } else { place.fs.sync_dir(&place.dir) }
    }

    /// Encodes a record into the buffer and returns its number.
    pub(crate) fn append(&mut self, durable_lsn: Lsn, change: Change<'_>) -> Result<Lsn> {
        let lsn = self.next_lsn;
        let (chain, generation) = (self.chain, self.header.generation);
        let too_high = mutated(Mutation::DurableLsnTooHigh) && durable_lsn + 1 < lsn;
        let durable_lsn = if too_high { durable_lsn + 1 } else { durable_lsn };
        let at = Position { chain, generation, lsn, durable_lsn };
        self.chain = self.encoder.encode(&mut self.buffer, at, change)?;
        self.next_lsn += 1;
        Ok(lsn)
    }

    /// How many bytes wait in the buffer.
    pub(crate) const fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Writes the buffer to the file.
    pub(crate) fn write_out(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let bytes = as_u64(self.buffer.len());
        if self.reused && !mutated(Mutation::NoZerosBehind) {
            self.buffer.extend_from_slice(&[0; RECORD_HEADER_BYTES]);
        }
        self.file.write_all_at(self.written, &self.buffer)?;
        self.written += bytes;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_KEPT_BYTES);
        Ok(())
    }

    /// The number of the last record appended, or that before the segment's first.
    pub(crate) const fn last_lsn(&self) -> Lsn {
        self.next_lsn.saturating_sub(1)
    }

    fn bytes(&self) -> u64 {
        self.written + as_u64(self.buffer.len())
    }
}

/// A segment that is written to no more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Closed {
    /// Its number.
    pub(crate) number: u64,
    /// The last record that counts.
    pub(crate) last_lsn: Lsn,
    /// Its size.
    pub(crate) bytes: u64,
}

/// All segments of a log, and the end of the last.
#[derive(Debug)]
pub(crate) struct Log {
    place: Place,
    current: Appender,
    closed: VecDeque<Closed>,
}

impl Log {
    /// Takes over the segments that recovery found, and the one it made.
    pub(crate) const fn new(place: Place, current: Appender, closed: VecDeque<Closed>) -> Self {
        Self { place, current, closed }
    }

    /// Encodes a record; `durable_lsn` is the highest LSN known to be durable. Nothing is written
    /// before [`Log::write_out`].
    pub(crate) fn append(&mut self, durable_lsn: Lsn, change: Change<'_>) -> Result<Lsn> {
        self.current.append(durable_lsn, change)
    }

    /// Hands the buffered records to the file system.
    pub(crate) fn write_out(&mut self) -> Result<()> {
        self.current.write_out()
    }

    /// Encoded bytes that were not handed to the file system yet.
    pub(crate) const fn buffered(&self) -> usize {
        self.current.buffered()
    }

    /// Hands over what is buffered; returns the file whose fsync makes everything up to the
    /// returned LSN durable.
    pub(crate) fn sync_target(&mut self) -> Result<(Arc<dyn File>, Lsn)> {
        self.current.write_out()?;
        Ok((Arc::clone(&self.current.file), self.current.last_lsn()))
    }

    /// The file whose [`File::settle`] waits for what was handed over.
    pub(crate) fn current_file(&self) -> Arc<dyn File> {
        Arc::clone(&self.current.file)
    }

    /// The size of the last segment.
    pub(crate) fn current_bytes(&self) -> u64 {
        self.current.bytes()
    }

    /// Whether the last segment has no record.
    pub(crate) const fn current_is_empty(&self) -> bool {
        self.current.next_lsn == self.current.header.base_lsn
    }

    /// Begins a new segment. The caller has fsynced the last one, and knows that the database
    /// durably holds all up to `applied_lsn`.
    pub(crate) fn rotate(&mut self, applied_lsn: Lsn) -> Result<()> {
        let old = &self.current;
        let twice = mutated(Mutation::LsnUsedTwice) && applied_lsn + 1 < old.next_lsn;
        let header = SegmentHeader {
            number: old.header.number + 1,
            base_lsn: old.next_lsn - u64::from(twice),
            generation: random_generation(),
            previous_chain: old.chain,
            applied_lsn,
            roomy: self.place.is_roomy(),
        };
        let closed =
            Closed { number: old.header.number, last_lsn: old.last_lsn(), bytes: old.bytes() };
        let mut next = Appender::create(&self.place, header)?;
        next.publish(&self.place)?;
        next.buffer = std::mem::take(&mut self.current.buffer);
        next.encoder = std::mem::take(&mut self.current.encoder);
        self.current = next;
        self.closed.push_back(closed);
        Ok(())
    }

    /// Takes the closed segments whose records are all durable in the database out of the list,
    /// oldest first. The caller removes the files, in this order.
    pub(crate) fn take_obsolete(&mut self, applied_lsn: Lsn) -> Vec<u64> {
        let applied_lsn = applied_lsn + u64::from(mutated(Mutation::ObsoleteOffByOne));
        let count = self.closed.iter().take_while(|closed| closed.last_lsn <= applied_lsn).count();
        self.closed.drain(..count).map(|closed| closed.number).collect()
    }

    /// The numbers of all segments, oldest first.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        let closed = self.closed.iter().map(|closed| closed.number);
        closed.chain([self.current.header.number]).collect()
    }

    /// The size of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.closed.iter().map(|closed| closed.bytes).sum::<u64>() + self.current.bytes()
    }

    /// The number of segments.
    pub(crate) fn segments(&self) -> usize {
        self.closed.len() + 1
    }
}

/// A length in memory as a length in a file.
fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::FileSystem as _;
    use crate::batch::Batch;
    use crate::database::Tree;
    use crate::testing::SimFileSystem;
    use crate::wal_buffered::WalOptions;

    #[test]
    fn the_memory_of_a_long_record_is_given_back() {
        let fs = Arc::new(SimFileSystem::new());
        let dir = PathBuf::from("log");
        fs.create_dir_all(&dir).unwrap();
        let options = WalOptions { compress_bytes_min: Some(0), ..WalOptions::default() };
        let place = Place::new(fs, dir, &options).unwrap();
        let header = SegmentHeader {
            number: 1,
            base_lsn: 1,
            generation: 1,
            previous_chain: 0,
            applied_lsn: 0,
            roomy: false,
        };
        let mut appender = Appender::create(&place, header).unwrap();
        let mut batch = Batch::new();
        batch.put(Tree { id: 1, name: "coins" }, b"k", &vec![0; BUFFER_KEPT_BYTES + 1]);
        appender.append(0, Change::Plain(&batch)).unwrap();
        assert!(appender.buffer.capacity() > BUFFER_KEPT_BYTES);
        appender.write_out().unwrap();
        assert!(appender.buffer.capacity() <= BUFFER_KEPT_BYTES);
    }
}
