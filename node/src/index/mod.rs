//! Indexes beside the chain state: of transactions (`-txindex`) and of block filters
//! (`-blockfilterindex`, BIP-0157 and BIP-0158), each in a database of its own below `indexes/`.
//!
//! An index follows the connected chain on its own thread, reads blocks from their files, and writes
//! what it has made of a block and how far it is as one batch. After a crash it is behind by some blocks,
//! or ahead of a chain that lost its last ones: it goes back to where they part and on from there.

mod filter;
mod follower;
mod tx;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use cofferdam_ibd::{BlockRef, Chainstate};
use cofferdam_storage::{BackendKind, BackendOptions, Database};

pub(crate) use self::filter::BlockFilters;
use self::follower::{BlockIndex as _, Follower, TREES, beyond_pruned, misses_blocks};
pub(crate) use self::tx::TxIndex;
use crate::chain::{ChainHandle, describe};
use crate::config::IndexConfig;
use crate::data_dir::make_dir;
use crate::shutdown::Shutdown;
use crate::waits::Reserve;

/// Memory for the cache of an index's database.
const CACHE_BYTES: usize = 16 << 20;

/// How long a call waits for an index to reach the tip that it finds.
const CATCH_UP_WAIT: Duration = Duration::from_secs(60);

/// How far an index is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IndexSummary {
    /// Its name.
    pub(crate) name: &'static str,
    /// Whether it was at the tip once since the start.
    pub(crate) synced: bool,
    /// The last block in it.
    pub(crate) best: BlockRef,
}

/// Where indexes are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IndexPlace<'a> {
    /// The engine of their databases.
    pub(crate) kind: BackendKind,
    /// The directory above these.
    pub(crate) dir: &'a Path,
    /// What is kept free on its disk; 0: nothing.
    pub(crate) reserve_bytes: u64,
}

/// The indexes that are kept.
#[derive(Default)]
pub(crate) struct Indexes {
    transactions: Option<(Arc<TxIndex>, Follower)>,
    filters: Option<(Arc<BlockFilters>, Follower)>,
}

impl fmt::Debug for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.summaries()).finish()
    }
}

impl Indexes {
    /// Opens the indexes and lets them follow the chain.
    ///
    /// # Errors
    ///
    /// Returns the text for the user if one cannot be opened, or blocks that it needs are gone.
    pub(crate) fn start(
        options: IndexConfig,
        place: IndexPlace<'_>,
        chain: &ChainHandle,
        shutdown: &Shutdown,
    ) -> Result<Self> {
        let IndexPlace { kind, dir, reserve_bytes } = place;
        // Each has its own: it says so when it pauses.
        let reserve = || Reserve::new(dir, reserve_bytes, shutdown);
        let mut indexes = Self::default();
        if options.transactions {
            let database = open(kind, &dir.join("txindex").join("db"))?;
            let index = Arc::new(TxIndex::new(Arc::clone(&database), chain.clone()));
            let follower = Follower::start(Arc::clone(&index), database, chain, reserve())?;
            indexes.transactions = Some((index, follower));
        }
        if options.filters {
            let database = open(kind, &dir.join("blockfilter").join("basic").join("db"))?;
            let index = Arc::new(BlockFilters::new(Arc::clone(&database)));
            let follower = Follower::start(Arc::clone(&index), database, chain, reserve())?;
            indexes.filters = Some((index, follower));
        }
        Ok(indexes)
    }

    /// Returns the index of transactions and whether it is at the tip, after waiting for that if it
    /// ever was; `None` if it is not kept.
    pub(crate) fn transactions(&self) -> Option<(&Arc<TxIndex>, bool)> {
        let (index, follower) = self.transactions.as_ref()?;
        let synced = follower.wait_for_tip(CATCH_UP_WAIT);
        Some((index, synced))
    }

    /// Returns the filters and whether they are at the tip, after waiting for that if they ever
    /// were; `None` if they are not kept.
    pub(crate) fn filters(&self) -> Option<(&Arc<BlockFilters>, bool)> {
        let (index, follower) = self.filters.as_ref()?;
        let synced = follower.wait_for_tip(CATCH_UP_WAIT);
        Some((index, synced))
    }

    /// Returns the filters as they are, for a caller that must not wait.
    pub(crate) fn filters_now(&self) -> Option<Arc<BlockFilters>> {
        self.filters.as_ref().map(|(index, _)| Arc::clone(index))
    }

    /// Returns how far each index is.
    pub(crate) fn summaries(&self) -> Vec<IndexSummary> {
        let transactions = self.transactions.as_ref().map(|(_, follower)| follower.summary());
        let filters = self.filters.as_ref().map(|(_, follower)| follower.summary());
        transactions.into_iter().chain(filters).collect()
    }

    /// Waits until what the indexes have read is durable: a block file goes only then.
    pub(crate) fn wait_for_flush(&self) {
        let transactions = self.transactions.as_ref().map(|(_, follower)| follower);
        let filters = self.filters.as_ref().map(|(_, follower)| follower);
        for follower in transactions.into_iter().chain(filters) {
            if follower.wait_for_tip(CATCH_UP_WAIT) {
                follower.wait_for_flush(CATCH_UP_WAIT);
            }
        }
    }

    /// Ends the threads; what was written is durable afterwards.
    pub(crate) fn stop(&self) {
        if let Some((_, follower)) = &self.transactions {
            follower.stop();
        }
        if let Some((_, follower)) = &self.filters {
            follower.stop();
        }
    }
}

/// Returns the names of the indexes that the options ask for.
pub(crate) fn names(options: IndexConfig) -> impl Iterator<Item = &'static str> {
    let transactions = options.transactions.then_some(TxIndex::NAME);
    transactions.into_iter().chain(options.filters.then_some(BlockFilters::NAME))
}

/// Refuses a chain whose coin statistics have to read blocks that are gone.
///
/// # Errors
///
/// Returns the text for the user.
pub(crate) fn check_statistics(chain: &Chainstate) -> Result<()> {
    let reached = chain.coin_stats_reached();
    if reached.is_some() {
        // The line that drivers of `bitcoind` wait for; here the chain's own thread keeps them.
        tracing::info!("coinstatsindex thread start");
    }
    if reached.is_some() && misses_blocks(chain, reached, true) {
        return Err(beyond_pruned("coinstatsindex"));
    }
    Ok(())
}

fn open(kind: BackendKind, path: &Path) -> Result<Arc<dyn Database>> {
    // The line that drivers of `bitcoind` look for; the engine here is another.
    tracing::info!("Opening LevelDB in {} (in fact {kind})", path.display());
    let failed =
        |what: &dyn fmt::Display| anyhow!("Error opening the index in {}: {what}", path.display());
    make_dir(path).map_err(|error| failed(&format_args!("{error:#}")))?;
    let database = kind.open(path, TREES, &BackendOptions { cache_bytes: CACHE_BYTES });
    Ok(Arc::from(database.map_err(|error| failed(&describe(&error)))?))
}
