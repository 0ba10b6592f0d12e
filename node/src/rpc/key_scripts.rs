//! Scripts that name keys, as Bitcoin Core tells them from others (`Solver` in `script/solver.cpp`): by
//! the form of the keys alone, on the curve or not. So it tells signatures.

use bitcoin::Script;
use bitcoin::opcodes::all as op;
use bitcoin::script::Instruction;

/// Bytes of a key in the short form, and in the long one.
const SHORT: usize = 33;
const LONG: usize = 65;

/// Most bytes of a signature with its hash type (BIP-0066).
const SIGNATURE_BYTES_MAX: usize = 73;

/// A multisignature script.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Multisig<'a> {
    /// How many signatures it needs.
    pub(super) needed: u8,
    /// Its keys.
    pub(super) keys: Vec<&'a [u8]>,
}

/// Returns whether bytes have the length that a key's first byte tells (`CPubKey::ValidSize`).
const fn is_key(bytes: &[u8]) -> bool {
    matches!((bytes.len(), bytes.first()), (SHORT, Some(2 | 3)) | (LONG, Some(4 | 6 | 7)))
}

/// Returns whether a key is one that Core describes: not in the hybrid form.
pub(super) fn is_plain(key: &[u8]) -> bool {
    is_key(key) && !matches!(key.first(), Some(6 | 7))
}

/// Returns whether a key is in the short form.
pub(super) fn is_compressed(key: &[u8]) -> bool {
    is_key(key) && key.len() == SHORT
}

/// Returns the key of a script that pays to one (`MatchPayToPubkey`).
pub(super) fn paid_key(script: &Script) -> Option<&[u8]> {
    let [length, key @ .., last] = script.as_bytes() else { return None };
    let is_whole = usize::from(*length) == key.len() && *last == op::OP_CHECKSIG.to_u8();
    Some(key).filter(|key| is_whole && is_key(key))
}

/// Reads a bare multisignature script (`MatchMultisig`).
pub(super) fn multisig(script: &Script) -> Option<Multisig<'_>> {
    let (needed, rest) = key_count(script.as_bytes())?;
    let mut instructions = Script::from_bytes(rest).instructions();
    let mut keys = Vec::new();
    let rest = loop {
        let rest = instructions.as_script();
        match instructions.next() {
            Some(Ok(Instruction::PushBytes(key))) if is_key(key.as_bytes()) => {
                keys.push(key.as_bytes());
            }
            _ => break rest.as_bytes(),
        }
    };
    let (count, rest) = key_count(rest)?;
    let is_whole = rest == [op::OP_CHECKMULTISIG.to_u8()];
    let is_sound = is_whole && usize::from(count) == keys.len() && needed <= count;
    is_sound.then_some(Multisig { needed, keys })
}

/// Splits a number of keys off, which has to be written the shortest way (`GetScriptNumber`).
fn key_count(script: &[u8]) -> Option<(u8, &[u8])> {
    const FIRST: u8 = op::OP_PUSHNUM_1.to_u8();
    const LAST: u8 = op::OP_PUSHNUM_16.to_u8();
    match script {
        [number @ FIRST..=LAST, rest @ ..] => Some((number - FIRST + 1, rest)),
        // Larger numbers have no operation.
        [1, number @ 17..=20, rest @ ..] => Some((*number, rest)),
        _ => None,
    }
}

/// Returns whether bytes are a signature in the one form that is allowed, with its hash type (BIP-0066,
/// `IsValidSignatureEncoding`).
pub(super) fn is_signature(bytes: &[u8]) -> bool {
    let Some((_, signature)) = bytes.split_last() else { return false };
    let numbers = match signature {
        [0x30, length, numbers @ ..] if usize::from(*length) == numbers.len() => numbers,
        _ => return false,
    };
    let end = signature_number(numbers).and_then(signature_number);
    bytes.len() <= SIGNATURE_BYTES_MAX && end.is_some_and(<[u8]>::is_empty)
}

/// Splits off a number that is not below zero and has no byte too many.
fn signature_number(bytes: &[u8]) -> Option<&[u8]> {
    let [2, length, rest @ ..] = bytes else { return None };
    let (number, rest) = rest.split_at_checked(usize::from(*length))?;
    let is_shortest = match number {
        [] | [0x80..=0xff, ..] | [0, 0..=0x7f, ..] => false,
        [_, ..] => true,
    };
    is_shortest.then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::ScriptBuf;
    use bitcoin::hex::FromHex as _;

    fn key(first: &str, bytes: usize) -> String {
        format!("{first}{}", "ff".repeat(bytes - 1))
    }

    #[test]
    fn keys_are_told_by_their_first_byte_and_their_length() {
        let pays = |key: &str, bytes: u8| {
            let script = ScriptBuf::from_hex(&format!("{bytes:02x}{key}ac")).unwrap();
            paid_key(&script).map(|key| (is_plain(key), is_compressed(key)))
        };
        assert_eq!(pays(&key("02", 33), 33), Some((true, true)));
        assert_eq!(pays(&key("04", 65), 65), Some((true, false)));
        assert_eq!(pays(&key("07", 65), 65), Some((false, false)));
        assert_eq!(pays(&key("04", 33), 33), None);
        assert_eq!(pays(&key("02", 65), 65), None);
        assert_eq!(pays(&key("02", 33), 34), None);
    }

    #[test]
    fn a_signature_has_one_form() {
        let check = |hex: &str| is_signature(&Vec::from_hex(hex).unwrap());
        // The shortest, one of a spent output of the main chain, and the longest.
        assert!(check("300602010102010101"));
        let (r, s) = (format!("00{}", "ff".repeat(32)), format!("00{}", "80".repeat(32)));
        assert!(check(&format!("304602 21{r} 0221{s} 01").replace(' ', "")));
        assert!(check(
            "304402204e45e16932b8af514961a1d3a1a25fdf3f4f7732e9d624c6c61548ab5fb8cd410220181522ec8eca07de4860a4acdd12909d831cc56cbbac4622082221a8768d1d0901"
        ));
        for (hex, why) in [
            ("", "nothing"),
            ("30", "too short"),
            ("310602010102010101", "another type"),
            ("300702010102010101", "longer than it is"),
            ("300502010102010101", "shorter than it is"),
            ("30060201010201010101", "more to come"),
            ("3008020101020101000001", "a third number"),
            ("300603010102010101", "R is no number"),
            ("300602010103010101", "S is no number"),
            ("30050200020101 01", "R is empty"),
            ("30050201010200 01", "S is empty"),
            ("300602018002010101", "R is below zero"),
            ("300602010102018001", "S is below zero"),
            ("30070202000102010101", "R is longer than needed"),
            ("30070201010202000101", "S is longer than needed"),
            ("300602050102010101", "R goes beyond the end"),
            ("300602010102050101", "S goes beyond the end"),
        ] {
            assert!(!check(&hex.replace(' ', "")), "{why}");
        }
        let long = format!("3047 0222 00ff{} 0221{s} 01", "ff".repeat(32)).replace(' ', "");
        assert!(!check(&long), "{} bytes", long.len() / 2);
        // Zero is one byte, and a byte of zeros keeps a number above zero.
        assert!(
            check("300602010002010001") && check("3007020200800201 0101".replace(' ', "").as_str())
        );
    }

    #[test]
    fn a_multisignature_has_as_many_keys_as_it_says() {
        let short = format!("21{}", key("03", 33));
        let read = |hex: &str| {
            let script = ScriptBuf::from_hex(hex).unwrap();
            multisig(&script).map(|multi| (multi.needed, multi.keys.len()))
        };
        assert_eq!(read(&format!("51{short}51ae")), Some((1, 1)));
        assert_eq!(read(&format!("51{}0114ae", short.repeat(20))), Some((1, 20)));
        for hex in [
            // OP_TUCK is no number; fewer keys and more than are told; none needed; more to come.
            format!("51{short}7dae"),
            format!("51{short}52ae"),
            format!("51{short}{short}51ae"),
            format!("52{short}51ae"),
            format!("00{short}51ae"),
            format!("51{short}51ae51"),
            format!("51{short}51ae49"),
            format!("51{}0115ae", short.repeat(21)),
            // Not the shortest way.
            format!("51{}4c0111ae", short.repeat(17)),
            format!("0101{short}51ae"),
            "5151ae".into(),
        ] {
            assert_eq!(read(&hex), None, "{hex}");
        }
    }
}
