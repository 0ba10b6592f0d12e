//! Pruning: block and undo files that nobody needs any more are removed, whole pairs at a time
//! (`PruneOneBlockFile` and `UnlinkPrunedFiles` in Bitcoin Core's `node/blockstorage.cpp`). Which
//! ones, the caller decides.
//!
//! Invariant: a file goes only after the rows without it are in the database itself. The log still
//! has records that name it, but none of them is ever replayed; and a crash before the removal
//! leaves a file that no row names, never a row without its file.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::BlockHash;

use super::Chainstate;
use crate::error::Result;
use crate::headers::{HeaderRef, HeaderStatus};

/// What one pair of block and undo files has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockFileUsage {
    /// The number in their names.
    pub number: u32,
    /// Bytes of both.
    pub bytes: u64,
    /// The least height of a block in it.
    pub first_height: u32,
    /// The greatest height of a block in it, of whatever branch.
    pub last_height: u32,
}

impl Chainstate {
    /// Returns the files that have blocks, in the order of their numbers, but for the last one,
    /// which is written to.
    ///
    /// # Errors
    ///
    /// Returns [`crate::Error`] if the system refuses to tell a size.
    pub fn finished_block_files(&self) -> Result<Vec<BlockFileUsage>> {
        let last = self.files.last_file();
        let mut heights: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
        for at in self.headers.iter() {
            let entry = self.headers.entry(at);
            if let Some(file) = entry.block.map(|at| at.position.file).filter(|&file| file < last) {
                let range = heights.entry(file).or_insert((entry.height, entry.height));
                *range = (range.0.min(entry.height), range.1.max(entry.height));
            }
        }
        let usage = |(number, (first_height, last_height))| {
            let bytes = self.files.bytes(number)?;
            Ok(BlockFileUsage { number, bytes, first_height, last_height })
        };
        heights.into_iter().map(usage).collect()
    }

    /// Returns the number of the file that the next block goes to, or the one after it.
    #[must_use]
    pub fn last_block_file(&self) -> u32 {
        self.files.last_file()
    }

    /// Returns how many bytes all block and undo files have.
    ///
    /// # Errors
    ///
    /// Returns [`crate::Error`] if the system refuses.
    pub fn block_file_bytes(&self) -> Result<u64> {
        self.files.numbers()?.into_iter().map(|number| self.files.bytes(number)).sum()
    }

    /// Forgets the blocks in these files, durably, and then removes the files. Writes back what is
    /// buffered.
    ///
    /// # Errors
    ///
    /// Returns [`crate::Error`] if the machine failed; a file that is left over goes at the next
    /// [`Chainstate::remove_unnamed_files`].
    pub fn prune_files(&mut self, numbers: &BTreeSet<u32>) -> Result<()> {
        let last = self.files.last_file();
        let is_pruned = |number: &u32| *number < last && numbers.contains(number);
        for at in self.headers.iter() {
            let entry = self.headers.entry(at);
            if !entry.block.is_some_and(|at| is_pruned(&at.position.file)) {
                continue;
            }
            let height = entry.height;
            let state = self.headers.entry_mut(at);
            (state.block, state.undo) = (None, None);
            state.status.clear(HeaderStatus::DATA);
            state.status.clear(HeaderStatus::UNDO);
            self.recent.take(height, at);
            self.dirty.insert(at);
            self.has_pruned = true;
            self.write_index_if_large()?;
        }
        self.write_index()?;
        self.store.checkpoint()?;
        for number in numbers.iter().filter(|number| is_pruned(number)) {
            self.files.remove(*number)?;
            tracing::info!("Prune: UnlinkPrunedFiles deleted blk/rev ({number:05})");
        }
        Ok(())
    }

    /// Removes files that no row names, if a block was ever pruned: a crash left them.
    ///
    /// # Errors
    ///
    /// Returns [`crate::Error`] if the system refuses.
    pub fn remove_unnamed_files(&mut self) -> Result<()> {
        if !self.has_pruned {
            return Ok(());
        }
        let last = self.files.last_file();
        let mut unnamed: BTreeSet<u32> = self.files.numbers()?.into_iter().collect();
        unnamed.retain(|number| *number < last);
        for at in self.headers.iter() {
            let entry = self.headers.entry(at);
            for extent in [entry.block, entry.undo].into_iter().flatten() {
                unnamed.remove(&extent.position.file);
            }
        }
        if unnamed.is_empty() {
            return Ok(());
        }
        // What the log is replayed from must not name them either.
        self.prune_files(&unnamed)
    }

    /// Returns whether a block was ever pruned here.
    #[must_use]
    pub const fn has_pruned(&self) -> bool {
        self.has_pruned
    }

    /// Returns whether the block was here and was pruned.
    #[must_use]
    pub fn is_pruned(&self, hash: &BlockHash) -> bool {
        let entry = self.headers.get(hash).map(|at| self.headers.entry(at));
        entry.is_some_and(|entry| entry.block.is_none() && entry.tx_count > 0)
    }

    /// Returns the height of the last block of the connected chain that was pruned, or whose undo
    /// data were (`GetPruneHeight` in Bitcoin Core's `rpc/blockchain.cpp`).
    #[must_use]
    pub fn prune_height(&self) -> Option<u32> {
        if !self.has_pruned {
            return None;
        }
        let mut walk = Some(self.tip);
        while let Some(at) = walk {
            let entry = self.headers.entry(at);
            // The genesis block has no undo data.
            if entry.height == 0 {
                return None;
            }
            if entry.block.is_none() || entry.undo.is_none() {
                return Some(entry.height);
            }
            walk = entry.parent;
        }
        None
    }

    /// Returns the block the chain should end in: the best candidate with no pruned block between
    /// it and the connected chain (`FindMostWorkChain` in Bitcoin Core's `validation.cpp`).
    pub(super) fn best_stored(&mut self) -> Option<HeaderRef> {
        loop {
            let best = self.candidates.best()?;
            if !self.has_pruned {
                return Some(best);
            }
            let (mut path, mut missing) = (Vec::new(), 0);
            let mut walk = Some(best);
            while let Some(at) = walk.filter(|&at| !self.is_connected(at)) {
                let entry = self.headers.entry(at);
                path.push(at);
                if entry.block.is_none() {
                    missing = path.len();
                }
                walk = entry.parent;
            }
            if missing == 0 {
                return Some(best);
            }
            path.truncate(missing);
            path.reverse();
            self.candidates.wait_for_pruned(&mut self.headers, &path);
        }
    }
}

#[cfg(test)]
#[cfg(feature = "kernel")]
mod tests {
    use bitcoin::Block;
    use bitcoin::consensus::serialize;

    use super::*;
    use crate::chainstate::BlockAccepted;
    use crate::chainstate::tests::{advance, open_with_files};
    use crate::params::{ChainParams, Network};
    use crate::sync::missing_blocks;
    use crate::testing::ModelChain;

    const NOW: u32 = 1_767_225_600;

    fn all_but_last(chain: &Chainstate) -> BTreeSet<u32> {
        let files = chain.finished_block_files().expect("readable");
        files.iter().map(|file| file.number).collect()
    }

    /// A branch of four blocks that is connected, and one of three that is not, and what would make
    /// it the longer one; each block has a file of its own.
    struct Branches {
        _dir: tempfile::TempDir,
        chain: Chainstate,
        other: Vec<Block>,
        more: Vec<Block>,
    }

    fn branches() -> Branches {
        let dir = tempfile::tempdir().expect("temporary");
        let params = ChainParams::new(Network::Regtest);
        let mut chain = open_with_files(params, dir.path(), crate::FileSize::Bytes(300));
        let (model, base) = ModelChain::funded(6);
        let mut random = cofferdam_storage::testing::Random::new(9);
        let mut grow = |from: &ModelChain, len: usize| {
            let mut model = from.clone();
            let blocks = (0..len).map(|_| {
                let block = model.random_block(&mut random, 2);
                model.connect(&block);
                block
            });
            let blocks: Vec<Block> = blocks.collect();
            (blocks, model)
        };
        let (main, _) = grow(&model, 4);
        let (other, end) = grow(&model, 3);
        let (more, _) = grow(&end, 3);
        give(&mut chain, &base);
        give(&mut chain, &other);
        assert_eq!(give(&mut chain, &main), 4, "the longer branch");
        Branches { _dir: dir, chain, other, more }
    }

    /// Returns how many blocks were connected then.
    fn give(chain: &mut Chainstate, blocks: &[Block]) -> u32 {
        for block in blocks {
            let accepted = chain.accept_block(serialize(block), NOW).expect("works");
            assert!(!matches!(accepted, BlockAccepted::Rejected(_)), "{accepted:?}");
        }
        advance(chain).connected
    }

    #[test]
    fn what_disconnects_pruned_blocks_waits() {
        let Branches { _dir, mut chain, more, .. } = branches();
        let tip = chain.tip();
        let files = all_but_last(&chain);
        chain.prune_files(&files).expect("works");
        assert!(chain.is_pruned(&tip.hash) || chain.has_block(&tip.hash));
        assert_eq!(chain.prune_height(), Some(tip.height - 1), "each block has a file of its own");
        assert_eq!(
            chain.read_block(&chain.block_at(1).expect("there").hash).expect("no failure"),
            None
        );
        // More work than the tip, and the blocks below are gone.
        assert_eq!(give(&mut chain, &more), 0);
        assert_eq!(chain.tip(), tip);
        // The blocks of the connected branch are needed to disconnect them: only the last is there.
        assert_eq!(advance(&mut chain).disconnected, 0);
    }

    #[test]
    fn a_fork_with_pruned_blocks_wins_when_they_are_asked_for_and_stored_again() {
        let Branches { _dir, mut chain, other, more } = branches();
        let refs = |blocks: &[Block], chain: &Chainstate| -> Vec<_> {
            let find = |block: &Block| chain.headers().get(&block.block_hash()).expect("known");
            blocks.iter().map(find).collect()
        };
        let file = |&at: &HeaderRef| chain.headers().entry(at).block.expect("stored").position.file;
        let files = refs(&other, &chain).iter().map(file).collect();
        chain.prune_files(&files).expect("works");
        assert!(other.iter().all(|block| chain.is_pruned(&block.block_hash())));
        assert_eq!(give(&mut chain, &more), 0);
        let best = refs(&more, &chain)[2];
        let missing = missing_blocks(chain.headers(), chain.tip_ref(), best, false).blocks;
        let missing: Vec<BlockHash> = missing.iter().map(|block| block.hash).collect();
        assert_eq!(missing, other.iter().map(Block::block_hash).collect::<Vec<_>>());
        assert_eq!(give(&mut chain, &other), 6);
        assert_eq!(chain.tip().hash, more[2].block_hash());
    }
}
