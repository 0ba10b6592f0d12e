//! `Follower`: the thread that brings an index to the tip and keeps it there.
//!
//! Invariants:
//! - a batch has all rows of one block, its hash at its height, and the new position: whatever batches
//!   a crash loses from the end, the rows are those of the chain up to the position;
//! - the position goes back block by block, each in a batch, to a block of the connected chain;
//! - of a tip below the position nothing is taken back: the same blocks may come again, and are then
//!   not indexed twice;
//! - a block whose rows a power cut may take is not pruned: it would have to be read again.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use bitcoin::hashes::Hash as _;
use bitcoin::{Block, BlockHash};
use cofferdam_ibd::undo::BlockUndo;
use cofferdam_ibd::{BlockFiles, BlockRef, Chainstate, HeaderEntry};
use cofferdam_storage::{Batch, Database, Tree};

use super::IndexSummary;
use crate::chain::{ChainHandle, describe};
use crate::shutdown::Shutdown;
use crate::waits::{EndedByStop, Reserve};

/// How far the index is (key `at`, value height u32 BE and hash), and the hash of each block in it by
/// height (key height u32 BE).
const POSITION: Tree = Tree { id: 1, name: "position" };
/// What the index is for.
pub(super) const ROWS: Tree = Tree { id: 2, name: "rows" };
/// All trees.
pub(super) const TREES: &[Tree] = &[POSITION, ROWS];

const AT_KEY: &[u8] = b"at";

/// Blocks that are asked for at a time.
const BLOCKS_AT_A_TIME: u32 = 64;
/// How often what was written is made durable (Core's `SYNC_LOCATOR_WRITE_INTERVAL`).
const FLUSH_EVERY: Duration = Duration::from_secs(30);
/// How often is said how far catching up is (Core's `SYNC_LOG_INTERVAL`).
const REPORT_EVERY: Duration = Duration::from_secs(30);
/// How long a stop may go unnoticed at the tip.
const GLANCE: Duration = Duration::from_millis(250);

/// A block to be indexed.
#[derive(Debug)]
pub(super) struct IndexedBlock {
    pub(super) at: BlockRef,
    pub(super) raw: Vec<u8>,
    pub(super) block: Block,
    /// Of the genesis block, and if the index does not need it: nothing.
    pub(super) undo: BlockUndo,
}

/// What an index makes of blocks.
pub(super) trait BlockIndex: Send + Sync + 'static {
    /// Core's name of the index.
    const NAME: &'static str;
    /// Whether it needs what blocks spent.
    const NEEDS_UNDO: bool;

    /// Writes the rows of a block.
    fn append(&self, block: &IndexedBlock, batch: &mut Batch) -> Result<()>;

    /// Takes back what must not be left of a block; it may have been lost.
    fn remove(&self, at: BlockRef, block: Option<&IndexedBlock>, batch: &mut Batch) -> Result<()>;
}

#[derive(Debug)]
struct Shared {
    position: Mutex<Option<BlockRef>>,
    moved: Condvar,
    synced: AtomicBool,
    /// The height from which on pruning has to keep blocks for this index.
    kept_from: AtomicU32,
    stop: AtomicBool,
    shutdown: Shutdown,
    chain: ChainHandle,
    name: &'static str,
}

impl Shared {
    fn position(&self) -> MutexGuard<'_, Option<BlockRef>> {
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_from(&self, height: u32) {
        let position = self.position();
        self.kept_from.store(height, Ordering::SeqCst);
        self.moved.notify_all();
        drop(position);
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst) || self.shutdown.is_requested()
    }
}

/// The running thread of an index.
#[derive(Debug)]
pub(super) struct Follower {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Follower {
    /// Starts the thread.
    pub(super) fn start<I: BlockIndex>(
        index: Arc<I>,
        database: Arc<dyn Database>,
        chain: &ChainHandle,
        reserve: Reserve,
    ) -> Result<Self> {
        let position = read_position(&*database)?;
        let rows = Arc::clone(&database);
        let missing = chain.change(move |worker| {
            let known = last_known(&*rows, &worker.chainstate, position);
            Ok(known.map(|known| {
                // From now on nothing goes that is needed.
                worker.pruner.lock(I::NAME, known.map_or(0, |at| at.height));
                misses_blocks(&worker.chainstate, known, I::NEEDS_UNDO)
            }))
        })?;
        if missing? {
            return Err(beyond_pruned(I::NAME));
        }
        let shared = Arc::new(Shared {
            position: Mutex::new(position),
            moved: Condvar::new(),
            synced: AtomicBool::new(false),
            kept_from: AtomicU32::new(0),
            stop: AtomicBool::new(false),
            shutdown: reserve.shutdown().clone(),
            chain: chain.clone(),
            name: I::NAME,
        });
        // What a killed process has written may be there without being durable.
        database.flush().map_err(|error| anyhow!(describe(&error)))?;
        let worker = Worker {
            index,
            database,
            shared: Arc::clone(&shared),
            reserve,
            reported: None,
            durable: position,
        };
        let thread = std::thread::Builder::new()
            .name(I::NAME.replace(' ', "-"))
            .spawn(move || {
                tracing::info!("{} thread start", I::NAME);
                worker.run();
            })
            .with_context(|| format!("starting the thread of the {}", I::NAME))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    pub(super) fn summary(&self) -> IndexSummary {
        let genesis = BlockRef { height: 0, hash: BlockHash::all_zeros() };
        let best = self.shared.position().unwrap_or(genesis);
        let synced = self.shared.synced.load(Ordering::SeqCst);
        IndexSummary { name: self.shared.name, synced, best }
    }

    /// Waits until the index has the tip of now, if it had caught up once; returns whether it has.
    pub(super) fn wait_for_tip(&self, time: Duration) -> bool {
        if !self.shared.synced.load(Ordering::SeqCst) {
            return false;
        }
        let end = Instant::now() + time;
        let mut position = self.shared.position();
        loop {
            let at = *position;
            drop(position);
            if self.shared.chain.query(move |chain| has_tip(chain, at)).unwrap_or(false) {
                return true;
            }
            position = self.shared.position();
            if *position != at {
                continue;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.shared.is_stopping() {
                return false;
            }
            let waited = self.shared.moved.wait_timeout(position, left.min(GLANCE));
            position = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until what the index has read is durable and may be pruned.
    pub(super) fn wait_for_flush(&self, time: Duration) {
        let end = Instant::now() + time;
        let mut position = self.shared.position();
        while let Some(at) = *position
            && self.shared.kept_from.load(Ordering::SeqCst) < at.height
        {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.shared.is_stopping() {
                return;
            }
            let waited = self.shared.moved.wait_timeout(position, left.min(GLANCE));
            position = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends the thread and waits for it.
    pub(super) fn stop(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the thread of the {} panicked", self.shared.name);
        }
    }
}

/// Returns the last block of an index that the chain knows: in a power cut it may have lost some that
/// the index has.
fn last_known(
    database: &dyn Database,
    chain: &Chainstate,
    position: Option<BlockRef>,
) -> Result<Option<BlockRef>> {
    let mut last = position;
    while let Some(at) = last
        && chain.headers().get(&at.hash).is_none()
    {
        last = below(database, at)?;
    }
    Ok(last)
}

/// Returns whether blocks that an index still has to read are gone.
pub(super) fn misses_blocks(
    chain: &Chainstate,
    position: Option<BlockRef>,
    needs_undo: bool,
) -> bool {
    let headers = chain.headers();
    let first = match position.and_then(|at| headers.get(&at.hash)) {
        Some(at) => headers.entry(headers.fork_point(at, chain.tip_ref())).height + 1,
        None => 0,
    };
    let heights = first..=chain.tip().height;
    heights.filter_map(|height| headers.ancestor(chain.tip_ref(), height)).any(|at| {
        let entry = headers.entry(at);
        let lacks_undo = needs_undo && entry.undo.is_none() && entry.parent.is_some();
        entry.block.is_none() || lacks_undo
    })
}

/// The error for an index that cannot go on, in Bitcoin Core's words.
pub(super) fn beyond_pruned(name: &str) -> anyhow::Error {
    anyhow!(
        "{name} best block of the index goes beyond pruned data (including undo data). Please disable the index or reindex (which will download the whole blockchain again)\nError: A fatal internal error occurred, see debug.log for details: Failed to start indexes, shutting down…"
    )
}

fn read_position(database: &dyn Database) -> Result<Option<BlockRef>> {
    let row = database.get(POSITION, AT_KEY).map_err(|error| anyhow!(describe(&error)))?;
    Ok(row.and_then(|row| {
        let (height, hash) = row.split_first_chunk::<4>()?;
        let hash = BlockHash::from_slice(hash).ok()?;
        Some(BlockRef { height: u32::from_be_bytes(*height), hash })
    }))
}

fn write_position(batch: &mut Batch, at: Option<BlockRef>) {
    match at {
        Some(at) => {
            let value = [at.height.to_be_bytes().as_slice(), at.hash.as_byte_array()].concat();
            batch.put(POSITION, AT_KEY, &value);
        }
        None => batch.delete(POSITION, AT_KEY),
    }
}

/// Returns the block of the index at a height.
pub(super) fn hash_at(database: &dyn Database, height: u32) -> Result<Option<BlockHash>> {
    let row = database.get(POSITION, &height.to_be_bytes());
    let row = row.map_err(|error| anyhow!(describe(&error)))?;
    Ok(row.and_then(|row| BlockHash::from_slice(&row).ok()))
}

/// Returns the block of the index below one of its blocks; none is below the genesis block.
fn below(database: &dyn Database, at: BlockRef) -> Result<Option<BlockRef>> {
    let Some(height) = at.height.checked_sub(1) else {
        return Ok(None);
    };
    let hash = hash_at(database, height)?;
    let hash = hash.ok_or_else(|| anyhow!("there is no block at height {height}"))?;
    Ok(Some(BlockRef { height, hash }))
}

/// What to do next.
enum Step {
    /// Index these blocks, in order.
    Up(Vec<HeaderEntry>, Arc<BlockFiles>),
    /// Take the last block off, which is this one if it is known.
    Down(Option<HeaderEntry>, Arc<BlockFiles>),
    /// Wait for another tip.
    Wait(BlockRef),
}

/// Returns whether an index has all blocks of the connected chain, and perhaps more on top.
fn has_tip(chain: &Chainstate, position: Option<BlockRef>) -> bool {
    let known = position.and_then(|at| chain.headers().get(&at.hash));
    known.is_some_and(|at| chain.headers().is_ancestor(chain.tip_ref(), at))
}

fn next_step(chain: &Chainstate, position: Option<BlockRef>) -> Step {
    let headers = chain.headers();
    let files = Arc::clone(chain.files());
    if has_tip(chain, position) {
        return Step::Wait(chain.tip());
    }
    let first = match position {
        None => 0,
        Some(at) => {
            let known = headers.get(&at.hash);
            if !known.is_some_and(|at| chain.is_connected(at)) {
                return Step::Down(known.map(|at| headers.entry(at)), files);
            }
            at.height + 1
        }
    };
    let last = chain.tip().height.min(first + BLOCKS_AT_A_TIME - 1);
    let blocks = (first..=last).filter_map(|height| headers.ancestor(chain.tip_ref(), height));
    Step::Up(blocks.map(|at| headers.entry(at)).collect(), files)
}

struct Worker<I> {
    index: Arc<I>,
    database: Arc<dyn Database>,
    shared: Arc<Shared>,
    reserve: Reserve,
    reported: Option<Instant>,
    /// The position when the index was last made durable.
    durable: Option<BlockRef>,
}

impl<I: BlockIndex> Worker<I> {
    fn run(mut self) {
        let Err(error) = self.follow() else {
            return self.shared.moved.notify_all();
        };
        if error.is::<EndedByStop>() {
            tracing::warn!("{}: {error}", I::NAME);
            // What is left of the disk is there for what was written.
            let _ = self.flush();
        } else {
            let text = format!("{}: {error:#}", I::NAME);
            tracing::error!("A fatal internal error occurred: {text}");
            self.shared.shutdown.fail(&text);
        }
        self.shared.moved.notify_all();
    }

    fn follow(&mut self) -> Result<()> {
        let mut flushed = Instant::now();
        let mut dirty = false;
        while !self.shared.is_stopping() {
            let position = *self.shared.position();
            let height = |at: Option<BlockRef>| at.map_or(0, |at| at.height);
            let read = height(position).min(height(self.durable));
            let step = self.shared.chain.change(move |worker| {
                let chain = &worker.chainstate;
                let step = next_step(chain, position);
                worker.pruner.lock(I::NAME, read.min(chain.tip().height));
                Ok(step)
            });
            let Ok(step) = step else { break };
            self.shared.keep_from(read);
            match step {
                Step::Up(blocks, files) => {
                    for entry in blocks {
                        if self.shared.is_stopping() {
                            break;
                        }
                        self.append(&entry, &files)?;
                        dirty = true;
                    }
                }
                Step::Down(entry, files) => {
                    self.remove(entry.as_ref(), &files)?;
                    dirty = true;
                }
                Step::Wait(_) if dirty => {
                    // At the tip there is time for that, and pruning need not wait.
                    self.flush()?;
                    (flushed, dirty) = (Instant::now(), false);
                }
                Step::Wait(tip) => {
                    if !self.shared.synced.swap(true, Ordering::SeqCst) {
                        tracing::info!("{} is enabled at height {}", I::NAME, tip.height);
                    }
                    self.shared.chain.wait_for_tip(Some(GLANCE), |now| now != tip);
                }
            }
            if dirty && flushed.elapsed() >= FLUSH_EVERY {
                self.flush()?;
                (flushed, dirty) = (Instant::now(), false);
            }
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        let position = *self.shared.position();
        self.database.flush().map_err(|error| anyhow!(describe(&error)))?;
        self.durable = position;
        Ok(())
    }

    fn append(&mut self, entry: &HeaderEntry, files: &BlockFiles) -> Result<()> {
        let at = BlockRef { height: entry.height, hash: entry.hash };
        self.report(at);
        let block = read_block::<I>(entry, files)?;
        let mut batch = Batch::new();
        self.index.append(&block, &mut batch)?;
        batch.put(POSITION, &at.height.to_be_bytes(), at.hash.as_byte_array());
        self.commit(batch, Some(at))
    }

    fn remove(&self, entry: Option<&HeaderEntry>, files: &BlockFiles) -> Result<()> {
        let Some(at) = *self.shared.position() else {
            return Ok(());
        };
        // A block that the chain lost in a crash cannot be read.
        let block = entry.and_then(|entry| read_block::<I>(entry, files).ok());
        let mut batch = Batch::new();
        self.index.remove(at, block.as_ref(), &mut batch)?;
        batch.delete(POSITION, &at.height.to_be_bytes());
        self.commit(batch, below(&*self.database, at)?)
    }

    fn commit(&self, mut batch: Batch, position: Option<BlockRef>) -> Result<()> {
        write_position(&mut batch, position);
        self.reserve.wait_for(batch.as_bytes().len())?;
        self.database.apply(&batch).map_err(|error| anyhow!(describe(&error)))?;
        *self.shared.position() = position;
        self.shared.moved.notify_all();
        Ok(())
    }

    fn report(&mut self, at: BlockRef) {
        if self.shared.synced.load(Ordering::SeqCst) {
            return;
        }
        let now = Instant::now();
        if self.reported.is_none_or(|last| now.duration_since(last) >= REPORT_EVERY) {
            self.reported = Some(now);
            tracing::info!("Syncing {} with block chain from height {}", I::NAME, at.height);
        }
    }
}

fn read_block<I: BlockIndex>(entry: &HeaderEntry, files: &BlockFiles) -> Result<IndexedBlock> {
    let at = BlockRef { height: entry.height, hash: entry.hash };
    let extent = entry.block.ok_or_else(|| anyhow!("block {} is not stored", at.hash))?;
    let raw = files.read_block(extent).map_err(|error| anyhow!(describe(&error)))?;
    let block = bitcoin::consensus::deserialize(&raw)
        .with_context(|| format!("Failed to read block {} from disk", at.hash))?;
    let undo = match entry.undo.filter(|_| I::NEEDS_UNDO) {
        Some(extent) => files
            .read_undo(extent)
            .and_then(|bytes| BlockUndo::decode(&bytes))
            .map_err(|error| anyhow!(describe(&error)))?,
        None => BlockUndo::default(),
    };
    Ok(IndexedBlock { at, raw, block, undo })
}
