//! Writing a generation back: sorted, in atomic batches, then durable; and the thread that does it.
//!
//! Order of events, each durable before the next begins:
//!
//! 1. what the log refers to; the log up to the generation's last record;
//! 2. all batches but the last: changes without the `applied` row. They can be repeated, and a
//!    reader never sees them: the generation answers for all its keys until step 4;
//! 3. the last batch: the rest of the changes, and the rows that say how far the database is;
//!    (An engine that can take all in one step, [`Database::apply_sorted`], does 2 and 3 at once.)
//! 4. the generation is taken out of the reads, and the epoch moves;
//! 5. the log segments whose records are all in the database are removed, oldest first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::batch::{Batch, Op};
use crate::database::Database;
use crate::error::{Error, Result};
use crate::lock::{lock, wait, wait_polling};
use crate::mutation::{Mutation, mutated};
use crate::sync::{Condvar, Mutex};
use crate::wal_buffered::health::Health;
use crate::wal_buffered::memtable::Memtable;
use crate::wal_buffered::state_rows::{ROWS, StateRows};
use crate::wal_buffered::{Lsn, Tip};

/// A batch of a write-back is closed when it has that many bytes: the engine copies it.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Room for the operation with which a batch becomes too long, unless its value is longer still.
const BATCH_SLACK_BYTES: usize = 64 << 10;

/// A generation that is written back.
#[derive(Debug)]
pub(crate) struct Frozen {
    /// Its entries.
    pub(crate) table: Memtable,
    /// The last batch in it.
    pub(crate) lsn: Lsn,
    /// The tip after that batch.
    pub(crate) tip: Option<Tip>,
}

impl Frozen {
    /// Writes the generation to a backend, durably. Returns the number of operations; fails if
    /// `stop` is set in between, which leaves what a crash would leave.
    pub(crate) fn write_back(&self, backend: &dyn Database, stop: &AtomicBool) -> Result<u64> {
        if self.write_back_at_once(backend, stop)? {
            return Ok(u64::try_from(self.table.len()).unwrap_or(u64::MAX));
        }
        self.write_back_by_batches(backend, stop)
    }

    /// Steps 2 and 3 in one, if the engine can do that.
    fn write_back_at_once(&self, backend: &dyn Database, stop: &AtomicBool) -> Result<bool> {
        let mut rows = Batch::new();
        StateRows::put_applied(&mut rows, self.lsn, self.tip);
        let mut rows: Vec<Op<'_>> = rows.ops().collect();
        // The state tree is the first one.
        rows.sort_unstable_by_key(Op::key);
        let ops = rows.into_iter().chain(self.table.sorted_ops());
        let mut until_stop =
            ops.map(|op| if stop.load(Ordering::Relaxed) { Err(stopped()) } else { Ok(op) });
        backend.apply_sorted(&mut until_stop, self.table.len() + ROWS)
    }

    fn write_back_by_batches(&self, backend: &dyn Database, stop: &AtomicBool) -> Result<u64> {
        let ops_max = backend.batch_ops_max().saturating_sub(ROWS).max(1);
        // With its memory at once: a buffer that doubles as it grows would take twice as much.
        let bytes = self.table.bytes().min(BATCH_BYTES_MAX) + BATCH_SLACK_BYTES;
        let (mut batch, mut ops, mut several) = (Batch::with_capacity(bytes), 0, false);
        for op in self.table.sorted_ops() {
            if batch.len() >= ops_max || batch.byte_len() >= BATCH_BYTES_MAX {
                if stop.load(Ordering::Relaxed) {
                    return Err(stopped());
                }
                StateRows::put_writing(&mut batch, self.lsn);
                if !several && mutated(Mutation::AppliedInFirstBatch) {
                    StateRows::put_applied(&mut batch, self.lsn, self.tip);
                }
                backend.apply(&batch)?;
                batch.clear();
                several = true;
            }
            batch.push_op(op);
            ops += 1;
        }
        if several && !mutated(Mutation::NoFlushBeforeLast) {
            // The last batch says that all are there: none of them may be lost if it is not.
            backend.flush()?;
        }
        StateRows::put_applied(&mut batch, self.lsn, self.tip);
        backend.apply(&batch)?;
        if !mutated(Mutation::NoFlushAfterLast) {
            backend.flush()?;
        }
        Ok(ops)
    }
}

/// The error of a write-back that was told to stop.
fn stopped() -> Error {
    Error::misuse("the store is being closed")
}

/// Hands generations to the flush thread, one at a time.
#[derive(Debug, Default)]
pub(crate) struct FlushQueue {
    job: Mutex<Job>,
    changed: Condvar,
    stop: AtomicBool,
}

#[derive(Debug, Default)]
struct Job {
    frozen: Option<Arc<Frozen>>,
    stop: bool,
}

impl FlushQueue {
    /// Whether a generation is being written back.
    pub(crate) fn is_busy(&self) -> bool {
        lock(&self.job).frozen.is_some()
    }

    /// Hands a generation over. The caller has seen that none is in flight and lets nobody else
    /// hand one over.
    pub(crate) fn submit(&self, frozen: Arc<Frozen>) {
        lock(&self.job).frozen = Some(frozen);
        self.changed.notify_all();
    }

    /// Waits until no generation is in flight.
    pub(crate) fn wait_idle(&self, health: &Health) -> Result<()> {
        let mut job = lock(&self.job);
        while job.frozen.is_some() {
            health.check()?;
            job = wait_polling(&self.changed, job);
        }
        health.check()
    }

    /// The next generation; none when the thread has to end.
    pub(crate) fn next(&self) -> Option<Arc<Frozen>> {
        let mut job = lock(&self.job);
        loop {
            if job.stop {
                return None;
            }
            if let Some(frozen) = &job.frozen {
                return Some(Arc::clone(frozen));
            }
            job = wait(&self.changed, job);
        }
    }

    /// The generation in flight is done.
    pub(crate) fn done(&self) {
        lock(&self.job).frozen = None;
        self.changed.notify_all();
    }

    /// The generation in flight failed: whoever waits for it looks at the store's health.
    pub(crate) fn wake_waiters(&self) {
        // With the lock: who has just looked holds it until it waits.
        let _job = lock(&self.job);
        self.changed.notify_all();
    }

    /// Lets the thread end; a write-back in flight ends between two batches.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        lock(&self.job).stop = true;
        self.changed.notify_all();
    }

    /// Set when a write-back is to end early.
    pub(crate) const fn stop_flag(&self) -> &AtomicBool {
        &self.stop
    }
}
