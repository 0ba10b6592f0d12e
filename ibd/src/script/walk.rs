//! Walking a script whose values are known, as far as that goes: where it surely fails, in Bitcoin
//! Core's words. A signature is never looked at; the first thing that cannot be told ends the walk.

use bitcoin::hashes::{Hash as _, hash160, ripemd160, sha1, sha256, sha256d};
use bitcoin::opcodes::all as op;

use super::ScriptFlags;
use crate::tx::next_op;

/// Bytes of a script before taproot (`MAX_SCRIPT_SIZE`).
const SCRIPT_BYTES_MAX: usize = 10_000;
/// Bytes of a value (`MAX_SCRIPT_ELEMENT_SIZE`).
const VALUE_BYTES_MAX: usize = 520;
/// Values on the stack (`MAX_STACK_SIZE`).
const STACK_MAX: usize = 1000;

const TOO_FEW: End = End::Fault("Operation not valid with the current stack size");
const BAD_OPCODE: End = End::Fault("Opcode missing or not understood");
const UNBALANCED: End = End::Fault("Invalid OP_IF construction");

/// Why a walk ended before the script did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// The script fails, and so.
    Fault(&'static str),
    /// What the next operation does is not known here.
    Unknown,
}

/// The values that a script works on, the top last.
pub(super) type Stack = Vec<Vec<u8>>;

/// Runs a script on a stack.
pub(super) fn walk(script: &[u8], stack: &mut Stack, flags: ScriptFlags) -> Result<(), End> {
    if script.len() > SCRIPT_BYTES_MAX {
        return Err(End::Fault("Script is too big"));
    }
    let mut rest = script;
    while let Some((code, pushed)) = next_op(&mut rest) {
        if pushed.len() > VALUE_BYTES_MAX {
            return Err(End::Fault("Push value size limit exceeded"));
        }
        step(code, pushed, stack, flags)?;
        if stack.len() > STACK_MAX {
            return Err(End::Fault("Stack size limit exceeded"));
        }
    }
    if rest.is_empty() { Ok(()) } else { Err(BAD_OPCODE) }
}

/// Whether a value counts as true (`CastToBool`).
pub(super) fn is_true(value: &[u8]) -> bool {
    match value.split_last() {
        Some((last, rest)) => *last & 0x7f != 0 || rest.iter().any(|byte| *byte != 0),
        None => false,
    }
}

fn step(code: u8, pushed: &[u8], stack: &mut Stack, flags: ScriptFlags) -> Result<(), End> {
    if is_disabled(code) {
        return Err(End::Fault("Attempted to use a disabled opcode"));
    }
    let needed = values_needed(code, flags);
    if stack.len() < needed {
        let is_if = [op::OP_IF.to_u8(), op::OP_NOTIF.to_u8()].contains(&code);
        return Err(if is_if { UNBALANCED } else { TOO_FEW });
    }
    match code {
        0..=0x4e => stack.push(pushed.to_vec()),
        0x4f => stack.push(vec![0x81]),
        0x51..=0x60 => stack.push(vec![code - 0x50]),
        _ => return calculate(bitcoin::opcodes::Opcode::from(code), stack),
    }
    Ok(())
}

fn calculate(code: bitcoin::opcodes::Opcode, stack: &mut Stack) -> Result<(), End> {
    let mut pop = || stack.pop().ok_or(TOO_FEW);
    match code {
        op::OP_NOP
        | op::OP_NOP1
        | op::OP_NOP4
        | op::OP_NOP5
        | op::OP_NOP6
        | op::OP_NOP7
        | op::OP_NOP8
        | op::OP_NOP9
        | op::OP_NOP10 => {}
        op::OP_RETURN => return Err(End::Fault("OP_RETURN was encountered")),
        op::OP_ELSE | op::OP_ENDIF => return Err(UNBALANCED),
        op::OP_VERIFY => {
            if !is_true(&pop()?) {
                return Err(End::Fault("Script failed an OP_VERIFY operation"));
            }
        }
        op::OP_DROP => {
            pop()?;
        }
        op::OP_2DROP => {
            pop()?;
            pop()?;
        }
        op::OP_DUP => stack.extend(stack.last().cloned()),
        op::OP_RIPEMD160 => {
            let value = pop()?;
            stack.push(ripemd160::Hash::hash(&value).to_byte_array().to_vec());
        }
        op::OP_SHA1 => {
            let value = pop()?;
            stack.push(sha1::Hash::hash(&value).to_byte_array().to_vec());
        }
        op::OP_SHA256 => {
            let value = pop()?;
            stack.push(sha256::Hash::hash(&value).to_byte_array().to_vec());
        }
        op::OP_HASH160 => {
            let value = pop()?;
            stack.push(hash160::Hash::hash(&value).to_byte_array().to_vec());
        }
        op::OP_HASH256 => {
            let value = pop()?;
            stack.push(sha256d::Hash::hash(&value).to_byte_array().to_vec());
        }
        op::OP_EQUAL => {
            let equal = pop()? == pop()?;
            stack.push(if equal { vec![1] } else { Vec::new() });
        }
        op::OP_EQUALVERIFY => {
            if pop()? != pop()? {
                return Err(End::Fault("Script failed an OP_EQUALVERIFY operation"));
            }
        }
        _ if is_unknown_to_core(code.to_u8()) => return Err(BAD_OPCODE),
        _ => return Err(End::Unknown),
    }
    Ok(())
}

/// Operations that fail wherever they stand.
const fn is_disabled(code: u8) -> bool {
    matches!(code, 0x7e..=0x81 | 0x83..=0x86 | 0x8d | 0x8e | 0x95..=0x99)
}

/// `OP_RESERVED`, `OP_VER`, `OP_VERIF`, `OP_VERNOTIF`, `OP_RESERVED1`, `OP_RESERVED2` and what has
/// no name.
const fn is_unknown_to_core(code: u8) -> bool {
    matches!(code, 0x50 | 0x62 | 0x65 | 0x66 | 0x89 | 0x8a | 0xba..)
}

/// How many values an operation needs at least.
fn values_needed(code: u8, flags: ScriptFlags) -> usize {
    match code {
        // OP_IF, OP_NOTIF, OP_VERIFY, OP_TOALTSTACK, OP_DROP, OP_DUP, OP_SIZE, numbers and hashes
        // of one value, multisig.
        0x63 | 0x64 | 0x69 | 0x6b | 0x73 | 0x75 | 0x76 | 0x82 | 0x8b..=0x92 => 1,
        0xa6..=0xaa | 0xae | 0xaf => 1,
        0xb1 if flags.contains(ScriptFlags::CHECKLOCKTIMEVERIFY) => 1,
        0xb2 if flags.contains(ScriptFlags::CHECKSEQUENCEVERIFY) => 1,
        // Pairs: OP_2DROP, OP_2DUP, OP_NIP to OP_ROLL, OP_SWAP, OP_TUCK, comparisons, sums, signatures.
        0x6d | 0x6e | 0x77..=0x7a | 0x7c | 0x7d | 0x87 | 0x88 => 2,
        0x93 | 0x94 | 0x9a..=0xa4 | 0xac | 0xad => 2,
        // OP_3DUP, OP_ROT, OP_WITHIN.
        0x6f | 0x7b | 0xa5 => 3,
        // OP_2OVER, OP_2SWAP; OP_2ROT.
        0x70 | 0x72 => 4,
        0x71 => 6,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::hex::FromHex as _;

    fn run(script: &str) -> Result<Stack, End> {
        let mut stack = Stack::new();
        walk(&Vec::from_hex(script).unwrap(), &mut stack, ScriptFlags::ALL).map(|()| stack)
    }

    #[test]
    fn a_script_of_known_values_is_followed_to_its_end() {
        assert_eq!(run("5151879169").unwrap_err(), End::Unknown, "OP_NOT is not followed");
        assert_eq!(run("515187").unwrap(), [vec![1]]);
        assert_eq!(run("51765275").unwrap(), [vec![1], vec![1]]);
        // A key's hash, as in a payment to it; the signature is beyond.
        assert_eq!(run("0051a9760151ac").unwrap_err(), End::Unknown);
        assert!(!is_true(&[0, 0x80]) && is_true(&[0x80, 0]) && !is_true(&[]));
    }

    #[test]
    fn what_fails_without_a_signature_is_named_as_in_core() {
        for (script, text) in [
            ("76", "Operation not valid with the current stack size"),
            ("51ac", "Operation not valid with the current stack size"),
            ("b1", "Operation not valid with the current stack size"),
            ("6a", "OP_RETURN was encountered"),
            ("515288", "Script failed an OP_EQUALVERIFY operation"),
            ("0069", "Script failed an OP_VERIFY operation"),
            ("51517e", "Attempted to use a disabled opcode"),
            ("50", "Opcode missing or not understood"),
            ("ba", "Opcode missing or not understood"),
            ("05ab", "Opcode missing or not understood"),
            ("63", "Invalid OP_IF construction"),
            ("68", "Invalid OP_IF construction"),
        ] {
            assert_eq!(run(script).unwrap_err(), End::Fault(text), "{script}");
        }
        assert_eq!(run(&"61".repeat(10_001)).unwrap_err(), End::Fault("Script is too big"));
        let long = format!("4d0902{}", "00".repeat(521));
        assert_eq!(run(&long).unwrap_err(), End::Fault("Push value size limit exceeded"));
    }
}
