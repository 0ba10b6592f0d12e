//! Counting signature operations (`GetTransactionSigOpCost` in Bitcoin Core's
//! `consensus/tx_verify.cpp`, `CScript::GetSigOpCount`).

use super::WITNESS_SCALE;
use crate::compress::CompressedScript;
use crate::script::ScriptFlags;
use crate::wire::TxRef;

const OP_1: u8 = 0x51;
const OP_16: u8 = 0x60;
const OP_CHECKSIG: u8 = 0xac;
const OP_CHECKSIGVERIFY: u8 = 0xad;
const OP_CHECKMULTISIG: u8 = 0xae;
const OP_CHECKMULTISIGVERIFY: u8 = 0xaf;
/// What a multisig counts whose number of keys is not known (`MAX_PUBKEYS_PER_MULTISIG`).
const KEYS_PER_MULTISIG_MAX: u32 = 20;

/// An operation and the bytes it pushes; `None` at the end or where the push goes beyond it.
pub(crate) fn next_op<'a>(script: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&op, rest) = script.split_first()?;
    let (len, rest) = match op {
        0..=0x4b => (usize::from(op), rest),
        0x4c => {
            let (len, rest) = rest.split_first_chunk::<1>()?;
            (usize::from(len[0]), rest)
        }
        0x4d => {
            let (len, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_le_bytes(*len)), rest)
        }
        0x4e => {
            let (len, rest) = rest.split_first_chunk::<4>()?;
            (usize::try_from(u32::from_le_bytes(*len)).ok()?, rest)
        }
        _ => (0, rest),
    };
    let (pushed, rest) = rest.split_at_checked(len)?;
    *script = rest;
    Some((op, pushed))
}

/// Counts the operations of a script; a multisig counts its keys if `accurate` and the number is
/// right before it, else twenty. Counting ends where the script cannot be read on.
fn count(mut script: &[u8], accurate: bool) -> u32 {
    let mut sigops = 0;
    let mut last = 0xff;
    while let Some((op, _)) = next_op(&mut script) {
        sigops += match op {
            OP_CHECKSIG | OP_CHECKSIGVERIFY => 1,
            OP_CHECKMULTISIG | OP_CHECKMULTISIGVERIFY => match last {
                OP_1..=OP_16 if accurate => u32::from(last - OP_1 + 1),
                _ => KEYS_PER_MULTISIG_MAX,
            },
            _ => 0,
        };
        last = op;
    }
    sigops
}

/// Returns the last thing that a script pushes; `None` unless it can be read and only pushes.
fn last_push(mut script: &[u8]) -> Option<&[u8]> {
    let mut last: &[u8] = &[];
    while !script.is_empty() {
        let (op, pushed) = next_op(&mut script)?;
        if op > OP_16 {
            return None;
        }
        last = pushed;
    }
    Some(last)
}

/// Counts the operations in a transaction's own scripts, as before BIP-0016.
///
/// The number fits: it is at most twenty times that of the transaction's bytes.
#[must_use]
pub fn legacy_sigop_count(tx: TxRef<'_>) -> u32 {
    let inputs = tx.inputs().map(|input| input.script_sig());
    let outputs = tx.outputs().map(|output| output.script);
    inputs.chain(outputs).map(|script| count(script.as_bytes(), false)).sum()
}

/// Returns the cost of a transaction's signature operations beyond those of its own scripts, which
/// cost [`legacy_sigop_count`] times four: of redeem scripts and witnesses.
///
/// `spent` has the scripts that the inputs satisfy, in their order (none for a coinbase).
#[must_use]
pub fn spent_sigop_cost<'a>(
    tx: TxRef<'_>,
    spent: impl Iterator<Item = CompressedScript<'a>>,
    flags: ScriptFlags,
) -> u64 {
    let mut cost = 0;
    for (input, script) in tx.inputs().zip(spent) {
        let is_p2sh = script.is_p2sh();
        let redeem = if is_p2sh { last_push(input.script_sig().as_bytes()) } else { None };
        if flags.contains(ScriptFlags::P2SH) {
            cost += redeem.map_or(0, |redeem| u64::from(count(redeem, true))) * WITNESS_SCALE;
        }
        if flags.contains(ScriptFlags::WITNESS) {
            let program = script.other().and_then(witness_program);
            let program = program.or_else(|| witness_program(redeem?));
            cost += match program {
                Some((0, program)) if program.len() == 20 => 1,
                Some((0, program)) if program.len() == 32 => {
                    input.witness().last().map_or(0, |script| u64::from(count(script, true)))
                }
                _ => 0,
            };
        }
    }
    cost
}

/// Returns version and program of a witness program (`CScript::IsWitnessProgram`).
fn witness_program(script: &[u8]) -> Option<(u8, &[u8])> {
    let (&version, rest) = script.split_first()?;
    let (&len, program) = rest.split_first()?;
    let version = match version {
        0 => 0,
        OP_1..=OP_16 => version - OP_1 + 1,
        _ => return None,
    };
    let is_program = (2..=40).contains(&program.len()) && usize::from(len) == program.len();
    is_program.then_some((version, program))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::write_script;
    use crate::testing::{outpoint, parsed, payment};
    use bitcoin::hex::FromHex as _;
    use bitcoin::{Script, ScriptBuf, Witness};

    #[track_caller]
    fn check(script: &str, rough: u32, accurate: u32) {
        let script = Vec::from_hex(script).unwrap();
        assert_eq!((count(&script, false), count(&script, true)), (rough, accurate));
    }

    #[test]
    fn operations_are_counted() {
        check("", 0, 0);
        check("ac", 1, 1);
        check("76a9ad", 1, 1);
        check("ae", 20, 20);
        check("52af", 20, 2);
        check("60ae", 20, 16);
        check("61ae", 20, 20);
        // The number has to be right before.
        check("5261ae", 20, 20);
        // Pushed bytes are no operations, and nothing counts after a push beyond the end.
        check("02acacac", 1, 1);
        check("ac4c05acac", 1, 1);
        check("4d0200acacac", 1, 1);
        check("4e02000000acacac", 1, 1);
        check("ac4d00", 1, 1);
        check("ac02ac", 1, 1);
    }

    const P2SH: &str = "a914000000000000000000000000000000000000000087";
    const ALL: ScriptFlags = ScriptFlags::P2SH.union(ScriptFlags::WITNESS);

    #[track_caller]
    fn check_cost(spent: &str, script_sig: &str, witness: &[&str], flags: ScriptFlags, cost: u64) {
        let mut tx = payment(&[outpoint(1)], &[1]);
        tx.output[0].script_pubkey = ScriptBuf::from_hex("6a").unwrap();
        tx.input[0].script_sig = ScriptBuf::from_hex(script_sig).unwrap();
        let stack: Vec<_> = witness.iter().map(|item| Vec::from_hex(item).unwrap()).collect();
        tx.input[0].witness = Witness::from_slice(&stack);
        let txs = parsed(&tx);
        let (tx, spent) = (txs.first().unwrap(), Vec::from_hex(spent).unwrap());
        let mut compressed = Vec::new();
        write_script(Script::from_bytes(&spent), &mut compressed);
        // However the script is kept.
        for script in [
            CompressedScript::Other(&spent),
            CompressedScript::read(&mut compressed.as_slice()).unwrap(),
        ] {
            assert_eq!(spent_sigop_cost(tx, std::iter::once(script), flags), cost, "{script:?}");
        }
    }

    #[test]
    fn redeem_scripts_count_accurately() {
        check_cost(P2SH, "0252ae", &[], ALL, 8);
        check_cost(P2SH, "0252ae", &[], ScriptFlags::NONE, 0);
        // The last push counts, and only if there are only pushes.
        check_cost(P2SH, "0252ae01ac", &[], ALL, 4);
        check_cost(P2SH, "0252ae61", &[], ALL, 0);
        check_cost(P2SH, "0252ae02", &[], ALL, 0);
        // A number pushed last is an empty push here.
        check_cost(P2SH, "0252ae51", &[], ALL, 0);
        // What is spent does not count itself.
        check_cost("ac", "", &[], ALL, 0);
    }

    #[test]
    fn witness_operations_cost_one() {
        let key_hash = format!("0014{}", "00".repeat(20));
        let script_hash = format!("0020{}", "00".repeat(32));
        check_cost(&key_hash, "", &[], ALL, 1);
        check_cost(&key_hash, "", &[], ScriptFlags::P2SH, 0);
        check_cost(&script_hash, "", &["ac", "53ae"], ALL, 3);
        check_cost(&script_hash, "", &[], ALL, 0);
        // Nested in P2SH.
        check_cost(P2SH, &format!("16{key_hash}"), &[], ALL, 1);
        check_cost(P2SH, &format!("22{script_hash}"), &["53ae"], ALL, 3);
        // Other versions and lengths cost nothing.
        check_cost(&format!("5120{}", "00".repeat(32)), "", &["ac"], ALL, 0);
        check_cost(&format!("0015{}", "00".repeat(21)), "", &["ac"], ALL, 0);
    }
}
