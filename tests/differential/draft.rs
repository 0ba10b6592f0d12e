//! `Branch` and `Draft`: a chain of regtest as far as its next block depends on it, and that block
//! while it is being made.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash as _;
use bitcoin::script::Builder;
use bitcoin::transaction::Version as TxVersion;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Target, Transaction,
    TxIn, TxMerkleNode, TxOut, Txid, Witness, WitnessMerkleNode,
};
use cofferdam_ibd::{ChainParams, Network};
use cofferdam_storage::testing::Random;

use crate::wallet::{Lock, Owned, PLAIN, Wallet, push_bytes};

/// Blocks until a coinbase can be spent.
pub(crate) const MATURITY: u32 = 100;
/// Blocks between two halvings of the subsidy on regtest.
const HALVING_INTERVAL: u32 = 150;
/// What a block's signature operations may cost.
pub(crate) const SIGOPS_COST_MAX: usize = 80_000;
/// What begins the output with the witness commitment: `OP_RETURN`, a push, and a mark.
pub(crate) const COMMITMENT_PREFIX: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];

/// A chain, as far as its next block depends on it.
#[derive(Clone)]
pub(crate) struct Branch {
    pub(crate) tip: BlockHash,
    /// Times of its blocks, by height.
    times: Vec<u32>,
    /// Coins of the wallet.
    pub(crate) coins: Vec<Owned>,
    /// Transactions of the tip, without the coinbase.
    pub(crate) last_transactions: Vec<Transaction>,
}

impl Branch {
    /// The genesis block of regtest.
    pub(crate) fn genesis() -> Self {
        let genesis = ChainParams::new(Network::Regtest).genesis;
        Self {
            tip: genesis.block_hash(),
            times: vec![genesis.header.time],
            coins: Vec::new(),
            last_transactions: Vec::new(),
        }
    }

    pub(crate) fn height(&self) -> u32 {
        u32::try_from(self.times.len() - 1).expect("a height")
    }

    /// The median time past of the block at `height`.
    pub(crate) fn median_time_past(&self, height: u32) -> u32 {
        let end = height as usize + 1;
        let mut last = self.times[end.saturating_sub(11)..end].to_vec();
        last.sort_unstable();
        last[last.len() / 2]
    }

    pub(crate) fn last_time(&self) -> u32 {
        *self.times.last().expect("the genesis block's at least")
    }
}

/// The next block of a branch.
#[derive(Clone)]
pub(crate) struct Draft<'a> {
    pub(crate) wallet: &'a Wallet,
    pub(crate) random: Random,
    /// The branch without the coins that the block spends.
    pub(crate) branch: Branch,
    /// Coins that the block makes and does not spend.
    pub(crate) created: Vec<Owned>,
    pub(crate) block: Block,
    pub(crate) height: u32,
    /// Coins that the block spends.
    pub(crate) spent: Vec<Owned>,
    fees: u64,
    /// What the signature operations cost so far.
    pub(crate) sigops_cost: usize,
}

impl<'a> Draft<'a> {
    /// A block with a coinbase alone, without proof of work.
    pub(crate) fn new(branch: &Branch, wallet: &'a Wallet, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let height = branch.height() + 1;
        let time = match random.below(8) {
            0 => branch.median_time_past(height - 1) + 1,
            _ => branch.last_time() + 1 + below(&mut random, 1200),
        };
        let header = Header {
            version: Version::from_consensus([4, 0x2000_0000, 0x7fff_ffff][random.below(3)]),
            prev_blockhash: branch.tip,
            merkle_root: TxMerkleNode::all_zeros(),
            time: time.max(branch.median_time_past(height - 1) + 1),
            bits: CompactTarget::from_consensus(0x207f_ffff),
            nonce: 0,
        };
        let block = Block { header, txdata: vec![coinbase(height, &mut random)] };
        let created = Vec::new();
        let branch = branch.clone();
        let (spent, fees, sigops_cost) = (Vec::new(), 0, 0);
        let mut draft =
            Self { wallet, random, branch, created, block, height, spent, fees, sigops_cost };
        draft.add_reward_outputs();
        draft.sigops_cost = draft.block.txdata[0].total_sigop_cost(|_| None);
        draft
    }

    fn add_reward_outputs(&mut self) {
        for n in 0..1 + self.random.below(3) {
            // All kinds come in turn, so that each is there once the first coinbases are mature.
            let turn = self.height as usize + n * 5;
            let (lock, key) = (PLAIN[turn % PLAIN.len()], turn);
            let script_pubkey = self.wallet.script_pubkey(lock, key);
            // The first output takes what is left of the reward.
            let value = Amount::from_sat(self.random.next() % (subsidy(self.height) / 4 + 1));
            self.block.txdata[0].output.push(TxOut { value, script_pubkey });
            let (outpoint, output) = (OutPoint::null(), TxOut::NULL);
            let (height, coinbase) = (self.height, true);
            self.created.push(Owned { outpoint, output, lock, key, height, coinbase });
        }
    }

    /// The median time past that locks are compared with.
    pub(crate) fn median_time_past(&self) -> u32 {
        self.branch.median_time_past(self.height - 1)
    }

    /// Whether the block may spend the coin, its locks apart.
    pub(crate) fn is_mature(&self, coin: &Owned) -> bool {
        !coin.coinbase || self.height - coin.height >= MATURITY
    }

    /// Takes a coin that may be spent.
    pub(crate) fn take(&mut self, lock: Lock) -> Option<Owned> {
        let at = self.branch.coins.iter().position(|c| c.lock == lock && self.is_mature(c))?;
        Some(self.branch.coins.swap_remove(at))
    }

    /// Subsidy and fees, in satoshis.
    pub(crate) const fn reward(&self) -> u64 {
        subsidy(self.height) + self.fees
    }

    /// A signed transaction that spends `coins` and pays all to one output that anyone can spend.
    pub(crate) fn spend(&mut self, coins: &[Owned]) -> Transaction {
        let total: Amount = coins.iter().map(|coin| coin.output.value).sum();
        let script_pubkey = self.wallet.script_pubkey(Lock::Anyone, 0);
        let mut tx = unsigned(coins, vec![TxOut { value: total, script_pubkey }]);
        self.wallet.sign(&mut tx, coins, &mut self.random);
        tx
    }

    /// Adds a transaction that spends `coins`; `locks` say how its outputs can be spent, if at all.
    pub(crate) fn push(
        &mut self,
        tx: Transaction,
        coins: &[Owned],
        locks: &[Option<(Lock, usize)>],
    ) {
        let value_in: Amount = coins.iter().map(|coin| coin.output.value).sum();
        let value_out: Amount = tx.output.iter().map(|output| output.value).sum();
        self.fees += value_in.to_sat() - value_out.to_sat();
        self.sigops_cost += self.sigop_cost(&tx, coins);
        self.spent.extend_from_slice(coins);
        let txid = tx.compute_txid();
        for ((vout, output), lock) in (0..).zip(&tx.output).zip(locks) {
            if let Some((lock, key)) = *lock {
                let (outpoint, output) = (OutPoint::new(txid, vout), output.clone());
                let (height, coinbase) = (self.height, false);
                self.created.push(Owned { outpoint, output, lock, key, height, coinbase });
            }
        }
        self.block.txdata.push(tx);
    }

    /// What the signature operations of a transaction cost that spends `coins`.
    pub(crate) fn sigop_cost(&self, tx: &Transaction, coins: &[Owned]) -> usize {
        let find = |outpoint: &OutPoint| coins.iter().find(|coin| coin.outpoint == *outpoint);
        tx.total_sigop_cost(|outpoint| find(outpoint).map(|coin| coin.output.clone()))
    }

    /// Gives coins back that were taken and not spent.
    pub(crate) fn give_back(&mut self, coins: Vec<Owned>) {
        for coin in coins {
            let in_block = coin.height == self.height;
            let pool = if in_block { &mut self.created } else { &mut self.branch.coins };
            pool.push(coin);
        }
    }

    /// Pays the coinbase subsidy and fees, commits to the witnesses, and mines.
    pub(crate) fn finish(&mut self) {
        let reward = self.reward();
        let paid: u64 = self.block.txdata[0].output.iter().map(|o| o.value.to_sat()).sum();
        let burnt = if self.random.one_in(8) { self.random.next() % 1000 } else { 0 };
        let first = &mut self.block.txdata[0].output[0].value;
        let rest = (reward + first.to_sat() - paid).saturating_sub(burnt);
        *first = Amount::from_sat(rest);
        let witnesses = self.block.txdata.iter().any(|tx| tx.input.iter().any(has_witness));
        if witnesses || !self.random.one_in(4) {
            let reserved = self.random.bytes(32);
            self.block.txdata[0].input[0].witness = Witness::from_slice(&[reserved]);
            for _ in 0..1 + self.random.below(12) / 11 {
                let script = [&COMMITMENT_PREFIX[..], &[0; 32]].concat();
                let output = TxOut { value: Amount::ZERO, script_pubkey: script.into() };
                self.block.txdata[0].output.push(output);
            }
        }
        self.seal();
    }

    /// Makes commitment, merkle root and proof of work right again.
    pub(crate) fn seal(&mut self) {
        commit(&mut self.block);
        self.mine();
    }

    /// Makes merkle root and proof of work right again.
    pub(crate) fn mine(&mut self) {
        set_merkle_root(&mut self.block);
        solve(&mut self.block);
    }

    /// The branch with the block, whatever was made of it.
    pub(crate) fn into_branch(mut self) -> Branch {
        let created = std::mem::take(&mut self.created);
        let txids: Vec<Txid> = self.block.txdata.iter().map(Transaction::compute_txid).collect();
        let mut paid = Vec::new();
        for mut coin in created {
            if coin.coinbase {
                let script = self.wallet.script_pubkey(coin.lock, coin.key);
                let outputs = self.block.txdata.first().map_or(&[][..], |tx| &tx.output);
                let is_it = |(vout, output): &(u32, &TxOut)| {
                    output.script_pubkey == script && !paid.contains(vout)
                };
                let Some((vout, output)) = (0..).zip(outputs).find(is_it) else { continue };
                paid.push(vout);
                coin.outpoint = OutPoint::new(txids[0], vout);
                coin.output = output.clone();
            }
            if txids.contains(&coin.outpoint.txid) {
                self.branch.coins.push(coin);
            }
        }
        self.branch.tip = self.block.block_hash();
        self.branch.times.push(self.block.header.time);
        self.branch.last_transactions = self.block.txdata.into_iter().skip(1).collect();
        self.branch
    }
}

fn has_witness(input: &TxIn) -> bool {
    !input.witness.is_empty()
}

/// A number below `bound`.
pub(crate) fn below(random: &mut Random, bound: u32) -> u32 {
    u32::try_from(random.below(bound as usize)).expect("below a u32")
}

/// The block reward of regtest without fees, in satoshis.
pub(crate) const fn subsidy(height: u32) -> u64 {
    match height / HALVING_INTERVAL {
        halvings @ 0..64 => 5_000_000_000 >> halvings,
        _ => 0,
    }
}

fn coinbase(height: u32, random: &mut Random) -> Transaction {
    let len = if random.one_in(10) { 90 } else { 4 };
    let script_sig = Builder::new()
        .push_int(i64::from(height))
        .push_slice(push_bytes(&random.bytes(len)))
        .into_script();
    let input = TxIn { script_sig, ..TxIn::default() };
    let (version, lock_time) = (TxVersion::TWO, LockTime::ZERO);
    Transaction { version, lock_time, input: vec![input], output: Vec::new() }
}

/// A transaction that spends `coins`, without signatures.
pub(crate) fn unsigned(coins: &[Owned], output: Vec<TxOut>) -> Transaction {
    let input = |coin: &Owned| TxIn {
        previous_output: coin.outpoint,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    let input = coins.iter().map(input).collect();
    Transaction { version: TxVersion::TWO, lock_time: LockTime::ZERO, input, output }
}

/// Writes the witness commitment anew, into the last output that has one.
pub(crate) fn commit(block: &mut Block) {
    let Some(reserved) = block.txdata[0].input[0].witness.nth(0).map(<[u8]>::to_vec) else {
        return;
    };
    let root = block.witness_root().unwrap_or_else(WitnessMerkleNode::all_zeros);
    let commitment = Block::compute_witness_commitment(&root, &reserved);
    let mut outputs = block.txdata[0].output.iter_mut().rev();
    let is_commitment =
        |output: &&mut TxOut| output.script_pubkey.as_bytes().starts_with(&COMMITMENT_PREFIX);
    if let Some(output) = outputs.find(is_commitment) {
        output.script_pubkey = [&COMMITMENT_PREFIX[..], commitment.as_ref()].concat().into();
    }
}

pub(crate) fn set_merkle_root(block: &mut Block) {
    block.header.merkle_root = block.compute_merkle_root().unwrap_or_else(TxMerkleNode::all_zeros);
}

/// Counts the nonce up until the hash meets the header's own target.
pub(crate) fn solve(block: &mut Block) {
    let target = Target::from_compact(block.header.bits);
    while !target.is_met_by(block.block_hash()) {
        block.header.nonce += 1;
    }
}
