//! Stage: one block against the UTXO set (`ConnectBlock` in Bitcoin Core's `validation.cpp`,
//! without the scripts).
//!
//! Coins stay the bytes that they are in the store: they go from there into the undo data, and are
//! only looked at on the way.
//!
//! Invariant: the undo data have one coin for each input after the coinbase, in order. (What the
//! batch has is said in [`Effects`].)

use cofferdam_storage::{Batch, ReadAhead};

use super::effects::Effects;
use super::prefetch::{CoinArena, overwrites_a_coin, read_external_coins};
use super::spent::SpentCoins;
use crate::Store;
use crate::block::{CheckedBlock, SIGOPS_COST_MAX, Source, bip30_applies, never_repeats};
use crate::coin::CoinRef;
use crate::error::Result;
use crate::headers::ChainView;
use crate::params::ChainParams;
use crate::pow::HeaderChain as _;
use crate::rejection::Rejection;
use crate::script::{ScriptFlags, block_script_flags};
use crate::subsidy::block_subsidy;
use crate::tx::{
    MONEY_MAX, WITNESS_SCALE, check_sequence_locks, check_tx_inputs, missing_inputs,
    spent_sigop_cost,
};
use crate::wire::TxRef;

/// Memory that is kept from one block to the next: what a usual block needs. One with coins of the
/// longest scripts takes more, and gives it back.
const SCRATCH_BYTES_MAX: usize = 4 << 20;

/// Memory that is used for one block after the other.
#[derive(Debug, Default)]
pub(crate) struct ConnectScratch {
    /// Coins of the store, in the order of the inputs that spend them.
    external: CoinArena,
}

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
    pub(crate) spent: SpentCoins,
    pub(crate) flags: ScriptFlags,
}

/// Why a block is not connected: its own fault, or the machine's.
enum Stop {
    Rejected(Rejection),
    Failed(crate::Error),
}

impl From<Rejection> for Stop {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<crate::Error> for Stop {
    fn from(error: crate::Error) -> Self {
        Self::Failed(error)
    }
}

/// Checks amounts, maturity, locks and signature operations of `block`, whose effects at its height
/// are `effects`.
pub(crate) fn connect_block(
    context: &ConnectContext<'_>,
    block: &CheckedBlock,
    ahead: &ReadAhead,
    effects: Effects,
    scratch: &mut ConnectScratch,
) -> Result<std::result::Result<Connected, Rejection>> {
    let height = context.parent.height() + 1;
    let bip30 = bip30_applies(context.params, &context.parent, height, &block.hash());
    if bip30 && !never_repeats(context.params) && overwrites_a_coin(context.store, block)? {
        return Ok(Err(overwriting()));
    }
    let txs = block.txs();
    let ConnectScratch { external } = scratch;
    read_external_coins(context.store, block, ahead, external)?;
    let Effects { created, batch } = effects;
    let mut connector = Connector {
        context,
        block,
        height,
        flags: block_script_flags(context.params, height, &block.hash()),
        external,
        created: &created,
        spent: SpentCoins::new(txs.len(), block.spends.sources().len()),
        sigops_cost: 0,
        fees: 0,
    };
    let connected = match connector.run() {
        Ok(()) => Ok(Ok(Connected { batch, spent: connector.spent, flags: connector.flags })),
        // Where no valid block can do so, this is still the reason that Core gives first.
        Err(Stop::Rejected(_)) if bip30 && overwrites_a_coin(context.store, block)? => {
            Ok(Err(overwriting()))
        }
        Err(Stop::Rejected(rejection)) => Ok(Err(rejection)),
        Err(Stop::Failed(error)) => Err(error),
    };
    scratch.external.shrink(SCRATCH_BYTES_MAX);
    connected
}

fn overwriting() -> Rejection {
    Rejection::consensus("bad-txns-BIP30").with_detail("tried to overwrite transaction")
}

struct Connector<'a> {
    context: &'a ConnectContext<'a>,
    block: &'a CheckedBlock,
    height: u32,
    flags: ScriptFlags,
    external: &'a CoinArena,
    created: &'a CoinArena,
    spent: SpentCoins,
    sigops_cost: u64,
    fees: u64,
}

/// Says in which transaction a fault is.
fn in_transaction(tx: TxRef<'_>, rejection: Rejection) -> Rejection {
    let what = rejection.detail.clone().unwrap_or_default();
    rejection.with_detail(format!("{what} in transaction {}", tx.txid()))
}

impl Connector<'_> {
    fn run(&mut self) -> std::result::Result<(), Stop> {
        let block = self.block;
        let mut sources = block.spends.sources();
        let mut next_external = 0;
        let (external, created) = (self.external, self.created);
        let mut coins = Vec::new();
        for (index, (tx, &sigops)) in block.txs().iter().zip(&block.legacy_sigops).enumerate() {
            coins.clear();
            self.sigops_cost += u64::from(sigops) * WITNESS_SCALE;
            if index > 0 {
                for source in sources.by_ref().take(tx.input_count()) {
                    let bytes = match source {
                        Source::Own(output) => created.get(output),
                        Source::External => {
                            next_external += 1;
                            external.get(next_external - 1)
                        }
                        Source::Repeated => None,
                    };
                    let missing = || in_transaction(tx, missing_inputs());
                    coins.push(CoinRef::parse(bytes.ok_or_else(missing)?)?);
                }
                self.check_spends(tx, &coins)?;
                self.spent.push_tx(&coins);
            }
            if self.sigops_cost > SIGOPS_COST_MAX {
                let rejection = Rejection::consensus("bad-blk-sigops");
                return Err(rejection.with_detail("too many sigops").into());
            }
        }
        Ok(self.check_reward()?)
    }

    /// Checks a transaction against the coins that it spends.
    fn check_spends(
        &mut self,
        tx: TxRef<'_>,
        coins: &[CoinRef<'_>],
    ) -> std::result::Result<(), Rejection> {
        self.fees = self
            .fees
            .checked_add(
                check_tx_inputs(tx, coins, self.height)
                    .map_err(|rejection| in_transaction(tx, rejection))?,
            )
            .filter(|&fees| fees <= MONEY_MAX)
            .ok_or_else(|| {
                Rejection::consensus("bad-txns-accumulated-fee-outofrange")
                    .with_detail("accumulated fee in the block out of range")
            })?;
        if self.height >= self.context.params.csv_height {
            check_sequence_locks(&self.context.parent, tx, coins)?;
        }
        let scripts = coins.iter().map(|coin| coin.script);
        self.sigops_cost += spent_sigop_cost(tx, scripts, self.flags);
        Ok(())
    }

    fn check_reward(&self) -> std::result::Result<(), Rejection> {
        let coinbase = self.block.txs().first();
        // CheckTransaction bounded the sum by MONEY_MAX.
        let paid: u64 = coinbase.map_or(0, |tx| tx.outputs().map(|output| output.value).sum());
        let limit = self.fees + block_subsidy(self.height, self.context.params);
        if paid > limit {
            let detail = format!("coinbase pays too much (actual={paid} vs limit={limit})");
            return Err(Rejection::consensus("bad-cb-amount").with_detail(detail));
        }
        Ok(())
    }
}
