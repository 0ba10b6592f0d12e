//! Opening a store: what the backend holds, what the log adds, and the threads.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tracing::info;

use crate::database::{Database, KeyRange, STATE_TREE, Tree, check_tree, check_trees};
use crate::error::{Error, Result};
use crate::file_system::FileSystem;
use crate::mutation::{Mutation, mutated};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Instant, Mutex, RwLock};
use crate::wal::format::Payload;
use crate::wal::{Evidence, Opening, Place, open_log};
use crate::wal_buffered::commit::{generation_bytes_max, hash_of};
use crate::wal_buffered::flusher::{FlushQueue, Frozen};
use crate::wal_buffered::health::Health;
use crate::wal_buffered::memtable::{Freshness, Memtable};
use crate::wal_buffered::metrics;
use crate::wal_buffered::state_rows::StateRows;
use crate::wal_buffered::syncer::Syncer;
use crate::wal_buffered::view::View;
use crate::wal_buffered::{
    Attachments, Counters, Inner, Lsn, Recovery, Tip, WalBuffered, WalOptions, Writer,
};

const LOCK_NAME: &str = "lock";

impl<D: Database + 'static> WalBuffered<D> {
    /// Opens a store: `dir` is the directory of the log, `backend` what is buffered.
    ///
    /// Replays what the backend lacks. A crash while this runs changes nothing: opening again
    /// gives the same state.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] if another handle has the log open; [`Error::Corrupt`] if a batch that
    /// was promised to be durable is damaged or missing, in log, backend or attachments; or if
    /// the file system or the backend fails.
    pub fn open(
        options: WalOptions,
        fs: Arc<dyn FileSystem>,
        dir: &Path,
        backend: D,
        attachments: Arc<dyn Attachments>,
    ) -> Result<(Self, Recovery)> {
        let (inner, recovery) = Self::recover(options, fs, dir, backend, attachments)?;
        Ok((Self::start(inner)?, recovery))
    }

    /// Opens a store without its threads: for tests that open millions and only read them.
    #[cfg(all(test, feature = "testing"))]
    pub(crate) fn open_to_read(
        options: WalOptions,
        fs: Arc<dyn FileSystem>,
        dir: &Path,
        backend: D,
        attachments: Arc<dyn Attachments>,
    ) -> Result<(Self, Recovery)> {
        let (inner, recovery) = Self::recover(options, fs, dir, backend, attachments)?;
        Ok((Self { inner: Arc::new(inner), threads: Vec::new() }, recovery))
    }

    fn recover(
        options: WalOptions,
        fs: Arc<dyn FileSystem>,
        dir: &Path,
        backend: D,
        attachments: Arc<dyn Attachments>,
    ) -> Result<(Inner<D>, Recovery)> {
        let started = Instant::now();
        fs.create_dir_all(dir)?;
        let lock = fs.lock(&dir.join(LOCK_NAME))?;
        check_tree(backend.trees(), STATE_TREE.id)?;
        // What the backend shows may be in the page cache only, left there by a process that was
        // killed. It becomes durable before anything is decided, or removed, because of it.
        if !mutated(Mutation::BackendTakenForSynced) {
            backend.flush()?;
        }
        let rows = StateRows::read(&backend)?;
        let place = Place::new(fs, dir.to_path_buf(), &options)?;
        let mut replayer = Replayer::new(&backend, generation_bytes_max(&options), rows);
        let evidence = Evidence { applied: rows.applied, writing: rows.writing };
        let opening = Opening {
            place: &place,
            evidence,
            attachments: &*attachments,
            hook: options.replay_hook.as_ref(),
        };
        let opened = open_log(opening, &mut |lsn, payload| replayer.replay(lsn, payload))?;
        let mut view = replayer.into_view();
        if view.applied == 0 {
            view.empty_below = empty_trees(&backend)?;
        }
        let recovery = Recovery {
            clean: opened.clean,
            records: opened.records,
            bytes: opened.bytes,
            from_lsn: rows.applied,
            to_lsn: opened.end,
            torn: opened.torn,
            tip: view.tip,
            elapsed: started.elapsed(),
        };
        metrics::recovery(recovery.elapsed, recovery.bytes);
        info!(
            records = recovery.records,
            bytes = recovery.bytes,
            milliseconds = recovery.elapsed.as_millis(),
            clean = recovery.clean,
            "opened the store"
        );
        let durable = (opened.end, view.tip);
        let health = Arc::new(Health::default());
        let mode = options.durability;
        let syncer =
            Syncer::new(Arc::clone(&health), Arc::clone(&attachments), opened.log, mode, durable);
        let mut writer = Writer::new();
        // What was replayed is in the active generation: count it as one commit of that size.
        (writer.blocks, writer.log_bytes) = (u32::from(opened.records > 0), opened.bytes);
        let inner = Inner {
            trees: user_trees(&backend),
            backend,
            options,
            place,
            attachments,
            health,
            syncer: Arc::new(syncer),
            view: RwLock::new(view),
            writer: Mutex::new(writer),
            queue: FlushQueue::default(),
            flushing: AtomicBool::new(true),
            counters: Counters::default(),
            _lock: lock,
        };
        Ok((inner, recovery))
    }

    /// Starts the threads.
    fn start(inner: Inner<D>) -> Result<Self> {
        let inner = Arc::new(inner);
        let mut store = Self { inner: Arc::clone(&inner), threads: Vec::new() };
        let syncer = Arc::clone(&inner.syncer);
        store.threads.push(spawn("cofferdam-fsync", move || syncer.run())?);
        store.threads.push(spawn("cofferdam-flush", move || inner.run_flusher())?);
        Ok(store)
    }
}

/// The trees that the store's user may use.
fn user_trees(backend: &dyn Database) -> Vec<Tree> {
    backend.trees().iter().copied().filter(|tree| tree.id != STATE_TREE.id).collect()
}

/// The trees that have no entry. What an interrupted write-back left counts.
fn empty_trees(backend: &dyn Database) -> Result<Vec<u8>> {
    let mut empty = Vec::new();
    for tree in user_trees(backend) {
        if backend.range(tree, KeyRange::all())?.next().transpose()?.is_none() {
            empty.push(tree.id);
        }
    }
    Ok(empty)
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|source| Error::io("start the thread", Path::new(name), source))
}

/// Applies log records to a memtable, and that to the backend when memory is used up.
struct Replayer<'a> {
    backend: &'a dyn Database,
    bytes_max: usize,
    table: Memtable,
    lsn: Lsn,
    tip: Option<Tip>,
    applied: Lsn,
}

impl<'a> Replayer<'a> {
    fn new(backend: &'a dyn Database, bytes_max: usize, rows: StateRows) -> Self {
        let StateRows { applied, tip, .. } = rows;
        Self { backend, bytes_max, table: Memtable::default(), lsn: applied, tip, applied }
    }

    /// `put_new` is not believed here: an interrupted write-back may have put any part of these
    /// batches into the backend already.
    fn replay(&mut self, lsn: Lsn, payload: Payload) -> Result<()> {
        if lsn != self.lsn + 1 {
            return Err(Error::corrupt(format!("log record {lsn} follows record {}", self.lsn)));
        }
        let batch = match payload {
            Payload::Plain(batch) => batch,
            Payload::Block(block) => {
                if block.prev_hash != hash_of(self.tip) {
                    return Err(Error::corrupt(format!(
                        "log record {lsn} does not follow the tip of the record before it"
                    )));
                }
                self.tip = Some(block.tip);
                block.batch
            }
        };
        check_trees(self.backend.trees(), &batch)?;
        let believed = mutated(Mutation::ReplayBelievesFresh);
        let freshness = if believed { Freshness::Trusted } else { Freshness::Ignored };
        self.table.apply(batch.ops(), freshness);
        self.lsn = lsn;
        // The log is durable up to its end, so this may be written back at once.
        if self.table.bytes() >= self.bytes_max {
            let table = std::mem::take(&mut self.table);
            let frozen = Frozen { table, lsn, tip: self.tip };
            frozen.write_back(self.backend, &AtomicBool::new(false))?;
            self.applied = lsn;
        }
        Ok(())
    }

    fn into_view(self) -> View {
        let Self { table, lsn, tip, applied, .. } = self;
        View { active: table, lsn, tip, applied, ..View::default() }
    }
}
