//! Stage: one block against the UTXO set (`ConnectBlock` in Bitcoin Core's `validation.cpp`,
//! without the scripts).
//!
//! Invariants:
//! - the batch deletes a coin only if it was in the store, and puts a coin as new only if it was
//!   not: a coin created and spent in the block appears in neither;
//! - the undo data have one coin for each input after the coinbase, in order.

use std::collections::HashMap;

use bitcoin::{OutPoint, Transaction, TxOut};
use cofferdam_storage::{Batch, Database as _};

use super::prefetch::external_coins;
use crate::Store;
use crate::block::{CheckedBlock, SIGOPS_COST_MAX, bip30_applies, bip30_repeat};
use crate::coin::{Coin, is_unspendable, outpoint_key};
use crate::error::Result;
use crate::headers::ChainView;
use crate::params::ChainParams;
use crate::pow::HeaderChain as _;
use crate::rejection::Rejection;
use crate::script::{ScriptFlags, block_script_flags};
use crate::subsidy::block_subsidy;
use crate::tables::COINS;
use crate::tx::{MONEY_MAX, check_sequence_locks, check_tx_inputs, tx_sigop_cost};
use crate::undo::{BlockUndo, TxUndo};

/// What a block is connected to.
#[derive(Debug)]
pub(crate) struct ConnectContext<'a> {
    pub(crate) params: &'a ChainParams,
    pub(crate) store: &'a Store,
    /// The chain that ends in the block's parent.
    pub(crate) parent: ChainView<'a>,
}

/// What connecting a block gives.
#[derive(Debug)]
pub(crate) struct Connected {
    /// Coins to put and delete.
    pub(crate) batch: Batch,
    /// The coins spent.
    pub(crate) undo: BlockUndo,
    /// The outputs each transaction spends, for the scripts.
    pub(crate) spent: Vec<Vec<TxOut>>,
    pub(crate) flags: ScriptFlags,
}

/// Checks amounts, maturity, locks and signature operations of `block`, and builds its effects.
pub(crate) fn connect_block(
    context: &ConnectContext<'_>,
    block: &CheckedBlock,
) -> Result<std::result::Result<Connected, Rejection>> {
    let height = context.parent.height() + 1;
    if bip30_applies(context.params, &context.parent, height, &block.hash)
        && let Some(rejection) = find_overwritten(context.store, block)?
    {
        return Ok(Err(rejection));
    }
    let mut connector = Connector {
        context,
        block,
        height,
        flags: block_script_flags(context.params, height, &block.hash),
        external: external_coins(context.store, block)?,
        created: HashMap::new(),
        batch: Batch::new(),
        undo: Vec::with_capacity(block.txids.len().saturating_sub(1)),
        spent: Vec::with_capacity(block.txids.len()),
        sigops_cost: 0,
        fees: 0,
    };
    if let Err(rejection) = connector.run() {
        return Ok(Err(rejection));
    }
    Ok(Ok(connector.finish()))
}

/// BIP-0030: no output of the block may overwrite an unspent one.
fn find_overwritten(store: &Store, block: &CheckedBlock) -> Result<Option<Rejection>> {
    for (tx, txid) in block.block.txdata.iter().zip(&block.txids) {
        for vout in output_indexes(tx) {
            if store.contains_key(COINS, outpoint_key(&OutPoint::new(*txid, vout)).as_ref())? {
                return Ok(Some(Rejection::consensus("bad-txns-BIP30")));
            }
        }
    }
    Ok(None)
}

/// Indexes of a transaction's outputs: a block has room for fewer than 2^32.
fn output_indexes(tx: &Transaction) -> std::ops::Range<u32> {
    0..u32::try_from(tx.output.len()).unwrap_or(u32::MAX)
}

struct Connector<'a> {
    context: &'a ConnectContext<'a>,
    block: &'a CheckedBlock,
    height: u32,
    flags: ScriptFlags,
    /// Coins of the store not yet spent by this block.
    external: HashMap<OutPoint, Coin>,
    /// Coins of this block not yet spent by it.
    created: HashMap<OutPoint, Coin>,
    batch: Batch,
    undo: Vec<TxUndo>,
    spent: Vec<Vec<TxOut>>,
    sigops_cost: u64,
    fees: u64,
}

impl Connector<'_> {
    fn run(&mut self) -> std::result::Result<(), Rejection> {
        let block = self.block;
        for (index, tx) in block.block.txdata.iter().enumerate() {
            let coins = if index == 0 { Vec::new() } else { self.spend(tx)? };
            let spent: Vec<TxOut> = coins.iter().map(|coin| coin.output.clone()).collect();
            self.sigops_cost += tx_sigop_cost(tx, &spent, self.flags);
            if self.sigops_cost > SIGOPS_COST_MAX {
                return Err(Rejection::consensus("bad-blk-sigops"));
            }
            self.create(index, tx);
            self.spent.push(spent);
            if index > 0 {
                self.undo.push(TxUndo(coins));
            }
        }
        self.check_reward()
    }

    /// Takes the coins that `tx` spends, and checks it against them.
    fn spend(&mut self, tx: &Transaction) -> std::result::Result<Vec<Coin>, Rejection> {
        let mut coins = Vec::with_capacity(tx.input.len());
        for input in &tx.input {
            let outpoint = input.previous_output;
            let coin = if let Some(coin) = self.created.remove(&outpoint) {
                coin
            } else if let Some(coin) = self.external.remove(&outpoint) {
                self.batch.delete(COINS, outpoint_key(&outpoint).as_ref());
                coin
            } else {
                return Err(Rejection::consensus("bad-txns-inputs-missingorspent"));
            };
            coins.push(coin);
        }
        self.fees = self
            .fees
            .checked_add(check_tx_inputs(tx, &coins, self.height)?)
            .filter(|&fees| fees <= MONEY_MAX)
            .ok_or_else(|| Rejection::consensus("bad-txns-accumulated-fee-outofrange"))?;
        check_sequence_locks(self.context.params, &self.context.parent, tx, &coins)?;
        Ok(coins)
    }

    fn create(&mut self, index: usize, tx: &Transaction) {
        let Some(&txid) = self.block.txids.get(index) else {
            return;
        };
        for (vout, output) in output_indexes(tx).zip(&tx.output) {
            if !is_unspendable(&output.script_pubkey) {
                let coin =
                    Coin { height: self.height, coinbase: index == 0, output: output.clone() };
                self.created.insert(OutPoint::new(txid, vout), coin);
            }
        }
    }

    fn check_reward(&self) -> std::result::Result<(), Rejection> {
        let outputs = self.block.block.txdata.first().map_or(&[][..], |coinbase| &coinbase.output);
        // CheckTransaction bounded the sum by MONEY_MAX.
        let paid: u64 = outputs.iter().map(|output| output.value.to_sat()).sum();
        if paid > self.fees + block_subsidy(self.height, self.context.params) {
            return Err(Rejection::consensus("bad-cb-amount"));
        }
        Ok(())
    }

    /// Puts what is left of the block's outputs, in the block's order.
    fn finish(mut self) -> Connected {
        let repeats = bip30_repeat(self.context.params, self.height, &self.block.hash);
        for (tx, &txid) in self.block.block.txdata.iter().zip(&self.block.txids) {
            for vout in output_indexes(tx) {
                let outpoint = OutPoint::new(txid, vout);
                let Some(coin) = self.created.remove(&outpoint) else {
                    continue;
                };
                let (key, value) = (outpoint_key(&outpoint), coin.encode());
                if repeats {
                    // The two blocks before BIP-0030 that overwrite a coin: it is not new.
                    self.batch.put(COINS, key.as_ref(), &value);
                } else {
                    self.batch.put_new(COINS, key.as_ref(), &value);
                }
            }
        }
        Connected {
            batch: self.batch,
            undo: BlockUndo(self.undo),
            spent: self.spent,
            flags: self.flags,
        }
    }
}
