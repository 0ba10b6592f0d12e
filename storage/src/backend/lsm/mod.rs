//! `LsmDatabase`: sorted runs on the file system of this crate, made for what a buffered store does:
//! large sorted write-backs, and reads of single keys that are there.
//!
//! A log-structured merge tree (O'Neil, Cheng, Gawlick and O'Neil, 1996) with tiers. A write-back
//! becomes one file, a *run*, sorted and with an index and a filter that are held in memory; a list
//! of runs, replaced atomically, says which files are the database; a thread merges runs.
//!
//! Invariants:
//!
//! - A run is never changed. It is durable, name included, before a list names it; it is removed
//!   only after a list without it is durable.
//! - Runs are in order of age, and each key's newest entry counts. A deletion stays until its run
//!   is merged with the oldest.
//! - Batches that were applied and not flushed are in memory only ([`PENDING_BYTES_MAX`]): a
//!   crash takes all of them, never some.
//! - After a list could not be written nothing is written any more: what is on the disk is unknown
//!   until the database is opened again.
//! - The same after a merge that failed for another reason than want of space: it would fail each
//!   time, and the runs would fill the disk. Reads go on.
//!
//! Locks, in the order in which they are taken: `merging` (one merge or clearing at a time), `writer`
//! (one change of the list at a time; held across I/O), `state` (changed without I/O; read while
//! what is pending is written, when nobody else can want to change it).
//!
//! Memory: two bytes an entry for index and filter; for the filter of a run that is being merged, 1.25
//! an entry that is read. The operating system's page cache is the cache
//! of blocks.

mod compaction;
mod cursor;
mod entry;
mod filter;
mod manifest;
mod run;
mod store;
mod writer;

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::warn;

use self::cursor::{Cursor, Merge};
use self::manifest::Manifest;
use self::run::Run;
use self::store::{
    Member, Merging, PENDING_BYTES_MAX, PENDING_ENTRY_BYTES, RUN_SUFFIX, State, Store, Wakeup,
    Writer, run_path,
};
use crate::batch::{Batch, Op};
use crate::database::{
    Count, Database, Entries, Entry, KeyRange, Tree, check_tree, check_trees, with_state_tree,
};
use crate::error::{Error, Result};
use crate::file_system::FileSystem;
use crate::lock::{lock, read, write};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Mutex, RwLock};
use crate::wal_buffered::merge::{Buffered, Merged};

const LOCK_NAME: &str = "LOCK";

/// A database of sorted runs.
#[derive(Debug)]
pub struct LsmDatabase {
    store: Arc<Store>,
    merger: Option<JoinHandle<()>>,
}

impl LsmDatabase {
    /// Opens or makes a database in the directory `dir`.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] if another process has it open; [`Error::Corrupt`] if a file is damaged or
    /// missing; or if the file system fails.
    pub fn open(fs: Arc<dyn FileSystem>, dir: &Path, trees: &[Tree]) -> Result<Self> {
        fs.create_dir_all(dir)?;
        let lock = fs.lock(&dir.join(LOCK_NAME))?;
        let manifest = open_manifest(&*fs, dir)?;
        let mut runs = Vec::with_capacity(manifest.runs.len());
        for entry in &manifest.runs {
            let run = Run::open(&*fs, &run_path(dir, entry.number), entry.number)?;
            runs.push(Member { run: Arc::new(run), hidden: entry.hidden.clone() });
        }
        remove_others(&*fs, dir, &manifest)?;
        let store = Arc::new(Store {
            trees: with_state_tree(trees),
            fs,
            dir: dir.to_path_buf(),
            seed: manifest.seed,
            merging: Mutex::new(Merging::default()),
            writer: Mutex::new(Writer { next: manifest.next, failed: None }),
            state: RwLock::new(State { runs: Arc::new(runs), ..State::default() }),
            wakeup: Wakeup::default(),
            _lock: lock,
        });
        let worker = Arc::clone(&store);
        let merger = thread::Builder::new()
            .name("cofferdam-merge".to_owned())
            .spawn(move || worker.run_merger())
            .map_err(|source| Error::io("start the merging thread of", dir, source))?;
        // What the process before had to leave: short ones would never come to the end of a merge.
        store.wakeup.ask();
        Ok(Self { store, merger: Some(merger) })
    }

    /// Merges runs until no rule asks for it; what the thread does by itself.
    ///
    /// # Errors
    ///
    /// If a run cannot be read, or the new one not be written.
    pub fn compact(&self) -> Result<()> {
        while self.store.merge_once()? {}
        Ok(())
    }
}

impl Drop for LsmDatabase {
    fn drop(&mut self) {
        self.store.wakeup.stop.store(true, Ordering::Relaxed);
        self.store.wakeup.ask();
        if self.merger.take().is_some_and(|merger| merger.join().is_err()) {
            warn!("the merging thread had panicked");
        }
    }
}

/// Reads the list of runs, or makes an empty one where nothing is; and makes it durable, since
/// who wrote it may have died before it was.
fn open_manifest(fs: &dyn FileSystem, dir: &Path) -> Result<Manifest> {
    let found = Manifest::read(fs, dir)?;
    if found.is_none() && fs.list(dir)?.iter().any(|name| name.ends_with(RUN_SUFFIX)) {
        let what = format!("{}: there are runs and no list of them", dir.display());
        return Err(Error::corrupt(what));
    }
    let seed = || RandomState::new().hash_one(0);
    let manifest = found.unwrap_or_else(|| Manifest { seed: seed(), ..Manifest::default() });
    manifest.write(fs, dir)?;
    Ok(manifest)
}

/// Removes what a crash left of runs that were never, or are not any more, in the list.
fn remove_others(fs: &dyn FileSystem, dir: &Path, manifest: &Manifest) -> Result<()> {
    let named =
        |name: &str| manifest.runs.iter().any(|run| run_path(dir, run.number).ends_with(name));
    for name in fs.list(dir)? {
        if name.ends_with(RUN_SUFFIX) && !named(&name) {
            fs.remove(&dir.join(&name))?;
        }
    }
    Ok(())
}

impl Database for LsmDatabase {
    fn trees(&self) -> &[Tree] {
        &self.store.trees
    }

    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut value = None;
        self.store.look_up(tree, &[key], |_, found| value = Some(found.to_vec()))?;
        Ok(value)
    }

    fn multi_get(&self, tree: Tree, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>> {
        let mut values = vec![None; keys.len()];
        self.store.look_up(tree, keys, |at, found| {
            if let Some(value) = values.get_mut(at) {
                *value = Some(found.to_vec());
            }
        })?;
        Ok(values)
    }

    fn range(&self, tree: Tree, range: KeyRange) -> Result<Entries<'_>> {
        check_tree(&self.store.trees, tree.id)?;
        if range.is_empty() {
            return Ok(Box::new(std::iter::empty()));
        }
        let (start, end) = range.half_open();
        let (pending, runs) = {
            let state = read(&self.store.state);
            let bounds = (range.start().as_ref(), range.end().as_ref());
            let pending = state.pending.get(&tree.id).into_iter();
            let pending = pending.flat_map(|tree| tree.range::<Vec<u8>, _>(bounds));
            let copy = |(key, value): (&Vec<u8>, &Option<Vec<u8>>)| (key.clone(), value.clone());
            (pending.map(copy).collect::<Buffered>(), Arc::clone(&state.runs))
        };
        let mut cursors = Vec::new();
        for member in runs.iter().rev() {
            if let Some(span) = member.visible_tree(tree.id) {
                cursors.push(Cursor::seek(&member.run, span, &start)?);
            }
        }
        let stored = RunEntries { merge: Merge::new(cursors), end, over: false };
        Ok(Box::new(Merged::new(pending, Box::new(stored))))
    }

    /// An estimate: a key that is in several runs is counted in each.
    fn len(&self, tree: Tree) -> Result<Count> {
        check_tree(&self.store.trees, tree.id)?;
        let state = read(&self.store.state);
        let (mut puts, mut deletes) = (0, 0);
        for span in state.runs.iter().filter_map(|member| member.visible_tree(tree.id)) {
            puts += span.puts;
            deletes += span.deletes;
        }
        for value in state.pending.get(&tree.id).into_iter().flat_map(BTreeMap::values) {
            puts += u64::from(value.is_some());
            deletes += u64::from(value.is_none());
        }
        Ok(Count::Estimate(puts.saturating_sub(deletes)))
    }

    /// Atomic, and at once: the list says from then on that the runs' entries do not count.
    fn clear(&self, tree: Tree) -> Result<()> {
        check_tree(&self.store.trees, tree.id)?;
        let store = &self.store;
        let mut merging = lock(&store.merging);
        let mut writer = lock(&store.writer);
        store.flush_pending(&mut writer)?;
        let before = Arc::clone(&read(&store.state).runs);
        let mut runs = before.to_vec();
        for member in &mut runs {
            if member.visible_tree(tree.id).is_some() {
                member.hidden.push(tree.id);
            }
        }
        let is_needed = |member: &Member| {
            member.run.trees().iter().any(|tree| !member.hidden.contains(&tree.id))
        };
        let (kept, dropped): (Vec<_>, Vec<_>) = runs.into_iter().partition(is_needed);
        store.publish(&mut writer, kept, false)?;
        dropped.iter().for_each(|member| store.discard(&member.run.path));
        // Less is left to be merged, and what a run keeps beside the tree may be due for it.
        merging.wanted_bytes = 0;
        store.wakeup.ask();
        Ok(())
    }

    fn apply(&self, batch: &Batch) -> Result<()> {
        check_trees(&self.store.trees, batch)?;
        let mut writer = lock(&self.store.writer);
        writer.check()?;
        let bytes = {
            let mut state = write(&self.store.state);
            for op in batch.ops() {
                state.pending_bytes +=
                    op.key().len() + op.value().map_or(0, <[u8]>::len) + PENDING_ENTRY_BYTES;
                let tree = state.pending.entry(op.tree_id()).or_default();
                tree.insert(op.key().to_vec(), op.value().map(<[u8]>::to_vec));
            }
            state.pending_bytes
        };
        if bytes > PENDING_BYTES_MAX { self.store.flush_pending(&mut writer) } else { Ok(()) }
    }

    fn apply_sorted(
        &self,
        ops: &mut dyn Iterator<Item = Result<Op<'_>>>,
        ops_max: usize,
    ) -> Result<bool> {
        let mut writer = lock(&self.store.writer);
        self.store.write_sorted(&mut writer, ops, ops_max)?;
        Ok(true)
    }

    fn flush(&self) -> Result<()> {
        self.store.flush_pending(&mut lock(&self.store.writer))
    }

    fn iterates_over_snapshots(&self) -> bool {
        true
    }
}

/// The entries of a range of the runs.
struct RunEntries {
    merge: Merge,
    end: Option<Vec<u8>>,
    over: bool,
}

impl Iterator for RunEntries {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        while !self.over {
            match self.merge.advance() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    self.over = true;
                    return Some(Err(error));
                }
            }
            let (key, value) = self.merge.entry()?;
            if self.end.as_ref().is_some_and(|end| key >= end.as_slice()) {
                break;
            }
            if let Some(value) = value {
                return Some(Ok((key.to_vec(), value.to_vec())));
            }
        }
        self.over = true;
        None
    }
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;
