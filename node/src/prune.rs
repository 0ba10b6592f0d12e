//! `Pruner`: which block files go, and when (`FindFilesToPrune` in Bitcoin Core's
//! `node/blockstorage.cpp`).

use std::collections::{BTreeMap, BTreeSet};

use cofferdam_ibd::params::Network;
use cofferdam_ibd::{BlockFileUsage, Chainstate};

use crate::config::{BlocksConfig, PruneMode};

/// Blocks below the tip whose data are kept whatever else: reorganisations and peers need them
/// (`MIN_BLOCKS_TO_KEEP`).
pub(crate) const BLOCKS_KEPT: u32 = 288;
/// How many blocks more an index is given than it asks for (`PRUNE_LOCK_BUFFER`).
const LOCK_MARGIN: u32 = 10;
/// What is left free below the target, and after how many bytes of blocks it is looked at again
/// (`BLOCKFILE_CHUNK_SIZE` and `UNDOFILE_CHUNK_SIZE`).
const CHUNK_BYTES: u64 = (16 << 20) + (1 << 20);
/// The same with small files.
const SMALL_CHUNK_BYTES: u64 = 16 << 10;
/// What a block has while the chain is downloaded, roughly (`average_block_size`).
const BLOCK_BYTES: u64 = 1_000_000;

/// Decides about block files; lives on the chain's thread.
#[derive(Clone, Debug)]
pub(crate) struct Pruner {
    mode: PruneMode,
    fast: bool,
    /// The chain has to be higher than this for files to go by themselves.
    after_height: u32,
    /// Bytes of blocks connected when the files were last looked at, and the last file's number.
    looked_at: Option<(u64, u32)>,
    /// The last height that each index has read; 0 of one that has not said so yet.
    locks: BTreeMap<String, u32>,
    /// Whether every block file has been read: of others no row says yet which blocks they have
    /// (`m_blockfiles_indexed`).
    files_indexed: bool,
}

impl Pruner {
    /// The pruner that the options ask for, of a chain whose block files have all been read, or
    /// will be until [`Pruner::set_files_indexed`].
    pub(crate) fn new(blocks: &BlocksConfig, network: Network, files_indexed: bool) -> Self {
        let after_height = match network {
            Network::Mainnet => 100_000,
            Network::Regtest if blocks.fast_prune => 100,
            _ => 1000,
        };
        let (mode, fast) = (blocks.prune, blocks.fast_prune);
        let (looked_at, locks) = (None, BTreeMap::new());
        Self { mode, fast, after_height, looked_at, locks, files_indexed }
    }

    /// Keeps all blocks for each of these indexes, until it says what it has read.
    pub(crate) fn keep_for(mut self, indexes: impl Iterator<Item = &'static str>) -> Self {
        self.locks.extend(indexes.map(|name| (name.to_owned(), 0)));
        self
    }

    /// How files are pruned.
    pub(crate) const fn mode(&self) -> PruneMode {
        self.mode
    }

    /// Lets files go from now on: all of them have been read.
    pub(crate) const fn set_files_indexed(&mut self) {
        self.files_indexed = true;
        // They have not been looked at: no file has this number.
        self.looked_at = Some((0, u32::MAX));
    }

    /// The chain has to be higher than this for files to go.
    pub(crate) const fn after_height(&self) -> u32 {
        self.after_height
    }

    /// Keeps the blocks from a height on, which `who` has read last.
    pub(crate) fn lock(&mut self, who: &str, height: u32) {
        if self.mode == PruneMode::Off {
            return;
        }
        let before = self.locks.insert(who.to_owned(), height);
        if before.is_some_and(|before| before > height) {
            tracing::debug!("{who} prune lock moved back to {height}");
        }
    }

    /// Keeps what the coin statistics still have to read.
    fn lock_statistics(&mut self, chainstate: &Chainstate) {
        if let Some(at) = chainstate.coin_stats_reached() {
            self.lock("coinstatsindex", at.height);
        }
    }

    /// Removes files if there are too many bytes; called now and then. None goes while files are
    /// read: one whose blocks seem old may have new ones that nobody has come to yet.
    pub(crate) fn run(
        &mut self,
        chainstate: &mut Chainstate,
        initial_download: bool,
    ) -> cofferdam_ibd::Result<()> {
        let PruneMode::Target(target) = self.mode else {
            return Ok(());
        };
        if !self.files_indexed {
            return Ok(());
        }
        let chunk = if self.fast { SMALL_CHUNK_BYTES } else { CHUNK_BYTES };
        let now = (chainstate.progress().bytes, chainstate.last_block_file());
        let is_due =
            |(bytes, file): (u64, u32)| now.1 != file || now.0.saturating_sub(bytes) >= chunk;
        // The first time no file has been begun since.
        let is_due = is_due(*self.looked_at.get_or_insert(now));
        if !is_due || chainstate.tip().height <= self.after_height {
            return Ok(());
        }
        self.looked_at = Some(now);
        self.lock_statistics(chainstate);
        let used = chainstate.block_file_bytes()?;
        if used.saturating_add(CHUNK_BYTES) < target {
            return Ok(());
        }
        let headers = chainstate.headers();
        let best = headers.entry(headers.best()).height;
        let ahead = u64::from(best.saturating_sub(chainstate.tip().height));
        // Each time the buffer is written back: not for every file while the chain is downloaded.
        let margin = if initial_download { ahead.saturating_mul(BLOCK_BYTES) } else { 0 };
        let keep = target.saturating_sub(CHUNK_BYTES.saturating_add(margin));
        let last_height = self.last_height(chainstate.tip().height, u32::MAX);
        let files = chainstate.finished_block_files()?;
        let chosen = choose(&files, used, keep, last_height);
        tracing::debug!(
            "target={}MiB actual={}MiB max_prune_height={last_height} removed {} blk/rev pairs",
            target >> 20,
            used >> 20,
            chosen.len()
        );
        if chosen.is_empty() { Ok(()) } else { chainstate.prune_files(&chosen) }
    }

    /// Removes every file whose blocks are all at `height` or below, as far as they may go: none
    /// while files are read, as in Bitcoin Core, which does not call that an error either.
    pub(crate) fn prune_to(
        &mut self,
        chainstate: &mut Chainstate,
        height: u32,
    ) -> cofferdam_ibd::Result<()> {
        if !self.files_indexed {
            return Ok(());
        }
        self.lock_statistics(chainstate);
        let last_height = self.last_height(chainstate.tip().height, height);
        let files = chainstate.finished_block_files()?;
        let chosen = choose(&files, u64::MAX, 0, last_height);
        tracing::info!(
            "Prune (Manual): prune_height={last_height} removed {} blk/rev pairs",
            chosen.len()
        );
        if chosen.is_empty() { Ok(()) } else { chainstate.prune_files(&chosen) }
    }

    /// The last height that may go.
    fn last_height(&self, tip: u32, asked: u32) -> u32 {
        let mut last = tip;
        let mut limit = None;
        for (who, first_height) in &self.locks {
            let height = first_height.saturating_sub(LOCK_MARGIN + 1);
            if height <= last {
                last = height.max(1);
                limit = Some(who);
            }
        }
        if let Some(who) = limit {
            tracing::debug!("{who} limited pruning to height {last}");
        }
        last.min(asked).min(tip.saturating_sub(BLOCKS_KEPT))
    }
}

/// Chooses files, the first ones first, until `used` is below `keep`.
fn choose(files: &[BlockFileUsage], mut used: u64, keep: u64, last_height: u32) -> BTreeSet<u32> {
    let mut chosen = BTreeSet::new();
    for file in files {
        if used < keep {
            break;
        }
        if file.last_height <= last_height {
            chosen.insert(file.number);
            used = used.saturating_sub(file.bytes);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use bitcoin::ScriptBuf;
    use cofferdam_ibd::params::ChainParams;
    use cofferdam_ibd::{BlockAccepted, ChainstateOptions, FileSize, TREES, mining};
    use cofferdam_storage::{MemoryDatabase, StdFileSystem};

    use super::*;
    use crate::chain::ChainOptions;
    use crate::config::Config;

    fn files() -> Vec<BlockFileUsage> {
        let file = |number: u32| BlockFileUsage {
            number,
            bytes: 100,
            first_height: number * 10,
            // A late block of a branch in the third file.
            last_height: if number == 2 { 90 } else { number * 10 + 9 },
        };
        (0..6).map(file).collect()
    }

    #[test]
    fn the_oldest_files_go_until_enough_is_free() {
        assert_eq!(choose(&files(), 600, 450, 59), BTreeSet::from([0, 1]));
        assert_eq!(choose(&files(), 600, 601, 59), BTreeSet::new());
        assert_eq!(choose(&files(), 600, 0, 45), BTreeSet::from([0, 1, 3]), "2 has a late block");
    }

    #[test]
    fn an_index_and_the_last_blocks_hold_files_back() {
        let blocks = BlocksConfig { prune: PruneMode::Manual, ..BlocksConfig::default() };
        let mut pruner = Pruner::new(&blocks, Network::Regtest, true);
        assert_eq!(pruner.last_height(1000, 900), 712);
        assert_eq!(pruner.last_height(1000, 500), 500);
        assert_eq!(pruner.last_height(100, 90), 0);
        pruner.locks.insert("an index".into(), 301);
        assert_eq!(pruner.last_height(1000, 500), 290);
        pruner.locks.insert("a new index".into(), 0);
        assert_eq!(pruner.last_height(1000, 500), 1, "as Bitcoin Core");
    }

    /// A chain of some blocks more than are kept, in small files.
    fn long_chain(dir: &std::path::Path) -> Chainstate {
        const NOW: u32 = 1_767_225_600;
        let options = ChainstateOptions {
            threads: 1,
            file_size: FileSize::Bytes(3000),
            ..ChainstateOptions::new(ChainParams::new(Network::Regtest), dir)
        };
        let backend = Box::new(MemoryDatabase::new(TREES));
        let opened = Chainstate::open(options, Arc::new(StdFileSystem), backend);
        let (mut chainstate, _) = opened.unwrap();
        for _ in 0..BLOCKS_KEPT + 60 {
            let mut block = mining::assemble_block(&chainstate, &ScriptBuf::new(), NOW);
            assert!(mining::solve(&mut block, chainstate.params(), &mut 1_000_000));
            let raw = bitcoin::consensus::serialize(&block);
            let accepted = chainstate.accept_block(raw, NOW).unwrap();
            assert!(matches!(accepted, BlockAccepted::Stored(_)), "{accepted:?}");
            let advance = chainstate.advance(Instant::now()).unwrap();
            assert_eq!(advance.connected, 1);
        }
        chainstate
    }

    /// At the start of a node its index begins after the chain, and an import has none that runs.
    #[test]
    fn no_file_goes_before_an_index_has_said_what_it_has_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut chainstate = long_chain(dir.path());
        let mut config = Config::new(Network::Regtest, dir.path()).unwrap();
        config.blocks.prune = PruneMode::Target(1);
        config.blocks.fast_prune = true;
        config.indexes.filters = true;
        let mut pruner = ChainOptions::new(&config, true).pruner;
        let mut prune = |pruner: &mut Pruner| {
            let files = |chain: &Chainstate| chain.finished_block_files().unwrap().len();
            let before = files(&chainstate);
            // As if another file had been begun since.
            pruner.looked_at = Some((0, 0));
            pruner.run(&mut chainstate, false).unwrap();
            before - files(&chainstate)
        };
        assert_eq!(prune(&mut pruner), 0);
        pruner.lock("basic block filter index", LOCK_MARGIN + 30);
        assert!(prune(&mut pruner) > 0);
    }

    #[test]
    fn no_file_goes_before_all_of_them_have_been_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut chainstate = long_chain(dir.path());
        let files = |chainstate: &Chainstate| chainstate.finished_block_files().unwrap().len();
        let all = files(&chainstate);
        for mode in [PruneMode::Target(1), PruneMode::Manual] {
            let blocks = BlocksConfig { prune: mode, fast_prune: true, ..BlocksConfig::default() };
            let mut pruner = Pruner::new(&blocks, Network::Regtest, false);
            let mut prune = |pruner: &mut Pruner| {
                let before = files(&chainstate);
                // As if another file had been begun since.
                pruner.looked_at = pruner.looked_at.or(Some((0, 0)));
                pruner.run(&mut chainstate, false).unwrap();
                if mode == PruneMode::Manual {
                    pruner.prune_to(&mut chainstate, 40).unwrap();
                }
                before - files(&chainstate)
            };
            assert_eq!(prune(&mut pruner), 0);
            pruner.set_files_indexed();
            if mode != PruneMode::Manual {
                // What is left is for the other mode.
                pruner.lock("an index", LOCK_MARGIN + 20);
            }
            assert!(prune(&mut pruner) > 0);
        }
        assert!(files(&chainstate) < all);
    }
}
