//! Reading the chain: blocks, coins, statistics, progress.

use std::ops::AddAssign;
use std::sync::{Arc, MutexGuard, PoisonError};

use bitcoin::consensus::serialize;
use bitcoin::{BlockHash, OutPoint, Transaction, TxOut};
use cofferdam_storage::{Database as _, KeyRange};

use super::{BlockRef, Chainstate};
use crate::block::CheckedBlock;
use crate::block_files::BlockFiles;
use crate::coin::{Coin, outpoint_key, parse_outpoint_key};
use crate::error::{Error, Result};
use crate::headers::HeaderRef;
use crate::pipeline::prefetch::CoinReader;
use crate::script::ScriptFlags;
use crate::tables::COINS;
use crate::undo::BlockUndo;
use crate::unknown_rules::UnknownRules;
use crate::utxo_stats::{UtxoHash, UtxoStats};
use crate::versionbits::{Deployment, DeploymentInfo, VersionBitsCache};
use crate::wire::{OutputRef, Transactions};

/// A block this near to the time is as good as new (Bitcoin Core: two hours).
const NEAR_SECONDS: f64 = 2.0 * 60.0 * 60.0;

/// Reads all coins of a chainstate, on any thread.
#[derive(Clone, Debug)]
pub struct CoinScanner {
    reader: CoinReader,
}

impl CoinScanner {
    /// Whether an iteration shows the coins of the moment in which it began, whatever is connected
    /// meanwhile. If not, no block may be connected while it runs.
    #[must_use]
    pub fn is_of_one_moment(&self) -> bool {
        self.reader.iterates_over_snapshots()
    }

    /// Iterates over all unspent outputs, as [`Chainstate::coins`] does.
    ///
    /// # Errors
    ///
    /// Returns [`crate::Error`] if the store cannot be read.
    pub fn coins(&self) -> Result<impl Iterator<Item = Result<(OutPoint, Coin)>> + '_> {
        Ok(self.reader.range(COINS, &KeyRange::prefix(&[]))?.map(|entry| {
            let (key, value) = entry?;
            Ok((parse_outpoint_key(&key)?, Coin::decode(&value)?))
        }))
    }
}

/// Below 2^53 nothing is lost, and no chain has that many transactions.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
const fn as_f64(number: u64) -> f64 {
    number as f64
}

/// What was connected since the chainstate was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Blocks.
    pub blocks: u64,
    /// Transactions.
    pub transactions: u64,
    /// Inputs, without coinbases.
    pub inputs: u64,
    /// Bytes of blocks.
    pub bytes: u64,
}

impl Progress {
    pub(super) fn of(block: &CheckedBlock, inputs: usize) -> Self {
        Self {
            blocks: 1,
            transactions: block.txids().len() as u64,
            inputs: inputs as u64,
            bytes: block.total_size() as u64,
        }
    }
}

impl AddAssign for Progress {
    fn add_assign(&mut self, other: Self) {
        self.blocks += other.blocks;
        self.transactions += other.transactions;
        self.inputs += other.inputs;
        self.bytes += other.bytes;
    }
}

impl Chainstate {
    /// Returns what was connected since the chainstate was opened.
    #[must_use]
    pub const fn progress(&self) -> Progress {
        self.connected
    }

    /// Returns whether the block's bytes are stored.
    #[must_use]
    pub fn has_block(&self, hash: &BlockHash) -> bool {
        self.headers.get(hash).is_some_and(|at| self.headers.entry(at).block.is_some())
    }

    /// Reads a stored block's bytes, without Core's frame.
    ///
    /// # Errors
    ///
    /// Returns [`crate::Error::Corrupt`] if the file no longer has the bytes that were written.
    pub fn read_block(&self, hash: &BlockHash) -> Result<Option<Vec<u8>>> {
        let extent = self.headers.get(hash).and_then(|at| self.headers.entry(at).block);
        extent.map(|extent| self.files.read_block(extent)).transpose()
    }

    /// Reads what a connected block spent; `None` if the block was never connected.
    ///
    /// # Errors
    ///
    /// Returns [`crate::Error::Corrupt`] if the file no longer has the bytes that were written.
    pub fn read_undo(&self, hash: &BlockHash) -> Result<Option<BlockUndo>> {
        let extent = self.headers.get(hash).and_then(|at| self.headers.entry(at).undo);
        extent.map(|extent| BlockUndo::decode(&self.files.read_undo(extent)?)).transpose()
    }

    /// Returns the block of the connected chain at `height`.
    #[must_use]
    pub fn block_at(&self, height: u32) -> Option<BlockRef> {
        self.headers.ancestor(self.tip, height).map(|at| self.block_ref(at))
    }

    /// Returns whether the block is part of the connected chain.
    #[must_use]
    pub fn is_connected(&self, at: HeaderRef) -> bool {
        self.headers.is_ancestor(at, self.tip)
    }

    /// Reads an unspent output.
    ///
    /// # Errors
    ///
    /// Returns [`crate::Error`] if the store cannot be read.
    pub fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>> {
        let value = self.store.get(COINS, outpoint_key(outpoint).as_ref())?;
        value.map(|value| Coin::decode(&value)).transpose()
    }

    /// Returns whether an input's script and witness satisfy all rules of scripts there are;
    /// `spent` has the outputs that the transaction's inputs spend, in their order.
    ///
    /// # Errors
    ///
    /// Returns [`crate::Error`] if there is no such input, or the library cannot be asked.
    pub fn verify_input(&self, tx: &Transaction, spent: &[TxOut], input: usize) -> Result<bool> {
        let what = || Error::Script { what: format!("no input {input}") };
        let txs = Transactions::of_transaction(serialize(tx)).map_err(|_| what())?;
        let spent = spent.iter().map(|output| OutputRef {
            value: output.value.to_sat(),
            script: &output.script_pubkey,
        });
        let spent: Vec<OutputRef<'_>> = spent.collect();
        let view = txs.first().filter(|tx| input < tx.input_count()).ok_or_else(what)?;
        let prepared = self.verifier().prepare(view, &spent, ScriptFlags::ALL)?;
        Ok(prepared.verify_input(input))
    }

    /// Iterates over all unspent outputs, in the order of transaction ids and output indexes.
    ///
    /// # Errors
    ///
    /// Returns [`crate::Error`] if the store cannot be read.
    pub fn coins(&self) -> Result<impl Iterator<Item = Result<(OutPoint, Coin)>> + '_> {
        Ok(self.store.prefix(COINS, &[])?.map(|entry| {
            let (key, value) = entry?;
            Ok((parse_outpoint_key(&key)?, Coin::decode(&value)?))
        }))
    }

    /// Returns what any thread can read all coins with.
    #[must_use]
    pub fn coin_scanner(&self) -> CoinScanner {
        CoinScanner { reader: self.store.read_handle() }
    }

    /// Returns the block files: what a header's entry names can be read by any thread.
    #[must_use]
    pub const fn files(&self) -> &Arc<BlockFiles> {
        &self.files
    }

    /// Estimates which part of all transactions up to now the connected chain has
    /// (`GuessVerificationProgress`).
    #[must_use]
    pub fn verification_progress(&self, at: HeaderRef, now: u32) -> f64 {
        let entry = self.headers.entry(at);
        let data = self.params.chain_tx_data;
        if entry.chain_tx_count == 0 {
            return 0.0;
        }
        let count = as_f64(entry.chain_tx_count);
        let since = |then: u32| f64::from(now) - f64::from(then);
        let total = if entry.chain_tx_count <= data.tx_count {
            as_f64(data.tx_count) + since(data.time) * data.tx_rate
        } else if since(entry.header.time).abs() <= NEAR_SECONDS {
            // Counted in blocks, so that it is 1 at the best header, whatever its miner's clock said.
            let ahead = self.headers.entry(self.headers.best()).height.saturating_sub(entry.height);
            count + f64::from(ahead) * f64::from(self.params.pow_target_spacing) * data.tx_rate
        } else {
            count + since(entry.header.time) * data.tx_rate
        };
        (count / total).min(1.0)
    }

    /// Computes the statistics of the UTXO set that Bitcoin Core's `gettxoutsetinfo` shows.
    ///
    /// # Errors
    ///
    /// Returns [`crate::Error`] if the store cannot be read.
    pub fn utxo_stats(&self, hash: UtxoHash) -> Result<UtxoStats> {
        UtxoStats::compute(self.coins()?, hash)
    }

    /// Describes a deployment of [`crate::ChainParams::deployments`] at a block.
    #[must_use]
    pub fn deployment_info(&self, deployment: &Deployment, block: HeaderRef) -> DeploymentInfo {
        self.version_bits().info(&self.headers, deployment, block)
    }

    /// Returns the version of a new block on the tip.
    #[must_use]
    pub fn next_block_version(&self) -> i32 {
        self.version_bits().block_version(&self.headers, &self.params, Some(self.tip))
    }

    /// Returns the rules unknown here that hold, or will, for a block on the tip.
    #[must_use]
    pub fn unknown_rules(&self) -> UnknownRules {
        // It is a cache: whatever it holds was true.
        let mut cache = self.unknown_rules.lock().unwrap_or_else(PoisonError::into_inner);
        cache.after(&self.headers, &self.params, &mut self.version_bits(), self.tip)
    }

    fn version_bits(&self) -> MutexGuard<'_, VersionBitsCache> {
        // It is a cache: whatever it holds was true.
        self.version_bits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whether block files are being imported: until they all are, the chain counts as being
    /// downloaded, however new its tip is (`LoadingBlocks`).
    pub const fn set_importing(&mut self, importing: bool) {
        self.importing = importing;
    }

    /// Returns whether blocks are stored for [`Chainstate::advance`] to connect.
    pub fn has_blocks_to_connect(&mut self) -> bool {
        self.best_stored().is_some_and(|best| best != self.tip)
    }

    /// Returns whether the chain is still being downloaded: the tip has too little work or is older
    /// than [`ChainstateOptions::max_tip_age`](super::ChainstateOptions::max_tip_age), or block files
    /// are being imported. Once false, it stays false.
    pub fn is_initial_block_download(&mut self, now: u32) -> bool {
        if !self.synced && !self.importing {
            let tip = self.headers.entry(self.tip);
            self.synced = tip.chain_work >= self.params.minimum_chain_work
                && tip.header.time >= now.saturating_sub(self.max_tip_age);
        }
        !self.synced
    }
}
