//! `Store`: the runs and what is pending, how they are read, and how the list of runs changes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{debug, error, warn};

use super::compaction::{Choice, MergeJob, choose, sizes};
use super::filter::key_hash;
use super::manifest::{Manifest, RunEntry};
use super::run::{Run, TreeSpan};
use super::writer::RunWriter;
use crate::batch::Op;
use crate::database::{Tree, check_tree};
use crate::error::{Error, Result};
use crate::file_system::{FileLock, FileSystem};
use crate::lock::{lock, read, wait, write};
use crate::sync::{Condvar, Mutex, RwLock};
use crate::wal_buffered::merge::Buffered;

/// Bytes of keys and values that are applied in memory until they are flushed without being asked.
pub(super) const PENDING_BYTES_MAX: usize = 32 << 20;
/// The least that is counted for an entry in memory.
pub(super) const PENDING_ENTRY_BYTES: usize = 64;
/// How names of runs end.
pub(super) const RUN_SUFFIX: &str = ".run";

#[derive(Debug)]
pub(super) struct Store {
    pub(super) trees: Vec<Tree>,
    pub(super) fs: Arc<dyn FileSystem>,
    pub(super) dir: PathBuf,
    pub(super) seed: u64,
    pub(super) merging: Mutex<Merging>,
    pub(super) writer: Mutex<Writer>,
    pub(super) state: RwLock<State>,
    pub(super) wakeup: Wakeup,
    pub(super) _lock: Box<dyn FileLock>,
}

/// What a merge knows of those before.
#[derive(Debug, Default)]
pub(super) struct Merging {
    /// How much has to be free for a merge of all, as one found that ran out of space.
    pub(super) wanted_bytes: u64,
}

/// Returns how much has to be free for a merge that ended with `error`, if it was for want of space;
/// `free_bytes` were when it began.
pub(super) fn wanted_after(error: &Error, free_bytes: u64) -> Option<u64> {
    match error {
        Error::NoSpace { wanted_bytes, .. } => Some(*wanted_bytes),
        // Others took what was free, faster than it is looked at.
        Error::Full { .. } => Some(free_bytes.saturating_add(1)),
        _ => None,
    }
}

/// What a change of the list needs.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) next: u64,
    /// A list could not be written, or runs not be merged.
    pub(super) failed: Option<String>,
}

/// What reads see.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Applied and not flushed, by tree.
    pub(super) pending: BTreeMap<u8, Buffered>,
    pub(super) pending_bytes: usize,
    /// The oldest first.
    pub(super) runs: Arc<Vec<Member>>,
}

/// A run, and which of its trees were cleared since.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) run: Arc<Run>,
    pub(super) hidden: Vec<u8>,
}

/// Tells the merging thread that there is something to look at.
#[derive(Debug, Default)]
pub(super) struct Wakeup {
    pub(super) asked: Mutex<bool>,
    pub(super) changed: Condvar,
    pub(super) stop: AtomicBool,
}

impl Member {
    pub(super) fn new(run: Run) -> Self {
        Self { run: Arc::new(run), hidden: Vec::new() }
    }

    pub(super) fn visible_tree(&self, id: u8) -> Option<&TreeSpan> {
        self.run.tree(id).filter(|_| !self.hidden.contains(&id))
    }
}

pub(super) fn as_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

pub(super) fn run_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}{RUN_SUFFIX}"))
}

impl Wakeup {
    pub(super) fn ask(&self) {
        *lock(&self.asked) = true;
        self.changed.notify_all();
    }

    /// Waits until somebody asks; returns whether to go on.
    pub(super) fn wait(&self) -> bool {
        let mut asked = lock(&self.asked);
        while !*asked {
            asked = wait(&self.changed, asked);
        }
        *asked = false;
        !self.stop.load(Ordering::Relaxed)
    }
}

impl Store {
    pub(super) fn run_merger(&self) {
        while self.wakeup.wait() {
            // A failure is in `failed`, and the next write says so.
            while self.merge_once().unwrap_or(false) {}
        }
    }

    /// Merges some runs, if a rule asks for it and the disk has room. A failure that is neither for
    /// want of space nor because of the end is final.
    pub(super) fn merge_once(&self) -> Result<bool> {
        let merged = self.try_merge();
        if let Err(error) = &merged
            && !self.wakeup.stop.load(Ordering::Relaxed)
        {
            let mut writer = lock(&self.writer);
            if writer.failed.is_none() {
                let cause = error.chain();
                error!(cause, "cannot merge runs of the database: it refuses writes from now on");
                writer.failed = Some(cause);
            }
        }
        merged
    }

    fn try_merge(&self) -> Result<bool> {
        let mut merging = lock(&self.merging);
        let runs = Arc::clone(&read(&self.state).runs);
        let free_bytes = self.fs.free_bytes(&self.dir)?.unwrap_or(u64::MAX);
        let Some(choice) = choose(&sizes(&runs), free_bytes, merging.wanted_bytes) else {
            return Ok(false);
        };
        let Choice { range, keep_bytes } = choice;
        let inputs = runs.get(range.clone()).unwrap_or_default();
        let number = lock(&self.writer).take_number()?;
        let path = run_path(&self.dir, number);
        debug!(runs = inputs.len(), of = runs.len(), "merging");
        let merged = MergeJob {
            fs: &*self.fs,
            path: &path,
            number,
            seed: self.seed,
            inputs,
            with_oldest: range.start == 0,
            keep_bytes,
            stop: &self.wakeup.stop,
        }
        .run()
        .inspect_err(|_| self.discard(&path));
        let is_of_all = inputs.len() == runs.len();
        if let Err(error) = &merged
            && let Some(wanted_bytes) = wanted_after(error, free_bytes)
        {
            warn!(error = error.chain(), "a merge of the database's runs is put off");
            if is_of_all {
                merging.wanted_bytes = wanted_bytes;
            }
            return Ok(false);
        }
        let merged = merged?;
        if merged.is_none() {
            self.discard(&path);
        }
        if is_of_all {
            merging.wanted_bytes = 0;
        }
        self.replace(range, inputs, merged)?;
        Ok(true)
    }

    /// Puts what runs were merged to in their place.
    pub(super) fn replace(
        &self,
        range: Range<usize>,
        inputs: &[Member],
        merged: Option<Run>,
    ) -> Result<()> {
        let mut writer = lock(&self.writer);
        // The merge may have begun before a list could not be written.
        if let Err(error) = writer.check() {
            merged.into_iter().for_each(|run| self.discard(&run.path));
            return Err(error);
        }
        // Newer ones may have come meanwhile; these are where they were.
        let mut now: Vec<Member> = read(&self.state).runs.to_vec();
        now.splice(range, merged.map(Member::new));
        self.publish(&mut writer, now, false)?;
        drop(writer);
        for member in inputs {
            self.discard(&member.run.path);
        }
        Ok(())
    }

    /// Removes a file that is not in the list. If that fails, the next opening does it.
    pub(super) fn discard(&self, path: &Path) {
        if let Err(error) = self.fs.remove(path) {
            debug!(error = error.chain(), "cannot remove a run that is not needed");
        }
    }

    /// Makes `runs` the database.
    pub(super) fn publish(
        &self,
        writer: &mut Writer,
        runs: Vec<Member>,
        flushed: bool,
    ) -> Result<()> {
        let entry =
            |member: &Member| RunEntry { number: member.run.number, hidden: member.hidden.clone() };
        let runs_of = runs.iter().map(entry).collect();
        let manifest = Manifest { seed: self.seed, next: writer.next, runs: runs_of };
        if let Err(error) = manifest.write(&*self.fs, &self.dir) {
            writer.failed = Some(error.chain());
            return Err(error);
        }
        let mut state = write(&self.state);
        state.runs = Arc::new(runs);
        if flushed {
            state.pending.clear();
            state.pending_bytes = 0;
        }
        Ok(())
    }

    /// Writes what is pending as a run.
    pub(super) fn flush_pending(&self, writer: &mut Writer) -> Result<()> {
        writer.check()?;
        let entries = read(&self.state).pending.values().map(BTreeMap::len).sum();
        if entries == 0 {
            return Ok(());
        }
        let number = writer.take_number()?;
        let path = run_path(&self.dir, number);
        let written = {
            // Nobody changes it: that takes the writer's lock.
            let state = read(&self.state);
            let run = RunWriter::create(&*self.fs, &path, (number, self.seed), entries);
            run.and_then(|mut run| {
                for (id, tree) in &state.pending {
                    for (key, value) in tree {
                        run.push(*id, key, value.as_deref())?;
                    }
                }
                run.finish()
            })
        };
        let run = written.inspect_err(|_| self.discard(&path))?;
        self.add_run(writer, run)
    }

    /// Publishes a run as the newest one.
    fn add_run(&self, writer: &mut Writer, run: Run) -> Result<()> {
        let mut runs: Vec<Member> = read(&self.state).runs.to_vec();
        runs.push(Member::new(run));
        self.publish(writer, runs, true)?;
        self.wakeup.ask();
        Ok(())
    }

    pub(super) fn write_sorted(
        &self,
        writer: &mut Writer,
        ops: &mut dyn Iterator<Item = Result<Op<'_>>>,
        ops_max: usize,
    ) -> Result<()> {
        self.flush_pending(writer)?;
        let number = writer.take_number()?;
        let path = run_path(&self.dir, number);
        let write = || {
            let mut run = RunWriter::create(&*self.fs, &path, (number, self.seed), ops_max)?;
            for op in ops {
                let op = op?;
                check_tree(&self.trees, op.tree_id())?;
                run.push(op.tree_id(), op.key(), op.value())?;
            }
            if run.is_empty() { Ok(None) } else { run.finish().map(Some) }
        };
        match write().inspect_err(|_| self.discard(&path))? {
            Some(run) => self.add_run(writer, run),
            None => {
                self.discard(&path);
                Ok(())
            }
        }
    }

    /// The values of `keys`, of one moment: `found` is called for each key that has one.
    pub(super) fn look_up(
        &self,
        tree: Tree,
        keys: &[&[u8]],
        mut found: impl FnMut(usize, &[u8]),
    ) -> Result<()> {
        check_tree(&self.trees, tree.id)?;
        let mut left: Vec<(usize, &[u8])> = Vec::with_capacity(keys.len());
        let runs = {
            let state = read(&self.state);
            let pending = state.pending.get(&tree.id);
            for (at, key) in keys.iter().enumerate() {
                match pending.and_then(|pending| pending.get(*key)) {
                    Some(Some(value)) => found(at, value),
                    Some(None) => {}
                    None => left.push((at, *key)),
                }
            }
            Arc::clone(&state.runs)
        };
        let hash = |(_, key): &(usize, &[u8])| key_hash(self.seed, tree.id, key);
        let mut hashes: Vec<u64> = left.iter().map(hash).collect();
        let mut buffer = Vec::new();
        for member in runs.iter().rev() {
            let Some(span) = member.visible_tree(tree.id) else {
                continue;
            };
            // Run by run: the filter's misses of many keys overlap.
            let may_have: Vec<bool> =
                hashes.iter().map(|hash| member.run.may_have(*hash)).collect();
            let mut kept = 0;
            for (index, may_have) in may_have.into_iter().enumerate() {
                let (Some(&key), Some(&hash)) = (left.get(index), hashes.get(index)) else {
                    break;
                };
                if may_have && let Some(value) = member.run.find(span, key.1, &mut buffer)? {
                    value.into_iter().for_each(|value| found(key.0, value));
                    continue;
                }
                if let (Some(slot), Some(of)) = (left.get_mut(kept), hashes.get_mut(kept)) {
                    (*slot, *of) = (key, hash);
                }
                kept += 1;
            }
            left.truncate(kept);
            hashes.truncate(kept);
            if left.is_empty() {
                break;
            }
        }
        Ok(())
    }
}

impl Writer {
    pub(super) fn check(&self) -> Result<()> {
        match &self.failed {
            None => Ok(()),
            Some(cause) => Err(Error::Poisoned { cause: cause.clone() }),
        }
    }

    pub(super) fn take_number(&mut self) -> Result<u64> {
        self.check()?;
        let number = self.next;
        self.next += 1;
        Ok(number)
    }
}
