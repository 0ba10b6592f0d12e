//! Chains of regtest shaped like the main chain, the same for the same plan.
//!
//! Coinbases mature; fans spread them over many outputs; then come full blocks of transactions with
//! 2.5 inputs and 2.7 outputs on average, really signed, whose coins are spent at the ages at which
//! those of the main chain are. Empty blocks above let Bitcoin Core take all of them for assumed
//! valid, which it does two weeks of work below its best header.

mod blocks;
mod coins;
mod files;
mod scripts;

use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version as TxVersion;
use bitcoin::{Amount, Block, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use cofferdam_storage::testing::Random;
use rayon::prelude::*;

pub use self::blocks::BlockMaker;
pub use self::coins::Coin;
use self::coins::Coins;
pub use self::files::BlockFiles;
pub use self::scripts::{Keys, Kind};

/// Outputs of one fan, and fans a block: at 43 bytes an output 970 KB, below the rule's 1 MB.
const FAN_OUTPUTS: usize = 2_500;
const FANS_A_BLOCK: usize = 9;
/// Coins to choose from when the first full block is made.
const COINS_AT_FIRST: usize = 250_000;
/// Blocks until a coinbase can be spent.
const MATURITY: usize = 100;
/// Empty blocks above the last one: more than two weeks of work.
const EMPTY_ABOVE: usize = 2_100;
/// Transactions that are signed at a time, and spend nothing of each other.
const WAVE: usize = 128;
/// Bytes of a full block: from, and how many more at most.
const BLOCK_BYTES: (usize, usize) = (1_000_000, 600_000);
/// A block is full from this weight on: one wave more stays below the rule's 4,000,000.
const WEIGHT_STOP: u64 = 3_650_000;

/// What the transactions are made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Profile {
    /// Every kind of output, with real signatures: 2.5 inputs and 2.7 outputs a transaction.
    Signed,
    /// A set that grows: 2 inputs and 5 outputs a transaction, whose scripts cost nothing.
    Growing,
}

/// What chain is made.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The same seed makes the same chain.
    pub seed: u64,
    /// Its transactions.
    pub profile: Profile,
    /// Full blocks.
    pub blocks: u32,
}

/// What was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Blocks, the empty ones included.
    pub blocks: u32,
    /// The height of the last full block.
    pub full_height: u32,
    /// Bytes of all blocks.
    pub bytes: u64,
    /// Transactions, without coinbases.
    pub transactions: u64,
    /// Their inputs.
    pub inputs: u64,
    /// Their outputs.
    pub outputs: u64,
    /// Outputs that can be spent at the end, coinbases included.
    pub unspent: u64,
}

/// A transaction that is not signed yet, with what it spends and makes.
struct Draft {
    tx: Transaction,
    spends: Vec<Coin>,
    makes: Vec<(Kind, u32)>,
}

struct Maker<'a, E> {
    plan: Plan,
    random: Random,
    keys: Keys,
    blocks: BlockMaker,
    coins: Coins,
    coinbases: std::collections::VecDeque<Coin>,
    summary: Summary,
    sink: &'a mut dyn FnMut(&Block) -> Result<(), E>,
}

/// Makes a chain, and gives its blocks away in their order.
///
/// # Errors
///
/// Returns the first error of `sink`.
pub fn generate<E>(
    plan: Plan,
    sink: &mut dyn FnMut(&Block) -> Result<(), E>,
) -> Result<Summary, E> {
    let mut maker = Maker {
        plan,
        random: Random::new(plan.seed),
        keys: Keys::new(plan.seed),
        blocks: BlockMaker::default(),
        coins: Coins::default(),
        coinbases: std::collections::VecDeque::new(),
        summary: Summary::default(),
        sink,
    };
    let fans = COINS_AT_FIRST.min(plan.blocks as usize * FAN_OUTPUTS * 2).div_ceil(FAN_OUTPUTS);
    for _ in 0..MATURITY + fans {
        maker.add_block(Vec::new())?;
    }
    for _ in 0..fans.div_ceil(FANS_A_BLOCK) {
        maker.add_fans()?;
    }
    for _ in 0..plan.blocks {
        maker.add_full_block()?;
    }
    maker.summary.full_height = maker.blocks.height();
    for _ in 0..EMPTY_ABOVE {
        maker.add_block(Vec::new())?;
    }
    maker.summary.blocks = maker.blocks.height();
    maker.summary.unspent = (maker.coins.len() + maker.coinbases.len()) as u64;
    Ok(maker.summary)
}

impl<E> Maker<'_, E> {
    fn add_block(&mut self, txs: Vec<Transaction>) -> Result<(), E> {
        for tx in &txs {
            self.summary.transactions += 1;
            self.summary.inputs += tx.input.len() as u64;
            self.summary.outputs += tx.output.len() as u64;
        }
        let script = self.keys.script(Kind::Wpkh, 0);
        let (block, outpoint, value) = self.blocks.next(txs, script);
        self.coinbases.push_back(Coin { outpoint, value, kind: Kind::Wpkh, key: 0 });
        self.coins.end_block();
        self.summary.bytes += block.total_size() as u64;
        (self.sink)(&block)
    }

    /// Adds a block of coinbases that are spread over many outputs each.
    fn add_fans(&mut self) -> Result<(), E> {
        let mature = self.coinbases.len().saturating_sub(MATURITY).min(FANS_A_BLOCK);
        let coinbases: Vec<Coin> = self.coinbases.drain(..mature).collect();
        let drafts = coinbases.into_iter().map(|coin| self.draft(vec![coin], FAN_OUTPUTS));
        let drafts: Vec<Draft> = drafts.collect();
        let txs = self.finish(drafts);
        self.add_block(txs)
    }

    fn add_full_block(&mut self) -> Result<(), E> {
        let wanted = BLOCK_BYTES.0 + self.random.below(BLOCK_BYTES.1);
        let (mut txs, mut bytes, mut weight) = (Vec::new(), 0, 0);
        while bytes < wanted && weight < WEIGHT_STOP {
            let mut drafts = Vec::with_capacity(WAVE);
            for _ in 0..WAVE {
                let (inputs, outputs) = self.shape();
                let random = &mut self.random;
                let spends: Vec<Coin> =
                    (0..inputs).map_while(|_| self.coins.take(random)).collect();
                drafts.push(self.draft(spends, outputs));
            }
            let wave = self.finish(drafts);
            bytes += wave.iter().map(Transaction::total_size).sum::<usize>();
            weight += wave.iter().map(|tx| tx.weight().to_wu()).sum::<u64>();
            txs.extend(wave);
        }
        self.add_block(txs)
    }

    /// Draws the numbers of inputs and outputs.
    fn shape(&mut self) -> (usize, usize) {
        if self.plan.profile == Profile::Growing {
            return (2, 5);
        }
        let inputs = match self.random.below(100) {
            0..50 => 1,
            50..76 => 2,
            76..86 => 3,
            86..96 => 4 + self.random.below(4),
            _ => 8 + self.random.below(16),
        };
        let outputs = match self.random.below(100) {
            0..14 => 1,
            14..78 => 2,
            78..92 => 3,
            92..98 => 4 + self.random.below(6),
            _ => 10 + self.random.below(28),
        };
        (inputs, outputs)
    }

    fn draft(&mut self, spends: Vec<Coin>, outputs: usize) -> Draft {
        let mut left: u64 = spends.iter().map(|coin| coin.value).sum();
        let (mut makes, mut output) = (Vec::with_capacity(outputs), Vec::with_capacity(outputs));
        for place in 0..outputs {
            let kind = match self.plan.profile {
                Profile::Signed => Kind::random(&mut self.random),
                Profile::Growing => Kind::Free,
            };
            let key = Keys::choose(kind, &mut self.random);
            // About as much as each other, and all of it: nothing is left for a fee.
            let rest = (outputs - place) as u64;
            let share = left / rest;
            let value = if rest == 1 { left } else { share / 2 + self.random.next() % (share + 1) };
            let value = value.min(left);
            left -= value;
            let script_pubkey = self.keys.script(kind, key);
            output.push(TxOut { value: Amount::from_sat(value), script_pubkey });
            makes.push((kind, key));
        }
        let input = |coin: &Coin| TxIn {
            previous_output: coin.outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        };
        let input = spends.iter().map(input).collect();
        let tx = Transaction { version: TxVersion::TWO, lock_time: LockTime::ZERO, input, output };
        Draft { tx, spends, makes }
    }

    /// Signs on all threads, and adds the coins.
    fn finish(&mut self, drafts: Vec<Draft>) -> Vec<Transaction> {
        let keys = &self.keys;
        let signed: Vec<_> = drafts
            .into_par_iter()
            .map(|Draft { mut tx, spends, makes }| {
                keys.sign(&mut tx, &spends);
                let txid = tx.compute_txid();
                (tx, txid, makes)
            })
            .collect();
        let mut txs = Vec::with_capacity(signed.len());
        for (tx, txid, makes) in signed {
            for ((vout, output), (kind, key)) in (0..).zip(&tx.output).zip(makes) {
                let (outpoint, value) = (OutPoint::new(txid, vout), output.value.to_sat());
                self.coins.add(Coin { outpoint, value, kind, key });
            }
            txs.push(tx);
        }
        txs
    }
}

#[cfg(test)]
mod tests;
