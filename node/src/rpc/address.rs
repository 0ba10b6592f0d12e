//! Addresses read with Core's explanations of what is wrong with one (`key_io.cpp`).

use bitcoin::bech32::primitives::decode::UncheckedHrpstring;
use bitcoin::bech32::{Bech32, Bech32m, ByteIterExt as _, Fe32, Fe32IterExt as _};
use bitcoin::opcodes::all::OP_PUSHNUM_1;
use bitcoin::{Network, PubkeyHash, ScriptBuf, ScriptHash, base58};

use super::bech32_errors;

/// Longest text in bech32 (BIP173).
const BECH32_CHARS_MAX: usize = 90;

/// Symbols of the checksum.
const CHECKSUM_CHARS: usize = 6;

/// Longest witness program.
const PROGRAM_BYTES_MAX: usize = 40;

/// Longest text that is looked at as base58 to say what is wrong with it.
const BASE58_BYTES_MAX: usize = 100;

/// Why a text is no address, and where it is wrong as far as can be said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct AddressFault {
    /// The reason in Core's words.
    pub(super) text: String,
    /// Indices of characters.
    pub(super) at: Vec<usize>,
}

impl From<&str> for AddressFault {
    fn from(text: &str) -> Self {
        Self { text: text.to_owned(), at: Vec::new() }
    }
}

/// Returns the script that an address of the network pays to.
pub(super) fn decode(text: &str, network: Network) -> Result<ScriptBuf, AddressFault> {
    let hrp = match network {
        Network::Bitcoin => "bc",
        Network::Regtest => "bcrt",
        _ => "tb",
    };
    let is_bech32 = text.get(..hrp.len()).is_some_and(|start| start.eq_ignore_ascii_case(hrp));
    if is_bech32 { decode_bech32(text, hrp) } else { decode_base58(text, network) }
}

fn decode_base58(text: &str, network: Network) -> Result<ScriptBuf, AddressFault> {
    let (key_prefix, script_prefix) = if network == Network::Bitcoin { (0, 5) } else { (111, 196) };
    let bytes = match base58::decode_check(text) {
        Ok(bytes) if bytes.len() <= 21 => bytes,
        _ => {
            let is_base58 = base58::decode(text).is_ok_and(|all| all.len() <= BASE58_BYTES_MAX);
            return Err(if is_base58 {
                "Invalid checksum or length of Base58 address (P2PKH or P2SH)".into()
            } else {
                "Invalid or unsupported Segwit (Bech32) or Base58 encoding.".into()
            });
        }
    };
    let (prefix, hash) =
        bytes.split_first().ok_or("Invalid or unsupported Base58-encoded address.")?;
    let hash: Result<[u8; 20], _> = hash.try_into();
    use bitcoin::hashes::Hash as _;
    match hash {
        Ok(hash) if *prefix == key_prefix => {
            Ok(ScriptBuf::new_p2pkh(&PubkeyHash::from_byte_array(hash)))
        }
        Ok(hash) if *prefix == script_prefix => {
            Ok(ScriptBuf::new_p2sh(&ScriptHash::from_byte_array(hash)))
        }
        Err(_) if *prefix == key_prefix || *prefix == script_prefix => {
            Err("Invalid length for Base58 address (P2PKH or P2SH)".into())
        }
        _ => Err("Invalid or unsupported Base58-encoded address.".into()),
    }
}

fn decode_bech32(text: &str, hrp: &str) -> Result<ScriptBuf, AddressFault> {
    let values = symbols(text)?;
    let is_checked = UncheckedHrpstring::new(text).ok().and_then(|string| {
        if string.has_valid_checksum::<Bech32>() {
            Some(false)
        } else {
            string.has_valid_checksum::<Bech32m>().then_some(true)
        }
    });
    let found = text.rsplit_once('1').map_or("", |(hrp, _)| hrp).to_lowercase();
    let is_bech32m = is_checked.ok_or_else(|| {
        let symbols: Vec<u8> = values.iter().map(|value| value.to_u8()).collect();
        let (reason, at) = bech32_errors::locate(&found, &symbols, text.len());
        AddressFault { text: reason.to_owned(), at }
    })?;
    let data = values.get(..values.len().saturating_sub(CHECKSUM_CHARS)).unwrap_or_default();
    let (version, program) = data.split_first().ok_or("Empty Bech32 data section")?;
    if found != hrp {
        let text = format!(
            "Invalid or unsupported prefix for Segwit (Bech32) address (expected {hrp}, got {found})."
        );
        return Err(text.as_str().into());
    }
    let version = version.to_u8();
    if version == 0 && is_bech32m {
        return Err("Version 0 witness address must use Bech32 checksum".into());
    }
    if version != 0 && !is_bech32m {
        return Err("Version 1+ witness address must use Bech32m checksum".into());
    }
    let bytes: Vec<u8> = program.iter().copied().fes_to_bytes().collect();
    // What is left over is less than a symbol, and zero.
    if bytes.iter().copied().bytes_to_fes().ne(program.iter().copied()) {
        return Err("Invalid padding in Bech32 data section".into());
    }
    witness_script(version, &bytes)
}

fn witness_script(version: u8, program: &[u8]) -> Result<ScriptBuf, AddressFault> {
    let (count, unit) = (program.len(), if program.len() == 1 { "byte" } else { "bytes" });
    let fault = |text: String| Err(AddressFault { text, at: Vec::new() });
    match version {
        0 if count != 20 && count != 32 => {
            fault(format!("Invalid Bech32 v0 address program size ({count} {unit}), per BIP141"))
        }
        17.. => fault("Invalid Bech32 address witness version".into()),
        _ if !(2..=PROGRAM_BYTES_MAX).contains(&count) => {
            fault(format!("Invalid Bech32 address program size ({count} {unit})"))
        }
        _ => {
            let opcode =
                if version == 0 { 0 } else { OP_PUSHNUM_1.to_u8().saturating_add(version - 1) };
            let length = u8::try_from(count).unwrap_or_default();
            let bytes = [opcode, length].into_iter().chain(program.iter().copied());
            Ok(ScriptBuf::from_bytes(bytes.collect()))
        }
    }
}

/// Returns the symbols after the separator, as Core's `LocateErrors` walks through a text.
fn symbols(text: &str) -> Result<Vec<Fe32>, AddressFault> {
    let fault = |text: &str, at: Vec<usize>| Err(AddressFault { text: text.to_owned(), at });
    if text.len() > BECH32_CHARS_MAX {
        return fault("Bech32 string too long", (BECH32_CHARS_MAX..text.len()).collect());
    }
    let (mut lower, mut upper, mut wrong) = (false, false, Vec::new());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' if upper => wrong.push(at),
            b'a'..=b'z' => lower = true,
            b'A'..=b'Z' if lower => wrong.push(at),
            b'A'..=b'Z' => upper = true,
            33..=126 => {}
            _ => wrong.push(at),
        }
    }
    if !wrong.is_empty() {
        return fault("Invalid character or mixed case", wrong);
    }
    let Some(separator) = text.rfind('1') else { return fault("Missing separator", Vec::new()) };
    if separator == 0 || separator + CHECKSUM_CHARS >= text.len() {
        return fault("Invalid separator position", vec![separator]);
    }
    let mut values = Vec::new();
    for (at, character) in text.char_indices().skip(separator + 1) {
        match Fe32::from_char(character) {
            Ok(value) => values.push(value),
            Err(_) => return fault("Invalid Base 32 character", vec![at]),
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn wrong(text: &str, reason: &str, at: &[usize]) {
        let fault = decode(text, Network::Regtest).unwrap_err();
        assert_eq!((fault.text.as_str(), fault.at.as_slice()), (reason, at), "{text}");
    }

    /// Addresses of Bitcoin Core's `rpc_invalid_address_message.py`.
    #[test]
    fn faults_are_explained_as_core_does() {
        wrong("bcrt1sqqpl9r5c", "Version 1+ witness address must use Bech32m checksum", &[]);
        wrong("bcrt1q049edschfnwystcqnsvyfpj23mpsg3jcedq9xv", "Invalid Bech32 checksum", &[9]);
        wrong(
            "bcrt1s0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7v8n0nx0muaewav25430mtr",
            "Invalid Bech32 address program size (41 bytes)",
            &[],
        );
        wrong(
            "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kqqq5k3my",
            "Invalid Bech32 v0 address program size (21 bytes), per BIP141",
            &[],
        );
        let prefix = "bc1pw508d6qejxtdg4y5r3zarvary0c5xw7kw508d6qejxtdg4y5r3zarvary0c5xw7k7grplx";
        wrong(prefix, "Invalid or unsupported Segwit (Bech32) or Base58 encoding.", &[]);
        wrong("bcrt1q", "Invalid separator position", &[4]);
        wrong("bcrtq049", "Missing separator", &[]);
        wrong("bcrt1q04oldspv5xqv", "Invalid Base 32 character", &[8]);
        wrong("bCRT1q04oldspv5xqv", "Invalid character or mixed case", &[1, 2, 3]);
        wrong(
            "17VZNX1SN5NtKa8UQFxwQbFeFc3iqRYhem",
            "Invalid or unsupported Base58-encoded address.",
            &[],
        );
        wrong(
            "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJJfn",
            "Invalid checksum or length of Base58 address (P2PKH or P2SH)",
            &[],
        );
        wrong(
            "asfah14i8fajz0123f",
            "Invalid or unsupported Segwit (Bech32) or Base58 encoding.",
            &[],
        );
        let reason = "Invalid checksum or length of Base58 address (P2PKH or P2SH)";
        wrong("", reason, &[]);
    }

    #[test]
    fn addresses_become_the_scripts_that_the_library_makes_of_them() {
        for text in [
            "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn",
            "2NCpLqbqYxYD9HUYCNWxHZYPRzSAWmvqAF7",
            "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
            "bcrt1p9yfmy5h72durp7zrhlw9lf7jpwjgvwdg0jr0lqmmjtgg83266lqsekaqka",
        ] {
            let Ok(address) = text.parse::<bitcoin::Address<_>>() else { continue };
            let expected = address.assume_checked().script_pubkey();
            assert_eq!(decode(text, Network::Regtest), Ok(expected), "{text}");
        }
    }
}
