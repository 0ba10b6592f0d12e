//! `SpentCoins`: what a block spent, as the undo data that are written to disk and as what its
//! scripts are run against. One buffer is both.

use bitcoin::Script;

use crate::coin::CoinRef;
use crate::compress::write_varint;
use crate::error::Result;
use crate::undo::{COIN_LEN_MIN, read_size, read_undo_coin, write_size};
use crate::wire::OutputRef;

/// Bytes of a usual coin in undo data, for a first guess.
const COIN_LEN: usize = 34;

/// The coins that a block spends, in the bytes of its undo data.
#[derive(Debug, Default)]
pub(crate) struct SpentCoins {
    undo: Vec<u8>,
    /// Where each coin begins, in the order of the block's inputs after the coinbase.
    coins: Vec<u32>,
}

impl SpentCoins {
    /// Begins the undo data of a block with that many transactions and inputs.
    pub(crate) fn new(txs: usize, inputs: usize) -> Self {
        let mut spent = Self {
            undo: Vec::with_capacity(inputs * COIN_LEN + txs + 9),
            coins: Vec::with_capacity(inputs),
        };
        // The coinbase has no undo data.
        write_size(txs.saturating_sub(1), &mut spent.undo);
        spent
    }

    /// Adds the coins that the next transaction spends.
    pub(crate) fn push_tx(&mut self, coins: &[CoinRef<'_>]) {
        write_size(coins.len(), &mut self.undo);
        for coin in coins {
            self.coins.push(u32::try_from(self.undo.len()).unwrap_or(u32::MAX));
            write_varint(u64::from(coin.height) * 2 + u64::from(coin.coinbase), &mut self.undo);
            if coin.height > 0 {
                // Where versions before Core 0.15 had the version of the spent transaction.
                self.undo.push(0);
            }
            self.undo.extend_from_slice(coin.output);
        }
    }

    /// Returns the block's undo data, as [`BlockUndo`](crate::undo::BlockUndo) reads them.
    pub(crate) fn undo(&self) -> &[u8] {
        &self.undo
    }

    /// Returns the number of coins.
    pub(crate) fn len(&self) -> usize {
        self.coins.len()
    }

    /// Reads the outputs of `count` coins from the one with index `first` on.
    pub(crate) fn read_outputs(
        &self,
        first: usize,
        count: usize,
        outputs: &mut SpentOutputs,
    ) -> Result<()> {
        outputs.scripts.clear();
        outputs.spans.clear();
        // Not one that is skipped may be read: that would cost the square of the block's inputs.
        for &at in self.coins.iter().skip(first).take(count) {
            let coin = self.read_coin(at)?;
            let start = outputs.scripts.len();
            coin.script.decompress_into(&mut outputs.scripts)?;
            outputs.spans.push((coin.value, start, outputs.scripts.len()));
        }
        Ok(())
    }

    /// Reads the coins, in the order of the block's inputs after the coinbase.
    pub(crate) fn coins(&self) -> impl Iterator<Item = Result<CoinRef<'_>>> {
        self.coins.iter().map(|&at| self.read_coin(at))
    }

    fn read_coin(&self, at: u32) -> Result<CoinRef<'_>> {
        let mut bytes = self.undo.get(at as usize..).unwrap_or_default();
        read_undo_coin(&mut bytes)
    }

    /// Takes undo data that were read from disk.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Corrupt`](crate::Error::Corrupt) if the bytes are not exactly undo data.
    pub(crate) fn from_undo(undo: Vec<u8>) -> Result<Self> {
        let mut coins = Vec::new();
        let mut rest = undo.as_slice();
        for _ in 0..read_size(&mut rest, 1)? {
            for _ in 0..read_size(&mut rest, COIN_LEN_MIN)? {
                coins.push(u32::try_from(undo.len() - rest.len()).unwrap_or(u32::MAX));
                read_undo_coin(&mut rest)?;
            }
        }
        if rest.is_empty() {
            Ok(Self { undo, coins })
        } else {
            Err(crate::Error::Corrupt { what: "bytes after undo data".to_owned() })
        }
    }
}

/// The outputs that one transaction spends; kept from one to the next for its memory.
#[derive(Debug, Default)]
pub(crate) struct SpentOutputs {
    scripts: Vec<u8>,
    /// Amount, and where the script begins and ends.
    spans: Vec<(u64, usize, usize)>,
}

impl SpentOutputs {
    /// Returns the outputs, in the order of the inputs.
    pub(crate) fn refs(&self) -> Vec<OutputRef<'_>> {
        let output = |&(value, start, end): &(u64, usize, usize)| OutputRef {
            value,
            script: Script::from_bytes(self.scripts.get(start..end).unwrap_or_default()),
        };
        self.spans.iter().map(output).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coin::Coin;
    use crate::undo::{BlockUndo, TxUndo};
    use bitcoin::{Amount, ScriptBuf, TxOut};

    fn coin(height: u32, coinbase: bool, amount: u64, script: &str) -> Coin {
        let script_pubkey = ScriptBuf::from_hex(script).unwrap();
        Coin { height, coinbase, output: TxOut { value: Amount::from_sat(amount), script_pubkey } }
    }

    #[test]
    fn the_buffer_is_the_undo_data_and_the_spent_outputs() {
        let p2pkh = format!("76a914{}88ac", "11".repeat(20));
        let full_key = "410411db93e1dcdb8a016b49840f8c53bc1eb68a382e97b1482ecad7b148a6909a5c\
                        b2e0eaddfb84ccf9744464f82e160bfa9b8b64f9d4c03f999b8643f656b412a3ac";
        let txs = [
            vec![coin(0, false, 1, &p2pkh), coin(9, true, 5_000_000_000, full_key)],
            vec![coin(800_000, false, 546, &format!("5120{}", "79".repeat(32)))],
        ];
        let mut spent = SpentCoins::new(3, 3);
        for coins in &txs {
            let bytes: Vec<Vec<u8>> = coins.iter().map(Coin::encode).collect();
            let refs: Vec<CoinRef<'_>> = bytes.iter().map(|b| CoinRef::parse(b).unwrap()).collect();
            spent.push_tx(&refs);
        }
        let undo = BlockUndo(txs.iter().cloned().map(TxUndo).collect());
        assert_eq!(spent.undo(), undo.encode());
        assert_eq!(spent.len(), 3);
        let read = SpentCoins::from_undo(spent.undo().to_vec()).unwrap();
        assert_eq!((read.coins.as_slice(), read.len()), (spent.coins.as_slice(), 3));
        assert!(SpentCoins::from_undo(spent.undo()[..spent.undo().len() - 1].to_vec()).is_err());
        let mut outputs = SpentOutputs::default();
        for (first, coins) in [(0, &txs[0]), (2, &txs[1])] {
            spent.read_outputs(first, coins.len(), &mut outputs).unwrap();
            let read: Vec<TxOut> = outputs.refs().into_iter().map(TxOut::from).collect();
            let expected: Vec<TxOut> = coins.iter().map(|coin| coin.output.clone()).collect();
            assert_eq!(read, expected);
        }
    }
}
