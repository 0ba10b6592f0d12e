//! `ReadOnlyFileSystem`: the real file system for tools that look and never touch.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::file_system::{File, FileLock, FileSystem, StdFile, StdFileLock, StdFileSystem};

/// The real file system, on which every change is refused.
///
/// Files are opened for reading only, so that a file of another user, or one on a disk that is
/// mounted read-only, can be looked at too.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadOnlyFileSystem;

fn refused<T>(action: &'static str, path: &Path) -> Result<T> {
    Err(Error::io(action, path, io::ErrorKind::ReadOnlyFilesystem.into()))
}

impl FileSystem for ReadOnlyFileSystem {
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>> {
        refused("create", path)
    }

    /// The handle's own writes are refused by the system.
    fn open(&self, path: &Path) -> Result<Arc<dyn File>> {
        StdFile::wrap(OpenOptions::new().read(true).open(path), "open", path)
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        StdFileSystem.list(dir)
    }

    fn rename(&self, from: &Path, _: &Path) -> Result<()> {
        refused("rename", from)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        refused("remove", path)
    }

    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        refused("create directory", dir)
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        refused("sync directory", dir)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        StdFileSystem.exists(path)
    }

    /// Takes the lock without making its file, and shared: two who look do not see each other.
    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>> {
        let file = fs::File::open(path);
        let file = file.map_err(|source| Error::io("open lock file", path, source))?;
        let taken = file.try_lock_shared();
        StdFileLock::wrap(file, taken, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_can_be_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"abc").unwrap();
        let read_only = ReadOnlyFileSystem;
        let file = read_only.open(&path).unwrap();
        file.write_all_at(0, b"x").unwrap_err();
        file.set_len(1).unwrap_err();
        assert!(read_only.create_new(&dir.path().join("new")).is_err());
        read_only.rename(&path, &dir.path().join("other")).unwrap_err();
        read_only.remove(&path).unwrap_err();
        read_only.create_dir_all(&dir.path().join("a/b")).unwrap_err();
        assert!(read_only.lock(&dir.path().join("lock")).is_err());
        assert_eq!(read_only.list(dir.path()).unwrap(), ["file"]);
        assert_eq!(fs::read(&path).unwrap(), b"abc");
    }

    #[test]
    fn a_lock_that_a_writer_holds_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = StdFileSystem.lock(&path).unwrap();
        assert!(matches!(ReadOnlyFileSystem.lock(&path), Err(Error::Locked { .. })));
        drop(held);
        let _one = ReadOnlyFileSystem.lock(&path).unwrap();
        ReadOnlyFileSystem.lock(&path).unwrap();
    }
}
