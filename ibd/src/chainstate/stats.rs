//! The coin statistics, kept at the tip.
//!
//! Invariants:
//! - while they are kept and caught up, the running statistics are those of the tip; while they are
//!   behind, blocks are connected and disconnected without them;
//! - their rows are logged after the blocks they are of, and say which block they have reached: after
//!   a crash they are behind by some blocks at most, and catch up from the block files;
//! - a row is a fact about a block and its ancestors: it stays when the block is disconnected.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use bitcoin::BlockHash;
use cofferdam_storage::{Batch, Database as _};
use rayon::ThreadPool;
use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};

use super::{BlockRef, Chainstate, Store, corrupt};
use crate::block::CheckedBlock;
use crate::block_files::BlockFiles;
use crate::coin_stats::{AT_KEY, CoinStats, CoinStatsDelta, RunningCoinStats};
use crate::error::{Error, Result};
use crate::headers::{Extent, HeaderRef, HeaderRow};
use crate::params::ChainParams;
use crate::pipeline::load::load_block;
use crate::pipeline::scripts::BlockScripts;
use crate::pipeline::spent::SpentCoins;
use crate::subsidy::block_subsidy;
use crate::tables::COIN_STATS;

/// Blocks that are read from their files at a time to catch up: enough for a few cores.
const CATCH_UP_BLOCKS: u32 = 16;
/// How often catching up says how far it is.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// The statistics that are kept, and rows that are not written yet.
#[derive(Debug)]
pub(super) struct StatsKeeper {
    running: RunningCoinStats,
    /// Keys and values.
    pending: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether the running statistics are others than those that are written.
    moved: bool,
    /// When catching up last said how far it is: a call is much shorter than [`REPORT_EVERY`].
    reported: Option<Instant>,
}

impl StatsKeeper {
    /// Whether it is time to say how far catching up is; the first time is after a while.
    fn report_is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = now.duration_since(*self.reported.get_or_insert(now)) >= REPORT_EVERY;
        if due {
            self.reported = Some(now);
        }
        due
    }
}

impl StatsKeeper {
    /// Reads how far the statistics go; they begin after the genesis block.
    pub(super) fn open(store: &Store, params: &ChainParams) -> Result<Self> {
        if let Some(row) = store.get(COIN_STATS, AT_KEY)? {
            let running = RunningCoinStats::decode(&row)?;
            return Ok(Self { running, pending: Vec::new(), moved: false, reported: None });
        }
        // Rows of an earlier form, if there are any, said less.
        if store.prefix(COIN_STATS, &[])?.next().is_some() {
            store.clear(COIN_STATS)?;
        }
        let genesis = params.genesis.block_hash();
        let running = RunningCoinStats::new(genesis, block_subsidy(0, params));
        let mut keeper = Self { running, pending: Vec::new(), moved: false, reported: None };
        keeper.push_row(BlockRef { height: 0, hash: genesis });
        Ok(keeper)
    }

    /// Whether rows wait to be written.
    pub(super) const fn is_dirty(&self) -> bool {
        self.moved
    }

    /// Puts the rows that wait into a batch.
    pub(super) fn write(&self, batch: &mut Batch) {
        if !self.moved {
            return;
        }
        for (key, value) in &self.pending {
            batch.put(COIN_STATS, key, value);
        }
        batch.put(COIN_STATS, AT_KEY, &self.running.encode());
    }

    /// The rows are written.
    pub(super) fn written(&mut self) {
        self.pending.clear();
        self.moved = false;
    }

    pub(super) fn connect(&mut self, block: BlockRef, delta: &CoinStatsDelta) -> Result<()> {
        self.running.connect(block.hash, delta)?;
        self.push_row(block);
        Ok(())
    }

    fn disconnect(&mut self, parent: BlockHash, delta: &CoinStatsDelta) -> Result<()> {
        self.running.disconnect(parent, delta)?;
        self.moved = true;
        Ok(())
    }

    fn push_row(&mut self, block: BlockRef) {
        let row = self.running.stats().encode();
        self.pending.push((HeaderRow::key(block.height, &block.hash), row));
        self.moved = true;
    }
}

/// The summing up of a block, on the pool.
#[derive(Debug)]
pub(super) struct StatsTicket {
    receiver: Receiver<Result<CoinStatsDelta>>,
    result: Option<Result<CoinStatsDelta>>,
}

impl StatsTicket {
    pub(super) fn start(
        pool: &ThreadPool,
        params: &Arc<ChainParams>,
        work: &Arc<BlockScripts>,
        height: u32,
    ) -> Self {
        let (sender, receiver) = sync_channel(1);
        let (params, work) = (Arc::clone(params), Arc::clone(work));
        pool.spawn(move || {
            // The receiver is gone if the block was taken back.
            let _ = sender.send(CoinStatsDelta::new(&params, &work.block, height, &work.spent));
        });
        Self { receiver, result: None }
    }

    pub(super) fn is_done(&mut self) -> bool {
        if self.result.is_none() {
            self.result = match self.receiver.try_recv() {
                Ok(result) => Some(result),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => Some(Err(lost())),
            };
        }
        self.result.is_some()
    }

    pub(super) fn wait(self) -> Result<CoinStatsDelta> {
        self.result.unwrap_or_else(|| self.receiver.recv().unwrap_or_else(|_| Err(lost())))
    }
}

fn lost() -> Error {
    corrupt("summing up a block ended without a result")
}

/// What is needed to sum a stored block up.
struct Stored<'a> {
    files: &'a BlockFiles,
    params: &'a ChainParams,
    at: BlockRef,
    block: Extent,
    undo: Extent,
}

impl Stored<'_> {
    fn delta(&self) -> Result<CoinStatsDelta> {
        let block = load_block(self.files, self.params, self.block)?;
        let spent = SpentCoins::from_undo(self.files.read_undo(self.undo)?)?;
        CoinStatsDelta::new(self.params, &block, self.at.height, &spent)
    }
}

impl Chainstate {
    /// Returns size and `MuHash` of the UTXO set after a block; `None` if statistics are not kept, or
    /// have never reached it.
    ///
    /// # Errors
    ///
    /// Returns [`crate::Error`] if the store cannot be read.
    pub fn coin_stats(&self, hash: &BlockHash) -> Result<Option<CoinStats>> {
        let Some(at) = self.headers.get(hash).filter(|_| self.stats.is_some()) else {
            return Ok(None);
        };
        let key = HeaderRow::key(self.headers.entry(at).height, hash);
        let row = self.store.get(COIN_STATS, &key)?;
        row.map(|row| CoinStats::decode(&row)).transpose()
    }

    /// Returns whether statistics are kept and have reached the tip.
    #[must_use]
    pub fn has_coin_stats(&self) -> bool {
        let tip = self.headers.entry(self.tip).hash;
        self.stats.as_ref().is_some_and(|stats| stats.running.at == tip)
    }

    /// Returns whether statistics are kept and have not reached the tip.
    #[must_use]
    pub fn coin_stats_are_behind(&self) -> bool {
        self.stats.is_some() && !self.has_coin_stats()
    }

    /// Returns the block that the statistics have reached; `None` if they are not kept.
    #[must_use]
    pub fn coin_stats_reached(&self) -> Option<BlockRef> {
        let stats = self.stats.as_ref()?;
        self.headers.get(&stats.running.at).map(|at| self.block_ref(at))
    }

    /// Brings the statistics toward the tip, from the block files, until they are there or the time is
    /// over. Blocks are read in parallel.
    pub(super) fn catch_up_stats(&mut self, until: Instant) -> Result<()> {
        while let Some(stats) = &mut self.stats {
            let reached = stats.running.at;
            let tip = self.headers.entry(self.tip);
            if reached == tip.hash {
                return Ok(());
            }
            let at = self.headers.get(&reached).ok_or_else(|| {
                corrupt(format!("the coin statistics are at block {reached}, which is not known"))
            })?;
            if stats.report_is_due() {
                let (height, tip) = (self.headers.entry(at).height, tip.height);
                tracing::info!("coin statistics: at block {height} of {tip}");
            }
            if self.headers.is_ancestor(at, self.tip) {
                self.raise_stats(at)?;
            } else {
                self.lower_stats(at)?;
            }
            self.write_index()?;
            if Instant::now() >= until || self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Adds the next blocks of the connected chain after `at`.
    fn raise_stats(&mut self, at: HeaderRef) -> Result<()> {
        let first = self.headers.entry(at).height + 1;
        let last = self.headers.entry(self.tip).height.min(first + CATCH_UP_BLOCKS - 1);
        let stored: Result<Vec<Stored<'_>>> = (first..=last)
            .filter_map(|height| self.headers.ancestor(self.tip, height))
            .map(|at| self.stored(at))
            .collect();
        let stored = stored?;
        let deltas: Vec<(BlockRef, Result<CoinStatsDelta>)> = self
            .pool
            .install(|| stored.into_par_iter().map(|stored| (stored.at, stored.delta())).collect());
        for (block, delta) in deltas {
            if let Some(stats) = &mut self.stats {
                stats.connect(block, &delta?)?;
            }
        }
        Ok(())
    }

    /// Takes the block `at` off, which is not on the connected chain.
    fn lower_stats(&mut self, at: HeaderRef) -> Result<()> {
        let delta = self.stored(at)?.delta()?;
        self.disconnect_stats(at, &delta)
    }

    /// Takes the block `at` off the statistics, which end in it.
    pub(super) fn disconnect_stats(&mut self, at: HeaderRef, delta: &CoinStatsDelta) -> Result<()> {
        let parent = self.headers.entry(at).parent;
        let parent = parent.ok_or_else(|| corrupt("the genesis block cannot be disconnected"))?;
        let parent = self.headers.entry(parent).hash;
        self.stats.as_mut().map_or(Ok(()), |stats| stats.disconnect(parent, delta))
    }

    /// Sums the tip up to be taken off, if the statistics have reached it.
    pub(super) fn tip_delta(
        &self,
        block: &CheckedBlock,
        undo: Vec<u8>,
    ) -> Result<Option<CoinStatsDelta>> {
        if !self.has_coin_stats() {
            return Ok(None);
        }
        let spent = SpentCoins::from_undo(undo)?;
        let height = self.headers.entry(self.tip).height;
        CoinStatsDelta::new(&self.params, block, height, &spent).map(Some)
    }

    fn stored(&self, at: HeaderRef) -> Result<Stored<'_>> {
        let entry = self.headers.entry(at);
        let extents = entry.block.zip(entry.undo);
        let (block, undo) = extents.ok_or_else(|| {
            corrupt(format!("block {} or its undo data are not stored", entry.hash))
        })?;
        let at = self.block_ref(at);
        Ok(Stored { files: &self.files, params: &self.params, at, block, undo })
    }
}
