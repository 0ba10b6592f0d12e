//! `WalOptions`, `Durability`: what a buffered store promises and how much it may hold.

use std::time::Duration;

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

/// In async mode, how many bytes of log are gathered in memory before they are written.
pub const BUFFERED_BYTES_MAX: usize = 1 << 20;

/// How a [`WalBuffered`](crate::WalBuffered) store is run.
#[derive(Debug, Clone)]
pub struct WalOptions {
    /// What a commit promises; can be changed later.
    pub durability: Durability,
    /// Memory for buffered entries, of the active and the frozen generation together, allocator
    /// overhead and lookup tables included. One batch may be added on top.
    pub memtable_bytes: usize,
    /// Begin to write back after so many commits at the latest.
    pub flush_every_blocks: Option<u32>,
    /// Begin to write back after so much time at the latest (noticed at the next commit).
    pub flush_every: Option<Duration>,
    /// Begin to write back after so much log at the latest: bounds the time that opening takes.
    pub log_bytes_max: u64,
    /// A log segment that has reached this size is followed by a new one.
    pub segment_bytes: u64,
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
            verify_freshness: cfg!(debug_assertions),
        }
    }
}
