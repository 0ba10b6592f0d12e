//! Does the transaction of BIP-0341's vectors verify, and is each of its signatures needed?
//!
//! It spends seven taproot outputs beside a pay-to-pubkey-hash and a pay-to-witness-pubkey-hash
//! output: a signature of a taproot input covers all spent outputs, unless its hash type says less.
#![expect(clippy::indexing_slicing, reason = "a test fails by a panic")]

use bitcoin::hex::FromHex as _;
use bitcoin::{Amount, ScriptBuf, Transaction, TxOut, Witness};
use cofferdam_ibd::ScriptFlags;
use cofferdam_tests::{data, scripts};
use serde_json::Value;

fn vector() -> (Transaction, Vec<TxOut>) {
    let path = data::path("core-vectors/bip341_wallet_vectors.json");
    let all: Value =
        serde_json::from_slice(&std::fs::read(path).expect("in the repository")).expect("JSON");
    let spending = &all["keyPathSpending"][0];
    let text = |value: &Value| Vec::from_hex(value.as_str().expect("hex")).expect("hex");
    let output = |value: &Value| TxOut {
        value: Amount::from_sat(value["amountSats"].as_u64().expect("a number")),
        script_pubkey: ScriptBuf::from_bytes(text(&value["scriptPubKey"])),
    };
    let spent = spending["given"]["utxosSpent"].as_array().expect("a list").iter().map(output);
    let raw = text(&spending["auxiliary"]["fullySignedTx"]);
    (bitcoin::consensus::deserialize(&raw).expect("a transaction"), spent.collect())
}

fn failing(tx: &Transaction, spent: &[TxOut]) -> Vec<usize> {
    let flags = ScriptFlags::P2SH.union(ScriptFlags::WITNESS).union(ScriptFlags::TAPROOT);
    scripts::failing(tx, spent, flags)
}

fn taproot_inputs(spent: &[TxOut]) -> Vec<usize> {
    (0..spent.len()).filter(|&input| spent[input].script_pubkey.is_p2tr()).collect()
}

#[test]
fn the_transaction_verifies() {
    let (tx, spent) = vector();
    assert_eq!((spent.len(), taproot_inputs(&spent).len()), (9, 7));
    assert_eq!(failing(&tx, &spent), Vec::<usize>::new());
}

#[test]
fn a_flipped_byte_of_a_signature_fails_its_input_alone() {
    let (tx, spent) = vector();
    for input in taproot_inputs(&spent) {
        let mut flipped = tx.clone();
        let mut items = flipped.input[input].witness.to_vec();
        assert!((64..=65).contains(&items[0].len()));
        items[0][40] ^= 1;
        flipped.input[input].witness = Witness::from_slice(&items);
        assert_eq!(failing(&flipped, &spent), [input]);
    }
}

#[test]
fn a_changed_output_fails_the_inputs_that_sign_for_all() {
    let (tx, spent) = vector();
    let change = |input: usize| {
        let mut changed = spent.clone();
        changed[input].value += Amount::from_sat(1);
        failing(&tx, &changed)
    };
    // The input's own amount, and all but those that let anyone add inputs.
    for (input, output) in spent.iter().enumerate() {
        let failing = change(input);
        assert_eq!(failing.contains(&input), !output.script_pubkey.is_p2pkh(), "input {input}");
        assert!(failing.len() > 1, "input {input}");
    }
}
