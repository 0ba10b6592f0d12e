//! `CheckedBlock`: a block that passed all checks that need neither the chain nor coins
//! (`CheckBlock` in Bitcoin Core's `validation.cpp`).
//!
//! The checks that compare the transactions with what the header's work commits to come first, so
//! that a block with other transactions than its header's never condemns the header.

use bitcoin::block::Header;
use bitcoin::hashes::Hash as _;
use bitcoin::{BlockHash, Txid};

use super::spends::{Spends, resolve_spends};
use super::witness::{Commitment, check_commitment, check_witnesses};
use super::{RawBlock, SIGOPS_COST_MAX, WEIGHT_MAX, merkle_root};
use crate::params::ChainParams;
use crate::pow::check_proof_of_work;
use crate::rejection::Rejection;
use crate::tx::{WITNESS_SCALE, check_with, has_duplicate_inputs, legacy_sigop_count};
use crate::wire::{Transactions, TxRef, count_len};

/// Bytes of a header.
const HEADER_LEN: usize = 80;

/// A block that is right by itself, with what was computed on the way.
#[derive(Clone, Debug)]
pub struct CheckedBlock {
    block: RawBlock,
    txids: Vec<Txid>,
    /// Signature operations of each transaction's own scripts.
    pub(crate) legacy_sigops: Vec<u32>,
    /// Where the coin of each input comes from.
    pub(crate) spends: Spends,
    base_size: usize,
    /// Nothing if the witnesses were not looked at.
    commitment: Option<Commitment>,
    pub(super) has_witness: bool,
}

impl CheckedBlock {
    /// Checks everything but a signet's solution, for which
    /// [`check_signet_solution`](crate::signet::check_signet_solution) needs a script verifier.
    ///
    /// # Errors
    ///
    /// Returns `high-hash`, `bad-txnmrklroot`, `bad-txns-duplicate`, `bad-blk-length`,
    /// `bad-cb-missing`, `bad-cb-multiple`, `bad-blk-sigops`, or what
    /// [`check_transaction`](crate::tx::check_transaction) returns.
    pub fn check(block: RawBlock, params: &ChainParams) -> Result<Self, Rejection> {
        check_proof_of_work(block.header(), params)?;
        Self::check_without_work(block)
    }

    /// Reads a block and checks it as [`CheckedBlock::check`] does.
    ///
    /// # Errors
    ///
    /// Returns `block-decode-failed`, or as [`CheckedBlock::check`].
    pub fn parse(bytes: Vec<u8>, params: &ChainParams) -> Result<Self, Rejection> {
        Self::check(RawBlock::parse(bytes)?, params)
    }

    /// Reads a block that was accepted before it was stored, and checks it as [`CheckedBlock::check`]
    /// does, which is what Bitcoin Core's `ConnectBlock` repeats. The witnesses are not hashed:
    /// what they owe to the commitment is checked once, when a block is accepted, and again if the
    /// block is found to break a rule.
    ///
    /// # Errors
    ///
    /// As [`CheckedBlock::parse`].
    pub(crate) fn parse_stored(bytes: Vec<u8>, params: &ChainParams) -> Result<Self, Rejection> {
        let block = RawBlock::parse(bytes)?;
        check_proof_of_work(block.header(), params)?;
        Self::check_transactions(block)
    }

    /// Checks as [`CheckedBlock::check`] does but for the proof of work: for a block that is being
    /// made.
    ///
    /// # Errors
    ///
    /// As [`CheckedBlock::check`], without `high-hash`.
    pub fn check_without_work(block: RawBlock) -> Result<Self, Rejection> {
        let mut checked = Self::check_transactions(block)?;
        checked.commitment = Some(checked.commitment());
        Ok(checked)
    }

    /// Checks everything but the proof of work; the witness commitment is not looked at.
    fn check_transactions(block: RawBlock) -> Result<Self, Rejection> {
        let txs = block.txs();
        let txids: Vec<Txid> = txs.iter().map(TxRef::txid).collect();
        check_merkle_root(block.header(), &txids)?;
        let front = HEADER_LEN + count_len(txs.len());
        let base_size = front + txs.iter().map(TxRef::base_size).sum::<usize>();
        let too_long = |len: usize| len as u64 * WITNESS_SCALE > WEIGHT_MAX;
        if txs.is_empty() || too_long(txs.len()) || too_long(base_size) {
            return Err(Rejection::consensus("bad-blk-length").with_detail("size limits failed"));
        }
        let spends = resolve_spends(txs, &txids);
        let legacy_sigops = check_transactions(txs, &txids, &spends)?;
        Ok(Self {
            commitment: None,
            has_witness: has_witness(txs),
            spends,
            base_size,
            legacy_sigops,
            txids,
            block,
        })
    }

    /// Returns what the witnesses are with regard to the commitment.
    pub(super) fn commitment(&self) -> Commitment {
        self.commitment.unwrap_or_else(|| check_commitment(self.txs(), &self.txids))
    }

    /// Returns the header.
    #[must_use]
    pub const fn header(&self) -> &Header {
        self.block.header()
    }

    /// Returns the hash of the header.
    #[must_use]
    pub const fn hash(&self) -> BlockHash {
        self.block.hash()
    }

    /// Returns the transactions.
    #[must_use]
    pub const fn txs(&self) -> &Transactions {
        self.block.txs()
    }

    /// Returns the ids of the transactions.
    #[must_use]
    pub fn txids(&self) -> &[Txid] {
        &self.txids
    }

    /// Returns the block's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.block.bytes()
    }

    /// Returns the number of bytes of the block.
    #[must_use]
    pub fn total_size(&self) -> usize {
        self.bytes().len()
    }

    /// Returns the number of bytes of the block without witnesses.
    #[must_use]
    pub const fn base_size(&self) -> usize {
        self.base_size
    }

    /// Returns the weight (BIP-0141).
    #[must_use]
    pub fn weight(&self) -> usize {
        self.base_size * 3 + self.total_size()
    }

    /// Returns the memory held, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let per_tx = size_of::<Txid>() + size_of::<u32>();
        self.txs().memory_bytes() + self.txids.capacity() * per_tx + self.spends.memory_bytes()
    }
}

/// Returns whether the block's bytes are not those that its header commits to, as far as can be
/// seen without the chain (`IsBlockMutated`). `check_witness_root` says whether a witness
/// commitment may be due.
///
/// Such a block says nothing about its header, not even if it breaks other rules.
#[must_use]
pub fn is_block_mutated(block: &RawBlock, check_witness_root: bool) -> bool {
    let txs = block.txs();
    let txids: Vec<Txid> = txs.iter().map(TxRef::txid).collect();
    if let Err(rejection) = check_merkle_root(block.header(), &txids) {
        tracing::debug!("Block mutated: {rejection}");
        return true;
    }
    if !txs.first().is_some_and(TxRef::is_coinbase) {
        // A transaction of 64 bytes looks like an inner node of the tree: what seem to be all
        // transactions may be a level of it.
        return txs.iter().any(|tx| tx.base_size() == 64);
    }
    let commitment = check_commitment(txs, &txids);
    let checked = check_witnesses(commitment, has_witness(txs), check_witness_root);
    if let Err(rejection) = &checked {
        tracing::debug!("Block mutated: {rejection}");
    }
    checked.is_err()
}

/// Returns whether any transaction has a witness.
fn has_witness(txs: &Transactions) -> bool {
    txs.iter().any(TxRef::has_witness)
}

fn check_merkle_root(header: &Header, txids: &[Txid]) -> Result<(), Rejection> {
    let (root, mutated) = merkle_root(txids.iter().map(|txid| txid.to_byte_array()).collect());
    if root != header.merkle_root.to_byte_array() {
        return Err(Rejection::mutated("bad-txnmrklroot").with_detail("hashMerkleRoot mismatch"));
    }
    if mutated {
        return Err(Rejection::mutated("bad-txns-duplicate").with_detail("duplicate transaction"));
    }
    Ok(())
}

/// Returns the number of signature operations of each transaction.
fn check_transactions(
    block: &Transactions,
    txids: &[Txid],
    spends: &Spends,
) -> Result<Vec<u32>, Rejection> {
    let mut txs = block.iter();
    if !txs.next().is_some_and(TxRef::is_coinbase) {
        let detail = "first tx is not coinbase";
        return Err(Rejection::consensus("bad-cb-missing").with_detail(detail));
    }
    if txs.any(TxRef::is_coinbase) {
        let detail = "more than one coinbase";
        return Err(Rejection::consensus("bad-cb-multiple").with_detail(detail));
    }
    for (tx, txid) in block.iter().zip(txids) {
        // Where no coin is spent twice in the whole block, none is by a transaction.
        let twice = |tx: TxRef<'_>| spends.repeats() && has_duplicate_inputs(tx);
        check_with(tx, twice).map_err(|rejection| {
            rejection.with_detail(format!("Transaction check failed (tx hash {txid})"))
        })?;
    }
    // Those of redeem scripts and witnesses are counted when the coins are known.
    let sigops: Vec<u32> = block.iter().map(legacy_sigop_count).collect();
    let total: u64 = sigops.iter().copied().map(u64::from).sum();
    if total * WITNESS_SCALE > SIGOPS_COST_MAX {
        return Err(Rejection::consensus("bad-blk-sigops").with_detail("out-of-bounds SigOpCount"));
    }
    Ok(sigops)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Network;
    use crate::rejection::RejectionScope;
    use crate::testing::{block, coinbase, mine, outpoint, payment};
    use bitcoin::consensus::serialize;
    use bitcoin::{Block, OutPoint, ScriptBuf, TxMerkleNode};

    fn check(block: Block) -> Result<CheckedBlock, Rejection> {
        CheckedBlock::check(raw(&block), &ChainParams::new(Network::Regtest))
    }

    fn raw(block: &Block) -> RawBlock {
        RawBlock::parse(serialize(block)).unwrap()
    }

    fn is_mutated(block: &Block, check_witness_root: bool) -> bool {
        is_block_mutated(&raw(block), check_witness_root)
    }

    /// A coinbase and three payments.
    fn good() -> Block {
        let payments = (1..4).map(|n| payment(&[outpoint(n)], &[u64::from(n)]));
        block(std::iter::once(coinbase(1, 50)).chain(payments).collect())
    }

    #[track_caller]
    fn rejected(change: impl FnOnce(&mut Block), code: &str, scope: RejectionScope) {
        let mut block = good();
        change(&mut block);
        let rejection = check(block).unwrap_err();
        assert_eq!((&*rejection.code, rejection.scope), (code, scope));
    }

    /// Changes the block and mines it anew.
    #[track_caller]
    fn rejected_when_mined(change: impl FnOnce(&mut Block), code: &str) {
        let change = |block: &mut Block| {
            change(block);
            mine(block);
        };
        rejected(change, code, RejectionScope::Header);
    }

    #[test]
    fn a_good_block_passes_with_its_sizes() {
        let block = good();
        let checked = check(block.clone()).unwrap();
        assert_eq!(checked.hash(), block.block_hash());
        let bytes = serialize(&block);
        assert_eq!(checked.total_size(), bytes.len());
        assert_eq!(checked.weight() as u64, block.weight().to_wu());
        for (index, tx) in block.txdata.iter().enumerate() {
            assert_eq!(checked.txids()[index], tx.compute_txid());
        }
    }

    #[test]
    fn the_header_has_work() {
        let unmine = |block: &mut Block| {
            let params = ChainParams::new(Network::Regtest);
            while check_proof_of_work(&block.header, &params).is_ok() {
                block.header.nonce += 1;
            }
        };
        rejected(unmine, "high-hash", RejectionScope::Header);
        let mut block = good();
        unmine(&mut block);
        assert!(CheckedBlock::check_without_work(raw(&block)).is_ok());
    }

    #[test]
    fn other_transactions_do_not_condemn_the_header() {
        let bytes = RejectionScope::Bytes;
        rejected(|block| block.txdata.swap(2, 3), "bad-txnmrklroot", bytes);
        rejected(|block| block.txdata.clear(), "bad-txnmrklroot", bytes);
        // Three transactions, with the last one twice: the same root.
        let mut block = good();
        block.txdata.pop();
        mine(&mut block);
        let last = block.txdata[2].clone();
        block.txdata.push(last);
        let rejection = check(block.clone()).unwrap_err();
        assert_eq!((&*rejection.code, rejection.scope), ("bad-txns-duplicate", bytes));
        assert!(is_mutated(&block, true));
    }

    #[test]
    fn a_block_has_exactly_one_coinbase_first() {
        rejected_when_mined(|block| drop(block.txdata.remove(0)), "bad-cb-missing");
        rejected_when_mined(|block| block.txdata.push(coinbase(2, 1)), "bad-cb-multiple");
    }

    #[test]
    fn a_block_is_neither_empty_nor_too_long() {
        rejected_when_mined(|block| block.txdata.clear(), "bad-blk-length");
        let fill = |len: usize| {
            move |block: &mut Block| {
                for tx in &mut block.txdata[1..] {
                    tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x6a; len / 3]);
                }
            }
        };
        rejected_when_mined(fill(1_000_000), "bad-blk-length");
        let mut block = good();
        fill(999_000)(&mut block);
        mine(&mut block);
        assert!(check(block).is_ok());
    }

    #[test]
    fn every_transaction_is_checked() {
        let repeat = |block: &mut Block| {
            let input = block.txdata[3].input[0].clone();
            block.txdata[3].input.push(input);
        };
        rejected_when_mined(repeat, "bad-txns-inputs-duplicate");
        let null = |block: &mut Block| {
            let mut input = block.txdata[3].input[0].clone();
            input.previous_output = OutPoint::null();
            block.txdata[3].input.push(input);
        };
        rejected_when_mined(null, "bad-txns-prevout-null");
    }

    #[test]
    fn signature_operations_are_bounded() {
        let set = |count: usize| {
            move |block: &mut Block| {
                block.txdata[1].output[0].script_pubkey = ScriptBuf::from_bytes(vec![0xac; count]);
            }
        };
        let mut block = good();
        set(20_000)(&mut block);
        mine(&mut block);
        assert!(check(block).is_ok());
        rejected_when_mined(set(20_001), "bad-blk-sigops");
    }

    #[test]
    fn mutations_are_seen() {
        assert!(!is_mutated(&good(), true));
        let mut swapped = good();
        swapped.txdata.swap(2, 3);
        assert!(is_mutated(&swapped, true));
        let mut witness = good();
        witness.txdata[1].input[0].witness.push([1]);
        assert!(is_mutated(&witness, true));
        assert!(is_mutated(&witness, false));
    }

    #[test]
    fn sixty_four_bytes_without_a_coinbase_are_a_mutation() {
        let mut tx = payment(&[outpoint(1)], &[1]);
        tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51; 4]);
        assert_eq!(tx.base_size(), 64);
        assert!(is_mutated(&block(vec![tx.clone()]), true));
        assert!(!is_mutated(&block(vec![coinbase(1, 1), tx.clone()]), true));
        tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51; 5]);
        assert!(!is_mutated(&block(vec![tx]), true));
    }

    #[test]
    fn a_block_without_transactions_has_the_root_zero() {
        let mut block = good();
        block.txdata.clear();
        mine(&mut block);
        assert_eq!(block.header.merkle_root, TxMerkleNode::all_zeros());
    }
}
