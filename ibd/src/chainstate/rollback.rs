//! `CoinChanges`: what the UTXO set was below the tip, as differences to what it is.
//!
//! Nothing is written: [`super::disconnect`] is what moves the tip.

use std::collections::BTreeMap;

use bitcoin::OutPoint;

use super::{BlockRef, corrupt};
use crate::block::{CheckedBlock, bip30_unspendable};
use crate::coin::{Coin, is_unspendable};
use crate::error::Result;
use crate::params::ChainParams;
use crate::undo::BlockUndo;
use crate::wire::{InputRef, TxRef};

/// Reads a coin of the set as it is.
pub(super) type ReadCoin<'a> = &'a dyn Fn(&OutPoint) -> Result<Option<Coin>>;

/// Coins that are otherwise some blocks below the tip, in the order of the set.
#[derive(Clone, Debug, Default)]
pub struct CoinChanges {
    coins: BTreeMap<OutPoint, Option<Coin>>,
}

impl CoinChanges {
    /// Returns how many coins differ.
    #[must_use]
    pub fn len(&self) -> usize {
        self.coins.len()
    }

    /// Returns whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.coins.is_empty()
    }

    /// Takes the effects of a block back, with its undo data; the block above it was taken back
    /// before.
    ///
    /// # Errors
    ///
    /// Returns [`crate::Error::Corrupt`] if the undo data are not the block's.
    pub fn disconnect(
        &mut self,
        params: &ChainParams,
        block: &CheckedBlock,
        at: BlockRef,
        undo: BlockUndo,
    ) -> Result<()> {
        self.disconnect_checked((params, None), block, at, undo).map(|_| ())
    }

    /// Disconnects; with something to read coins with, returns whether all were as the block left
    /// them.
    pub(super) fn disconnect_checked(
        &mut self,
        (params, read): (&ChainParams, Option<ReadCoin<'_>>),
        block: &CheckedBlock,
        at: BlockRef,
        undo: BlockUndo,
    ) -> Result<bool> {
        let foreign = || corrupt(format!("the undo data of block {} are not its own", at.hash));
        if undo.0.len() + 1 != block.txids().len() {
            return Err(foreign());
        }
        let mut clean = true;
        let overwritten = bip30_unspendable(params, at.height, &at.hash);
        // The coinbase, which comes last here, has no undo data.
        let mut undo = undo.0;
        for (tx, &txid) in block.txs().iter().zip(block.txids()).rev() {
            for (vout, output) in (0_u32..).zip(tx.outputs()) {
                if is_unspendable(output.script) {
                    continue;
                }
                let outpoint = OutPoint::new(txid, vout);
                if let Some(read) = read {
                    let created = Coin {
                        height: at.height,
                        coinbase: TxRef::is_coinbase(tx),
                        output: output.into(),
                    };
                    clean &= self.read(&outpoint, read)? == Some(created) || overwritten;
                }
                self.coins.insert(outpoint, None);
            }
            let Some(spent) = undo.pop() else { continue };
            if spent.0.len() != tx.input_count() {
                return Err(foreign());
            }
            for (outpoint, coin) in tx.inputs().map(InputRef::outpoint).zip(spent.0) {
                if let Some(read) = read {
                    clean &= self.read(&outpoint, read)?.is_none();
                }
                self.coins.insert(outpoint, Some(coin));
            }
        }
        Ok(clean)
    }

    fn read(&self, outpoint: &OutPoint, read: ReadCoin<'_>) -> Result<Option<Coin>> {
        self.coins.get(outpoint).map_or_else(|| read(outpoint), |coin| Ok(coin.clone()))
    }

    /// Returns the set as it was, given the set as it is, in its order.
    pub fn apply<'a>(
        &'a self,
        coins: impl Iterator<Item = Result<(OutPoint, Coin)>> + 'a,
    ) -> impl Iterator<Item = Result<(OutPoint, Coin)>> + 'a {
        let mut coins = coins.peekable();
        let mut changes = self.coins.iter().peekable();
        std::iter::from_fn(move || {
            loop {
                let next = match coins.peek() {
                    Some(Ok((outpoint, _))) => Some(*outpoint),
                    Some(Err(_)) => return coins.next(),
                    None => None,
                };
                let changed = changes.peek().map(|(outpoint, _)| **outpoint);
                let Some(changed) = changed.filter(|at| next.is_none_or(|next| *at <= next)) else {
                    return coins.next();
                };
                if next == Some(changed) {
                    coins.next();
                }
                if let Some((outpoint, Some(coin))) = changes.next() {
                    return Some(Ok((*outpoint, coin.clone())));
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::outpoint;
    use bitcoin::{Amount, ScriptBuf, TxOut};

    fn coin(height: u32) -> Coin {
        let script_pubkey = ScriptBuf::from_bytes(vec![0x51]);
        let output = TxOut { value: Amount::from_sat(1), script_pubkey };
        Coin { height, coinbase: false, output }
    }

    #[test]
    fn changes_replace_remove_and_add_in_order() {
        let set = [2, 4, 6].map(|n| Ok((outpoint(n), coin(u32::from(n)))));
        let coins = BTreeMap::from([
            (outpoint(1), Some(coin(10))),
            (outpoint(2), None),
            (outpoint(3), None),
            (outpoint(4), Some(coin(40))),
            (outpoint(7), Some(coin(70))),
        ]);
        let changes = CoinChanges { coins };
        let was: Result<Vec<_>> = changes.apply(set.into_iter()).collect();
        let expected = [(1, 10), (4, 40), (6, 6), (7, 70)].map(|(n, h)| (outpoint(n), coin(h)));
        assert_eq!(was.expect("no error"), expected);
    }
}
