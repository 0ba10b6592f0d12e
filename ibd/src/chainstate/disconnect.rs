//! Taking the tip's effects back (`DisconnectBlock` in Bitcoin Core's `validation.cpp`).
//!
//! The pair of [`crate::pipeline::connect`]: after connecting and disconnecting a block the coins
//! are the same bytes as before.

use std::collections::BTreeMap;

use bitcoin::{OutPoint, Txid};
use cofferdam_storage::{Batch, Database as _, PAYLOAD_BYTES_MAX};

use super::{BlockRef, Chainstate, ROWS_MAX, block_batch, corrupt};
use crate::Store;
use crate::block::{CheckedBlock, WEIGHT_MAX, bip30_unspendable};
use crate::coin::{Coin, OUTPOINT_KEY_LEN, is_unspendable, outpoint_key};
use crate::compress::SCRIPT_LEN_MAX;
use crate::error::{Error, Result};
use crate::headers::HeaderEntry;
use crate::params::ChainParams;
use crate::pipeline::load::load_block;
use crate::tables::COINS;
use crate::undo::BlockUndo;
use crate::wire::{InputRef, TxRef};

/// More than the record of any disconnection has. What a block restores may be many times its own size: an input of 41
/// bytes spends a script of 10,000. Counted as if the block had nothing but inputs, and nothing but outputs besides.
const fn record_bytes_max() -> u64 {
    // Outpoint, no script, sequence; amount, no script. Each byte weighs four.
    let (input_weight, output_weight) = (4 * (36 + 1 + 4), 4 * (8 + 1));
    // What a batch says before a key; height, amount and script's length, each as a VARINT.
    let restored = 8 + OUTPOINT_KEY_LEN as u64 + 5 + 10 + 3 + SCRIPT_LEN_MAX as u64;
    let removed = 4 + OUTPOINT_KEY_LEN as u64;
    let rows = (ROWS_MAX as u64 + 1) * (8 + 36 + 80 + 1 + 4 + 2 * 16);
    let tip = 4 + 32 + 32;
    WEIGHT_MAX / input_weight * restored + WEIGHT_MAX / output_weight * removed + rows + tip
}

const _: () =
    assert!(record_bytes_max() <= PAYLOAD_BYTES_MAX as u64, "any block can be taken back");

impl Chainstate {
    /// Disconnects the tip: its parent is the tip afterwards, in one batch of the log.
    pub(super) fn disconnect_tip(&mut self) -> Result<()> {
        let tip = self.block_ref(self.tip);
        let entry = self.headers.entry(self.tip);
        let parent =
            entry.parent.ok_or_else(|| corrupt("the genesis block cannot be disconnected"))?;
        let (block, undo, undo_bytes) = self
            .load_to_disconnect(&entry)
            .map_err(|error| Error::Disconnect { source: Box::new(error) })?;

        let mut disconnector = Disconnector {
            params: &self.params,
            store: &self.store,
            block: tip,
            batch: Batch::new(),
            restored: BTreeMap::new(),
        };
        disconnector.run(&block, undo)?;
        let mut batch = disconnector.finish();
        // What can fail comes before the commit: after it the tip has moved.
        let delta = self.tip_delta(&block, undo_bytes)?;
        let rows = self.take_dirty(&mut batch);
        let below = self.block_ref(parent);
        if let Err(error) = self.store.commit(block_batch(below, tip.hash, batch)) {
            self.dirty.extend(rows);
            return Err(error.into());
        }
        let at = std::mem::replace(&mut self.tip, parent);
        delta.map_or(Ok(()), |delta| self.disconnect_stats(at, &delta))
    }

    /// Reads a block and its undo data, the latter as bytes as well.
    fn load_to_disconnect(
        &self,
        entry: &HeaderEntry,
    ) -> Result<(CheckedBlock, BlockUndo, Vec<u8>)> {
        let missing = || corrupt(format!("block {} or its undo data are not stored", entry.hash));
        let (block, undo) = entry.block.zip(entry.undo).ok_or_else(missing)?;
        let block = load_block(&self.files, &self.params, block)?;
        let undo_bytes = self.files.read_undo(undo)?;
        let undo = BlockUndo::decode(&undo_bytes)?;
        Ok((block, undo, undo_bytes))
    }
}

/// Builds the batch that takes a block's effects back.
struct Disconnector<'a> {
    params: &'a ChainParams,
    store: &'a Store,
    block: BlockRef,
    batch: Batch,
    /// Coins that the block spent and, as far as was seen from its end, did not create.
    restored: BTreeMap<OutPoint, Coin>,
}

impl Disconnector<'_> {
    /// Goes through the block from its last transaction to its first, so that a coin created and
    /// spent in it is restored by its spender and then removed by its creator.
    fn run(&mut self, block: &CheckedBlock, undo: BlockUndo) -> Result<()> {
        let foreign =
            || corrupt(format!("the undo data of block {} are not its own", self.block.hash));
        if undo.0.len() + 1 != block.txids().len() {
            return Err(foreign());
        }
        // The coinbase, which comes last here, has no undo data.
        let mut undo = undo.0;
        for (tx, &txid) in block.txs().iter().zip(block.txids()).rev() {
            self.remove_outputs(tx, txid)?;
            let Some(spent) = undo.pop() else { continue };
            if spent.0.len() != tx.input_count() {
                return Err(corrupt(format!(
                    "the undo data of transaction {txid} are not its own"
                )));
            }
            let outpoints = tx.inputs().map(InputRef::outpoint);
            self.restored.extend(outpoints.zip(spent.0));
        }
        Ok(())
    }

    fn remove_outputs(&mut self, tx: TxRef<'_>, txid: Txid) -> Result<()> {
        for (vout, output) in (0_u32..).zip(tx.outputs()) {
            if is_unspendable(output.script) {
                continue;
            }
            let outpoint = OutPoint::new(txid, vout);
            let created = Coin {
                height: self.block.height,
                coinbase: tx.is_coinbase(),
                output: output.into(),
            };
            let found = match self.restored.remove(&outpoint) {
                Some(coin) => Some(coin),
                None => {
                    let key = outpoint_key(&outpoint);
                    let value = self.store.get(COINS, &key)?;
                    self.batch.delete(COINS, &key);
                    value.map(|value| Coin::decode(&value)).transpose()?
                }
            };
            // The coinbases of two blocks were overwritten by later ones before BIP-0030.
            let overwritten =
                || bip30_unspendable(self.params, self.block.height, &self.block.hash);
            if found != Some(created) && !overwritten() {
                return Err(corrupt(format!(
                    "coin {outpoint} is not as block {} left it",
                    self.block.hash
                )));
            }
        }
        Ok(())
    }

    fn finish(self) -> Batch {
        let Self { mut batch, restored, .. } = self;
        // Coin by coin: what is in the batch need not be there twice, for it may be much.
        for (outpoint, coin) in restored {
            batch.put(COINS, &outpoint_key(&outpoint), &coin.encode());
        }
        batch
    }
}
