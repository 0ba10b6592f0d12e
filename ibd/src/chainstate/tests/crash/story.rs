//! `Story`: blocks and what is done with them, and every state that it goes through.

use std::collections::HashMap;

use bitcoin::BlockHash;
use bitcoin::consensus::{deserialize, serialize};
use cofferdam_storage::testing::{CrashModel, Random, SimDatabase, SimFileSystem};
use cofferdam_storage::{Batch, STATE_TREE};

use super::super::*;
use super::life;
use crate::testing::{Fault, ModelChain};

type Raw = Vec<u8>;

/// One thing that is done.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Gives headers of blocks, by their number in the story.
    Headers(Vec<usize>),
    /// Gives a block, by its number.
    Accept(usize),
    /// Advances until nothing is left to do, through these tips.
    Advance(Vec<BlockHash>),
    /// Advances for as short a time as possible: one block, or one reorganisation.
    AdvanceOnce(Vec<BlockHash>),
    /// Makes everything survive a power cut.
    Sync,
    /// Removes all block files but the last.
    Prune,
    /// Lets the database have everything.
    Checkpoint,
    /// Shuts down and opens again.
    Reopen,
    /// Drops the chainstate and opens again.
    Drop,
}

/// Blocks, steps, and the states they lead through.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) network: Network,
    /// A disk with the chain that the story begins with.
    pub(super) base: SimFileSystem,
    pub(super) base_height: u32,
    pub(super) blocks: Vec<Raw>,
    pub(super) steps: Vec<Step>,
    /// The tips in the order in which they come; the first is that of the base.
    pub(super) tips: Vec<BlockHash>,
    /// What the coins are at each tip.
    pub(super) coins: HashMap<BlockHash, u64>,
    /// The blocks that break a rule or have such an ancestor.
    pub(super) failed: Vec<BlockHash>,
}

type Tell = fn() -> Story;

/// All stories, by name.
pub(super) const STORIES: [(&str, Tell); 7] = [
    ("testnet3-one-by-one", testnet3_one_by_one),
    ("testnet3-in-flight", testnet3_in_flight),
    ("regtest-reorg", regtest_reorg),
    ("reorg-there-and-back", reorg_there_and_back),
    ("invalid-branch", invalid_branch),
    ("mixture", mixture),
    ("pruned", pruned),
];

impl Story {
    /// A story that begins with a chain of these blocks.
    fn new(network: Network, base: &[Raw]) -> Self {
        let fs = SimFileSystem::new();
        let mut chainstate = life::open(&fs, network, WalOptions::default()).expect("opens").0;
        for raw in base {
            let _ = chainstate.accept_block(raw.clone(), NOW).expect("works");
        }
        assert!(advance(&mut chainstate).invalid.is_empty());
        let BlockRef { height: base_height, hash: tip } = chainstate.tip();
        let coins = digest(&chainstate, COINS);
        chainstate.shutdown().expect("closes");
        compact(&fs);
        Self {
            network,
            // Whatever a shutdown leaves is durable.
            base: fs.after_crash(CrashModel::SyncedOnly, 0),
            base_height,
            blocks: Vec::new(),
            steps: Vec::new(),
            tips: vec![tip],
            coins: HashMap::from([(tip, coins)]),
            failed: Vec::new(),
        }
    }

    pub(super) fn end(&self) -> BlockHash {
        *self.tips.last().expect("the base")
    }

    /// Adds blocks; returns their numbers.
    fn give(&mut self, blocks: &[Raw]) -> Vec<usize> {
        let first = self.blocks.len();
        self.blocks.extend_from_slice(blocks);
        (first..self.blocks.len()).collect()
    }

    fn accept(&mut self, numbers: &[usize]) {
        self.steps.extend(numbers.iter().map(|number| Step::Accept(*number)));
    }

    fn advance(&mut self, through: Vec<BlockHash>) {
        self.tips.extend_from_slice(&through);
        self.steps.push(Step::Advance(through));
    }

    fn advance_once(&mut self, through: Vec<BlockHash>) {
        self.tips.extend_from_slice(&through);
        self.steps.push(Step::AdvanceOnce(through));
    }

    /// Learns the coins along a branch that begins at the base's tip, in memory; all is well there.
    fn learn(&mut self, base: &[Raw], branch: &[Raw]) {
        let dir = tempfile::tempdir().expect("temporary");
        let mut chainstate = super::super::open(ChainParams::new(self.network), dir.path());
        for raw in base.iter().chain(branch) {
            let _ = chainstate.accept_block(raw.clone(), NOW).expect("works");
            assert!(advance(&mut chainstate).invalid.is_empty());
            self.coins.insert(chainstate.tip().hash, digest(&chainstate, COINS));
        }
        let last = branch.last().expect("a branch");
        assert_eq!(chainstate.tip().hash, hash(last));
    }
}

/// Makes one batch of all that is in the simulated database: a file, not hundreds.
fn compact(fs: &SimFileSystem) {
    let shared: Arc<dyn cofferdam_storage::FileSystem> = Arc::new(fs.clone());
    let dir = Path::new(life::DB_DIR);
    let database = SimDatabase::open(Arc::clone(&shared), dir, TREES).expect("opens");
    let mut all = Batch::new();
    for tree in [STATE_TREE, HEADERS, COINS] {
        for entry in database.range(tree, KeyRange::all()).expect("readable") {
            let (key, value) = entry.expect("readable");
            all.put(tree, &key, &value);
        }
    }
    drop(database);
    for name in shared.list(dir).expect("readable") {
        shared.remove(&dir.join(name)).expect("writable");
    }
    let database = SimDatabase::open(shared, dir, TREES).expect("opens");
    database.apply(&all).expect("writable");
    database.flush().expect("writable");
}

fn hash(raw: &Raw) -> BlockHash {
    deserialize::<bitcoin::block::Header>(&raw[..80]).expect("a header").block_hash()
}

fn hashes(blocks: &[Raw]) -> Vec<BlockHash> {
    blocks.iter().map(hash).collect()
}

/// The tips on the way down from the end of `branch` to its parent.
fn down(branch: &[Raw], parent: BlockHash) -> Vec<BlockHash> {
    let below = &branch[..branch.len() - 1];
    below.iter().rev().map(hash).chain([parent]).collect()
}

/// Real blocks with up to seventeen payments.
fn testnet3() -> (Vec<Raw>, Vec<Raw>) {
    let mut base = blocks("testnet3/chain-0-400.blkdat");
    let rest = base.split_off(388);
    (base, rest)
}

fn testnet3_one_by_one() -> Story {
    let (base, rest) = testnet3();
    let mut story = Story::new(Network::Testnet3, &base);
    story.learn(&base, &rest);
    for number in story.give(&rest) {
        story.accept(&[number]);
        story.advance_once(vec![hash(&rest[number])]);
    }
    story
}

fn testnet3_in_flight() -> Story {
    let (base, rest) = testnet3();
    let mut story = Story::new(Network::Testnet3, &base);
    story.learn(&base, &rest);
    let numbers = story.give(&rest);
    story.accept(&numbers);
    story.advance(hashes(&rest));
    story.steps.push(Step::Sync);
    story
}

fn regtest_reorg() -> Story {
    let a = blocks("regtest/reorg-branch-a-1-10.blkdat");
    let b = blocks("regtest/reorg-branch-b-6-16.blkdat");
    let mut story = Story::new(Network::Regtest, &a[..5]);
    story.learn(&a[..5], &a[5..]);
    story.learn(&a[..5], &b);
    let parent = story.end();
    let numbers = story.give(&a[5..]);
    story.accept(&numbers);
    story.advance(hashes(&a[5..]));
    let numbers = story.give(&b);
    story.accept(&numbers);
    story.advance([down(&a[5..], parent), hashes(&b)].concat());
    story
}

/// A base with coins to spend, and branches of full blocks on it.
struct Branches {
    base: Vec<Raw>,
    chain: ModelChain,
    random: Random,
}

impl Branches {
    fn new(seed: u64) -> Self {
        let (chain, blocks) = ModelChain::funded(24);
        let base = blocks.iter().map(serialize).collect();
        Self { base, chain, random: Random::new(seed) }
    }

    /// A branch on `from`, and where it ends.
    fn grow(&mut self, from: &ModelChain, len: usize) -> (Vec<Raw>, ModelChain) {
        let mut chain = from.clone();
        let mut blocks = Vec::new();
        for _ in 0..len {
            let block = chain.random_block(&mut self.random, 6);
            chain.connect(&block);
            blocks.push(serialize(&block));
        }
        (blocks, chain)
    }
}

fn reorg_there_and_back() -> Story {
    let mut branches = Branches::new(1);
    let fork = branches.chain.clone();
    let (mut a, a_end) = branches.grow(&fork, 3);
    let (b, _) = branches.grow(&fork, 5);
    let (more_a, _) = branches.grow(&a_end, 3);
    let mut story = Story::new(Network::Regtest, &branches.base);
    let parent = story.end();
    story.learn(&branches.base, &[&a[..], &more_a].concat());
    story.learn(&branches.base, &b);
    let numbers = story.give(&a);
    story.accept(&numbers);
    story.advance(hashes(&a));
    let numbers = story.give(&b);
    story.accept(&numbers);
    // In two calls: a reorganisation, and one block.
    let back = [down(&a, parent), hashes(&b[..4])].concat();
    story.advance_once(back);
    story.advance_once(hashes(&b[4..]));
    let numbers = story.give(&more_a);
    story.accept(&numbers);
    a.extend(more_a);
    story.advance([down(&b, parent), hashes(&a)].concat());
    story
}

/// The new branch has a script that fails in its fourth block, behind which more is staged.
fn invalid_branch() -> Story {
    let mut branches = Branches::new(2);
    let fork = branches.chain.clone();
    let (a, a_end) = branches.grow(&fork, 4);
    let (b, mut b_end) = branches.grow(&fork, 3);
    let bad = b_end.faulty_block(Fault::Script, &mut branches.random).expect("coins of nobody");
    b_end.connect(&bad);
    let (behind, _) = branches.grow(&b_end, 3);
    let (more_a, _) = branches.grow(&a_end, 2);
    let mut story = Story::new(Network::Regtest, &branches.base);
    let parent = story.end();
    story.learn(&branches.base, &[&a[..], &more_a].concat());
    story.learn(&branches.base, &b);
    let numbers = story.give(&a);
    story.accept(&numbers);
    story.advance(hashes(&a));
    let bad = serialize(&bad);
    story.failed = hashes(&[std::slice::from_ref(&bad), &behind].concat());
    let numbers = story.give(&[&b[..], &[bad], &behind].concat());
    story.accept(&numbers);
    let there = [down(&a, parent), hashes(&b)].concat();
    let back = [down(&b, parent), hashes(&a)].concat();
    story.advance([there, back].concat());
    let numbers = story.give(&more_a);
    story.accept(&numbers);
    story.advance(hashes(&more_a));
    story
}

/// Headers first, blocks in any order, syncs, checkpoints, shutdowns, and what has no shutdown.
fn mixture() -> Story {
    let mut branches = Branches::new(3);
    let fork = branches.chain.clone();
    let (a, _) = branches.grow(&fork, 6);
    let (b, _) = branches.grow(&fork, 8);
    let mut story = Story::new(Network::Regtest, &branches.base);
    let parent = story.end();
    story.learn(&branches.base, &a);
    story.learn(&branches.base, &b);
    let numbers = story.give(&a);
    story.steps.push(Step::Headers(numbers.clone()));
    story.accept(&[numbers[2], numbers[0]]);
    story.advance(hashes(&a[..1]));
    story.steps.push(Step::Sync);
    story.accept(&[numbers[3], numbers[1]]);
    story.advance(hashes(&a[1..4]));
    story.steps.push(Step::Drop);
    story.accept(&[numbers[4], numbers[5]]);
    story.advance(hashes(&a[4..]));
    story.steps.push(Step::Checkpoint);
    let numbers = story.give(&b);
    story.steps.push(Step::Headers(numbers.clone()));
    let reversed: Vec<usize> = numbers.iter().rev().copied().collect();
    story.accept(&reversed[..4]);
    story.steps.push(Step::Reopen);
    story.accept(&reversed[4..]);
    story.advance([down(&a, parent), hashes(&b)].concat());
    story.steps.push(Step::Reopen);
    story
}

/// Files go while blocks come, and a chain goes on without them.
fn pruned() -> Story {
    let mut branches = Branches::new(4);
    let fork = branches.chain.clone();
    let (a, a_end) = branches.grow(&fork, 5);
    let (more_a, _) = branches.grow(&a_end, 4);
    let mut story = Story::new(Network::Regtest, &branches.base);
    story.learn(&branches.base, &[&a[..], &more_a].concat());
    let numbers = story.give(&a);
    story.accept(&numbers);
    story.advance(hashes(&a));
    story.steps.push(Step::Prune);
    let numbers = story.give(&more_a);
    story.accept(&numbers[..2]);
    story.advance(hashes(&more_a[..2]));
    story.steps.push(Step::Reopen);
    story.accept(&numbers[2..]);
    story.advance(hashes(&more_a[2..]));
    story.steps.push(Step::Prune);
    story
}
