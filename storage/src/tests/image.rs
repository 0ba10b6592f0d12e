//! `ImageFs`: the files of one log in memory, which a test damages in place and puts right again.
//!
//! It copies nothing between two openings, so that millions of damaged logs can be opened. Names
//! and files made by an opening are forgotten by [`ImageFs::put_back`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::file_system::parent;
use crate::{Error, File, FileLock, FileSystem, Result};

type Names = BTreeMap<PathBuf, Arc<ImageFile>>;

/// Some files in memory.
#[derive(Debug)]
pub(super) struct ImageFs {
    base: Mutex<Names>,
    names: Mutex<Names>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Calls that have changed something.
    changes: AtomicU64,
    /// The most bytes that were asked for in one read.
    largest_read: AtomicUsize,
}

#[derive(Debug)]
struct ImageFile {
    path: PathBuf,
    bytes: Mutex<Vec<u8>>,
    counts: Arc<Counts>,
}

impl ImageFs {
    pub(super) fn new<'a>(files: impl IntoIterator<Item = (PathBuf, &'a [u8])>) -> Self {
        let image = Self {
            base: Mutex::new(Names::new()),
            names: Mutex::new(Names::new()),
            counts: Arc::default(),
        };
        for (path, bytes) in files {
            image.base.lock().unwrap().insert(path.clone(), image.file(&path, bytes.to_vec()));
        }
        image.put_back();
        image
    }

    fn file(&self, path: &Path, bytes: Vec<u8>) -> Arc<ImageFile> {
        let (path, counts) = (path.to_path_buf(), Arc::clone(&self.counts));
        Arc::new(ImageFile { path, bytes: Mutex::new(bytes), counts })
    }

    /// The names are again those of the beginning; damage to bytes is undone by who did it.
    pub(super) fn put_back(&self) {
        self.names.lock().unwrap().clone_from(&self.base.lock().unwrap());
        self.counts.changes.store(0, Ordering::Relaxed);
    }

    /// Changes the bytes of a file in place.
    pub(super) fn edit<T>(&self, path: &Path, edit: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        edit(&mut self.base.lock().unwrap()[path].bytes.lock().unwrap())
    }

    /// Puts a file there, until [`ImageFs::put_back`].
    pub(super) fn plant(&self, path: &Path, bytes: &[u8]) {
        let file = self.file(path, bytes.to_vec());
        self.names.lock().unwrap().insert(path.to_path_buf(), file);
    }

    /// Takes a file away, until [`ImageFs::put_back`].
    pub(super) fn hide(&self, path: &Path) {
        self.names.lock().unwrap().remove(path).unwrap();
    }

    pub(super) fn changes(&self) -> u64 {
        self.counts.changes.load(Ordering::Relaxed)
    }

    pub(super) fn largest_read(&self) -> usize {
        self.counts.largest_read.load(Ordering::Relaxed)
    }

    fn find(&self, action: &'static str, path: &Path) -> Result<Arc<ImageFile>> {
        let found = self.names.lock().unwrap().get(path).cloned();
        found.ok_or_else(|| Error::io(action, path, io::ErrorKind::NotFound.into()))
    }

    fn changed(&self) {
        self.counts.changes.fetch_add(1, Ordering::Relaxed);
    }
}

impl FileSystem for ImageFs {
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>> {
        self.changed();
        assert!(self.find("create", path).is_err(), "{path:?} exists");
        let file = self.file(path, Vec::new());
        self.names.lock().unwrap().insert(path.to_path_buf(), Arc::clone(&file));
        Ok(file)
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn File>> {
        Ok(self.find("open", path)?)
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        let names = self.names.lock().unwrap();
        let inside = names.keys().filter(|path| parent(path) == dir);
        Ok(inside.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.changed();
        let file = self.find("rename", from)?;
        let mut names = self.names.lock().unwrap();
        names.remove(from);
        names.insert(to.to_path_buf(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.changed();
        self.find("remove", path)?;
        self.names.lock().unwrap().remove(path);
        Ok(())
    }

    fn create_dir_all(&self, _: &Path) -> Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> Result<()> {
        Ok(())
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        Ok(self.names.lock().unwrap().contains_key(path))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>> {
        Err(Error::Locked { path: path.to_path_buf() })
    }
}

impl File for ImageFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.counts.largest_read.fetch_max(buffer.len(), Ordering::Relaxed);
        let bytes = self.bytes.lock().unwrap();
        let from = bytes.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let len = from.len().min(buffer.len());
        buffer[..len].copy_from_slice(&from[..len]);
        Ok(len)
    }

    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.counts.changes.fetch_add(1, Ordering::Relaxed);
        let mut file = self.bytes.lock().unwrap();
        let offset = usize::try_from(offset).unwrap();
        assert_eq!(offset, file.len(), "{:?} is only appended to", self.path);
        file.extend_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> Result<()> {
        self.counts.changes.fetch_add(1, Ordering::Relaxed);
        self.bytes.lock().unwrap().resize(usize::try_from(bytes).unwrap(), 0);
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        Ok(u64::try_from(self.bytes.lock().unwrap().len()).unwrap())
    }

    fn sync_data(&self) -> Result<()> {
        Ok(())
    }
}
