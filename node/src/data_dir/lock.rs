//! `DirLock`: one node at a time in a directory, be it ours or Bitcoin Core.
//!
//! Core locks the file `.lock` with `fcntl` (`FileLock` in its `util/fs.cpp`); a lock of `flock` is
//! another kind, and on Linux neither is in the other's way. A lock of `fcntl` is the process's: it
//! guards nothing within it, and ends when the process closes any descriptor of the file. So what
//! this process has locked is noted, and such a file is not opened again.

use std::collections::BTreeSet;
use std::fs::{File, Metadata, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, anyhow};
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;

/// Device and inode of a file.
type FileId = (u64, u64);

/// The files that this process has locked. None of them is opened or closed but under this lock.
static HELD: Mutex<BTreeSet<FileId>> = Mutex::new(BTreeSet::new());

fn held() -> MutexGuard<'static, BTreeSet<FileId>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

fn id(metadata: &Metadata) -> FileId {
    (metadata.dev(), metadata.ino())
}

/// A lock of a directory, until it is dropped.
#[derive(Debug)]
pub(super) struct DirLock {
    id: FileId,
    /// There until the drop.
    file: Option<File>,
}

impl DirLock {
    /// Locks a directory.
    ///
    /// # Errors
    ///
    /// Returns an error, in `bitcoind`'s words, if another node has it or the system refuses.
    pub(super) fn take(dir: &Path) -> Result<Self> {
        let path = dir.join(".lock");
        let mut held = held();
        if std::fs::metadata(&path).is_ok_and(|metadata| held.contains(&id(&metadata))) {
            return Err(is_taken(dir));
        }
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).with_context(|| {
            format!("Cannot write to directory '{}'; check permissions.", dir.display())
        })?;
        let what = || format!("Cannot obtain a lock on directory {}", dir.display());
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::AGAIN | Errno::ACCESS) => return Err(is_taken(dir)),
            Err(error) => return Err(error).with_context(what),
        }
        let id = id(&file.metadata().with_context(what)?);
        held.insert(id);
        Ok(Self { id, file: Some(file) })
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        let mut held = held();
        // Closed before anybody may open it again, whose lock would end with this.
        drop(self.file.take());
        held.remove(&self.id);
    }
}

/// The words are `bitcoind`'s: tests of other projects compare them.
fn is_taken(dir: &Path) -> anyhow::Error {
    anyhow!(
        "Cannot obtain a lock on directory {}. Bitcoin Core is probably already running.",
        dir.display()
    )
}
