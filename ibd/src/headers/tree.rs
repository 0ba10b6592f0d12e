//! `HeaderTree`: every header that passed its checks, linked to its parent.
//!
//! Invariants:
//! - an entry's parent has a smaller index, its height is the parent's plus one, its chain work the
//!   parent's plus its own;
//! - entry 0 is the network's genesis block, and no other entry has no parent;
//! - a descendant of a failed entry is failed;
//! - `best` has the most work of all entries that are not failed; of equals the first seen.
//!
//! Size: 160 bytes a header, up to an eighth more while the tree grows, and 5 to 11 bytes of the
//! table by hash: some 160 MB for 900,000 headers.

use bitcoin::block::Header;
use bitcoin::hashes::Hash as _;
use bitcoin::{BlockHash, CompactTarget};
use hashbrown::HashTable;

use super::entry::{BlockState, HeaderEntry, HeaderRef, Place, Record, narrow};
use super::row::{HeaderRow, HeaderStatus};
use crate::error::{Error, Result};
use crate::pow::{HeaderChain, block_work, median_time_past};

/// Most hashes of a locator (Bitcoin Core's `MAX_LOCATOR_SZ`).
const LOCATOR_MAX: usize = 101;

/// Fewest records that memory is taken for at a time.
const SPARE_MIN: usize = 1024;

/// All headers that passed their checks.
#[derive(Debug)]
pub struct HeaderTree {
    records: Vec<Record>,
    by_hash: HashTable<HeaderRef>,
    best: HeaderRef,
    /// The bits of the last header inserted and their work: they rarely change.
    last_work: (CompactTarget, u128),
}

impl HeaderTree {
    /// Creates a tree of the genesis block alone.
    #[must_use]
    pub fn new(genesis: Header) -> Self {
        let mut tree = Self {
            records: Vec::new(),
            by_hash: HashTable::new(),
            best: HeaderRef(0),
            last_work: (genesis.bits, narrow(block_work(genesis.bits))),
        };
        let place = Place {
            height: 0,
            parent: HeaderRef(0),
            skip: HeaderRef(0),
            chain_work: tree.last_work.1,
            status: HeaderStatus::NONE,
        };
        tree.push(HeaderRef(0), Record::new(&genesis, genesis.block_hash(), place));
        tree
    }

    /// Makes room for as many headers more.
    pub(crate) fn reserve(&mut self, headers: usize) {
        self.records.reserve_exact(headers);
        let records = &self.records;
        self.by_hash.reserve(headers, |at| table_hash(&record(records, *at).hash));
    }

    /// Gives back what [`HeaderTree::reserve`] took in vain.
    pub(crate) fn shrink(&mut self) {
        self.records.shrink_to(self.records.len() + SPARE_MIN);
        let records = &self.records;
        self.by_hash.shrink_to(records.len(), |at| table_hash(&record(records, *at).hash));
    }

    /// How many records are added at a time: doubling would leave half of the memory unused.
    fn spare(&self) -> usize {
        self.records.len() / 8 + SPARE_MIN
    }

    fn push(&mut self, at: HeaderRef, new: Record) {
        if self.records.len() == self.records.capacity() {
            self.records.reserve_exact(self.spare());
        }
        self.records.push(new);
        let records = &self.records;
        let hash = table_hash(&new.hash);
        self.by_hash.insert_unique(hash, at, |at| table_hash(&record(records, *at).hash));
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
        self.records.len()
    }

    /// Returns the header with the most work.
    #[must_use]
    pub const fn best(&self) -> HeaderRef {
        self.best
    }

    /// Looks a header up by its hash.
    #[must_use]
    pub fn get(&self, hash: &BlockHash) -> Option<HeaderRef> {
        let is_it = |at: &HeaderRef| self.record(*at).hash == *hash;
        self.by_hash.find(table_hash(hash), is_it).copied()
    }

    /// Returns the entry of `at`.
    ///
    /// # Panics
    ///
    /// Panics if `at` is of a larger tree.
    #[inline]
    #[must_use]
    pub fn entry(&self, at: HeaderRef) -> HeaderEntry {
        let record = self.record(at);
        record.entry(self.record(record.parent))
    }

    pub(crate) fn entry_mut(&mut self, at: HeaderRef) -> &mut BlockState {
        &mut self.record_mut(at).state
    }

    /// Sets the number of transactions of the chain up to `at`, all of which is stored.
    pub(crate) fn set_chain_tx_count(&mut self, at: HeaderRef, count: u64) {
        self.record_mut(at).chain_tx_count = count;
    }

    /// Returns the work of the chain up to `at` as a number.
    pub(crate) fn work(&self, at: HeaderRef) -> u128 {
        self.record(at).chain_work
    }

    /// Returns how many bytes of memory the tree takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.records.capacity() * size_of::<Record>() + self.by_hash.allocation_size()
    }

    fn record(&self, at: HeaderRef) -> &Record {
        record(&self.records, at)
    }

    fn record_mut(&mut self, at: HeaderRef) -> &mut Record {
        self.records
            .get_mut(at.0 as usize)
            .expect("a HeaderRef is only made for an entry, and none is removed")
    }

    /// Iterates over all headers, parents first.
    pub fn iter(&self) -> impl Iterator<Item = HeaderRef> + use<> {
        // insert() refuses more than 2^32.
        (0..=u32::MAX).take(self.records.len()).map(HeaderRef)
    }

    /// Inserts a header below its parent; the caller has checked its rules, and that the tree does
    /// not have it.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Corrupt`] if the tree has 2^32 entries.
    pub(crate) fn insert(
        &mut self,
        header: &Header,
        hash: BlockHash,
        parent: HeaderRef,
    ) -> Result<HeaderRef> {
        let at = u32::try_from(self.records.len())
            .map(HeaderRef)
            .map_err(|_| Error::Corrupt { what: "2^32 headers in the block index".into() })?;
        if self.last_work.0 != header.bits {
            self.last_work = (header.bits, narrow(block_work(header.bits)));
        }
        let above = self.record(parent);
        let height = above.height + 1;
        let mut status = HeaderStatus::NONE;
        if above.state.status.has(HeaderStatus::FAILED) {
            status.set(HeaderStatus::FAILED);
        }
        let chain_work = above.chain_work.saturating_add(self.last_work.1);
        let skip = self.ancestor(parent, skip_height(height)).unwrap_or(parent);
        let place = Place { height, parent, skip, chain_work, status };
        self.push(at, Record::new(header, hash, place));
        let better = chain_work > self.record(self.best).chain_work;
        if better && !status.has(HeaderStatus::FAILED) {
            self.best = at;
        }
        Ok(at)
    }

    /// Inserts a row of the store, whose hash is `hash`; parents come first.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Corrupt`] if its parent is not there, or not one below.
    pub(crate) fn load(&mut self, row: &HeaderRow, hash: BlockHash) -> Result<HeaderRef> {
        let orphan = || Error::Corrupt { what: format!("header {hash} has no parent") };
        let at = if row.height == 0 && hash == self.record(self.genesis()).hash {
            self.genesis()
        } else {
            let prev = &row.header.prev_blockhash;
            // Most often the row before.
            let last = HeaderRef(u32::try_from(self.records.len() - 1).map_err(|_| orphan())?);
            let parent = if self.record(last).hash == *prev { Some(last) } else { self.get(prev) };
            let parent = parent.filter(|&at| self.record(at).height + 1 == row.height);
            self.insert(&row.header, hash, parent.ok_or_else(orphan)?)?
        };
        let state = self.entry_mut(at);
        state.status.set(row.status);
        state.tx_count = row.tx_count;
        state.block = row.block;
        state.undo = row.undo;
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
            let index = self.record(entry).parent.0.checked_sub(at.0);
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
            let record = self.record(at);
            let sound = !record.state.status.has(HeaderStatus::FAILED);
            if sound && record.chain_work > self.record(best).chain_work {
                best = at;
            }
        }
        self.best = best;
    }

    /// Returns the ancestor of `at` (or `at` itself) at `height`; `None` if `height` is above it.
    #[must_use]
    pub fn ancestor(&self, at: HeaderRef, height: u32) -> Option<HeaderRef> {
        let mut walk = at;
        let mut record = self.record(walk);
        if height > record.height {
            return None;
        }
        // As CBlockIndex::GetAncestor: take the skip link unless the parent's reaches closer.
        while record.height > height {
            let skip = skip_height(record.height);
            let skip_of_parent = skip_height(record.height - 1);
            let parent_is_better = skip_of_parent + 2 < skip && skip_of_parent >= height;
            let follow = skip == height || (skip > height && !parent_is_better);
            walk = if follow { record.skip } else { record.parent };
            record = self.record(walk);
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

    fn headers_down_from(&self, height: u32) -> impl Iterator<Item = Header> {
        let mut walk = self.tree.ancestor(self.last, height);
        std::iter::from_fn(move || {
            let entry = self.tree.entry(walk?);
            walk = entry.parent;
            Some(entry.header)
        })
    }
}

/// The hash for the table: block hashes are as good as random, and whoever wants one of his choosing
/// has to work for it (`BlockHasher` in Bitcoin Core). The last bytes are zeros, the first are not.
fn table_hash(hash: &BlockHash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = hash.to_byte_array();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

fn record(records: &[Record], at: HeaderRef) -> &Record {
    records.get(at.0 as usize).expect("a HeaderRef is only made for an entry, and none is removed")
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
            parent = tree.insert(&header, header.block_hash(), parent).expect("room");
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
