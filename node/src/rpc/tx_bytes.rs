//! Transactions as hexadecimal digits, in and out (`DecodeHexTx` and `EncodeHexTx` in Bitcoin
//! Core's `core_io.cpp`).
//!
//! One without inputs has bytes that could be those of a witness transaction: such are made by
//! `createrawtransaction`, so both ways of reading are tried.

use bitcoin::absolute::LockTime;
use bitcoin::consensus::{Decodable, deserialize, serialize};
use bitcoin::hex::DisplayHex as _;
use bitcoin::script::Instruction;
use bitcoin::transaction::Version;
use bitcoin::{Script, Transaction, TxIn, TxOut};

use super::tx_json;

/// How the bytes may be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// With witnesses or without, whatever fits.
    Any,
    /// As one with witnesses may be.
    Witness,
    /// As before BIP-0144.
    Legacy,
}

/// Reads a transaction.
pub(crate) fn decode(hex: &str, form: Form) -> Option<Transaction> {
    let bytes = tx_json::bytes(hex)?;
    let extended = if form == Form::Legacy { None } else { extended(&bytes) };
    // As in Core: what reads as one with sensible scripts is that.
    if let Some(tx) = &extended
        && has_sane_scripts(tx)
    {
        return extended;
    }
    let legacy = if form == Form::Witness { None } else { legacy(&bytes) };
    if let Some(tx) = &legacy
        && has_sane_scripts(tx)
    {
        return legacy;
    }
    extended.or(legacy)
}

/// Returns a transaction's bytes.
pub(crate) fn encode(tx: &Transaction) -> Vec<u8> {
    if !tx.input.is_empty() {
        return serialize(tx);
    }
    let mut bytes = serialize(&tx.version);
    bytes.extend(serialize(&tx.input));
    bytes.extend(serialize(&tx.output));
    bytes.extend(serialize(&tx.lock_time));
    bytes
}

/// Returns a transaction in hexadecimal digits.
pub(crate) fn encode_hex(tx: &Transaction) -> String {
    encode(tx).to_lower_hex_string()
}

fn extended(bytes: &[u8]) -> Option<Transaction> {
    deserialize(bytes).ok().or_else(|| legacy(bytes).filter(|tx| tx.output.is_empty()))
}

fn legacy(bytes: &[u8]) -> Option<Transaction> {
    let mut rest = bytes;
    let version = Version::consensus_decode(&mut rest).ok()?;
    let input = Vec::<TxIn>::consensus_decode(&mut rest).ok()?;
    let output = Vec::<TxOut>::consensus_decode(&mut rest).ok()?;
    let lock_time = LockTime::consensus_decode(&mut rest).ok()?;
    rest.is_empty().then_some(Transaction { version, lock_time, input, output })
}

/// Whether its scripts can be read to the end (`CheckTxScriptsSanity`).
fn has_sane_scripts(tx: &Transaction) -> bool {
    let inputs = tx.input.iter().map(|input| input.script_sig.as_script());
    let inputs: Vec<&Script> = if tx.is_coinbase() { Vec::new() } else { inputs.collect() };
    let outputs = tx.output.iter().map(|output| output.script_pubkey.as_script());
    inputs.into_iter().chain(outputs).all(has_valid_ops)
}

/// Whether a script can be read to the end and has only operations that there are
/// (`CScript::HasValidOps`).
pub(crate) fn has_valid_ops(script: &Script) -> bool {
    /// `MAX_OPCODE`: `OP_NOP10`.
    const LAST: u8 = 0xb9;
    /// Longest thing that may be pushed.
    const PUSH_MAX: usize = 520;
    script.instructions().all(|instruction| match instruction {
        Ok(Instruction::Op(op)) => op.to_u8() <= LAST,
        Ok(Instruction::PushBytes(bytes)) => bytes.len() <= PUSH_MAX,
        Err(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_without_inputs_survives() {
        let output = TxOut {
            value: bitcoin::Amount::from_sat(1),
            script_pubkey: bitcoin::ScriptBuf::from_bytes(vec![0x51]),
        };
        for output in [vec![], vec![output.clone()], vec![output.clone(), output]] {
            let tx = Transaction {
                version: Version::TWO,
                lock_time: LockTime::ZERO,
                input: vec![],
                output,
            };
            assert_eq!(decode(&encode_hex(&tx), Form::Any), Some(tx.clone()));
            assert_eq!(decode(&encode_hex(&tx), Form::Legacy), Some(tx));
        }
        assert_eq!(decode("zz", Form::Any), None);
    }
}
