//! Why a script failed, in Bitcoin Core's words (`ScriptErrorString`), as far as it can be found out
//! from outside: the kernel library says yes or no. The rule without which the script holds is the
//! one that it breaks.

use bitcoin::Script;
use bitcoin::hashes::Hash as _;

use super::{ScriptFlags, ScriptVerifier};
use crate::error::Result;
use crate::tx::next_op;
use crate::wire::{OutputRef, TxRef};

const OP_1NEGATE: u8 = 0x4f;
const OP_1: u8 = 0x51;
const OP_16: u8 = 0x60;
/// Longest number that a lock time may be.
const LOCK_TIME_LEN_MAX: usize = 5;

/// Returns why the script of an input fails that is known to fail under these rules.
pub(crate) fn explain(
    verifier: &dyn ScriptVerifier,
    tx: TxRef<'_>,
    spent: &[OutputRef<'_>],
    input: usize,
    flags: ScriptFlags,
) -> Result<String> {
    let holds_without = |flag: ScriptFlags| -> Result<bool> {
        if !flags.contains(flag) {
            return Ok(false);
        }
        let prepared = verifier.prepare(tx, spent, flags.difference(flag))?;
        Ok(prepared.verify_input(input))
    };
    if holds_without(ScriptFlags::DERSIG)? {
        return Ok("Non-canonical DER signature".into());
    }
    if holds_without(ScriptFlags::NULLDUMMY)? {
        return Ok("Dummy CHECKMULTISIG argument must be zero".into());
    }
    for (flag, op) in [
        (ScriptFlags::CHECKLOCKTIMEVERIFY, bitcoin::opcodes::all::OP_CLTV.to_u8()),
        (ScriptFlags::CHECKSEQUENCEVERIFY, bitcoin::opcodes::all::OP_CSV.to_u8()),
    ] {
        if holds_without(flag)? {
            let script_sig = tx.inputs().nth(input).map(|input| input.script_sig());
            let script = spent.get(input).map(|output| output.script);
            return Ok(lock_time_fault(script_sig.into_iter().chain(script), op).into());
        }
    }
    Ok("Script evaluated without error but finished with a false/empty top stack element".into())
}

/// Says which input of which transaction a script fault is about, as Core does.
pub(crate) fn place(tx: TxRef<'_>, input: usize) -> String {
    let txid = tx.txid();
    let wtxid = bitcoin::Wtxid::from_byte_array(tx.wtxid());
    let outpoint = tx.inputs().nth(input).map(|input| input.outpoint()).unwrap_or_default();
    format!("input {input} of {txid} (wtxid {wtxid}), spending {}:{}", outpoint.txid, outpoint.vout)
}

/// Looks at what is pushed before the first operation `op` of a lock time.
fn lock_time_fault<'a>(scripts: impl Iterator<Item = &'a Script>, op: u8) -> &'static str {
    let mut top: Option<Vec<u8>> = None;
    for script in scripts {
        let mut rest = script.as_bytes();
        while let Some((next, pushed)) = next_op(&mut rest) {
            if next == op {
                return match top {
                    None => "Operation not valid with the current stack size",
                    Some(number) if is_negative(&number) => "Negative locktime",
                    Some(number) if number.len() > LOCK_TIME_LEN_MAX => "unknown error",
                    Some(_) => "Locktime requirement not satisfied",
                };
            }
            top = match next {
                0..OP_1NEGATE => Some(pushed.to_vec()),
                OP_1NEGATE => Some(vec![0x81]),
                OP_1..=OP_16 => Some(vec![next - OP_1 + 1]),
                // What an operation leaves is not known; a number is the usual thing.
                _ => top,
            };
        }
    }
    "Locktime requirement not satisfied"
}

fn is_negative(number: &[u8]) -> bool {
    number.last().is_some_and(|last| last & 0x80 != 0)
        && number.iter().any(|&byte| byte & 0x7f != 0)
}

#[cfg(test)]
#[cfg(feature = "kernel")]
mod tests {
    use super::*;
    use crate::script::KernelVerifier;
    use crate::testing::{outpoint, parsed, payment};
    use bitcoin::ScriptBuf;
    use bitcoin::hex::FromHex as _;

    #[track_caller]
    fn check(script_sig: &str, spent: &str, reason: &str) {
        let mut tx = payment(&[outpoint(1)], &[1]);
        tx.input[0].script_sig = ScriptBuf::from_bytes(Vec::from_hex(script_sig).unwrap());
        let (script, txs) = (ScriptBuf::from_hex(spent).unwrap(), parsed(&tx));
        let outputs = [OutputRef { value: 1, script: &script }];
        let (tx, flags) = (txs.first().unwrap(), ScriptFlags::ALL);
        let failed = KernelVerifier.verify_transaction(tx, &outputs, flags).unwrap();
        assert_eq!(failed, Some(0), "{script_sig} {spent}");
        assert_eq!(explain(&KernelVerifier, tx, &outputs, 0, flags).unwrap(), reason);
    }

    #[test]
    fn the_rule_that_is_broken_is_named_as_in_core() {
        // The scripts of Core's feature_cltv.py and feature_nulldummy.py.
        check("b1", "51", "Operation not valid with the current stack size");
        check("4fb175", "51", "Negative locktime");
        check("0164b175", "51", "Locktime requirement not satisfied");
        check("", "4fb27551", "Negative locktime");
        check("", "b251", "Operation not valid with the current stack size");
        // A multisig of none of no keys, with a dummy.
        check("51", "0000ae", "Dummy CHECKMULTISIG argument must be zero");
        let false_top =
            "Script evaluated without error but finished with a false/empty top stack element";
        check("", "00", false_top);
    }
}
