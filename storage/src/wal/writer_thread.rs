//! `WriterThread`: hands bytes to files on a thread of its own, in the order in which they come.
//!
//! A file that it wraps behaves as any other, but that its writes are done only when
//! [`File::settle`], [`File::sync_data`] or a read has returned. The first write that fails is
//! reported by the next of these, or by the next write, and by all that follow.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::error::{Error, Result};
use crate::file_system::File;
use crate::lock::{lock, wait};
use crate::sync::{Condvar, Mutex, thread};
use crate::wal::format::BUFFER_KEPT_BYTES;

/// How many writes may wait: as many records, of a block each.
const JOBS_MAX: usize = 16;
/// How many buffers are kept for later writes.
const BUFFERS_MAX: usize = JOBS_MAX + 1;

/// A thread that writes.
#[derive(Debug)]
pub(crate) struct WriterThread {
    jobs: SyncSender<Job>,
    buffers: Arc<Mutex<Vec<Vec<u8>>>>,
    bytes_min: usize,
}

#[derive(Debug)]
struct Job {
    file: Arc<Shared>,
    offset: u64,
    bytes: Vec<u8>,
}

/// A file that the thread writes to.
#[derive(Debug)]
struct Shared {
    inner: Arc<dyn File>,
    state: Mutex<State>,
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: usize,
    error: Option<Error>,
    cause: Option<String>,
}

impl WriterThread {
    /// Starts the thread, which is given writes of at least so many bytes. It ends when the last file
    /// that it wraps, and this, are dropped.
    pub(crate) fn start(bytes_min: usize) -> Result<Self> {
        const NAME: &str = "cofferdam-log";
        let (jobs, queue) = sync_channel(JOBS_MAX);
        let buffers = Arc::default();
        let pool = Arc::clone(&buffers);
        thread::Builder::new()
            .name(NAME.to_owned())
            .spawn(move || run(&queue, &pool))
            .map_err(|source| Error::io("start the thread", Path::new(NAME), source))?;
        Ok(Self { jobs, buffers, bytes_min })
    }

    /// Lets the thread write to a file.
    pub(crate) fn wrap(&self, inner: Arc<dyn File>) -> Arc<dyn File> {
        let shared = Shared { inner, state: Mutex::default(), written: Condvar::new() };
        let (jobs, buffers) = (self.jobs.clone(), Arc::clone(&self.buffers));
        let bytes_min = self.bytes_min;
        Arc::new(ThreadedFile { shared: Arc::new(shared), jobs, buffers, bytes_min })
    }
}

fn run(queue: &Receiver<Job>, buffers: &Mutex<Vec<Vec<u8>>>) {
    while let Ok(Job { file, offset, mut bytes }) = queue.recv() {
        // After a failed write nothing may follow it: that would leave a hole.
        let failed = lock(&file.state).cause.is_some();
        let written = if failed { Ok(()) } else { file.inner.write_all_at(offset, &bytes) };
        bytes.clear();
        if bytes.capacity() <= BUFFER_KEPT_BYTES && lock(buffers).len() < BUFFERS_MAX {
            lock(buffers).push(bytes);
        }
        let mut state = lock(&file.state);
        state.waiting -= 1;
        if let Err(error) = written {
            state.fail(error);
        }
        drop(state);
        file.written.notify_all();
    }
}

impl State {
    fn fail(&mut self, error: Error) {
        self.cause = Some(error.chain());
        self.error = Some(error);
    }

    /// The first failure itself once, later what it was.
    fn check(&mut self) -> Result<()> {
        match (self.error.take(), &self.cause) {
            (Some(error), _) => Err(error),
            (None, Some(cause)) => Err(Error::Poisoned { cause: cause.clone() }),
            (None, None) => Ok(()),
        }
    }
}

/// A file that is written to by a [`WriterThread`].
#[derive(Debug)]
struct ThreadedFile {
    shared: Arc<Shared>,
    jobs: SyncSender<Job>,
    buffers: Arc<Mutex<Vec<Vec<u8>>>>,
    bytes_min: usize,
}

impl ThreadedFile {
    /// Writes on this thread, which waits for nobody.
    fn write_here(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let written = self.shared.inner.write_all_at(offset, bytes);
        let mut state = lock(&self.shared.state);
        if let Err(error) = written {
            state.fail(error);
        }
        state.check()
    }
}

impl File for ThreadedFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.settle()?;
        self.shared.inner.read_at(offset, buffer)
    }

    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        {
            let mut state = lock(&self.shared.state);
            state.check()?;
            // Only the committing thread adds to what waits: the order of writes stays.
            if state.waiting == 0 && bytes.len() < self.bytes_min {
                drop(state);
                return self.write_here(offset, bytes);
            }
            state.waiting += 1;
        }
        let mut copy = lock(&self.buffers).pop().unwrap_or_default();
        copy.extend_from_slice(bytes);
        let job = Job { file: Arc::clone(&self.shared), offset, bytes: copy };
        self.jobs.send(job).map_err(|_| Error::misuse("the log's writing thread has ended"))
    }

    fn set_len(&self, bytes: u64) -> Result<()> {
        self.settle()?;
        self.shared.inner.set_len(bytes)
    }

    fn len(&self) -> Result<u64> {
        self.settle()?;
        self.shared.inner.len()
    }

    fn sync_data(&self) -> Result<()> {
        self.settle()?;
        self.shared.inner.sync_data()
    }

    fn settle(&self) -> Result<()> {
        let mut state = lock(&self.shared.state);
        while state.waiting > 0 {
            state = wait(&self.shared.written, state);
        }
        state.check()
    }
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests {
    use super::*;
    use crate::FileSystem as _;
    use crate::testing::{Fault, SimFileSystem};

    fn wrapped(fs: &SimFileSystem, bytes_min: usize) -> Arc<dyn File> {
        fs.create_dir_all(Path::new("d")).unwrap();
        WriterThread::start(bytes_min).unwrap().wrap(fs.create_new(Path::new("d/f")).unwrap())
    }

    #[test]
    fn writes_are_there_once_they_have_settled() {
        for bytes_min in [0, 2, 1000] {
            let fs = SimFileSystem::new();
            let file = wrapped(&fs, bytes_min);
            // Of one to three bytes: some are handed over, others follow them.
            for n in 0..100_u8 {
                file.write_all_at(u64::from(n), &[n, 0, 0][..usize::from(n % 3) + 1]).unwrap();
            }
            file.settle().unwrap();
            let expected: Vec<u8> = (0..100).collect();
            assert_eq!(fs.read(Path::new("d/f")).unwrap()[..100], expected, "{bytes_min}");
            assert_eq!(file.len().unwrap(), 101);
        }
    }

    #[test]
    fn the_first_failure_is_reported_and_nothing_follows_it() {
        for bytes_min in [0, 1000] {
            let fs = SimFileSystem::new();
            let file = wrapped(&fs, bytes_min);
            file.write_all_at(0, b"abcd").unwrap();
            file.settle().unwrap();
            fs.inject(Fault { at: fs.ops(), kind: std::io::ErrorKind::StorageFull, sticky: false });
            let write = |n: u64| file.write_all_at(4 * n, b"efgh").is_ok();
            let later: Vec<bool> = (1..9).map(write).collect();
            let settled = file.settle().unwrap_err();
            let seen_early = later.contains(&false);
            assert!(seen_early || matches!(settled, Error::Full { .. }), "{settled}");
            assert!(matches!(file.sync_data(), Err(Error::Poisoned { .. })));
            assert_eq!(fs.read(Path::new("d/f")).unwrap(), b"abcdef", "half of the failed write");
        }
    }
}
