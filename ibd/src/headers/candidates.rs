//! Which block the chain should end in: the set of possible tips, kept as blocks arrive.
//!
//! A block is a candidate when its bytes and those of all its ancestors are stored, it is not
//! failed, and it has at least the work of the tip (Bitcoin Core's `setBlockIndexCandidates`). Of
//! equal work the block whose data were complete first wins, so that two nodes that saw the same
//! order agree, and a tip never gives way to an equal.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use bitcoin::Work;

use super::row::HeaderStatus;
use super::tree::{HeaderRef, HeaderTree};

#[derive(Debug, Default)]
pub(crate) struct Candidates {
    order: BTreeSet<(Work, Reverse<u64>, HeaderRef)>,
    /// When the entry's data and those of all ancestors were complete.
    sequence: HashMap<HeaderRef, u64>,
    /// Stored blocks whose parent is not complete yet, by parent.
    waiting: HashMap<HeaderRef, Vec<HeaderRef>>,
    next_sequence: u64,
}

impl Candidates {
    /// Tells that the block of `at` is stored; it and whatever waited for it become complete.
    pub(crate) fn block_stored(&mut self, tree: &mut HeaderTree, at: HeaderRef) {
        let parent = tree.entry(at).parent;
        if let Some(parent) = parent.filter(|parent| !self.sequence.contains_key(parent)) {
            self.waiting.entry(parent).or_default().push(at);
            return;
        }
        let mut ready = vec![at];
        while let Some(at) = ready.pop() {
            let before =
                tree.entry(at).parent.map_or(0, |parent| tree.entry(parent).chain_tx_count);
            let entry = tree.entry_mut(at);
            entry.chain_tx_count = before + u64::from(entry.tx_count);
            let (work, failed) = (entry.chain_work, entry.status.has(HeaderStatus::FAILED));
            // From 1 on: 0 is the preferred tip's.
            self.next_sequence += 1;
            self.sequence.insert(at, self.next_sequence);
            if !failed {
                self.order.insert((work, Reverse(self.next_sequence), at));
            }
            ready.extend(self.waiting.remove(&at).unwrap_or_default());
        }
    }

    /// Returns whether the bytes of `at` and of all its ancestors are stored.
    pub(crate) fn is_complete(&self, at: HeaderRef) -> bool {
        self.sequence.contains_key(&at)
    }

    /// Returns the block the chain should end in.
    pub(crate) fn best(&self) -> Option<HeaderRef> {
        self.order.last().map(|&(_, _, at)| at)
    }

    /// Removes entries that turned out to be failed.
    pub(crate) fn remove(&mut self, tree: &HeaderTree, failed: &[HeaderRef]) {
        for at in failed {
            if let Some(&sequence) = self.sequence.get(at) {
                self.order.remove(&(tree.entry(*at).chain_work, Reverse(sequence), *at));
            }
        }
    }

    /// Makes `tip` the first among its equals: after a restart the chain stays where it was.
    pub(crate) fn prefer(&mut self, tree: &HeaderTree, tip: HeaderRef) {
        self.remove(tree, &[tip]);
        self.sequence.insert(tip, 0);
        self.order.insert((tree.entry(tip).chain_work, Reverse(0), tip));
    }

    /// Forgets candidates with less work than `tip`; called when the tip is the best block.
    pub(crate) fn prune(&mut self, tree: &HeaderTree, tip: HeaderRef) {
        let work = tree.entry(tip).chain_work;
        while self.order.first().is_some_and(|&(other, _, _)| other < work) {
            self.order.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::{ChainParams, Network};

    /// A tree with branches a1-a2-a3 and b1-b2-b3 on the genesis block, which is stored.
    fn forked() -> (HeaderTree, Candidates, [HeaderRef; 6]) {
        let mut tree = HeaderTree::new(ChainParams::new(Network::Regtest).genesis.header);
        let mut candidates = Candidates::default();
        let genesis = tree.genesis();
        candidates.block_stored(&mut tree, genesis);
        let mut refs = Vec::new();
        for branch in 0..2 {
            let mut parent = genesis;
            for _ in 0..3 {
                let mut header = tree.entry(parent).header;
                header.prev_blockhash = tree.entry(parent).hash;
                header.nonce = branch;
                parent = tree.insert(header, parent).expect("room");
                refs.push(parent);
            }
        }
        (tree, candidates, refs.try_into().expect("six"))
    }

    #[test]
    fn a_gap_holds_its_descendants_back() {
        let (mut tree, mut candidates, [a1, a2, a3, ..]) = forked();
        candidates.block_stored(&mut tree, a3);
        candidates.block_stored(&mut tree, a2);
        assert_eq!(candidates.best(), Some(tree.genesis()));
        candidates.block_stored(&mut tree, a1);
        assert_eq!(candidates.best(), Some(a3));
        assert!(candidates.is_complete(a2));
    }

    #[test]
    fn equal_work_stays_with_the_first() {
        let (mut tree, mut candidates, [a1, a2, _, b1, b2, b3]) = forked();
        for at in [a1, b1, b2, a2] {
            candidates.block_stored(&mut tree, at);
        }
        assert_eq!(candidates.best(), Some(b2));
        candidates.prefer(&tree, a2);
        assert_eq!(candidates.best(), Some(a2));
        candidates.block_stored(&mut tree, b3);
        assert_eq!(candidates.best(), Some(b3));
        let failed = tree.mark_failed(b2);
        candidates.remove(&tree, &failed);
        assert_eq!(candidates.best(), Some(a2));
    }
}
