//! `Syncer`: owns the log, and knows how much of it is durable.
//!
//! Locks, in the order in which they are taken: `fsync` (one fsync at a time, held across it; two
//! at once on one file would share one error report), `log` (held while records are encoded and
//! written), `state` (a few lines, never across I/O).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::lock::{lock, wait, wait_polling};
use crate::mutation::{Mutation, mutated};
use crate::sync::{Condvar, Instant, Mutex, wait_timeout};
use crate::wal::Log;
use crate::wal::format::Change;
use crate::wal_buffered::health::{Health, PanicGuard};
use crate::wal_buffered::metrics;
use crate::wal_buffered::{
    Attachments, BUFFERED_BYTES_MAX, Durability, Lsn, Tip, UNSYNCED_BYTES_MAX,
};

/// How long a commit of another mode may stay unsynced after a change to `strict`.
const STRICT_SWEEP: Duration = Duration::from_millis(10);

/// The log and its durability.
#[derive(Debug)]
pub(crate) struct Syncer {
    health: Arc<Health>,
    attachments: Arc<dyn Attachments>,
    fsync: Mutex<()>,
    log: Mutex<Log>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    mode: Durability,
    /// The fsync thread waits: it has to be told of work. Telling it for nothing costs a system
    /// call a commit.
    idle: bool,
    stop: bool,
    durable_lsn: Lsn,
    durable_tip: Option<Tip>,
    /// Bytes appended since opening, and how many of them are durable.
    appended_bytes: u64,
    durable_bytes: u64,
    pending: VecDeque<Pending>,
}

/// A record that is not known to be durable.
#[derive(Debug)]
struct Pending {
    lsn: Lsn,
    tip: Option<Tip>,
    /// `appended_bytes` after it.
    end_bytes: u64,
    since: Instant,
}

impl Syncer {
    /// Takes over a log all of which is durable.
    pub(crate) const fn new(
        health: Arc<Health>,
        attachments: Arc<dyn Attachments>,
        log: Log,
        mode: Durability,
        durable: (Lsn, Option<Tip>),
    ) -> Self {
        let state = State {
            mode,
            idle: false,
            stop: false,
            durable_lsn: durable.0,
            durable_tip: durable.1,
            appended_bytes: 0,
            durable_bytes: 0,
            pending: VecDeque::new(),
        };
        Self {
            health,
            attachments,
            fsync: Mutex::new(()),
            log: Mutex::new(log),
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Appends a record and hands it to the file system, or in async mode to the buffer. The
    /// caller lets one commit at a time in.
    pub(crate) fn append(&self, change: Change<'_>, tip: Option<Tip>) -> Result<Lsn> {
        let (mode, durable_lsn) = {
            let state = lock(&self.state);
            (state.mode, state.durable_lsn)
        };
        let appended = self.health.guard(|| {
            let mut log = lock(&self.log);
            let lsn = log.append(durable_lsn, change)?;
            let keep = mode == Durability::Async
                || (mutated(Mutation::RelaxedNotWritten)
                    && matches!(mode, Durability::Relaxed { .. }));
            if !keep || log.buffered() >= BUFFERED_BYTES_MAX {
                log.write_out()?;
            }
            // Before the log is let go: a sync that covers the record must find it pending.
            Ok((lsn, lock(&self.state).add_pending(lsn, change, tip)))
        });
        let (lsn, wake) = self.settled(appended)?;
        if wake {
            self.changed.notify_all();
        }
        Ok(lsn)
    }

    /// A failure is told only when the log's writing thread has nothing left to write: what came
    /// to the log after that would be written by a store that refuses to write.
    fn settled<T>(&self, result: Result<T>) -> Result<T> {
        result.inspect_err(|_| {
            let file = lock(&self.log).current_file();
            // The store is poisoned already; a second failure adds nothing.
            let _ = file.settle();
        })
    }

    /// Returns when a record is as durable as the mode promises at the end of a commit.
    pub(crate) fn wait_promised(&self, lsn: Lsn) -> Result<()> {
        self.settled(self.wait_kept(lsn))
    }

    fn wait_kept(&self, lsn: Lsn) -> Result<()> {
        if matches!(lock(&self.state).mode, Durability::Relaxed { .. }) {
            let file = lock(&self.log).current_file();
            self.health.guard(|| file.settle())?;
        }
        let mut state = lock(&self.state);
        loop {
            let kept = match state.mode {
                Durability::Strict if mutated(Mutation::StrictNotAwaited) => true,
                Durability::Batched { .. } if mutated(Mutation::BatchedNotAwaited) => true,
                Durability::Strict | Durability::Batched { .. } => state.durable_lsn >= lsn,
                Durability::Relaxed { .. } => state.unsynced_bytes() <= UNSYNCED_BYTES_MAX,
                Durability::Async => true,
            };
            if kept {
                return Ok(());
            }
            self.health.check()?;
            if state.mode == Durability::Strict {
                drop(state);
                return self.sync_up_to(lsn);
            }
            state = wait_polling(&self.changed, state);
        }
    }

    /// Makes every appended record durable, and what it refers to before it.
    pub(crate) fn sync(&self) -> Result<()> {
        self.sync_up_to(Lsn::MAX)
    }

    /// As `sync`, unless the fsync of somebody else has made the record durable meanwhile: commits
    /// that wait for one fsync share the next.
    fn sync_up_to(&self, lsn: Lsn) -> Result<()> {
        let _one_at_a_time = lock(&self.fsync);
        if self.durable_lsn() >= lsn {
            return Ok(());
        }
        let synced = self.health.guard(|| self.sync_alone());
        if synced.is_err() {
            self.wake_all();
        }
        self.settled(synced)
    }

    /// Lets everybody who waits look at the store's health. With the lock: who has just looked
    /// holds it until it waits.
    fn wake_all(&self) {
        let _state = lock(&self.state);
        self.changed.notify_all();
    }

    /// As `sync`; the caller holds `fsync`.
    fn sync_alone(&self) -> Result<()> {
        let (file, lsn) = lock(&self.log).sync_target()?;
        let before = self.durable_lsn();
        if lsn > before {
            if !mutated(Mutation::AttachmentsNotSynced) {
                self.attachments.sync()?;
            }
            let since = Instant::now();
            if mutated(Mutation::DurableBeforeSync) {
                lock(&self.state).advance(lsn);
            }
            let synced = file.sync_data();
            let again = synced.is_err() && mutated(Mutation::SyncTriedAgain);
            if again { file.sync_data() } else { synced }?;
            metrics::fsync(since.elapsed(), lsn - before);
            lock(&self.state).advance(lsn);
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Makes everything durable and begins a new segment, unless the last one has no record yet.
    /// The caller lets no commit in.
    pub(crate) fn rotate(&self, applied_lsn: Lsn) -> Result<()> {
        let _one_at_a_time = lock(&self.fsync);
        self.health.guard(|| {
            if mutated(Mutation::SealWithoutSync) {
                lock(&self.log).write_out()?;
            } else {
                self.sync_alone()?;
            }
            let mut log = lock(&self.log);
            if log.current_is_empty() { Ok(()) } else { log.rotate(applied_lsn) }
        })
    }

    /// A look at the log.
    pub(crate) fn with_log<T>(&self, look: impl FnOnce(&mut Log) -> T) -> T {
        look(&mut lock(&self.log))
    }

    /// The newest record that survives a power cut.
    pub(crate) fn durable_lsn(&self) -> Lsn {
        lock(&self.state).durable_lsn
    }

    /// The tip after it.
    pub(crate) fn durable_tip(&self) -> Option<Tip> {
        lock(&self.state).durable_tip
    }

    /// Changes what later commits promise.
    pub(crate) fn set_mode(&self, mode: Durability) {
        lock(&self.state).mode = mode;
        self.changed.notify_all();
    }

    /// Lets [`Syncer::run`] return.
    pub(crate) fn stop(&self) {
        lock(&self.state).stop = true;
        self.changed.notify_all();
    }

    /// The body of the thread that syncs what commits do not sync themselves.
    pub(crate) fn run(&self) {
        let _guard = PanicGuard(&self.health);
        let mut state = lock(&self.state);
        while !state.stop && self.health.check().is_ok() {
            state.idle = true;
            state = match state.due() {
                None => wait(&self.changed, state),
                Some(due) => match due.checked_duration_since(Instant::now()) {
                    Some(left) if !left.is_zero() => {
                        wait_timeout(&self.changed, &self.state, state, left)
                    }
                    _ => {
                        state.idle = false;
                        drop(state);
                        // A failure has poisoned the store, which ends the loop.
                        if self.sync().is_err() {
                            return;
                        }
                        lock(&self.state)
                    }
                },
            };
        }
        // Who waits for this thread must not wait for one that has ended.
        self.changed.notify_all();
    }
}

impl State {
    fn unsynced_bytes(&self) -> u64 {
        self.appended_bytes.saturating_sub(self.durable_bytes)
    }

    /// When the next background fsync has to begin; never while nothing waits for one.
    fn due(&self) -> Option<Instant> {
        let oldest = self.pending.front()?.since;
        let after = |interval_ms: u32| Some(oldest + Duration::from_millis(u64::from(interval_ms)));
        match self.mode {
            Durability::Async => None,
            Durability::Strict => Some(oldest + STRICT_SWEEP),
            Durability::Batched { blocks, interval_ms } => {
                let group = usize::try_from(blocks).unwrap_or(usize::MAX);
                if self.pending.len() >= group { Some(oldest) } else { after(interval_ms) }
            }
            Durability::Relaxed { interval_ms } => {
                let much = self.unsynced_bytes() > UNSYNCED_BYTES_MAX / 2;
                if much { Some(oldest) } else { after(interval_ms) }
            }
        }
    }

    /// Notes a record that is not durable. Returns whether the background thread has to look.
    fn add_pending(&mut self, lsn: Lsn, change: Change<'_>, tip: Option<Tip>) -> bool {
        let payload = u64::try_from(change.payload_len()).unwrap_or(u64::MAX);
        self.appended_bytes = self.appended_bytes.saturating_add(payload);
        let (end_bytes, since) = (self.appended_bytes, Instant::now());
        self.pending.push_back(Pending { lsn, tip, end_bytes, since });
        self.idle && (self.pending.len() == 1 || self.due().is_some_and(|due| due <= since))
    }

    fn advance(&mut self, lsn: Lsn) {
        while let Some(pending) = self.pending.pop_front_if(|pending| pending.lsn <= lsn) {
            self.durable_tip = pending.tip;
            self.durable_bytes = pending.end_bytes;
        }
        self.durable_lsn = self.durable_lsn.max(lsn);
    }
}
