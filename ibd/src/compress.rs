//! Bitcoin Core's compact codings: VARINT, amounts and scripts (`serialize.h`, `compressor.cpp`).
//!
//! Readers take a slice and move it past what they read; bytes that no writer makes are errors.

use bitcoin::opcodes::all::{
    OP_CHECKSIG, OP_DUP, OP_EQUAL, OP_EQUALVERIFY, OP_HASH160, OP_PUSHBYTES_20, OP_PUSHBYTES_33,
    OP_PUSHBYTES_65, OP_RETURN,
};
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, Script, ScriptBuf, TxOut};

use crate::error::{Error, Result};

/// Longest script that can be run; a longer one can never be spent (`MAX_SCRIPT_SIZE`).
pub const SCRIPT_LEN_MAX: usize = 10_000;

/// Sizes below this one stand for a kind of script.
const SPECIAL_SCRIPTS: u64 = 6;

const OP_RETURN_CODE: u8 = OP_RETURN.to_u8();

fn corrupt(what: &str) -> Error {
    Error::Corrupt { what: what.to_owned() }
}

/// Takes `len` bytes off the front.
pub(crate) fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Result<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(len).ok_or_else(|| corrupt("a coin cut short"))?;
    *bytes = rest;
    Ok(taken)
}

fn take_array<'a, const N: usize>(bytes: &mut &'a [u8]) -> Result<&'a [u8; N]> {
    let (taken, rest) = bytes.split_first_chunk().ok_or_else(|| corrupt("a coin cut short"))?;
    *bytes = rest;
    Ok(taken)
}

/// Appends a number in Core's VARINT coding: base 128, most significant digit first, each
/// continuation counting from one, so that every number has exactly one coding.
pub fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 10];
    let mut len = 0;
    for digit in digits.iter_mut().rev() {
        let [low, ..] = value.to_le_bytes();
        // All but the least significant digit, which is written last, say that more follows.
        *digit = if len == 0 { low & 0x7f } else { low | 0x80 };
        len += 1;
        if value <= 0x7f {
            break;
        }
        value = (value >> 7) - 1;
    }
    out.extend(digits.iter().skip(digits.len() - len));
}

/// Reads a number in Core's VARINT coding.
///
/// # Errors
///
/// Returns [`Error::Corrupt`] if the bytes end, or the number has more than 64 bits.
pub fn read_varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut value = 0_u64;
    loop {
        let (&digit, rest) = bytes.split_first().ok_or_else(|| corrupt("a number cut short"))?;
        *bytes = rest;
        if value > u64::MAX >> 7 {
            return Err(corrupt("a number above 64 bits"));
        }
        value = (value << 7) | u64::from(digit & 0x7f);
        if digit & 0x80 == 0 {
            return Ok(value);
        }
        value = value.checked_add(1).ok_or_else(|| corrupt("a number above 64 bits"))?;
    }
}

/// Reads a VARINT of at most 32 bits.
///
/// # Errors
///
/// Returns [`Error::Corrupt`] if the bytes end, or the number has more than 32 bits.
pub fn read_varint_u32(bytes: &mut &[u8]) -> Result<u32> {
    u32::try_from(read_varint(bytes)?).map_err(|_| corrupt("a number above 32 bits"))
}

/// Makes amounts with few significant digits small: the number of trailing zeros (at most nine)
/// and the last digit before them come out as the lowest digits.
///
/// # Panics
///
/// Panics if the amount is so large that its code has more than 64 bits, which is beyond all
/// money there is.
#[must_use]
pub const fn compress_amount(mut amount: u64) -> u64 {
    if amount == 0 {
        return 0;
    }
    let mut zeros = 0;
    while amount.is_multiple_of(10) && zeros < 9 {
        amount /= 10;
        zeros += 1;
    }
    if zeros == 9 {
        return 1 + (amount - 1) * 10 + 9;
    }
    let digit = amount % 10;
    1 + (amount / 10 * 9 + digit - 1) * 10 + zeros
}

/// Reverses [`compress_amount`]; `None` if no amount of 64 bits has this code.
#[must_use]
pub fn decompress_amount(code: u64) -> Option<u64> {
    let Some(code) = code.checked_sub(1) else {
        return Some(0);
    };
    let zeros = u32::try_from(code % 10).ok()?;
    let code = code / 10;
    let amount = if zeros < 9 {
        (code / 9).checked_mul(10)?.checked_add(code % 9 + 1)?
    } else {
        code.checked_add(1)?
    };
    amount.checked_mul(10_u64.pow(zeros))
}

/// Appends a script: pay-to-pubkey-hash, pay-to-script-hash and pay-to-pubkey in 21 or 33 bytes,
/// any other with its length.
pub fn write_script(script: &Script, out: &mut Vec<u8>) {
    const DUP: u8 = OP_DUP.to_u8();
    const HASH160: u8 = OP_HASH160.to_u8();
    const EQUAL: u8 = OP_EQUAL.to_u8();
    const EQUALVERIFY: u8 = OP_EQUALVERIFY.to_u8();
    const CHECKSIG: u8 = OP_CHECKSIG.to_u8();
    match script.as_bytes() {
        [DUP, HASH160, 20, hash @ .., EQUALVERIFY, CHECKSIG] if hash.len() == 20 => {
            out.push(0);
            out.extend_from_slice(hash);
        }
        [HASH160, 20, hash @ .., EQUAL] if hash.len() == 20 => {
            out.push(1);
            out.extend_from_slice(hash);
        }
        [33, parity @ (2 | 3), x @ .., CHECKSIG] if x.len() == 32 => {
            out.push(*parity);
            out.extend_from_slice(x);
        }
        // Only a point of the curve can be restored from x.
        [65, key @ .., CHECKSIG] if is_full_key(key) => {
            let odd = key.last().is_some_and(|byte| byte & 1 == 1);
            out.push(if odd { 5 } else { 4 });
            out.extend(key.iter().skip(1).take(32));
        }
        other => {
            write_varint(other.len() as u64 + SPECIAL_SCRIPTS, out);
            out.extend_from_slice(other);
        }
    }
}

fn is_full_key(key: &[u8]) -> bool {
    key.len() == 65 && key.first() == Some(&4) && PublicKey::from_slice(key).is_ok()
}

/// A script as [`write_script`] wrote it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CompressedScript<'a> {
    /// Pay to a public key's hash.
    P2pkh(&'a [u8; 20]),
    /// Pay to a script's hash.
    P2sh(&'a [u8; 20]),
    /// Pay to a public key of 33 bytes: its parity, and x.
    P2pk(u8, &'a [u8; 32]),
    /// Pay to a public key of 65 bytes: the parity of y, and x.
    FullP2pk(u8, &'a [u8; 32]),
    /// Any other script, as it is; nothing stands for one that is too long to be run.
    Other(&'a [u8]),
}

impl<'a> CompressedScript<'a> {
    /// Reads a script off the front of `bytes`.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Corrupt`] if the bytes end.
    pub fn read(bytes: &mut &'a [u8]) -> Result<Self> {
        Ok(match read_varint(bytes)? {
            0 => Self::P2pkh(take_array(bytes)?),
            1 => Self::P2sh(take_array(bytes)?),
            parity @ (2 | 3) => Self::P2pk(if parity == 2 { 2 } else { 3 }, take_array(bytes)?),
            parity @ (4 | 5) => Self::FullP2pk(if parity == 4 { 2 } else { 3 }, take_array(bytes)?),
            size => {
                let len = usize::try_from(size - SPECIAL_SCRIPTS)
                    .map_err(|_| corrupt("a script longer than memory"))?;
                let script = take(bytes, len)?;
                // As Core reads it; no such output is ever written, for it cannot be spent.
                Self::Other(if len > SCRIPT_LEN_MAX { &[OP_RETURN_CODE] } else { script })
            }
        })
    }

    /// Appends the script itself.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Corrupt`] if a public key is not a point of the curve.
    pub fn decompress_into(self, out: &mut Vec<u8>) -> Result<()> {
        let (dup, hash160, push) = (OP_DUP, OP_HASH160, OP_PUSHBYTES_20);
        match self {
            Self::P2pkh(hash) => {
                out.extend_from_slice(&[dup.to_u8(), hash160.to_u8(), push.to_u8()]);
                out.extend_from_slice(hash);
                out.extend_from_slice(&[OP_EQUALVERIFY.to_u8(), OP_CHECKSIG.to_u8()]);
            }
            Self::P2sh(hash) => {
                out.extend_from_slice(&[hash160.to_u8(), push.to_u8()]);
                out.extend_from_slice(hash);
                out.push(OP_EQUAL.to_u8());
            }
            Self::P2pk(parity, x) => {
                out.extend_from_slice(&[OP_PUSHBYTES_33.to_u8(), parity]);
                out.extend_from_slice(x);
                out.push(OP_CHECKSIG.to_u8());
            }
            Self::FullP2pk(parity, x) => {
                let key = [&[parity], x.as_slice()].concat();
                let key =
                    PublicKey::from_slice(&key).map_err(|_| corrupt("a key not on the curve"))?;
                out.push(OP_PUSHBYTES_65.to_u8());
                out.extend_from_slice(&key.serialize_uncompressed());
                out.push(OP_CHECKSIG.to_u8());
            }
            Self::Other(script) => out.extend_from_slice(script),
        }
        Ok(())
    }

    /// Returns whether the script pays to a script's hash.
    #[must_use]
    pub fn is_p2sh(self) -> bool {
        match self {
            Self::P2sh(_) => true,
            Self::Other(script) => Script::from_bytes(script).is_p2sh(),
            _ => false,
        }
    }

    /// Returns the bytes of a script that is not one of the common kinds: the only ones that may
    /// be a witness program.
    #[must_use]
    pub const fn other(self) -> Option<&'a [u8]> {
        match self {
            Self::Other(script) => Some(script),
            _ => None,
        }
    }
}

/// Reads a script.
///
/// # Errors
///
/// Returns [`Error::Corrupt`] if the bytes end, or a public key is not a point of the curve.
pub fn read_script(bytes: &mut &[u8]) -> Result<ScriptBuf> {
    let mut script = Vec::new();
    CompressedScript::read(bytes)?.decompress_into(&mut script)?;
    Ok(ScriptBuf::from_bytes(script))
}

/// Appends an output's amount, compressed.
pub(crate) fn write_amount(satoshis: u64, out: &mut Vec<u8>) {
    write_varint(compress_amount(satoshis), out);
}

/// Reads an amount in satoshis.
///
/// # Errors
///
/// Returns [`Error::Corrupt`] if the bytes are no amount, or it is above all money there is, which
/// no valid output's is.
pub fn read_amount(bytes: &mut &[u8]) -> Result<u64> {
    let amount = decompress_amount(read_varint(bytes)?);
    let amount = amount.filter(|&amount| amount <= Amount::MAX_MONEY.to_sat());
    amount.ok_or_else(|| corrupt("an amount above all money there is"))
}

/// Appends an output: compressed amount, compressed script (`TxOutCompression`).
pub fn write_output(output: &TxOut, out: &mut Vec<u8>) {
    write_amount(output.value.to_sat(), out);
    write_script(&output.script_pubkey, out);
}

/// Reads an output.
///
/// # Errors
///
/// As [`read_amount`] and [`read_script`].
pub fn read_output(bytes: &mut &[u8]) -> Result<TxOut> {
    let value = Amount::from_sat(read_amount(bytes)?);
    Ok(TxOut { value, script_pubkey: read_script(bytes)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::hex::{DisplayHex as _, FromHex as _};

    const COIN: u64 = 100_000_000;

    fn varint(value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        write_varint(value, &mut out);
        out
    }

    /// The table in Core's `serialize.h`.
    #[test]
    fn varints_are_cores() {
        let cases: &[(u64, &[u8])] = &[
            (0, &[0x00]),
            (1, &[0x01]),
            (127, &[0x7f]),
            (128, &[0x80, 0x00]),
            (255, &[0x80, 0x7f]),
            (256, &[0x81, 0x00]),
            (16383, &[0xfe, 0x7f]),
            (16384, &[0xff, 0x00]),
            (16511, &[0xff, 0x7f]),
            (65535, &[0x82, 0xfe, 0x7f]),
            (1 << 32, &[0x8e, 0xfe, 0xfe, 0xff, 0x00]),
        ];
        for &(value, expected) in cases {
            assert_eq!(varint(value), expected, "{value}");
            let mut rest = expected;
            assert_eq!(read_varint(&mut rest).unwrap(), value);
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn varints_are_read_back() {
        let numbers = (0..64).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1_u64 << bit) + 1]);
        for value in numbers.chain([u64::MAX - 1, u64::MAX]) {
            assert_eq!(read_varint(&mut varint(value).as_slice()).unwrap(), value);
        }
    }

    #[test]
    fn overlong_and_torn_varints_are_errors() {
        assert!(read_varint(&mut [0xff; 20].as_slice()).is_err());
        assert!(read_varint(&mut [0x80].as_slice()).is_err());
        assert!(read_varint_u32(&mut varint(1 << 32).as_slice()).is_err());
        assert_eq!(read_varint_u32(&mut varint(0xffff_ffff).as_slice()).unwrap(), u32::MAX);
    }

    /// The pairs of Core's `compress_tests.cpp`.
    #[test]
    fn amounts_are_cores() {
        let cases = [
            (0, 0x0),
            (1, 0x1),
            (COIN / 100, 0x7),
            (COIN, 0x9),
            (50 * COIN, 0x32),
            (21_000_000 * COIN, 0x0140_6f40),
        ];
        for (amount, code) in cases {
            assert_eq!(compress_amount(amount), code);
            assert_eq!(decompress_amount(code), Some(amount));
        }
    }

    #[test]
    fn amounts_are_read_back() {
        let odd = (0..200_000).map(|n| n * n * 52_501);
        for amount in (0..100_000).chain(odd).filter(|&amount| amount <= 21_000_000 * COIN) {
            assert_eq!(decompress_amount(compress_amount(amount)), Some(amount));
        }
        for code in 0..100_000 {
            assert_eq!(decompress_amount(code).map(compress_amount), Some(code));
        }
        assert_eq!(decompress_amount(u64::MAX), None);
    }

    #[track_caller]
    fn check_script(script: &str, coded: &str) {
        let script = ScriptBuf::from_hex(script).unwrap();
        let mut out = Vec::new();
        write_script(&script, &mut out);
        assert_eq!(out.to_lower_hex_string(), coded);
        let mut rest = out.as_slice();
        assert_eq!(read_script(&mut rest).unwrap(), script);
        assert!(rest.is_empty());
        for len in 0..out.len() {
            assert!(read_script(&mut &out[..len]).is_err());
        }
    }

    const KEY: &str = "0496b538e853519c726a2c91e61ec11600ae1390813a627c66fb8be7947be63c52\
                       da7589379515d4e0a604f8141781e62294721166bf621e73a82cbf2342c858ee";

    #[test]
    fn known_scripts_are_short() {
        let hash = "00".repeat(19) + "07";
        check_script(&format!("76a914{hash}88ac"), &format!("00{hash}"));
        check_script(&format!("a914{hash}87"), &format!("01{hash}"));
        let x = &KEY[2..66];
        check_script(&format!("2102{x}ac"), &format!("02{x}"));
        check_script(&format!("2103{x}ac"), &format!("03{x}"));
        check_script(&format!("41{KEY}ac"), &format!("04{x}"));
    }

    #[test]
    fn other_scripts_keep_their_bytes() {
        check_script("", "06");
        check_script("51", "0751");
        // P2WPKH.
        let hash = "11".repeat(20);
        check_script(&format!("0014{hash}"), &format!("1c0014{hash}"));
        // 65 bytes that are not on the curve, and a hybrid key.
        let off_curve = format!("41{}efac", &KEY[..128]);
        check_script(&off_curve, &format!("49{off_curve}"));
        let hybrid = format!("4106{}ac", &KEY[2..]);
        check_script(&hybrid, &format!("49{hybrid}"));
    }

    #[test]
    fn a_key_off_the_curve_is_an_error() {
        let bytes = Vec::from_hex(&("04".to_owned() + &"ff".repeat(32))).unwrap();
        assert!(read_script(&mut bytes.as_slice()).is_err());
    }

    #[test]
    fn a_huge_length_allocates_nothing() {
        assert!(read_script(&mut varint(u64::MAX).as_slice()).is_err());
    }
}
