//! `LogRecords`: the records of a log one by one, for people. Reads only.

use std::path::{Path, PathBuf};
use std::vec::IntoIter;

use crate::batch::{Batch, Op};
use crate::error::Result;
use crate::file_system::FileSystem;
use crate::wal::format::{Payload, segment_name};
use crate::wal::inspect::list_segments;
use crate::wal::reader::{SegmentReader, Step};
use crate::wal_buffered::{Lsn, Tip};

/// A record of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// The segment it is in.
    pub segment: u64,
    /// Where in the segment's file it begins.
    pub offset: u64,
    /// Its number.
    pub lsn: Lsn,
    /// The highest record that was known to be durable when it was written.
    pub durable_lsn: Lsn,
    /// The size of its payload in the file.
    pub payload_bytes: u64,
    /// A block's tip, and the hash of the tip before it; none for a plain batch.
    pub block: Option<(Tip, [u8; 32])>,
    /// Its writes.
    pub batch: Batch,
}

/// How many writes of each kind a record has for one tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TreeOps {
    /// The tree's id.
    pub tree_id: u8,
    /// `put`.
    pub puts: u64,
    /// `put_new`.
    pub put_news: u64,
    /// `delete`.
    pub deletes: u64,
}

impl LogRecord {
    /// Its writes counted by tree, in order of the trees' ids.
    #[must_use]
    pub fn ops_by_tree(&self) -> Vec<TreeOps> {
        let mut counts: Vec<TreeOps> = Vec::new();
        for op in self.batch.ops() {
            let tree_id = op.tree_id();
            let at = counts.partition_point(|count| count.tree_id < tree_id);
            if counts.get(at).is_none_or(|count| count.tree_id != tree_id) {
                counts.insert(at, TreeOps { tree_id, ..TreeOps::default() });
            }
            if let Some(count) = counts.get_mut(at) {
                match op {
                    Op::Put { .. } => count.puts += 1,
                    Op::PutNew { .. } => count.put_news += 1,
                    Op::Delete { .. } => count.deletes += 1,
                }
            }
        }
        counts
    }
}

/// The valid records of a log from a number on, in order. One is in memory at a time.
///
/// A segment is left at its first damage without a word, which is for
/// [`inspect_log`](crate::inspect_log) to explain. After an error, as for a header that is not
/// valid, the next segment follows.
#[derive(Debug)]
pub struct LogRecords<'a> {
    fs: &'a dyn FileSystem,
    dir: PathBuf,
    from_lsn: Lsn,
    numbers: IntoIter<u64>,
    /// The segment that is read, and where the one after it takes over.
    current: Option<(SegmentReader, Option<Lsn>)>,
}

impl<'a> LogRecords<'a> {
    /// The records of the log in `dir` from number `from_lsn` on.
    ///
    /// # Errors
    ///
    /// [`Error::Misuse`](crate::Error::Misuse) if there is something else in `dir` than a log; or if the file system
    /// fails.
    pub fn open(fs: &'a dyn FileSystem, dir: &Path, from_lsn: Lsn) -> Result<Self> {
        let (numbers, _) = list_segments(fs, dir)?;
        let (dir, numbers) = (dir.to_path_buf(), numbers.into_iter());
        Ok(Self { fs, dir, from_lsn, numbers, current: None })
    }

    /// Goes to the next segment with a record that is asked for; `false` if there is none.
    fn next_segment(&mut self) -> Result<bool> {
        self.current = None;
        while let Some(number) = self.numbers.next() {
            let reader = self.reader(number)?;
            // A damaged header ends nothing here: it is an error when its turn comes.
            let next = self.numbers.as_slice().first().filter(|next| **next == number + 1);
            let next = next.and_then(|next| self.reader(*next).ok());
            let next_base = next.map(|next| next.header().base_lsn);
            if next_base.is_none_or(|next_base| next_base > self.from_lsn) {
                self.current = Some((reader, next_base));
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn reader(&self, number: u64) -> Result<SegmentReader> {
        SegmentReader::open(self.fs, &self.dir.join(segment_name(number)), number)
    }

    /// The next record of the current segment that is asked for.
    fn next_in_segment(&mut self) -> Result<Option<LogRecord>> {
        let Some((reader, next_base)) = &mut self.current else {
            return Ok(None);
        };
        while next_base.is_none_or(|next_base| reader.next_lsn() < next_base) {
            let offset = reader.offset();
            let Step::Record(header) = reader.step()? else {
                return Ok(None);
            };
            if header.lsn < self.from_lsn {
                continue;
            }
            let (block, batch) = match Payload::decode(&header, reader.payload())? {
                Payload::Block(block) => (Some((block.tip, block.prev_hash)), block.batch),
                Payload::Plain(batch) => (None, batch),
            };
            return Ok(Some(LogRecord {
                segment: reader.header().number,
                offset,
                lsn: header.lsn,
                durable_lsn: header.durable_lsn,
                payload_bytes: u64::from(header.length),
                block,
                batch,
            }));
        }
        Ok(None)
    }
}

impl Iterator for LogRecords<'_> {
    type Item = Result<LogRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_in_segment() {
                Ok(Some(record)) => return Some(Ok(record)),
                Ok(None) => {}
                Err(error) => {
                    self.current = None;
                    return Some(Err(error));
                }
            }
            match self.next_segment() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
