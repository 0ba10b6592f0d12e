//! The witness commitment in the coinbase (BIP-0141; `CheckWitnessMalleation` in Bitcoin Core's
//! `validation.cpp`).

use bitcoin::hashes::Hash as _;
use bitcoin::{Script, Txid};

use super::merkle::merkle_root;
use crate::hash::hash_pair;
use crate::rejection::Rejection;
use crate::wire::{InputRef, Transactions, TxRef, WitnessRef};

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
pub(crate) fn commitment_index(coinbase: TxRef<'_>) -> Option<usize> {
    coinbase.outputs().rposition(|output| committed_hash(output.script).is_some())
}

fn committed_hash(script: &Script) -> Option<&[u8; 32]> {
    script.as_bytes().strip_prefix(&PREFIX)?.first_chunk()
}

/// Compares the block's witnesses with its commitment; `txids` are the ids of its transactions.
pub(super) fn check_commitment(block: &Transactions, txids: &[Txid]) -> Commitment {
    let Some(coinbase) = block.first() else {
        return Commitment::Absent;
    };
    let last = coinbase.outputs().rev().find_map(|output| committed_hash(output.script));
    let Some(committed) = last else {
        return Commitment::Absent;
    };
    let witness = coinbase.inputs().next().map(InputRef::witness);
    let nonce = witness.filter(|witness| witness.len() == 1).and_then(WitnessRef::last);
    let Some(nonce) = nonce.and_then(|nonce| <&[u8; 32]>::try_from(nonce).ok()) else {
        return Commitment::BadNonce;
    };
    let wtxids = block.iter().zip(txids).enumerate().map(|(index, (tx, txid))| match index {
        0 => [0; 32],
        _ if tx.has_witness() => tx.wtxid(),
        _ => txid.to_byte_array(),
    });
    // Mutation is not looked for: the tree of the transactions already has none.
    let (root, _) = merkle_root(wtxids.collect());
    if hash_pair(&root, nonce) == *committed { Commitment::Match } else { Commitment::Mismatch }
}

/// Checks the witnesses; `expected` says whether a commitment may be due at this height.
pub(super) fn check_witnesses(
    commitment: Commitment,
    has_witness: bool,
    expected: bool,
) -> Result<(), Rejection> {
    match commitment {
        Commitment::Match if expected => Ok(()),
        Commitment::BadNonce if expected => {
            Err(malleation("bad-witness-nonce-size", "invalid witness reserved value size"))
        }
        Commitment::Mismatch if expected => {
            Err(malleation("bad-witness-merkle-match", "witness merkle commitment mismatch"))
        }
        // Without a commitment anyone could add witnesses to the block.
        _ if has_witness => Err(malleation("unexpected-witness", "unexpected witness data found")),
        _ => Ok(()),
    }
}

fn malleation(code: &'static str, what: &str) -> Rejection {
    Rejection::mutated(code).with_detail(format!("CheckWitnessMalleation : {what}"))
}
