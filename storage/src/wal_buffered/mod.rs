//! `WalBuffered`: a database over a database, with a write-ahead log and a write-back buffer.
//!
//! ```text
//! stage -> [staged batches] -commit-> log, [active] -freeze-> [frozen] -flush-> backend
//! reads:    newest first          then active    then frozen      then backend
//! ```
//!
//! Invariants:
//!
//! - The unit is the batch. Freezing, flushing and replay happen between batches, never within.
//! - A batch is in the log before it is in the active generation. Only committed batches are
//!   logged or flushed; staged ones are taken back by dropping them.
//! - *Active* changes, *frozen* never does; at most one is frozen. A frozen generation is taken
//!   out of the reads only after the backend durably holds it.
//! - Nothing of a generation reaches the backend before the log is durable up to its last batch;
//!   no log segment is removed before the backend durably holds its last record.
//! - **A value read ahead is stale once a generation that changed its key has been retired**,
//!   since nothing in memory remembers the change any more. Who reads ahead takes
//!   [`WalBuffered::epoch`] *before* the read, and reads again if the epoch has moved when the
//!   value is used and no layer in memory has overridden it. ([`ReadHandle::read_ahead`] looks
//!   closer, and reads fewer of them again.)
//! - A read of several keys sees the batches of one moment: if a generation was frozen while it
//!   went on, the backend may have shown a part of it, and it is made anew.
//! - The first failed write or fsync of log, attachments or backend poisons the store: nothing is
//!   acknowledged and nothing is written after it, reads go on.
//!
//! Locks, in the order in which they are taken: `writer` (one commit, checkpoint or clear at a
//! time; held across I/O), those of the [`Syncer`], `view` (a few lines, never across I/O), the
//! flush queue's.
//!
//! | thread | does | ends |
//! |---|---|---|
//! | `cofferdam-flush` | writes the frozen generation back | when the store is dropped |
//! | `cofferdam-fsync` | fsyncs the log in the batched and relaxed modes | the same |

mod arena;
mod commit;
mod flusher;
mod health;
mod memtable;
pub(crate) mod merge;
mod metrics;
mod open;
mod options;
mod parallel_sort;
mod read_many;
#[cfg(all(test, shuttle, feature = "testing"))]
mod schedules;
mod space;
mod staged;
mod state_rows;
mod syncer;
mod types;
mod view;

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tracing::warn;

pub use self::options::{
    BUFFERED_BYTES_MAX, Durability, HAND_OVER_BYTES, LogWriter, NoSpaceHook, ReplayHook,
    ReplayProgress, SPARE_SEGMENTS_MAX, SegmentFiles, UNSYNCED_BYTES_MAX, WalOptions,
};
pub use self::read_many::{ReadAhead, ReadHandle};
pub use self::space::wait_for_free_bytes;
pub use self::types::{Attachments, BlockBatch, Lsn, NoAttachments, Recovery, Stats, Tip, Torn};

pub(crate) use self::state_rows::StateRows;

use self::flusher::{FlushQueue, Frozen};
use self::health::{Health, PanicGuard};
use self::memtable::Lookup;
use self::merge::Merged;
use self::syncer::Syncer;
use self::view::View;
use crate::batch::Batch;
use crate::database::{Count, Database, Entries, KeyRange, Tree, check_tree};
use crate::error::Result;
use crate::file_system::{FileLock, write_atomic};
use crate::lock::{lock, read, write};
use crate::mutation::{Mutation, mutated};
use crate::sync::thread::JoinHandle;
use crate::sync::{Instant, Mutex, RwLock};
use crate::wal::Place;
use crate::wal::marker::encode_marker;

/// A crash-safe write-back buffer over a database: itself a [`Database`].
///
/// Any thread may read. Batches are staged and committed by one thread at a time, in the order of
/// the chain. Dropping the store without [`WalBuffered::shutdown`] is what a crash would be, but
/// its threads are joined: nothing that was promised is lost.
#[derive(Debug)]
pub struct WalBuffered<D: Database + 'static> {
    inner: Arc<Inner<D>>,
    threads: Vec<JoinHandle<()>>,
}

/// What the store's threads share.
#[derive(Debug)]
struct Inner<D> {
    backend: D,
    /// The trees of the backend without the reserved one.
    trees: Vec<Tree>,
    options: WalOptions,
    place: Place,
    attachments: Arc<dyn Attachments>,
    health: Arc<Health>,
    syncer: Arc<Syncer>,
    view: RwLock<View>,
    writer: Mutex<Writer>,
    queue: FlushQueue,
    /// Whether write-backs begin before memory is used up.
    flushing: AtomicBool,
    counters: Counters,
    _lock: Box<dyn FileLock>,
}

/// What the one commit at a time needs to know of the active generation.
#[derive(Debug)]
struct Writer {
    blocks: u32,
    log_bytes: u64,
    since: Instant,
}

#[derive(Debug, Default)]
struct Counters {
    commits: AtomicU64,
    flushes: AtomicU64,
    flushed_ops: AtomicU64,
    back_pressure_waits: AtomicU64,
    last_flush: Mutex<Option<Duration>>,
}

impl<D: Database + 'static> WalBuffered<D> {
    /// The tip after the last committed batch.
    #[must_use]
    pub fn tip(&self) -> Option<Tip> {
        read(&self.inner.view).tip
    }

    /// A number that moves when a generation leaves memory; see the module's invariants on values
    /// that are read ahead.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        read(&self.inner.view).epoch
    }

    /// The newest batch that survives a power cut.
    #[must_use]
    pub fn durable_lsn(&self) -> Lsn {
        self.inner.syncer.durable_lsn()
    }

    /// The tip after [`WalBuffered::durable_lsn`].
    #[must_use]
    pub fn durable_tip(&self) -> Option<Tip> {
        self.inner.syncer.durable_tip()
    }

    /// Makes every committed batch durable, in the log.
    ///
    /// # Errors
    ///
    /// If that failed; the store is then poisoned.
    pub fn sync(&self) -> Result<()> {
        self.inner.syncer.sync()
    }

    /// Lets generations be written back in the background again.
    pub fn start_flushing(&self) {
        self.inner.flushing.store(true, Ordering::Relaxed);
    }

    /// Waits for the write-back in flight, and begins no other but when memory or the disk's space is
    /// used up or a checkpoint is asked for: for a time in which the disk is wanted for something else.
    ///
    /// # Errors
    ///
    /// If the store is poisoned.
    pub fn stop_flushing(&self) -> Result<()> {
        self.inner.flushing.store(false, Ordering::Relaxed);
        let _no_commit = lock(&self.inner.writer);
        self.inner.queue.wait_idle(&self.inner.health)
    }

    /// Changes what later commits promise.
    pub fn set_durability(&self, durability: Durability) {
        self.inner.syncer.set_mode(durability);
    }

    /// Writes every committed batch to the backend, durably, and empties the log.
    ///
    /// # Errors
    ///
    /// If that failed; the store is then poisoned.
    pub fn checkpoint(&self) -> Result<()> {
        let mut writer = lock(&self.inner.writer);
        self.inner.checkpoint(&mut writer)
    }

    /// Closes the store: drops what is staged, writes everything committed to the backend, and
    /// leaves an empty log with a marker, so that opening has nothing to do.
    ///
    /// # Errors
    ///
    /// If that failed; what was promised is kept, and the next opening replays the log.
    pub fn shutdown(mut self) -> Result<()> {
        let _dropped = self.abort_staged();
        if mutated(Mutation::MarkerBeforeCheckpoint) {
            let marker = encode_marker(read(&self.inner.view).lsn);
            write_atomic(&*self.inner.place.fs, &self.inner.place.marker(), &marker)?;
        }
        self.checkpoint()?;
        self.join();
        let inner = &self.inner;
        let (numbers, applied) =
            (inner.syncer.with_log(|log| log.numbers()), read(&inner.view).applied);
        inner.health.guard(|| {
            let fs = &*inner.place.fs;
            if mutated(Mutation::SegmentsBeforeMarker) {
                inner.place.remove(&numbers)?;
                return write_atomic(fs, &inner.place.marker(), &encode_marker(applied));
            }
            write_atomic(fs, &inner.place.marker(), &encode_marker(applied))?;
            inner.place.remove(&numbers)
        })
    }

    /// Counters and sizes.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let inner = &self.inner;
        let as_u64 = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let mut stats = Stats::default();
        {
            let view = read(&inner.view);
            let frozen = view.frozen.as_ref().map(|frozen| &frozen.table);
            stats.active_bytes = as_u64(view.active.bytes());
            stats.frozen_bytes = as_u64(frozen.map_or(0, memtable::Memtable::bytes));
            let frozen_len = frozen.map_or(0, memtable::Memtable::len);
            stats.entries = as_u64(view.active.len() + frozen_len);
            (stats.lsn, stats.applied_lsn) = (view.lsn, view.applied);
        }
        // After the view: what is applied is durable, and must not be seen before it. A commit that
        // came between is left out of both.
        stats.durable_lsn = inner.syncer.durable_lsn().min(stats.lsn);
        (stats.log_bytes, stats.segments) =
            inner.syncer.with_log(|log| (log.bytes(), as_u64(log.segments())));
        let counters = &inner.counters;
        stats.commits = counters.commits.load(Ordering::Relaxed);
        stats.flushes = counters.flushes.load(Ordering::Relaxed);
        stats.flushed_ops = counters.flushed_ops.load(Ordering::Relaxed);
        stats.back_pressure_waits = counters.back_pressure_waits.load(Ordering::Relaxed);
        stats.last_flush = *lock(&counters.last_flush);
        stats
    }

    /// Ends the threads.
    fn join(&mut self) {
        self.inner.queue.stop();
        self.inner.syncer.stop();
        for thread in mem::take(&mut self.threads) {
            if thread.join().is_err() {
                warn!("a thread of the store had panicked");
            }
        }
    }
}

impl<D: Database + 'static> Drop for WalBuffered<D> {
    fn drop(&mut self) {
        self.join();
    }
}

impl<D: Database> Inner<D> {
    /// The body of the flush thread.
    fn run_flusher(&self) {
        let _guard = PanicGuard(&self.health);
        while let Some(frozen) = self.queue.next() {
            let started = Instant::now();
            match self.flush(&frozen) {
                Ok(ops) => {
                    *lock(&self.counters.last_flush) = Some(started.elapsed());
                    metrics::flush(started.elapsed(), ops);
                    self.counters.flushes.fetch_add(1, Ordering::Relaxed);
                    self.counters.flushed_ops.fetch_add(ops, Ordering::Relaxed);
                    drop(frozen);
                    let removed = self.remove_obsolete_segments();
                    self.queue.done();
                    if removed.is_err() {
                        // It is in `health`: nothing is handed over any more.
                        return;
                    }
                }
                // The generation stays readable; the failure is in `health`.
                Err(_) => {
                    self.queue.wake_waiters();
                    return;
                }
            }
        }
    }

    /// Steps 1 to 4 of a write-back (see `flusher`).
    fn flush(&self, frozen: &Frozen) -> Result<u64> {
        let before_log = mutated(Mutation::WriteBackBeforeLog);
        if self.syncer.durable_lsn() < frozen.lsn && !before_log {
            self.syncer.sync()?;
        }
        self.health.check()?;
        let stop = self.queue.stop_flag();
        if mutated(Mutation::SegmentsRemovedEarly) {
            let numbers = self.syncer.with_log(|log| log.take_obsolete(frozen.lsn));
            self.place.retire(&numbers)?;
            self.place.sync_names(&numbers)?;
        }
        if mutated(Mutation::RetiredEarly) {
            write(&self.view).frozen = None;
        }
        let written = self.attachments.sync().and_then(|()| frozen.write_back(&self.backend, stop));
        if let Err(error) = &written
            && !stop.load(Ordering::Relaxed)
        {
            self.health.poison(&error.chain());
        }
        let ops = written?;
        let retired = {
            let mut view = write(&self.view);
            view.epoch += u64::from(!mutated(Mutation::EpochNotMoved));
            view.applied = frozen.lsn;
            view.retire()
        };
        drop(retired);
        Ok(ops)
    }

    /// Step 5 of a write-back. A segment that cannot be removed costs space, no correctness: the
    /// next opening removes it. A failed fsync of their directory poisons: it may have been the
    /// only one to tell of the lost name of a new segment, whose own fsync then succeeds.
    fn remove_obsolete_segments(&self) -> Result<()> {
        let applied = read(&self.view).applied;
        let numbers = self.syncer.with_log(|log| log.take_obsolete(applied));
        if let Err(error) = self.place.retire(&numbers) {
            warn!(error = error.chain(), "cannot remove log segments that are not needed any more");
        }
        self.health.guard(|| self.place.sync_names(&numbers))
    }
}

impl<D: Database> Inner<D> {
    /// The values of keys: memory first, then the backend for what memory does not know.
    fn multi_get(&self, tree: Tree, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>> {
        let mut values = vec![None; keys.len()];
        let mut missing = Vec::new();
        {
            let view = read(&self.view);
            for (key, value) in keys.iter().zip(&mut values) {
                match view.get(tree.id, key) {
                    Lookup::Value(found) => *value = Some(found.to_vec()),
                    Lookup::Deleted => {}
                    Lookup::Unknown => missing.push((*key, value)),
                }
            }
        }
        let missing_keys: Vec<&[u8]> = missing.iter().map(|(key, _)| *key).collect();
        let found = self.backend.multi_get(tree, &missing_keys)?;
        for ((_, value), found) in missing.into_iter().zip(found) {
            *value = found;
        }
        Ok(values)
    }

    /// The entries of a range, of memory and the backend.
    fn range(&self, tree: Tree, range: &KeyRange) -> Result<Merged<'_>> {
        // Memory before the backend: a generation retired in between is then seen twice, not
        // never.
        let (mut buffered, frozen) = {
            let view = read(&self.view);
            (view.collect(tree.id, range), view.frozen.clone())
        };
        if let Some(frozen) = frozen {
            frozen.collect_below(tree.id, range, &mut buffered);
        }
        let backend = self.backend.range(tree, range.clone())?;
        Ok(Merged::new(buffered, backend))
    }
}

impl<D: Database + 'static> Database for WalBuffered<D> {
    fn trees(&self) -> &[Tree] {
        &self.inner.trees
    }

    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.inner.get(tree, key)
    }

    /// The values are those at one moment: no part of a batch is seen without the rest.
    fn multi_get(&self, tree: Tree, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>> {
        check_tree(&self.inner.trees, tree.id)?;
        self.inner.at_one_moment(|| self.inner.multi_get(tree, keys))
    }

    /// Copies what is buffered for the range, in time proportional to what is buffered for the
    /// tree: a long iteration is cheapest after a checkpoint.
    ///
    /// The entries are those at one moment if the engine's iterators are snapshots: those of
    /// memory and RocksDB are.
    fn range(&self, tree: Tree, range: KeyRange) -> Result<Entries<'_>> {
        check_tree(&self.inner.trees, tree.id)?;
        if range.is_empty() {
            return Ok(Box::new(std::iter::empty()));
        }
        let merged = self.inner.at_one_moment(|| self.inner.range(tree, &range))?;
        Ok(Box::new(merged))
    }

    fn len(&self, tree: Tree) -> Result<Count> {
        check_tree(&self.inner.trees, tree.id)?;
        let (touched, (added, removed)) = {
            let view = read(&self.inner.view);
            (view.touches(tree.id), view.added_and_removed(tree.id))
        };
        match self.inner.backend.len(tree)? {
            count if !touched => Ok(count),
            Count::Exact(n) | Count::Estimate(n) => {
                Ok(Count::Estimate(n.saturating_add(added).saturating_sub(removed)))
            }
        }
    }

    /// Checkpoints, then clears the backend's tree, durably.
    fn clear(&self, tree: Tree) -> Result<()> {
        self.inner.clear(tree)
    }

    /// Commits the batch with the tip left as it is. Refused while batches are staged.
    fn apply(&self, batch: &Batch) -> Result<()> {
        self.inner.commit_plain(batch)
    }

    /// As [`WalBuffered::checkpoint`].
    fn flush(&self) -> Result<()> {
        self.checkpoint()
    }

    fn batch_ops_max(&self) -> usize {
        self.inner.backend.batch_ops_max()
    }

    fn iterates_over_snapshots(&self) -> bool {
        self.inner.backend.iterates_over_snapshots()
    }
}
