//! Faults of a transaction by itself (`CheckTransaction`).

use bitcoin::{Amount, OutPoint, TxIn, TxOut, Txid};

use crate::draft::Draft;
use crate::wallet::Lock;

/// 21 million bitcoins in satoshis.
const MONEY_MAX: u64 = 2_100_000_000_000_000;

/// Adds a transaction with one input and one output, changed by `change`.
fn payment(draft: &mut Draft<'_>, change: impl FnOnce(&mut bitcoin::Transaction)) -> Option<()> {
    let coins = [draft.take(Lock::Anyone)?];
    let mut tx = draft.spend(&coins);
    change(&mut tx);
    draft.block.txdata.push(tx);
    draft.seal();
    Some(())
}

fn output(value: u64) -> TxOut {
    TxOut { value: Amount::from_sat(value), script_pubkey: vec![0x51].into() }
}

pub(super) fn no_outputs(draft: &mut Draft<'_>) -> Option<()> {
    payment(draft, |tx| tx.output.clear())
}

pub(super) fn negative_output(draft: &mut Draft<'_>) -> Option<()> {
    payment(draft, |tx| tx.output.push(output(u64::MAX)))
}

pub(super) fn most_negative_output(draft: &mut Draft<'_>) -> Option<()> {
    payment(draft, |tx| tx.output.push(output(1 << 63)))
}

pub(super) fn large_output(draft: &mut Draft<'_>) -> Option<()> {
    payment(draft, |tx| tx.output.push(output(MONEY_MAX + 1)))
}

pub(super) fn largest_output(draft: &mut Draft<'_>) -> Option<()> {
    payment(draft, |tx| tx.output.push(output(i64::MAX.unsigned_abs())))
}

pub(super) fn large_sum(draft: &mut Draft<'_>) -> Option<()> {
    payment(draft, |tx| tx.output.extend([output(MONEY_MAX), output(1)]))
}

pub(super) fn large_sum_of_coinbase(draft: &mut Draft<'_>) -> Option<()> {
    draft.block.txdata[0].output.extend([output(MONEY_MAX), output(MONEY_MAX)]);
    draft.seal();
    Some(())
}

pub(super) fn input_twice(draft: &mut Draft<'_>) -> Option<()> {
    payment(draft, |tx| tx.input.push(tx.input[0].clone()))
}

pub(super) fn input_twice_apart(draft: &mut Draft<'_>) -> Option<()> {
    let other = draft.take(Lock::P2pk)?;
    payment(draft, |tx| {
        tx.input.push(TxIn { previous_output: other.outpoint, ..tx.input[0].clone() });
        tx.input.push(tx.input[0].clone());
    })
}

pub(super) fn null_input(draft: &mut Draft<'_>) -> Option<()> {
    payment(draft, |tx| {
        let previous_output = OutPoint::null();
        tx.input.push(TxIn { previous_output, ..tx.input[0].clone() });
    })
}

/// Only an id of zeros with the last index is null.
pub(super) fn almost_null_input(draft: &mut Draft<'_>) -> Option<()> {
    payment(draft, |tx| {
        let txid: Txid = OutPoint::null().txid;
        tx.input.push(TxIn { previous_output: OutPoint::new(txid, 0), ..tx.input[0].clone() });
    })
}
