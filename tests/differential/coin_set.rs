//! `CoinSet`: Bitcoin Core's UTXO set, rebuilt from its own blocks and undo data.
//!
//! The kernel library does not let its set be read. A map of our own follows its chain instead,
//! block by block; the undo data, which Core wrote from the set, have to name the very coins that
//! the map has. None of the product's code is asked what a coin is or how a set is hashed.

use std::collections::BTreeMap;

use bitcoin::hashes::{Hash as _, HashEngine as _, sha256d};
use bitcoin::{Block, BlockHash, OutPoint, Transaction};
use blvm_muhash::MuHash3072;
use cofferdam_ibd::Coin;

use crate::kernel::Kernel;

/// Longer scripts are never run (`MAX_SCRIPT_SIZE`).
const SCRIPT_LEN_MAX: usize = 10_000;

type Outpoint = (bitcoin::Txid, u32);

/// The coins after a block of Core's active chain.
pub(crate) struct CoinSet {
    coins: BTreeMap<Outpoint, Coin>,
    /// The blocks that made them, from height 1 on.
    chain: Vec<BlockHash>,
    /// Follows every coin that comes and goes.
    muhash: MuHash3072,
}

/// Size and hash of a set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Summary {
    pub(crate) coins: u64,
    pub(crate) amount: u64,
    pub(crate) hash_serialized_3: String,
}

impl CoinSet {
    /// The set after a genesis block, whose coinbase is no coin.
    pub(crate) fn new() -> Self {
        Self { coins: BTreeMap::new(), chain: Vec::new(), muhash: MuHash3072::new() }
    }

    /// Follows the kernel to its tip; returns how many blocks were taken back.
    pub(crate) fn follow(&mut self, kernel: &Kernel) -> usize {
        let before = self.chain.len();
        while let Some(last) = self.chain.last().filter(|last| !kernel.is_active(last)) {
            let (block, spent) = kernel.read(last);
            self.disconnect(&block, &spent);
            self.chain.pop();
        }
        let taken_back = before - self.chain.len();
        for hash in kernel.active_above(self.height()) {
            let (block, spent) = kernel.read(&hash);
            self.chain.push(hash);
            self.connect(&block, &spent);
        }
        taken_back
    }

    fn height(&self) -> u32 {
        u32::try_from(self.chain.len()).expect("a height")
    }

    fn connect(&mut self, block: &Block, spent: &[Vec<Coin>]) {
        let height = self.height();
        for (index, tx) in block.txdata.iter().enumerate() {
            if index > 0 {
                for (input, coin) in tx.input.iter().zip(&spent[index - 1]) {
                    let had = self.remove(key(&input.previous_output));
                    assert_eq!(had.as_ref(), Some(coin), "Core's undo data at {height}");
                }
            }
            for (outpoint, output) in spendable(tx) {
                let coin = Coin { height, coinbase: index == 0, output: output.clone() };
                self.insert(outpoint, coin);
            }
        }
    }

    fn disconnect(&mut self, block: &Block, spent: &[Vec<Coin>]) {
        for (index, tx) in block.txdata.iter().enumerate().rev() {
            for (outpoint, _) in spendable(tx) {
                self.remove(outpoint);
            }
            if index > 0 {
                for (input, coin) in tx.input.iter().zip(&spent[index - 1]) {
                    self.insert(key(&input.previous_output), coin.clone());
                }
            }
        }
    }

    fn insert(&mut self, outpoint: Outpoint, coin: Coin) {
        self.muhash.insert_mut(&serialized(&outpoint, &coin));
        assert!(self.coins.insert(outpoint, coin).is_none(), "nothing is overwritten");
    }

    fn remove(&mut self, outpoint: Outpoint) -> Option<Coin> {
        let had = self.coins.remove(&outpoint)?;
        self.muhash.remove_mut(&serialized(&outpoint, &had));
        Some(had)
    }

    /// `muhash` of `gettxoutsetinfo`, and the number of coins.
    pub(crate) fn muhash(&self) -> (String, u64) {
        let hash = self.muhash.clone().finalize();
        (hash.iter().rev().map(|byte| format!("{byte:02x}")).collect(), self.coins.len() as u64)
    }

    /// `hash_serialized_3` of `gettxoutsetinfo`, with counts (`kernel/coinstats.cpp`).
    pub(crate) fn summary(&self) -> Summary {
        let mut engine = sha256d::Hash::engine();
        let mut amount = 0;
        for (outpoint, coin) in &self.coins {
            amount += coin.output.value.to_sat();
            engine.input(&serialized(outpoint, coin));
        }
        let hash = sha256d::Hash::from_engine(engine).to_byte_array();
        let hash_serialized_3 = hash.iter().rev().map(|byte| format!("{byte:02x}")).collect();
        Summary { coins: self.coins.len() as u64, amount, hash_serialized_3 }
    }
}

/// What is hashed of a coin (`TxOutSer` in `kernel/coinstats.cpp`).
fn serialized((txid, vout): &Outpoint, coin: &Coin) -> Vec<u8> {
    let (script, value) = (coin.output.script_pubkey.as_bytes(), coin.output.value);
    let mut bytes = txid.as_byte_array().to_vec();
    bytes.extend(vout.to_le_bytes());
    bytes.extend((coin.height * 2 + u32::from(coin.coinbase)).to_le_bytes());
    bytes.extend(value.to_sat().to_le_bytes());
    match u16::try_from(script.len()).expect("at most 10,000") {
        short @ 0..253 => bytes.extend(&short.to_le_bytes()[..1]),
        long => bytes.extend([&[253], &long.to_le_bytes()[..]].concat()),
    }
    bytes.extend(script);
    bytes
}

const fn key(outpoint: &OutPoint) -> Outpoint {
    (outpoint.txid, outpoint.vout)
}

/// The outputs of a transaction that become coins.
fn spendable(tx: &Transaction) -> impl Iterator<Item = (Outpoint, &bitcoin::TxOut)> + '_ {
    let txid = tx.compute_txid();
    (0_u32..).zip(&tx.output).filter_map(move |(vout, output)| {
        let script = output.script_pubkey.as_bytes();
        let dead = script.first() == Some(&0x6a) || script.len() > SCRIPT_LEN_MAX;
        (!dead).then_some(((txid, vout), output))
    })
}
