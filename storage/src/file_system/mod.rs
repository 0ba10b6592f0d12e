//! `FileSystem`: the only file I/O of the log and of the flat files, so that tests can break it.

use std::fmt::Debug;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(feature = "mmap")]
mod mapped;

use crate::error::{Error, Result};
use crate::mutation::{Mutation, mutated};

/// The part of a file system that a crash-safe store needs.
///
/// What survives a power cut is what POSIX promises, not what a given file system happens to do:
/// bytes of a file once its [`File::sync_data`] has returned, and a name (made, renamed or
/// removed) once [`FileSystem::sync_dir`] of its directory has returned.
pub trait FileSystem: Debug + Send + Sync {
    /// Makes a file that must not exist yet, for reading and writing.
    ///
    /// # Errors
    ///
    /// If it exists or the system refuses.
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    ///
    /// If it does not exist or the system refuses.
    fn open(&self, path: &Path) -> Result<Arc<dyn File>>;

    /// Opens an existing file for reading alone, which needs no permission to write.
    ///
    /// # Errors
    ///
    /// If it does not exist or the system refuses.
    fn open_to_read(&self, path: &Path) -> Result<Arc<dyn File>> {
        self.open(path)
    }

    /// The names in a directory, in order.
    ///
    /// # Errors
    ///
    /// If the directory cannot be read.
    fn list(&self, dir: &Path) -> Result<Vec<String>>;

    /// Gives a file another name in the same directory, replacing a file of that name atomically.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// If it does not exist or the system refuses.
    fn remove(&self, path: &Path) -> Result<()>;

    /// Makes a directory and those above it. They are durable when it returns.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    fn create_dir_all(&self, dir: &Path) -> Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    fn sync_dir(&self, dir: &Path) -> Result<()>;

    /// Whether there is a file or directory of that name.
    ///
    /// # Errors
    ///
    /// If the system cannot tell.
    fn exists(&self, path: &Path) -> Result<bool>;

    /// How many bytes can still be written to the disk that holds a directory; none if unknown.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    fn free_bytes(&self, dir: &Path) -> Result<Option<u64>> {
        let _ = dir;
        Ok(None)
    }

    /// Takes an exclusive lock by means of the file `path`, which is made if need be.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] if another process, or this one, holds it.
    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>>;
}

/// An open file. All positions are explicit, so that threads can share it.
pub trait File: Debug + Send + Sync {
    /// Reads up to `buffer.len()` bytes at `offset`; fewer only at the end of the file.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize>;

    /// Writes all of `bytes` at `offset`. After an error any part of them may have been written.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Cuts the file, or extends it with zeros.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    fn set_len(&self, bytes: u64) -> Result<()>;

    /// Extends the file with zeros to at least `bytes`, with the blocks for them, if the file system
    /// can give any.
    ///
    /// # Errors
    ///
    /// If the system refuses, as when there is no space.
    fn allocate(&self, bytes: u64) -> Result<()> {
        if self.len()? < bytes { self.set_len(bytes) } else { Ok(()) }
    }

    /// The same file with its first `bytes` written through a memory mapping, allocated before; none
    /// if that cannot be done.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    fn map(&self, bytes: u64) -> Result<Option<Arc<dyn File>>> {
        let _ = bytes;
        Ok(None)
    }

    /// Returns when the system has taken all earlier writes: they survive the process.
    ///
    /// # Errors
    ///
    /// If one of them failed.
    fn settle(&self) -> Result<()> {
        Ok(())
    }

    /// The file's size in bytes.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    fn len(&self) -> Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    ///
    /// As [`File::len`].
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Makes the file's bytes and size durable. After an error they never are: the caller must
    /// not try again, since the system may have dropped the bytes and answer "done".
    ///
    /// # Errors
    ///
    /// If the system refuses.
    fn sync_data(&self) -> Result<()>;
}

/// A lock that is held until it is dropped.
pub trait FileLock: Debug + Send + Sync {}

/// Writes a small file so that a crash leaves the old one or the new one, whole: temporary file,
/// fsync, rename, fsync of the directory. The only way in which a small file is made.
///
/// # Errors
///
/// If the system refuses any step.
pub fn write_atomic(fs: &dyn FileSystem, path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = temporary_path(path);
    if fs.exists(&temporary)? {
        fs.remove(&temporary)?;
    }
    let file = fs.create_new(&temporary)?;
    file.write_all_at(0, bytes)?;
    if !mutated(Mutation::SmallFileNotSynced) {
        file.sync_data()?;
    }
    fs.rename(&temporary, path)?;
    if mutated(Mutation::SmallFileNameNotSynced) { Ok(()) } else { fs.sync_dir(parent(path)) }
}

/// Reads a small file whole, or none if it does not exist.
///
/// # Errors
///
/// [`Error::TooLarge`] if it has more than `bytes_max` bytes; or if the system refuses.
pub fn read_small(fs: &dyn FileSystem, path: &Path, bytes_max: usize) -> Result<Option<Vec<u8>>> {
    if !fs.exists(path)? {
        return Ok(None);
    }
    let file = fs.open_to_read(path)?;
    let bytes = file.len()?;
    let len = usize::try_from(bytes).ok().filter(|len| *len <= bytes_max).ok_or_else(|| {
        let bytes_max = u64::try_from(bytes_max).unwrap_or(u64::MAX);
        Error::TooLarge { what: "a small file", bytes, bytes_max }
    })?;
    let mut buffer = vec![0; len];
    let read = file.read_at(0, &mut buffer)?;
    buffer.truncate(read);
    Ok(Some(buffer))
}

/// The name under which the next content of `path` is written before it is renamed.
pub(crate) fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}

/// The directory that holds `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// The real file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct StdFileSystem;

impl FileSystem for StdFileSystem {
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path);
        StdFile::wrap(file, "create", path)
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn File>> {
        StdFile::wrap(OpenOptions::new().read(true).write(true).open(path), "open", path)
    }

    fn open_to_read(&self, path: &Path) -> Result<Arc<dyn File>> {
        StdFile::wrap(fs::File::open(path), "open", path)
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        let list = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(dir)? {
                // This crate makes no file whose name is not UTF-8.
                if let Ok(name) = entry?.file_name().into_string() {
                    names.push(name);
                }
            }
            names.sort_unstable();
            Ok(names)
        };
        list().map_err(|source| Error::io("list", dir, source))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).map_err(|source| Error::io("rename", from, source))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        fs::remove_file(path).map_err(|source| Error::io("remove", path, source))
    }

    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        create_dirs(dir, &|above| self.sync_dir(above))
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        fs::File::open(dir)
            .and_then(|handle| handle.sync_all())
            .map_err(|source| Error::io("sync directory", dir, source))
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        path.try_exists().map_err(|source| Error::io("look up", path, source))
    }

    fn free_bytes(&self, dir: &Path) -> Result<Option<u64>> {
        let stat = rustix::fs::statvfs(dir)
            .map_err(|source| Error::io("ask for the free space of", dir, source.into()))?;
        Ok(Some(stat.f_bavail.saturating_mul(stat.f_frsize)))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|source| Error::io("open lock file", path, source))?;
        let taken = file.try_lock();
        StdFileLock::wrap(file, taken, path)
    }
}

/// Makes a directory and those above it, and lets `sync_dir` make their names durable.
fn create_dirs(dir: &Path, sync_dir: &dyn Fn(&Path) -> Result<()>) -> Result<()> {
    if dir.as_os_str().is_empty() {
        return Ok(());
    }
    let above = parent(dir);
    if dir.is_dir() {
        // Who made it may have died before its name was durable.
        return match sync_dir(above) {
            Err(Error::Io { source, .. }) if was_not_ours(&source) => Ok(()),
            synced => synced,
        };
    }
    create_dirs(above, sync_dir)?;
    match fs::create_dir(dir) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(Error::io("create directory", dir, source))
        }
        _ => sync_dir(above),
    }
}

/// Whether a failed fsync of a directory tells that no process like this one can have made a name
/// in it: it may not be read, or is on a file system that cannot be written.
fn was_not_ours(source: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem};
    matches!(source.kind(), InvalidInput | PermissionDenied | ReadOnlyFilesystem)
}

/// An open file of the real file system, with its path for messages.
#[derive(Debug)]
pub(crate) struct StdFile {
    file: fs::File,
    path: PathBuf,
}

impl StdFile {
    /// Turns the system's answer to an opening into a file.
    pub(crate) fn wrap(
        file: io::Result<fs::File>,
        action: &'static str,
        path: &Path,
    ) -> Result<Arc<dyn File>> {
        match file {
            Ok(file) => Ok(Arc::new(Self { file, path: path.to_path_buf() })),
            Err(source) => Err(Error::io(action, path, source)),
        }
    }

    fn error(&self, action: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::io(action, &self.path, source)
    }
}

impl File for StdFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let mut done: usize = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
            match self.file.read_at(rest, at) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::io("read", &self.path, source)),
            }
        }
        Ok(done)
    }

    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, offset).map_err(self.error("write"))
    }

    fn set_len(&self, bytes: u64) -> Result<()> {
        self.file.set_len(bytes).map_err(self.error("resize"))
    }

    fn allocate(&self, bytes: u64) -> Result<()> {
        let mode = rustix::fs::FallocateFlags::empty();
        match rustix::fs::fallocate(&self.file, mode, 0, bytes) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP) if self.len()? < bytes => self.set_len(bytes),
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            Err(source) => Err(Error::io("allocate", &self.path, source.into())),
        }
    }

    #[cfg(feature = "mmap")]
    fn map(&self, bytes: u64) -> Result<Option<Arc<dyn File>>> {
        let file = self.file.try_clone().map_err(self.error("clone"))?;
        let mapped = mapped::MappedFile::new(Self { file, path: self.path.clone() }, bytes)?;
        Ok(mapped.map(|mapped| Arc::new(mapped) as Arc<dyn File>))
    }

    fn len(&self) -> Result<u64> {
        self.file.metadata().map(|data| data.len()).map_err(self.error("stat"))
    }

    fn sync_data(&self) -> Result<()> {
        // fdatasync: the bytes, and of the metadata what is needed to find them (the size).
        self.file.sync_data().map_err(self.error("fsync"))
    }
}

/// The operating system drops the lock with the file handle, also when the process dies.
#[derive(Debug)]
pub(crate) struct StdFileLock {
    _file: fs::File,
}

impl StdFileLock {
    /// Turns the system's answer to locking an open file into a lock.
    pub(crate) fn wrap(
        file: fs::File,
        taken: std::result::Result<(), fs::TryLockError>,
        path: &Path,
    ) -> Result<Box<dyn FileLock>> {
        match taken {
            Ok(()) => Ok(Box::new(Self { _file: file })),
            Err(fs::TryLockError::WouldBlock) => Err(Error::Locked { path: path.to_path_buf() }),
            Err(fs::TryLockError::Error(source)) => Err(Error::io("lock", path, source)),
        }
    }
}

impl FileLock for StdFileLock {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_atomic_replaces_and_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("small");
        for content in [&b"one"[..], b"second"] {
            write_atomic(&StdFileSystem, &path, content).unwrap();
            let read = read_small(&StdFileSystem, &path, 100).unwrap();
            assert_eq!(read.as_deref(), Some(content));
        }
        assert_eq!(StdFileSystem.list(dir.path()).unwrap(), ["small"]);
        assert!(matches!(read_small(&StdFileSystem, &path, 5), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn a_second_lock_is_refused_until_the_first_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = StdFileSystem.lock(&path).unwrap();
        assert!(matches!(StdFileSystem.lock(&path), Err(Error::Locked { .. })));
        drop(held);
        StdFileSystem.lock(&path).unwrap();
    }

    #[test]
    fn a_directory_that_was_there_is_made_durable_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("a/b"));
        let synced = |dir: &Path, kind: Option<io::ErrorKind>| {
            let names = std::cell::RefCell::new(Vec::new());
            let made = create_dirs(dir, &|above| {
                names.borrow_mut().push(above.to_path_buf());
                kind.map_or(Ok(()), |kind| Err(Error::io("sync directory", above, kind.into())))
            });
            (made.is_ok(), names.into_inner())
        };
        let above = parent(dir.path()).to_path_buf();
        let all = vec![above, dir.path().to_path_buf(), a.clone()];
        assert_eq!(synced(&b, None), (true, all), "from the one that is there on");
        assert_eq!(synced(&b, None), (true, vec![a.clone()]), "made by who may have died");
        assert_eq!(synced(&b, Some(io::ErrorKind::Other)), (false, vec![a.clone()]));
        assert_eq!(synced(&b, Some(io::ErrorKind::PermissionDenied)), (true, vec![a]));
    }

    #[test]
    fn reads_stop_at_the_end_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        StdFileSystem.create_dir_all(&dir.path().join("a/b")).unwrap();
        let file = StdFileSystem.create_new(&dir.path().join("a/b/file")).unwrap();
        file.write_all_at(3, b"xyz").unwrap();
        let mut buffer = [9; 8];
        assert_eq!(file.read_at(2, &mut buffer).unwrap(), 4);
        assert_eq!(&buffer[..4], b"\0xyz");
        file.set_len(1).unwrap();
        assert_eq!(file.len().unwrap(), 1);
        file.sync_data().unwrap();
    }
}
