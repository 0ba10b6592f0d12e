//! `Chainstate`: the block index, the block files and the UTXO set, moved together.
//!
//! Invariants:
//! - the store's tip is the tip: coins, index rows and tip of a block are one batch of the log;
//! - a block is connected only onto its parent, and only if all rules hold for it;
//! - an index row that names block or undo bytes is logged after those bytes were written, and
//!   made durable after them ([`BlockFiles`] is the store's [`cofferdam_storage::Attachments`]);
//! - between two calls nothing is staged in the store;
//! - one thread owns a `Chainstate`; everything else sends to that thread.

mod accept;
mod activate;
mod assume_valid;
mod disconnect;
mod manual;
mod open;
mod prune;
mod query;
mod rebuild;
mod recent;
mod rollback;
mod stats;
mod try_block;
mod verify;

pub use accept::{BlockAccepted, HeadersAccepted};
pub use activate::Advance;
pub use manual::Invalidation;
pub use prune::BlockFileUsage;
pub use query::{CoinScanner, Progress};
pub use rollback::CoinChanges;
pub use verify::ChainVerification;

use self::recent::RecentBlocks;
use self::stats::StatsKeeper;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use bitcoin::BlockHash;
use bitcoin::hashes::Hash as _;
use cofferdam_storage::{Batch, BlockBatch, Database, Tip, WalBuffered, WalOptions};
use rayon::ThreadPool;

use crate::block_files::{BlockFiles, FileSize};
use crate::error::{Error, Result};
use crate::headers::{Candidates, HeaderRef, HeaderRow, HeaderTree};
use crate::params::ChainParams;
use crate::pipeline::connect::ConnectScratch;
use crate::pipeline::load::Ahead;
use crate::script::ScriptVerifier;
use crate::tables::HEADERS;
use crate::unknown_rules::UnknownRulesCache;
use crate::versionbits::VersionBitsCache;

/// Index rows in one record of the log: some 2.6 MB, a hundredth of what a record may have.
const ROWS_MAX: usize = 20_000;

/// The store beneath a chainstate: any engine behind the write-ahead-logged buffer.
pub type Store = WalBuffered<Box<dyn Database>>;

/// A block by height and hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BlockRef {
    /// Number of ancestors.
    pub height: u32,
    /// Hash of the header.
    pub hash: BlockHash,
}

/// Up to which block scripts are taken as valid (Bitcoin Core's `-assumevalid`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AssumeValid {
    /// The block that the network's parameters name.
    #[default]
    Default,
    /// None: every script is verified.
    Off,
    /// This block and its ancestors, under Bitcoin Core's conditions.
    Block(BlockHash),
}

/// How a [`Chainstate`] is opened.
#[derive(Clone, Debug)]
pub struct ChainstateOptions {
    /// The network's rules.
    pub params: Arc<ChainParams>,
    /// Threads that load blocks and verify scripts, at least 1.
    pub threads: usize,
    /// Up to which block scripts are taken as valid.
    pub assume_valid: AssumeValid,
    /// The chain's directory: `chainstate/` is below it.
    pub dir: PathBuf,
    /// Where block and undo files are; `blocks/` of the chain's directory by default.
    pub blocks_dir: PathBuf,
    /// How old a tip may be, in seconds, that is not a sign of initial block download.
    pub max_tip_age: u32,
    /// How large block files grow.
    pub file_size: FileSize,
    /// The log and the buffer.
    pub wal: WalOptions,
    /// Whether size and `MuHash` of the UTXO set are kept for every block ([`crate::CoinStats`]); some
    /// 15 ms of CPU time per MB of blocks.
    pub coin_stats: bool,
}

/// A tip older than this is a sign that the chain is still being downloaded (Bitcoin Core's
/// `DEFAULT_MAX_TIP_AGE`).
const MAX_TIP_AGE_SECONDS: u32 = 24 * 60 * 60;

impl ChainstateOptions {
    /// Returns the options of a chain below `dir`: a thread for each core, everything else by
    /// default.
    #[must_use]
    pub fn new(params: ChainParams, dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        Self {
            params: Arc::new(params),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            assume_valid: AssumeValid::Default,
            blocks_dir: dir.join("blocks"),
            max_tip_age: MAX_TIP_AGE_SECONDS,
            dir,
            file_size: FileSize::Core,
            wal: WalOptions::default(),
            coin_stats: false,
        }
    }
}

/// The block index, the block files and the UTXO set of one chain.
#[derive(Debug)]
pub struct Chainstate {
    /// Blocks that a pause of [`Chainstate::advance`] left loading; gone before the store is, of which
    /// they have handles.
    ahead: Ahead,
    params: Arc<ChainParams>,
    assume_valid: Option<BlockHash>,
    store: Store,
    files: Arc<BlockFiles>,
    pool: Arc<ThreadPool>,
    verifier: Arc<dyn ScriptVerifier>,
    headers: HeaderTree,
    candidates: Candidates,
    tip: HeaderRef,
    /// Entries whose rows differ from the store's; written with the next batch.
    dirty: BTreeSet<HeaderRef>,
    recent: RecentBlocks,
    scratch: ConnectScratch,
    connected: Progress,
    stats: Option<StatsKeeper>,
    /// States of deployments; asked for by `&self`.
    version_bits: Mutex<VersionBitsCache>,
    unknown_rules: Mutex<UnknownRulesCache>,
    /// Set by whoever wants [`Chainstate::advance`] to return.
    stop: Arc<AtomicBool>,
    /// From which height on [`Chainstate::advance`] returns after every block.
    pause_from: u32,
    /// Whether the chain was once near its tip; never goes back (Bitcoin Core's latch).
    synced: bool,
    /// Whether block files are being imported: their blocks are not new.
    importing: bool,
    max_tip_age: u32,
    /// Why scripts were verified last, as it was logged; see `assume_valid`.
    scripts_said: Option<Option<&'static str>>,
    /// Whether a block was ever pruned, so that one below another may be missing.
    has_pruned: bool,
}

impl Chainstate {
    /// Returns the network's rules.
    #[must_use]
    pub const fn params(&self) -> &Arc<ChainParams> {
        &self.params
    }

    /// Returns all headers.
    #[must_use]
    pub const fn headers(&self) -> &HeaderTree {
        &self.headers
    }

    /// Returns the store, for its counters and its durability.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the tip of the connected chain.
    #[must_use]
    pub fn tip(&self) -> BlockRef {
        self.block_ref(self.tip)
    }

    /// Returns the tip's place in the header tree.
    #[must_use]
    pub const fn tip_ref(&self) -> HeaderRef {
        self.tip
    }

    /// Returns what runs scripts.
    pub(crate) fn verifier(&self) -> &dyn ScriptVerifier {
        self.verifier.as_ref()
    }

    /// Lets [`Chainstate::advance`] return at the next block boundary below while `stop` is set,
    /// without waiting for scripts that run: a block of them can take minutes.
    pub fn stop_on(&mut self, stop: Arc<AtomicBool>) {
        self.stop = stop;
    }

    /// Lets [`Chainstate::advance`] return after every block from this height on, as if its time were
    /// over: whoever wants to stop at a height sees the tip there.
    pub const fn pause_from(&mut self, height: u32) {
        self.pause_from = height;
    }

    /// Makes everything connected so far survive a power cut.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Storage`] if the disk refuses.
    pub fn sync(&mut self) -> Result<()> {
        self.write_index()?;
        Ok(self.store.sync()?)
    }

    /// Writes what is buffered, and closes: the next start has nothing to replay.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Storage`] if the disk refuses; what was promised durable still is.
    pub fn shutdown(mut self) -> Result<()> {
        self.ahead = Ahead::default();
        let indexed = self.write_index();
        if matches!(&indexed, Err(Error::Storage(cofferdam_storage::Error::NoSpace { .. }))) {
            // The rows can be made again, and the reserve is there for what is buffered.
            self.store.shutdown()?;
            return indexed;
        }
        indexed?;
        Ok(self.store.shutdown()?)
    }

    fn block_ref(&self, at: HeaderRef) -> BlockRef {
        let entry = self.headers.entry(at);
        BlockRef { height: entry.height, hash: entry.hash }
    }

    /// Logs index rows that no block's batch took along, [`ROWS_MAX`] in a record.
    ///
    /// Parents come before their children: what a crash leaves of new rows is a tree, and what it
    /// leaves of marks of failed blocks is passed on to their descendants at the next start.
    fn write_index(&mut self) -> Result<()> {
        let stats_dirty = self.stats.as_ref().is_some_and(StatsKeeper::is_dirty);
        if self.dirty.is_empty() && !stats_dirty {
            return Ok(());
        }
        loop {
            let next = self.dirty.iter().nth(ROWS_MAX).copied();
            let mut later = next.map(|next| self.dirty.split_off(&next)).unwrap_or_default();
            let written = self.write_rows();
            self.dirty.append(&mut later);
            written?;
            if self.dirty.is_empty() {
                return Ok(());
            }
        }
    }

    /// Logs the rows that wait if there are too many of them for the next block's batch, which takes
    /// all of them along: it may be that of a block whose ancestors are among them.
    fn write_index_if_large(&mut self) -> Result<()> {
        if self.dirty.len() > ROWS_MAX { self.write_index() } else { Ok(()) }
    }

    /// Logs all rows that wait as one record.
    fn write_rows(&mut self) -> Result<()> {
        let tip = self.block_ref(self.tip);
        let mut batch = Batch::new();
        let rows = self.take_dirty(&mut batch);
        if let Some(stats) = &self.stats {
            stats.write(&mut batch);
        }
        if let Err(error) = self.store.commit(block_batch(tip, tip.hash, batch)) {
            self.dirty.extend(rows);
            return Err(error.into());
        }
        if let Some(stats) = &mut self.stats {
            stats.written();
        }
        Ok(())
    }

    /// Takes the rows that differ from the store's into `batch`.
    fn take_dirty(&mut self, batch: &mut Batch) -> Vec<HeaderRef> {
        let taken: Vec<HeaderRef> = std::mem::take(&mut self.dirty).into_iter().collect();
        for &at in &taken {
            self.put_row(batch, at);
        }
        taken
    }

    fn put_row(&self, batch: &mut Batch, at: HeaderRef) {
        let row = self.headers.entry(at).row();
        put_row(batch, &row, &self.headers.entry(at).hash);
    }

    /// Marks a block and its descendants as breaking a rule.
    fn mark_failed(&mut self, at: HeaderRef) {
        let failed = self.headers.mark_failed(at);
        self.candidates.remove(&self.headers, &failed);
        self.dirty.extend(failed);
    }
}

fn put_row(batch: &mut Batch, row: &HeaderRow, hash: &BlockHash) {
    batch.put(HEADERS, &HeaderRow::key(row.height, hash), &row.encode());
}

/// A batch that leaves `tip` behind, on the state whose tip is `prev`.
fn block_batch(tip: BlockRef, prev: BlockHash, batch: Batch) -> BlockBatch {
    BlockBatch {
        tip: Tip { height: tip.height, hash: tip.hash.to_byte_array() },
        prev_hash: prev.to_byte_array(),
        batch,
    }
}

/// The error for an index that contradicts itself.
fn corrupt(what: impl Into<String>) -> Error {
    Error::Corrupt { what: what.into() }
}

#[cfg(test)]
mod plain_tests;
#[cfg(test)]
#[cfg(feature = "kernel")]
mod tests;
