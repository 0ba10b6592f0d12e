//! Small blocks, transactions and chains for this crate's unit tests.

use bitcoin::absolute::LockTime;
use bitcoin::block::Header;
use bitcoin::hashes::Hash as _;
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, Block, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Txid,
    Witness,
};

use crate::block::{CheckedBlock, merkle_root};
use crate::coin::CoinRef;
use crate::compress::CompressedScript;
use crate::params::{ChainParams, Network};
use crate::pow::{HeaderChain, check_proof_of_work};
use crate::wire::Transactions;

/// Headers from the genesis block on.
#[derive(Clone, Debug)]
pub(crate) struct Chain(pub(crate) Vec<Header>);

impl Chain {
    /// Returns a chain of `count` headers after `genesis`, each `spacing` seconds after its parent,
    /// of the same difficulty. They are not mined.
    pub(crate) fn new(genesis: &Header, count: u32, spacing: u32) -> Self {
        let headers = (0..=count).map(|n| Header { time: genesis.time + n * spacing, ..*genesis });
        Self(headers.collect())
    }

    pub(crate) fn last(&mut self) -> &mut Header {
        self.0.last_mut().unwrap()
    }
}

impl HeaderChain for Chain {
    fn height(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap() - 1
    }

    fn header(&self, height: u32) -> Header {
        self.0[usize::try_from(height).unwrap()]
    }
}

/// Returns an outpoint of its own for each number.
pub(crate) fn outpoint(number: u8) -> OutPoint {
    OutPoint::new(Txid::from_byte_array([number; 32]), 0)
}

/// Returns a coin with the script `OP_TRUE`.
pub(crate) fn coin(height: u32, coinbase: bool, amount: u64) -> CoinRef<'static> {
    let script = CompressedScript::Other(&[0x51]);
    CoinRef { height, coinbase, value: amount, script, output: &[] }
}

fn output(amount: u64) -> TxOut {
    TxOut { value: Amount::from_sat(amount), script_pubkey: ScriptBuf::from_bytes(vec![0x51]) }
}

/// Returns a transaction of version 2 without locks.
pub(crate) fn payment(from: &[OutPoint], amounts: &[u64]) -> Transaction {
    let input = |&previous_output: &OutPoint| TxIn {
        previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: from.iter().map(input).collect(),
        output: amounts.iter().map(|&amount| output(amount)).collect(),
    }
}

/// Returns a coinbase that begins with the height.
pub(crate) fn coinbase(height: u32, amount: u64) -> Transaction {
    let mut tx = payment(&[OutPoint::null()], &[amount]);
    tx.input[0].script_sig =
        bitcoin::script::Builder::new().push_int(i64::from(height)).push_int(0).into_script();
    tx
}

/// Returns a mined regtest block on the genesis block.
pub(crate) fn block(txs: Vec<Transaction>) -> Block {
    let params = ChainParams::new(Network::Regtest);
    let genesis = params.genesis.header;
    let header = Header {
        prev_blockhash: genesis.block_hash(),
        time: genesis.time + 600,
        version: bitcoin::block::Version::from_consensus(4),
        ..genesis
    };
    let mut block = Block { header, txdata: txs };
    mine(&mut block);
    block
}

/// Makes the header fit the transactions, and mines it.
pub(crate) fn mine(block: &mut Block) {
    let txids = block.txdata.iter().map(|tx| tx.compute_txid().to_byte_array());
    block.header.merkle_root = TxMerkleNode::from_byte_array(merkle_root(txids.collect()).0);
    mine_header(&mut block.header);
}

/// Finds a nonce under the easiest target.
pub(crate) fn mine_header(header: &mut Header) {
    let params = ChainParams::new(Network::Regtest);
    while check_proof_of_work(header, &params).is_err() {
        header.nonce += 1;
    }
}

/// Reads what a lone transaction's bytes say; its first transaction is `tx`.
pub(crate) fn parsed(tx: &Transaction) -> Transactions {
    Transactions::of_transaction(bitcoin::consensus::serialize(tx)).unwrap()
}

/// Checks a block of regtest that has to be right by itself.
pub(crate) fn checked(block: &Block) -> CheckedBlock {
    let raw = bitcoin::consensus::serialize(block);
    CheckedBlock::parse(raw, &ChainParams::new(Network::Regtest)).unwrap()
}
