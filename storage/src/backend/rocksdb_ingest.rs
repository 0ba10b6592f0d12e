//! Sorted entries into RocksDB as whole table files, past its memtable and most compactions.
//!
//! The files are written in a directory below the database's and then moved, so that a crash
//! leaves at most files there, which the next opening removes.
//!
//! Twice as fast as batches until all is durable (`benches/ingest.rs`).

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rocksdb::{ColumnFamily, DB, IngestExternalFileOptions, Options, SstFileWriter};

use crate::backend::rocksdb::failed;
use crate::database::Entry;
use crate::error::{Error, Result};

/// RocksDB leaves names alone that are not its own.
const DIR_NAME: &str = "cofferdam-ingest";
/// A file is closed at this size: as large as those that RocksDB's compactions write.
const FILE_BYTES_MAX: usize = 64 << 20;

/// Writes table files and hands them over.
pub(super) struct Ingester {
    dir: PathBuf,
    options: Options,
    next: AtomicU64,
}

impl fmt::Debug for Ingester {
    /// RocksDB's options have no text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ingester").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Ingester {
    /// Takes the options of the column families. The caller holds the database's lock: what an
    /// earlier process has left is removed.
    pub(super) fn new(database: &Path, options: Options) -> Result<Self> {
        let dir = database.join(DIR_NAME);
        match fs::remove_dir_all(&dir) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(Error::io("remove", &dir, source))
            }
            _ => Ok(Self { dir, options, next: AtomicU64::new(0) }),
        }
    }

    /// Writes entries, the first of which are `front`; keys must ascend.
    pub(super) fn ingest(
        &self,
        (db, family): (&DB, &ColumnFamily),
        front: Vec<Entry>,
        rest: &mut dyn Iterator<Item = Entry>,
    ) -> Result<()> {
        fs::create_dir_all(&self.dir)
            .map_err(|source| Error::io("create directory", &self.dir, source))?;
        let mut entries = front.into_iter().chain(rest).peekable();
        let mut last_key = None;
        while entries.peek().is_some() {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let path = self.dir.join(format!("{number}.sst"));
            let written = self.write_file(&path, &mut entries, &mut last_key);
            let done = written.and_then(|()| {
                let mut options = IngestExternalFileOptions::default();
                options.set_move_files(true);
                db.ingest_external_file_cf_opts(family, &options, vec![&path])
                    .map_err(failed("ingest a table file"))
            });
            if done.is_err() {
                // The first error is the one to tell; what stays is removed at the next opening.
                let _ = fs::remove_file(&path);
                return done;
            }
        }
        Ok(())
    }

    /// Writes one file; at least one entry is there.
    fn write_file(
        &self,
        path: &Path,
        entries: &mut dyn Iterator<Item = Entry>,
        last_key: &mut Option<Vec<u8>>,
    ) -> Result<()> {
        let mut writer = SstFileWriter::create(&self.options);
        writer.open(path).map_err(failed("make a table file"))?;
        let mut bytes = 0;
        while bytes < FILE_BYTES_MAX
            && let Some((key, value)) = entries.next()
        {
            if last_key.as_ref().is_some_and(|last| *last >= key) {
                return Err(Error::misuse("ingest_sorted: the keys do not ascend"));
            }
            writer.put(&key, &value).map_err(failed("write a table file"))?;
            bytes += key.len() + value.len();
            *last_key = Some(key);
        }
        writer.finish().map_err(failed("finish a table file"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{BackendOptions, RocksDatabase};
    use crate::database::{Count, Database, KeyRange, Tree};

    const TREE: Tree = Tree { id: 1, name: "one" };

    fn open(dir: &Path) -> RocksDatabase {
        RocksDatabase::open(dir, &[TREE], &BackendOptions::default()).unwrap()
    }

    fn entry(n: u64) -> Entry {
        let mut key = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().repeat(4);
        key[..8].copy_from_slice(&n.to_be_bytes());
        key.extend_from_slice(&[0; 4]);
        let value = [&key[8..], &[7; 17]].concat();
        (key, value)
    }

    #[test]
    fn many_entries_fill_several_files_and_survive() {
        let dir = tempfile::tempdir().unwrap();
        let n = 200_000;
        // With 36 + 45 bytes an entry that is less than one file of 64 MiB; with long values more.
        let long = |n| (entry(n).0, vec![3; 700]);
        let database = open(dir.path());
        database.ingest_sorted(TREE, &mut (0..n).map(long)).unwrap();
        database.ingest_sorted(TREE, &mut (0..n).step_by(2).map(entry)).unwrap();
        database.flush().unwrap();
        drop(database);
        let database = open(dir.path());
        let found = database.range(TREE, KeyRange::all()).unwrap().map(Result::unwrap);
        assert!(found.eq((0..n).map(|n| if n % 2 == 0 { entry(n) } else { long(n) })));
        assert!(matches!(database.len(TREE).unwrap(), Count::Estimate(_)));
    }

    #[test]
    fn keys_that_do_not_ascend_are_refused_and_nothing_stays_behind() {
        let dir = tempfile::tempdir().unwrap();
        let database = open(dir.path());
        let twice = (0..60_000).map(entry).chain([entry(59_999)]);
        let error = database.ingest_sorted(TREE, &mut twice.into_iter()).unwrap_err();
        assert!(matches!(error, Error::Misuse { .. }), "{error}");
        assert_eq!(fs::read_dir(dir.path().join(DIR_NAME)).unwrap().count(), 0);
    }

    #[test]
    fn what_a_crash_left_is_removed_at_the_next_opening() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()));
        let leftover = dir.path().join(DIR_NAME);
        fs::create_dir_all(&leftover).unwrap();
        fs::write(leftover.join("0.sst"), b"half a table file").unwrap();
        drop(open(dir.path()));
        assert!(!leftover.exists());
    }
}
