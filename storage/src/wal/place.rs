//! `Place`: where a log is, and how its segments get their files: new, allocated ahead, used again,
//! mapped, or written by a thread.
//!
//! A file that is not needed any more may be kept under the name `spare-N.log`. It becomes a new
//! segment by way of a temporary name: only after its new header is durable does it get the name
//! of a segment. A crash in between may bring any of its names back. As a segment of its old
//! number it is obsolete, and nobody reads those; as a spare or temporary file it is removed.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Result;
use crate::file_system::{File, FileSystem, temporary_path};
use crate::lock::lock;
use crate::sync::Mutex;
use crate::wal::format::segment_name;
use crate::wal::writer_thread::WriterThread;
use crate::wal_buffered::{LogWriter, SPARE_SEGMENTS_MAX, SegmentFiles, WalOptions};

/// Where a log is, and how its files are made. Clones share the spare files.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The file system.
    pub(crate) fs: Arc<dyn FileSystem>,
    /// The log's own directory.
    pub(crate) dir: PathBuf,
    /// From which size on payloads are compressed.
    pub(crate) compress_bytes_min: Option<usize>,
    segment_files: SegmentFiles,
    segment_bytes: u64,
    writer: Writer,
    /// The numbers of spare files.
    spares: Arc<Mutex<Vec<u64>>>,
}

#[derive(Debug, Clone)]
enum Writer {
    Direct,
    Thread(Arc<WriterThread>),
    Mapped,
}

/// A file for a segment, under its temporary name.
#[derive(Debug)]
pub(crate) struct NewFile {
    /// The file.
    pub(crate) file: Arc<dyn File>,
    /// It holds the records of an obsolete segment.
    pub(crate) reused: bool,
}

impl Place {
    /// Prepares a place; starts the writing thread if there is to be one.
    pub(crate) fn new(fs: Arc<dyn FileSystem>, dir: PathBuf, options: &WalOptions) -> Result<Self> {
        let writer = match options.writer {
            LogWriter::Direct => Writer::Direct,
            LogWriter::Thread { bytes_min } => {
                Writer::Thread(Arc::new(WriterThread::start(bytes_min)?))
            }
            LogWriter::Mapped => Writer::Mapped,
        };
        Ok(Self {
            fs,
            dir,
            compress_bytes_min: options.compress_bytes_min,
            segment_files: options.segment_files,
            segment_bytes: options.segment_bytes,
            writer,
            spares: Arc::default(),
        })
    }

    /// The path of a segment.
    pub(crate) fn segment(&self, number: u64) -> PathBuf {
        self.dir.join(segment_name(number))
    }

    /// The path of the clean marker.
    pub(crate) fn marker(&self) -> PathBuf {
        self.dir.join(super::MARKER_NAME)
    }

    /// Whether segments have room behind their records.
    pub(crate) const fn is_roomy(&self) -> bool {
        !matches!(
            (self.segment_files, &self.writer),
            (SegmentFiles::Growing, Writer::Direct | Writer::Thread(_))
        )
    }

    /// Provides the file of a segment, under its temporary name.
    pub(crate) fn create(&self, number: u64) -> Result<NewFile> {
        let path = temporary_path(&self.segment(number));
        let spare = lock(&self.spares).pop();
        let file = if let Some(spare) = spare {
            self.fs.rename(&self.spare(spare), &path)?;
            self.fs.open(&path)?
        } else {
            let file = self.fs.create_new(&path)?;
            if self.is_roomy() {
                file.allocate(self.segment_bytes)?;
            }
            file
        };
        let file = match &self.writer {
            Writer::Direct => file,
            Writer::Thread(thread) => thread.wrap(file),
            Writer::Mapped => file.map(self.segment_bytes)?.unwrap_or(file),
        };
        Ok(NewFile { file, reused: spare.is_some() })
    }

    /// Removes segments that are not needed any more, oldest first, or keeps their files; not
    /// durably yet.
    pub(crate) fn retire(&self, numbers: &[u64]) -> Result<()> {
        for number in numbers {
            let keep = self.segment_files == SegmentFiles::Recycled
                && lock(&self.spares).len() < SPARE_SEGMENTS_MAX;
            if keep {
                self.fs.rename(&self.segment(*number), &self.spare(*number))?;
                lock(&self.spares).push(*number);
            } else {
                self.fs.remove(&self.segment(*number))?;
            }
        }
        Ok(())
    }

    /// Removes segments for good, and the spare files.
    pub(crate) fn remove(&self, numbers: &[u64]) -> Result<()> {
        for spare in std::mem::take(&mut *lock(&self.spares)) {
            self.fs.remove(&self.spare(spare))?;
        }
        for number in numbers {
            self.fs.remove(&self.segment(*number))?;
        }
        self.sync_names(numbers)
    }

    /// Makes the names of changed files durable.
    pub(crate) fn sync_names(&self, changed: &[u64]) -> Result<()> {
        if changed.is_empty() { Ok(()) } else { self.fs.sync_dir(&self.dir) }
    }

    /// Removes what an earlier process left unfinished or spare. Returns the names of the rest.
    pub(crate) fn tidy(&self) -> Result<Vec<String>> {
        let leftover = |name: &String| name.ends_with(".tmp") || name.starts_with(SPARE_PREFIX);
        let (leftover, rest) = self.fs.list(&self.dir)?.into_iter().partition(leftover);
        for name in leftover as Vec<String> {
            self.fs.remove(&self.dir.join(name))?;
        }
        Ok(rest)
    }

    fn spare(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{SPARE_PREFIX}{number}.log"))
    }
}

const SPARE_PREFIX: &str = "spare-";
