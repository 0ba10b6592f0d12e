//! Why a script failed, in Bitcoin Core's words (`ScriptErrorString`), as far as it can be found out
//! from outside: the kernel library says yes or no. The rule without which the script holds is the
//! one that it breaks.

use bitcoin::Script;
use bitcoin::hashes::{Hash as _, sha256};

use super::walk::{End, Stack, VALUE_BYTES_MAX, is_true, walk};
use super::{ScriptFlags, ScriptVerifier};
use crate::error::Result;
use crate::tx::next_op;
use crate::wire::{OutputRef, TxRef};

const OP_1NEGATE: u8 = 0x4f;
const OP_1: u8 = 0x51;
const OP_16: u8 = 0x60;
/// Longest number that a lock time may be.
const LOCK_TIME_LEN_MAX: usize = 5;

const FALSE_TOP: &str =
    "Script evaluated without error but finished with a false/empty top stack element";
const MISMATCH: &str = "Witness program hash mismatch";
const EMPTY_WITNESS: &str = "Witness program was passed an empty witness";

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
    let (Some(txin), Some(output)) = (tx.inputs().nth(input), spent.get(input)) else {
        return Ok(FALSE_TOP.into());
    };
    let (script_sig, script) = (txin.script_sig(), output.script);
    let witness: Vec<&[u8]> = txin.witness().items().collect();
    let fault = if holds_without(ScriptFlags::WITNESS.union(ScriptFlags::TAPROOT))? {
        witness_fault(script_sig, script, &witness, flags)
    } else {
        base_fault(script_sig, script, flags)
    };
    Ok(fault.unwrap_or(FALSE_TOP).into())
}

/// What is wrong with scripts outside of a witness, if that can be told (`VerifyScript`).
fn base_fault(script_sig: &Script, script: &Script, flags: ScriptFlags) -> Option<&'static str> {
    let fault = |end| match end {
        End::Fault(text) => Some(text),
        End::Unknown => None,
    };
    let mut given = Stack::new();
    let mut stack = match walk(script_sig.as_bytes(), &mut given, flags) {
        Ok(None) => given.clone(),
        // A signature of a signature: nobody does that.
        Ok(Some(_)) => return None,
        Err(end) => return fault(end),
    };
    let assumed = match walk(script.as_bytes(), &mut stack, flags) {
        Ok(assumed) => assumed,
        Err(end) => return fault(end),
    };
    if !ends_true(&stack) || !script.is_p2sh() {
        return assumed.filter(|_| ends_true(&stack));
    }
    if !script_sig.is_push_only() {
        return Some("Only push operators allowed in signatures");
    }
    let redeem = given.pop()?;
    match walk(&redeem, &mut given, flags) {
        Ok(assumed) => assumed.filter(|_| ends_true(&given)),
        Err(end) => fault(end),
    }
}

fn ends_true(stack: &Stack) -> bool {
    stack.last().is_some_and(|top| is_true(top))
}

/// What is wrong with a witness where all the rest is right, if that can be told.
fn witness_fault(
    script_sig: &Script,
    script: &Script,
    witness: &[&[u8]],
    flags: ScriptFlags,
) -> Option<&'static str> {
    let mut rest = script_sig.as_bytes();
    let redeem = std::iter::from_fn(|| next_op(&mut rest)).last().map(|(_, pushed)| pushed);
    let redeem = redeem.filter(|_| script.is_p2sh()).map(Script::from_bytes);
    let program = redeem.unwrap_or(script);
    let Some(version) = program.witness_version() else {
        return (!witness.is_empty()).then_some("Witness provided for non-witness script");
    };
    let own = redeem.map_or(0, |redeem| redeem.len() + 1);
    if script_sig.len() != own {
        let native = "Witness requires empty scriptSig";
        let nested = "Witness requires only-redeemscript scriptSig";
        return Some(if redeem.is_some() { nested } else { native });
    }
    let program = program.as_bytes().get(2..)?;
    match (version.to_num(), program.len()) {
        (0, 20) if witness.len() != 2 => Some(MISMATCH),
        (0, 32) => {
            let Some((inner, values)) = witness.split_last() else {
                return Some(EMPTY_WITNESS);
            };
            if sha256::Hash::hash(inner).as_byte_array() != program {
                return Some(MISMATCH);
            }
            witness_script_fault(inner, values, flags)
        }
        (0, length) if length != 20 => Some("Witness program has incorrect length"),
        (1, 32) if redeem.is_none() && witness.is_empty() => Some(EMPTY_WITNESS),
        (1, 32) if redeem.is_none() => key_path_fault(witness),
        _ => None,
    }
}

/// What is wrong with the script that a witness ends with (`ExecuteWitnessScript`).
fn witness_script_fault(
    script: &[u8],
    values: &[&[u8]],
    flags: ScriptFlags,
) -> Option<&'static str> {
    if values.iter().any(|value| value.len() > VALUE_BYTES_MAX) {
        return Some("Push value size limit exceeded");
    }
    let mut stack = values.iter().map(|value| value.to_vec()).collect();
    match walk(script, &mut stack, flags) {
        Err(End::Fault(text)) => Some(text),
        Err(End::Unknown) => None,
        // The script fails: if not here, then at the signature that was taken to hold.
        Ok(assumed) if stack.len() == 1 => assumed.filter(|_| ends_true(&stack)),
        Ok(None) => Some("Stack size must be exactly one after execution"),
        Ok(Some(_)) => None,
    }
}

/// What is wrong with the one signature of a taproot output's key (BIP-0341).
fn key_path_fault(witness: &[&[u8]]) -> Option<&'static str> {
    const ANNEX_TAG: u8 = 0x50;
    let is_annex = |item: &&[u8]| item.first() == Some(&ANNEX_TAG);
    let stack = match witness {
        [stack @ .., last] if !stack.is_empty() && is_annex(last) => stack,
        _ => witness,
    };
    let [signature] = stack else { return None };
    match (signature.len(), signature.last()) {
        (65, Some(1..=3 | 0x81..=0x83)) | (64, _) => Some("Invalid Schnorr signature"),
        (65, _) => Some("Invalid Schnorr signature hash type"),
        _ => Some("Invalid Schnorr signature size"),
    }
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
        check_with(script_sig, &[], spent, reason);
    }

    #[track_caller]
    fn check_with(script_sig: &str, witness: &[&str], spent: &str, reason: &str) {
        let mut tx = payment(&[outpoint(1)], &[1]);
        for item in witness {
            tx.input[0].witness.push(Vec::from_hex(item).unwrap());
        }
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
        check("", "00", FALSE_TOP);
        // A hash of another key, and no key at all.
        let key_hash = format!("76a914{}88ac", "11".repeat(20));
        check("5151", &key_hash, "Script failed an OP_EQUALVERIFY operation");
        check("", &key_hash, "Operation not valid with the current stack size");
        // Conditionals, as in Core's feature_block.py.
        let script = ["63", "ff", "67", "51", "68"].concat();
        check("51", &script, "Opcode missing or not understood");
        check("", &script, "Operation not valid with the current stack size");
        check("51", "6351", "Invalid OP_IF construction");
        check("00", "63657e6851", "Opcode missing or not understood");
        check("00", "637e6568", "Attempted to use a disabled opcode");
        check("00", "636a6851ab6a", "OP_RETURN was encountered");
        check("", &"61".repeat(202), "Operation limit exceeded");
        // A signature that has to hold and does not, alone and of several keys; what fails behind
        // it may be the fault as well.
        let key = format!("21{}", "02".repeat(33));
        check("00", &format!("{key}ad51"), "Script failed an OP_CHECKSIGVERIFY operation");
        let multi = format!("51{key}51af51");
        check("0000", &multi, "Script failed an OP_CHECKMULTISIGVERIFY operation");
        check("00", &format!("{key}ad00"), FALSE_TOP);
        // Behind a hash: OP_RETURN, and what is not only pushed.
        let return_hash = ScriptBuf::from_bytes(vec![0x6a]).to_p2sh().to_hex_string();
        check("016a", &return_hash, "OP_RETURN was encountered");
        check("61016a", &return_hash, "Only push operators allowed in signatures");
    }

    #[test]
    fn the_fault_of_a_witness_is_named_as_in_core() {
        let script_hash = format!("0020{}", sha256::Hash::hash(&[0x6a]));
        let key_hash = format!("0014{}", "11".repeat(20));
        let taproot = format!("5120{}", "11".repeat(32));
        let (short, odd) = ("11".repeat(63), format!("{}04", "11".repeat(64)));
        for (witness, spent, reason) in [
            (&[][..], script_hash.as_str(), EMPTY_WITNESS),
            (&["51"], &script_hash, MISMATCH),
            (&["6a"], &script_hash, "OP_RETURN was encountered"),
            (&["51"], &key_hash, MISMATCH),
            (&[], "000311aabb", "Witness program has incorrect length"),
            (&["51"], "51", "Witness provided for non-witness script"),
            (&[], &taproot, EMPTY_WITNESS),
            (&[&short], &taproot, "Invalid Schnorr signature size"),
            (&[&odd], &taproot, "Invalid Schnorr signature hash type"),
        ] {
            check_with("", witness, spent, reason);
        }
        check_with("51", &["6a"], &script_hash, "Witness requires empty scriptSig");
        let drop_hash = format!("0020{}", sha256::Hash::hash(&[0x75, 0x51]));
        check_with(
            "",
            &["", "", "7551"],
            &drop_hash,
            "Stack size must be exactly one after execution",
        );
        let long = "11".repeat(521);
        check_with("", &[&long, "7551"], &drop_hash, "Push value size limit exceeded");
    }
}
