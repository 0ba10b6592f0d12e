//! `Disk`: the live and the durable image of a simulated file system, and what lies between.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::file_system::parent;
use crate::testing::Random;

/// What a disk writes whole or not at all.
pub(crate) const SECTOR_BYTES: usize = 512;

/// What shows where a file was extended and its bytes were not written, unless zeros do.
pub(crate) const GARBAGE: u8 = 0xa5;

/// What survives a crash, of that which was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashModel {
    /// Everything: only the process died. What was not synced still is not, and a later crash may
    /// take it.
    Kill,
    /// Nothing.
    SyncedOnly,
    /// The operations up to some point; the last write in part.
    Prefix,
    /// Any subset: of 512-byte sectors, of sizes, of names; holes are zeros or garbage.
    Subset,
    /// Any subset of names; of the bytes under them all or nothing.
    Names,
}

/// An error to inject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// At the operation of that number, from 0 on.
    pub at: u64,
    /// What the system answers.
    pub kind: io::ErrorKind,
    /// Whether every later operation fails too.
    pub sticky: bool,
}

/// An error to inject into calls of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallFault {
    /// Which kind, by the verb of its error: `fsync`, `read`, `sync directory`, ...
    pub action: &'static str,
    /// How many calls of the kind succeed before.
    pub after: u64,
    /// What the system answers; without a number it wrote less than it was asked to.
    pub errno: Option<i32>,
    /// Whether every later call of the kind fails too.
    pub sticky: bool,
}

/// What a simulated disk holds. A clone shares the bytes of files until one of both is written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    /// Every file there ever was; names refer to them by index.
    pub(crate) files: Vec<Inode>,
    /// The names as programs see them.
    pub(crate) names: Names,
    /// The names that a crash leaves.
    pub(crate) durable_names: Names,
    /// Directories; always durable.
    pub(crate) dirs: BTreeSet<Arc<Path>>,
    /// The lock files that are held.
    pub(crate) locks: BTreeSet<Arc<Path>>,
    /// Files that may not be written.
    pub(crate) write_protected: BTreeSet<Arc<Path>>,
    /// Changes that a crash may take, in order.
    pub(crate) pending: Vec<Pending>,
    /// How many operations have begun.
    pub(crate) ops: u64,
    /// The first operation that does not happen.
    pub(crate) crash_at: Option<u64>,
    /// Whether that one was reached.
    pub(crate) crashed: bool,
    /// The error to inject.
    pub(crate) fault: Option<Fault>,
    /// What is said to be free; nothing is said if none.
    pub(crate) free_bytes: Option<u64>,
    /// The same below directories that are on disks of their own.
    pub(crate) free_bytes_in: BTreeMap<Arc<Path>, u64>,
    /// The error to inject into calls of one kind.
    pub(crate) call_fault: Option<CallFault>,
    /// How long a write takes, before it happens.
    pub(crate) write_pause: Option<Duration>,
    /// How many calls that one has let fail.
    pub(crate) failed_calls: u64,
    /// The most bytes asked for in one read.
    pub(crate) largest_read: usize,
    /// The disk when recording began.
    pub(crate) recorded_from: Option<Box<Self>>,
    /// What has happened since then.
    pub(crate) journal: Option<Vec<Event>>,
}

/// Which file is under which name.
pub(crate) type Names = BTreeMap<Arc<Path>, usize>;

/// The bytes of a file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inode {
    /// The bytes as programs see them.
    pub(crate) live: Arc<Vec<u8>>,
    /// The bytes that a crash leaves.
    pub(crate) durable: Arc<Vec<u8>>,
}

/// A change that may be lost.
#[derive(Debug, Clone)]
pub(crate) enum Pending {
    Write { file: usize, offset: usize, bytes: Arc<[u8]> },
    SetLen { file: usize, bytes: usize },
    Create { path: Arc<Path>, file: usize },
    Rename { from: Arc<Path>, to: Arc<Path>, file: usize },
    Remove { path: Arc<Path> },
}

/// What can happen to a disk.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// A change that programs see at once.
    Change(Pending),
    /// Bytes and size of a file become durable.
    SyncFile(usize),
    /// A failed fsync: what was not durable never will be.
    ForgetFile(usize),
    /// The names in a directory become durable.
    SyncDir(Arc<Path>),
    /// A directory is there, with those above it.
    MakeDir(Arc<Path>),
    /// The driver of the workload says where it is.
    Mark(u64),
}

impl Pending {
    pub(crate) const fn file(&self) -> Option<usize> {
        match self {
            Self::Write { file, .. } | Self::SetLen { file, .. } => Some(*file),
            _ => None,
        }
    }

    pub(crate) fn dir(&self) -> Option<&Path> {
        match self {
            Self::Create { path, .. } | Self::Remove { path } => Some(parent(path)),
            Self::Rename { to, .. } => Some(parent(to)),
            _ => None,
        }
    }
}

impl Disk {
    /// The disk after a crash.
    pub(crate) fn after_crash(&self, model: CrashModel, seed: u64) -> Self {
        let mut after = self.durable();
        let mut random = Random::new(seed);
        match model {
            CrashModel::SyncedOnly => {}
            CrashModel::Kill => return self.after_kill(),
            CrashModel::Prefix => {
                let whole = random.below(self.pending.len() + 1);
                self.pending.iter().take(whole).for_each(|change| after.make_durable(change));
                if let Some(Pending::Write { file, offset, bytes }) = self.pending.get(whole) {
                    let part = bytes.get(..random.below(bytes.len() + 1)).unwrap_or_default();
                    after.write_durable(*file, *offset, part);
                }
            }
            CrashModel::Subset => {
                for change in &self.pending {
                    after.make_some_durable(change, &mut random);
                }
            }
            CrashModel::Names => {
                let bytes = random.one_in(2);
                for change in &self.pending {
                    if change.dir().map_or(bytes, |_| random.one_in(2)) {
                        after.make_durable(change);
                    }
                }
            }
        }
        after.reboot();
        after
    }

    /// What is durable; programs see it after [`Disk::reboot`].
    pub(crate) fn durable(&self) -> Self {
        let (files, dirs) = (self.files.clone(), self.dirs.clone());
        Self { files, dirs, durable_names: self.durable_names.clone(), ..Self::default() }
    }

    /// What programs see is what is durable.
    pub(crate) fn reboot(&mut self) {
        self.names.clone_from(&self.durable_names);
        for file in &mut self.files {
            file.live = Arc::clone(&file.durable);
        }
    }

    /// The disk after the death of the process.
    pub(crate) fn after_kill(&self) -> Self {
        let (names, pending) = (self.names.clone(), self.pending.clone());
        Self { names, pending, ..self.durable() }
    }

    /// Lets something happen, and writes it down if that is wanted.
    pub(crate) fn happen(&mut self, event: Event) {
        match &event {
            Event::Change(change) => {
                self.make_live(change);
                self.pending.push(change.clone());
            }
            Event::SyncFile(file) => self.sync(|change| change.file() == Some(*file)),
            Event::ForgetFile(file) => {
                drop(self.take_pending(|change| change.file() == Some(*file)));
            }
            Event::SyncDir(dir) => self.sync(|change| change.dir() == Some(dir)),
            Event::MakeDir(dir) => self.dirs.extend(dir.ancestors().map(Arc::from)),
            Event::Mark(_) => {}
        }
        if let Some(journal) = &mut self.journal {
            journal.push(event);
        }
    }

    /// Whether a change is to bytes that are durably there already.
    pub(crate) fn has(&self, change: &Pending) -> bool {
        let Pending::Write { file, offset, bytes } = change else {
            return false;
        };
        let Some(inode) = self.files.get(*file) else {
            return false;
        };
        inode.durable.get(*offset..offset + bytes.len()) == Some(bytes)
            && !self.pending.iter().any(|pending| pending.file() == Some(*file))
    }

    /// Lets programs see a change.
    fn make_live(&mut self, change: &Pending) {
        match change {
            Pending::Write { file, offset, bytes } => {
                if let Some(inode) = self.files.get_mut(*file) {
                    overwrite(Arc::make_mut(&mut inode.live), *offset, bytes);
                }
            }
            Pending::SetLen { file, bytes } => {
                if let Some(inode) = self.files.get_mut(*file) {
                    Arc::make_mut(&mut inode.live).resize(*bytes, 0);
                }
            }
            Pending::Create { path, file } => {
                self.files.resize(self.files.len().max(file + 1), Inode::default());
                self.names.insert(Arc::clone(path), *file);
            }
            Pending::Rename { from, to, file } => {
                self.names.remove(from);
                self.names.insert(Arc::clone(to), *file);
            }
            Pending::Remove { path } => {
                self.names.remove(path);
            }
        }
    }

    /// Counts an operation; says whether it fails.
    pub(crate) fn begin(&mut self, action: &'static str, path: &Path) -> Result<()> {
        let op = self.ops;
        self.ops += 1;
        if self.crash_at.is_some_and(|at| op >= at) {
            self.crashed = true;
        }
        self.call(action, path)?;
        match self.fault {
            Some(fault) if fault.at == op || (fault.sticky && op > fault.at) => {
                Err(Error::io(action, path, fault.kind.into()))
            }
            _ => Ok(()),
        }
    }

    /// Begins any call: says whether it fails.
    pub(crate) fn call(&mut self, action: &'static str, path: &Path) -> Result<()> {
        self.check_alive(action, path)?;
        let Some(fault) = self.call_fault.as_mut().filter(|fault| fault.action == action) else {
            return Ok(());
        };
        if fault.after > 0 {
            fault.after -= 1;
            return Ok(());
        }
        let (errno, sticky) = (fault.errno, fault.sticky);
        if !sticky {
            self.call_fault = None;
        }
        self.failed_calls += 1;
        let short = || io::ErrorKind::WriteZero.into();
        Err(Error::io(action, path, errno.map_or_else(short, io::Error::from_raw_os_error)))
    }

    pub(crate) fn check_alive(&self, action: &'static str, path: &Path) -> Result<()> {
        if self.crashed {
            return Err(Error::io(action, path, io::Error::other("the machine has crashed")));
        }
        Ok(())
    }

    pub(crate) fn find(&self, action: &'static str, path: &Path) -> Result<usize> {
        self.check_alive(action, path)?;
        let found = self.names.get(path).copied();
        found.ok_or_else(|| Error::io(action, path, io::ErrorKind::NotFound.into()))
    }

    pub(crate) fn inode<T>(
        &mut self,
        file: usize,
        visit: impl FnOnce(&mut Inode) -> T,
    ) -> Result<T> {
        let inode = self.files.get_mut(file);
        inode.map(visit).ok_or_else(|| Error::misuse("a handle of another simulated disk"))
    }

    pub(crate) fn write_durable(&mut self, file: usize, offset: usize, bytes: &[u8]) {
        if let Some(inode) = self.files.get_mut(file) {
            overwrite(Arc::make_mut(&mut inode.durable), offset, bytes);
        }
    }

    /// Makes a durable file as long as that, if it is shorter.
    pub(crate) fn extend_durable(&mut self, file: usize, end: usize, filler: u8) {
        if let Some(inode) = self.files.get_mut(file)
            && inode.durable.len() < end
        {
            Arc::make_mut(&mut inode.durable).resize(end, filler);
        }
    }

    pub(crate) fn make_durable(&mut self, change: &Pending) {
        match change {
            Pending::Write { file, offset, bytes } => self.write_durable(*file, *offset, bytes),
            Pending::SetLen { file, bytes } => {
                if let Some(inode) = self.files.get_mut(*file) {
                    Arc::make_mut(&mut inode.durable).resize(*bytes, 0);
                }
            }
            Pending::Create { path, file } => {
                self.durable_names.insert(Arc::clone(path), *file);
            }
            Pending::Rename { from, to, file } => {
                self.durable_names.remove(from);
                self.durable_names.insert(Arc::clone(to), *file);
            }
            Pending::Remove { path } => {
                self.durable_names.remove(path);
            }
        }
    }

    pub(crate) fn make_some_durable(&mut self, change: &Pending, random: &mut Random) {
        let Pending::Write { file, offset, bytes } = change else {
            if random.one_in(2) {
                self.make_durable(change);
            }
            return;
        };
        // The size may be durable before the bytes; what shows then is zeros or old garbage.
        if random.one_in(2) {
            let filler = if random.one_in(2) { 0 } else { GARBAGE };
            self.extend_durable(*file, offset + bytes.len(), filler);
        }
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done;
            let next = bytes.len().min(done + SECTOR_BYTES - at % SECTOR_BYTES);
            if random.one_in(2) {
                self.write_durable(*file, at, bytes.get(done..next).unwrap_or_default());
            }
            done = next;
        }
    }

    /// Takes the pending changes that `covered` chooses out.
    pub(crate) fn take_pending(&mut self, covered: impl Fn(&Pending) -> bool) -> Vec<Pending> {
        let (taken, kept) =
            mem::take(&mut self.pending).into_iter().partition(|change| covered(change));
        self.pending = kept;
        taken
    }

    pub(crate) fn sync(&mut self, covered: impl Fn(&Pending) -> bool) {
        for change in self.take_pending(covered) {
            self.make_durable(&change);
        }
    }
}

/// Writes into a byte string as into a file: what lies between its end and `offset` is zeros.
pub(crate) fn overwrite(to: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if !bytes.is_empty() && to.len() < end {
        to.resize(end, 0);
    }
    if let Some(place) = to.get_mut(offset..end) {
        place.copy_from_slice(bytes);
    }
}
