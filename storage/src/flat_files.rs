//! `FlatFiles`: numbered append-only files, as Bitcoin Core keeps blocks and undo data in them.
//!
//! Invariants:
//!
//! - The file `<prefix>NNNNN.dat` with the highest number is the one that [`FlatFiles::append`]
//!   writes to; an append never spans two files.
//! - The byte at file offset `o` is stored XOR-ed with `xor_key[o % 8]`.
//! - An append marks its file dirty after its bytes are written and before it returns; a
//!   [`FlatFiles::sync`] fsyncs every file that was dirty when it began. So what was appended
//!   before a `sync` began is durable when that `sync` returns.
//! - What an earlier process appended may be in the page cache only: the last file and the
//!   directory are dirty from the start, and [`FlatFiles::rewrite`] is for records it may have lost.
//! - After a failed fsync every append and sync is refused: the system may have dropped bytes and
//!   would answer "done" to a second fsync.
//! - A file that may not be written is read all the same, as Bitcoin Core does.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::file_system::{File, FileSystem};
use crate::lock::lock;
use crate::mutation::{Mutation, mutated};
use crate::sync::Mutex;

/// Open files kept for reading. Mainnet has over five thousand; a process may have 1024.
const OPEN_FILES_MAX: usize = 64;

/// Where a record begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FilePosition {
    /// The number in the file's name.
    pub file: u32,
    /// The offset of the first byte in that file.
    pub offset: u32,
}

/// How the files are named, split and obfuscated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlatFilesOptions {
    /// What the names begin with (`blk`, `rev`).
    pub prefix: &'static str,
    /// An append that would make a file longer than this begins the next file.
    pub file_bytes_max: u64,
    /// Every byte is XOR-ed with this key, repeated; zeros leave the bytes as they are.
    pub xor_key: [u8; 8],
}

/// Numbered append-only files in one directory.
#[derive(Debug)]
pub struct FlatFiles {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    options: FlatFilesOptions,
    state: Mutex<State>,
    /// Lets one sync run at a time: a second caller must not return before the first one's fsync.
    sync: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    last_file: u32,
    /// The size of every file that was used since opening, appends under way included.
    sizes: BTreeMap<u32, u64>,
    open: BTreeMap<u32, Arc<dyn File>>,
    dirty: BTreeMap<u32, Arc<dyn File>>,
    /// Files whose handles are for reading alone.
    read_only: BTreeSet<u32>,
    /// A file was made since the directory was last synced.
    dir_dirty: bool,
    poisoned: Option<String>,
}

impl FlatFiles {
    /// Opens the files of a directory, which is made if need be.
    ///
    /// # Errors
    ///
    /// If the directory cannot be made or read.
    pub fn open(fs: Arc<dyn FileSystem>, dir: &Path, options: FlatFilesOptions) -> Result<Self> {
        fs.create_dir_all(dir)?;
        let last = fs.list(dir)?.iter().filter_map(|name| number(options.prefix, name)).max();
        let dir_dirty = !mutated(Mutation::FlatFileNameTakenForSynced);
        let state = State { last_file: last.unwrap_or(0), dir_dirty, ..State::default() };
        let (dir, sync) = (dir.to_path_buf(), Mutex::new(()));
        let files = Self { fs, dir, options, state: Mutex::new(state), sync };
        if let Some(last) = last {
            let mut state = lock(&files.state);
            let file = files.existing_file(&mut state, last)?;
            state.dirty.insert(last, file);
        }
        Ok(files)
    }

    /// Writes a record again that is there, so that the next [`FlatFiles::sync`] covers it, whoever
    /// wrote it. For [`Attachments::rewrite`](crate::Attachments::rewrite): if an fsync of an
    /// earlier process failed, the system shows bytes that it will never write, and answers the
    /// next fsync with "done". A file that this process may not write was none of that one's.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] if the file does not hold it; or if the system refuses.
    pub fn rewrite(&self, position: FilePosition, len: usize) -> Result<()> {
        let bytes = self.read(position, len)?;
        let file = {
            let mut state = lock(&self.state);
            let file = self.existing_file(&mut state, position.file)?;
            if state.read_only.contains(&position.file) {
                state.dirty.insert(position.file, file);
                return Ok(());
            }
            file
        };
        self.write(&file, position, &bytes).map(|_| ())
    }

    /// Appends a record to the last file, or to the next one if it would become too long. Returns
    /// the position of the first byte. Not durable before [`FlatFiles::sync`].
    ///
    /// # Errors
    ///
    /// If the system refuses, if a file would pass 4 GiB, or after a failed fsync.
    pub fn append(&self, bytes: &[u8]) -> Result<FilePosition> {
        let len = as_u64(bytes.len());
        let (file, position) = {
            let mut state = lock(&self.state);
            let mut number = state.last_file;
            let size = self.size(&mut state, number)?;
            if size > 0 && size.saturating_add(len) > self.options.file_bytes_max {
                number =
                    number.checked_add(1).ok_or_else(|| Error::misuse("file numbers used up"))?;
            }
            self.reserve(&mut state, number, len)?
        };
        self.write(&file, position, bytes)
    }

    /// Appends a record to a file of a given number, whatever its size.
    ///
    /// # Errors
    ///
    /// As [`FlatFiles::append`].
    pub fn append_to_file(&self, number: u32, bytes: &[u8]) -> Result<FilePosition> {
        let (file, position) = self.reserve(&mut lock(&self.state), number, as_u64(bytes.len()))?;
        self.write(&file, position, bytes)
    }

    /// Takes `len` bytes at the end of a file for the caller, who writes them without the lock.
    fn reserve(
        &self,
        state: &mut State,
        number: u32,
        len: u64,
    ) -> Result<(Arc<dyn File>, FilePosition)> {
        if let Some(cause) = &state.poisoned {
            return Err(Error::Poisoned { cause: cause.clone() });
        }
        let size = self.size(state, number)?;
        let bytes_max = u64::from(u32::MAX);
        let end = size.saturating_add(len);
        let offset = u32::try_from(size)
            .ok()
            .filter(|_| end <= bytes_max)
            .ok_or(Error::TooLarge { what: "a flat file", bytes: end, bytes_max })?;
        let file = self.file_for_append(state, number)?;
        state.sizes.insert(number, end);
        state.last_file = state.last_file.max(number);
        Ok((file, FilePosition { file: number, offset }))
    }

    fn write(
        &self,
        file: &Arc<dyn File>,
        position: FilePosition,
        bytes: &[u8],
    ) -> Result<FilePosition> {
        let offset = u64::from(position.offset);
        if self.options.xor_key == [0; 8] {
            file.write_all_at(offset, bytes)?;
        } else {
            let mut hidden = bytes.to_vec();
            self.xor(offset, &mut hidden);
            file.write_all_at(offset, &hidden)?;
        }
        if !mutated(Mutation::FlatFileForgotten) {
            lock(&self.state).dirty.insert(position.file, Arc::clone(file));
        }
        Ok(position)
    }

    /// Returns `len` bytes from `position` on. A file that somebody took away is missed, though a
    /// handle to it may still be open: who reads its bytes as if it were there finds out at the next
    /// start.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] if the file does not hold them all; or if the system refuses.
    pub fn read(&self, position: FilePosition, len: usize) -> Result<Vec<u8>> {
        let offset = u64::from(position.offset);
        let (size, file) = {
            let mut state = lock(&self.state);
            let size = self.size(&mut state, position.file)?;
            if offset.saturating_add(as_u64(len)) > size {
                return Err(self.out_of_bounds(position, len, size));
            }
            if len == 0 {
                return Ok(Vec::new());
            }
            (size, self.existing_file(&mut state, position.file)?)
        };
        if !self.fs.exists(&self.path(position.file))? {
            return Err(self.out_of_bounds(position, len, 0));
        }
        let mut bytes = vec![0; len];
        if file.read_at(offset, &mut bytes)? < len {
            return Err(self.out_of_bounds(position, len, size));
        }
        self.xor(offset, &mut bytes);
        Ok(bytes)
    }

    /// Makes durable what was appended before the call: fsyncs the files that are dirty, and the
    /// directory if a file was made.
    ///
    /// # Errors
    ///
    /// If an fsync fails, and ever after: what is durable is then unknown.
    pub fn sync(&self) -> Result<()> {
        let _one_at_a_time = lock(&self.sync);
        let (dirty, dir_dirty) = {
            let mut state = lock(&self.state);
            if let Some(cause) = &state.poisoned {
                return Err(Error::Poisoned { cause: cause.clone() });
            }
            (std::mem::take(&mut state.dirty), std::mem::take(&mut state.dir_dirty))
        };
        let synced = dirty.values().try_for_each(|file| file.sync_data());
        let synced = match synced {
            Ok(()) if dir_dirty => self.fs.sync_dir(&self.dir),
            other => other,
        };
        if let Err(error) = &synced {
            lock(&self.state).poisoned = Some(error.chain());
        }
        synced
    }

    /// The numbers of the files there are, in order.
    ///
    /// # Errors
    ///
    /// If the directory cannot be read.
    pub fn numbers(&self) -> Result<Vec<u32>> {
        let names = self.fs.list(&self.dir)?;
        let mut numbers: Vec<u32> =
            names.iter().filter_map(|name| number(self.options.prefix, name)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Removes a file, if it is there. The caller has made durable that nothing refers to it: the
    /// name may come back after a power cut, and nobody may miss it if it does not.
    ///
    /// # Errors
    ///
    /// If it is the file that [`FlatFiles::append`] writes to, or the system refuses.
    pub fn remove(&self, number: u32) -> Result<()> {
        let mut state = lock(&self.state);
        if number >= state.last_file {
            return Err(Error::misuse("the last file is written to and cannot be removed"));
        }
        state.open.remove(&number);
        state.dirty.remove(&number);
        state.sizes.remove(&number);
        let path = self.path(number);
        if self.fs.exists(&path)? { self.fs.remove(&path) } else { Ok(()) }
    }

    /// The size of a file in bytes; zero if there is none of that number.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn file_len(&self, number: u32) -> Result<u64> {
        self.size(&mut lock(&self.state), number)
    }

    /// The highest file number; zero also if there is no file yet.
    #[must_use]
    pub fn last_file(&self) -> u32 {
        lock(&self.state).last_file
    }

    /// The path of the file of that number.
    #[must_use]
    pub fn path(&self, number: u32) -> PathBuf {
        self.dir.join(file_name(self.options.prefix, number))
    }

    fn xor(&self, offset: u64, bytes: &mut [u8]) {
        let mut key = self.options.xor_key;
        key.rotate_left(usize::try_from(offset % 8).unwrap_or(0));
        let word = u64::from_ne_bytes(key);
        let (words, rest) = bytes.as_chunks_mut::<8>();
        for bytes in words {
            *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
        }
        for (byte, key) in rest.iter_mut().zip(key) {
            *byte ^= key;
        }
    }

    fn size(&self, state: &mut State, number: u32) -> Result<u64> {
        if let Some(size) = state.sizes.get(&number) {
            return Ok(*size);
        }
        let size = if self.fs.exists(&self.path(number))? {
            self.existing_file(state, number)?.len()?
        } else {
            0
        };
        state.sizes.insert(number, size);
        Ok(size)
    }

    fn file_for_append(&self, state: &mut State, number: u32) -> Result<Arc<dyn File>> {
        let path = self.path(number);
        let is_open = state.dirty.contains_key(&number) || state.open.contains_key(&number);
        if is_open || self.fs.exists(&path)? {
            let file = self.existing_file(state, number)?;
            if state.read_only.contains(&number) {
                return Err(Error::io("write", &path, ErrorKind::PermissionDenied.into()));
            }
            return Ok(file);
        }
        let file = self.fs.create_new(&path)?;
        state.dir_dirty = !mutated(Mutation::FlatFileNameNotSynced);
        remember(state, number, &file);
        Ok(file)
    }

    fn existing_file(&self, state: &mut State, number: u32) -> Result<Arc<dyn File>> {
        if let Some(file) = state.dirty.get(&number).or_else(|| state.open.get(&number)) {
            return Ok(Arc::clone(file));
        }
        let path = self.path(number);
        let file = match self.fs.open(&path) {
            Err(Error::Io { source, .. }) if is_for_reading(&source) => {
                state.read_only.insert(number);
                self.fs.open_to_read(&path)?
            }
            opened => {
                state.read_only.remove(&number);
                opened?
            }
        };
        remember(state, number, &file);
        Ok(file)
    }

    fn out_of_bounds(&self, position: FilePosition, len: usize, file_bytes: u64) -> Error {
        Error::OutOfBounds {
            path: self.path(position.file),
            offset: u64::from(position.offset),
            len: as_u64(len),
            file_bytes,
        }
    }
}

/// Whether a failed opening leaves open that the file may be read.
fn is_for_reading(source: &std::io::Error) -> bool {
    matches!(source.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

/// Keeps a file open. Dirty files are held elsewhere too: the handle that wrote is the one whose
/// fsync reports a write-back error for certain.
fn remember(state: &mut State, number: u32, file: &Arc<dyn File>) {
    while state.open.len() >= OPEN_FILES_MAX {
        state.open.pop_first();
    }
    state.open.insert(number, Arc::clone(file));
}

/// The number in `<prefix>NNNNN.dat`. A name with more digits than it needs is a foreign file.
fn number(prefix: &str, name: &str) -> Option<u32> {
    let number = name.strip_prefix(prefix)?.strip_suffix(".dat")?.parse().ok()?;
    (file_name(prefix, number) == name).then_some(number)
}

fn file_name(prefix: &str, number: u32) -> String {
    format!("{prefix}{number:05}.dat")
}

/// A length in memory as a length in a file.
fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file_system::StdFileSystem;

    fn options(file_bytes_max: u64, xor_key: [u8; 8]) -> FlatFilesOptions {
        FlatFilesOptions { prefix: "blk", file_bytes_max, xor_key }
    }

    fn open(dir: &Path, options: FlatFilesOptions) -> FlatFiles {
        FlatFiles::open(Arc::new(StdFileSystem), dir, options).unwrap()
    }

    #[test]
    fn appends_are_read_back_also_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let options = options(10, *b"\x01\x02\x03\x04\x05\x06\x07\x08");
        let files = open(dir.path(), options);
        let first = files.append(b"abcdef").unwrap();
        let second = files.append(b"ghij").unwrap();
        let third = files.append(b"k").unwrap();
        assert_eq!(first, FilePosition { file: 0, offset: 0 });
        assert_eq!(second, FilePosition { file: 0, offset: 6 });
        assert_eq!(third, FilePosition { file: 1, offset: 0 });
        files.sync().unwrap();
        let reopened = open(dir.path(), options);
        assert_eq!((reopened.last_file(), reopened.file_len(0).unwrap()), (1, 10));
        for files in [files, reopened] {
            assert_eq!(files.read(second, 4).unwrap(), b"ghij");
            assert_eq!(files.read(FilePosition { file: 0, offset: 1 }, 3).unwrap(), b"bcd");
        }
    }

    #[test]
    fn bytes_are_xored_by_file_offset_as_in_core() {
        let dir = tempfile::tempdir().unwrap();
        let key = [1, 2, 4, 8, 16, 32, 64, 128];
        let files = open(dir.path(), options(100, key));
        files.append(&[0; 3]).unwrap();
        files.append(&[0; 7]).unwrap();
        let stored = std::fs::read(files.path(0)).unwrap();
        assert_eq!(stored, [1, 2, 4, 8, 16, 32, 64, 128, 1, 2]);
    }

    #[test]
    fn a_record_longer_than_a_file_gets_a_file_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let files = open(dir.path(), options(4, [0; 8]));
        assert_eq!(files.append(b"longer").unwrap(), FilePosition { file: 0, offset: 0 });
        assert_eq!(files.append(b"x").unwrap(), FilePosition { file: 1, offset: 0 });
        assert_eq!(files.append_to_file(0, b"y").unwrap(), FilePosition { file: 0, offset: 6 });
        assert_eq!(files.read(FilePosition { file: 0, offset: 0 }, 7).unwrap(), b"longery");
    }

    #[test]
    fn a_file_that_was_taken_away_is_missed_though_it_is_open() {
        let dir = tempfile::tempdir().unwrap();
        let files = open(dir.path(), options(100, [0; 8]));
        let at = files.append(b"abc").unwrap();
        assert_eq!(files.read(at, 3).unwrap(), b"abc");
        let elsewhere = dir.path().join("elsewhere");
        std::fs::rename(files.path(0), &elsewhere).unwrap();
        assert!(matches!(files.read(at, 3), Err(Error::OutOfBounds { .. })));
        std::fs::rename(&elsewhere, files.path(0)).unwrap();
        assert_eq!(files.read(at, 3).unwrap(), b"abc");
    }

    /// As a full block file of Bitcoin Core may be, to which an import has given a second name.
    #[test]
    #[cfg(feature = "testing")]
    fn a_file_that_may_only_be_read_is_read_and_named_by_an_append_to_it() {
        let fs = crate::testing::SimFileSystem::new();
        let open = || {
            let shared: Arc<dyn FileSystem> = Arc::new(fs.clone());
            FlatFiles::open(shared, Path::new("blocks"), options(10, [0; 8])).unwrap()
        };
        let files = open();
        let (first, last) = (files.append(b"abcdefgh").unwrap(), files.append(b"ijk").unwrap());
        for number in [first.file, last.file] {
            fs.write_protect(&files.path(number));
        }
        let files = open();
        assert_eq!(files.read(first, 8).unwrap(), b"abcdefgh");
        assert_eq!(files.read(last, 3).unwrap(), b"ijk");
        files.rewrite(first, 8).unwrap();
        files.sync().unwrap();
        let error = files.append(b"l").unwrap_err();
        assert_eq!(error.chain(), "cannot write blocks/blk00001.dat: permission denied");
        assert_eq!(files.append(b"too long for that one").unwrap().file, 2);
    }

    #[test]
    fn reading_beyond_the_end_is_a_typed_error() {
        let dir = tempfile::tempdir().unwrap();
        let files = open(dir.path(), options(100, [0; 8]));
        files.append(b"abc").unwrap();
        for (position, len) in [
            (FilePosition { file: 0, offset: 0 }, 4),
            (FilePosition { file: 0, offset: 4 }, 0),
            (FilePosition { file: 9, offset: 0 }, 1),
            (FilePosition { file: 0, offset: u32::MAX }, usize::MAX),
        ] {
            let error = files.read(position, len).unwrap_err();
            assert!(matches!(error, Error::OutOfBounds { .. }), "{error:?}");
        }
    }

    #[test]
    fn foreign_files_are_not_counted() {
        for name in [
            "blk1.dat",
            "blk000001.dat",
            "blk00001.dat.tmp",
            "rev00003.dat",
            "blk0000x.dat",
            "xor.dat",
        ] {
            assert_eq!(number("blk", name), None, "{name}");
        }
        assert_eq!(number("blk", "blk00042.dat"), Some(42));
    }

    #[test]
    fn appends_from_several_threads_do_not_overlap() {
        let dir = tempfile::tempdir().unwrap();
        let files = open(dir.path(), options(1 << 20, [7; 8]));
        std::thread::scope(|scope| {
            for thread in 0..4_u8 {
                let files = &files;
                scope.spawn(move || {
                    for round in 0..50_u8 {
                        let record = [thread, round, thread ^ round];
                        let position = files.append(&record).unwrap();
                        assert_eq!(files.read(position, 3).unwrap(), record);
                        files.sync().unwrap();
                    }
                });
            }
        });
        assert_eq!(files.file_len(0).unwrap(), 4 * 50 * 3);
    }
}
