//! Are real blocks of every era valid on their own, and is every signature in them needed?
//!
//! Each block with a `.spent` file: the rules without context hold, every input's script verifies
//! with the flags of its height, fees and subsidy equal the coinbase's value to the satoshi. Then
//! every signature, one at a time, gets one byte flipped, and its input has to fail.
//!
//! Block 367891 of mainnet has 20,000 inputs that carry no signature: they are verified, but there is
//! nothing to flip. The number of signatures of each block is asserted, so that a change of what is
//! taken for a signature shows.
#![expect(clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::ops::Add as _;
use std::path::Path;

use bitcoin::script::Instruction;
use bitcoin::{Amount, Block, ScriptBuf, Transaction, TxOut, Witness};
use cofferdam_ibd::block::is_block_mutated;
use cofferdam_ibd::{
    ChainParams, CheckedBlock, Network, PreparedTransaction, RawBlock, ScriptFlags,
    block_script_flags, block_subsidy,
};
use cofferdam_tests::data;
use cofferdam_tests::scripts::with_prepared;
use rayon::iter::{
    IndexedParallelIterator as _, IntoParallelIterator as _, IntoParallelRefIterator as _,
    ParallelIterator as _,
};

/// Reads the outputs that a block spends, one list a transaction after the coinbase.
fn spent_outputs(path: &Path, block: &Block) -> Vec<Vec<TxOut>> {
    let bytes = std::fs::read(path).expect("in the repository");
    let mut rest = &bytes[4..];
    let mut next = || {
        let value = u64::from_le_bytes(rest[40..48].try_into().expect("eight bytes"));
        let mut tail = &rest[48..];
        // CompactSize length and script are encoded as a script is.
        let script: ScriptBuf =
            bitcoin::consensus::Decodable::consensus_decode(&mut tail).expect("a script");
        rest = tail;
        TxOut { value: Amount::from_sat(value), script_pubkey: script }
    };
    let of_tx = |tx: &Transaction| tx.input.iter().map(|_| next()).collect();
    let spent = block.txdata[1..].iter().map(of_tx).collect();
    assert!(rest.is_empty(), "one record an input");
    spent
}

/// Where a signature is in an input.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Offset of the byte to flip in the script.
    ScriptSig(usize),
    /// Item of the witness, and offset in it.
    Witness(usize, usize),
}

/// Offset of a byte in the middle of r, if `bytes` is a DER signature with its hash type.
fn der_offset(bytes: &[u8]) -> Option<usize> {
    let is_der = (9..=74).contains(&bytes.len()) && bytes[0] == 0x30 && bytes[2] == 0x02;
    let fits = is_der && usize::from(bytes[1]) + 3 == bytes.len();
    fits.then(|| 4 + usize::from(bytes[3]) / 2)
}

fn signatures(tx: &Transaction, input: usize, spent: &TxOut) -> Vec<Place> {
    let input = &tx.input[input];
    let mut places = Vec::new();
    let script = &input.script_sig;
    let ends = script.instruction_indices().flatten().skip(1).map(|(start, _)| start);
    let ends = ends.chain(std::iter::once(script.len()));
    for ((_, instruction), end) in script.instruction_indices().flatten().zip(ends) {
        if let Instruction::PushBytes(push) = instruction {
            // The push's bytes end where the next instruction begins.
            let start = end - push.len();
            places.extend(der_offset(push.as_bytes()).map(|at| Place::ScriptSig(start + at)));
        }
    }
    let is_key_path = spent.script_pubkey.is_p2tr() && input.witness.len() == 1;
    for (item, bytes) in input.witness.iter().enumerate() {
        if is_key_path && (64..=65).contains(&bytes.len()) {
            places.push(Place::Witness(item, 16));
        } else {
            places.extend(der_offset(bytes).map(|at| Place::Witness(item, at)));
        }
    }
    places
}

fn flip(tx: &Transaction, input: usize, place: Place) -> Transaction {
    let mut tx = tx.clone();
    let input = &mut tx.input[input];
    match place {
        Place::ScriptSig(offset) => {
            let mut bytes = input.script_sig.to_bytes();
            bytes[offset] ^= 1;
            input.script_sig = bytes.into();
        }
        Place::Witness(item, offset) => {
            let mut items = input.witness.to_vec();
            items[item][offset] ^= 1;
            input.witness = Witness::from_slice(&items);
        }
    }
    tx
}

/// What was verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Counts {
    inputs: usize,
    /// Inputs with at least one signature.
    signed_inputs: usize,
    signatures: usize,
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            inputs: self.inputs + other.inputs,
            signed_inputs: self.signed_inputs + other.signed_inputs,
            signatures: self.signatures + other.signatures,
        }
    }
}

/// Verifies a transaction, and every signature of it with a byte flipped.
fn check_transaction(tx: &Transaction, spent: &[TxOut], flags: ScriptFlags) -> Counts {
    let check = |prepared: &dyn PreparedTransaction, input: usize| {
        let name = || format!("input {input} of {}", tx.compute_txid());
        assert!(prepared.verify_input(input), "{} does not verify", name());
        let places = signatures(tx, input, &spent[input]);
        for &place in &places {
            let flipped = flip(tx, input, place);
            let fails =
                with_prepared(&flipped, spent, flags, |flipped| !flipped.verify_input(input));
            assert!(fails, "{} verifies with a byte flipped at {place:?}", name());
        }
        let signed_inputs = usize::from(!places.is_empty());
        Counts { inputs: 1, signed_inputs, signatures: places.len() }
    };
    with_prepared(tx, spent, flags, |prepared| {
        let inputs = (0..tx.input.len()).into_par_iter();
        inputs.map(|input| check(prepared, input)).reduce(Counts::default, Counts::add)
    })
}

#[track_caller]
fn check(network: Network, height: u32, expected: [usize; 3]) {
    let folder = if network == Network::Mainnet { "mainnet" } else { "testnet3" };
    let file = |kind, end| data::path(&format!("{folder}/{kind}/{height:09}.{end}"));
    let raw = std::fs::read(file("blocks", "blk")).expect("in the repository");
    let block: Block = bitcoin::consensus::deserialize(&raw).expect("a block");
    let spent = spent_outputs(&file("spent", "spent"), &block);
    let params = ChainParams::new(network);
    let parsed = RawBlock::parse(raw.clone()).expect("a block");
    assert!(!is_block_mutated(&parsed, height >= params.segwit_height));
    let checked = CheckedBlock::check(parsed, &params).expect("the rules without context hold");
    assert_eq!(checked.bytes(), raw);
    assert_eq!(checked.weight() as u64, block.weight().to_wu());
    let txs = &block.txdata;

    let value = |outputs: &[TxOut]| outputs.iter().map(|output| output.value.to_sat()).sum::<u64>();
    let fee = |(tx, spent): (&Transaction, &Vec<TxOut>)| value(spent) - value(&tx.output);
    let fees: u64 = txs[1..].iter().zip(&spent).map(fee).sum();
    assert_eq!(value(&txs[0].output), fees + block_subsidy(height, &params));

    let flags = block_script_flags(&params, height, &checked.hash());
    let counts = txs[1..]
        .par_iter()
        .zip(&spent)
        .map(|(tx, spent)| check_transaction(tx, spent, flags))
        .reduce(Counts::default, Counts::add);
    let [inputs, signed_inputs, signatures] = expected;
    assert_eq!(counts, Counts { inputs, signed_inputs, signatures }, "block {height}");
}

#[test]
fn mainnet_24835() {
    check(Network::Mainnet, 24835, [74, 74, 74]);
}

#[test]
fn mainnet_32256() {
    check(Network::Mainnet, 32256, [0, 0, 0]);
}

#[test]
fn mainnet_57043() {
    check(Network::Mainnet, 57043, [131, 131, 131]);
}

#[test]
fn mainnet_72576() {
    check(Network::Mainnet, 72576, [0, 0, 0]);
}

#[test]
fn mainnet_116928() {
    check(Network::Mainnet, 116928, [12, 12, 12]);
}

#[test]
fn mainnet_150013() {
    check(Network::Mainnet, 150013, [94, 94, 94]);
}

#[test]
fn mainnet_210000() {
    check(Network::Mainnet, 210000, [899, 899, 899]);
}

#[test]
fn mainnet_277647() {
    check(Network::Mainnet, 277647, [732, 732, 732]);
}

#[test]
fn mainnet_367891() {
    check(Network::Mainnet, 367891, [20817, 817, 824]);
}

#[test]
fn mainnet_403200() {
    check(Network::Mainnet, 403200, [1036, 1036, 1186]);
}

#[test]
fn mainnet_413567() {
    check(Network::Mainnet, 413567, [4886, 4886, 5815]);
}

#[test]
fn mainnet_757739() {
    check(Network::Mainnet, 757739, [91, 91, 112]);
}

#[test]
fn testnet3_928816() {
    check(Network::Testnet3, 928816, [8692, 8692, 8697]);
}

#[test]
fn testnet3_928828() {
    check(Network::Testnet3, 928828, [1972, 1972, 3870]);
}

#[test]
fn testnet3_928848() {
    check(Network::Testnet3, 928848, [11215, 11215, 11216]);
}

#[test]
fn testnet3_928849() {
    check(Network::Testnet3, 928849, [8594, 8594, 8603]);
}
