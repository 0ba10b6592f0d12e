//! `WalOptions`, `Durability`: what a buffered store promises and how much it may hold.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::wal_buffered::Lsn;

/// What [`commit`](crate::WalBuffered::commit) promises when it returns.
///
/// | mode | it returns when | after `kill -9` | after a power cut |
/// |---|---|---|---|
/// | strict | the record is fsynced | nothing acknowledged is lost | the same |
/// | batched | the fsync of the record's group is done | nothing acknowledged is lost | the same |
/// | relaxed | the record is in the page cache | nothing acknowledged is lost | the newest batches of one interval, and at most [`UNSYNCED_BYTES_MAX`] of log |
/// | async | the record is in the process' buffer | the newest batches, at most [`BUFFERED_BYTES_MAX`] of log | back to the last checkpoint or `sync` at worst |
///
/// In every mode what survives is the state after some number of whole batches: no batch in
/// parts, none missing in between, the same number in every tree, and no action of an operator.
/// [`durable_lsn`](crate::WalBuffered::durable_lsn) says how far the promise has got;
/// [`sync`](crate::WalBuffered::sync) brings it up to date in any mode.
///
/// The interval of the relaxed mode is the time between an acknowledgement and the *start* of the
/// fsync that covers it: while the disk takes its time, so does the promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// One fsync per commit.
    Strict,
    /// Group commit: an fsync when `blocks` commits wait or the first has waited `interval_ms`.
    /// A lone caller waits the whole interval each time: this mode is for several callers.
    Batched {
        /// The size of a group.
        blocks: u32,
        /// The longest a group is held open, in milliseconds.
        interval_ms: u32,
    },
    /// A background fsync every `interval_ms` while there is something to sync.
    Relaxed {
        /// The interval in milliseconds.
        interval_ms: u32,
    },
    /// Records are gathered in memory; an fsync only by checkpoint, `sync` or a new segment.
    Async,
}

impl Default for Durability {
    /// Relaxed with 100 ms: initial block download can fetch the tail again.
    fn default() -> Self {
        Self::Relaxed { interval_ms: 100 }
    }
}

/// In relaxed mode a commit waits while more log than this is not fsynced: the bound of what a
/// power cut can take, and of the pause that one fsync can cause.
pub const UNSYNCED_BYTES_MAX: u64 = 64 << 20;

/// In async mode, how many bytes of log are gathered in memory before they are written. With more the
/// buffer leaves the processor's cache before the system copies it: slower, by a third at a megabyte.
pub const BUFFERED_BYTES_MAX: usize = 64 << 10;

/// Where the bytes of a log segment go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SegmentFiles {
    /// A file that grows with each record.
    #[default]
    Growing,
    /// A file of `segment_bytes` from the beginning, so that an fsync has no new size to record.
    Preallocated,
    /// As preallocated; and up to [`SPARE_SEGMENTS_MAX`] files of segments that are not needed any
    /// more are used again, so that an fsync has no new blocks to record either.
    Recycled,
}

/// How many files of old segments are kept for new ones.
pub const SPARE_SEGMENTS_MAX: usize = 2;

/// From this size on it pays to have a thread of its own write ([`LogWriter::Thread`]), if there is
/// a processor for it (`benches/log_writers.rs`): waking it costs some 20 microseconds, as much as the
/// system takes to copy so many bytes.
pub const HAND_OVER_BYTES: usize = 64 << 10;

/// Who hands records to the operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogWriter {
    /// The thread that commits.
    #[default]
    Direct,
    /// A thread of its own, while the committing one applies the batch to memory. A commit still
    /// returns only after what its mode promises.
    Thread {
        /// Fewer bytes than that are written by the committing thread, unless something waits: to
        /// hand them over takes longer. See [`HAND_OVER_BYTES`].
        bytes_min: usize,
    },
    /// The thread that commits, by copying into a memory mapping of the segment, which is then
    /// preallocated. Needs the cargo feature `mmap`, else it is [`LogWriter::Direct`]; a disk that
    /// fails may end the process by a signal instead of an error.
    Mapped,
}

/// How far the replay of a log is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplayProgress {
    /// Bytes of log read so far. The log is read twice: first all of it is checked, then applied.
    pub done_bytes: u64,
    /// Bytes to read in both passes, at most.
    pub total_bytes: u64,
    /// The last record applied.
    pub lsn: Lsn,
}

/// Is told how far a replay is, and may end it.
///
/// Called about every 8 MiB of log. After `Break`, opening fails with
/// [`Error::Interrupted`](crate::Error::Interrupted); nothing is lost, the next opening begins
/// where the database is.
#[derive(Clone)]
pub struct ReplayHook(Arc<dyn Fn(ReplayProgress) -> ControlFlow<()> + Send + Sync>);

impl ReplayHook {
    /// Wraps a function.
    pub fn new(call: impl Fn(ReplayProgress) -> ControlFlow<()> + Send + Sync + 'static) -> Self {
        Self(Arc::new(call))
    }

    pub(crate) fn call(&self, progress: ReplayProgress) -> ControlFlow<()> {
        (self.0)(progress)
    }
}

impl fmt::Debug for ReplayHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplayHook")
    }
}

/// Asked while the disk has too little room for a commit.
///
/// `Continue` has the room looked at again: the function should wait a while first. `Break` lets
/// the commit fail with [`Error::NoSpace`](crate::Error::NoSpace), as it does without a hook.
#[derive(Clone)]
pub struct NoSpaceHook(Arc<NoSpaceFn>);

type NoSpaceFn = dyn Fn(&Error) -> ControlFlow<()> + Send + Sync;

impl NoSpaceHook {
    /// Wraps a function; its argument is the error that the commit would end with.
    pub fn new(call: impl Fn(&Error) -> ControlFlow<()> + Send + Sync + 'static) -> Self {
        Self(Arc::new(call))
    }

    pub(crate) fn call(&self, error: &Error) -> ControlFlow<()> {
        (self.0)(error)
    }
}

impl fmt::Debug for NoSpaceHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NoSpaceHook")
    }
}

/// How a [`WalBuffered`](crate::WalBuffered) store is run.
#[derive(Debug, Clone)]
pub struct WalOptions {
    /// What a commit promises; can be changed later.
    pub durability: Durability,
    /// Memory for buffered entries, of the active and the frozen generation together: garbage,
    /// lookup tables, their copies while they grow, and the order of a write-back included. A batch
    /// that does not fit into a third of it alone is taken nevertheless.
    pub memtable_bytes: usize,
    /// Begin to write back after so many commits at the latest.
    pub flush_every_blocks: Option<u32>,
    /// Begin to write back after so much time at the latest (noticed at the next commit).
    pub flush_every: Option<Duration>,
    /// Begin to write back after so much log at the latest: bounds the time that opening takes.
    pub log_bytes_max: u64,
    /// A log segment that has reached this size is followed by a new one.
    pub segment_bytes: u64,
    /// How segments get their files.
    pub segment_files: SegmentFiles,
    /// Who writes the log.
    pub writer: LogWriter,
    /// Records whose payload has at least so many bytes are compressed with LZ4, unless that makes
    /// them no smaller. Coins hardly shrink: for slow disks and compressible values.
    pub compress_bytes_min: Option<usize>,
    /// While the log's disk would have less free space than this, the next batch and what is
    /// buffered written (and a segment allocated, where that is done ahead), what is buffered is
    /// written back, and if there is still too little,
    /// commits are refused with [`Error::NoSpace`](crate::Error::NoSpace). Nothing of the batch
    /// has been written then and nothing is poisoned: the same commit may be tried again.
    pub reserve_bytes: u64,
    /// Is asked what to do when the reserve is reached.
    pub no_space_hook: Option<NoSpaceHook>,
    /// Is told of a long replay.
    pub replay_hook: Option<ReplayHook>,
    /// Check every `put_new` against the store, at the cost of a read.
    pub verify_freshness: bool,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            memtable_bytes: 450 << 20,
            flush_every_blocks: None,
            flush_every: None,
            // At 100 MB/s of replay: forty seconds after a crash.
            log_bytes_max: 4 << 30,
            segment_bytes: 64 << 20,
            segment_files: SegmentFiles::default(),
            writer: LogWriter::default(),
            compress_bytes_min: None,
            reserve_bytes: 64 << 20,
            no_space_hook: None,
            replay_hook: None,
            verify_freshness: cfg!(debug_assertions),
        }
    }
}
