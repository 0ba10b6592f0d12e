//! Reading any bytes as a block and as a transaction, beside the `bitcoin` crate.

use bitcoin::consensus::encode::deserialize_partial;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::{Block, Transaction, TxOut};

use crate::block::RawBlock;
use crate::wire::{Transactions, TxRef};

/// Longest item of a witness that the `bitcoin` crate reads.
const WITNESS_LEN_MAX: usize = 4_000_000;

/// Reads the bytes as a block and as a transaction; returns whether they are one of them.
///
/// # Panics
///
/// If they are read as something else than what the `bitcoin` crate reads.
pub fn parse(data: &[u8]) -> bool {
    let block = read_alike(data);
    let ours = Transactions::of_transaction(data.to_vec()).ok();
    let other = deserialize::<Transaction>(data).ok();
    match (ours.as_ref().and_then(Transactions::first), &other) {
        (Some(ours), Some(other)) => assert_same(ours, other),
        (Some(ours), None) => assert!(ours.input_count() == 0 || data.len() > WITNESS_LEN_MAX),
        (None, Some(other)) => assert!(other.input.is_empty()),
        (None, None) => {}
    }
    block.is_some() || ours.is_some()
}

/// Reads a block; returns its length, without what follows it. What either reads the other reads as
/// the same, but for transactions without inputs and for long witness items, where only this crate
/// says what Bitcoin Core says.
pub(super) fn read_alike(raw: &[u8]) -> Option<usize> {
    let ours = RawBlock::parse(raw.to_vec()).ok();
    let other = deserialize_partial::<Block>(raw).ok();
    let ours_empty = |raw: &RawBlock| raw.txs().iter().any(|tx| tx.input_count() == 0);
    match (&ours, &other) {
        (Some(ours), Some((other, len))) if !ours_empty(ours) => {
            assert_eq!((ours.bytes().len(), ours.hash()), (*len, other.block_hash()));
            assert_eq!(ours.txs().len(), other.txdata.len());
            for (tx, other) in ours.txs().iter().zip(&other.txdata) {
                assert_same(tx, other);
            }
        }
        // The one coding of no inputs may be the start of something else there.
        (Some(ours), _) => assert!(ours_empty(ours) || raw.len() > WITNESS_LEN_MAX),
        (None, Some((other, _))) => assert!(other.txdata.iter().any(|tx| tx.input.is_empty())),
        (None, None) => {}
    }
    ours.map(|ours| ours.bytes().len())
}

fn assert_same(tx: TxRef<'_>, other: &Transaction) {
    assert_eq!(tx.bytes(), serialize(other));
    assert_eq!((tx.txid(), tx.base_size()), (other.compute_txid(), other.base_size()));
    assert_eq!((tx.version(), tx.is_coinbase()), (other.version.0, other.is_coinbase()));
    assert_eq!(tx.lock_time(), other.lock_time.to_consensus_u32());
    let has_witness = other.input.iter().any(|input| !input.witness.is_empty());
    assert_eq!(tx.has_witness(), has_witness);
    assert_eq!((tx.input_count(), tx.output_count()), (other.input.len(), other.output.len()));
    for (input, other) in tx.inputs().zip(&other.input) {
        assert_eq!(input.outpoint(), other.previous_output);
        assert_eq!(input.script_sig(), other.script_sig.as_script());
        assert_eq!(input.sequence(), other.sequence.to_consensus_u32());
        assert!(input.witness().items().eq(other.witness.iter()));
    }
    for (output, other) in tx.outputs().zip(&other.output) {
        assert_eq!(TxOut::from(output), *other);
    }
}
