//! Whether a transaction may enter the queue (`MemPoolAccept` in Bitcoin Core's `validation.cpp`,
//! without its policy).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bitcoin::consensus::serialize;
use bitcoin::{OutPoint, Transaction};

use super::{QueuedTx, TxQueue};
use crate::block::{SIGOPS_COST_MAX, WEIGHT_MAX};
use crate::chainstate::Chainstate;
use crate::coin::{Coin, CoinRef};
use crate::error::Result;
use crate::pow::{HeaderChain as _, median_time_past};
use crate::rejection::Rejection;
use crate::script::{ScriptFlags, explain, place};
use crate::tx::{
    WITNESS_SCALE, check_sequence_locks, check_transaction, check_tx_inputs, is_final_tx,
    legacy_sigop_count, spent_sigop_cost,
};
use crate::wire::{OutputRef, Transactions, TxRef};

/// Fewest bytes without witnesses (`MIN_STANDARD_TX_NONWITNESS_SIZE`): 64 look like an inner node
/// of the Merkle tree (CVE-2017-12842).
const BASE_SIZE_MIN: usize = 65;

/// What a block has beside transactions of the queue, at least; see [`super::BlockLimits`].
const BLOCK_RESERVED_WEIGHT: u64 = 2000;
const BLOCK_RESERVED_SIGOPS_COST: u64 = 400;

/// Why a transaction may not enter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TxRejection {
    /// Bitcoin Core's reject string.
    pub code: Cow<'static, str>,
    /// What exactly is wrong, for people.
    pub detail: Option<String>,
}

impl TxRejection {
    fn new(code: impl Into<Cow<'static, str>>) -> Self {
        Self { code: code.into(), detail: None }
    }

    /// Returns whether an output that it spends is not known: never was, or is spent.
    #[must_use]
    pub fn is_missing_inputs(&self) -> bool {
        self.code == MISSING_INPUTS
    }

    /// Returns whether the transaction is in the chain or in the queue already.
    #[must_use]
    pub fn is_known(&self) -> bool {
        matches!(&*self.code, "txn-already-in-mempool" | "txn-already-known")
    }
}

impl From<Rejection> for TxRejection {
    fn from(rejection: Rejection) -> Self {
        Self { code: rejection.code, detail: rejection.detail }
    }
}

impl fmt::Display for TxRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(detail) => write!(f, "{}, {detail}", self.code),
            None => f.write_str(&self.code),
        }
    }
}

const MISSING_INPUTS: &str = "bad-txns-inputs-missingorspent";

/// Whether scripts are run: those of an entry have been before, by rules that do not depend on
/// the chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scripts {
    Verify,
    Verified,
}

type Checked = std::result::Result<QueuedTx, TxRejection>;

impl TxQueue {
    /// Checks a transaction for the block after the chain's tip, and adds it.
    ///
    /// # Errors
    ///
    /// Returns [`crate::Error`] if the machine failed; a transaction's fault is the inner error.
    pub fn accept(
        &mut self,
        chain: &Chainstate,
        tx: Transaction,
        now: u32,
    ) -> Result<std::result::Result<Arc<QueuedTx>, TxRejection>> {
        self.accept_with(chain, tx, now, Scripts::Verify)
    }

    /// Adds what [`TxQueue::test`] passed; neither queue nor chain may have changed since.
    pub fn add(&mut self, tx: QueuedTx) -> Arc<QueuedTx> {
        self.insert(tx)
    }

    pub(super) fn accept_with(
        &mut self,
        chain: &Chainstate,
        tx: Transaction,
        now: u32,
        scripts: Scripts,
    ) -> Result<std::result::Result<Arc<QueuedTx>, TxRejection>> {
        let checked = self.check(chain, tx, now, scripts)?;
        Ok(checked.map(|tx| self.insert(tx)))
    }

    /// Checks a transaction as [`TxQueue::accept`] does, and leaves the queue as it is.
    ///
    /// # Errors
    ///
    /// As [`TxQueue::accept`].
    pub fn test(&self, chain: &Chainstate, tx: Transaction, now: u32) -> Result<Checked> {
        self.check(chain, tx, now, Scripts::Verify)
    }

    /// Checks all of a transaction but its scripts (`PreChecks`), which are for
    /// [`TxQueue::test_scripts`].
    ///
    /// # Errors
    ///
    /// As [`TxQueue::accept`].
    pub fn test_without_scripts(
        &self,
        chain: &Chainstate,
        tx: Transaction,
        now: u32,
    ) -> Result<Checked> {
        self.check(chain, tx, now, Scripts::Verified)
    }

    /// Runs the scripts of a transaction whose inputs are there, in the queue or not.
    ///
    /// # Errors
    ///
    /// As [`TxQueue::accept`].
    pub fn test_scripts(
        &self,
        chain: &Chainstate,
        tx: &Transaction,
    ) -> Result<std::result::Result<(), TxRejection>> {
        let txs = Transactions::of_transaction(serialize(tx)).ok();
        let Some(view) = txs.as_ref().and_then(Transactions::first) else {
            return Ok(Err(TxRejection::new("bad-txns-vin-empty")));
        };
        let check = Check { queue: self, chain, tx, view };
        match check.coins()? {
            Ok(coins) => Ok(check.scripts(&coins)?.map_or(Ok(()), Err)),
            Err(rejection) => Ok(Err(rejection)),
        }
    }

    fn check(
        &self,
        chain: &Chainstate,
        tx: Transaction,
        now: u32,
        scripts: Scripts,
    ) -> Result<Checked> {
        // One without inputs has no bytes that can be read.
        let Ok(txs) = Transactions::of_transaction(serialize(&tx)) else {
            return Ok(Err(TxRejection::new("bad-txns-vin-empty")));
        };
        let Some(view) = txs.first() else {
            return Ok(Err(TxRejection::new("bad-txns-vin-empty")));
        };
        let check = Check { queue: self, chain, tx: &tx, view };
        if let Err(rejection) = check.alone() {
            return Ok(Err(rejection));
        }
        let coins = match check.coins()? {
            Ok(coins) => coins,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let (fee, sigops_cost) = match check.against(&coins)? {
            Ok(found) => found,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let queued = QueuedTx {
            txid: tx.compute_txid(),
            wtxid: tx.compute_wtxid(),
            fee,
            weight: tx.weight().to_wu(),
            sigops_cost,
            time: now,
            height: chain.tip().height,
            sequence: 0,
            tx: tx.clone(),
        };
        if let Err(rejection) = check.limits(&queued) {
            return Ok(Err(rejection));
        }
        if scripts == Scripts::Verify
            && let Some(rejection) = check.scripts(&coins)?
        {
            return Ok(Err(rejection));
        }
        Ok(Ok(queued))
    }
}

struct Check<'a> {
    queue: &'a TxQueue,
    chain: &'a Chainstate,
    tx: &'a Transaction,
    view: TxRef<'a>,
}

impl Check<'_> {
    /// What needs no coins.
    fn alone(&self) -> std::result::Result<(), TxRejection> {
        check_transaction(self.view)?;
        if self.view.is_coinbase() {
            return Err(TxRejection::new("coinbase"));
        }
        if self.view.base_size() < BASE_SIZE_MIN {
            return Err(TxRejection::new("tx-size-small"));
        }
        let parent = self.chain.headers().chain(self.chain.tip_ref());
        // Whatever the height: as Core's CheckFinalTxAtTip.
        if !is_final_tx(self.view, parent.height() + 1, median_time_past(&parent)) {
            return Err(TxRejection::new("non-final"));
        }
        if self.queue.get_by_wtxid(&self.tx.compute_wtxid()).is_some() {
            return Err(TxRejection::new("txn-already-in-mempool"));
        }
        if self.queue.get(&self.tx.compute_txid()).is_some() {
            return Err(TxRejection::new("txn-same-nonwitness-data-in-mempool"));
        }
        let spent = |input: &bitcoin::TxIn| self.queue.spender(&input.previous_output).is_some();
        if self.tx.input.iter().any(spent) {
            return Err(TxRejection::new("txn-mempool-conflict"));
        }
        Ok(())
    }

    /// The coins that it spends, those of the queue as if they were in the next block.
    fn coins(&self) -> Result<std::result::Result<Vec<Coin>, TxRejection>> {
        let height = self.chain.tip().height + 1;
        let mut coins = Vec::with_capacity(self.tx.input.len());
        for input in &self.tx.input {
            let outpoint = input.previous_output;
            let queued = self.queue.get(&outpoint.txid).and_then(|parent| {
                let output = parent.tx.output.get(outpoint.vout as usize)?.clone();
                Some(Coin { height, coinbase: false, output })
            });
            let coin = match queued {
                Some(coin) => Some(coin),
                None => self.chain.coin(&outpoint)?,
            };
            match coin {
                Some(coin) => coins.push(coin),
                None => return Ok(Err(self.missing()?)),
            }
        }
        Ok(Ok(coins))
    }

    fn missing(&self) -> Result<TxRejection> {
        let txid = self.tx.compute_txid();
        for (vout, _) in (0..).zip(&self.tx.output) {
            if self.chain.coin(&OutPoint::new(txid, vout))?.is_some() {
                return Ok(TxRejection::new("txn-already-known"));
            }
        }
        Ok(TxRejection::new(MISSING_INPUTS))
    }

    /// What it owes to the coins; returns fee and cost of the signature operations.
    fn against(&self, coins: &[Coin]) -> Result<std::result::Result<(u64, u64), TxRejection>> {
        let bytes: Vec<Vec<u8>> = coins.iter().map(Coin::encode).collect();
        let refs: Vec<CoinRef<'_>> =
            bytes.iter().map(|bytes| CoinRef::parse(bytes)).collect::<Result<_>>()?;
        let parent = self.chain.headers().chain(self.chain.tip_ref());
        // Whatever the height, as Core's CheckSequenceLocksAtTip: when the rule comes into force, no
        // block could have what breaks it.
        if check_sequence_locks(&parent, self.view, &refs).is_err() {
            return Ok(Err(TxRejection::new("non-BIP68-final")));
        }
        let fee = match check_tx_inputs(self.view, &refs, parent.height() + 1) {
            Ok(fee) => fee,
            Err(rejection) => return Ok(Err(rejection.into())),
        };
        let scripts = refs.iter().map(|coin| coin.script);
        let sigops_cost = u64::from(legacy_sigop_count(self.view)) * WITNESS_SCALE
            + spent_sigop_cost(self.view, scripts, ScriptFlags::ALL);
        Ok(Ok((fee, sigops_cost)))
    }

    /// What no block could hold, and what the queue does not.
    fn limits(&self, tx: &QueuedTx) -> std::result::Result<(), TxRejection> {
        if tx.sigops_cost > SIGOPS_COST_MAX - BLOCK_RESERVED_SIGOPS_COST {
            let detail = Some(tx.sigops_cost.to_string());
            return Err(TxRejection { detail, ..TxRejection::new("bad-txns-too-many-sigops") });
        }
        if tx.weight > WEIGHT_MAX - BLOCK_RESERVED_WEIGHT {
            return Err(TxRejection::new("tx-size"));
        }
        let parents = tx.tx.input.iter().map(|input| input.previous_output.txid);
        let parents: BTreeSet<_> = parents.collect();
        if self.queue.is_cluster_full(&parents) {
            return Err(TxRejection::new("too-large-cluster"));
        }
        if self.queue.memory_bytes + tx.memory_bytes() > self.queue.limits.bytes {
            return Err(TxRejection::new("mempool full"));
        }
        Ok(())
    }

    fn scripts(&self, coins: &[Coin]) -> Result<Option<TxRejection>> {
        let spent: Vec<OutputRef<'_>> = coins
            .iter()
            .map(|coin| OutputRef {
                value: coin.output.value.to_sat(),
                script: &coin.output.script_pubkey,
            })
            .collect();
        let verifier = self.chain.verifier();
        let Some(input) = verifier.verify_transaction(self.view, &spent, ScriptFlags::ALL)? else {
            return Ok(None);
        };
        let reason = explain(verifier, self.view, &spent, input, ScriptFlags::ALL)?;
        let code = format!("mempool-script-verify-flag-failed ({reason})");
        let detail = place(self.view, input);
        Ok(Some(TxRejection { code: code.into(), detail: Some(detail) }))
    }
}
