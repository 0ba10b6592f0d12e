//! Random chains in random orders: forks, headers first, blocks without their parents, branches
//! that turn out invalid in their middle.

use std::collections::HashMap;

use bitcoin::{Block, BlockHash};
use cofferdam_ibd::Network;
use cofferdam_storage::testing::Random;

use crate::draft::Branch;
use crate::effort;
use crate::generator::random_block;
use crate::pair::{Counts, Pair};
use crate::wallet::Wallet;

/// Blocks of a universe: Core's own consistency checks, which look at the whole tree for every
/// block, take longer and longer.
const UNIVERSE_BLOCKS: u64 = 500;
/// Blocks before the first fork: the first coinbases are mature then.
const BASE: u32 = 102;
/// Blocks of one episode at most.
const EPISODE_BLOCKS: usize = 14;
/// Generations of blocks that may be forked from.
const DEPTH: u32 = 12;
/// Episodes between two comparisons of the UTXO sets, on average.
const SET_EVERY: usize = 4;

/// A chain of blocks, its forks, and how it was delivered.
struct Universe<'a> {
    wallet: &'a Wallet,
    random: Random,
    pair: Pair,
    /// Branches by the hash of their tip, for whom a block may come next.
    branches: HashMap<BlockHash, Branch>,
}

impl Universe<'_> {
    fn run(mut self, blocks: u64) -> Counts {
        while self.pair.tip().0 < BASE {
            let block = self.grow(self.pair.tip().1);
            self.deliver(&block);
        }
        self.pair.check_coins();
        while self.pair.counts.blocks < blocks {
            self.episode();
            if self.random.one_in(SET_EVERY) {
                self.pair.check_coins();
            }
        }
        self.pair.check_coins();
        self.pair.counts
    }

    /// Makes a valid block on top of `parent`.
    fn grow(&mut self, parent: BlockHash) -> Block {
        let branch = &self.branches[&parent];
        let draft = random_block(branch, self.wallet, self.random.next());
        let block = draft.block.clone();
        self.branches.insert(block.block_hash(), draft.into_branch());
        block
    }

    fn deliver(&mut self, block: &Block) {
        let outcome = self.pair.deliver(&bitcoin::consensus::serialize(block));
        assert_eq!(outcome.fault(), None, "{}", self.pair.label());
    }

    /// Grows a few branches, and delivers their blocks in any order.
    fn episode(&mut self) {
        let tip = self.pair.tip();
        self.branches.retain(|_, branch| branch.height() + DEPTH >= tip.0);
        let mut blocks = Vec::new();
        let count = 1 + self.random.below(EPISODE_BLOCKS);
        let mut parent = tip.1;
        for _ in 0..count {
            if self.random.one_in(5) {
                parent = self.any_branch();
            }
            let block = self.grow(parent);
            parent = block.block_hash();
            blocks.push(block);
        }
        if self.random.one_in(2) {
            for block in &blocks {
                let _ = self.pair.deliver_header(&block.header);
            }
        }
        while !blocks.is_empty() {
            // Mostly in order, so that not all is decided at the end.
            let near = blocks.len().min(if self.random.one_in(2) { 2 } else { 14 });
            let at = self.random.below(near);
            let raw = bitcoin::consensus::serialize(&blocks[at]);
            let outcome = self.pair.deliver(&raw);
            let early = outcome.fault().is_some_and(|fault| fault.reason == "prev-blk-not-found");
            // Again, now and then: a duplicate.
            if !early && !self.random.one_in(10) {
                blocks.remove(at);
            }
        }
    }

    /// A branch by chance, the same for the same seed.
    fn any_branch(&mut self) -> BlockHash {
        let mut hashes: Vec<BlockHash> = self.branches.keys().copied().collect();
        hashes.sort_unstable();
        hashes[self.random.below(hashes.len())]
    }
}

#[test]
fn random_chains_in_random_orders() {
    let wallet = Wallet::new();
    let mut counts = Counts::default();
    let mut seed = effort::seed();
    while counts.blocks < effort::blocks() {
        let left = effort::blocks() - counts.blocks;
        let pair = Pair::open(Network::Regtest, format!("universe of seed {seed}"));
        let genesis = Branch::genesis();
        let branches = HashMap::from([(genesis.tip, genesis)]);
        let universe = Universe { wallet: &wallet, random: Random::new(seed), pair, branches };
        counts += universe.run(left.clamp(200, UNIVERSE_BLOCKS));
        seed += 1;
    }
    counts.print("random chains");
}
