//! The coins that can be spent, by age.

use std::collections::VecDeque;

use bitcoin::OutPoint;
use cofferdam_storage::testing::Random;

use super::scripts::Kind;

/// Of a hundred coins spent, those that were made in the same block, in the ten blocks before, and in
/// the hundred before those. The rest are of any age: some of them are never spent.
const SAME_BLOCK: usize = 8;
const TEN_BLOCKS: usize = 40;
const HUNDRED_BLOCKS: usize = 65;

/// Blocks whose coins are kept apart.
const RECENT_BLOCKS: usize = 110;

/// An output that can be spent.
#[derive(Clone, Copy, Debug)]
pub struct Coin {
    /// Where it is.
    pub outpoint: OutPoint,
    /// Its value in satoshis.
    pub value: u64,
    /// What kind of output it is.
    pub kind: Kind,
    /// What it pays to, within its kind.
    pub key: u32,
}

/// The coins of a chain.
#[derive(Default)]
pub(super) struct Coins {
    /// Made in the block that is being made, in earlier waves.
    own: Vec<Coin>,
    /// Made in the blocks before, the last one first.
    recent: VecDeque<Vec<Coin>>,
    old: Vec<Coin>,
}

impl Coins {
    /// Returns how many there are.
    pub(super) fn len(&self) -> usize {
        self.old.len() + self.own.len() + self.recent.iter().map(Vec::len).sum::<usize>()
    }

    /// Adds a coin of the block that is being made.
    pub(super) fn add(&mut self, coin: Coin) {
        self.own.push(coin);
    }

    /// Ends a block: its coins are a block old from now on.
    pub(super) fn end_block(&mut self) {
        self.recent.push_front(std::mem::take(&mut self.own));
        if self.recent.len() > RECENT_BLOCKS {
            self.old.extend(self.recent.pop_back().unwrap_or_default());
        }
    }

    /// Takes a coin out whose age is drawn; none if there is none at all.
    pub(super) fn take(&mut self, random: &mut Random) -> Option<Coin> {
        let age = random.below(100);
        let found = if age < SAME_BLOCK {
            take(&mut self.own, random)
        } else if age < TEN_BLOCKS {
            self.take_recent(0..10, random)
        } else if age < HUNDRED_BLOCKS {
            self.take_recent(10..RECENT_BLOCKS, random)
        } else {
            None
        };
        found
            .or_else(|| take(&mut self.old, random))
            .or_else(|| self.take_recent(0..RECENT_BLOCKS, random))
            .or_else(|| take(&mut self.own, random))
    }

    fn take_recent(&mut self, blocks: std::ops::Range<usize>, random: &mut Random) -> Option<Coin> {
        let end = blocks.end.min(self.recent.len());
        let count = end.checked_sub(blocks.start).filter(|count| *count > 0)?;
        // The block that is drawn, or else the next one that has any.
        let first = random.below(count);
        (0..count).find_map(|step| {
            let at = blocks.start + (first + step) % count;
            take(&mut self.recent[at], random)
        })
    }
}

fn take(coins: &mut Vec<Coin>, random: &mut Random) -> Option<Coin> {
    (!coins.is_empty()).then(|| coins.swap_remove(random.below(coins.len())))
}
