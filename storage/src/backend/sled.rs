//! `SledDatabase`: sled 0.34, with the durability that its own `flush` lacks.
//!
//! One sled tree holds everything, with the tree's id as first byte of the key, because sled's
//! batches are atomic within one sled tree only.
//!
//! Two properties of sled shape this file. Its `flush` hands the bytes to the system by
//! `sync_file_range`, which survives no power cut, so `flush` here fsyncs sled's files and
//! directories itself. And a batch pins every superseded page version until its end, so memory
//! grows with the batch: `batch_ops_max` is small. It suits small chains, tests and comparison.
//!
//! It makes a new database without an fsync, too: a power cut then leaves files with a size and
//! without content, which it refuses to open. So a file named [`UNMADE`] stands beside them until
//! they are durable; where it is found, nothing was ever stored, and the files are made anew.
//! And a crash amid its opening may leave a snapshot that is cut off, or is ahead of its log: `open`
//! removes the first and makes the log durable before the second is made.

use std::fs::{self, File, TryLockError};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::backend::BackendOptions;
use crate::batch::{Batch, Op};
use crate::database::{
    Count, Database, Entries, KeyRange, Tree, check_tree, check_trees, with_state_tree,
};
use crate::error::{Error, Result};

const ENGINE: &str = "sled";
/// Measured: larger batches cost memory and time out of proportion.
const OPS_MAX: usize = 1_000;
/// Sled releases its lock in a thread of its own, a moment after a database was dropped: opening
/// it again waits that moment. A lock that another process holds is reported after a second.
const LOCK_ATTEMPTS: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Name of the file that says that the database beside it is not complete yet.
const UNMADE: &str = "unmade";

/// A database over sled 0.34.
#[derive(Debug)]
pub struct SledDatabase {
    trees: Vec<Tree>,
    db: sled::Db,
    path: PathBuf,
}

impl SledDatabase {
    /// Opens or makes a database in the directory `path`.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] if another process has it open; or what sled answers.
    pub fn open(path: &Path, trees: &[Tree], options: &BackendOptions) -> Result<Self> {
        let mark = begin(path)?;
        // Opening makes a snapshot of the log and fsyncs that alone. What the last process left in
        // the page cache has to be durable before: a snapshot that is ahead of its log is refused.
        sync_tree(path)?;
        remove_half_snapshots(path).map_err(|source| Error::io("clean", path, source))?;
        let cache_bytes = u64::try_from(options.cache_bytes).unwrap_or(u64::MAX);
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(cache_bytes)
            // Durability is asked for by `flush`; a thread of sled's own would add nothing to it.
            .flush_every_ms(None);
        let mut attempts = 1;
        let db = loop {
            match config.open() {
                Err(error) if is_locked(&error) && attempts < LOCK_ATTEMPTS => {
                    attempts += 1;
                    thread::sleep(LOCK_PAUSE);
                }
                opened => break opened.map_err(|error| open_error(path, error))?,
            }
        };
        let opened = Self { trees: with_state_tree(trees), db, path: path.to_path_buf() };
        opened.flush()?;
        sync_path(path.parent().filter(|dir| !dir.as_os_str().is_empty()))?;
        if mark.is_some() {
            complete(path)?;
        }
        Ok(opened)
    }
}

/// Marks a new database as incomplete, and removes what is left of one that was never completed.
/// The mark is locked, so that nobody takes away what another process is just making.
fn begin(path: &Path) -> Result<Option<File>> {
    let failed = |source| Error::io("make", path, source);
    let marker = path.join(UNMADE);
    fs::create_dir_all(path).map_err(failed)?;
    if fs::read_dir(path).map_err(failed)?.next().is_none() {
        match File::create_new(&marker).and_then(|file| file.sync_all()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.and_then(|()| File::open(path)?.sync_all()).map_err(failed)?,
        }
    }
    let mark = match File::open(&marker) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    match mark.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(Error::Locked { path: path.to_path_buf() }),
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    // Who had the lock may have completed the database.
    if !marker.try_exists().map_err(failed)? {
        return Ok(None);
    }
    remove_others(path).map_err(failed)?;
    Ok(Some(mark))
}

/// Removes snapshots that a crash has cut off: sled takes them for whole ones, as the newest there
/// are, and refuses to open. (Its list of files leaves out another suffix than it writes.)
fn remove_half_snapshots(path: &Path) -> io::Result<()> {
    let database = match File::open(path.join("db")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    // Sled's lock: who holds it may be writing one.
    if database.try_lock().is_err() {
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("snap.")
            && name.to_string_lossy().ends_with(".generating")
        {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Removes all of a directory but the mark.
fn remove_others(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else if entry.file_name() != UNMADE {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Takes the mark away for good, before anything is stored.
fn complete(path: &Path) -> Result<()> {
    let removed = fs::remove_file(path.join(UNMADE));
    removed.map_err(|source| Error::io("complete", path, source))?;
    sync_path(Some(path))
}

/// Sled reports a held lock as an I/O error with that text.
fn is_locked(error: &sled::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

fn open_error(path: &Path, error: sled::Error) -> Error {
    if is_locked(&error) {
        return Error::Locked { path: path.to_path_buf() };
    }
    failed("open")(error)
}

fn failed(action: &'static str) -> impl FnOnce(sled::Error) -> Error {
    move |error| match error {
        sled::Error::Io(source) => Error::io(action, Path::new(ENGINE), source),
        sled::Error::Corruption { .. } => Error::corrupt(format!("{ENGINE}: {error}")),
        other => Error::backend(ENGINE, action, other),
    }
}

/// The key in the one sled tree.
fn full_key(tree_id: u8, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(1 + key.len());
    full.push(tree_id);
    full.extend_from_slice(key);
    full
}

/// The range of `range` in the one sled tree.
fn full_range(tree_id: u8, range: &KeyRange) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let (start, end) = range.half_open();
    let end = match (end, tree_id.checked_add(1)) {
        (Some(end), _) => Bound::Excluded(full_key(tree_id, &end)),
        (None, Some(next_id)) => Bound::Excluded(vec![next_id]),
        (None, None) => Bound::Unbounded,
    };
    (Bound::Included(full_key(tree_id, &start)), end)
}

impl Database for SledDatabase {
    fn trees(&self) -> &[Tree] {
        &self.trees
    }

    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>> {
        check_tree(&self.trees, tree.id)?;
        let value = self.db.get(full_key(tree.id, key)).map_err(failed("get"))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn range(&self, tree: Tree, range: KeyRange) -> Result<Entries<'_>> {
        check_tree(&self.trees, tree.id)?;
        if range.is_empty() {
            return Ok(Box::new(std::iter::empty()));
        }
        let entries = self.db.range(full_range(tree.id, &range)).map(|entry| {
            let (key, value) = entry.map_err(failed("iterate"))?;
            let key = key.get(1..).unwrap_or_default().to_vec();
            Ok((key, value.to_vec()))
        });
        Ok(Box::new(entries))
    }

    /// Counts, in time proportional to the tree.
    fn len(&self, tree: Tree) -> Result<Count> {
        let mut count: u64 = 0;
        for entry in self.range(tree, KeyRange::all())? {
            entry?;
            count += 1;
        }
        Ok(Count::Exact(count))
    }

    fn clear(&self, tree: Tree) -> Result<()> {
        let mut batch = Batch::new();
        for entry in self.range(tree, KeyRange::all())? {
            batch.delete(tree, &entry?.0);
            if batch.len() >= OPS_MAX {
                self.apply(&batch)?;
                batch.clear();
            }
        }
        self.apply(&batch)
    }

    fn apply(&self, batch: &Batch) -> Result<()> {
        check_trees(&self.trees, batch)?;
        let mut writes = sled::Batch::default();
        for op in batch.ops() {
            match op {
                Op::Put { tree_id, key, value } | Op::PutNew { tree_id, key, value } => {
                    writes.insert(full_key(tree_id, key), value);
                }
                Op::Delete { tree_id, key } => writes.remove(full_key(tree_id, key)),
            }
        }
        self.db.apply_batch(writes).map_err(failed("apply a batch"))
    }

    fn flush(&self) -> Result<()> {
        self.db.flush().map_err(failed("flush"))?;
        sync_tree(&self.path)
    }

    fn batch_ops_max(&self) -> usize {
        OPS_MAX
    }
}

/// Fsyncs every file below `dir` (sled's are `db`, `conf`, `snap.*` and `blobs/*`), then `dir`.
fn sync_tree(dir: &Path) -> Result<()> {
    let list = |source| Error::io("list", dir, source);
    for entry in fs::read_dir(dir).map_err(list)? {
        let path = entry.map_err(list)?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            sync_path(Some(&path))?;
        }
    }
    sync_path(Some(dir))
}

/// Fsyncs a file or directory. One that is gone was replaced by sled meanwhile: its successor is
/// either in the listing or is covered by the next flush.
fn sync_path(path: Option<&Path>) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    match File::open(path).and_then(|file| file.sync_all()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|source| Error::io("fsync", path, source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREES: [Tree; 1] = [Tree { id: 1, name: "coins" }];

    fn open(path: &Path) -> Result<SledDatabase> {
        SledDatabase::open(path, &TREES, &BackendOptions::default())
    }

    #[test]
    fn a_database_that_was_never_completed_is_made_anew_and_no_other_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let database = open(&path).unwrap();
        let mut batch = Batch::new();
        batch.put(TREES[0], b"key", b"value");
        database.apply(&batch).unwrap();
        database.flush().unwrap();
        drop(database);
        assert!(!path.join(UNMADE).exists());
        assert_eq!(
            open(&path).unwrap().get(TREES[0], b"key").unwrap().as_deref(),
            Some(&b"value"[..])
        );
        // As XFS leaves a file whose size was written and whose content was not.
        let conf = fs::read(path.join("conf")).unwrap();
        fs::write(path.join("conf"), vec![0; conf.len()]).unwrap();
        assert!(matches!(open(&path), Err(Error::Corrupt { .. })));
        fs::write(path.join(UNMADE), []).unwrap();
        assert_eq!(open(&path).unwrap().get(TREES[0], b"key").unwrap(), None);
        assert!(!path.join(UNMADE).exists());
    }

    #[test]
    fn a_snapshot_that_a_crash_has_cut_off_is_not_taken_for_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let database = open(&path).unwrap();
        let mut batch = Batch::new();
        batch.put(TREES[0], b"key", b"value");
        database.apply(&batch).unwrap();
        database.flush().unwrap();
        drop(database);
        // The lock is free a moment later.
        drop(open(&path).unwrap());
        for _ in 0..LOCK_ATTEMPTS {
            if File::open(path.join("db")).unwrap().try_lock().is_ok() {
                break;
            }
            thread::sleep(LOCK_PAUSE);
        }
        fs::write(path.join("snap.00000000FFFFFFFF.generating"), b"half of a snapshot").unwrap();
        let value = open(&path).unwrap().get(TREES[0], b"key").unwrap();
        assert_eq!(value.as_deref(), Some(&b"value"[..]));
    }

    #[test]
    fn what_another_process_is_making_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mark = begin(dir.path()).unwrap().unwrap();
        fs::write(dir.path().join("conf"), b"half").unwrap();
        assert!(matches!(open(dir.path()), Err(Error::Locked { .. })));
        assert_eq!(fs::read(dir.path().join("conf")).unwrap(), b"half");
        drop(mark);
        open(dir.path()).unwrap();
    }
}
