//! Walking a script whose values are known, as far as that goes: where it surely fails, in Bitcoin
//! Core's words. A signature is never looked at: one that has to hold is taken to hold, which is the
//! fault if nothing else is; the first thing that cannot be told ends the walk.

use bitcoin::hashes::{Hash as _, hash160, ripemd160, sha1, sha256, sha256d};
use bitcoin::opcodes::all as op;

use super::ScriptFlags;
use crate::tx::next_op;

/// Bytes of a script before taproot (`MAX_SCRIPT_SIZE`).
const SCRIPT_BYTES_MAX: usize = 10_000;
/// Bytes of a value (`MAX_SCRIPT_ELEMENT_SIZE`).
pub(super) const VALUE_BYTES_MAX: usize = 520;
/// Operations of a script before taproot that are no pushes (`MAX_OPS_PER_SCRIPT`).
const OPERATIONS_MAX: usize = 201;
/// Values on the stack (`MAX_STACK_SIZE`).
const STACK_MAX: usize = 1000;

/// Keys of a multisignature (`MAX_PUBKEYS_PER_MULTISIG`).
const KEYS_MAX: u8 = 20;

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

/// What a script says that fails at a signature.
pub(super) type Assumed = Option<&'static str>;

/// Runs a script on a stack (`EvalScript`). Returns what fails if a signature does not hold that was
/// taken to; where that was done, no other fault is certain.
pub(super) fn walk(script: &[u8], stack: &mut Stack, flags: ScriptFlags) -> Result<Assumed, End> {
    let mut assumed = None;
    match walk_on(script, stack, flags, &mut assumed) {
        Ok(()) => Ok(assumed),
        Err(_) if assumed.is_some() => Err(End::Unknown),
        Err(end) => Err(end),
    }
}

fn walk_on(
    script: &[u8],
    stack: &mut Stack,
    flags: ScriptFlags,
    assumed: &mut Assumed,
) -> Result<(), End> {
    if script.len() > SCRIPT_BYTES_MAX {
        return Err(End::Fault("Script is too big"));
    }
    let mut branches = Branches::default();
    let mut operations: usize = 0;
    let mut rest = script;
    while let Some((code, pushed)) = next_op(&mut rest) {
        if pushed.len() > VALUE_BYTES_MAX {
            return Err(End::Fault("Push value size limit exceeded"));
        }
        // OP_RESERVED does not count.
        operations += usize::from(code > op::OP_PUSHNUM_16.to_u8());
        if operations > OPERATIONS_MAX {
            return Err(End::Fault("Operation limit exceeded"));
        }
        if is_disabled(code) {
            return Err(End::Fault("Attempted to use a disabled opcode"));
        }
        let conditional = (op::OP_IF.to_u8()..=op::OP_ENDIF.to_u8()).contains(&code);
        if conditional {
            branches.step(code, stack)?;
        } else if branches.all_taken() {
            match signature_fault(code) {
                Some(fault) => take_as_right(code, fault, stack, assumed)?,
                None => step(code, pushed, stack, flags)?,
            }
        }
        if stack.len() > STACK_MAX {
            return Err(End::Fault("Stack size limit exceeded"));
        }
    }
    match (rest.is_empty(), branches.0.is_empty()) {
        (true, true) => Ok(()),
        (true, false) => Err(UNBALANCED),
        (false, _) => Err(BAD_OPCODE),
    }
}

/// The conditionals around where a walk is, the innermost last, and whether each one's branch is
/// taken (`vfExec`). As long as [`OPERATIONS_MAX`] at most.
#[derive(Debug, Default)]
struct Branches(Vec<bool>);

impl Branches {
    fn all_taken(&self) -> bool {
        self.0.iter().all(|taken| *taken)
    }

    /// Follows an operation from `OP_IF` to `OP_ENDIF`: these count where nothing else is run.
    fn step(&mut self, code: u8, stack: &mut Stack) -> Result<(), End> {
        match bitcoin::opcodes::Opcode::from(code) {
            op::OP_IF | op::OP_NOTIF => {
                let runs = self.all_taken();
                let value = if runs { is_true(&stack.pop().ok_or(TOO_FEW)?) } else { false };
                self.0.push(runs && value == (code == op::OP_IF.to_u8()));
            }
            op::OP_ELSE => {
                let taken = self.0.last_mut().ok_or(UNBALANCED)?;
                *taken = !*taken;
            }
            op::OP_ENDIF => {
                self.0.pop().ok_or(UNBALANCED)?;
            }
            // OP_VERIF and OP_VERNOTIF.
            _ => return Err(BAD_OPCODE),
        }
        Ok(())
    }
}

/// Whether a value counts as true (`CastToBool`).
pub(super) fn is_true(value: &[u8]) -> bool {
    match value.split_last() {
        Some((last, rest)) => *last & 0x7f != 0 || rest.iter().any(|byte| *byte != 0),
        None => false,
    }
}

/// Returns how a script fails at an operation that ends it unless its signatures hold.
fn signature_fault(code: u8) -> Option<&'static str> {
    match bitcoin::opcodes::Opcode::from(code) {
        op::OP_CHECKSIGVERIFY => Some("Script failed an OP_CHECKSIGVERIFY operation"),
        op::OP_CHECKMULTISIGVERIFY => Some("Script failed an OP_CHECKMULTISIGVERIFY operation"),
        _ => None,
    }
}

/// Does what such an operation does to the stack.
fn take_as_right(
    code: u8,
    fault: &'static str,
    stack: &mut Stack,
    assumed: &mut Assumed,
) -> Result<(), End> {
    if assumed.is_some_and(|known| known != fault) {
        // Which of the two it would be cannot be told.
        return Err(End::Unknown);
    }
    if code == op::OP_CHECKSIGVERIFY.to_u8() {
        drop_values(stack, 2)?;
    } else {
        // Keys, signatures, and the value that nobody looks at.
        drop_counted(stack)?;
        drop_counted(stack)?;
        drop_values(stack, 1)?;
    }
    *assumed = Some(fault);
    Ok(())
}

fn drop_counted(stack: &mut Stack) -> Result<(), End> {
    let count = match stack.pop().ok_or(TOO_FEW)?.as_slice() {
        [] => 0,
        [count] if *count <= KEYS_MAX => *count,
        _ => return Err(End::Unknown),
    };
    drop_values(stack, count.into())
}

fn drop_values(stack: &mut Stack, count: usize) -> Result<(), End> {
    stack.truncate(stack.len().checked_sub(count).ok_or(TOO_FEW)?);
    Ok(())
}

fn step(code: u8, pushed: &[u8], stack: &mut Stack, flags: ScriptFlags) -> Result<(), End> {
    if stack.len() < values_needed(code, flags) {
        return Err(TOO_FEW);
    }
    match code {
        0..=0x4e => stack.push(pushed.to_vec()),
        0x4f => stack.push(vec![0x81]),
        0x51..=0x60 => stack.push(vec![code - 0x50]),
        // Without the rules of lock times these do nothing.
        0xb1 if !flags.contains(ScriptFlags::CHECKLOCKTIMEVERIFY) => {}
        0xb2 if !flags.contains(ScriptFlags::CHECKSEQUENCEVERIFY) => {}
        _ => return calculate(bitcoin::opcodes::Opcode::from(code), stack),
    }
    Ok(())
}

fn calculate(code: bitcoin::opcodes::Opcode, stack: &mut Stack) -> Result<(), End> {
    let mut pop = || stack.pop().ok_or(TOO_FEW);
    match code {
        // A separator concerns signatures alone.
        op::OP_CODESEPARATOR
        | op::OP_NOP
        | op::OP_NOP1
        | op::OP_NOP4
        | op::OP_NOP5
        | op::OP_NOP6
        | op::OP_NOP7
        | op::OP_NOP8
        | op::OP_NOP9
        | op::OP_NOP10 => {}
        op::OP_RETURN => return Err(End::Fault("OP_RETURN was encountered")),
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

/// Operations that fail wherever they stand (CVE-2010-5137).
const fn is_disabled(code: u8) -> bool {
    matches!(code, 0x7e..=0x81 | 0x83..=0x86 | 0x8d | 0x8e | 0x95..=0x99)
}

/// `OP_RESERVED`, `OP_VER`, `OP_RESERVED1`, `OP_RESERVED2` and what has no name.
const fn is_unknown_to_core(code: u8) -> bool {
    matches!(code, 0x50 | 0x62 | 0x89 | 0x8a | 0xba..)
}

/// How many values an operation needs at least.
fn values_needed(code: u8, flags: ScriptFlags) -> usize {
    match code {
        // OP_VERIFY, OP_TOALTSTACK, OP_DROP, OP_DUP, OP_SIZE, numbers and hashes of one value,
        // multisig.
        0x69 | 0x6b | 0x73 | 0x75 | 0x76 | 0x82 | 0x8b..=0x92 => 1,
        0xa6..=0xaa | 0xae => 1,
        0xb1 if flags.contains(ScriptFlags::CHECKLOCKTIMEVERIFY) => 1,
        0xb2 if flags.contains(ScriptFlags::CHECKSEQUENCEVERIFY) => 1,
        // Pairs: OP_2DROP, OP_2DUP, OP_NIP to OP_ROLL, OP_SWAP, OP_TUCK, comparisons, sums, signatures.
        0x6d | 0x6e | 0x77..=0x7a | 0x7c | 0x7d | 0x87 | 0x88 => 2,
        0x93 | 0x94 | 0x9a..=0xa4 | 0xac => 2,
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
        walk(&Vec::from_hex(script).unwrap(), &mut stack, ScriptFlags::ALL).map(|_| stack)
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
            ("63", "Operation not valid with the current stack size"),
            ("64", "Operation not valid with the current stack size"),
            ("68", "Invalid OP_IF construction"),
            ("67", "Invalid OP_IF construction"),
            ("5163", "Invalid OP_IF construction"),
            ("006367", "Invalid OP_IF construction"),
            ("51636868", "Invalid OP_IF construction"),
            // What a branch that is not taken may not hold either.
            ("00636568", "Opcode missing or not understood"),
            ("00636668", "Opcode missing or not understood"),
            ("00637e68", "Attempted to use a disabled opcode"),
            ("006305ab68", "Opcode missing or not understood"),
            // Which branch it is that fails.
            ("51636a6768", "OP_RETURN was encountered"),
            ("00636751ba68", "Opcode missing or not understood"),
            ("51646776ab6a68", "Operation not valid with the current stack size"),
            ("516467ab6a68", "OP_RETURN was encountered"),
        ] {
            assert_eq!(run(script).unwrap_err(), End::Fault(text), "{script}");
        }
        assert_eq!(run(&"61".repeat(10_001)).unwrap_err(), End::Fault("Script is too big"));
        for long in ["", "0063"] {
            let long = format!("{long}4d0902{}", "00".repeat(521));
            assert_eq!(run(&long).unwrap_err(), End::Fault("Push value size limit exceeded"));
        }
        for not_run in ["", "0063"] {
            let full = format!("{not_run}{}", "61".repeat(202 - not_run.len() / 4));
            assert_eq!(run(&full).unwrap_err(), End::Fault("Operation limit exceeded"));
        }
        // Pushes are no operations.
        assert_eq!(run(&format!("{}51", "61".repeat(201))).unwrap(), [vec![1]]);
    }

    #[test]
    fn a_signature_that_has_to_hold_is_the_only_doubt() {
        let run = |script: &str| {
            let mut stack = Stack::new();
            let script = Vec::from_hex(script).unwrap();
            walk(&script, &mut stack, ScriptFlags::ALL).map(|assumed| (assumed, stack.len()))
        };
        let one = Some("Script failed an OP_CHECKSIGVERIFY operation");
        let many = Some("Script failed an OP_CHECKMULTISIGVERIFY operation");
        assert_eq!(run("5151ad51"), Ok((one, 1)));
        assert_eq!(run("5151ad5151ad51"), Ok((one, 1)));
        // One of two keys, and none of none.
        assert_eq!(run("5151515152af51"), Err(TOO_FEW));
        assert_eq!(run("005151515152af51"), Ok((many, 1)));
        assert_eq!(run("000000af"), Ok((many, 0)));
        // Another fault behind it, another kind, a number that is none.
        assert_eq!(run("5151ad6a"), Err(End::Unknown));
        assert_eq!(run("5151ad000000af51"), Err(End::Unknown));
        assert_eq!(run("000121af"), Err(End::Unknown));
        assert_eq!(run("51ad"), Err(TOO_FEW));
        assert_eq!(run("006351ad6851"), Ok((None, 1)));
    }

    #[test]
    fn a_branch_that_is_not_taken_does_nothing() {
        for (script, left) in [
            // Neither an unknown operation nor OP_RETURN fails there, and nothing is pushed.
            ("0063ba6751", None),
            ("0063ba675168", Some(1)),
            ("00636a505268", Some(0)),
            ("516453675168", Some(1)),
            // Nested: both have to be taken; the flip of the inner one runs nothing.
            ("0063516352675368685a", Some(1)),
            ("51635163526753686851", Some(2)),
            // A second OP_ELSE flips back.
            ("5163516752675368", Some(2)),
        ] {
            assert_eq!(run(script).ok().map(|stack| stack.len()), left, "{script}");
        }
        let flags = ScriptFlags::NONE;
        assert_eq!(walk(&[0xb1, 0xb2, 0xab], &mut Stack::new(), flags), Ok(None));
    }
}
