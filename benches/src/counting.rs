//! `CountingFileSystem`: the real one, which counts its fsyncs of files.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cofferdam_storage::{File, FileLock, FileSystem, Result, StdFileSystem};

/// Counts [`File::sync_data`] of all its files.
#[derive(Debug, Clone, Default)]
pub struct CountingFileSystem {
    syncs: Arc<AtomicU64>,
}

impl CountingFileSystem {
    /// How many there were.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    fn wrap(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(Counted { file, syncs: Arc::clone(&self.syncs) })
    }
}

#[derive(Debug)]
struct Counted {
    file: Arc<dyn File>,
    syncs: Arc<AtomicU64>,
}

impl FileSystem for CountingFileSystem {
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>> {
        StdFileSystem.create_new(path).map(|file| self.wrap(file))
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn File>> {
        StdFileSystem.open(path).map(|file| self.wrap(file))
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        StdFileSystem.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        StdFileSystem.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        StdFileSystem.remove(path)
    }

    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        StdFileSystem.create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        StdFileSystem.sync_dir(dir)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        StdFileSystem.exists(path)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>> {
        StdFileSystem.lock(path)
    }
}

impl File for Counted {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.file.read_at(offset, buffer)
    }

    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(offset, bytes)
    }

    fn set_len(&self, bytes: u64) -> Result<()> {
        self.file.set_len(bytes)
    }

    fn len(&self) -> Result<u64> {
        self.file.len()
    }

    fn sync_data(&self) -> Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.file.sync_data()
    }
}
