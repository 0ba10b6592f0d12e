//! Transactions of the `bitcoin` crate, given to the script verifier.
#![expect(clippy::missing_panics_doc, reason = "fixtures panic on anything unexpected")]
#![expect(clippy::expect_used, reason = "fixtures panic on anything unexpected")]

use bitcoin::{Transaction, TxOut};
use cofferdam_ibd::wire::{OutputRef, Transactions, TxRef};
use cofferdam_ibd::{KernelVerifier, PreparedTransaction, ScriptFlags, ScriptVerifier as _};

/// Gives `question` a transaction as this project reads it.
pub fn with_tx<T>(tx: &Transaction, question: impl FnOnce(TxRef<'_>) -> T) -> T {
    let txs = Transactions::of_transaction(bitcoin::consensus::serialize(tx));
    question(txs.expect("what was serialized can be read").first().expect("it is there"))
}

/// Gives `question` a transaction whose scripts can be verified.
pub fn with_prepared<T>(
    tx: &Transaction,
    spent: &[TxOut],
    flags: ScriptFlags,
    question: impl FnOnce(&dyn PreparedTransaction) -> T,
) -> T {
    let spent: Vec<OutputRef<'_>> = spent
        .iter()
        .map(|output| OutputRef { value: output.value.to_sat(), script: &output.script_pubkey })
        .collect();
    with_tx(tx, |tx| {
        let prepared = KernelVerifier.prepare(tx, &spent, flags).expect("the kernel works");
        question(prepared.as_ref())
    })
}

/// Returns the inputs that fail.
#[must_use]
pub fn failing(tx: &Transaction, spent: &[TxOut], flags: ScriptFlags) -> Vec<usize> {
    with_prepared(tx, spent, flags, |prepared| {
        (0..prepared.input_count()).filter(|&input| !prepared.verify_input(input)).collect()
    })
}
