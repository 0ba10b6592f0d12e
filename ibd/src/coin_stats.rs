//! `CoinStats`: size and `MuHash` of the UTXO set after each block, kept from block to block (Bitcoin
//! Core's `-coinstatsindex`, `index/coinstatsindex.cpp`), so that no scan is needed to know them.
//!
//! ```text
//! tree coinstats
//! key   height u32 BE | block hash 32
//! value outputs u64 LE | amount u64 LE | bogosize u64 LE | unspendable u64 LE | muhash 32
//!       | prevouts spent, coinbase, new outputs, bip30, scripts, unclaimed: u64 LE each
//! key   "at2"
//! value block hash 32 | outputs u64 LE | amount u64 LE | bogosize u64 LE | unspendable u64 LE
//!       | numerator 384 | denominator 384
//! ```
//!
//! What a block changes depends on nothing but the block and the coins it spends: it is computed on
//! the pool ([`CoinStatsDelta`]), and undone as it was done. A coinbase that a later one overwrites (BIP-0030) never
//! counts as a coin, as in Core's index: from its block to the repeat the set has one coin more than the statistics.

use std::fmt;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash as _;
use blvm_muhash::MuHash3072;

use crate::block::{CheckedBlock, bip30_unspendable};
use crate::coin::is_unspendable;
use crate::error::{Error, Result};
use crate::params::ChainParams;
use crate::pipeline::spent::SpentCoins;
use crate::subsidy::block_subsidy;
use crate::utxo_stats::{UtxoSetHash, bogosize, write_hashed_coin};

/// Length of a running state.
const RUNNING_LEN: usize = 768;

/// Key of the row that says how far the statistics go.
pub(crate) const AT_KEY: &[u8] = b"at2";

/// What a block did with money, in satoshis (Core's `block_info`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BlockAmounts {
    /// Of the coins that it spends.
    pub prevouts_spent: u64,
    /// Of its coinbase's spendable outputs.
    pub coinbase: u64,
    /// Of all other spendable outputs.
    pub new_outputs: u64,
    /// Of a coinbase that a later block overwrites (BIP-0030).
    pub bip30: u64,
    /// To scripts that nobody can satisfy.
    pub scripts: u64,
    /// Reward that the miner did not take.
    pub unclaimed: u64,
}

impl BlockAmounts {
    /// Returns what nobody can spend ever.
    #[must_use]
    pub const fn unspendable(&self) -> u64 {
        self.bip30.saturating_add(self.scripts).saturating_add(self.unclaimed)
    }

    /// What is left of spent coins and subsidy is unclaimed.
    fn claim(&mut self, subsidy: u64) {
        let had = self.prevouts_spent.saturating_add(subsidy);
        let given = self.new_outputs.saturating_add(self.coinbase);
        self.unclaimed = had.saturating_sub(given.saturating_add(self.bip30 + self.scripts));
    }

    /// Counts a spendable output.
    fn make(&mut self, value: u64, coinbase: bool) {
        *(if coinbase { &mut self.coinbase } else { &mut self.new_outputs }) += value;
    }

    const fn numbers(self) -> [u64; 6] {
        let Self { prevouts_spent, coinbase, new_outputs, bip30, scripts, unclaimed } = self;
        [prevouts_spent, coinbase, new_outputs, bip30, scripts, unclaimed]
    }
}

/// Size and hash of the UTXO set after a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CoinStats {
    /// Number of coins.
    pub txouts: u64,
    /// Sum of the amounts in satoshis.
    pub total_amount: u64,
    /// A measure of size that no database changes.
    pub bogosize: u64,
    /// Sum of all amounts that are in no set any more and never will be, the genesis block's
    /// included.
    pub unspendable: u64,
    /// The hash, as [`UtxoStats::muhash`](crate::UtxoStats::muhash).
    pub muhash: UtxoSetHash,
    /// What the block itself did.
    pub block: BlockAmounts,
}

impl CoinStats {
    /// Encodes the value of a row.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(32 + 32 + 48);
        for number in [self.txouts, self.total_amount, self.bogosize, self.unspendable] {
            row.extend_from_slice(&number.to_le_bytes());
        }
        row.extend_from_slice(&self.muhash.0);
        for number in self.block.numbers() {
            row.extend_from_slice(&number.to_le_bytes());
        }
        row
    }

    /// Decodes the value of a row.
    pub(crate) fn decode(row: &[u8]) -> Result<Self> {
        let (totals, rest) = Totals::split(row)?;
        let (muhash, rest) = rest.split_first_chunk::<32>().ok_or_else(corrupt)?;
        let rest: &[u8; 48] = rest.try_into().map_err(|_| corrupt())?;
        let mut numbers = rest.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
        let mut next = || numbers.next().ok_or_else(corrupt);
        let block = BlockAmounts {
            prevouts_spent: next()?,
            coinbase: next()?,
            new_outputs: next()?,
            bip30: next()?,
            scripts: next()?,
            unclaimed: next()?,
        };
        let Totals { txouts, total_amount, bogosize, unspendable } = totals;
        let muhash = UtxoSetHash(*muhash);
        Ok(Self { txouts, total_amount, bogosize, unspendable, muhash, block })
    }
}

fn corrupt() -> Error {
    Error::Corrupt { what: "a row of the coin statistics that nobody wrote".to_owned() }
}

/// Sums over coins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Totals {
    txouts: u64,
    total_amount: u64,
    bogosize: u64,
    unspendable: u64,
}

impl Totals {
    /// Reads the four numbers at the front of a row.
    fn split(row: &[u8]) -> Result<(Self, &[u8])> {
        let (numbers, rest) = row.split_first_chunk::<32>().ok_or_else(corrupt)?;
        let mut numbers = numbers.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
        let mut next = || numbers.next().ok_or_else(corrupt);
        let totals = Self {
            txouts: next()?,
            total_amount: next()?,
            bogosize: next()?,
            unspendable: next()?,
        };
        Ok((totals, rest))
    }

    fn add(&mut self, value: u64, script_len: usize) {
        self.txouts += 1;
        // A block's coins have fewer than 2^20 times all money there is.
        self.total_amount = self.total_amount.saturating_add(value);
        self.bogosize += bogosize(script_len);
    }

    /// Adds `plus` and takes `minus` off.
    fn change(self, plus: Self, minus: Self) -> Option<Self> {
        let change = |a: u64, b: u64, c: u64| a.checked_add(b)?.checked_sub(c);
        Some(Self {
            txouts: change(self.txouts, plus.txouts, minus.txouts)?,
            total_amount: change(self.total_amount, plus.total_amount, minus.total_amount)?,
            bogosize: change(self.bogosize, plus.bogosize, minus.bogosize)?,
            unspendable: change(self.unspendable, plus.unspendable, minus.unspendable)?,
        })
    }
}

/// The coins that a block makes and spends, summed up.
#[derive(Default)]
pub(crate) struct CoinStatsDelta {
    made: Totals,
    spent: Totals,
    amounts: BlockAmounts,
    /// Made coins over spent ones.
    muhash: MuHash3072,
}

// A number of 3,072 bits has nothing to show.
impl fmt::Debug for CoinStatsDelta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("CoinStatsDelta");
        shown.field("made", &self.made).field("spent", &self.spent).finish_non_exhaustive()
    }
}

impl fmt::Debug for RunningCoinStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("RunningCoinStats");
        shown.field("at", &self.at).field("totals", &self.totals).finish_non_exhaustive()
    }
}

impl CoinStatsDelta {
    /// Sums up a block at `height` and the coins it spends.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Corrupt`] if a spent coin cannot be read.
    pub(crate) fn new(
        params: &ChainParams,
        block: &CheckedBlock,
        height: u32,
        spent: &SpentCoins,
    ) -> Result<Self> {
        let mut delta = Self::default();
        let mut bytes = Vec::new();
        let txs = block.txs();
        let subsidy = block_subsidy(height, params);
        let is_lost = bip30_unspendable(params, height, &block.hash());
        for (index, (tx, txid)) in txs.iter().zip(block.txids()).enumerate() {
            if index == 0 && is_lost {
                delta.amounts.bip30 = subsidy;
                continue;
            }
            for (vout, output) in (0_u32..).zip(tx.outputs()) {
                if is_unspendable(output.script) {
                    delta.amounts.scripts += output.value;
                    continue;
                }
                delta.amounts.make(output.value, index == 0);
                let outpoint = (txid.as_byte_array(), vout);
                let script = output.script.as_bytes();
                let coin = (height, index == 0);
                write_hashed_coin(outpoint, coin, (output.value, script), &mut bytes);
                delta.made.add(output.value, script.len());
                delta.muhash.insert_mut(&bytes);
            }
        }
        let mut script = Vec::new();
        let inputs = txs.iter().skip(1).flat_map(|tx| tx.inputs());
        for (input, coin) in inputs.zip(spent.coins()) {
            let coin = coin?;
            script.clear();
            coin.script.decompress_into(&mut script)?;
            let origin = (coin.height, coin.coinbase);
            let output = (coin.value, script.as_slice());
            write_hashed_coin(input.txid_and_vout(), origin, output, &mut bytes);
            delta.spent.add(coin.value, script.len());
            delta.amounts.prevouts_spent += coin.value;
            delta.muhash.remove_mut(&bytes);
        }
        delta.amounts.claim(subsidy);
        delta.made.unspendable = delta.amounts.unspendable();
        Ok(delta)
    }
}

/// The statistics as they run from block to block.
#[derive(Clone)]
pub(crate) struct RunningCoinStats {
    /// The block after which the set is as these say.
    pub(crate) at: BlockHash,
    totals: Totals,
    muhash: MuHash3072,
    /// Of the last block that was connected.
    amounts: BlockAmounts,
}

impl RunningCoinStats {
    /// The empty set, after the genesis block: its coinbase, of that amount, makes no coin.
    pub(crate) fn new(genesis: BlockHash, unspendable: u64) -> Self {
        let totals = Totals { unspendable, ..Totals::default() };
        let amounts = BlockAmounts::default();
        Self { at: genesis, totals, muhash: MuHash3072::new(), amounts }
    }

    /// Goes one block up; `block` is the one that the delta is of.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Corrupt`] if more is spent than there is.
    pub(crate) fn connect(&mut self, block: BlockHash, delta: &CoinStatsDelta) -> Result<()> {
        self.totals = self.totals.change(delta.made, delta.spent).ok_or_else(corrupt)?;
        self.muhash.multiply_mut(&delta.muhash);
        self.amounts = delta.amounts;
        self.at = block;
        Ok(())
    }

    /// Goes one block down, to `parent`; the delta is of the block above.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Corrupt`] if the block made more than there is.
    pub(crate) fn disconnect(&mut self, parent: BlockHash, delta: &CoinStatsDelta) -> Result<()> {
        self.totals = self.totals.change(delta.spent, delta.made).ok_or_else(corrupt)?;
        self.muhash = std::mem::take(&mut self.muhash).divide(&delta.muhash);
        self.at = parent;
        Ok(())
    }

    /// Returns the statistics after the block, which was connected last.
    pub(crate) fn stats(&self) -> CoinStats {
        let Totals { txouts, total_amount, bogosize, unspendable } = self.totals;
        let muhash = UtxoSetHash(self.muhash.clone().finalize());
        CoinStats { txouts, total_amount, bogosize, unspendable, muhash, block: self.amounts }
    }

    /// Encodes the row of [`AT_KEY`].
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(32 + 32 + RUNNING_LEN);
        row.extend_from_slice(self.at.as_byte_array());
        let Totals { txouts, total_amount, bogosize, unspendable } = self.totals;
        for number in [txouts, total_amount, bogosize, unspendable] {
            row.extend_from_slice(&number.to_le_bytes());
        }
        row.extend_from_slice(&self.muhash.serialize_running_state());
        row
    }

    /// Decodes the row of [`AT_KEY`].
    ///
    /// # Errors
    ///
    /// Returns [`Error::Corrupt`] if the bytes are no such row.
    pub(crate) fn decode(row: &[u8]) -> Result<Self> {
        let (at, rest) = row.split_first_chunk::<32>().ok_or_else(corrupt)?;
        let (totals, rest) = Totals::split(rest)?;
        let running: &[u8; RUNNING_LEN] = rest.try_into().map_err(|_| corrupt())?;
        let muhash = MuHash3072::deserialize_running_state(running);
        let amounts = BlockAmounts::default();
        Ok(Self { at: BlockHash::from_byte_array(*at), totals, muhash, amounts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_back_and_others_refused() {
        let mut running = RunningCoinStats::new(BlockHash::from_byte_array([7; 32]), 4);
        running.totals = Totals { txouts: 1, total_amount: 2, bogosize: 3, unspendable: 4 };
        running.muhash.insert_mut(b"coin");
        let row = running.encode();
        let read = RunningCoinStats::decode(&row).unwrap();
        assert_eq!((read.at, read.stats()), (running.at, running.stats()));
        assert_eq!(CoinStats::decode(&running.stats().encode()).unwrap(), running.stats());
        for len in 0..row.len() {
            assert!(RunningCoinStats::decode(&row[..len]).is_err(), "{len}");
            assert_eq!(CoinStats::decode(&row[..len]).is_ok(), len == 112, "{len}");
        }
    }

    #[test]
    fn down_is_the_opposite_of_up() {
        let genesis = BlockHash::from_byte_array([0; 32]);
        let block = BlockHash::from_byte_array([1; 32]);
        let mut running = RunningCoinStats::new(genesis, 50);
        running.totals.add(5, 25);
        running.muhash.insert_mut(b"old");
        let before = running.stats();
        let mut delta = CoinStatsDelta::default();
        delta.made.add(4, 22);
        delta.muhash.insert_mut(b"new");
        delta.spent.add(5, 25);
        delta.muhash.remove_mut(b"old");
        running.connect(block, &delta).unwrap();
        let after = running.stats();
        assert_eq!((running.at, after.txouts, after.total_amount), (block, 1, 4));
        assert_eq!(after.muhash.0, MuHash3072::new().insert(b"new").finalize());
        running.disconnect(genesis, &delta).unwrap();
        assert_eq!((running.at, running.stats()), (genesis, before));
        assert_eq!(before.unspendable, 50);
        // What is not there cannot be taken away.
        assert!(RunningCoinStats::new(genesis, 50).connect(block, &delta).is_err());
    }
}
