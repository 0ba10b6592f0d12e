//! A file system and a database that forget all they are told: what is left is the layer above.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cofferdam_storage::{
    Batch, Count, Database, Entries, File, FileLock, FileSystem, KeyRange, Result, STATE_TREE, Tree,
};

use crate::TREE;

/// A file system that writes nothing. A log on it begins empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct NullFileSystem;

/// A file of it: it has a size.
#[derive(Debug, Default)]
struct NullFile {
    bytes: AtomicU64,
}

#[derive(Debug)]
struct NullLock;

impl FileSystem for NullFileSystem {
    fn create_new(&self, _: &Path) -> Result<Arc<dyn File>> {
        Ok(Arc::new(NullFile::default()))
    }

    fn open(&self, _: &Path) -> Result<Arc<dyn File>> {
        Ok(Arc::new(NullFile::default()))
    }

    fn list(&self, _: &Path) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn rename(&self, _: &Path, _: &Path) -> Result<()> {
        Ok(())
    }

    fn remove(&self, _: &Path) -> Result<()> {
        Ok(())
    }

    fn create_dir_all(&self, _: &Path) -> Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> Result<()> {
        Ok(())
    }

    fn exists(&self, _: &Path) -> Result<bool> {
        Ok(false)
    }

    fn lock(&self, _: &Path) -> Result<Box<dyn FileLock>> {
        Ok(Box::new(NullLock))
    }
}

impl File for NullFile {
    fn read_at(&self, _: u64, _: &mut [u8]) -> Result<usize> {
        Ok(0)
    }

    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.bytes.fetch_max(offset + bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> Result<()> {
        self.bytes.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        Ok(self.bytes.load(Ordering::Relaxed))
    }

    fn sync_data(&self) -> Result<()> {
        Ok(())
    }
}

impl FileLock for NullLock {}

/// A database that is always empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct SinkDatabase;

impl Database for SinkDatabase {
    fn trees(&self) -> &[Tree] {
        &[STATE_TREE, TREE]
    }

    fn get(&self, _: Tree, _: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn range(&self, _: Tree, _: KeyRange) -> Result<Entries<'_>> {
        Ok(Box::new(std::iter::empty()))
    }

    fn len(&self, _: Tree) -> Result<Count> {
        Ok(Count::Exact(0))
    }

    fn clear(&self, _: Tree) -> Result<()> {
        Ok(())
    }

    fn apply(&self, _: &Batch) -> Result<()> {
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}
