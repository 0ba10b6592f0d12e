//! `MadeChain`: a regtest chain with blocks as long as those of the main chain, really signed.
//!
//! Coinbases pay for fans of outputs, then come blocks of transactions with two inputs and two
//! outputs each: of ten coins six are pay-to-witness-pubkey-hash, two pay-to-pubkey-hash and two
//! taproot. Of ten inputs one spends an output of the same block and four one of the ten blocks
//! before. Above the last block there are as many headers as assumed-valid blocks need.

use std::collections::VecDeque;

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::{Hash as _, sha256d};
use bitcoin::key::{Keypair, TapTweak as _, TweakedKeypair};
use bitcoin::script::Builder;
use bitcoin::secp256k1::{All, Message, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::transaction::Version as TxVersion;
use bitcoin::{
    Amount, Block, CompressedPublicKey, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Witness,
};
use cofferdam_ibd::{ChainParams, Network, mining};
use cofferdam_storage::testing::Random;

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

/// What kind of output a coin is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Wpkh,
    Pkh,
    Taproot,
}

#[derive(Clone, Copy, Debug)]
struct Coin {
    outpoint: OutPoint,
    value: u64,
    kind: Kind,
}

struct Maker {
    secp: Secp256k1<All>,
    params: ChainParams,
    random: Random,
    secret: SecretKey,
    key: CompressedPublicKey,
    tweaked: TweakedKeypair,
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
            maker.add_header(TxMerkleNode::all_zeros());
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
    let coin =
        |vout| Coin { outpoint: OutPoint { vout, ..outpoint() }, value: 1_000, kind: Kind::Wpkh };
    let coins: Vec<Coin> = (0..).map(coin).take(count).collect();
    let (tx, _) = maker.pay(&coins, 1);
    let spent = (1_000, maker.script(Kind::Wpkh));
    (bitcoin::consensus::serialize(&tx), vec![spent; count])
}

fn outpoint() -> OutPoint {
    OutPoint::new(bitcoin::Txid::from_byte_array([1; 32]), 0)
}

impl Maker {
    fn new(seed: u64) -> Self {
        let secp = Secp256k1::new();
        let secret = SecretKey::from_slice(&[0x42; 32]).expect("in range");
        let keypair = Keypair::from_secret_key(&secp, &secret);
        Self {
            params: ChainParams::new(Network::Regtest),
            random: Random::new(seed),
            key: CompressedPublicKey(keypair.public_key()),
            tweaked: keypair.tap_tweak(&secp, None),
            secp,
            secret,
            chain: MadeChain { blocks: Vec::new(), headers: Vec::new(), prepared: 0, now: 0 },
            coinbases: VecDeque::new(),
            old: Vec::new(),
            recent: VecDeque::new(),
        }
    }

    fn script(&self, kind: Kind) -> ScriptBuf {
        match kind {
            Kind::Wpkh => ScriptBuf::new_p2wpkh(&self.key.wpubkey_hash()),
            Kind::Pkh => ScriptBuf::new_p2pkh(&self.key.pubkey_hash()),
            Kind::Taproot => {
                let (key, _) = self.tweaked.to_keypair().x_only_public_key();
                ScriptBuf::new_p2tr_tweaked(
                    bitcoin::key::TweakedPublicKey::dangerous_assume_tweaked(key),
                )
            }
        }
    }

    fn kind(&mut self) -> Kind {
        match self.random.below(10) {
            0..6 => Kind::Wpkh,
            6..8 => Kind::Pkh,
            _ => Kind::Taproot,
        }
    }

    fn add_header(&mut self, merkle_root: TxMerkleNode) {
        let parent = self.chain.headers.last().copied().unwrap_or(self.params.genesis.header);
        let header = Header {
            version: Version::from_consensus(0x2000_0000),
            prev_blockhash: parent.block_hash(),
            merkle_root,
            time: parent.time + 600,
            bits: parent.bits,
            nonce: 0,
        };
        let mut block = Block { header, txdata: Vec::new() };
        assert!(mining::solve(&mut block, &self.params, &mut 1_000_000), "regtest is easy");
        self.chain.headers.push(block.header);
    }

    /// Adds a block of a coinbase and `txs`; `made` are coins that it leaves behind.
    fn add_block(&mut self, mut txs: Vec<Transaction>, made: Vec<Coin>) {
        let height = u32::try_from(self.chain.blocks.len()).expect("short") + 1;
        let value = 5_000_000_000_u64 >> (height / 150);
        txs.insert(0, self.coinbase(height, value, &txs));
        let txid = txs[0].compute_txid();
        self.coinbases.push_back(Coin {
            outpoint: OutPoint::new(txid, 0),
            value,
            kind: Kind::Wpkh,
        });
        let mut block = Block { header: self.params.genesis.header, txdata: txs };
        let root = block.compute_merkle_root().expect("not empty");
        self.add_header(root);
        block.header = *self.chain.headers.last().expect("just added");
        self.chain.blocks.push(bitcoin::consensus::serialize(&block));
        self.recent.extend(made);
        while self.recent.len() > RECENT_COINS {
            self.old.extend(self.recent.pop_front());
        }
    }

    fn coinbase(&self, height: u32, value: u64, txs: &[Transaction]) -> Transaction {
        let mut leaves = vec![[0; 32]];
        leaves.extend(txs.iter().map(|tx| tx.compute_wtxid().to_byte_array()));
        let (root, _) = cofferdam_ibd::block::merkle_root(leaves);
        let commitment = sha256d::Hash::hash(&[root, [0; 32]].concat());
        let mut script = vec![0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
        script.extend_from_slice(commitment.as_byte_array());
        let output = |value, script_pubkey| TxOut { value: Amount::from_sat(value), script_pubkey };
        Transaction {
            version: TxVersion::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                script_sig: Builder::new().push_int(i64::from(height)).push_int(0).into_script(),
                sequence: Sequence::MAX,
                witness: Witness::from_slice(&[[0; 32]]),
            }],
            output: vec![
                output(value, self.script(Kind::Wpkh)),
                output(0, ScriptBuf::from_bytes(script)),
            ],
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
            script_pubkey: self.script(kind),
        };
        let mut tx = Transaction {
            version: TxVersion::TWO,
            lock_time: LockTime::ZERO,
            input: coins.iter().map(input).collect(),
            output: kinds.iter().map(output).collect(),
        };
        self.sign(&mut tx, coins);
        let txid = tx.compute_txid();
        let coin = |(vout, &kind)| Coin { outpoint: OutPoint::new(txid, vout), value, kind };
        let made = (0..).zip(&kinds).map(coin).collect();
        (tx, made)
    }

    fn sign(&self, tx: &mut Transaction, coins: &[Coin]) {
        let spent: Vec<TxOut> = coins
            .iter()
            .map(|coin| TxOut {
                value: Amount::from_sat(coin.value),
                script_pubkey: self.script(coin.kind),
            })
            .collect();
        // Signatures are no part of what is signed here, so one cache serves all inputs.
        let unsigned = tx.clone();
        let mut cache = SighashCache::new(&unsigned);
        for (index, coin) in coins.iter().enumerate() {
            let all = EcdsaSighashType::All;
            let ecdsa = |message| bitcoin::ecdsa::Signature {
                signature: self.secp.sign_ecdsa(&message, &self.secret),
                sighash_type: all,
            };
            let (script, value) = (&spent[index].script_pubkey, spent[index].value);
            match coin.kind {
                Kind::Wpkh => {
                    let hash = cache.p2wpkh_signature_hash(index, script, value, all);
                    let signature = ecdsa(Message::from(hash.expect("an input")));
                    tx.input[index].witness = Witness::p2wpkh(&signature, &self.key.0);
                }
                Kind::Pkh => {
                    let hash = cache.legacy_signature_hash(index, script, all.to_u32());
                    let signature = ecdsa(Message::from(hash.expect("an input")));
                    tx.input[index].script_sig = Builder::new()
                        .push_slice(signature.serialize())
                        .push_key(&self.key.into())
                        .into_script();
                }
                Kind::Taproot => {
                    let spent = Prevouts::All(&spent);
                    let default = TapSighashType::Default;
                    let hash = cache.taproot_key_spend_signature_hash(index, &spent, default);
                    let message = Message::from(hash.expect("an input"));
                    let signature =
                        self.secp.sign_schnorr_no_aux_rand(&message, self.tweaked.as_keypair());
                    tx.input[index].witness = Witness::from_slice(&[signature.as_ref()]);
                }
            }
        }
    }
}
