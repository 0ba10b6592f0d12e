//! `CoinLoad`: block batches shaped like those of main chain blocks, the same for the same seed.
//!
//! A block makes 2,200 to 3,000 coins and spends 96 of a hundred, so that there are about 5,100
//! operations a block and the set grows slowly. A key has 36 bytes: a transaction's hash, which
//! two coins share, and an output number. Values have 25 to 65 bytes.
//!
//! Of a hundred coins 40 are spent within 10 blocks and 65 within 100; the lifetimes of the others
//! are spread evenly over the powers of two up to 100,000 blocks. What a block spends beyond that
//! are coins from before the first block, each once: a buffered store does not know these.

use std::mem;

use cofferdam_storage::testing::Random;
use cofferdam_storage::{Batch, BlockBatch, Tip};

use crate::{TREE, random_key};

/// Coins that a block makes, at least.
const MADE_MIN: usize = 2_200;
/// By how many more it may be, less one.
const MADE_SPREAD: usize = 801;
/// How many coins are spent for a hundred that are made.
const SPENT_PER_HUNDRED: usize = 96;
/// Numbers of coins from before the first block begin here.
const OLD_COINS: u64 = 1 << 40;

/// A key of the load.
pub type Key = [u8; 36];

/// A chain of block batches.
#[derive(Debug)]
pub struct CoinLoad {
    /// The batches, each on top of the one before.
    pub blocks: Vec<BlockBatch>,
    /// How many operations they have.
    pub ops: u64,
    /// How many encoded bytes.
    pub bytes: u64,
    /// Coins that were made and not spent, in no order.
    pub alive: Vec<Key>,
}

impl CoinLoad {
    /// Returns `count` blocks.
    #[must_use]
    pub fn generate(seed: u64, count: usize) -> Self {
        let mut generator = Generator::new(seed, count);
        let blocks: Vec<BlockBatch> = (0..count).map(|at| generator.block(at)).collect();
        let ops = blocks.iter().map(|block| block.batch.len() as u64).sum();
        let bytes = blocks.iter().map(|block| block.batch.byte_len() as u64).sum();
        let Generator { seed, unspent, dies_at, .. } = generator;
        let left = dies_at.into_iter().flatten().chain(unspent);
        Self { blocks, ops, bytes, alive: left.map(|coin| key_of(seed, coin)).collect() }
    }
}

/// Returns the name of the block at `height` of a chain.
#[must_use]
pub fn block_hash(seed: u64, height: usize) -> [u8; 32] {
    let key = random_key(!seed ^ height as u64);
    *key.first_chunk().expect("a key is longer")
}

struct Generator {
    seed: u64,
    random: Random,
    /// The next coin's number.
    next: u64,
    /// The next number of a coin from before the first block.
    next_old: u64,
    /// Coins by the height that spends them.
    dies_at: Vec<Vec<u64>>,
    /// Coins that outlive the load.
    unspent: Vec<u64>,
    value: Vec<u8>,
}

impl Generator {
    fn new(seed: u64, count: usize) -> Self {
        Self {
            seed,
            random: Random::new(seed),
            next: 0,
            next_old: OLD_COINS,
            dies_at: vec![Vec::new(); count],
            unspent: Vec::new(),
            value: Vec::new(),
        }
    }

    /// The block at `at` (its height is one more): spends and makes coins in turn, as its
    /// transactions do.
    fn block(&mut self, at: usize) -> BlockBatch {
        let made = MADE_MIN + self.random.below(MADE_SPREAD);
        let wanted = made * SPENT_PER_HUNDRED / 100;
        let mut spent = mem::take(&mut self.dies_at[at]);
        while spent.len() < wanted {
            spent.push(self.next_old);
            // Not the next one: it would have the same hash.
            self.next_old += 2;
        }
        let mut batch = Batch::with_capacity(made * 89 + spent.len() * 40);
        let mut spent = spent.into_iter();
        for _ in 0..made {
            if let Some(coin) = spent.next() {
                batch.delete(TREE, &key_of(self.seed, coin));
            }
            self.make(at, &mut batch);
        }
        spent.for_each(|coin| batch.delete(TREE, &key_of(self.seed, coin)));
        let tip = Tip {
            height: u32::try_from(at + 1).expect("few blocks"),
            hash: block_hash(self.seed, at + 1),
        };
        let prev_hash = if at == 0 { [0; 32] } else { block_hash(self.seed, at) };
        BlockBatch { tip, prev_hash, batch }
    }

    fn make(&mut self, at: usize, batch: &mut Batch) {
        let coin = self.next;
        self.next += 1;
        self.value = {
            let len = 25 + self.random.below(41);
            self.random.bytes(len)
        };
        batch.put_new(TREE, &key_of(self.seed, coin), &self.value);
        let death = at + self.lifetime();
        match self.dies_at.get_mut(death) {
            Some(dying) => dying.push(coin),
            None => self.unspent.push(coin),
        }
    }

    /// In blocks.
    fn lifetime(&mut self) -> usize {
        match self.random.below(100) {
            0..40 => 1 + self.random.below(10),
            40..65 => 11 + self.random.below(90),
            _ => {
                let least = 100 << self.random.below(10);
                least + self.random.below(least)
            }
        }
    }
}

fn key_of(seed: u64, coin: u64) -> Key {
    let mut key = random_key((seed << 48) ^ (coin / 2));
    let output = u32::from(coin % 2 == 1);
    key[32..].copy_from_slice(&output.to_be_bytes());
    key
}
