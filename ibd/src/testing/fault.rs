//! `Fault`: ways in which a block on a [`ModelChain`] breaks a rule.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash as _;
use bitcoin::script::Builder;
use bitcoin::{Amount, Block, OutPoint, Sequence, Transaction, TxOut, Txid, Witness};
use cofferdam_storage::testing::Random;

use super::model_chain::{
    DUST, MATURITY, ModelChain, anyone, nobody, output, transfer, witness_anyone,
};

/// How a block breaks a rule.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// An output is spent that nobody can spend.
    Script,
    /// A witness is not that of its program.
    WitnessScript,
    /// An output does not exist.
    MissingInput,
    /// Two transactions spend the same output.
    DoubleSpend,
    /// A coinbase is spent too early.
    Premature,
    /// A transaction pays more than it has.
    BelowOut,
    /// The coinbase pays itself one satoshi too much.
    Reward,
    /// A relative lock time is not over (BIP-0068).
    SequenceLock,
    /// A lock time is not over; seen without coins.
    NonFinal,
    /// The coinbase begins with another height (BIP-0034); seen without coins.
    CoinbaseHeight,
    /// One transaction spends an output twice (CVE-2018-17144); seen without coins.
    DuplicateInput,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Script,
        Self::WitnessScript,
        Self::MissingInput,
        Self::DoubleSpend,
        Self::Premature,
        Self::BelowOut,
        Self::Reward,
        Self::SequenceLock,
        Self::NonFinal,
        Self::CoinbaseHeight,
        Self::DuplicateInput,
    ];

    /// Returns Bitcoin Core's name for it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Script | Self::WitnessScript => "block-script-verify-flag-failed",
            Self::MissingInput | Self::DoubleSpend => "bad-txns-inputs-missingorspent",
            Self::Premature => "bad-txns-premature-spend-of-coinbase",
            Self::BelowOut => "bad-txns-in-belowout",
            Self::Reward => "bad-cb-amount",
            Self::SequenceLock | Self::NonFinal => "bad-txns-nonfinal",
            Self::CoinbaseHeight => "bad-cb-height",
            Self::DuplicateInput => "bad-txns-inputs-duplicate",
        }
    }

    /// Returns whether the block is refused as it arrives: it is never connected to anything.
    #[must_use]
    pub const fn is_refused_on_arrival(self) -> bool {
        matches!(self, Self::NonFinal | Self::CoinbaseHeight | Self::DuplicateInput)
    }
}

impl ModelChain {
    /// Makes a block on the tip that breaks one rule, among valid transactions; `None` if there are
    /// no coins to break it with.
    #[must_use]
    pub fn faulty_block(&self, fault: Fault, random: &mut Random) -> Option<Block> {
        let mut txs = self.random_txs(random, 4);
        let bad = self.faulty_txs(fault, &txs)?;
        let at = random.below(txs.len() + 1);
        txs.splice(at..at, bad);
        let mut block = self.block(random.next(), txs);
        let coinbase = block.txdata.first_mut()?;
        match fault {
            Fault::Reward => coinbase.output.first_mut()?.value += Amount::ONE_SAT,
            Fault::CoinbaseHeight => {
                let height = i64::from(self.tip.height) + 2;
                let script = Builder::new().push_int(height).push_int(1).into_script();
                coinbase.input.first_mut()?.script_sig = script;
            }
            _ => {}
        }
        self.seal(&mut block);
        Some(block)
    }

    /// Makes the transactions that break the rule, beside `good` ones; none if the fault is in the
    /// coinbase.
    fn faulty_txs(&self, fault: Fault, good: &[Transaction]) -> Option<Vec<Transaction>> {
        let spent: Vec<OutPoint> =
            good.iter().flat_map(|tx| tx.input.iter().map(|input| input.previous_output)).collect();
        let left = |anyones| self.spendable(anyones).into_iter().filter(|c| !spent.contains(&c.0));
        let simple = |(outpoint, output): (OutPoint, TxOut)| {
            transfer(&[(outpoint, output.clone())], vec![output])
        };
        let mut any = left(true);
        Some(match fault {
            Fault::Script => vec![simple(left(false).next()?)],
            Fault::WitnessScript => {
                let (outpoint, old) = any.next()?;
                let program = output(old.value.to_sat(), witness_anyone());
                let parent = transfer(&[(outpoint, old)], vec![program.clone()]);
                let mut tx = simple((OutPoint::new(parent.compute_txid(), 0), program));
                tx.input.first_mut()?.witness = Witness::from_slice(&[[0x52]]);
                vec![parent, tx]
            }
            Fault::MissingInput => {
                let outpoint = OutPoint::new(Txid::from_byte_array([7; 32]), 7);
                vec![simple((outpoint, output(DUST, anyone())))]
            }
            Fault::DoubleSpend => {
                let coin = any.next()?;
                let to = |less: u64| output(coin.1.value.to_sat() - less, anyone());
                let coins = std::slice::from_ref(&coin);
                vec![transfer(coins, vec![to(1)]), transfer(coins, vec![to(2)])]
            }
            Fault::Premature => vec![simple(self.immature()?)],
            Fault::BelowOut => {
                let coin = any.next()?;
                let more = output(coin.1.value.to_sat() + 1, anyone());
                vec![transfer(&[coin], vec![more])]
            }
            Fault::SequenceLock | Fault::NonFinal => {
                let mut tx = simple(any.next()?);
                tx.input.first_mut()?.sequence = Sequence::from_consensus(0xffff);
                if fault == Fault::NonFinal {
                    tx.lock_time = LockTime::from_consensus(400_000_000);
                }
                vec![tx]
            }
            Fault::DuplicateInput => {
                let coin = any.next()?;
                vec![transfer(&[coin.clone(), coin.clone()], vec![coin.1])]
            }
            Fault::Reward | Fault::CoinbaseHeight => Vec::new(),
        })
    }

    /// Returns a coinbase that the next block cannot spend yet.
    fn immature(&self) -> Option<(OutPoint, TxOut)> {
        let found = self.coins.values().find(|(_, coin)| {
            let is_young = coin.height + MATURITY > self.tip.height + 1;
            coin.coinbase && is_young && coin.output.script_pubkey != nobody()
        });
        found.map(|(outpoint, coin)| (*outpoint, coin.output.clone()))
    }
}
