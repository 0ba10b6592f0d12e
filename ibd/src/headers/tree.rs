//! `HeaderTree`: every header that passed its checks, linked to its parent.
//!
//! Invariants:
//! - an entry's parent has a smaller index, its height is the parent's plus one, its chain work the
//!   parent's plus its own;
//! - entry 0 is the network's genesis block, and no other entry has no parent;
//! - a descendant of a failed entry is failed;
//! - `best` has the most work of all entries that are not failed; of equals the first seen.
//!
//! Size: some 250 bytes a header with its map slot, 230 MB for 900,000 headers.

use std::collections::HashMap;

use bitcoin::block::Header;
use bitcoin::{BlockHash, Work};

use super::row::{Extent, HeaderRow, HeaderStatus};
use crate::error::{Error, Result};
use crate::pow::{HeaderChain, block_work, median_time_past};

/// Most hashes of a locator (Bitcoin Core's `MAX_LOCATOR_SZ`).
const LOCATOR_MAX: usize = 101;

/// Index of an entry of a [`HeaderTree`]; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HeaderRef(u32);

/// One header and what is known of its block.
#[derive(Clone, Debug)]
pub struct HeaderEntry {
    /// The header.
    pub header: Header,
    /// Its hash.
    pub hash: BlockHash,
    /// Number of ancestors.
    pub height: u32,
    /// The parent; `None` for the genesis block.
    pub parent: Option<HeaderRef>,
    /// An ancestor further back, so that looking up an ancestor takes O(log n) steps.
    skip: Option<HeaderRef>,
    /// Work of this header and all its ancestors.
    pub chain_work: Work,
    /// What is known of the block.
    pub status: HeaderStatus,
    /// Number of transactions; 0 while the block is not stored.
    pub tx_count: u32,
    /// Number of transactions of this block and all its ancestors; 0 while one is not stored.
    pub chain_tx_count: u64,
    /// Place among candidates of equal work: the smallest goes first (Bitcoin Core's
    /// `nSequenceId`). Means nothing while `chain_tx_count` is 0.
    pub(crate) sequence: i32,
    /// The block's bytes.
    pub block: Option<Extent>,
    /// The block's undo bytes.
    pub undo: Option<Extent>,
}

impl HeaderEntry {
    /// Returns the row of the `headers` table.
    #[must_use]
    pub fn row(&self) -> HeaderRow {
        HeaderRow {
            height: self.height,
            header: self.header,
            status: self.status,
            tx_count: self.tx_count,
            block: self.block,
            undo: self.undo,
        }
    }
}

/// All headers that passed their checks.
#[derive(Debug)]
pub struct HeaderTree {
    entries: Vec<HeaderEntry>,
    by_hash: HashMap<BlockHash, HeaderRef>,
    best: HeaderRef,
}

impl HeaderTree {
    /// Creates a tree of the genesis block alone.
    #[must_use]
    pub fn new(genesis: Header) -> Self {
        let hash = genesis.block_hash();
        let entry = HeaderEntry {
            header: genesis,
            hash,
            height: 0,
            parent: None,
            skip: None,
            chain_work: block_work(genesis.bits),
            status: HeaderStatus::NONE,
            tx_count: 0,
            chain_tx_count: 0,
            sequence: 0,
            block: None,
            undo: None,
        };
        Self {
            entries: vec![entry],
            by_hash: HashMap::from([(hash, HeaderRef(0))]),
            best: HeaderRef(0),
        }
    }

    /// Returns the genesis block's entry.
    #[must_use]
    pub const fn genesis(&self) -> HeaderRef {
        HeaderRef(0)
    }

    /// Returns the number of headers, genesis included.
    #[expect(clippy::len_without_is_empty, reason = "never empty: it has the genesis block")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the header with the most work.
    #[must_use]
    pub const fn best(&self) -> HeaderRef {
        self.best
    }

    /// Looks a header up by its hash.
    #[must_use]
    pub fn get(&self, hash: &BlockHash) -> Option<HeaderRef> {
        self.by_hash.get(hash).copied()
    }

    /// Returns the entry of `at`.
    ///
    /// # Panics
    ///
    /// Panics if `at` is of a larger tree.
    #[must_use]
    pub fn entry(&self, at: HeaderRef) -> &HeaderEntry {
        self.entries
            .get(at.0 as usize)
            .expect("a HeaderRef is only made for an entry, and none is removed")
    }

    pub(crate) fn entry_mut(&mut self, at: HeaderRef) -> &mut HeaderEntry {
        self.entries
            .get_mut(at.0 as usize)
            .expect("a HeaderRef is only made for an entry, and none is removed")
    }

    /// Iterates over all headers, parents first.
    pub fn iter(&self) -> impl Iterator<Item = HeaderRef> + use<> {
        // insert() refuses more than 2^32.
        (0..=u32::MAX).take(self.entries.len()).map(HeaderRef)
    }

    /// Inserts a header below its parent; the caller has checked its rules.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Corrupt`] if the tree has 2^32 entries.
    pub(crate) fn insert(&mut self, header: Header, parent: HeaderRef) -> Result<HeaderRef> {
        let at = u32::try_from(self.entries.len())
            .map(HeaderRef)
            .map_err(|_| Error::Corrupt { what: "2^32 headers in the block index".into() })?;
        let hash = header.block_hash();
        let above = self.entry(parent);
        let height = above.height + 1;
        let mut status = HeaderStatus::NONE;
        if above.status.has(HeaderStatus::FAILED) {
            status.set(HeaderStatus::FAILED);
        }
        let chain_work = above.chain_work + block_work(header.bits);
        let skip = self.ancestor(parent, skip_height(height));
        self.entries.push(HeaderEntry {
            header,
            hash,
            height,
            parent: Some(parent),
            skip,
            chain_work,
            status,
            tx_count: 0,
            chain_tx_count: 0,
            sequence: 0,
            block: None,
            undo: None,
        });
        self.by_hash.insert(hash, at);
        let better = chain_work > self.entry(self.best).chain_work;
        if better && !status.has(HeaderStatus::FAILED) {
            self.best = at;
        }
        Ok(at)
    }

    /// Marks `at` and all its descendants as failed; returns the newly failed entries.
    pub(crate) fn mark_failed(&mut self, at: HeaderRef) -> Vec<HeaderRef> {
        let mut failed = self.descendants(at);
        failed.retain(|&entry| !self.entry(entry).status.has(HeaderStatus::FAILED));
        for &entry in &failed {
            self.entry_mut(entry).status.set(HeaderStatus::FAILED);
        }
        if self.entry(self.best).status.has(HeaderStatus::FAILED) {
            self.refresh_best(self.genesis());
        }
        failed
    }

    /// Returns `at` and all its descendants, parents first.
    pub(crate) fn descendants(&self, at: HeaderRef) -> Vec<HeaderRef> {
        // Whether each entry from `at` on is one of them; a parent comes before its children.
        let mut is_one: Vec<bool> = Vec::with_capacity(self.len() - at.0 as usize);
        let mut found = Vec::new();
        for entry in self.iter().skip(at.0 as usize) {
            let index = self.entry(entry).parent.and_then(|parent| parent.0.checked_sub(at.0));
            let of_parent = index.and_then(|index| is_one.get(index as usize)) == Some(&true);
            is_one.push(entry == at || of_parent);
            if entry == at || of_parent {
                found.push(entry);
            }
        }
        found
    }

    /// Finds the best header anew, after statuses were set from outside; `preferred`, which is not
    /// failed, wins over equals.
    pub(crate) fn refresh_best(&mut self, preferred: HeaderRef) {
        let mut best = preferred;
        for at in self.iter() {
            let entry = self.entry(at);
            let sound = !entry.status.has(HeaderStatus::FAILED);
            if sound && entry.chain_work > self.entry(best).chain_work {
                best = at;
            }
        }
        self.best = best;
    }

    /// Returns the ancestor of `at` (or `at` itself) at `height`; `None` if `height` is above it.
    #[must_use]
    pub fn ancestor(&self, at: HeaderRef, height: u32) -> Option<HeaderRef> {
        let mut walk = at;
        let mut entry = self.entry(walk);
        if height > entry.height {
            return None;
        }
        // As CBlockIndex::GetAncestor: take the skip link unless the parent's reaches closer.
        while entry.height > height {
            let skip = skip_height(entry.height);
            let skip_of_parent = skip_height(entry.height - 1);
            let parent_is_better = skip_of_parent + 2 < skip && skip_of_parent >= height;
            let follow = skip == height || (skip > height && !parent_is_better);
            walk = match entry.skip {
                Some(target) if follow => target,
                _ => entry.parent?,
            };
            entry = self.entry(walk);
        }
        Some(walk)
    }

    /// Returns the last common ancestor.
    #[must_use]
    pub fn fork_point(&self, a: HeaderRef, b: HeaderRef) -> HeaderRef {
        let height = self.entry(a).height.min(self.entry(b).height);
        let level = |at| self.ancestor(at, height).unwrap_or(at);
        let (mut a, mut b) = (level(a), level(b));
        while a != b {
            match (self.entry(a).parent, self.entry(b).parent) {
                (Some(x), Some(y)) => (a, b) = (x, y),
                _ => return self.genesis(),
            }
        }
        a
    }

    /// Returns whether `ancestor` is `at` or an ancestor of it.
    #[must_use]
    pub fn is_ancestor(&self, ancestor: HeaderRef, at: HeaderRef) -> bool {
        self.ancestor(at, self.entry(ancestor).height) == Some(ancestor)
    }

    /// Returns the locator of `at`: its last ten ancestors, then at doubling distances down to the
    /// genesis block (`LocatorEntries` in Bitcoin Core's `chain.cpp`).
    #[must_use]
    pub fn locator(&self, at: HeaderRef) -> Vec<BlockHash> {
        let mut hashes = Vec::new();
        let mut step = 1_u32;
        let mut height = self.entry(at).height;
        while hashes.len() < LOCATOR_MAX {
            if let Some(found) = self.ancestor(at, height) {
                hashes.push(self.entry(found).hash);
            }
            if height == 0 {
                break;
            }
            height = height.saturating_sub(step);
            if hashes.len() > 10 {
                step = step.saturating_mul(2);
            }
        }
        hashes
    }

    /// Returns the median time of `at` and its ten ancestors (BIP-0113).
    #[must_use]
    pub fn median_time_past(&self, at: HeaderRef) -> u32 {
        median_time_past(&self.chain(at))
    }

    /// Returns the chain that ends in `at`, for rules that look at ancestors.
    #[must_use]
    pub const fn chain(&self, at: HeaderRef) -> ChainView<'_> {
        ChainView { tree: self, last: at }
    }
}

/// The chain that ends in one header of a [`HeaderTree`].
#[derive(Clone, Copy, Debug)]
pub struct ChainView<'a> {
    tree: &'a HeaderTree,
    last: HeaderRef,
}

impl HeaderChain for ChainView<'_> {
    fn height(&self) -> u32 {
        self.tree.entry(self.last).height
    }

    fn header(&self, height: u32) -> Header {
        let at = self.tree.ancestor(self.last, height);
        self.tree.entry(at.expect("callers ask for heights up to height()")).header
    }
}

/// Height of the skip link of an entry (`GetSkipHeight` in Bitcoin Core's `chain.cpp`).
const fn skip_height(height: u32) -> u32 {
    const fn without_lowest_one(n: u32) -> u32 {
        n & n.wrapping_sub(1)
    }
    match height {
        0 | 1 => 0,
        odd if odd & 1 == 1 => without_lowest_one(without_lowest_one(odd - 1)) + 1,
        even => without_lowest_one(even),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::{ChainParams, Network};

    fn tree() -> HeaderTree {
        HeaderTree::new(ChainParams::new(Network::Regtest).genesis.header)
    }

    fn extend(
        tree: &mut HeaderTree,
        mut parent: HeaderRef,
        count: u32,
        salt: u32,
    ) -> Vec<HeaderRef> {
        let mut added = Vec::new();
        for i in 0..count {
            let mut header = tree.entry(parent).header;
            header.prev_blockhash = tree.entry(parent).hash;
            header.nonce = i;
            header.time = salt;
            parent = tree.insert(header, parent).expect("room");
            added.push(parent);
        }
        added
    }

    #[test]
    fn ancestor_equals_walking_the_parents() {
        let mut tree = tree();
        let genesis = tree.genesis();
        let main = extend(&mut tree, genesis, 600, 1);
        let side = extend(&mut tree, main[299], 120, 2);
        for tip in [main[599], side[119]] {
            let mut walk = Some(tip);
            while let Some(at) = walk {
                assert_eq!(tree.ancestor(tip, tree.entry(at).height), Some(at));
                walk = tree.entry(at).parent;
            }
        }
        assert_eq!(tree.ancestor(side[0], 302), None);
        assert_eq!(tree.fork_point(main[599], side[119]), main[299]);
        assert_eq!(tree.fork_point(main[10], main[5]), main[5]);
    }

    #[test]
    fn best_is_most_work_and_first_seen() {
        let mut tree = tree();
        let genesis = tree.genesis();
        let first = extend(&mut tree, genesis, 5, 1);
        let second = extend(&mut tree, genesis, 5, 2);
        assert_eq!(tree.best(), first[4]);
        let longer = extend(&mut tree, second[4], 1, 3);
        assert_eq!(tree.best(), longer[0]);
        let failed = tree.mark_failed(second[2]);
        assert_eq!(failed, [second[2], second[3], second[4], longer[0]]);
        assert_eq!(tree.best(), first[4]);
    }

    #[test]
    fn locator_is_dense_then_doubling_then_genesis() {
        let mut tree = tree();
        let genesis = tree.genesis();
        let main = extend(&mut tree, genesis, 1000, 1);
        let heights: Vec<u32> = tree
            .locator(main[999])
            .iter()
            .map(|hash| tree.entry(tree.get(hash).expect("known")).height)
            .collect();
        assert_eq!(
            heights,
            [
                1000, 999, 998, 997, 996, 995, 994, 993, 992, 991, 990, 989, 987, 983, 975, 959,
                927, 863, 735, 479, 0
            ]
        );
    }
}
