//! The witness commitment in the coinbase (BIP-0141; `CheckWitnessMalleation` in Bitcoin Core's
//! `validation.cpp`).

use bitcoin::hashes::Hash as _;
use bitcoin::{Block, Script, Txid};

use super::merkle::{hash_pair, merkle_root};
use crate::rejection::Rejection;

/// `OP_RETURN`, a push of 36 bytes, and the commitment's header.
const PREFIX: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];

/// What a block's witnesses are with regard to the commitment, before it is known whether one is
/// due at the block's height.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Commitment {
    /// No output of the coinbase is one.
    Absent,
    /// The coinbase's witness is not one item of 32 bytes.
    BadNonce,
    /// The witnesses are not those committed to.
    Mismatch,
    /// The witnesses are those committed to.
    Match,
}

/// Returns the index of the coinbase's output with the commitment: the last of those that look
/// like one (`GetWitnessCommitmentIndex`).
pub(crate) fn commitment_index(block: &Block) -> Option<usize> {
    let outputs = &block.txdata.first()?.output;
    outputs.iter().rposition(|output| committed_hash(&output.script_pubkey).is_some())
}

fn committed_hash(script: &Script) -> Option<&[u8; 32]> {
    script.as_bytes().strip_prefix(&PREFIX)?.first_chunk()
}

/// Compares the block's witnesses with its commitment; `txids` are the ids of its transactions.
pub(super) fn check_commitment(block: &Block, txids: &[Txid]) -> Commitment {
    let coinbase = block.txdata.first().zip(commitment_index(block));
    let output = coinbase.and_then(|(tx, index)| tx.output.get(index));
    let Some(committed) = output.and_then(|output| committed_hash(&output.script_pubkey)) else {
        return Commitment::Absent;
    };
    let input = block.txdata.first().and_then(|tx| tx.input.first());
    let nonce = input.filter(|input| input.witness.len() == 1).and_then(|i| i.witness.last());
    let Some(nonce) = nonce.and_then(|nonce| <&[u8; 32]>::try_from(nonce).ok()) else {
        return Commitment::BadNonce;
    };
    let wtxids = block.txdata.iter().zip(txids).enumerate().map(|(index, (tx, txid))| {
        if index == 0 {
            [0; 32]
        } else if tx.input.iter().all(|input| input.witness.is_empty()) {
            txid.to_byte_array()
        } else {
            tx.compute_wtxid().to_byte_array()
        }
    });
    // Mutation is not looked for: the tree of the transactions already has none.
    let (root, _) = merkle_root(wtxids.collect());
    if hash_pair(&root, nonce) == *committed { Commitment::Match } else { Commitment::Mismatch }
}

/// Returns whether any transaction has a witness.
pub(super) fn has_witness(block: &Block) -> bool {
    let mut inputs = block.txdata.iter().flat_map(|tx| &tx.input);
    inputs.any(|input| !input.witness.is_empty())
}

/// Checks the witnesses; `expected` says whether a commitment may be due at this height.
pub(super) fn check_witnesses(
    commitment: Commitment,
    has_witness: bool,
    expected: bool,
) -> Result<(), Rejection> {
    match commitment {
        Commitment::Match if expected => Ok(()),
        Commitment::BadNonce if expected => Err(Rejection::mutated("bad-witness-nonce-size")
            .with_detail("invalid witness reserved value size")),
        Commitment::Mismatch if expected => Err(Rejection::mutated("bad-witness-merkle-match")
            .with_detail("witness merkle commitment mismatch")),
        // Without a commitment anyone could add witnesses to the block.
        _ if has_witness => {
            Err(Rejection::mutated("unexpected-witness")
                .with_detail("unexpected witness data found"))
        }
        _ => Ok(()),
    }
}
