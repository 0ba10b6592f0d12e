//! `ModelChain`: a regtest chain that is made block by block, with the coins as a plain map.
//!
//! It knows the rules only as far as it has to keep them, and shares no code with the pipeline: what
//! a [`Chainstate`](crate::Chainstate) makes of the blocks is compared with the map.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash as _;
use bitcoin::script::Builder;
use bitcoin::transaction::Version as TxVersion;
use bitcoin::{
    Amount, Block, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode,
    TxOut, Witness, WitnessMerkleNode,
};
use cofferdam_storage::testing::Random;

use crate::coin::{Coin, outpoint_key};
use crate::params::{ChainParams, Network};
use crate::pow::check_proof_of_work;
use crate::subsidy::block_subsidy;

/// Blocks until a coinbase can be spent.
pub(super) const MATURITY: u32 = 100;
/// Seconds between two blocks.
const SPACING_SECONDS: u32 = 600;
/// What no block pays to anybody, so that a fault can be built of it.
pub(super) const DUST: u64 = 1000;

/// Returns a script that anybody can spend.
pub(super) fn anyone() -> ScriptBuf {
    vec![0x51].into()
}

/// Returns a witness program that anybody can spend who shows its script, [`anyone`].
pub(super) fn witness_anyone() -> ScriptBuf {
    ScriptBuf::new_p2wsh(&anyone().wscript_hash())
}

/// Returns a script that nobody can spend, though it is not provably so.
pub(super) fn nobody() -> ScriptBuf {
    vec![0x00].into()
}

/// Where a block is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Number of ancestors.
    pub height: u32,
    /// Hash of the header.
    pub hash: BlockHash,
    /// The header's time.
    pub time: u32,
}

/// A chain that ends in [`ModelChain::tip`], and its coins. A clone is a fork.
#[derive(Clone, Debug)]
pub struct ModelChain {
    params: Arc<ChainParams>,
    pub(super) tip: Place,
    /// By key of the table.
    pub(super) coins: BTreeMap<[u8; 36], (OutPoint, Coin)>,
}

impl ModelChain {
    /// Returns a chain of the genesis block.
    #[must_use]
    pub fn new() -> Self {
        let params = Arc::new(ChainParams::new(Network::Regtest));
        let header = params.genesis.header;
        let tip = Place { height: 0, hash: header.block_hash(), time: header.time };
        Self { params, tip, coins: BTreeMap::new() }
    }

    /// Returns a chain with `spendable` coinbases that can be spent in the next block, and its
    /// blocks. Every fourth of them is for nobody.
    #[must_use]
    pub fn funded(spendable: u32) -> (Self, Vec<Block>) {
        let mut chain = Self::new();
        let blocks = (1..=spendable + MATURITY - 1).map(|height| {
            let script = match height % 4 {
                0 => nobody(),
                1 => witness_anyone(),
                _ => anyone(),
            };
            let block = chain.assemble(script, u64::from(height), Vec::new());
            chain.connect(&block);
            block
        });
        let blocks = blocks.collect();
        (chain, blocks)
    }

    /// Returns where the chain ends.
    #[must_use]
    pub const fn tip(&self) -> Place {
        self.tip
    }

    /// Returns the rows that the `coins` table has to have.
    #[must_use]
    pub fn rows(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.coins.iter().map(|(key, (_, coin))| (key.to_vec(), coin.encode())).collect()
    }

    /// Returns the coins that the next block can spend: those of `OP_TRUE`, bare or as a witness
    /// program, if `for_anyone`, else those of nobody.
    #[must_use]
    pub fn spendable(&self, for_anyone: bool) -> Vec<(OutPoint, TxOut)> {
        let mature = |coin: &Coin| !coin.coinbase || coin.height + MATURITY <= self.tip.height + 1;
        let coins = self.coins.values().filter(|(_, coin)| {
            let is_anyones = coin.output.script_pubkey != nobody();
            mature(coin) && is_anyones == for_anyone && coin.output.value.to_sat() > DUST
        });
        coins.map(|(outpoint, coin)| (*outpoint, coin.output.clone())).collect()
    }

    /// Adds a block on the tip: what it spends goes, what it makes comes.
    pub fn connect(&mut self, block: &Block) {
        let height = self.tip.height + 1;
        for tx in &block.txdata {
            for input in &tx.input {
                self.coins.remove(&outpoint_key(&input.previous_output));
            }
            for (outpoint, output) in outputs(tx) {
                if output.script_pubkey.is_op_return() {
                    continue;
                }
                let coin = Coin { height, coinbase: tx.is_coinbase(), output };
                self.coins.insert(outpoint_key(&outpoint), (outpoint, coin));
            }
        }
        self.tip = Place { height, hash: block.block_hash(), time: block.header.time };
    }

    /// Makes a valid block on the tip with up to `txs_max` transactions, some of which spend what
    /// others of the block made.
    #[must_use]
    pub fn random_block(&self, random: &mut Random, txs_max: usize) -> Block {
        let txs = self.random_txs(random, txs_max);
        self.block(random.next(), txs)
    }

    /// Makes a block on the tip with these transactions; `number` makes it another one than others.
    #[must_use]
    pub fn block(&self, number: u64, txs: Vec<Transaction>) -> Block {
        let script = match number % 5 {
            0 => nobody(),
            1 => witness_anyone(),
            _ => anyone(),
        };
        self.assemble(script, number, txs)
    }

    fn assemble(&self, script: ScriptBuf, number: u64, txs: Vec<Transaction>) -> Block {
        let height = self.tip.height + 1;
        let reward = block_subsidy(height, &self.params) + self.fees(&txs);
        let coinbase = Transaction {
            version: TxVersion::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                script_sig: Builder::new()
                    .push_int(i64::from(height))
                    .push_slice(number.to_le_bytes())
                    .into_script(),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            }],
            output: vec![output(reward, script)],
        };
        let mut block = Block {
            header: Header {
                version: Version::from_consensus(0x2000_0000),
                prev_blockhash: self.tip.hash,
                merkle_root: TxMerkleNode::all_zeros(),
                time: self.tip.time + SPACING_SECONDS,
                bits: self.params.genesis.header.bits,
                nonce: 0,
            },
            txdata: std::iter::once(coinbase).chain(txs).collect(),
        };
        self.seal(&mut block);
        block
    }

    /// Makes commitment, merkle root and proof of work fit the transactions.
    pub fn seal(&self, block: &mut Block) {
        let has_witness = |tx: &Transaction| tx.input.iter().any(|input| !input.witness.is_empty());
        let is_due = block.txdata.iter().skip(1).any(has_witness);
        let root = block.witness_root().unwrap_or_else(WitnessMerkleNode::all_zeros);
        if let Some(coinbase) = block.txdata.first_mut() {
            coinbase.output.retain(|output| !output.script_pubkey.is_op_return());
            if is_due {
                let commitment = Block::compute_witness_commitment(&root, &[0; 32]);
                let prefix = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
                let script = [&prefix[..], commitment.as_ref()].concat();
                coinbase.output.push(output(0, script.into()));
                if let Some(input) = coinbase.input.first_mut() {
                    input.witness = Witness::from_slice(&[[0; 32]]);
                }
            }
        }
        self.seal_header(block);
    }

    /// Makes merkle root and proof of work fit the transactions, whatever these are.
    pub fn seal_header(&self, block: &mut Block) {
        block.header.merkle_root =
            block.compute_merkle_root().unwrap_or_else(TxMerkleNode::all_zeros);
        while check_proof_of_work(&block.header, &self.params).is_err() {
            // Every second hash meets regtest's target.
            block.header.nonce += 1;
        }
    }

    /// What the transactions leave to the coinbase.
    fn fees(&self, txs: &[Transaction]) -> u64 {
        let mut made: HashMap<OutPoint, u64> = HashMap::new();
        let mut fees = 0_u64;
        for tx in txs {
            let value = |input: &TxIn| {
                let from = &input.previous_output;
                let coin = self.coins.get(&outpoint_key(from));
                let old = coin.map(|(_, coin)| coin.output.value.to_sat());
                old.or_else(|| made.get(from).copied()).unwrap_or(0)
            };
            let from: u64 = tx.input.iter().map(value).sum();
            let to: u64 = tx.output.iter().map(|output| output.value.to_sat()).sum();
            fees += from.saturating_sub(to);
            made.extend(outputs(tx).map(|(outpoint, output)| (outpoint, output.value.to_sat())));
        }
        fees
    }

    pub(super) fn random_txs(&self, random: &mut Random, txs_max: usize) -> Vec<Transaction> {
        let mut coins = self.spendable(true);
        let mut txs = Vec::new();
        for _ in 0..random.below(txs_max + 1) {
            let inputs = 1 + random.below(3);
            let mut from = Vec::new();
            for _ in 0..inputs {
                if !coins.is_empty() {
                    from.push(coins.swap_remove(random.below(coins.len())));
                }
            }
            if from.is_empty() {
                break;
            }
            let tx = random_transfer(random, &from);
            coins.extend(outputs(&tx).filter(|(_, output)| {
                let script = &output.script_pubkey;
                let is_anyones = *script != nobody() && !script.is_op_return();
                is_anyones && output.value.to_sat() > DUST
            }));
            txs.push(tx);
        }
        txs
    }
}

impl Default for ModelChain {
    fn default() -> Self {
        Self::new()
    }
}

/// Spends all of `from` into one to four outputs and a fee.
fn random_transfer(random: &mut Random, from: &[(OutPoint, TxOut)]) -> Transaction {
    let mut left: u64 = from.iter().map(|(_, output)| output.value.to_sat()).sum();
    left -= random.next() % 100;
    let mut to = Vec::new();
    for _ in 0..random.below(4) {
        let value = random.next() % (left / 2);
        left -= value;
        let script = match random.below(8) {
            0 => nobody(),
            1 => vec![0x6a, 0x01, 0x07].into(),
            2 | 3 => witness_anyone(),
            _ => anyone(),
        };
        to.push(output(value, script));
        if left < DUST {
            break;
        }
    }
    to.push(output(left, anyone()));
    transfer(from, to)
}

/// Returns a transaction that spends outputs of a [`ModelChain`] into others; it shows the script of
/// each witness program.
#[must_use]
pub fn transfer(from: &[(OutPoint, TxOut)], to: Vec<TxOut>) -> Transaction {
    let input = |(previous_output, output): &(OutPoint, TxOut)| TxIn {
        previous_output: *previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: if output.script_pubkey.is_p2wsh() {
            Witness::from_slice(&[anyone().as_bytes()])
        } else {
            Witness::new()
        },
    };
    Transaction {
        version: TxVersion::TWO,
        lock_time: LockTime::ZERO,
        input: from.iter().map(input).collect(),
        output: to,
    }
}

fn outputs(tx: &Transaction) -> impl Iterator<Item = (OutPoint, TxOut)> + use<'_> {
    let txid = tx.compute_txid();
    let numbered = (0_u32..).zip(&tx.output);
    numbered.map(move |(vout, output)| (OutPoint::new(txid, vout), output.clone()))
}

pub(super) fn output(value: u64, script_pubkey: ScriptBuf) -> TxOut {
    TxOut { value: Amount::from_sat(value), script_pubkey }
}
