//! Staging, committing and taking back; when the active generation is frozen.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::batch::{Batch, Op};
use crate::database::{Database, STATE_TREE, Tree, check_tree, check_trees};
use crate::error::{Error, Result, hex};
use crate::lock::{lock, read, write};
use crate::mutation::{Mutation, mutated};
use crate::sync::Instant;
use crate::wal::format::{Change, PAYLOAD_BYTES_MAX, payload_too_large};
use crate::wal_buffered::arena::ARENA_BYTES_MAX;
use crate::wal_buffered::flusher::Frozen;
use crate::wal_buffered::memtable::{Freshness, Lookup, Memtable, key_hash};
use crate::wal_buffered::metrics;
use crate::wal_buffered::staged::{BatchIndex, Staged};
use crate::wal_buffered::view::View;
use crate::wal_buffered::{BlockBatch, Inner, Lsn, Tip, WalBuffered, WalOptions, Writer};

/// The most that is applied under one lock of the view: some 100 microseconds.
const LOCKED_OPS_MAX: usize = 500;
/// A batch of at most that many bytes, or the rest of one, is applied under one lock.
const LOCKED_BYTES_MAX: usize = LOCKED_OPS_MAX * 64;
/// How often a read is made that write-backs keep overtaking, before it keeps commits out.
const READ_TRIES: u32 = 3;

impl<D: Database + 'static> WalBuffered<D> {
    /// Makes a batch visible to reads. It is neither logged nor committed.
    ///
    /// # Errors
    ///
    /// [`Error::Misuse`] if the batch does not follow the newest tip, staged ones included;
    /// [`Error::UnknownTree`]; [`Error::TooLarge`]; [`Error::NotFresh`] if freshness is verified;
    /// or if the store is poisoned.
    pub fn stage(&self, block: BlockBatch) -> Result<()> {
        self.inner.health.check()?;
        let index = self.inner.check(Change::Block(&block), true)?;
        let mut view = write(&self.inner.view);
        check_follows(block.prev_hash, view.newest_hash())?;
        view.staged.push_back(Staged::new(block, index));
        Ok(())
    }

    /// Logs and commits the oldest staged batch; returns its number. What is promised then is a
    /// matter of the [`Durability`](crate::Durability) mode.
    ///
    /// # Errors
    ///
    /// [`Error::Misuse`] if nothing is staged; or if log or backend failed, which poisons the
    /// store: the batch is then visible, but not acknowledged, and may be lost with the process.
    pub fn commit_staged(&self) -> Result<Lsn> {
        let inner = &self.inner;
        let lsn = {
            let mut writer = lock(&inner.writer);
            let oldest = read(&inner.view).staged.front().map(|staged| Arc::clone(staged.block()));
            let block = oldest.ok_or_else(|| Error::misuse("commit_staged with nothing staged"))?;
            check_follows(block.prev_hash, inner.committed_hash())?;
            inner.commit(&mut writer, Change::Block(&block), true)?
        };
        inner.syncer.wait_promised(lsn)?;
        Ok(lsn)
    }

    /// Takes all staged batches back, exactly; returns how many.
    pub fn abort_staged(&self) -> usize {
        let _writer = lock(&self.inner.writer);
        let staged = mem::take(&mut write(&self.inner.view).staged);
        let count = staged.len();
        if mutated(Mutation::AbortLeavesOne) {
            write(&self.inner.view).staged.extend(staged.into_iter().take(1));
        }
        count
    }

    /// Stages and commits one batch.
    ///
    /// # Errors
    ///
    /// As [`WalBuffered::stage`] and [`WalBuffered::commit_staged`]; [`Error::Misuse`] if
    /// something is staged.
    pub fn commit(&self, block: BlockBatch) -> Result<Lsn> {
        let inner = &self.inner;
        let lsn = {
            let mut writer = lock(&inner.writer);
            inner.check_nothing_staged()?;
            check_follows(block.prev_hash, inner.committed_hash())?;
            inner.check(Change::Block(&block), false)?;
            inner.commit(&mut writer, Change::Block(&block), false)?
        };
        inner.syncer.wait_promised(lsn)?;
        Ok(lsn)
    }
}

impl<D: Database> WalBuffered<D> {
    /// Waits as a commit of so many bytes would while the disk has too little room: for files that
    /// the caller writes to the same disk.
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`] if there is no room and the hook does not want to wait; if the file
    /// system cannot tell; or if the store is poisoned.
    pub fn wait_for_space(&self, bytes: usize) -> Result<()> {
        let inner = &self.inner;
        inner.wait_for_space(bytes, || inner.write_back_now(&mut lock(&inner.writer)))
    }
}

/// A batch must begin where the one before it ended.
fn check_follows(prev_hash: [u8; 32], newest: [u8; 32]) -> Result<()> {
    if prev_hash == newest || mutated(Mutation::PreviousHashUnchecked) {
        return Ok(());
    }
    Err(Error::misuse(format!(
        "a batch on top of {} does not follow the tip {}",
        hex(&prev_hash),
        hex(&newest)
    )))
}

impl<D: Database> Inner<D> {
    /// Commits a batch that leaves the tip as it is.
    pub(super) fn commit_plain(&self, batch: &Batch) -> Result<()> {
        let lsn = {
            let mut writer = lock(&self.writer);
            self.check_nothing_staged()?;
            self.check(Change::Plain(batch), false)?;
            self.commit(&mut writer, Change::Plain(batch), false)?
        };
        self.syncer.wait_promised(lsn)
    }

    /// Log, then memory, then perhaps freeze.
    fn commit(&self, writer: &mut Writer, change: Change<'_>, staged: bool) -> Result<Lsn> {
        self.wait_for_space(change.payload_len(), || self.write_back_now(writer))?;
        self.make_room(writer, change)?;
        if self.syncer.with_log(|log| log.current_bytes()) >= self.options.segment_bytes {
            // On its own line: the lock of the view must not be held across the I/O.
            let applied = read(&self.view).applied;
            self.syncer.rotate(applied)?;
        }
        let tip = match change {
            Change::Block(block) => Some(block.tip),
            Change::Plain(_) => read(&self.view).tip,
        };
        if mutated(Mutation::MemoryBeforeLog) {
            write(&self.view).active.apply(change.batch().ops(), Freshness::Trusted);
        }
        let lsn = self.syncer.append(change, tip)?;
        self.apply(change.batch(), (lsn, tip), staged);
        writer.blocks = writer.blocks.saturating_add(1);
        let payload = u64::try_from(change.payload_len()).unwrap_or(u64::MAX);
        writer.log_bytes = writer.log_bytes.saturating_add(payload);
        self.counters.commits.fetch_add(1, Ordering::Relaxed);
        metrics::commit(payload, change.batch().len());
        if !self.queue.is_busy() && self.is_due(writer) {
            self.freeze(writer);
        }
        Ok(lsn)
    }

    /// Makes a batch part of the active generation, whole for readers.
    ///
    /// One that is staged goes in by parts, so that no reader waits long: until the last part is
    /// in, and it is staged no more, readers see the staged batch above, which says the same.
    fn apply(&self, batch: &Batch, (lsn, tip): (Lsn, Option<Tip>), staged: bool) {
        let mut ops = batch.ops();
        while staged && ops.remaining_bytes() > LOCKED_BYTES_MAX {
            let mut view = write(&self.view);
            view.active.apply(ops.by_ref().take(LOCKED_OPS_MAX), Freshness::Trusted);
        }
        let taken = {
            let mut view = write(&self.view);
            view.active.apply(ops, Freshness::Trusted);
            (view.lsn, view.tip) = (lsn, tip);
            if staged { view.staged.pop_front() } else { None }
        };
        // Its memory is given back outside the lock.
        drop(taken);
    }

    /// What is refused before anything is logged. Returns an index of the batch if it is wanted.
    fn check(&self, change: Change<'_>, want_index: bool) -> Result<BatchIndex> {
        if change.payload_len() > PAYLOAD_BYTES_MAX {
            return Err(payload_too_large(change.payload_len()));
        }
        let batch = change.batch();
        check_trees(&self.trees, batch)?;
        if !want_index && !self.options.verify_freshness {
            return Ok(BatchIndex::default());
        }
        let mut index = BatchIndex::with_capacity(batch.len());
        let mut ops = batch.ops();
        loop {
            let offset = u32::try_from(ops.offset()).unwrap_or(u32::MAX);
            let Some(op) = ops.next() else {
                return Ok(index);
            };
            if self.options.verify_freshness {
                self.check_fresh(batch, &index, op)?;
            }
            index.insert(batch, offset);
        }
    }

    /// Fails if `op` asserts that a key is absent that is present, earlier operations of the same
    /// batch considered.
    fn check_fresh(&self, batch: &Batch, index: &BatchIndex, op: Op<'_>) -> Result<()> {
        let Op::PutNew { tree_id, key, .. } = op else {
            return Ok(());
        };
        let tree = self.trees.iter().find(|tree| tree.id == tree_id).copied();
        let tree = tree.ok_or(Error::UnknownTree { id: tree_id })?;
        let present = match index.get(batch, tree_id, key, key_hash(key)) {
            Some(earlier) => earlier.value().is_some(),
            None => self.get(tree, key)?.is_some(),
        };
        if present { Err(Error::NotFresh { tree_id, key: hex(key) }) } else { Ok(()) }
    }

    fn check_nothing_staged(&self) -> Result<()> {
        match read(&self.view).staged.len() {
            0 => Ok(()),
            count => Err(Error::misuse(format!("{count} batches are staged"))),
        }
    }

    fn committed_hash(&self) -> [u8; 32] {
        read(&self.view).tip.map_or([0; 32], |tip| tip.hash)
    }

    /// The value of a key: memory first, then the backend.
    pub(super) fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>> {
        check_tree(&self.trees, tree.id)?;
        match read(&self.view).get(tree.id, key) {
            Lookup::Value(value) => return Ok(Some(value.to_vec())),
            Lookup::Deleted => return Ok(None),
            Lookup::Unknown => {}
        }
        self.backend.get(tree, key)
    }

    /// Before a commit: refuses it while the disk has no room for it and for what is buffered.
    /// What is buffered is written back first, which makes room in the log.
    fn wait_for_space(
        &self,
        bytes: usize,
        mut write_back: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let reserve_bytes = self.options.reserve_bytes;
        if reserve_bytes == 0 {
            return Ok(());
        }
        loop {
            let Some(free_bytes) = self.place.fs.free_bytes(&self.place.dir)? else {
                return Ok(());
            };
            let buffered = {
                let view = read(&self.view);
                let frozen = view.frozen.as_ref().map_or(0, |frozen| frozen.table.bytes());
                // An empty one has tables of the size that the one before needed.
                let active = if view.lsn == view.applied { 0 } else { view.active.bytes() };
                u64::try_from(active + frozen).unwrap_or(u64::MAX)
            };
            let batch = u64::try_from(bytes).unwrap_or(u64::MAX);
            // The next segment takes its room at once.
            let segment = if self.place.is_roomy() { self.options.segment_bytes } else { 0 };
            let wanted_bytes = [buffered, batch, segment].into_iter();
            let wanted_bytes = wanted_bytes.fold(reserve_bytes, u64::saturating_add);
            if free_bytes >= wanted_bytes {
                return Ok(());
            }
            self.health.check()?;
            // Half of the reserve is enough for what a write-back writes besides.
            if free_bytes >= buffered.saturating_add(reserve_bytes / 2) && write_back()? {
                continue;
            }
            let path = self.place.dir.clone();
            let error = Error::NoSpace { path, free_bytes, wanted_bytes };
            match &self.options.no_space_hook {
                Some(hook) if hook.call(&error).is_continue() => {}
                _ => return Err(error),
            }
        }
    }

    /// Writes everything committed to the backend. Returns whether there was anything.
    fn write_back_now(&self, writer: &mut Writer) -> Result<bool> {
        let up_to_date = |view: &View| view.lsn == view.applied;
        if up_to_date(&read(&self.view)) {
            return Ok(false);
        }
        self.queue.wait_idle(&self.health)?;
        if !up_to_date(&read(&self.view)) {
            self.freeze(writer);
            self.queue.wait_idle(&self.health)?;
        }
        Ok(true)
    }

    /// Runs a read of memory and then of the backend so that both see the same batches.
    ///
    /// A generation that is frozen in between may have reached the backend, in part: the read is
    /// then made anew, the last time with commits kept out. (What a generation frozen before
    /// changes is answered by memory, and what is committed or staged meanwhile is not looked at.)
    pub(super) fn at_one_moment<T>(&self, read_both: impl Fn() -> Result<T>) -> Result<T> {
        for _ in 0..READ_TRIES {
            let freezes = read(&self.view).freezes;
            let found = read_both()?;
            if read(&self.view).freezes == freezes {
                return Ok(found);
            }
        }
        let _no_commit = lock(&self.writer);
        read_both()
    }

    /// Before a commit: freezes what is due. Waits only if memory is used up.
    fn make_room(&self, writer: &mut Writer, change: Change<'_>) -> Result<()> {
        self.health.check()?;
        let has_room = {
            let view = read(&self.view);
            let frozen = view.frozen.as_ref().map_or(0, |frozen| frozen.table.bytes());
            let left = self.options.memtable_bytes.saturating_sub(frozen);
            let bytes_max = generation_bytes_max(&self.options).min(left);
            view.active.bytes_with(change.batch()) <= bytes_max
        };
        if writer.blocks == 0 || (has_room && !self.is_due(writer)) {
            return Ok(());
        }
        if self.queue.is_busy() {
            if has_room {
                return Ok(());
            }
            self.counters.back_pressure_waits.fetch_add(1, Ordering::Relaxed);
            let since = Instant::now();
            self.queue.wait_idle(&self.health)?;
            metrics::back_pressure(since.elapsed());
        }
        self.freeze(writer);
        Ok(())
    }

    /// Whether the active generation has reached one of its bounds.
    fn is_due(&self, writer: &Writer) -> bool {
        let options = &self.options;
        let asked_for = options.flush_every_blocks.is_some_and(|blocks| writer.blocks >= blocks)
            || options.flush_every.is_some_and(|time| writer.since.elapsed() >= time)
            || writer.log_bytes >= options.log_bytes_max;
        writer.blocks > 0
            && ((asked_for && self.flushing.load(Ordering::Relaxed))
                || read(&self.view).active.bytes() >= generation_bytes_max(options))
    }

    /// Hands the active generation to the flush thread. None is in flight.
    fn freeze(&self, writer: &mut Writer) {
        let fresh = Memtable::like(&read(&self.view).active);
        let frozen = {
            let mut view = write(&self.view);
            let table = mem::replace(&mut view.active, fresh);
            let frozen = Arc::new(Frozen { table, lsn: view.lsn, tip: view.tip });
            view.frozen = Some(Arc::clone(&frozen));
            view.freezes += 1;
            frozen
        };
        *writer = Writer::new();
        self.queue.submit(frozen);
    }

    /// Writes everything committed to the backend and empties the log.
    pub(super) fn checkpoint(&self, writer: &mut Writer) -> Result<()> {
        self.queue.wait_idle(&self.health)?;
        self.write_back_now(writer)?;
        let applied = read(&self.view).applied;
        self.syncer.rotate(applied)?;
        self.remove_obsolete_segments()
    }

    /// Empties a tree. The log is empty then, so that no replay can bring an entry back.
    pub(super) fn clear(&self, tree: Tree) -> Result<()> {
        check_tree(&self.trees, tree.id)?;
        if tree.id == STATE_TREE.id {
            return Err(Error::UnknownTree { id: tree.id });
        }
        let mut writer = lock(&self.writer);
        self.check_nothing_staged()?;
        if !mutated(Mutation::ClearKeepsLog) {
            self.checkpoint(&mut writer)?;
        }
        self.health.guard(|| {
            self.backend.clear(tree)?;
            if mutated(Mutation::ClearNotFlushed) { Ok(()) } else { self.backend.flush() }
        })?;
        let mut view = write(&self.view);
        view.epoch += 1;
        if !view.is_empty_below(tree.id) {
            view.empty_below.push(tree.id);
        }
        Ok(())
    }
}

impl Writer {
    /// An active generation begins.
    pub(super) fn new() -> Self {
        Self { blocks: 0, log_bytes: 0, since: Instant::now() }
    }
}

/// The memory of one generation. The rest is for what is committed while it is written back, which
/// takes a third of the time in which it was filled; if it takes longer, the next one is frozen
/// with less in it. The larger a generation is, the fewer and larger are the write-backs.
pub(super) fn generation_bytes_max(options: &WalOptions) -> usize {
    (options.memtable_bytes / 3 * 2).min(ARENA_BYTES_MAX)
}

/// The hash that a batch after `tip` must name as its previous one.
pub(super) fn hash_of(tip: Option<Tip>) -> [u8; 32] {
    tip.map_or([0; 32], |tip| tip.hash)
}
