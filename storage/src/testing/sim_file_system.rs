//! `SimFileSystem`: a file system in memory with a live and a durable image.
//!
//! It keeps the promises of [`FileSystem`] and nothing more: a crash may take every byte that no
//! fsync of its file has covered, and every name that no fsync of its directory has covered, one
//! by one. Operations that change something are numbered, so that a test can crash or fail at
//! each of them in turn; or a run is recorded once, and [`CrashPoints`](crate::testing::CrashPoints)
//! gives all the disks that a crash within it can leave.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::file_system::{File, FileLock, FileSystem, parent};
use crate::lock::lock;
use crate::sync::Mutex;
use crate::testing::crash_points::Recording;
use crate::testing::sim_disk::{CallFault, CrashModel, Disk, Event, Fault, Inode, Pending};

/// A simulated file system; clones share one disk.
#[derive(Debug, Clone, Default)]
pub struct SimFileSystem {
    disk: Arc<Mutex<Disk>>,
}

impl SimFileSystem {
    /// Returns an empty file system.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many operations have changed something, or tried to.
    #[must_use]
    pub fn ops(&self) -> u64 {
        lock(&self.disk).ops
    }

    /// The most bytes that were asked for in one read.
    #[must_use]
    pub fn largest_read(&self) -> usize {
        lock(&self.disk).largest_read
    }

    /// Lets the file system say that so much is free. Writes are not refused because of it.
    pub fn set_free_bytes(&self, free_bytes: Option<u64>) {
        lock(&self.disk).free_bytes = free_bytes;
    }

    /// The same of a directory that is on a disk of its own.
    pub fn set_free_bytes_in(&self, dir: &Path, free_bytes: u64) {
        lock(&self.disk).free_bytes_in.insert(dir.into(), free_bytes);
    }

    /// Lets a file be opened for reading alone.
    pub fn write_protect(&self, path: &Path) {
        lock(&self.disk).write_protected.insert(path.into());
    }

    /// Lets the operation of that number, and all that follow it, not happen.
    pub fn crash_at(&self, op: u64) {
        lock(&self.disk).crash_at = Some(op);
    }

    /// Whether the crash has come.
    #[must_use]
    pub fn has_crashed(&self) -> bool {
        lock(&self.disk).crashed
    }

    /// Injects an error. A failing write writes half; a failing fsync drops the bytes it was to
    /// make durable, as Linux does, and later fsyncs do not bring them back.
    pub fn inject(&self, fault: Fault) {
        lock(&self.disk).fault = Some(fault);
    }

    /// Injects an error into a call of one kind, or into all from then on.
    pub fn inject_call(&self, fault: CallFault) {
        lock(&self.disk).call_fault = Some(fault);
    }

    /// Lets every write take a while before it happens, so that other threads overtake it.
    pub fn slow_writes(&self, pause: Duration) {
        lock(&self.disk).write_pause = Some(pause);
    }

    /// How many calls [`SimFileSystem::inject_call`] has let fail.
    #[must_use]
    pub fn failed_calls(&self) -> u64 {
        lock(&self.disk).failed_calls
    }

    /// What is on the disk after a crash now, as a new file system.
    #[must_use]
    pub fn after_crash(&self, model: CrashModel, seed: u64) -> Self {
        let after = lock(&self.disk).after_crash(model, seed);
        Self { disk: Arc::new(Mutex::new(after)) }
    }

    /// An independent copy, as after the death of the process.
    #[must_use]
    pub fn copy(&self) -> Self {
        self.after_crash(CrashModel::Kill, 0)
    }

    /// Begins to write down what happens from now on, for [`SimFileSystem::recording`].
    pub fn record(&self) {
        let mut disk = lock(&self.disk);
        let start = disk.after_kill();
        disk.recorded_from = Some(Box::new(start));
        disk.journal = Some(Vec::new());
    }

    /// Puts a number of the caller into the recording: what was promised up to here, say.
    pub fn mark(&self, mark: u64) {
        lock(&self.disk).happen(Event::Mark(mark));
    }

    /// What has happened since [`SimFileSystem::record`]; nothing if that was not called. Ends it.
    #[must_use]
    pub fn recording(&self) -> Recording {
        let mut disk = lock(&self.disk);
        let start = disk.recorded_from.take().map_or_else(|| disk.after_kill(), |start| *start);
        Recording { start, events: disk.journal.take().unwrap_or_default() }
    }

    /// Reads a whole file.
    ///
    /// # Errors
    ///
    /// If it does not exist.
    pub fn read(&self, path: &Path) -> Result<Vec<u8>> {
        let mut disk = lock(&self.disk);
        let file = disk.find("read", path)?;
        disk.inode(file, |inode| inode.live.to_vec())
    }

    /// Puts a file there, durably, whatever was there.
    pub fn plant(&self, path: &Path, bytes: &[u8]) {
        let mut disk = lock(&self.disk);
        let bytes = Arc::new(bytes.to_vec());
        let file = disk.files.len();
        disk.files.push(Inode { live: Arc::clone(&bytes), durable: bytes });
        disk.names.insert(path.into(), file);
        disk.durable_names.insert(path.into(), file);
    }
}

impl From<Disk> for SimFileSystem {
    fn from(disk: Disk) -> Self {
        Self { disk: Arc::new(Mutex::new(disk)) }
    }
}

impl FileSystem for SimFileSystem {
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>> {
        let mut disk = lock(&self.disk);
        disk.begin("create", path)?;
        if disk.names.contains_key(path) {
            return Err(Error::io("create", path, io::ErrorKind::AlreadyExists.into()));
        }
        if !disk.dirs.contains(parent(path)) {
            return Err(Error::io("create", path, io::ErrorKind::NotFound.into()));
        }
        let file = disk.files.len();
        disk.happen(Event::Change(Pending::Create { path: path.into(), file }));
        Ok(self.handle(file, path))
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn File>> {
        let mut disk = lock(&self.disk);
        disk.call("open", path)?;
        let file = disk.find("open", path)?;
        if disk.write_protected.contains(path) {
            return Err(Error::io("open", path, io::ErrorKind::PermissionDenied.into()));
        }
        Ok(self.handle(file, path))
    }

    fn open_to_read(&self, path: &Path) -> Result<Arc<dyn File>> {
        let mut disk = lock(&self.disk);
        disk.call("open", path)?;
        let file = disk.find("open", path)?;
        Ok(self.handle(file, path))
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        let mut disk = lock(&self.disk);
        disk.call("list", dir)?;
        let inside = disk.names.keys().filter(|path| parent(path) == dir);
        let names = inside.filter_map(|path| path.file_name()?.to_str());
        Ok(names.map(str::to_owned).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut disk = lock(&self.disk);
        disk.begin("rename", from)?;
        let file = disk.find("rename", from)?;
        let (from, to) = (from.into(), to.into());
        disk.happen(Event::Change(Pending::Rename { from, to, file }));
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let mut disk = lock(&self.disk);
        disk.begin("remove", path)?;
        disk.find("remove", path)?;
        disk.happen(Event::Change(Pending::Remove { path: path.into() }));
        Ok(())
    }

    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        let mut disk = lock(&self.disk);
        disk.call("create directory", dir)?;
        disk.happen(Event::MakeDir(dir.into()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        let mut disk = lock(&self.disk);
        disk.begin("sync directory", dir)?;
        disk.happen(Event::SyncDir(dir.into()));
        Ok(())
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        let mut disk = lock(&self.disk);
        disk.call("look up", path)?;
        Ok(disk.names.contains_key(path) || disk.dirs.contains(path))
    }

    fn free_bytes(&self, dir: &Path) -> Result<Option<u64>> {
        let disk = lock(&self.disk);
        Ok(disk.free_bytes_in.get(dir).copied().or(disk.free_bytes))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>> {
        let mut disk = lock(&self.disk);
        disk.call("lock", path)?;
        if !disk.locks.insert(path.into()) {
            return Err(Error::Locked { path: path.to_path_buf() });
        }
        let (disk, path) = (Arc::clone(&self.disk), path.to_path_buf());
        Ok(Box::new(SimLock { disk, path }))
    }
}

impl SimFileSystem {
    pub(crate) fn with_disk<T>(&self, look: impl FnOnce(&Disk) -> T) -> T {
        look(&lock(&self.disk))
    }

    fn handle(&self, file: usize, path: &Path) -> Arc<dyn File> {
        Arc::new(SimFile { disk: Arc::clone(&self.disk), file, path: path.to_path_buf() })
    }
}

#[derive(Debug)]
struct SimLock {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
}

impl FileLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        lock(&self.disk).locks.remove(self.path.as_path());
    }
}

#[derive(Debug)]
struct SimFile {
    disk: Arc<Mutex<Disk>>,
    file: usize,
    path: PathBuf,
}

impl SimFile {
    fn in_memory(&self, bytes: u64) -> Result<usize> {
        usize::try_from(bytes)
            .map_err(|_| Error::io("address", &self.path, io::ErrorKind::InvalidInput.into()))
    }
}

impl File for SimFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let offset = self.in_memory(offset)?;
        let mut disk = lock(&self.disk);
        disk.call("read", &self.path)?;
        disk.largest_read = disk.largest_read.max(buffer.len());
        disk.inode(self.file, |inode| {
            let from = inode.live.get(offset..).unwrap_or_default();
            let len = from.len().min(buffer.len());
            if let (Some(to), Some(from)) = (buffer.get_mut(..len), from.get(..len)) {
                to.copy_from_slice(from);
            }
            len
        })
    }

    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let offset = self.in_memory(offset)?;
        let pause = lock(&self.disk).write_pause;
        pause.into_iter().for_each(std::thread::sleep);
        let mut disk = lock(&self.disk);
        let begun = disk.begin("write", &self.path);
        if disk.crashed {
            return begun;
        }
        let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
        let written = if begun.is_ok() { bytes } else { half };
        disk.happen(Event::Change(Pending::Write {
            file: self.file,
            offset,
            bytes: written.into(),
        }));
        begun
    }

    fn set_len(&self, bytes: u64) -> Result<()> {
        let bytes = self.in_memory(bytes)?;
        let mut disk = lock(&self.disk);
        disk.begin("resize", &self.path)?;
        disk.happen(Event::Change(Pending::SetLen { file: self.file, bytes }));
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        let mut disk = lock(&self.disk);
        disk.call("stat", &self.path)?;
        disk.inode(self.file, |inode| u64::try_from(inode.live.len()).unwrap_or(u64::MAX))
    }

    fn sync_data(&self) -> Result<()> {
        let mut disk = lock(&self.disk);
        let begun = disk.begin("fsync", &self.path);
        match &begun {
            Ok(()) => disk.happen(Event::SyncFile(self.file)),
            Err(_) if disk.crashed => {}
            Err(_) => disk.happen(Event::ForgetFile(self.file)),
        }
        begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_file() -> (SimFileSystem, Arc<dyn File>) {
        let fs = SimFileSystem::new();
        fs.create_dir_all(Path::new("d")).unwrap();
        let file = fs.create_new(Path::new("d/f")).unwrap();
        (fs, file)
    }

    fn survives(fs: &SimFileSystem, model: CrashModel) -> Option<Vec<u8>> {
        fs.after_crash(model, 1).read(Path::new("d/f")).ok()
    }

    #[test]
    fn only_synced_bytes_under_synced_names_survive() {
        let (fs, file) = one_file();
        file.write_all_at(0, b"abc").unwrap();
        assert_eq!(survives(&fs, CrashModel::SyncedOnly), None);
        assert_eq!(survives(&fs, CrashModel::Kill).unwrap(), b"abc");
        file.sync_data().unwrap();
        assert_eq!(survives(&fs, CrashModel::SyncedOnly), None, "the name is not durable");
        fs.sync_dir(Path::new("d")).unwrap();
        file.write_all_at(3, b"def").unwrap();
        assert_eq!(survives(&fs, CrashModel::SyncedOnly).unwrap(), b"abc");
        assert_eq!(survives(&fs, CrashModel::Kill).unwrap(), b"abcdef");
    }

    #[test]
    fn a_failed_fsync_drops_the_bytes_for_good() {
        let (fs, file) = one_file();
        fs.sync_dir(Path::new("d")).unwrap();
        file.write_all_at(0, b"abc").unwrap();
        let fault = Fault { at: fs.ops(), kind: io::ErrorKind::Other, sticky: false };
        fs.inject(fault);
        file.sync_data().unwrap_err();
        file.sync_data().unwrap();
        assert_eq!(survives(&fs, CrashModel::SyncedOnly).unwrap(), b"");
        assert_eq!(fs.read(Path::new("d/f")).unwrap(), b"abc", "the page cache still has them");
    }

    #[test]
    fn nothing_happens_from_the_crash_on() {
        let (fs, file) = one_file();
        fs.crash_at(fs.ops() + 1);
        file.write_all_at(0, b"abc").unwrap();
        file.write_all_at(0, b"xyz").unwrap_err();
        file.sync_data().unwrap_err();
        assert!(fs.has_crashed());
        assert_eq!(survives(&fs, CrashModel::Kill).unwrap(), b"abc");
    }
}
