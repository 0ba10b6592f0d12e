//! `PartialBlock`: a block that a compact one names, put together from transactions; and
//! `Partials`, those of one peer.

use std::collections::{HashMap, VecDeque};

use bitcoin::bip152::{HeaderAndShortIds, ShortId};
use bitcoin::block::Header;
use bitcoin::{Block, BlockHash, Transaction, Wtxid};

/// Most transactions of a block: 4,000,000 weight units of 40 each, the smallest there can be.
const TRANSACTIONS_MAX: usize = 100_000;

/// Blocks of one peer that wait for transactions at the same time. Compact blocks are put together
/// up to two above the tip, so that a peer has two on the way if miners are quick, and twice as many
/// if both have a rival. Bitcoin Core allows as many as blocks may be in flight (16); four bound what
/// a peer can make us hold to four messages and 100,000 places each.
const PARTIALS_MAX: usize = 4;

/// Blocks that are put together from what one peer sends.
#[derive(Debug, Default)]
pub(super) struct Partials {
    /// Those that wait for transactions, each for its own answer.
    waiting: Vec<PartialBlock>,
    /// The last ones that came out wrong: all of each was asked for.
    spoiled: VecDeque<BlockHash>,
}

impl Partials {
    /// Returns whether one more may wait.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < PARTIALS_MAX
    }

    /// Notes a block that waits for its transactions, if there is room.
    pub(super) fn push(&mut self, partial: PartialBlock) {
        if self.has_room() {
            self.waiting.push(partial);
        }
    }

    /// Takes out the block that an answer is for.
    pub(super) fn take(&mut self, hash: &BlockHash) -> Option<PartialBlock> {
        let at = self.waiting.iter().position(|partial| partial.hash == *hash)?;
        Some(self.waiting.swap_remove(at))
    }

    /// Notes a block that came out wrong.
    pub(super) fn spoil(&mut self, hash: BlockHash) {
        self.spoiled.push_back(hash);
        if self.spoiled.len() > PARTIALS_MAX {
            self.spoiled.pop_front();
        }
    }

    /// Returns whether a block came out wrong.
    pub(super) fn is_spoiled(&self, hash: &BlockHash) -> bool {
        self.spoiled.contains(hash)
    }

    /// Returns whether a block waits for its transactions, or came out wrong.
    pub(super) fn contains(&self, hash: &BlockHash) -> bool {
        self.waiting.iter().any(|partial| partial.hash == *hash) || self.is_spoiled(hash)
    }
}

/// A block whose transactions are not all known.
#[derive(Debug)]
pub(super) struct PartialBlock {
    pub(super) hash: BlockHash,
    pub(super) header: Header,
    transactions: Vec<Option<Transaction>>,
}

/// Why a compact block cannot be put together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PartialError {
    /// It makes no sense: its sender broke a rule.
    Invalid,
    /// Short hashes collide: the whole block has to be fetched.
    Collision,
}

impl PartialBlock {
    /// Puts together what is known: what came with the block, and what of `pool` it names.
    pub(super) fn new<'a>(
        compact: HeaderAndShortIds,
        pool: impl IntoIterator<Item = (Wtxid, &'a Transaction)>,
    ) -> Result<Self, PartialError> {
        let count = compact.short_ids.len() + compact.prefilled_txs.len();
        if count == 0 || count > TRANSACTIONS_MAX {
            return Err(PartialError::Invalid);
        }
        let mut transactions: Vec<Option<Transaction>> = vec![None; count];
        let mut next = 0_usize;
        for prefilled in compact.prefilled_txs {
            // Each index counts from behind the last one.
            let index = next + usize::from(prefilled.idx);
            next = index + 1;
            *transactions.get_mut(index).ok_or(PartialError::Invalid)? = Some(prefilled.tx);
        }
        let free = transactions.iter().enumerate().filter(|(_, at)| at.is_none());
        let free: Vec<usize> = free.map(|(index, _)| index).collect();
        let mut places = HashMap::with_capacity(free.len());
        for (short, index) in compact.short_ids.iter().zip(free) {
            if places.insert(*short, index).is_some() {
                return Err(PartialError::Collision);
            }
        }
        let keys = ShortId::calculate_siphash_keys(&compact.header, compact.nonce);
        for (wtxid, transaction) in pool {
            let short = ShortId::with_siphash_keys(&wtxid, keys);
            let place = places.get(&short).and_then(|index| transactions.get_mut(*index));
            match place {
                // Two of the pool have the same short hash: which one is meant cannot be known.
                Some(place @ Some(_)) => {
                    *place = None;
                    places.remove(&short);
                }
                Some(place) => *place = Some(transaction.clone()),
                None => {}
            }
        }
        let header = compact.header;
        Ok(Self { hash: header.block_hash(), header, transactions })
    }

    /// Lists the places of the transactions that are not known.
    pub(super) fn missing(&self) -> Vec<u64> {
        let missing = self.transactions.iter().zip(0_u64..).filter(|(at, _)| at.is_none());
        missing.map(|(_, index)| index).collect()
    }

    /// Returns the block's bytes, given the transactions that were missing.
    pub(super) fn fill(self, missing: Vec<Transaction>) -> Result<Vec<u8>, PartialError> {
        let mut missing = missing.into_iter();
        let mut txdata = Vec::with_capacity(self.transactions.len());
        for transaction in self.transactions {
            txdata.push(transaction.or_else(|| missing.next()).ok_or(PartialError::Invalid)?);
        }
        if missing.next().is_some() {
            return Err(PartialError::Invalid);
        }
        let block = Block { header: self.header, txdata };
        Ok(bitcoin::consensus::serialize(&block))
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::bip152::PrefilledTransaction;
    use bitcoin::{Network, absolute, transaction};

    use super::*;

    fn block(transactions: u32) -> Block {
        let mut block = bitcoin::constants::genesis_block(Network::Regtest);
        for number in 1..transactions {
            block.txdata.push(Transaction {
                version: transaction::Version::TWO,
                lock_time: absolute::LockTime::from_consensus(number),
                input: block.txdata[0].input.clone(),
                output: Vec::new(),
            });
        }
        block
    }

    fn compact(block: &Block) -> HeaderAndShortIds {
        HeaderAndShortIds::from_block(block, 5, 2, &[]).expect("a block")
    }

    fn known(block: &Block, index: usize) -> (Wtxid, &Transaction) {
        let tx = &block.txdata[index];
        (tx.compute_wtxid(), tx)
    }

    #[test]
    fn a_block_is_put_together_from_what_is_known_and_what_is_asked_for() {
        let block = block(5);
        let known = [known(&block, 3), known(&block, 1)];
        let partial = PartialBlock::new(compact(&block), known).expect("sound");
        assert_eq!(partial.missing(), [2, 4]);
        let missing = vec![block.txdata[2].clone(), block.txdata[4].clone()];
        assert_eq!(partial.fill(missing), Ok(bitcoin::consensus::serialize(&block)));
    }

    #[test]
    fn an_empty_block_needs_nothing_but_its_coinbase() {
        let block = block(1);
        let partial = PartialBlock::new(compact(&block), []).expect("sound");
        assert!(partial.missing().is_empty());
        assert_eq!(partial.fill(Vec::new()), Ok(bitcoin::consensus::serialize(&block)));
    }

    #[test]
    fn too_few_and_too_many_transactions_are_the_senders_fault() {
        let block = block(3);
        let partial = || PartialBlock::new(compact(&block), []).expect("sound");
        let one = block.txdata[1].clone();
        assert_eq!(partial().fill(vec![one.clone()]), Err(PartialError::Invalid));
        assert_eq!(partial().fill(vec![one; 3]), Err(PartialError::Invalid));
    }

    #[test]
    fn a_place_beyond_the_block_and_a_block_of_nothing_are_refused() {
        let mut beyond = compact(&block(3));
        beyond.prefilled_txs[0].idx = 3;
        assert_eq!(PartialBlock::new(beyond, []).err(), Some(PartialError::Invalid));
        let mut last = compact(&block(3));
        let tx = last.prefilled_txs[0].tx.clone();
        last.prefilled_txs.push(PrefilledTransaction { idx: u16::MAX, tx });
        assert_eq!(PartialBlock::new(last, []).err(), Some(PartialError::Invalid));
        let mut nothing = compact(&block(1));
        nothing.prefilled_txs.clear();
        assert_eq!(PartialBlock::new(nothing, []).err(), Some(PartialError::Invalid));
    }

    #[test]
    fn equal_short_hashes_leave_the_whole_block_to_be_fetched() {
        let mut twice = compact(&block(3));
        twice.short_ids[1] = twice.short_ids[0];
        assert_eq!(PartialBlock::new(twice, []).err(), Some(PartialError::Collision));
        // Those of the pool that look the same are all left out.
        let block = block(2);
        for count in 2..=3 {
            let pool = vec![known(&block, 1); count];
            let partial = PartialBlock::new(compact(&block), pool).expect("sound");
            assert_eq!(partial.missing(), [1]);
        }
    }
}
