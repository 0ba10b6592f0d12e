//! Verifying the last blocks of the connected chain again (`CVerifyDB` in Bitcoin Core's
//! `validation.cpp`): reads only, whatever it finds.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::rollback::CoinChanges;
use super::{BlockRef, Chainstate};
use crate::block::CheckedBlock;
use crate::error::Result;
use crate::headers::HeaderRef;
use crate::pipeline::load::load_block;
use crate::pipeline::scripts::{BlockScripts, ScriptTicket, ScriptsEnd};
use crate::pipeline::spent::SpentCoins;
use crate::script::block_script_flags;
use crate::undo::BlockUndo;

/// Coins that are kept in memory to disconnect blocks: some 1 GB, a thousand full blocks.
const CHANGES_MAX: usize = 6_000_000;

/// The most thorough level.
const LEVEL_MAX: u32 = 4;

/// How verifying ended.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChainVerification {
    /// All is well.
    Passed,
    /// Something is wrong; the log says what.
    Failed,
    /// The oldest blocks asked for are not stored.
    MissingBlocks,
    /// So many blocks cannot be disconnected in memory: levels 3 and 4 were left out for some.
    TooManyCoins,
    /// It was asked to stop.
    Interrupted,
}

/// What is known while verifying.
#[derive(Default)]
struct Run {
    changes: CoinChanges,
    /// Transactions of blocks that were disconnected since the last that was not clean.
    good_transactions: usize,
    /// The last block that was not clean.
    unclean: Option<u32>,
    too_many_coins: bool,
    missing: bool,
}

impl Chainstate {
    /// Verifies the last `blocks` of the connected chain, all of them for 0: that they can be read
    /// (level 0), are right by themselves (1), have undo data (2), can be disconnected (3), and that
    /// their scripts hold (4).
    ///
    /// # Errors
    ///
    /// Returns [`crate::Error`] if the store cannot be read; files that cannot be are a finding.
    pub fn verify_chain(&self, level: u32, blocks: u32) -> Result<ChainVerification> {
        let tip = self.headers.entry(self.tip).height;
        let level = level.min(LEVEL_MAX);
        let blocks = if blocks == 0 { tip } else { blocks.min(tip) };
        tracing::info!("Verifying last {blocks} blocks at level {level}");
        let mut run = Run::default();
        let mut at = self.tip;
        let mut checked = Vec::new();
        while let Some(parent) = self.headers.entry(at).parent {
            let height = self.headers.entry(at).height;
            if height <= tip - blocks {
                break;
            }
            if self.stop.load(Ordering::Relaxed) {
                return Ok(ChainVerification::Interrupted);
            }
            if self.headers.entry(at).block.is_none() {
                tracing::info!(
                    "Block verification stopping at height {height} (no data). This could be due to pruning or use of an assumeutxo snapshot."
                );
                run.missing = true;
                break;
            }
            if let Err(found) = self.verify_block(&mut run, at, level)? {
                tracing::error!("Verification error: {found}");
                return Ok(ChainVerification::Failed);
            }
            checked.push(at);
            at = parent;
        }
        if let Some(height) = run.unclean {
            tracing::error!(
                "Verification error: coin database inconsistencies found (last {} blocks, {} good transactions before that)",
                tip - height + 1,
                run.good_transactions
            );
            return Ok(ChainVerification::Failed);
        }
        if level >= 4 && !run.too_many_coins {
            for &at in checked.iter().rev() {
                if let Some(ended) = self.verify_scripts(at)? {
                    return Ok(ended);
                }
            }
        }
        Ok(self.conclude(&run, checked.len(), level))
    }

    fn conclude(&self, run: &Run, blocks: usize, level: u32) -> ChainVerification {
        tracing::info!("Verification: checked last {blocks} blocks at level {level}");
        if run.too_many_coins {
            tracing::warn!("Skipped verification of level >=3 (too many coins for memory)");
            return ChainVerification::TooManyCoins;
        }
        if level >= 3 {
            tracing::info!(
                "Verification: no coin database inconsistencies ({} transactions)",
                run.good_transactions
            );
        }
        if run.missing { ChainVerification::MissingBlocks } else { ChainVerification::Passed }
    }

    /// Verifies a block up to level 3; the inner error says what is wrong.
    fn verify_block(
        &self,
        run: &mut Run,
        at: HeaderRef,
        level: u32,
    ) -> Result<std::result::Result<(), String>> {
        let entry = self.headers.entry(at);
        let this = BlockRef { height: entry.height, hash: entry.hash };
        let place = format!("at {}, hash={}", this.height, this.hash);
        let Some(Ok(raw)) = entry.block.map(|extent| self.files.read_block(extent)) else {
            return Ok(Err(format!("ReadBlock failed {place}")));
        };
        if level == 0 {
            return Ok(Ok(()));
        }
        let block = match CheckedBlock::parse(raw, &self.params) {
            Ok(block) if block.hash() == this.hash => block,
            Ok(_) => return Ok(Err(format!("found bad block {place} (another block)"))),
            Err(rejection) => return Ok(Err(format!("found bad block {place} ({rejection})"))),
        };
        if level == 1 {
            return Ok(Ok(()));
        }
        let undo = entry.undo.map(|extent| self.files.read_undo(extent));
        let Some(Ok(undo)) = undo.map(|bytes| bytes.and_then(|bytes| BlockUndo::decode(&bytes)))
        else {
            return Ok(Err(format!("found bad undo data {place}")));
        };
        run.too_many_coins |= run.changes.len() > CHANGES_MAX;
        if level == 2 || run.too_many_coins {
            return Ok(Ok(()));
        }
        let read = |outpoint: &bitcoin::OutPoint| self.coin(outpoint);
        let context = (self.params.as_ref(), Some(&read as super::rollback::ReadCoin<'_>));
        match run.changes.disconnect_checked(context, &block, this, undo) {
            Ok(true) => run.good_transactions += block.txids().len(),
            Ok(false) => (run.unclean, run.good_transactions) = (Some(this.height), 0),
            Err(crate::Error::Corrupt { .. }) => {
                return Ok(Err(format!("irrecoverable inconsistency in block data {place}")));
            }
            Err(error) => return Err(error),
        }
        Ok(Ok(()))
    }

    /// Verifies a block's scripts; returns how it ended if not well.
    fn verify_scripts(&self, at: HeaderRef) -> Result<Option<ChainVerification>> {
        let entry = self.headers.entry(at);
        let Some((block, undo)) = entry.block.zip(entry.undo) else {
            return Ok(Some(ChainVerification::Failed));
        };
        let block = Arc::new(load_block(&self.files, &self.params, block)?);
        let spent = SpentCoins::from_undo(self.files.read_undo(undo)?)?;
        let flags = block_script_flags(&self.params, entry.height, &entry.hash);
        let work = Arc::new(BlockScripts { block, spent, flags });
        let ticket = ScriptTicket::start(&self.pool, &self.verifier, &work);
        Ok(match ticket.wait(&self.stop)? {
            ScriptsEnd::Passed => None,
            ScriptsEnd::Stopped => Some(ChainVerification::Interrupted),
            ScriptsEnd::Failed(_) => {
                let (height, hash) = (entry.height, entry.hash);
                tracing::error!(
                    "Verification error: found unconnectable block at {height}, hash={hash} (block-script-verify-flag-failed)"
                );
                Some(ChainVerification::Failed)
            }
        })
    }
}
