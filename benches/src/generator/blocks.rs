//! Blocks of regtest: coinbase, commitment, proof of work.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::{Hash as _, sha256d};
use bitcoin::script::Builder;
use bitcoin::transaction::Version as TxVersion;
use bitcoin::{
    Amount, Block, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode,
    TxOut, Txid, Witness,
};
use cofferdam_ibd::{ChainParams, Network, block, mining};

/// Seconds between blocks.
const SPACING: u32 = 600;
/// Blocks between halvings of the subsidy on regtest.
const HALVING: u32 = 150;

/// Puts blocks one on another, from the one after the genesis block on.
#[derive(Debug)]
pub struct BlockMaker {
    params: ChainParams,
    tip: Header,
    height: u32,
}

impl Default for BlockMaker {
    fn default() -> Self {
        let params = ChainParams::new(Network::Regtest);
        Self { tip: params.genesis.header, params, height: 0 }
    }
}

impl BlockMaker {
    /// Returns the height of the last block.
    #[must_use]
    pub const fn height(&self) -> u32 {
        self.height
    }

    /// Makes the next block: its coinbase pays the subsidy to `script`. Returns the coinbase's id and
    /// output, too.
    pub fn next(&mut self, txs: Vec<Transaction>, script: ScriptBuf) -> (Block, OutPoint, u64) {
        let value = 5_000_000_000_u64.checked_shr((self.height + 1) / HALVING).unwrap_or(0);
        let ids: Vec<_> = txs.iter().map(|tx| tx.compute_wtxid().to_byte_array()).collect();
        let coinbase = self.coinbase(value, script, ids);
        let id: Txid = coinbase.compute_txid();
        let mut txdata = Vec::with_capacity(txs.len() + 1);
        txdata.push(coinbase);
        txdata.extend(txs);
        let block = Block { header: self.tip, txdata };
        let root = block.compute_merkle_root().expect("not empty");
        let block = Block { header: self.next_header(root), txdata: block.txdata };
        (block, OutPoint::new(id, 0), value)
    }

    /// Makes the next header.
    pub fn next_header(&mut self, merkle_root: TxMerkleNode) -> Header {
        let header = Header {
            version: Version::from_consensus(0x2000_0000),
            prev_blockhash: self.hash(),
            merkle_root,
            time: self.tip.time + SPACING,
            bits: self.tip.bits,
            nonce: 0,
        };
        let mut block = Block { header, txdata: Vec::new() };
        assert!(mining::solve(&mut block, &self.params, &mut 1_000_000), "regtest is easy");
        self.tip = block.header;
        self.height += 1;
        block.header
    }

    /// Returns the last block's hash.
    #[must_use]
    pub fn hash(&self) -> BlockHash {
        self.tip.block_hash()
    }

    fn coinbase(&self, value: u64, script: ScriptBuf, wtxids: Vec<[u8; 32]>) -> Transaction {
        let mut leaves = vec![[0; 32]];
        leaves.extend(wtxids);
        let (root, _) = block::merkle_root(leaves);
        let commitment = sha256d::Hash::hash(&[root, [0; 32]].concat());
        let mut commit = vec![0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
        commit.extend_from_slice(commitment.as_byte_array());
        let output = |value, script_pubkey| TxOut { value: Amount::from_sat(value), script_pubkey };
        let height = i64::from(self.height + 1);
        Transaction {
            version: TxVersion::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                script_sig: Builder::new().push_int(height).push_int(0).into_script(),
                sequence: Sequence::MAX,
                witness: Witness::from_slice(&[[0; 32]]),
            }],
            output: vec![output(value, script), output(0, ScriptBuf::from_bytes(commit))],
        }
    }
}
