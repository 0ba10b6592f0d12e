//! Which block the chain should end in: the set of possible tips, kept as blocks arrive.
//!
//! A block is a candidate when its bytes and those of all its ancestors are stored, it is not
//! failed, and it has at least the work of the tip (Bitcoin Core's `setBlockIndexCandidates`). Of
//! equal work the block with the smallest sequence number wins (`nSequenceId`): the one whose data
//! were complete first, so that two nodes that saw the same order agree and a tip never gives way
//! to an equal, unless a user called another one precious.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, VecDeque};

use super::entry::HeaderRef;
use super::row::HeaderStatus;
use super::tree::HeaderTree;

/// Sequence number of the blocks of the connected chain at a start (`SEQ_ID_BEST_CHAIN_FROM_DISK`).
const OF_LOADED_CHAIN: i32 = 0;
/// Sequence number of all others that were stored at a start (`SEQ_ID_INIT_FROM_DISK`).
const OF_LOADED: i32 = 1;

/// A candidate, ordered so that the last is the best.
type Rank = (u128, Reverse<(i32, HeaderRef)>);

#[derive(Debug)]
pub(crate) struct Candidates {
    order: BTreeSet<Rank>,
    /// Stored blocks whose parent is not complete yet, by parent.
    waiting: HashMap<HeaderRef, Vec<HeaderRef>>,
    next_sequence: i32,
    /// Sequence number of the next precious block (`nBlockReverseSequenceId`).
    next_precious: i32,
    /// The tip's work when a block was last called precious (`nLastPreciousChainwork`).
    precious_work: u128,
}

impl Default for Candidates {
    fn default() -> Self {
        Self {
            order: BTreeSet::new(),
            waiting: HashMap::new(),
            next_sequence: OF_LOADED + 1,
            next_precious: -1,
            precious_work: 0,
        }
    }
}

impl Candidates {
    /// Tells that the block of `at` was there when the chain was opened; [`Candidates::start`] ends
    /// these calls.
    pub(crate) fn block_loaded(&mut self, tree: &mut HeaderTree, at: HeaderRef) {
        for at in self.complete(tree, at) {
            tree.entry_mut(at).sequence = OF_LOADED;
        }
    }

    /// Makes the loaded blocks candidates: the chain stays where it was.
    pub(crate) fn start(&mut self, tree: &mut HeaderTree, tip: HeaderRef) {
        let mut walk = Some(tip);
        while let Some(at) = walk {
            tree.entry_mut(at).sequence = OF_LOADED_CHAIN;
            walk = tree.entry(at).parent;
        }
        self.rebuild(tree, tip);
    }

    /// Finds all candidates anew, after statuses or the tip were set from outside.
    pub(crate) fn rebuild(&mut self, tree: &HeaderTree, tip: HeaderRef) {
        let least = tree.work(tip);
        let candidates = tree.iter().filter(|&at| {
            tree.work(at) >= least
                && self.is_complete(tree, at)
                && !tree.entry(at).status.has(HeaderStatus::FAILED)
        });
        self.order = candidates.map(|at| rank(tree, at)).collect();
    }

    /// Tells that the block of `at` is stored; it and whatever waited for it become complete.
    pub(crate) fn block_stored(&mut self, tree: &mut HeaderTree, at: HeaderRef) {
        for at in self.complete(tree, at) {
            // A block that was pruned and stored again may be there.
            self.order.remove(&rank(tree, at));
            let entry = tree.entry_mut(at);
            entry.sequence = self.next_sequence;
            self.next_sequence = self.next_sequence.saturating_add(1);
            if !entry.status.has(HeaderStatus::FAILED) {
                self.order.insert(rank(tree, at));
            }
        }
    }

    /// Counts the transactions of the chain up to `at` and what waited for it, if all of it is
    /// stored; returns those blocks, parents first.
    fn complete(&mut self, tree: &mut HeaderTree, at: HeaderRef) -> Vec<HeaderRef> {
        let parent = tree.entry(at).parent;
        if let Some(parent) = parent.filter(|&parent| !self.is_complete(tree, parent)) {
            self.wait_for(parent, at);
            return Vec::new();
        }
        // First in, first out, as in Core's ReceivedBlockTransactions: of two branches of equal work
        // that waited for the same block, the one whose block came first wins.
        let (mut ready, mut complete) = (VecDeque::from([at]), Vec::new());
        while let Some(at) = ready.pop_front() {
            let before =
                tree.entry(at).parent.map_or(0, |parent| tree.entry(parent).chain_tx_count);
            let own = u64::from(tree.entry(at).tx_count);
            tree.set_chain_tx_count(at, before.saturating_add(own));
            complete.push(at);
            ready.extend(self.waiting.remove(&at).unwrap_or_default());
        }
        complete
    }

    /// Returns whether the bytes of `at` and of all its ancestors are stored
    /// (`HaveNumChainTxs`): every block has a transaction.
    #[expect(clippy::unused_self, reason = "the answer is this type's to give")]
    pub(crate) fn is_complete(&self, tree: &HeaderTree, at: HeaderRef) -> bool {
        tree.entry(at).chain_tx_count > 0
    }

    /// Returns the block the chain should end in.
    pub(crate) fn best(&self) -> Option<HeaderRef> {
        self.order.last().map(|&(_, Reverse((_, at)))| at)
    }

    /// Takes back that the blocks of `path` are complete, each the child of the one before: the
    /// first one was pruned, and the others wait for it. So all that was pruned is missing again.
    pub(crate) fn wait_for_pruned(&mut self, tree: &mut HeaderTree, path: &[HeaderRef]) {
        self.remove(tree, path);
        for &at in path {
            tree.set_chain_tx_count(at, 0);
        }
        for pair in path.windows(2) {
            if let [parent, child] = pair {
                self.wait_for(*parent, *child);
            }
        }
    }

    fn wait_for(&mut self, parent: HeaderRef, child: HeaderRef) {
        let waiting = self.waiting.entry(parent).or_default();
        // One that was pruned as well waits already when it is stored again.
        if !waiting.contains(&child) {
            waiting.push(child);
        }
    }

    /// Removes entries that turned out to be failed.
    pub(crate) fn remove(&mut self, tree: &HeaderTree, failed: &[HeaderRef]) {
        for &at in failed {
            self.order.remove(&rank(tree, at));
        }
    }

    /// Makes `at` the first among its equals, if it has at least the work of `tip` (`PreciousBlock`
    /// in Bitcoin Core's `validation.cpp`).
    pub(crate) fn prefer(&mut self, tree: &mut HeaderTree, at: HeaderRef, tip: HeaderRef) {
        let tip_work = tree.work(tip);
        if tree.work(at) < tip_work {
            return;
        }
        if tip_work > self.precious_work {
            // The chain has grown since the last call: nobody needs the numbers used so far.
            self.next_precious = -1;
        }
        self.precious_work = tip_work;
        self.remove(tree, &[at]);
        let entry = tree.entry_mut(at);
        entry.sequence = self.next_precious;
        let failed = entry.status.has(HeaderStatus::FAILED);
        self.next_precious = self.next_precious.saturating_sub(1);
        if !failed && self.is_complete(tree, at) {
            self.order.insert(rank(tree, at));
        }
    }

    /// Forgets candidates with less work than `tip`; called when the tip is the best block.
    pub(crate) fn prune(&mut self, tree: &HeaderTree, tip: HeaderRef) {
        let work = tree.work(tip);
        while self.order.first().is_some_and(|&(other, _)| other < work) {
            self.order.pop_first();
        }
    }
}

fn rank(tree: &HeaderTree, at: HeaderRef) -> Rank {
    (tree.work(at), Reverse((tree.entry(at).sequence, at)))
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
        tree.entry_mut(genesis).tx_count = 1;
        candidates.block_stored(&mut tree, genesis);
        let mut refs = Vec::new();
        for branch in 0..2 {
            let mut parent = genesis;
            for _ in 0..3 {
                let mut header = tree.entry(parent).header;
                header.prev_blockhash = tree.entry(parent).hash;
                header.nonce = branch;
                parent = tree.insert(&header, header.block_hash(), parent).expect("room");
                tree.entry_mut(parent).tx_count = 1;
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
        assert!(candidates.is_complete(&tree, a2));
    }

    #[test]
    fn a_branch_with_pruned_blocks_waits_until_they_are_stored_again() {
        let (mut tree, mut candidates, [a1, a2, a3, ..]) = forked();
        for at in [a1, a2, a3] {
            candidates.block_stored(&mut tree, at);
        }
        candidates.wait_for_pruned(&mut tree, &[a1, a2, a3]);
        assert_eq!(candidates.best(), Some(tree.genesis()));
        assert!(![a1, a2, a3].iter().any(|&at| candidates.is_complete(&tree, at)));
        candidates.block_stored(&mut tree, a2);
        assert_eq!(candidates.best(), Some(tree.genesis()), "the other is still missing");
        candidates.block_stored(&mut tree, a1);
        assert_eq!(candidates.best(), Some(a3));
        assert_eq!(tree.entry(a3).chain_tx_count, 4);
    }

    #[test]
    fn equal_work_stays_with_the_first() {
        let (mut tree, mut candidates, [a1, a2, _, b1, b2, b3]) = forked();
        for at in [a1, b1, b2, a2] {
            candidates.block_stored(&mut tree, at);
        }
        assert_eq!(candidates.best(), Some(b2));
        candidates.prefer(&mut tree, a2, b2);
        assert_eq!(candidates.best(), Some(a2));
        candidates.block_stored(&mut tree, b3);
        assert_eq!(candidates.best(), Some(b3));
        let failed = tree.mark_failed(b2);
        candidates.remove(&tree, &failed);
        assert_eq!(candidates.best(), Some(a2));
    }

    #[test]
    fn precious_blocks_of_equal_work_take_turns() {
        let (mut tree, mut candidates, [a1, a2, a3, b1, b2, b3]) = forked();
        for at in [a1, a2, b1, b2, b3] {
            candidates.block_stored(&mut tree, at);
        }
        // Less work than the tip; not stored: neither is heard.
        candidates.prefer(&mut tree, a2, b3);
        candidates.prefer(&mut tree, a3, b3);
        assert_eq!(candidates.best(), Some(b3));
        candidates.block_stored(&mut tree, a3);
        assert_eq!(candidates.best(), Some(b3), "what it was called before it was stored is lost");
        for at in [a3, b3, a3] {
            candidates.prefer(&mut tree, at, b3);
            assert_eq!(candidates.best(), Some(at));
        }
        let failed = tree.mark_failed(a3);
        candidates.remove(&tree, &failed);
        candidates.prefer(&mut tree, a3, b3);
        assert_eq!(candidates.best(), Some(b3), "a failed block is not");
    }

    #[test]
    fn a_start_finds_the_candidates_of_the_loaded_blocks() {
        let (mut tree, mut candidates, [a1, a2, a3, b1, b2, b3]) = forked();
        for at in [a1, a2, b1, b2] {
            candidates.block_loaded(&mut tree, at);
        }
        assert_eq!(candidates.best(), Some(tree.genesis()));
        candidates.start(&mut tree, b2);
        assert_eq!((candidates.best(), candidates.order.len()), (Some(b2), 2));
        candidates.rebuild(&tree, b1);
        assert_eq!((candidates.best(), candidates.order.len()), (Some(b2), 4));
        candidates.block_stored(&mut tree, a3);
        candidates.block_stored(&mut tree, b3);
        assert_eq!(candidates.best(), Some(a3));
    }

    #[test]
    fn blocks_that_waited_for_the_same_one_keep_their_order() {
        for first_is_a in [true, false] {
            let (mut tree, mut candidates, [a1, a2, a3, ..]) = forked();
            let mut header = tree.entry(a2).header;
            header.nonce = 7;
            let other2 = tree.insert(&header, header.block_hash(), a1).expect("room");
            header.prev_blockhash = header.block_hash();
            let other3 = tree.insert(&header, header.block_hash(), other2).expect("room");
            tree.entry_mut(other2).tx_count = 1;
            tree.entry_mut(other3).tx_count = 1;
            let mut waiting = [[a2, a3], [other2, other3]];
            if !first_is_a {
                waiting.reverse();
            }
            // Tips before what they stand on: only the order of the lower blocks counts.
            for at in [waiting[1][1], waiting[0][1], waiting[0][0], waiting[1][0], a1] {
                candidates.block_stored(&mut tree, at);
            }
            assert_eq!(candidates.best(), Some(waiting[0][1]), "{first_is_a}");
        }
    }
}
