//! The values that go in and out of a buffered store: batches, tips, reports.

use std::fmt::Debug;
use std::time::Duration;

use crate::batch::Batch;
use crate::error::Result;

/// A log sequence number: the number of a committed batch, from 1 on; 0 is "none".
///
/// Numbers are contiguous. One that was given to a record which a power cut then took is given
/// again, always in a segment of a new generation, so that the lost record's bytes can never pass
/// for the new one's.
pub type Lsn = u64;

/// The end of the chain that a state belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tip {
    /// How many links the chain has.
    pub height: u32,
    /// The name of the last link.
    pub hash: [u8; 32],
}

/// All that one step along the chain changes: committed, logged, flushed and replayed whole.
///
/// A step back (a block is disconnected) is a `BlockBatch` too: its tip is the parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockBatch {
    /// The tip after the batch.
    pub tip: Tip,
    /// The hash of the tip before the batch; zeros if there was none.
    pub prev_hash: [u8; 32],
    /// The changes.
    pub batch: Batch,
}

/// Data outside the store that log records refer to, such as block files.
///
/// The log never becomes durable before what it refers to: `sync` is called before every fsync of
/// the log and before every write-back.
pub trait Attachments: Debug + Send + Sync {
    /// Makes everything durable that was attached before the call.
    ///
    /// At opening it is called once after `rewrite` was called for the records that are not proven
    /// durable, and must then cover what these refer to.
    ///
    /// # Errors
    ///
    /// If that failed; the store is then poisoned.
    fn sync(&self) -> Result<()>;

    /// Returns whether all that `batch` refers to is there; asked at replay.
    ///
    /// If it is not, and the record was never promised to be durable, the log is cut before it;
    /// if it was promised, opening fails with [`Error::Corrupt`](crate::Error::Corrupt).
    ///
    /// # Errors
    ///
    /// If it cannot be found out; opening fails.
    fn intact(&self, batch: &BlockBatch) -> Result<bool>;

    /// Writes all that `batch` refers to again, where it is. Called at opening for the records
    /// that are intact but not proven durable: the process that wrote this may have been killed,
    /// and may have seen an fsync fail, after which the system shows bytes that never reach the
    /// disk. See [`FlatFiles::rewrite`](crate::FlatFiles::rewrite).
    ///
    /// # Errors
    ///
    /// If that failed; opening fails.
    fn rewrite(&self, batch: &BlockBatch) -> Result<()>;
}

/// For stores whose records refer to nothing outside.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoAttachments;

impl Attachments for NoAttachments {
    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn intact(&self, _: &BlockBatch) -> Result<bool> {
        Ok(true)
    }

    fn rewrite(&self, _: &BlockBatch) -> Result<()> {
        Ok(())
    }
}

/// What was found when a store was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// The store had been shut down: there was nothing to replay.
    pub clean: bool,
    /// Records replayed.
    pub records: u64,
    /// Bytes of log replayed.
    pub bytes: u64,
    /// The number of the newest batch that the database itself held.
    pub from_lsn: Lsn,
    /// The number of the newest batch of the state that was opened.
    pub to_lsn: Lsn,
    /// What was cut off at the end of the log.
    pub torn: Option<Torn>,
    /// The tip of the state that was opened.
    pub tip: Option<Tip>,
    /// How long it took.
    pub elapsed: Duration,
}

/// A tail of the log that was cut off: batches that were never promised to be durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Torn {
    /// How many bytes were cut off.
    pub bytes: u64,
    /// How many records could still be recognised among them, by an intact header.
    pub records: u64,
}

/// Counters and sizes of a running store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Memory of the active generation, overhead included.
    pub active_bytes: u64,
    /// Memory of the generation that is being written back.
    pub frozen_bytes: u64,
    /// Keys buffered in both.
    pub entries: u64,
    /// Bytes of log on disk.
    pub log_bytes: u64,
    /// Number of log segments.
    pub segments: u64,
    /// Batches committed since opening.
    pub commits: u64,
    /// Generations written back since opening.
    pub flushes: u64,
    /// Operations written to the backend since opening.
    pub flushed_ops: u64,
    /// Commits that had to wait for a write-back to end.
    pub back_pressure_waits: u64,
    /// How long the last write-back took.
    pub last_flush: Option<Duration>,
    /// The newest committed batch.
    pub lsn: Lsn,
    /// The newest batch that survives a power cut.
    pub durable_lsn: Lsn,
    /// The newest batch that the backend holds.
    pub applied_lsn: Lsn,
}
