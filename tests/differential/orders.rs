//! Random chains in random orders: forks, headers first, blocks without their parents, branches
//! that turn out invalid in their middle, restarts.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bitcoin::block::Header;
use bitcoin::consensus::serialize;
use bitcoin::{Block, BlockHash};
use cofferdam_ibd::{ChainParams, Network};
use cofferdam_storage::BackendKind;
use cofferdam_storage::testing::Random;

use crate::draft::Branch;
use crate::effort;
use crate::generator::random_block;
use crate::mutants::{MUTANTS, Make};
use crate::pair::{Counts, Pair};
use crate::verdict::Outcome;
use crate::wallet::Wallet;

/// Blocks of a universe: Core's own consistency checks, which look at the whole tree for every
/// block, take longer and longer.
const UNIVERSE_BLOCKS: u64 = 600;
/// Blocks before the first fork: the first coinbases are mature then.
const BASE: u32 = 102;
/// Blocks of one episode at most.
const EPISODE_BLOCKS: usize = 14;
/// Generations of blocks that may be forked from.
const DEPTH: u32 = 12;
/// The same in a few universes, where coinbases fall back behind their maturity.
const DEPTH_MAX: u32 = 120;
/// Episodes between two comparisons of the UTXO sets, on average.
const SET_EVERY: usize = 4;
/// Episodes between two restarts, on average.
const RESTART_EVERY: usize = 8;
/// Deliveries of a block whose parent's header is not there, before it is given up.
const EARLY_MAX: u32 = 2;
/// Universes at a time.
const THREADS: usize = 2;

/// A block to deliver.
struct Parcel {
    raw: Vec<u8>,
    /// How often it came before its parent's header.
    early: u32,
}

/// A chain of blocks, its forks, and how it was delivered.
struct Universe<'a> {
    wallet: &'a Wallet,
    random: Random,
    pair: Pair,
    restarts: bool,
    depth: u32,
    /// Whether our side stores blocks and connects several at a time, as a node does; then only
    /// tips and UTXO sets are compared.
    lazy: bool,
    /// Branches by the hash of their tip, for whom a block may come next.
    branches: HashMap<BlockHash, Branch>,
    /// Those with a block that breaks a rule.
    doubtful: HashSet<BlockHash>,
}

impl<'a> Universe<'a> {
    fn new(wallet: &'a Wallet, seed: u64) -> Self {
        let backend = match seed % 8 {
            3 => BackendKind::Sled,
            5 => BackendKind::Lsm,
            7 => BackendKind::Rocksdb,
            _ => BackendKind::Memory,
        };
        let label = effort::repeats(seed, UNIVERSE_BLOCKS);
        let genesis = Branch::genesis();
        Self {
            wallet,
            random: Random::new(seed),
            pair: Pair::open_on(ChainParams::new(Network::Regtest), backend, label),
            restarts: backend != BackendKind::Memory,
            lazy: seed % 4 == 2,
            depth: if seed % 16 == 5 { DEPTH_MAX } else { DEPTH },
            branches: HashMap::from([(genesis.tip, genesis)]),
            doubtful: HashSet::new(),
        }
    }

    fn run(mut self, blocks: u64) -> Counts {
        let mut parent = self.pair.tip().1;
        for _ in 0..BASE {
            let block = self.grow(parent);
            parent = block.block_hash();
            let outcome = self.deliver(&serialize(&block));
            assert_eq!(outcome.fault(), None, "{}", self.pair.label());
        }
        self.settle();
        self.pair.check_coins();
        while self.pair.counts.blocks < blocks {
            self.episode();
            if self.restarts && self.random.one_in(RESTART_EVERY) {
                self.pair.restart();
            }
            if self.random.one_in(SET_EVERY) {
                self.pair.check_coins();
            }
        }
        self.pair.check_coins();
        self.pair.counts
    }

    fn deliver(&mut self, raw: &[u8]) -> Outcome {
        if !self.lazy {
            return self.pair.deliver(raw);
        }
        let outcome = self.pair.store(raw);
        match self.random.below(16) {
            0 => self.pair.settle(),
            1 => self.pair.advance(),
            _ => {}
        }
        outcome
    }

    fn deliver_header(&mut self, header: &Header) {
        if self.lazy {
            self.pair.store_header(header);
        } else {
            let _ = self.pair.deliver_header(header);
        }
    }

    fn settle(&mut self) {
        if self.lazy {
            self.pair.settle();
        }
    }

    /// Makes a valid block on top of `parent`.
    fn grow(&mut self, parent: BlockHash) -> Block {
        let branch = &self.branches[&parent];
        let draft = random_block(branch, self.wallet, self.random.next());
        let block = draft.block.clone();
        self.add(parent, draft.into_branch(), false);
        block
    }

    fn add(&mut self, parent: BlockHash, branch: Branch, doubtful: bool) {
        if doubtful || self.doubtful.contains(&parent) {
            self.doubtful.insert(branch.tip);
        }
        self.branches.insert(branch.tip, branch);
    }

    /// Makes a block on top of `parent` that breaks one rule, or just does not. If its header is
    /// taken, blocks may be built on it; if the header is that of a good block, that one comes, too.
    fn break_one(&mut self, parent: BlockHash, blocks: &mut Vec<Block>) -> Option<BlockHash> {
        let draft = random_block(&self.branches[&parent], self.wallet, self.random.next());
        let mutant = &MUTANTS[self.random.below(MUTANTS.len())];
        let mut bad = draft.clone();
        let (change, alone) = match mutant.make {
            Make::Block(change) => (change, false),
            Make::Header(change) | Make::Lone(change) => (change, true),
            _ => return None,
        };
        change(&mut bad)?;
        let hash = bad.block.block_hash();
        blocks.push(bad.block.clone());
        if hash == draft.block.block_hash() {
            blocks.push(draft.block.clone());
            self.add(parent, draft.into_branch(), false);
        } else if alone {
            return None;
        } else {
            self.add(parent, bad.into_branch(), mutant.reason.is_some());
        }
        Some(hash)
    }

    /// Grows a few branches.
    fn blocks(&mut self) -> Vec<Block> {
        let tip = self.pair.tip();
        let (depth, doubtful) = (self.depth, std::mem::take(&mut self.doubtful));
        self.branches.retain(|hash, branch| {
            branch.height() + depth >= tip.0 && (!doubtful.contains(hash) || *hash == tip.1)
        });
        let mut blocks = Vec::new();
        let mut count = 1 + self.random.below(EPISODE_BLOCKS);
        let mut parent = tip.1;
        if self.random.one_in(2) {
            parent = self.any_branch();
            // Enough to get past the tip, or just not.
            let behind = tip.0.saturating_sub(self.branches[&parent].height());
            count = behind as usize + self.random.below(4);
        }
        while blocks.len() < count {
            if self.random.one_in(8) {
                parent = self.any_branch();
            }
            if self.random.one_in(5) {
                parent = self.break_one(parent, &mut blocks).unwrap_or(parent);
                continue;
            }
            let block = self.grow(parent);
            parent = block.block_hash();
            blocks.push(block);
        }
        blocks
    }

    /// Grows a few branches, and delivers their blocks in any order.
    fn episode(&mut self) {
        let blocks = self.blocks();
        let headers_first = self.random.one_in(2);
        if headers_first {
            for block in &blocks {
                self.deliver_header(&block.header);
            }
        }
        // Else mostly in order, so that not all is decided at the end.
        let shuffled = self.random.one_in(if headers_first { 2 } else { 6 });
        let parcel = |block: &Block| Parcel { raw: serialize(block), early: 0 };
        let mut parcels: Vec<Parcel> = blocks.iter().map(parcel).collect();
        while !parcels.is_empty() {
            let near = match (shuffled, headers_first || self.random.one_in(4)) {
                (true, _) => EPISODE_BLOCKS,
                (_, true) => 2,
                _ => 1,
            };
            let near = near.min(parcels.len());
            let at = self.random.below(near);
            if self.random.one_in(6) {
                let header = blocks[self.random.below(blocks.len())].header;
                self.deliver_header(&header);
            }
            let outcome = self.deliver(&parcels[at].raw);
            let early = outcome.fault().is_some_and(|fault| fault.reason == "prev-blk-not-found");
            if early && parcels[at].early < EARLY_MAX {
                parcels[at].early += 1;
            } else if early || !self.random.one_in(10) {
                // Now and then it stays, and comes again.
                parcels.remove(at);
            }
        }
        self.settle();
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
    let blocks = effort::blocks();
    let next = AtomicU64::new(0);
    let counts = Mutex::new(Counts::default());
    std::thread::scope(|scope| {
        for number in 0..THREADS {
            let work = || {
                loop {
                    let before = next.fetch_add(1, Ordering::Relaxed);
                    let left = blocks.saturating_sub(before * UNIVERSE_BLOCKS);
                    if left == 0 {
                        break;
                    }
                    let universe = Universe::new(&wallet, effort::seed() + before);
                    let seen = universe.run(left.min(UNIVERSE_BLOCKS));
                    *counts.lock().expect("no panic") += seen;
                }
            };
            let builder = std::thread::Builder::new().name(format!("universe-{number}"));
            builder.spawn_scoped(scope, work).expect("a thread");
        }
    });
    counts.into_inner().expect("no panic").print("random chains");
}
