//! Output descriptors as far as a node without a wallet needs them: `raw(HEX)` and `addr(..)` in,
//! the descriptor of a script out, with Bitcoin Core's checksum.

use std::str::FromStr as _;

use bitcoin::address::NetworkUnchecked;
use bitcoin::hex::{DisplayHex as _, FromHex as _};
use bitcoin::{Address, Network, Script, ScriptBuf};

use super::{RpcError, code};

/// Adds the checksum.
pub(crate) fn with_checksum(descriptor: &str) -> String {
    match checksum(descriptor) {
        Some(checksum) => format!("{descriptor}#{checksum}"),
        None => descriptor.to_owned(),
    }
}

/// Returns the script of `raw(HEX)` or `addr(ADDRESS)`; the checksum may be left out.
pub(crate) fn parse(text: &str, network: Network) -> Result<ScriptBuf, RpcError> {
    let error = |message: String| RpcError::new(code::INVALID_ADDRESS_OR_KEY, message);
    let (descriptor, given) = match text.split_once('#') {
        Some((descriptor, given)) => (descriptor, Some(given)),
        None => (text, None),
    };
    if let Some(given) = given {
        let expected = checksum(descriptor).unwrap_or_default();
        if given != expected {
            return Err(error(format!(
                "Provided checksum '{given}' does not match computed checksum '{expected}'"
            )));
        }
    }
    let inner = |name: &str| descriptor.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')');
    if let Some(hex) = inner("raw") {
        let bytes = Vec::from_hex(hex).map_err(|_| error("Raw script is not hex".into()))?;
        return Ok(ScriptBuf::from_bytes(bytes));
    }
    if let Some(text) = inner("addr") {
        return address(text, network).ok_or_else(|| error("Address is not valid".into()));
    }
    let name = descriptor.split('(').next().unwrap_or(descriptor);
    Err(error(format!("'{name}' is not a valid descriptor function")))
}

/// Returns the script that an address of the network pays to.
pub(crate) fn address(text: &str, network: Network) -> Option<ScriptBuf> {
    let address = Address::<NetworkUnchecked>::from_str(text).ok()?;
    Some(address.require_network(network).ok()?.script_pubkey())
}

/// Returns the descriptor of a script, as Core's `InferDescriptor` without keys.
pub(crate) fn infer(script: &Script, network: Network) -> String {
    let descriptor = if let Some(key) = script.p2pk_public_key() {
        format!("pk({key})")
    } else if script.is_p2tr() {
        let key = script.as_bytes().get(2..).unwrap_or_default();
        format!("rawtr({})", key.as_hex())
    } else if let Ok(address) = Address::from_script(script, network) {
        format!("addr({address})")
    } else {
        format!("raw({})", script.as_bytes().as_hex())
    };
    with_checksum(&descriptor)
}

/// Core's `DescriptorChecksum`; `None` for characters that no descriptor has.
fn checksum(descriptor: &str) -> Option<String> {
    const INPUT: &str = "0123456789()[],'/*abcdefgh@:$%{}IJKLMNOPQRSTUVWXYZ&+-.;<=>?!^_|~ijklmnopqrstuvwxyzABCDEFGH`#\"\\ ";
    const OUTPUT: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    let (mut state, mut class, mut count) = (1, 0, 0);
    for character in descriptor.chars() {
        let position = u64::try_from(INPUT.find(character)?).ok()?;
        state = poly_mod(state, position & 31);
        class = class * 3 + (position >> 5);
        count += 1;
        if count == 3 {
            state = poly_mod(state, class);
            (class, count) = (0, 0);
        }
    }
    if count > 0 {
        state = poly_mod(state, class);
    }
    for _ in 0..8 {
        state = poly_mod(state, 0);
    }
    state ^= 1;
    let symbol = |index: u64| {
        OUTPUT.get(usize::try_from(state >> (5 * (7 - index)) & 31).ok()?).map(|b| char::from(*b))
    };
    (0..8).map(symbol).collect()
}

const fn poly_mod(state: u64, value: u64) -> u64 {
    const GENERATORS: [u64; 5] =
        [0xf5_dee5_1989, 0xa9_fdca_3312, 0x1b_ab10_e32d, 0x37_06b1_677a, 0x64_4d62_6ffd];
    let [g0, g1, g2, g3, g4] = GENERATORS;
    let top = state >> 35;
    let mut next = ((state & 0x7_ffff_ffff) << 5) ^ value;
    next ^= if top & 1 != 0 { g0 } else { 0 };
    next ^= if top & 2 != 0 { g1 } else { 0 };
    next ^= if top & 4 != 0 { g2 } else { 0 };
    next ^= if top & 8 != 0 { g3 } else { 0 };
    next ^ if top & 16 != 0 { g4 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_core() {
        // From Core's descriptor tests and documentation.
        assert_eq!(with_checksum("raw(deadbeef)"), "raw(deadbeef)#89f8spxm");
        assert_eq!(
            with_checksum("addr(mkmZxiEcEd8ZqjQWVZuC6so5dFMKEFpN2j)"),
            "addr(mkmZxiEcEd8ZqjQWVZuC6so5dFMKEFpN2j)#02wpgw69"
        );
    }

    #[test]
    fn descriptors_become_scripts() {
        let parse = |text| parse(text, Network::Regtest);
        assert_eq!(parse("raw(51)").unwrap().as_bytes(), [0x51]);
        assert_eq!(parse("raw(deadbeef)#89f8spxm").unwrap().len(), 4);
        assert!(parse("raw(deadbeef)#89f8spxx").unwrap_err().message.contains("does not match"));
        let script = parse("addr(mjTkW3DjgyZck4KbiRusZsqTgaYTxdSz6z)").unwrap();
        assert_eq!(
            infer(&script, Network::Regtest).split('#').next(),
            Some("addr(mjTkW3DjgyZck4KbiRusZsqTgaYTxdSz6z)")
        );
        assert!(parse("addr(1BoatSLRHtKNngkdXEeobR76b53LETtpyT)").is_err(), "another network's");
        assert!(parse("wpkh(x)").unwrap_err().message.contains("'wpkh' is not a valid"));
        assert!(parse("raw(5)").is_err());
    }
}
