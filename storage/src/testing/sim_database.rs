//! `SimDatabase`: a database on a [`FileSystem`] that keeps its contract and nothing more.
//!
//! Every batch is a file of its own, with a checksum. `flush` makes all files durable; without it
//! a crash may take *any* of them, also older ones than those it leaves. Opening applies the files
//! that are whole, and writes them again: the next `flush` covers them too, even if one of an
//! earlier process failed. No real engine forgets as badly, so what survives on this one survives on them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backend::MemoryDatabase;
use crate::batch::Batch;
use crate::database::{Count, Database, Entries, KeyRange, Tree};
use crate::error::Result;
use crate::file_system::{File, FileSystem, read_small};
use crate::lock::lock;
use crate::sync::Mutex;

/// A small bound shows what writing back in many batches does.
const OPS_MAX: usize = 7;
const FILE_BYTES_MAX: usize = 1 << 30;

/// A database whose batches are files.
#[derive(Debug)]
pub struct SimDatabase {
    memory: MemoryDatabase,
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    next: u64,
    dirty: Vec<Arc<dyn File>>,
}

impl SimDatabase {
    /// Opens the database in `dir`.
    ///
    /// # Errors
    ///
    /// If the file system fails.
    pub fn open(fs: Arc<dyn FileSystem>, dir: &Path, trees: &[Tree]) -> Result<Self> {
        fs.create_dir_all(dir)?;
        let memory = MemoryDatabase::new(trees);
        let (mut next, mut dirty) = (0, Vec::new());
        for name in fs.list(dir)? {
            let path = dir.join(&name);
            let bytes = read_small(&*fs, &path, FILE_BYTES_MAX)?.unwrap_or_default();
            let file = fs.open(&path)?;
            if let Some((crc, batch)) = bytes.split_first_chunk::<4>()
                && crc32fast::hash(batch) == u32::from_le_bytes(*crc)
            {
                memory.apply(&Batch::decode(batch)?)?;
                // After a failed fsync of an earlier process the page cache has what the disk
                // never gets, and further fsyncs say "done": only writing it anew helps.
                file.write_all_at(0, &bytes)?;
            }
            next = name.parse::<u64>().map_or(next, |number| next.max(number + 1));
            dirty.push(file);
        }
        let state = Mutex::new(State { next, dirty });
        Ok(Self { memory, fs, dir: dir.to_path_buf(), state })
    }
}

impl Database for SimDatabase {
    fn trees(&self) -> &[Tree] {
        self.memory.trees()
    }

    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.memory.get(tree, key)
    }

    fn range(&self, tree: Tree, range: KeyRange) -> Result<Entries<'_>> {
        self.memory.range(tree, range)
    }

    fn len(&self, tree: Tree) -> Result<Count> {
        self.memory.len(tree)
    }

    fn clear(&self, tree: Tree) -> Result<()> {
        let mut batch = Batch::new();
        for entry in self.range(tree, KeyRange::all())? {
            batch.delete(tree, &entry?.0);
        }
        self.apply(&batch)
    }

    fn apply(&self, batch: &Batch) -> Result<()> {
        // Checks the trees; a failure below leaves memory ahead, which a poisoned store ignores.
        self.memory.apply(batch)?;
        let mut state = lock(&self.state);
        let file = self.fs.create_new(&self.dir.join(format!("{:010}", state.next)))?;
        state.next += 1;
        let bytes = batch.as_bytes();
        file.write_all_at(0, &[&crc32fast::hash(bytes).to_le_bytes()[..], bytes].concat())?;
        state.dirty.push(file);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        let mut state = lock(&self.state);
        state.dirty.iter().try_for_each(|file| file.sync_data())?;
        self.fs.sync_dir(&self.dir)?;
        state.dirty.clear();
        Ok(())
    }

    fn batch_ops_max(&self) -> usize {
        OPS_MAX
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;
    use crate::testing::{CrashModel, Fault, Model, SimFileSystem};

    /// Found by the fuzz target `store_model`: a batch whose fsync had failed was read by the next
    /// process, flushed by it, and lost by a power cut.
    #[test]
    fn flush_covers_what_an_earlier_process_failed_to_flush() {
        let tree = Tree { id: 1, name: "a" };
        let fs = SimFileSystem::new();
        let open = |fs: &SimFileSystem| {
            SimDatabase::open(Arc::new(fs.clone()), Path::new("db"), &[tree]).unwrap()
        };
        let database = open(&fs);
        let mut batch = Batch::new();
        batch.put(tree, b"k", b"v");
        database.apply(&batch).unwrap();
        fs.inject(Fault { at: fs.ops(), kind: ErrorKind::Other, sticky: false });
        database.flush().unwrap_err();
        let killed = fs.after_crash(CrashModel::Kill, 0);
        let database = open(&killed);
        assert_eq!(database.get(tree, b"k").unwrap().as_deref(), Some(&b"v"[..]));
        database.flush().unwrap();
        let cut = killed.after_crash(CrashModel::SyncedOnly, 0);
        let mut expected = Model::default();
        expected.apply(&batch);
        assert_eq!(Model::read(&open(&cut)).unwrap(), expected);
    }
}
