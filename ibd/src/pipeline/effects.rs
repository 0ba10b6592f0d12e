//! What a block does to the table of coins, as far as that is a matter of the block and its height
//! alone: so it is made ahead on the pool, not on the thread that connects blocks. Whether the block
//! may do it is found out there.
//!
//! Invariant: the batch deletes a coin only if it is from before the block, and puts a coin as new
//! only if it is not: a coin created and spent in the block appears in neither.

use bitcoin::OutPoint;
use cofferdam_storage::Batch;

use super::prefetch::{CoinArena, make_created_coins};
use crate::block::{CheckedBlock, Source, bip30_repeat};
use crate::coin::{OUTPOINT_KEY_LEN, outpoint_key};
use crate::params::ChainParams;
use crate::tables::COINS;

/// Bytes of an operation of the batch beside key and value, for a first guess of its length.
const OP_LEN: usize = 12;
/// Room in the batch for the rows of the index that go along.
const ROWS_LEN: usize = 1024;

/// What a block does, if it holds.
#[derive(Debug)]
pub(crate) struct Effects {
    /// Coins of the block's outputs.
    pub(crate) created: CoinArena,
    /// Coins to put and delete.
    pub(crate) batch: Batch,
}

impl Effects {
    /// Makes the effects of a block at that height.
    pub(crate) fn new(params: &ChainParams, block: &CheckedBlock, height: u32) -> Self {
        let mut created = CoinArena::default();
        make_created_coins(block, height, &mut created);
        let mut spent_own = vec![false; block.txs().output_count()];
        for source in block.spends.sources() {
            if let Source::Own(output) = source
                && let Some(spent) = spent_own.get_mut(output)
            {
                *spent = true;
            }
        }
        // The two blocks before BIP-0030 that overwrite a coin: it is not new.
        let repeats = bip30_repeat(params, height, &block.hash());
        let batch = make_batch(block, &created, &spent_own, repeats);
        Self { created, batch }
    }
}

/// Deletes the coins from before the block that it spends, and puts what is left of its outputs, in
/// the block's order.
fn make_batch(
    block: &CheckedBlock,
    created: &CoinArena,
    spent_own: &[bool],
    repeats: bool,
) -> Batch {
    let keys = block.spends.external_keys();
    let is_left = |output: usize| spent_own.get(output).is_some_and(|&spent| !spent);
    let puts = (0..spent_own.len()).filter(|&output| is_left(output)).count();
    let ops = keys.len() + puts;
    let bytes = ops * (OUTPOINT_KEY_LEN + OP_LEN) + created.byte_len() + ROWS_LEN;
    let mut batch = Batch::with_capacity(bytes);
    for key in keys {
        batch.delete(COINS, key);
    }
    for (tx, &txid) in block.txs().iter().zip(block.txids()) {
        for (vout, output) in (0_u32..).zip(tx.first_output()..).take(tx.output_count()) {
            let Some(coin) = created.get(output).filter(|_| is_left(output)) else {
                continue;
            };
            let key = outpoint_key(&OutPoint::new(txid, vout));
            if repeats {
                batch.put(COINS, &key, coin);
            } else {
                batch.put_new(COINS, &key, coin);
            }
        }
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Network;
    use crate::testing::{block, checked, coinbase, outpoint, payment};
    use cofferdam_storage::Op;

    #[test]
    fn a_coin_that_is_made_and_spent_in_the_block_is_neither_put_nor_deleted() {
        let (first, own) = (coinbase(1, 50), payment(&[outpoint(1), outpoint(2)], &[1, 2]));
        let of = |tx: &bitcoin::Transaction, vout| OutPoint::new(tx.compute_txid(), vout);
        let spender = payment(&[of(&own, 1), outpoint(3)], &[1]);
        let left = [of(&first, 0), of(&own, 0), of(&spender, 0)].each_ref().map(outpoint_key);
        let block = checked(&block(vec![first, own, spender]));
        let effects = Effects::new(&ChainParams::new(Network::Regtest), &block, 1);
        let keys = |deletes: bool| -> Vec<&[u8]> {
            let ops = effects.batch.ops();
            let ops = ops.filter(|op| matches!(op, Op::Delete { .. }) == deletes);
            ops.map(|op| op.key()).collect()
        };
        assert_eq!(
            keys(true),
            [outpoint(1), outpoint(2), outpoint(3)].each_ref().map(outpoint_key)
        );
        assert_eq!(keys(false), left);
        assert!(effects.batch.ops().all(|op| !matches!(op, Op::Put { .. })), "all are new");
        assert!((0..4).all(|output| effects.created.get(output).is_some()), "for those who spend");
    }
}
