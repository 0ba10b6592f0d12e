//! `MadeChain`: a regtest chain with blocks as long as those of the main chain, really signed.
//!
//! Coinbases pay for fans of outputs, then come blocks of transactions with two inputs and two
//! outputs each: of ten coins six are pay-to-witness-pubkey-hash, two pay-to-pubkey-hash and two
//! taproot. Of ten inputs one spends an output of the same block and four one of the ten blocks
//! before. Above the last block there are as many headers as assumed-valid blocks need.

use std::collections::VecDeque;

use bitcoin::absolute::LockTime;
use bitcoin::block::Header;
use bitcoin::hashes::Hash as _;
use bitcoin::transaction::Version as TxVersion;
use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Witness,
};
use cofferdam_storage::testing::Random;

use crate::generator::{BlockMaker, Coin, Keys, Kind};

/// Outputs of one fan, and fans a block: a block of some 900 KB.
const FAN_OUTPUTS: usize = 2_500;
const FANS: usize = 10;
/// Blocks until a coinbase can be spent.
const MATURITY: usize = 100;
/// Coins of the ten blocks before.
const RECENT_COINS: usize = 40_000;
/// Headers above the last block: more than two weeks of work.
const HEADERS_ABOVE: usize = 2_100;

/// A chain, from the block after the genesis block on.
#[derive(Debug)]
pub struct MadeChain {
    /// The blocks' bytes.
    pub blocks: Vec<Vec<u8>>,
    /// Headers of the blocks, and those above.
    pub headers: Vec<Header>,
    /// How many of the blocks, from the first on, only make what the others spend.
    pub prepared: usize,
    /// A time after all of them, in seconds since 1970.
    pub now: u32,
}

struct Maker {
    random: Random,
    keys: Keys,
    blocks: BlockMaker,
    chain: MadeChain,
    coinbases: VecDeque<Coin>,
    old: Vec<Coin>,
    recent: VecDeque<Coin>,
}

impl MadeChain {
    /// Makes a chain with `count` blocks of `txs` transactions each, and those that they need.
    #[must_use]
    pub fn generate(seed: u64, count: usize, txs: usize) -> Self {
        let mut maker = Maker::new(seed);
        // What is spent beyond the chain's own coins, and as much again to choose from.
        let fans = (count * txs * 2).div_ceil(FAN_OUTPUTS * FANS).max(1);
        for _ in 0..MATURITY + fans * FANS {
            maker.add_block(Vec::new(), Vec::new());
        }
        for _ in 0..fans {
            maker.add_fans();
        }
        maker.chain.prepared = maker.chain.blocks.len();
        for _ in 0..count {
            maker.add_payments(txs);
        }
        for _ in 0..HEADERS_ABOVE {
            let header = maker.blocks.next_header(TxMerkleNode::all_zeros());
            maker.chain.headers.push(header);
        }
        maker.chain.now = maker.chain.headers.last().expect("there are some").time;
        maker.chain
    }
}

/// Makes a transaction that spends `count` outputs, all of them pay-to-witness-pubkey-hash: its
/// bytes, and the outputs' amounts and scripts.
#[must_use]
pub fn wide_transaction(count: usize) -> (Vec<u8>, Vec<(u64, ScriptBuf)>) {
    let mut maker = Maker::new(1);
    let coin = |vout| Coin {
        outpoint: OutPoint { vout, ..outpoint() },
        value: 1_000,
        kind: Kind::Wpkh,
        key: 0,
    };
    let coins: Vec<Coin> = (0..).map(coin).take(count).collect();
    let (tx, _) = maker.pay(&coins, 1);
    let spent = (1_000, maker.keys.script(Kind::Wpkh, 0));
    (bitcoin::consensus::serialize(&tx), vec![spent; count])
}

fn outpoint() -> OutPoint {
    OutPoint::new(bitcoin::Txid::from_byte_array([1; 32]), 0)
}

impl Maker {
    fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            keys: Keys::new(seed),
            blocks: BlockMaker::default(),
            chain: MadeChain { blocks: Vec::new(), headers: Vec::new(), prepared: 0, now: 0 },
            coinbases: VecDeque::new(),
            old: Vec::new(),
            recent: VecDeque::new(),
        }
    }

    fn kind(&mut self) -> Kind {
        match self.random.below(10) {
            0..6 => Kind::Wpkh,
            6..8 => Kind::Pkh,
            _ => Kind::TaprootKey,
        }
    }

    /// Adds a block of a coinbase and `txs`; `made` are coins that it leaves behind.
    fn add_block(&mut self, txs: Vec<Transaction>, made: Vec<Coin>) {
        let script = self.keys.script(Kind::Wpkh, 0);
        let (block, outpoint, value) = self.blocks.next(txs, script);
        self.coinbases.push_back(Coin { outpoint, value, kind: Kind::Wpkh, key: 0 });
        self.chain.headers.push(block.header);
        self.chain.blocks.push(bitcoin::consensus::serialize(&block));
        self.recent.extend(made);
        while self.recent.len() > RECENT_COINS {
            self.old.extend(self.recent.pop_front());
        }
    }

    /// Adds a block of [`FANS`] coinbases spread over [`FAN_OUTPUTS`] outputs each.
    fn add_fans(&mut self) {
        let (mut txs, mut made) = (Vec::new(), Vec::new());
        for _ in 0..FANS {
            let coin = self.coinbases.pop_front().expect("one for each");
            let (tx, coins) = self.pay(&[coin], FAN_OUTPUTS);
            txs.push(tx);
            made.extend(coins);
        }
        self.add_block(txs, made);
    }

    fn add_payments(&mut self, count: usize) {
        let (mut txs, mut own) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let coins = [self.take(&mut own), self.take(&mut own)];
            let (tx, made) = self.pay(&coins, 2);
            txs.push(tx);
            own.extend(made);
        }
        self.add_block(txs, own);
    }

    fn take(&mut self, own: &mut Vec<Coin>) -> Coin {
        let pick = self.random.below(10);
        let mut below = |len: usize| self.random.below(len);
        if pick == 0 && !own.is_empty() {
            let at = below(own.len());
            return own.swap_remove(at);
        }
        if (pick < 5 || self.old.is_empty()) && !self.recent.is_empty() {
            let at = below(self.recent.len());
            return self.recent.swap_remove_back(at).expect("there is one");
        }
        let at = below(self.old.len());
        self.old.swap_remove(at)
    }

    /// Makes a transaction that spends `coins`, signs it, and returns it with its coins.
    fn pay(&mut self, coins: &[Coin], outputs: usize) -> (Transaction, Vec<Coin>) {
        let total: u64 = coins.iter().map(|coin| coin.value).sum();
        let value = total / outputs as u64;
        let kinds: Vec<Kind> = (0..outputs).map(|_| self.kind()).collect();
        let input = |coin: &Coin| TxIn {
            previous_output: coin.outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        };
        let output = |&kind: &Kind| TxOut {
            value: Amount::from_sat(value),
            script_pubkey: self.keys.script(kind, 0),
        };
        let mut tx = Transaction {
            version: TxVersion::TWO,
            lock_time: LockTime::ZERO,
            input: coins.iter().map(input).collect(),
            output: kinds.iter().map(output).collect(),
        };
        self.keys.sign(&mut tx, coins);
        let txid = tx.compute_txid();
        let coin =
            |(vout, &kind)| Coin { outpoint: OutPoint::new(txid, vout), value, kind, key: 0 };
        let made = (0..).zip(&kinds).map(coin).collect();
        (tx, made)
    }
}
